"""How far a run is: tells of each evaluation, when all will end, and when to stop early."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stylewatch.domain import Checkpoint, OnStep, Step, StyleSettings
from stylewatch.engine.objective import Parts
from stylewatch.engine.optimizers import Iterate
from stylewatch.errors import RenderError

OnCheckpoint = Callable[[Callable[[], Checkpoint]], None]
"""Called after every evaluation with a function that makes the checkpoint, if it is wanted."""
_STALL_WINDOW = 10
_SLOW = 3
"""So many evaluations of a stage tell nothing of its pace: their code may still be compiled."""


@dataclass(frozen=True)
class Scale:
    """One stage of the run, sizes in pixels."""

    number: int
    width: int
    height: int
    evaluations: int

    @property
    def cost(self) -> int:
        """Pixels that are evaluated, to which its time is in proportion."""
        return self.evaluations * self.width * self.height


class Progress:
    """Tells of every evaluation, keeps the time, and decides when to stop early."""

    def __init__(
        self,
        scales: Sequence[Scale],
        settings: StyleSettings,
        network: str,
        on_step: OnStep | None,
        on_checkpoint: OnCheckpoint | None,
        clock: Callable[[], float],
        resume: Checkpoint | None,
    ) -> None:
        self._scales = scales
        self._settings = settings
        self._network = network
        self._on_step = on_step
        self._on_checkpoint = on_checkpoint
        self._clock = clock
        self._resume = resume
        self._started = self._before = clock()
        self._total = sum(scale.cost for scale in scales)
        self._seconds, self._pixels = 0.0, 0  # of evaluations here that tell the pace
        self._scale = scales[0]
        self._losses: list[float] = []
        self.count = resume.count if resume else 0
        """Evaluations of all stages, with those before a process was killed."""
        self.evaluation = 0
        """Evaluations of this stage, with those before a process was killed."""
        self.parts = self.best = Parts((math.nan,) * 4)
        """The loss of the last evaluation, and of the best one."""
        self.spent = False
        """Whether the time budget has ended the run early."""

    def begin(self, scale: Scale, history: int) -> np.ndarray | None:
        """Begin a stage; if it goes on from a checkpoint, returns the image to go on from.

        What L-BFGS had learnt about the loss around that image is lost. It gets as many more
        evaluations as it remembers pairs, to learn it again: else the result would be worse. But
        each process comes one further at least, or one killed soon, again and again, never ended.
        """
        kept, self._resume = self._resume, None  # its image is as large as the picture
        self.evaluation = min(kept.evaluation, scale.evaluations - 1) if kept else 0
        self._least = self.evaluation + 1 if kept else 0
        self._history = history
        self._scale = scale
        self._losses = []
        return kept.image if kept else None

    def step(self, iterate: Iterate, image: Callable[[], np.ndarray]) -> bool:
        """Take note of one evaluation; returns whether to go on."""
        self.evaluation += 1
        self.count += 1
        now = self._clock()
        if len(self._losses) >= _SLOW:
            self._seconds += now - self._before
            self._pixels += self._scale.width * self._scale.height
        self._before = now
        if not math.isfinite(iterate.best_loss):
            raise RenderError(
                "The loss is not a finite number",
                received=str(iterate.loss),
                remedy="Are the preset's weights sensible numbers?",
                reason="not-finite",
            )
        self._losses.append(iterate.best_loss)
        if iterate.loss == iterate.best_loss:
            self.best = self.parts
        if self._on_step:
            self._on_step(self._told(now))
        if self._on_checkpoint:
            counted = max(self.evaluation - self._history, self._least)
            self._on_checkpoint(
                lambda: Checkpoint(self._scale.number, counted, image(), self._network, self.count)
            )
        budget = self._settings.time_budget
        last = self._scale is self._scales[-1] and self.evaluation >= self._scale.evaluations
        late = budget is not None and self._clock() - self._started >= budget
        self.spent = late and not last
        return not (self.spent or self._stalled())

    def _stalled(self) -> bool:
        if len(self._losses) <= _STALL_WINDOW:
            return False
        before, now = self._losses[-1 - _STALL_WINDOW], self._losses[-1]
        return before - now < self._settings.tolerance * before

    def _told(self, now: float) -> Step:
        scale, seconds = self._scale, now - self._started
        cost = sum(before.cost for before in self._scales[: scale.number - 1])
        cost += self.evaluation * scale.width * scale.height
        fraction = min(1.0, cost / self._total)
        left = self._seconds / max(1, self._pixels) * (self._total - cost)
        if (budget := self._settings.time_budget) is not None:
            fraction = max(fraction, min(1.0, seconds / budget))
            left = min(left, max(0.0, budget - seconds))
        return Step(
            scale=scale.number,
            scales=len(self._scales),
            width=scale.width,
            height=scale.height,
            evaluation=self.evaluation,
            evaluations=scale.evaluations,
            loss=self.parts.loss,
            content=self.parts.content,
            style=self.parts.style,
            tv=self.parts.tv,
            fraction=fraction,
            seconds=seconds,
            eta_seconds=left,
        )
