"""Which presets a command knows: those that `run` would know, as far as the config can be read."""

from pathlib import Path

from stylewatch.commands.answers import note
from stylewatch.errors import ConfigError


def preset_dirs(config: Path | None = None, *, also_away: bool = False) -> list[Path]:
    """The folders of presets that the config names, as far as they can be read now.

    What is wrong with a config that nobody asked for is told, and costs no more than its presets.
    With those `also_away` a daemon waits for them.

    Raises:
        ConfigError: the config that was named can't be read.
    """
    from stylewatch.settings.loading import preset_dirs_of  # noqa: PLC0415  (slow to import)
    from stylewatch.settings.paths import find_config  # noqa: PLC0415

    try:
        file = find_config(config)
    except ConfigError:  # there is none
        return []
    try:
        dirs, away = preset_dirs_of(file)
    except ConfigError as error:
        if config:
            raise
        note(f"presets may be missing: {error}")
        return []
    for trouble in away.values():
        note(f"presets may be missing: {trouble}")
    return [folder for folder in dirs if also_away or folder not in away]
