"""Which presets a photo gets: by the name of its sub-folder, by a rule, or by its folder."""

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import PurePath

from stylewatch.domain import PhotoFacts, Preset
from stylewatch.settings.checking import nearest
from stylewatch.settings.config import Folder
from stylewatch.settings.notations import composed
from stylewatch.settings.rules import path_matches

_ALIKE = 0.82  # difflib's ratio, a letter or two: most folders are not named after presets


def match(
    folder: Folder,
    path: PurePath,
    facts: Callable[[], PhotoFacts],
    presets: Mapping[str, Preset],
    broken: Collection[str] = (),
) -> tuple[Preset, ...] | None:
    """The presets for the photo at `path` below the folder's input; with () it is left alone.

    None means that it has to wait: one of its presets is `broken` for now, and nobody wants another
    style instead. `facts` is called only if a rule asks what is in the photo's header.
    """
    if folder.subfolders and len(path.parts) > 1:
        named = _called(path.parts[0], (*broken, *presets))
        if named in broken:
            return None
        if named in presets:
            return (presets[named],)
    rule = next((rule for rule in folder.rules if rule.holds(path, facts)), folder)
    if any(name in broken for name in rule.preset):
        return None
    return tuple(presets[name] for name in rule.preset if name in presets)


def is_named(folder: Folder, path: PurePath, presets: Collection[str]) -> bool:
    """Whether the sub-folder of the photo at `path` has the name of one of these presets."""
    return folder.subfolders and _called(path.parts[0], presets) in presets


def misspelt(folder: Folder, path: PurePath, presets: Collection[str]) -> str:
    """The preset after which the sub-folder of the photo at `path` was probably named; else empty.

    Not if a rule is about that path. The first letter must be the same, as people get that right.
    """
    named = path.parts[0]
    if not folder.subfolders or is_named(folder, path, presets):
        return ""
    if any(rule.path and path_matches(path, rule.path) for rule in folder.rules):
        return ""
    alike = [name for name in presets if name[:1].casefold() == named[0].casefold()]
    return next(iter(nearest(composed(named), alike, _ALIKE)), "")


def _called(folder: str, names: Iterable[str]) -> str:
    """The one of `names` that is the folder's, in any case; if there is none, its own name."""
    named = composed(folder)
    alike = [name for name in names if name.casefold() == named.casefold()]
    return named if named in alike else next(iter(alike), named)
