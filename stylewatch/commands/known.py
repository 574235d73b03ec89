"""The presets that a command knows: as `run` does, as far as the config can be read."""

import io
import os
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from stylewatch.commands.answers import note
from stylewatch.domain import EngineSettings
from stylewatch.errors import ConfigError


def preset_names(incomplete: str) -> list[str]:
    """Those whose names begin so, for a shell that completes what is typed."""
    from stylewatch.settings.presets import known_presets  # noqa: PLC0415  (slow to import)

    with redirect_stderr(io.StringIO()):  # it would stand in the middle of what is typed
        return [name for name in known_presets(preset_dirs()) if name.startswith(incomplete)]


def preset_option(about: str, **more: Any) -> Any:
    """`--preset`, as every command has it; `about` is its help."""
    return typer.Option(
        "--preset", "-p", metavar="NAME", autocompletion=preset_names, help=about, **more
    )


NAME_OR_FILE = "A preset's name, or the path of a preset's YAML file."
PresetNames = Annotated[
    list[str] | None, preset_option(f"{NAME_OR_FILE} Several give several pictures.")
]
PresetName = Annotated[
    str,
    typer.Argument(
        metavar="NAME", autocompletion=preset_names, help="A preset's name, or its YAML file."
    ),
]


def preset_dirs(config: Path | None = None) -> list[Path]:
    """The folders of presets that the config names, as far as they can be read now."""
    there, _ = named_dirs(config)
    return there


def named_dirs(config: Path | None = None) -> tuple[list[Path], list[Path]]:
    """The folders of presets that the config names, and those of them that are away now.

    If a config was not named, but found, and something is wrong with it, that is told, and the
    command goes on without its presets.

    Raises:
        ConfigError: the config that was named can't be read.
    """
    from stylewatch.settings.loading import preset_dirs_of  # noqa: PLC0415  (slow to import)
    from stylewatch.settings.paths import find_config  # noqa: PLC0415

    try:
        file = find_config(config)
    except ConfigError:  # there is none
        return [], []
    try:
        dirs, unlisted = preset_dirs_of(file)
    except ConfigError as error:
        if config:
            raise
        note(f"presets may be missing: {error}")
        return [], []
    for trouble in unlisted.values():
        note(f"presets may be missing: {trouble}")
    away = [folder for folder in unlisted if not os.path.isfile(folder)]  # which is plainly wrong
    return [folder for folder in dirs if folder not in unlisted], away


def preset_features(config: Path | None = None) -> EngineSettings:
    """The features that the config asks for, as far as it can be read."""
    from stylewatch.settings.loading import features_of  # noqa: PLC0415  (slow to import)
    from stylewatch.settings.paths import find_config  # noqa: PLC0415

    with suppress(ConfigError):  # `named_dirs` tells of it
        return features_of(find_config(config))
    return EngineSettings()
