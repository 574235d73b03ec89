"""The machine: memory and cores that this process can have, and what its processor can do."""

import contextlib
import os
import resource
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from stylewatch.errors import DeviceError

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")


@cache
def cpu_flags() -> frozenset[str]:
    """The instructions that the processor says it has."""
    try:
        text = (PROC / "cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        if line.startswith("flags"):
            return frozenset(line.split())
    return frozenset()


def cores() -> int:
    """How many cores this process may keep busy: those it may run on, or what its quota is worth.

    Libraries only know the former: more threads than a container's quota has cores use it up in a
    moment, and then all stand still.
    """
    found = [len(os.sched_getaffinity(0))]
    for group in _groups():
        with contextlib.suppress(OSError, ValueError):  # "max" is no quota, no number
            quota, period = map(int, (group / "cpu.max").read_text(encoding="ascii").split())
            found.append(-(-quota // period))
    return min(found)


def check_processor() -> None:
    """Make sure that TensorFlow can be loaded, as it ends the whole process where it can't.

    Its packages for x86 need AVX, which small processors and virtual ones may lack; JAX's too.

    Raises:
        DeviceError: it can't.
    """
    flags = cpu_flags()  # other kinds of processors call theirs otherwise
    if flags and "avx" not in flags and os.environ.get("KERAS_BACKEND") != "torch":
        raise DeviceError(
            "This processor has no AVX, which TensorFlow and JAX need",
            remedy="Give a virtual machine the processor type `host`; else `pip install torch` "
            "and set KERAS_BACKEND=torch",
        )


def memory_left() -> int:
    """Bytes that this process could still use; 0 when nobody can tell."""
    machine = _numbers(PROC / "meminfo").get("MemAvailable:", 0) * 1024
    return min([machine, *_left_to_groups(), *_left_to_process()])


def memory_kept() -> int:
    """Bytes that this process has taken since it was first asked.

    Most of them libraries took for earlier paintings: they keep them, and use them for the next.
    """
    return max(0, _resident() - _resident_at_first())


@cache
def _resident_at_first() -> int:
    return _resident()


def _resident() -> int:
    return _own_pages()[1] * resource.getpagesize()


def _left_to_process() -> Iterator[int]:
    """Bytes of addresses, where they are limited (`memory_limit`)."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        yield max(1, limit - addresses_used())


def addresses_used() -> int:
    """Bytes of addresses that this process has taken."""
    return _own_pages()[0] * resource.getpagesize()


def _own_pages() -> list[int]:
    """Pages of this process: of addresses, of memory, and more."""
    return [int(pages) for pages in Path("/proc/self/statm").read_text(encoding="ascii").split()]


def _left_to_groups() -> Iterator[int]:
    """Bytes that each control group around this process may still use.

    Of version 2; of version 1 a container's own. Beyond `memory.high` all is slowed down.
    """
    limits = [
        (group, limit, "memory.current")
        for group in _groups()
        for limit in ("memory.max", "memory.high")
    ]
    limits.append((CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"))
    for group, *files in limits:
        with contextlib.suppress(OSError, ValueError):
            limit, used = (
                int((group / file).read_text(encoding="ascii"))
                for file in files  # "max" is no limit, no number
            )
            stat = _numbers(group / "memory.stat")  # what version 1 calls total, 2 does not
            cached = stat.get("total_inactive_file", stat.get("inactive_file", 0))
            yield max(1, limit - used + cached)


def _groups() -> Iterator[Path]:
    """The control groups (version 2) around this process, its own first."""
    with contextlib.suppress(OSError):
        named = (PROC / "self/cgroup").read_text(encoding="utf-8", errors="surrogateescape")
        group = CGROUPS / named.rpartition("0::/")[2].strip()
        for each in (group, *group.parents):
            if not each.is_relative_to(CGROUPS):
                return
            yield each


def _numbers(file: Path) -> dict[str, int]:
    """The first number of each line by the word before it; empty where there is no such file."""
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    return {word: int(number) for word, number, *_ in map(str.split, lines)}
