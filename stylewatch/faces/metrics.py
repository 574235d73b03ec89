"""Figures for Prometheus, on one port of this machine alone: http://127.0.0.1:PORT/metrics.

`Metrics` is a sink for the daemon's events that counts; what stands rather than happens (queues,
folders) comes from the daemon's `status` when somebody asks. Names and labels are stable:
docs/operating.md has them all.

Knows nothing of the ledger or of sockets but its own.
"""

import contextlib
import itertools
import math
import os
import socket
import threading
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self

from stylewatch.domain import AT_HAND, Event, Step
from stylewatch.errors import UsageError

HOST: Final = "127.0.0.1"
NAMES_OF_HOST: Final = frozenset({HOST, "localhost", "[::1]"})
"""A page in a browser may have a name of its own point at us; it gets nothing."""
BUCKETS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
CLIENT_SECONDS: Final = 5.0
MAX_CLIENTS: Final = 16
"""For one more, the first is hung up on: any user here may knock, and our descriptors are few."""

Snapshot = Callable[[], Mapping[str, Any]]
"""What the daemon's `status` answers; it may raise, as when the daemon hangs."""
Sample = tuple[Mapping[str, object], float]


class Metrics:
    """What is counted, and how it reads. Called with each event, from any thread."""

    def __init__(self, snapshot: Snapshot, *, proc: Path = Path("/proc")) -> None:
        self._snapshot = snapshot
        self._proc = proc
        self._lock = threading.Lock()
        self._durations: dict[str, list[int]] = {}
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._failures: Counter[tuple[str, str]] = Counter()
        self._evaluations = 0
        self._steps: dict[int, Step] = {}

    def __call__(self, event: Event) -> None:
        """Count the event."""
        with self._lock:
            match event.kind:
                case "progress" if event.step:
                    self._count_step(event.job_id, event.step)
                case "done" if event.seconds:  # 0: it was painted before
                    counts = self._durations.setdefault(event.preset, [0] * (len(BUCKETS) + 1))
                    counts[bisect_left(BUCKETS, event.seconds)] += 1
                    self._seconds[event.preset] += event.seconds
                case "failed" | "retry" | "blocked":
                    self._failures[event.kind, event.reason] += 1
            if event.kind == "running" or event.stops_work:
                self._steps.pop(event.job_id, None)

    def _count_step(self, job_id: int, step: Step) -> None:
        """Steps may be lost on their way: the numbers in them count."""
        before = self._steps.get(job_id)
        counted = before.evaluation if before and before.scale == step.scale else 0
        self._evaluations += max(0, step.evaluation - counted)
        self._steps[job_id] = step

    def text(self) -> str:
        """All figures in Prometheus's text format."""
        with self._lock:
            counted = list(self._counted())
        families = itertools.chain(self._standing(), counted, self._memory())
        return "".join(line + "\n" for family in families for line in family)

    def _counted(self) -> Iterator[list[str]]:
        yield self._histogram()
        failures = (
            ({"kind": kind, "reason": reason}, number)
            for (kind, reason), number in sorted(self._failures.items())
        )
        what = "photos that failed, by what came of it"
        yield _family("failures_total", what, failures, "counter")
        what = "evaluations of the loss"
        yield _family("evaluations_total", what, [({}, self._evaluations)], "counter")

    def _histogram(self) -> list[str]:
        samples = []
        for preset, counts in sorted(self._durations.items()):
            sums = itertools.accumulate(counts)
            samples += [
                _sample("photo_seconds_bucket", {"preset": preset, "le": _number(edge)}, number)
                for edge, number in zip((*BUCKETS, math.inf), sums, strict=True)
            ]
            samples.append(_sample("photo_seconds_sum", {"preset": preset}, self._seconds[preset]))
            samples.append(_sample("photo_seconds_count", {"preset": preset}, sum(counts)))
        return [*_head("photo_seconds", "from a job's start to its result", "histogram"), *samples]

    def _standing(self) -> Iterator[list[str]]:
        try:
            status = self._snapshot()
        except Exception:  # noqa: BLE001  (a daemon that does not answer is what we have to tell)
            yield _one("up", "whether the daemon answers", 0)
            return
        yield _one("up", "whether the daemon answers", 1)
        yield _one("paused", "whether it is paused", bool(status["paused"]))
        yield _one("running_jobs", "photos in work", len(status["running"]))
        jobs = (
            ({"folder": folder, "state": state}, number)
            for folder, states in status["counts"].items()
            for state, number in states.items()
        )
        yield _family("jobs", "jobs in the ledger", jobs)
        settling = (({"folder": name}, number) for name, number in status["settling"].items())
        yield _family("settling_files", "files that are not complete yet", settling)
        folders, well = status["folders"], AT_HAND | {"blocked"}
        healthy = (({"folder": each.folder}, each.state in well) for each in folders)
        yield _family("folder_healthy", "whether it is looked after", healthy)
        ages = (({"folder": each.folder}, each.scan_age) for each in folders)
        yield _family("folder_scan_age_seconds", "since its last full scan", ages)
        blocked = (
            ({"output": output, "reason": why}, 1) for output, why in status["blocked"].items()
        )
        yield _family("output_blocked", "outputs that wait", blocked)

    def _memory(self) -> Iterator[list[str]]:
        workers = list(_workers(self._proc, os.getpid()))
        memory = [
            ({"process": "daemon"}, _resident(self._proc / "self")),
            ({"process": "workers"}, sum(_resident(folder) for folder in workers)),
        ]
        yield _family("memory_bytes", "resident memory", memory)
        yield _one("workers", "worker processes of this machine", len(workers))


def _workers(proc: Path, parent: int) -> Iterator[Path]:
    """The processes of ours in which jobs run."""
    for folder in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[1]) == parent and b"spawn_main" in (folder / "cmdline").read_bytes():
                yield folder


def _resident(folder: Path) -> int:
    with contextlib.suppress(OSError):
        pages = int((folder / "statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 0


# --- Prometheus's text format ---------------------------------------------------------------------


def _one(name: str, what: str, value: float) -> list[str]:
    return _family(name, what, [({}, value)])


def _family(name: str, what: str, samples: Iterable[Sample], kind: str = "gauge") -> list[str]:
    return [*_head(name, what, kind), *(_sample(name, *sample) for sample in samples)]


def _head(name: str, what: str, kind: str) -> list[str]:
    return [f"# HELP stylewatch_{name} {what}", f"# TYPE stylewatch_{name} {kind}"]


def _sample(name: str, labels: Mapping[str, object], value: float) -> str:
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    braced = f"{{{inside}}}" if inside else ""
    return f"stylewatch_{name}{braced} {_number(value)}"


def _escaped(text: object) -> str:
    safe = str(text).encode("utf-8", "backslashreplace").decode()
    return safe.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf"
    return repr(float(value)) if value != int(value) else str(int(value))


# --- the port -------------------------------------------------------------------------------------


class MetricsServer:
    """The port, served in threads of its own while it is entered."""

    def __init__(self, port: int, text: Callable[[], str]) -> None:
        self._wanted = port
        self._text = text

    def __enter__(self) -> Self:
        """Listen on this machine alone.

        Raises:
            UsageError: the port is taken or not ours to take.
        """
        try:
            self._server = _Server((HOST, self._wanted), _handler(self._text))
        except OSError as error:
            raise UsageError(
                f"metrics_port {self._wanted} can't be used: {error.strerror}",
                remedy="Give another one, or leave it out",
            ) from error
        self.port = self._server.server_port
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="metrics", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=2.0)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = MAX_CLIENTS

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._clients: deque[socket.socket] = deque()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._clients.append(request)
        if len(self._clients) > MAX_CLIENTS:
            with contextlib.suppress(OSError):  # it hung up itself
                self._clients.popleft().shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with contextlib.suppress(ValueError):
            self._clients.remove(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news."""


def _handler(text: Callable[[], str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = CLIENT_SECONDS
        server_version, sys_version = "stylewatch", ""

        def do_GET(self) -> None:
            host = self.headers.get("Host", HOST)
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name not in NAMES_OF_HOST:
                self._reply(HTTPStatus.FORBIDDEN, "only for this machine\n")
            elif self.path.partition("?")[0] != "/metrics":
                self._reply(HTTPStatus.NOT_FOUND, "see /metrics\n")
            else:
                self._reply(HTTPStatus.OK, text())

        def _reply(self, status: HTTPStatus, body: str) -> None:
            data = body.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Stderr is for the daemon."""

    return Handler
