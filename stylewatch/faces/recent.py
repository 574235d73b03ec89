"""What a client is told of the time before it came: the few events that still matter. Pure."""

from collections import deque
from dataclasses import replace
from typing import Final

from stylewatch.domain import Event

KEPT_EVENTS: Final = 50
"""So many of the latest events about photos that are done or failed are kept, and of warnings."""


class Recent:
    """The few events that bring a new client up to date, each with the time when it happened."""

    def __init__(self) -> None:
        self._started: list[Event] = []
        self._paused: list[Event] = []
        self._folders: dict[str, Event] = {}
        self._running: dict[int, list[Event]] = {}
        self._ended: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self._general: deque[Event] = deque(maxlen=KEPT_EVENTS)  # of no photo: may still hold
        self._done = 0

    def note(self, event: Event, now: float) -> None:
        """Remember the event if it still matters later."""
        old = replace(event, extra={**event.extra, "at": now})
        match event.kind:
            case "started":
                self._started = [old]
            case "watching" | "folder":
                self._folders[event.folder] = old
            case "paused" | "resumed":
                self._paused = [old] if event.kind == "paused" else []
            case "running":
                self._running[event.job_id] = [old]
            case "progress" if event.job_id in self._running:
                self._running[event.job_id][1:] = [old]
            case "recovered" | "reload":
                self._forget_ended_by(event)
            case _ if event.stops_work:
                self._forget_ended_by(event)
                self._running.pop(event.job_id, None)
                lasts = event.general and event.kind in {"warning", "blocked"}
                (self._general if lasts else self._ended).append(old)
                self._done += event.kind == "done"

    def _forget_ended_by(self, event: Event) -> None:
        still = (
            each
            for each in self._general
            if not event.ends(each.kind, each.reason, each.message, each.output)
        )
        self._general = deque(still, maxlen=KEPT_EVENTS)

    def replay(self) -> list[Event]:
        """The events, in an order in which they make sense."""
        running = [event for events in self._running.values() for event in events]
        # Folders come last: their counts of waiting photos are right whatever was told before.
        started = [replace(e, extra={**e.extra, "done": self._done}) for e in self._started]
        ended = sorted([*self._general, *self._ended], key=lambda event: event.extra["at"])
        return [*started, *self._paused, *ended, *running, *self._folders.values()]
