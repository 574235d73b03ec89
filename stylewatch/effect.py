"""Effects turn a photo into a picture; style transfer (`styletransfer`) is the built-in one.

An effect is found by its entry point in the group `stylewatch.effects`, so that another package
can add one: a class without arguments whose `render` is the method below. A preset asks for it by
that name, with `effect: NAME`. Knows nothing of watching, jobs, where results go, or of any
particular effect.
"""

import math
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from typing import Protocol

import numpy as np

from stylewatch.domain import EngineSettings, OnStep, Preset, Step
from stylewatch.errors import PresetEffectError, RenderError, named
from stylewatch.state.checkpoints import CheckpointFile

_DARK = 16.0
"""If no value of the photo is higher, a black picture may be right: a silhouette, a lens cap."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What an effect may use besides the photo and the preset."""

    engine: EngineSettings
    on_step: OnStep
    checkpoint: CheckpointFile | None = None
    crashes: int = 0
    """How many processes have died of this photo, perhaps as it takes too much memory."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Rendering:
    """What an effect gives."""

    rgb: np.ndarray
    """(H, W, 3) float32, 0…255; the size is the effect's choice."""
    evaluations: int = 0
    loss: float | None = None
    facts: dict[str, str] = field(default_factory=dict)
    """Provenance, written into the result's metadata."""
    note: str = ""
    """For people, if anything was unusual."""


class Effect(Protocol):
    """What a plugin implements."""

    def render(self, photo: np.ndarray, preset: Preset, context: Context) -> Rendering:
        """The picture made of `photo` (H, W, 3; float32 RGB 0…255).

        Raises a `StylewatchError` when there is no usable picture.
        """


def open_effect(name: str) -> Effect:
    """The effect of that name.

    Raises:
        PresetEffectError: no installed package offers it, or it can't be loaded.
    """
    offered = {point.name: point for point in entry_points(group="stylewatch.effects")}
    if name not in offered:
        raise PresetEffectError(
            f"Unknown effect '{name}'",
            key="effect",
            expected="one of " + ", ".join(sorted(offered)),
            received=name,
            remedy="Install its package where the daemon and where its workers run",
        )
    try:
        make: Callable[[], Effect] = offered[name].load()
        return make()
    except (Exception, SystemExit) as error:
        traceback.print_exc()  # into chatter.log, as all that libraries say
        raise PresetEffectError(
            f"The effect '{name}' can't be loaded",
            key="effect",
            received=named(error),
            remedy="Install what it lacks, or repair its package",
        ) from error


def steps_only(report: OnStep) -> OnStep:
    """`report`, made to refuse what every display would stumble over."""

    def on_step(step: object) -> None:
        if not isinstance(step, Step):
            raise TypeError(f"on_step takes a Step, not {type(step).__name__}")
        if not all(map(math.isfinite, (step.fraction, step.seconds, step.eta_seconds))):
            raise ValueError(f"a Step's fraction and times are finite numbers, not as in {step}")
        report(step)

    return on_step


def checked(given: object, brightest: float) -> Rendering:
    """What an effect gave, made sure to be of the right types and values.

    `brightest` is the photo's highest value.

    Raises:
        RenderError: it is no picture, or one whose values can't be meant.
    """
    if not isinstance(given, Rendering):
        received = type(given).__name__
        raise RenderError("The effect gave no picture", expected="a Rendering", received=received)
    rgb = np.asarray(given.rgb, dtype=np.float32)
    if rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        expected = "an `rgb` of the shape (H, W, 3)"
        text = "The effect gave no picture"
        raise RenderError(text, expected=expected, received=str(rgb.shape))
    check_values(rgb, brightest)
    loss = None if given.loss is None else float(given.loss)
    return replace(
        given,
        rgb=rgb,
        evaluations=int(given.evaluations),
        loss=loss if loss is not None and math.isfinite(loss) else None,
        facts={str(name): str(value) for name, value in given.facts.items()},
        note=str(given.note or ""),
    )


def check_values(rgb: np.ndarray, brightest: float) -> None:
    """Make sure that the values of a picture can be meant; `brightest` is the photo's highest.

    Raises:
        RenderError: some are no numbers, or the picture is black, though the photo is not.
    """
    remedy = "Try another preset, or see `stylewatch doctor`"
    if not np.isfinite(rgb).all():
        text = "The picture has values that are not numbers"
        raise RenderError(text, remedy=remedy, reason="not-finite")
    if rgb.max() <= 1.0 and brightest > _DARK:  # or it goes from 0 to 1, by mistake
        told = {"expected": "values of 0…255", "received": "at most 1", "remedy": remedy}
        raise RenderError("The picture came out black", **told, reason="black")
