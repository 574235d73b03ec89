"""stylewatch as a systemd service: how it comes and goes, and how it stands.

By `systemctl`. Knows nothing of what the daemon does, of what a config holds but the place of its
state, or of other service managers.
"""

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stylewatch.app.unit import UNIT, installed_unit, render_unit, shipped_unit, unit_path
from stylewatch.errors import ConfigError, OutputError, StylewatchError, UsageError
from stylewatch.faces.lines import visible
from stylewatch.faces.wire import lives
from stylewatch.settings.loading import state_dir_of

COMMAND: Final = (sys.executable, "-P", "-m", "stylewatch")
"""What starts stylewatch just as it runs now; -P keeps the working directory out of imports."""
_AS_ROOT: Final = "Use sudo, or --user for a service of your own"
NAME_IT: Final = "give the owner of the photos with `--account`"
BOOTED: Final = Path("/run/systemd/system")
"""Where systemd runs the machine this is there, as sd_booted(3) says."""
SELINUX: Final = Path("/sys/fs/selinux/enforce")
SYSTEMCTL_SECONDS: Final = 20.0 * 60.0  # starting waits for READY, which a lost ledger delays


@dataclass(frozen=True, kw_only=True)
class ServiceStatus:
    """How the service stands, as systemd sees it."""

    systemd: bool
    """Whether systemd answers at all."""
    unit: Path | None
    """The installed unit."""
    enabled: bool
    """Whether it starts at boot, or at login."""
    state: str
    """systemd's word: `active`, `activating`, `reloading`, `failed`, `inactive`; else empty.

    `auto-restart` where it has ended and will be started again: to systemd that is `activating`.
    """
    result: str
    """Why it ended: `success`, `exit-code`, `watchdog`, `signal`, …"""
    text: str
    """The daemon's own words, or why nothing is known."""
    pid: int
    restarts: int

    @property
    def running(self) -> bool:
        """It runs, or is about to without having failed."""
        return self.state in {"active", "activating", "reloading"}

    @property
    def failing(self) -> bool:
        """It has ended by itself, and `result` says why."""
        return self.state in {"failed", "auto-restart"}


def install(
    *,
    user: bool,
    config: Path,
    writable: Sequence[Path],
    account: str = "",
    command: Sequence[str] = COMMAND,
    start: bool = True,
) -> Iterator[str]:
    """Render the shipped unit, put it in place, enable and start it; tells people of each.

    `writable` are the folders that the daemon writes to: inputs with `after:`, outputs and what
    else the config names. `account` is whom the system's service runs as.

    Raises:
        UsageError: there is no systemd, no such account, or it can't run stylewatch.
        OutputError: the unit can't be written.
        StylewatchError: systemd refused.
    """
    _require_systemd(user, ", or run `stylewatch run` under what starts programs here")
    name = "" if user else _able_to_run(command, account_of(account, config)).pw_name
    text = render_unit(
        shipped_unit(user=user).read_text(encoding="utf-8"),
        command=(*command, "run", "--config", str(config.absolute())),
        account=name,
        writable=writable,
    )
    path, before = unit_path(user=user), installed_unit(user=user)
    _write(path, text)
    yield f"wrote {visible(path)}"
    now = installed_unit(user=user)
    _systemctl("daemon-reload", user=user)
    _systemctl("enable", UNIT, user=user)
    yield "enabled: it starts " + ("at login" if user else f"at boot, as {name}")
    yield from [] if user else _selinux_hint(command[0])
    if now and now.powerless:
        yield f"root has no power over others' files there: {NAME_IT}"
    if before and now and (before.config, before.account) != (now.config, now.account):
        whom = f" as {before.account}" if before.account else ""
        file = visible(before.config or "the usual config")
        yield f"until now it ran{whom} with {file}"
    missing = [] if user else [folder for folder in writable if not folder.exists()]
    for folder in missing:
        yield f"{visible(folder)} does not exist yet: make it, then restart the service"
    if other := of_other_scope("uninstall", user=user):
        yield f"another service is installed, too: unless both are meant, {other}"
    if user:
        yield from _linger_hint()
    if start:
        _restart(config, user=user)
        yield "started"


def _restart(config: Path, *, user: bool) -> None:
    try:
        _systemctl("restart", UNIT, user=user)
    except StylewatchError as error:
        with suppress(ConfigError):
            if not service_status(user=user).pid and lives(state_dir_of(config)):
                wait = "the service starts within half a minute"
                stop = f"Another stylewatch runs: stop it, by q or Ctrl-C, and {wait}"
                error.remedy = f"{stop}; else {error.remedy}"
        raise


def uninstall(*, user: bool) -> list[str]:
    """Stop and disable the service and remove its unit; photos, results and ledger stay.

    Raises:
        UsageError: it is not installed, or systemd does not answer.
        OutputError: the unit can't be removed.
    """
    path = unit_path(user=user)
    if not path.exists():
        raise UsageError(
            "the service is not installed",
            expected=visible(path),
            remedy="`stylewatch service status` tells what is" + ("" if user else "; see --user"),
        )
    if _systemd_trouble(user=user) and not (shutil.which("systemctl") and BOOTED.is_dir()):
        # an image that is being built, a machine without systemd: nothing runs
        for link in [*path.parent.glob(f"*.wants/{UNIT}"), path]:
            _remove(link)
        return [f"removed {visible(path)}"]
    _require_systemd(user)
    _systemctl("disable", "--now", UNIT, user=user)
    _remove(path)
    _systemctl("daemon-reload", user=user)
    return ["stopped and disabled", f"removed {visible(path)}"]


def of_other_scope(command: str, *, user: bool) -> str:
    """The command about the service of the other scope; empty where none is installed there."""
    scope = "" if user else " --user"
    there = os.path.exists(unit_path(user=not user))
    return f"`stylewatch service {command}{scope}`" if there else ""


def service_status(*, user: bool) -> ServiceStatus:
    """How the service stands; never fails."""
    path = unit_path(user=user)
    unit = path if path.exists() else None
    trouble = _systemd_trouble(user=user)
    shown: dict[str, str] = {}
    if not trouble:
        names = "ActiveState,SubState,UnitFileState,StatusText,Result,MainPID,NRestarts"
        done = _call("show", UNIT, f"--property={names}", user=user)
        shown = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    waits = shown.get("SubState", "").startswith("auto-restart")  # or auto-restart-queued
    return ServiceStatus(
        systemd=not trouble,
        unit=unit,
        enabled=shown.get("UnitFileState", "").startswith("enabled"),
        state="auto-restart" if waits else shown.get("ActiveState", ""),
        result=shown.get("Result", ""),
        text=trouble or shown.get("StatusText", ""),
        pid=int(shown.get("MainPID") or 0),
        restarts=int(shown.get("NRestarts") or 0),
    )


def account_of(name: str, config: Path | None) -> pwd.struct_passwd:
    """Whom the system's service runs as: the one named, who used sudo, or whose config it is.

    Raises:
        UsageError: there is no such account.
    """
    name = name or os.environ.get("SUDO_USER", "")
    try:
        if name:
            return pwd.getpwnam(name)
        if config and os.path.exists(config):
            return pwd.getpwuid(config.stat().st_uid)
        return pwd.getpwuid(os.getuid())
    except KeyError as error:
        raise UsageError(
            "no account to run the service as",
            expected="someone who may read the photos",
            received=name or visible(config or os.getuid()),
        ) from error


def _able_to_run(command: Sequence[str], account: pwd.struct_passwd) -> pwd.struct_passwd:
    """The account, if what is to be run is not closed to it: systemd would try without end."""
    if os.geteuid():  # only root can tell, and nobody else can install it
        return account
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    try:
        done = subprocess.run(  # noqa: S603  (what the unit is to run)
            [*command, "--version"], cwd="/", capture_output=True, text=True, errors="replace",
            user=account.pw_uid, group=account.pw_gid, extra_groups=groups, check=False,
        )  # fmt: skip
        why = done.stderr.strip().rpartition("\n")[2] if done.returncode else ""
    except OSError as error:
        why = str(error.strerror)
    if why:
        raise UsageError(
            f"{account.pw_name} can't run {visible(command[0])}: {visible(why)}",
            remedy="Install stylewatch where that account may read it, as in /opt, or use --user",
            reason="not-runnable",
        )
    return account


def _selinux_hint(program: str) -> list[str]:
    """SELinux keeps the system's systemd from what has a home's label, whatever its rights are."""
    with suppress(OSError):
        if SELINUX.read_text(encoding="ascii").strip() == "1":
            for path in (program, os.path.realpath(program)):
                if b"_home_t:" in os.getxattr(path, "security.selinux", follow_symlinks=False):
                    why = f"SELinux may forbid systemd to run {visible(path)}, as it is in a home"
                    return [f"{why}: install stylewatch elsewhere, as in /opt, or use --user"]
    return []


def _linger_hint() -> list[str]:
    name = pwd.getpwuid(os.getuid()).pw_name
    if Path("/var/lib/systemd/linger", name).exists():
        return []
    return [f"it ends when you log out, unless you say: loginctl enable-linger {name}"]


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise _not_ours(path, "written", error) from error


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        raise _not_ours(path, "removed", error) from error


def _not_ours(path: Path, what: str, error: OSError) -> OutputError:
    return OutputError(f"{visible(path)} can't be {what}: {error.strerror}", remedy=_AS_ROOT)


def _require_systemd(user: bool, otherwise: str = "") -> None:
    trouble = _systemd_trouble(user=user)
    if trouble:
        where = "Log in as yourself, without su or sudo" if user else "Boot with systemd"
        raise UsageError(
            f"systemd does not answer: {trouble}", remedy=f"{where}{otherwise}", reason="no-systemd"
        )


def _systemd_trouble(*, user: bool) -> str:
    """Why systemd does not answer; empty when it does."""
    if shutil.which("systemctl") is None:
        return "there is no systemctl"
    done = _call("show", "--property=Version", user=user)
    return "" if done.returncode == 0 and done.stdout.strip() else _reason(done)


def _systemctl(*arguments: str, user: bool) -> None:
    done = _call(*arguments, user=user)
    if done.returncode:
        journal = f"journalctl {'--user ' if user else ''}-u {UNIT.removesuffix('.service')} -e"
        raise StylewatchError(
            f"systemctl {' '.join(arguments)} failed: {_reason(done)}",
            remedy=_AS_ROOT if "uthentication" in done.stderr else f"`{journal}` tells more",
            reason="systemd",
        )


def _call(*arguments: str, user: bool) -> subprocess.CompletedProcess[str]:
    scope = ["--user"] if user else []
    command = ["systemctl", *scope, "--no-ask-password", "--no-pager", *arguments]
    try:
        return subprocess.run(  # noqa: S603  (our own words; systemctl is found as a shell would)
            command, capture_output=True, text=True, errors="replace", check=False,
            timeout=SYSTEMCTL_SECONDS, env=os.environ | {"LC_ALL": "C", "SYSTEMD_COLORS": "0"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return visible(lines[0].rstrip(".")) if lines else f"exit code {done.returncode}"
