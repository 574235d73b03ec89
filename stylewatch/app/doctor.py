"""What `stylewatch doctor` looks at: each thing one line, ok or not, with the remedy.

Every check stands alone and none can stop the others. TensorFlow is tried in another process, so
that a crash of it is one more line. Knows nothing of how lines are shown.
"""

import copy
import hashlib
import json
import math
import os
import pickle
import platform
import pwd
import shlex
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

from stylewatch.app.remote import ask, find_state_dir
from stylewatch.app.service import COMMAND, NAME_IT, service_status
from stylewatch.app.unit import UNIT, Installed, read_unit, shipped_unit
from stylewatch.domain import EngineSettings, JobState, counted
from stylewatch.errors import (
    ConfigError,
    DeviceError,
    NotRunningError,
    OutputFullError,
    StylewatchError,
    named,
)
from stylewatch.faces.lines import hourly, short_path
from stylewatch.folders.listing import walk
from stylewatch.folders.outputs import can_be_written
from stylewatch.folders.scans import POLL_SECONDS
from stylewatch.folders.space import free_space
from stylewatch.folders.watches import watch_limit, watch_trouble
from stylewatch.jobs.cluster import DaskExecutor
from stylewatch.places import nearest_existing, network_devices
from stylewatch.settings.config import Config
from stylewatch.settings.loading import load_config
from stylewatch.settings.paths import default_state_dir, user_presets_dir
from stylewatch.settings.presetfile import DEFAULT_BASE
from stylewatch.settings.presets import Presets
from stylewatch.settings.readiness import folder_errors, presets_away, writing_trouble
from stylewatch.settings.weights import MD5, keras_weights, weights_trouble
from stylewatch.state.reader import LedgerReader
from stylewatch.state.schema import LEDGER

State = Literal["ok", "warning", "problem"]

AS_THE_DAEMON: Final = "Run doctor as the user that the daemon runs as"
_PYTHON: Final = shlex.quote(sys.executable)
_PIP: Final = (  # uv makes environments without pip
    f"{_PYTHON} -m pip install" if find_spec("pip") else f"uv pip install --python {_PYTHON}"
)
ENGINE_SECONDS: Final = 120.0
CLUSTER_SECONDS: Final = 15.0
SLOW: Final = 20.0
"""With fewer photos per hour a hint is given."""
NVIDIA: Final = (Path("/proc/driver/nvidia/version"), Path("/usr/lib/wsl/lib/libcuda.so.1"))
"""Files of NVIDIA's driver, on Linux and in Windows' subsystem for it."""
_WITH_CUDA: Final = {
    "tensorflow": ("tensorflow[and-cuda]", "nvidia-cudnn-cu12"),
    "jax": ("jax[cuda13]", "jax-cuda13-plugin"),
}
"""What to install for an NVIDIA GPU, and a package that is there then, by backend."""
_DRIVER: Final = (
    "Its libraries are installed: see whether `nvidia-smi` works. After installing a driver, "
    "restart the machine; update a driver older than 525 (with JAX 580); start a container with "
    "`--gpus all`"
)
DIRECTORIES: Final = 200_000
"""No more directories of a folder are counted."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check has found."""

    check: str
    state: State
    message: str
    remedy: str = ""


def ok(check_: str, message: str) -> Finding:
    """A finding: nothing to do."""
    return Finding(check=check_, state="ok", message=message)


def warning(check_: str, message: str, remedy: str = "") -> Finding:
    """A finding: it works, but less well than it could."""
    return Finding(check=check_, state="warning", message=message, remedy=remedy)


def problem(check_: str, message: str, remedy: str = "") -> Finding:
    """A finding: it does not work until something is done."""
    return Finding(check=check_, state="problem", message=message, remedy=remedy)


def trouble(check_: str, error: StylewatchError, remedy: str) -> Iterator[Finding]:
    """A problem for the error, and one for each other in the same file, each with its remedy."""
    others, error = getattr(error, "others", ()), copy.copy(error)
    if isinstance(error, ConfigError):
        error.others = ()
    text = str(error).removesuffix(error.remedy).removesuffix(". ")
    yield problem(check_, text, error.remedy or remedy)
    for other in others:
        yield from trouble(check_, other, remedy)


def examine(file: Path | None) -> Iterator[Finding]:
    """All findings, each as soon as it is known; `file` is the config, None when there is none."""
    config, findings = _config(file)
    engine = config.engine if config else EngineSettings()
    yield from _alone("python", _python)
    yield from findings
    yield from _alone("presets", lambda: _presets(config))
    state_dir = config.state_dir if config else default_state_dir()
    if config:
        yield from _alone("folders", lambda: _folders(config))
        yield from _alone("watches", lambda: _watches(config))
        yield from _alone("network", lambda: _network(config))
        yield from _alone("disk", lambda: _disk(config))
    yield from _alone("ledger", lambda: _ledger(state_dir))
    if config:
        yield from _alone("workers", lambda: _workers(config))
    here = not config or config.workers_are_here  # a cluster's workers have weights of their own
    weights = list(_alone("weights", lambda: _weights(engine))) if here else []
    if not here or any(one.state != "ok" for one in weights):  # VGG19's would be downloaded
        engine = replace(engine, features="builtin")
    tried = list(_alone("engine", lambda: _engine(engine)))
    if not any(one.check == "weights" for one in tried):  # else that has opened them, and knows
        yield from weights
    yield from tried
    yield from _alone("service", lambda: _service(config))


def _alone(name: str, examine_one: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of one check; if it fails itself, that is the finding."""
    try:
        yield from examine_one()
    except OSError as error:
        text = f"could not be examined: {error.strerror}: {error.filename}"
        yield problem(name, text, AS_THE_DAEMON)
    except StylewatchError as error:
        yield from trouble(name, error, AS_THE_DAEMON)
    except Exception as error:  # noqa: BLE001  (a doctor that dies of a disease is no doctor)
        text = f"could not be examined: {named(error)}"
        yield problem(name, text, "Install stylewatch again; if that does not help, report this")


def _python() -> Iterator[Finding]:
    where = f"{platform.system()} {platform.machine()}"
    yield ok("python", f"Python {platform.python_version()} on {where}")


# --- config, presets, folders ---------------------------------------------------------------------


def _config(file: Path | None) -> tuple[Config | None, list[Finding]]:
    if file is None:
        text = "no config: ./stylewatch.yaml or ~/.config/stylewatch/stylewatch.yaml"
        return None, [warning("config", text, "`stylewatch init` writes one")]
    try:
        config = load_config(file)
    except StylewatchError as error:
        return None, list(trouble("config", error, "Correct it, or its path and permissions"))
    config = replace(config, state_dir=find_state_dir(config.state_dir, file))
    return config, [
        ok("config", f"{short_path(file)} with {counted(len(config.folders), 'folder')}")
    ]


def _presets(config: Config | None) -> Iterator[Finding]:
    presets = Presets.load(config.preset_dirs if config else [user_presets_dir()])
    sound, broken = presets.sorted_out(config.engine if config else EngineSettings())
    for error in broken.values():
        yield from trouble("presets", error, "Correct it, or delete it")
    if not broken:
        yield ok("presets", f"{len(sound)} presets are fine")


def _folders(config: Config) -> Iterator[Finding]:
    errors = [*folder_errors(config), *presets_away(config)]
    for error in errors:
        yield from trouble("folders", error, "Correct it")
    for folder in config.folders:
        if os.path.isdir(folder.output):
            yield from _write_trial(folder.output)
    if not errors:
        yield ok("folders", "inputs can be read, outputs can be written")


def _write_trial(folder: Path) -> Iterator[Finding]:
    """Write a file, as permissions alone say nothing of a full quota or a read-only disk."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".stylewatch-", suffix=".tmp") as trial:
            trial.write(b"stylewatch")
            trial.flush()
            os.fsync(trial.fileno())
    except OSError as error:
        text = f"{short_path(folder)} can't be written: {error.strerror}"
        yield problem("folders", text, "Free space, mount it writable, or change its permissions")


def _watches(config: Config) -> Iterator[Finding]:
    needed = sum(1 for folder in config.folders for _ in islice(walk(folder.input), DIRECTORIES))
    limit = watch_limit()
    remedy = f"sudo sysctl fs.inotify.max_user_watches={2 * max(262144, needed, limit)}"
    instances = "sudo sysctl fs.inotify.max_user_instances=512"
    if needed >= limit:
        text = f"{needed} folders to watch, but the limit is {limit}: some are scanned instead"
        yield problem("watches", text, remedy)
    elif needed > limit // 2:
        yield warning("watches", f"{needed} folders to watch, and the limit is {limit}", remedy)
    elif why := watch_trouble():
        text = f"{counted(needed, 'folder')} to watch, but no further folder can be watched: {why}"
        text += ", as other programs use up the rest. What can't be watched is scanned instead"
        yield warning("watches", text, instances if "instance" in why else remedy)
    else:
        yield ok("watches", f"{counted(needed, 'folder')} to watch, the limit is {limit}")
    number = _number("/proc/sys/fs/inotify/max_user_instances")
    if number is not None and number < 4 + len(config.folders):
        yield warning("watches", f"only {number} inotify instances for each user", instances)


def _number(file: str) -> int | None:
    try:
        return int(Path(file).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _network(config: Config) -> Iterator[Finding]:
    devices = network_devices()
    for folder in config.folders:
        if _device(folder.input) in devices:
            text = f"{short_path(folder.input)} is on a network drive: it is scanned every "
            seconds = min(POLL_SECONDS, config.rescan_seconds)
            text += f"{seconds:g} s, as changes made elsewhere cause no event"
            yield warning("network", text, "In a local folder new photos are noticed at once")
    if _device(config.state_dir) in devices:
        text = f"the ledger in {short_path(config.state_dir)} is on a network file system"
        yield problem("network", text, "Set `state_dir:` to a folder on a local disk")


def _device(path: Path) -> int:
    return nearest_existing(path).stat().st_dev


def _disk(config: Config) -> Iterator[Finding]:
    """One line for each disk, as most people have one."""
    disks: dict[int, list[Path]] = {}
    for path in dict.fromkeys([*(folder.output for folder in config.folders), config.state_dir]):
        disks.setdefault(_device(path), []).append(path)
    for paths in disks.values():
        free = free_space(paths[0])
        room = f"{free / 1e9:.1f} GB" if math.isfinite(free) else "an unknown number of GB"
        text = f"{room} free for {', '.join(map(short_path, paths))}"
        if free < config.min_free:
            least = f"{config.min_free / 1e9:g} GB (`min_free`)"
            remedy = f"Free some space: below {least} an output pauses"
            yield problem("disk", text, remedy)
        elif free < 2 * config.min_free:
            yield warning("disk", text, "Free some space soon")
        else:
            yield ok("disk", text)


def _ledger(state_dir: Path) -> Iterator[Finding]:
    file = state_dir / LEDGER
    if not file.exists():
        if found := writing_trouble(state_dir):
            yield problem("ledger", f"{short_path(state_dir)} {found.what}", found.remedy)
        else:
            yield ok("ledger", f"{short_path(file)} will be made by the first run")
        return
    with closing(LedgerReader(file)) as reader:
        counts = reader.counts()
    states = [state for folder in counts.values() for state in folder.items()]
    failed = sum(count for state, count in states if state is JobState.QUARANTINED)
    text = f"{short_path(file)} with {counted(sum(count for _, count in states), 'job')}"
    if failed:
        remedy = "`stylewatch jobs --failed` tells why; `stylewatch retry --all` tries again"
        yield warning("ledger", f"{text}, {failed} of them set aside", remedy)
    else:
        yield ok("ledger", text)


# --- the engine -----------------------------------------------------------------------------------


def _weights(engine: EngineSettings) -> Iterator[Finding]:
    own = engine.weights != "imagenet"
    file = Path(engine.weights) if own else keras_weights()
    fetch = "`stylewatch weights fetch` where there is a network, or `features: builtin`"
    if why := weights_trouble(engine.weights):
        remedy = "Correct `weights:`, put the file back, or make it readable"
        yield problem("weights", f"{short_path(file)} {why}", remedy)
    elif engine.features == "builtin":
        yield ok("weights", "the built-in features need none")
    elif own:
        yield ok("weights", f"{short_path(file)}, {file.stat().st_size / 1e6:.0f} MB")
    elif not file.is_file():
        text = f"{short_path(file)} does not exist"
        if engine.features == "auto":
            text += ": the built-in features paint if a download fails"
            yield warning("weights", text, fetch)
        else:
            yield problem("weights", text, fetch)
    elif _md5(file) == MD5:
        yield ok("weights", f"VGG19 in {short_path(file)}, checksum right")
    else:
        text = f"{short_path(file)} is damaged: its checksum is wrong"
        yield problem("weights", text, f"rm '{file}', then {fetch}")


def _md5(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _engine(engine: EngineSettings) -> Iterator[Finding]:
    command = [sys.executable, "-P", "-m", "stylewatch.app.trial"]
    alone = replace(engine, workers=1)  # on all cores: what several paint together
    asked = pickle.dumps((alone, Presets.load()[DEFAULT_BASE].settings))
    limit = {"memory_limit": engine.memory_limit}
    try:
        done = subprocess.run(  # noqa: S603
            command, input=asked, capture_output=True, timeout=ENGINE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        words = limit | _told(error.stdout or b"")
        yield from _engine_findings(words)
        text = f"no answer within {ENGINE_SECONDS:g} s"
        if (stage := _stage(words)) == "speed":  # it paints, if it has hours
            yield _slow(text, builtin=engine.features == "builtin")
        else:
            yield problem(stage, text, "Close other programs, then try again")
        return
    words = limit | _told(done.stdout)
    yield from _engine_findings(words)
    if done.returncode:
        yield _engine_failure(words, done.returncode, done.stderr.decode(errors="replace"))


def _told(stdout: bytes) -> dict[str, Any]:
    """What the trial has told so far; lines that are not JSON are those of libraries."""
    words: dict[str, Any] = {}
    for line in stdout.decode(errors="replace").splitlines():
        if line.startswith("{"):
            words |= json.loads(line)
    return words


def _stage(words: dict[str, Any]) -> str:
    """The check at which the trial has ended: the first of which it has told nothing."""
    return "speed" if "device" in words else "device" if "version" in words else "tensorflow"


def _engine_findings(words: dict[str, Any]) -> Iterator[Finding]:
    if "version" in words:
        yield ok("tensorflow", f"{words['backend']} {words['version']}, Keras {words['keras']}")
    if "device" in words:
        fast = "bfloat16" if words["fast_bfloat16"] else "float32 (no fast bfloat16 here)"
        text = f"{words['device']}: {fast}"
        if words["device"].startswith("CPU") and _has_gpu_to_offer():
            yield warning(
                "device",
                f"{text}; the NVIDIA GPU of this machine is not seen by {words['backend']}",
                _to_see_a_gpu(words),
            )
        else:
            yield ok("device", text)
    if "weights" in words:
        yield problem("weights", words["weights"])
    if "evaluations_per_second" in words:
        rate = float(words["evaluations_per_second"])
        pace = 3600 * rate / float(words["evaluations_per_photo"])
        text = f"{rate:.1f} evaluations/s at 384 px in {words['precision']}"
        text += f" with {words['features']} features: about {hourly(pace)} at 1024 px"
        if pace >= SLOW:
            yield ok("speed", text)
        else:
            yield _slow(text, builtin=not words["features"].startswith("VGG19"))


def _slow(text: str, *, builtin: bool) -> Finding:
    other = "" if builtin else "`features: builtin`, "
    return warning("speed", text, f"Quicker: a smaller `max_side`, {other}a GPU")


def _has_gpu_to_offer() -> bool:
    """Whether NVIDIA's driver runs, and nobody has chosen which GPUs a program may see."""
    return "CUDA_VISIBLE_DEVICES" not in os.environ and any(file.exists() for file in NVIDIA)


def _to_see_a_gpu(words: dict[str, Any]) -> str:
    """What to do so that it sees NVIDIA's GPU: install its libraries, or look after the driver."""
    backend = words["backend"]
    if words.get("memory_limit"):
        return "Leave `memory_limit` out: the driver takes far more addresses than memory"
    if backend == "tensorflow" and platform.machine() == "aarch64":  # where it is built without
        return f'{_PIP} "jax[cuda13]", and set KERAS_BACKEND=jax'
    wanted, brings = _WITH_CUDA.get(backend, (backend, backend))
    try:
        version(brings)
    except PackageNotFoundError:
        return f'{_PIP} "{wanted}"'
    return _DRIVER


def _engine_failure(words: dict[str, Any], code: int, stderr: str) -> Finding:
    last = next((line for line in reversed(stderr.splitlines()) if line.strip()), "").strip()
    if told := last.partition(f"{DeviceError.__name__}: ")[2]:
        text, remedy = told, ""
    elif code == -signal.SIGILL:
        text = "it crashes: this processor lacks what it was built for"
        remedy = "Give a virtual machine the processor type `host`, or set KERAS_BACKEND=torch"
    elif code == -signal.SIGKILL:
        text = "it was killed (SIGKILL), as when memory runs out"
        remedy = "Close other programs, or allow this one more memory"
    elif code < 0:
        text = f"it crashes ({signal.Signals(-code).name})" + (f": {last}" if last else "")
        remedy = f"Install it again: {_PIP} --force-reinstall tensorflow"
    elif "ModuleNotFoundError" in last or "ImportError" in last:
        text = f"it can't be imported: {last}"
        backends = (name for name in ("jax", "torch") if f"named '{name}'" in last)
        remedy = f"Install what is missing: {_PIP} {next(backends, 'stylewatch')}"
    else:
        text = last or f"it ended with code {code}"
        remedy = "Install stylewatch again; if that does not help, report this"
        if _stage(words) == "device" and _has_gpu_to_offer():  # JAX does not do without
            remedy = _DRIVER
    others_doing = code in {-signal.SIGILL, -signal.SIGKILL} or "ModuleNotFoundError" in last
    if remedy and words.get("memory_limit") and not others_doing:
        remedy = f"Raise `memory_limit`, or leave it out. Else: {remedy}"
    return problem(_stage(words), text, remedy)


# --- the workers of a cluster ---------------------------------------------------------------------


def _workers(config: Config) -> Iterator[Finding]:
    """The workers of a cluster. Having none is only a warning, as photos wait for one.

    A worker that does not answer in time is painting for others.
    """
    if isinstance(config.workers, int):
        return
    with closing(DaskExecutor(config.workers, config.engine, lambda *_: None)) as executor:
        until = time.monotonic() + CLUSTER_SECONDS
        while time.monotonic() < until:
            if not executor.silent and (executor.slots or executor.trouble):
                break
            time.sleep(0.1)
        if count := executor.slots + executor.silent:
            yield ok("workers", f"{counted(count, 'worker')} of the cluster at {config.workers}")
        else:
            yield warning("workers", executor.trouble or f"{config.workers} does not answer")
        if count and executor.strange:
            yield warning("workers", executor.strange)


# --- the service ----------------------------------------------------------------------------------


def _service(config: Config | None) -> Iterator[Finding]:
    found = [(scope, service_status(user=bool(scope))) for scope in ("", "--user ")]
    installed = [(scope, status) for scope, status in found if status.unit]
    for scope, status in installed:
        why = status.result if status.failing else status.text or status.result
        text = f"the service {scope}is {status.state or 'unknown'}: {why}"
        if not status.running:
            remedy = f"`journalctl {scope}-u stylewatch -e` tells why"
            yield problem("service", text, remedy)
        elif status.enabled:
            yield ok("service", text)
        else:
            yield warning("service", f"{text}, not enabled", f"systemctl {scope}enable {UNIT}")
        if config and config.file and status.unit:
            yield from _made_for(read_unit(status.unit), scope, config, config.file)
    if not installed:
        yield ok("service", "not installed; `stylewatch service install --user` installs it")


def _made_for(unit: Installed, scope: str, config: Config, file: Path) -> Iterator[Finding]:
    """Whether a unit is still right: since it was made folders, or stylewatch, may have changed."""
    words = [*([] if scope else ["sudo"]), *COMMAND, "service", "install", *scope.split()]
    words += ["--config", str(file.absolute())]
    account = ["--account", unit.account] if unit.account else []
    again = f"`{shlex.join([*words, *account])}`"
    written = config.written_folders() if _is_home_of(unit.account) else []
    if unit.config and os.path.realpath(unit.config) != os.path.realpath(file):
        text = f"the service {scope}runs with another config: {short_path(unit.config)}"
        other = shlex.join(["stylewatch", "doctor", "--config", str(unit.config)])
        yield warning("service", text, f"{again}, or look at that one: `{other}`")
    elif unit.powerless and (others := [*filter(_is_of_others, unit.writable or ())]):
        text = f"the service runs as root, without power over others' files: {_listed(others)}"
        yield problem("service", text, f"`{shlex.join(words)}`: {NAME_IT}")
    elif closed := [place for place in written if not unit.may_write(place)]:
        text = f"the service {scope}may not write to {_listed(closed)}"
        yield problem("service", text, f"{again}, as after each change of folders")
    else:
        if written and not scope:
            yield from _shut_out(config)
        if unit.template != read_unit(shipped_unit(user=bool(scope))).template:
            text = f"the unit of the service {scope}is another stylewatch's, or was edited"
            edit = f"`systemctl {scope}edit stylewatch`"
            yield warning("service", text, f"{again}; changes of your own go into {edit}")


def _shut_out(config: Config) -> Iterator[Finding]:
    """Outputs that the service can't write to, as they were made anew since it started."""
    with suppress(NotRunningError):
        blocked = ask(config.state_dir, "status")["blocked"]
        for output in dict.fromkeys(folder.output for folder in config.folders):
            shut = blocked.get(str(output)) in {OutputFullError.away, OutputFullError.forbidden}
            if shut and can_be_written(output):
                text = f"the service can't write to {short_path(output)}, though its account can"
                remedy = f"`sudo systemctl restart {UNIT}`: it knows what was there before"
                yield problem("service", text, remedy)


def _listed(folders: Iterable[Path]) -> str:
    return ", ".join(dict.fromkeys(map(short_path, folders)))


def _is_of_others(folder: Path) -> bool:
    """Whether root without its power over others' files may not write there."""
    found = nearest_existing(folder).stat()
    return bool(found.st_uid) and not found.st_mode & stat.S_IWOTH


def _is_home_of(account: str) -> bool:
    """Whether `~` in the config means the same for the service's account as for us."""
    try:
        return not account or pwd.getpwnam(account).pw_dir == os.path.expanduser("~")
    except KeyError:
        return False
