"""Rules: which photos get which presets, by their path and by what their header says.

Knows nothing of folders and of how a header is read.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Annotated, Literal

from annotated_types import Ge
from pydantic import AfterValidator

from stylewatch.domain import PhotoFacts
from stylewatch.settings.notations import Names, composed


def _pattern(value: str) -> str:
    if value.startswith(("/", "~/")) or {"", ".", ".."} & set(value.removesuffix("/").split("/")):
        raise ValueError("a pattern relative to the input, such as portraits/** or **/*.jpg")
    return value


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Which presets a photo gets when everything said here holds for it."""

    preset: Names
    """One preset or several; `[]` leaves such photos alone."""
    path: Annotated[str, AfterValidator(_pattern)] | None = None
    """Glob on the path below the input, upper and lower case alike; `**` stands for any folders.
    The plain path of a folder is for all that is in it."""
    camera: str | None = None
    """Glob on the camera's make and model, upper and lower case alike: `*X100*`."""
    orientation: Literal["landscape", "portrait", "square"] | None = None
    """The photo's shape as seen upright."""
    min_side: Annotated[int, Ge(1)] | None = None
    """The photo's longer side has at least this many pixels."""
    max_side: Annotated[int, Ge(1)] | None = None
    """The photo's longer side has at most this many pixels."""

    def holds(self, path: PurePath, facts: Callable[[], PhotoFacts]) -> bool:
        """Whether the rule applies to the photo at `path`; `facts` is called only when needed."""
        if self.path is not None and not path_matches(path, self.path):
            return False
        if {self.camera, self.orientation, self.min_side, self.max_side} == {None}:
            return True
        photo = facts()
        if not photo.width:  # its header can't be read: nothing is known of it
            return False
        side = max(photo.width, photo.height)
        return (
            (self.camera is None or fnmatchcase(photo.camera.casefold(), self.camera.casefold()))
            and (self.orientation is None or photo.orientation == self.orientation)
            and (self.min_side is None or side >= self.min_side)
            and (self.max_side is None or side <= self.max_side)
        )


def path_matches(path: PurePath, pattern: str) -> bool:
    """Whether a glob matches a relative path: `*` within one name, `**` over any number of them.

    In any case: cameras write .JPG. A pattern without stars may be a folder's path, as with a `/`.
    """
    pattern = composed(pattern.casefold())
    if not {*"*?["} & {*pattern}:
        pattern = pattern.removesuffix("/") + "/"
    wanted = (pattern + "**" if pattern.endswith("/") else pattern).split("/")
    reached = _past_stars({0}, wanted)
    for name in composed(str(path).casefold()).split("/"):
        steps = ((at, wanted[at]) for at in reached if at < len(wanted))
        reached = _past_stars(
            {at + (want != "**") for at, want in steps if want == "**" or fnmatchcase(name, want)},
            wanted,
        )
    return len(wanted) in reached


def _past_stars(reached: Iterable[int], wanted: Sequence[str]) -> set[int]:
    """These places in a pattern, and those behind a `**` that follows: it may stand for nothing."""
    past = set(reached)
    for at in range(len(wanted)):
        if at in past and wanted[at] == "**":
            past.add(at + 1)
    return past
