"""Whether a config's folders lie well: no results may come in as photos, by any overlap."""

import os
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal, NamedTuple

from stylewatch.errors import ConfigError
from stylewatch.places import lineage
from stylewatch.settings.config import Config, Folder
from stylewatch.settings.yamlfile import KeyPath


class Place(NamedTuple):
    """A folder that the daemon uses, and what the config calls it."""

    keys: KeyPath
    what: str
    path: Path
    use: Literal["watched", "written", "read"] = "written"


def places_of(config: Config) -> Iterator[Place]:
    """All folders that the daemon uses, but for those with presets."""
    for number, folder in enumerate(config.folders):
        keys: KeyPath = ("folders", number)
        yield Place((*keys, "input"), f"the input of {folder.name!r}", folder.input, "watched")
        yield Place((*keys, "output"), f"the output of {folder.name!r}", folder.output)
        if isinstance(folder.after, Path):
            what = f"the folder that photos of {folder.name!r} move to"
            yield Place((*keys, "after"), what, folder.after)
    yield Place(("state_dir",), "the state folder", config.state_dir)


def layout_errors(config: Config) -> Iterator[ConfigError]:
    """What is wrong with where the config's folders lie."""
    source, (*own, _) = config.source, config.preset_dirs
    yield from (source.error(("presets",), f"not a folder: {p}") for p in own if os.path.isfile(p))
    read = [Place(("presets",), "the presets folder", path, "read") for path in config.preset_dirs]
    for _, later, inner, problem in _overlaps([*places_of(config), *read]):
        remedy = "Choose a folder outside of it"
        yield source.error(later.keys, problem, received=str(inner.path), remedy=remedy)


def _overlaps(places: Sequence[Place]) -> Iterator[tuple[Place, Place, Place, str]]:
    """Inputs that lie where we write, and places inside of inputs: results would come in there.

    Gives the two places, in their order, the inner one of them, and what is wrong.
    """
    lines = {place: lineage(place.path) for place in places}
    for one, other in combinations(places, 2):
        if "watched" not in (one.use, other.use):
            continue
        for inner, outer in ((other, one), (one, other)):
            if outer.use != "read" and lines[outer][0] in lines[inner]:
                how = "is" if lines[outer][0] == lines[inner][0] else "lies inside"
                yield one, other, inner, f"{inner.what} {how} {outer.what}"
                break


def overlap(config: Config, folder: Folder) -> str:
    """What is wrong with where the input of `folder` lies by now; else empty."""
    found = _overlaps(list(places_of(config)))
    theirs = (why for one, other, _, why in found if folder.input in (one.path, other.path))
    return next(theirs, "")
