"""When the daemon is paused: by hand, outside of the config's hours, and on battery.

Knows nothing of what waits.
"""

import calendar
import contextlib
import os
import time
from pathlib import Path

from stylewatch.settings.config import Config

_SUPPLIES = Path("/sys/class/power_supply")
BY_HAND = "by hand"
ON_BATTERY = "while on battery"


class Rest:
    """Whether new photos are begun, and why not, as a person and the config want it.

    `resume` overrules the reasons that the config has for a pause at that moment; each counts again
    after it has been over once, or when the hours are changed. `pause` takes a `resume` back that
    still overrules something; else it holds until `resume`, whatever ends the daemon meanwhile.
    """

    def __init__(self, kept: Path, supplies: Path = _SUPPLIES) -> None:
        """`kept` is a file that is there as long as a person wants a pause."""
        self._kept = kept
        self._supplies = supplies
        self._by_hand = os.path.exists(kept)
        self._wanted: list[tuple[str, int]] = []
        self._overruled: set[tuple[str, int]] = set()

    @property
    def why(self) -> str:
        """The words after `paused`; empty while photos are begun."""
        wanted = (each[0] for each in self._wanted if each not in self._overruled)
        return BY_HAND if self._by_hand else next(wanted, "")

    def pause(self) -> None:
        """A person wants no more photos to be begun."""
        self._set(by_hand=not self._overruled)
        self._overruled = set()

    def resume(self) -> None:
        """A person wants photos to be begun, whatever the hour."""
        self._set(by_hand=False)
        self._overruled = set(self._wanted)

    def _set(self, *, by_hand: bool) -> None:
        self._by_hand = by_hand
        with contextlib.suppress(OSError):  # then it is over with the daemon
            self._kept.touch() if by_hand else self._kept.unlink()

    def follow(self, config: Config, wall: float) -> None:
        """Take note of what the config wants at this time (`wall`: seconds since 1970)."""
        self._wanted = _until(config, wall)
        if config.on_battery == "wait" and on_battery(self._supplies):
            self._wanted.append((ON_BATTERY, 0))
        self._overruled &= {*self._wanted}


def _until(config: Config, wall: float) -> list[tuple[str, int]]:
    """When the hours begin, in words and in minutes of the clock on the wall; empty within them.

    Today's 22:00 is not tomorrow's: a machine may sleep through the hours between them.
    """
    time.tzset()  # a laptop travels: the system's time zone is read anew only when asked to
    local = time.localtime(wall)
    minute = 60 * local.tm_hour + local.tm_min
    if any(hours.cover(minute) for hours in config.hours):
        return []
    begin = calendar.timegm(local) // 60 + min(hours.wait(minute) for hours in config.hours)
    return [(f"until {begin // 60 % 24:02}:{begin % 60:02}", begin)]


def on_battery(supplies: Path) -> bool:
    """Whether a battery of this machine is being emptied, and no plug gives power.

    Those of its mice and keyboards have the scope `Device` (the kernel's sysfs-class-power).
    """
    emptied = False
    for supply in supplies.glob("*"):
        kind, scope, online, status = (
            _read(supply / name) for name in ("type", "scope", "online", "status")
        )
        if kind != "Battery" and online == "1":
            return False
        emptied |= kind == "Battery" and scope != "Device" and status == "Discharging"
    return emptied


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):  # not every kind has all of them
        return ""
