"""What keeps a valid config from working just now: folders, rights, weights, presets.

All of it may come and go, as a volume or a permission does.
"""

import os
import stat
from functools import partial
from pathlib import Path

from stylewatch.errors import ConfigError
from stylewatch.settings.config import Config
from stylewatch.settings.layout import places_of
from stylewatch.settings.presets import Presets
from stylewatch.settings.weights import weights_trouble
from stylewatch.settings.yamlfile import dotted


def check(config: Config) -> list[ConfigError]:
    """All of it, one error each; also presets that the config does not name."""
    problem = partial(ConfigError, file=config.file)
    problems: list[ConfigError] = []
    for place in places_of(config):
        trouble_of = _reading_trouble if place.use == "watched" else _writing_trouble
        if trouble := trouble_of(place.path):
            problems.append(
                problem(f"{place.what} {trouble}", key=dotted(place.keys), received=str(place.path))
            )
    for number, folder in enumerate(config.folders):
        if folder.after != "keep" and _writing_trouble(folder.input):
            text = f"photos can't be taken out of {folder.input}"
            problems.append(problem(text, key=f"folders[{number}].after"))
    if weights_error := weights_away(config):
        problems.append(weights_error)
    away = presets_away(config)
    _, broken = Presets.load(() if away else config.preset_dirs).sorted_out()
    return [*problems, *away, *broken.values()]


def presets_away(config: Config) -> list[ConfigError]:
    """Folders of presets, but for the usual one, that can't be listed now.

    Where a preset is named that is in none of them, also those that are empty: a disk may be
    mounted there later.
    """
    own = config.preset_dirs[:-1]
    troubles = {folder: _listing_trouble(folder) for folder in own}
    if own and not any(troubles.values()):
        there = Presets.load(config.preset_dirs)
        if not all(name in there for _, name in config.named_presets()):
            troubles = {folder: _listing_trouble(folder, empty="is empty") for folder in own}
    return [
        ConfigError(
            f"the presets folder {trouble}",
            file=config.file,
            key="presets",
            received=str(folder),
            remedy="It may hold a preset of any name. Is its disk there?",
        )
        for folder, trouble in troubles.items()
        if trouble
    ]


def weights_away(config: Config) -> ConfigError | None:
    """A weights file of one's own that can't be used now."""
    weights = config.engine.weights
    if not (trouble := weights_trouble(weights)):
        return None
    problem = f"the weights file {trouble}"
    return ConfigError(problem, file=config.file, key="weights", received=weights)


def _listing_trouble(folder: Path, *, empty: str = "") -> str:
    try:
        return "" if list(folder.iterdir()) else empty
    except OSError as error:
        return _reading_trouble(folder) or f"can't be read: {error.strerror}"


def _reading_trouble(path: Path) -> str:
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            return "is not a folder"
    except (FileNotFoundError, NotADirectoryError):
        return "does not exist"
    except OSError as error:
        return f"can't be read: {error.strerror}"
    return "" if os.access(path, os.R_OK | os.X_OK) else "can't be read"


def _writing_trouble(path: Path) -> str:
    """Why nothing can be written there; a folder that can be made is no trouble."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:  # closed to us, too long a name, a share that does not answer
        return f"can't be used: {error.strerror}"
    there = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if not os.path.isdir(there):
        return "is not a folder" if there == path else f"can't be made: {there} is not a folder"
    return "" if os.access(there, os.W_OK | os.X_OK) else "can't be written to"
