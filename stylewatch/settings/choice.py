"""Which presets a photo gets: by the sub-folder that it is in, by a rule, or by its folder."""

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import PurePath

from stylewatch.domain import PhotoFacts, Preset
from stylewatch.settings.checking import nearest
from stylewatch.settings.config import Folder
from stylewatch.settings.notations import composed
from stylewatch.settings.rules import path_matches

_ALIKE = 0.82  # as difflib has it: a letter or two; folders have names of their own, too


def match(
    folder: Folder,
    path: PurePath,
    facts: Callable[[], PhotoFacts],
    presets: Mapping[str, Preset],
    broken: Collection[str] = (),
) -> tuple[Preset, ...] | None:
    """The presets for the photo at `path` below the folder's input; () leaves it alone.

    `facts` is asked only when a rule needs to look into the photo. None: it waits, as one that it
    is to get is `broken` for now, and no other style was meant.
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


def misspelt(folder: Folder, path: PurePath, presets: Collection[str]) -> str:
    """The preset that the sub-folder of the photo at `path` almost has the name of; else empty.

    Not where a rule speaks of it; and who misspells a word knows its first letter.
    """
    named = path.parts[0]
    if not folder.subfolders or _called(named, presets) in presets:
        return ""
    if any(rule.path and path_matches(path, rule.path) for rule in folder.rules):
        return ""
    alike = [name for name in presets if name[:1].casefold() == named[0].casefold()]
    return next(iter(nearest(composed(named), alike, _ALIKE)), "")


def _called(folder: str, names: Iterable[str]) -> str:
    """The one of `names` that a folder has, in another case if need be; else its own."""
    named = composed(folder)
    alike = [name for name in names if name.casefold() == named.casefold()]
    return named if named in alike else next(iter(alike), named)
