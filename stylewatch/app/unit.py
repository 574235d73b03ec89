"""The unit file by which systemd runs stylewatch: where it lies, how it is written and read back.

Knows nothing of systemctl, of what the daemon does, or of what a config holds.
"""

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stylewatch.errors import UsageError
from stylewatch.faces.lines import visible
from stylewatch.settings.paths import shipped

UNIT: Final = "stylewatch.service"
SYSTEM_UNITS: Final = Path("/etc/systemd/system")


def shipped_unit(*, user: bool) -> Path:
    """The unit as it comes with stylewatch."""
    return shipped("systemd") / ("user" if user else "") / UNIT


def unit_path(*, user: bool) -> Path:
    """Where systemd looks for the unit."""
    if not user:
        return SYSTEM_UNITS / UNIT
    base = os.environ.get("XDG_CONFIG_HOME", "")
    base = base if base.startswith("/") else "~/.config"  # to systemd, `~/x` counts as none too
    return Path(os.path.expanduser(base), "systemd", "user", UNIT)


def render_unit(
    template: str, *, command: Sequence[str], account: str = "", writable: Iterable[Path] = ()
) -> str:
    """The template with three of its lines filled in: command, account, and folders to write to.

    A line that the template does not have is not added; one without a value is left out.
    """
    program, *arguments = command  # in these alone systemd expands `$`
    words = [_quoted(_checked(program, never="\"'\\")), *(_quoted(w, "$$") for w in arguments)]
    folders = _outermost(path.absolute() for path in writable)
    values = {
        "ExecStart": " ".join(words),
        "User": account,
        "ReadWritePaths": " ".join(_quoted(f"-{path}") for path in folders),
    }
    lines = []
    for line in template.splitlines():
        key, equals, _ = line.partition("=")
        if equals and key in values:
            lines += [f"{key}={values[key]}"] if values[key] else []
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Each folder once, without those that lie in another."""
    unique = sorted(set(paths))
    return [path for path in unique if not any(other in path.parents for other in unique)]


def _quoted(word: str, dollar: str = "$") -> str:
    """The word as systemd reads it back, whatever it holds."""
    text = _checked(word).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + text.replace("%", "%%").replace("$", dollar) + '"'


def _checked(word: str, never: str = "") -> str:
    """The word, if systemd can read it at all; in a program's name without the signs `never`."""
    if re.search("[\x00-\x1f\x7f\ud800-\udfff]", word) or set(word) & set(never):
        raise UsageError(
            "systemd can't use this name",
            expected=f"UTF-8 without control characters{never and f' and without {never}'}",
            received=visible(word),
            remedy="Rename it",
        )
    return word


@dataclass(frozen=True, kw_only=True)
class Installed:
    """What an installed unit says of the config that it was made for."""

    config: Path | None
    account: str
    writable: tuple[Path, ...] | None
    """None: whatever its account may write to."""
    powerless: bool
    """It runs as root, and without root's power over others' files."""
    template: str
    """Its lines but for comments, what is filled in, and what `systemctl edit` has added."""

    def may_write(self, folder: Path) -> bool:
        """Whether the service may write there, as far as the unit says."""
        place = folder.resolve()
        known = [path.resolve() for path in self.writable or ()]
        return self.writable is None or any(place.is_relative_to(path) for path in known)


def installed_unit(*, user: bool) -> Installed | None:
    """What the installed unit says; None where there is none that can be read."""
    try:
        return read_unit(unit_path(user=user))
    except OSError:
        return None


def read_unit(path: Path) -> Installed:
    """What an installed unit says, with what people have added to it by `systemctl edit`."""
    said: dict[str, list[str]] = {}
    for file in (path, *sorted(path.parent.glob(f"{path.name}.d/*.conf"))):
        for line in file.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            key, _, value = line.partition("=")
            said[key] = [*said.get(key, []), *_words(value)] if value else []
    command = said.get("ExecStart", [])
    named = command.index("--config") + 1 if "--config" in command[:-1] else 0
    folders = [Path(word.lstrip("-+")) for word in said.get("ReadWritePaths", [])]
    account = (said.get("User") or [""])[-1]
    return Installed(
        config=Path(command[named].replace("$$", "$")) if named else None,
        account=account,
        writable=tuple(folders) if "strict" in said.get("ProtectSystem", []) else None,
        powerless=account in ("", "root") and said.get("CapabilityBoundingSet") == [],
        template=_template(path.read_text(encoding="utf-8", errors="surrogateescape")),
    )


def _template(text: str) -> str:
    lines = render_unit(text, command=["x"]).splitlines()
    return "\n".join(line for line in lines if line and not line.startswith(("#", ";")))


def _words(value: str) -> list[str]:
    """The words as `_quoted` wrote them; none where it did not."""
    try:
        return [word.replace("%%", "%") for word in shlex.split(value)]
    except ValueError:
        return []
