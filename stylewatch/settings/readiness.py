"""What keeps a valid config from working just now: folders, rights, weights, presets.

All of it may come and go, as a disk or a permission does.
"""

import errno
import os
import shlex
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from stylewatch.errors import ConfigError
from stylewatch.settings.config import Config
from stylewatch.settings.layout import places_of
from stylewatch.settings.presets import Presets
from stylewatch.settings.weights import weights_trouble
from stylewatch.settings.yamlfile import KeyPath, YamlFile

_NO_FOLDER = "Move that file away, or name another folder"


class Trouble(NamedTuple):
    """What is wrong with a folder."""

    what: str  # behind the folder's name
    remedy: str


def check(config: Config) -> list[ConfigError]:
    """All that keeps the config from working, an error each; also presets that it does not name."""
    away = presets_away(config)
    _, broken = Presets.load(() if away else config.preset_dirs).sorted_out(config.engine)
    found = [*folder_errors(config), weights_away(config), *away, *broken.values()]
    return [*filter(None, found)]


def folder_errors(config: Config) -> Iterator[ConfigError]:
    """Errors for folders, except those of presets, that can't be read or written as they must."""
    for place in places_of(config):
        trouble_of = _reading_trouble if place.use == "watched" else writing_trouble
        if trouble := trouble_of(place.path):
            yield _problem(config.source, place.keys, place.what, trouble, place.path)
    for number, folder in enumerate(config.folders):
        taken = not folder.stays and not _reading_trouble(folder.input)
        if taken and (trouble := writing_trouble(folder.input)):
            what = "photos can't be taken out of their folder, which"
            keys: KeyPath = ("folders", number, "after")
            yield _problem(config.source, keys, what, trouble, folder.input)


def presets_away(config: Config) -> list[ConfigError]:
    """Errors for the folders of presets, but for the user's own, that can't be listed now.

    If the config names a preset that is in none of them, an empty folder counts too: its disk may
    not be mounted yet.
    """
    own = config.preset_dirs[:-1]
    away = unlisted(config.source, own)
    if own and not away:
        there = Presets.load(config.preset_dirs)
        if not all(name in there for _, name in config.named_presets()):
            away = unlisted(config.source, own, empty="is empty")
    return list(away.values())


def unlisted(
    source: YamlFile, folders: Sequence[Path], *, empty: str = ""
) -> dict[Path, ConfigError]:
    """Those of the folders, which stand at `presets:`, that can't be listed now, with an error.

    `empty` is what to say of one with nothing in it; without it that is no error.
    """
    troubles = [_listing_trouble(folder, empty=empty) for folder in folders]
    return {
        folder: source.error(
            source.written(("presets", number)),
            f"the presets folder {trouble}",
            received=str(folder),
            remedy="Correct the path, or mount its disk: until then a daemon paints nothing, as it "
            "may hold any preset",
        )
        for number, (folder, trouble) in enumerate(zip(folders, troubles, strict=True))
        if trouble
    }


def weights_away(config: Config) -> ConfigError | None:
    """The error for the config's own weights file, if that can't be used now, and is to be here."""
    weights = config.engine.weights
    trouble = weights_trouble(weights) if config.workers_are_here else ""
    if not trouble:
        return None
    remedy = "Correct `weights:`, put the file back, or make it readable"
    problem = f"the weights file {trouble}"
    return config.source.error(("weights",), problem, received=weights, remedy=remedy)


def _problem(
    source: YamlFile, keys: KeyPath, what: str, trouble: Trouble, path: Path
) -> ConfigError:
    problem = f"{what} {trouble.what}"
    return source.error(keys, problem, received=str(path), remedy=trouble.remedy)


def _nearest(path: Path) -> Path:
    """As `places.nearest_existing`, but a link to nowhere counts: no folder can be made there."""
    return next(place for place in (path, *path.parents) if os.path.lexists(place))


def _listing_trouble(folder: Path, *, empty: str) -> str:
    """Why a folder can't be listed; `empty` is what to say of one with nothing in it."""
    try:
        return "" if list(folder.iterdir()) else empty
    except OSError as error:
        trouble = _reading_trouble(folder)
        return trouble.what if trouble else f"can't be read: {error.strerror}"


def _reading_trouble(path: Path) -> Trouble | None:
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            return Trouble("is not a folder", _NO_FOLDER)
    except (FileNotFoundError, NotADirectoryError) as error:
        return Trouble("does not exist", _remedy(path, error))
    except OSError as error:
        return Trouble(f"can't be read: {error.strerror}", _remedy(path, error))
    if os.access(path, os.R_OK | os.X_OK):
        return None
    return Trouble("can't be read", _rights("u+rx", path))


def writing_trouble(path: Path) -> Trouble | None:
    """Why nothing can be written there; that a folder is still to be made is no trouble."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:  # closed to us, too long a name, a share that does not answer
        return Trouble(f"can't be used: {error.strerror}", _remedy(path, error))
    there = _nearest(path)
    if not os.path.isdir(there):
        made = f"can't be made: {there} is not a folder"
        return Trouble("is not a folder" if there == path else made, _NO_FOLDER)
    if os.access(there, os.W_OK | os.X_OK):
        return None
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        remedy = "Mount it writable, or name another folder"
        return Trouble("is on a disk that is read-only", remedy)
    return Trouble("can't be written to", _rights("u+wx", there))


def _remedy(path: Path, error: OSError) -> str:
    """What to do about a folder of which the system has said this."""
    if isinstance(error, PermissionError):
        return _rights("u+x", _nearest(path.parent))  # as far as we see
    if error.errno == errno.ENAMETOOLONG:
        return "Give it a shorter name"
    if isinstance(error, FileNotFoundError):
        make = f"mkdir -p {shlex.quote(str(path))}"
        return f"Correct the path, make it (`{make}`), or mount what it lies on"
    return "Correct the path, or mount what it lies on"


def _rights(wanted: str, path: Path) -> str:
    return f"chmod {wanted} {shlex.quote(str(path))}, or run as its owner"
