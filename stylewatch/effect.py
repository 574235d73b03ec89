"""Effects turn a photo into a picture; style transfer (`styletransfer`) is the built-in one.

An effect is found by its entry point in the group `stylewatch.effects`, so that another package
can add one: a class without arguments whose `render` is the method below. A preset asks for it by
that name, with `effect: NAME`. Knows nothing of watching, jobs, where results go, or of any
particular effect.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Protocol

import numpy as np

from stylewatch.domain import EngineSettings, OnStep, Preset
from stylewatch.errors import PresetError
from stylewatch.state.checkpoints import CheckpointFile


@dataclass(frozen=True, kw_only=True)
class Context:
    """What an effect may use besides the photo and the preset."""

    engine: EngineSettings
    on_step: OnStep
    checkpoint: CheckpointFile | None = None
    crashes: int = 0
    """How many processes have died of this photo: of too much memory, perhaps."""


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
    """For people, when something differs from the plain case."""


class Effect(Protocol):
    """What a plugin implements."""

    def render(self, photo: np.ndarray, preset: Preset, context: Context) -> Rendering:
        """The picture made of `photo` (H, W, 3; float32 RGB 0…255).

        Raises a `StylewatchError` when there is no usable picture.
        """


def open_effect(name: str) -> Effect:
    """The effect of that name.

    Raises:
        PresetError: no installed package offers it.
    """
    offered = {point.name: point for point in entry_points(group="stylewatch.effects")}
    if name not in offered:
        raise PresetError(
            f"Unknown effect '{name}'",
            key="effect",
            expected="one of " + ", ".join(sorted(offered)),
            received=name,
            reason="unknown-effect",
        )
    make: Callable[[], Effect] = offered[name].load()
    return make()
