"""Which presets a command knows: those that `run` would know, as far as the config can be read."""

import os
from pathlib import Path

from stylewatch.commands.answers import note
from stylewatch.errors import ConfigError


def preset_dirs(config: Path | None = None) -> list[Path]:
    """The folders of presets that the config names, as far as they can be read now."""
    there, _ = named_dirs(config)
    return there


def named_dirs(config: Path | None = None) -> tuple[list[Path], list[Path]]:
    """The same, and those that are away, for which a daemon waits.

    What is wrong with a config that nobody asked for is told, and costs no more than its presets.

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
