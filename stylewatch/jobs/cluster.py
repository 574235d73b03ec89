"""Jobs on a Dask cluster, reached by TLS. Its workers need this package too, in the same version.

The scheduler should not itself retry what has killed a worker (DASK_DISTRIBUTED__SCHEDULER__
ALLOWED_FAILURES=0): attempts are counted here. Each worker runs one job at a time
(`dask worker --nthreads 1`).
"""

import asyncio
import contextlib
import functools
import logging
import math
import re
import shlex
import sys
import threading
import time
import uuid
from collections.abc import Callable, Collection
from concurrent.futures import Future
from pathlib import Path
from pkgutil import resolve_name
from typing import Any
from weakref import WeakKeyDictionary

from stylewatch import __version__
from stylewatch.domain import EngineSettings
from stylewatch.errors import ConfigError, EngineLost, WorkerDied
from stylewatch.jobs.child import CODE, JobName, perform, set_environment
from stylewatch.jobs.jobtable import InFlight, JobTable, OnEvent
from stylewatch.settings.notations import SCHEDULER

ANSWER_SECONDS = 10.0  # for the scheduler to answer, and for its workers to restart
LOOK_SECONDS = 2.0  # how often the workers are counted
SHUN_SECONDS = 300.0  # for a machine that lacks what jobs need, if others don't
BRIEFLY = 30.0  # for one where something broke in a worker: perhaps only by that photo
TLS_SETTINGS = {
    "tls_ca_file": "DASK_DISTRIBUTED__COMM__TLS__CA_FILE",
    "tls_client_cert": "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT",
    "tls_client_key": "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY",
}


class DaskExecutor(JobTable):
    """The workers of a Dask scheduler, where this package is installed too."""

    here = False

    def __init__(self, address: str, engine: EngineSettings, on_event: OnEvent) -> None:
        super().__init__(on_event)
        self._distributed, self._security = _dask(address)
        self._address = address
        self._engine = engine
        self._topic = f"stylewatch-{uuid.uuid4().hex}"
        self._client: Any = None
        self._scheduler = ""  # its own id, which a restart changes
        self._programs: dict[str, Any] = {}  # by worker: its CODE, or the future of that
        self._seen = -math.inf  # when the workers were counted last
        self._shunned: dict[str, float] = {}  # by machine: until when
        self._ran_on: WeakKeyDictionary[Future[Any], str] = WeakKeyDictionary()  # the worker
        self._leaving = False
        self._news = threading.Event()  # a worker has told its CODE, or we are leaving
        self._loop, self._end_loop = _running_loop()
        self._follower = threading.Thread(target=self._follow, name="dask", daemon=True)
        self._follower.start()

    def _capacity(self) -> int:
        """One job per worker process, besides those that still run where no more are started."""
        if time.monotonic() >= self._seen + 3 * LOOK_SECONDS:
            return 0
        workers = self._workers()
        shunned = self._programs.keys() - workers
        on = [self.worker_of(job.out) for job in list(self._jobs.values())]
        return len(workers) + sum(worker in shunned for worker in on)

    def _workers(self) -> list[str]:
        """Those of our own version, without those that are shunned, unless all are."""
        ours = [worker for worker, program in self._programs.items() if program == CODE]
        now = time.monotonic()
        return [each for each in ours if self._shunned.get(_machine_of(each), now) <= now] or ours

    @property
    def silent(self) -> int:
        """How many workers have not said yet what they are, as while they paint for others."""
        return sum(not isinstance(program, str) for program in self._programs.values())

    @property
    def strange(self) -> str:
        """That a worker is of another version, or without stylewatch, in one line; else empty."""
        for worker, program in self._programs.items():
            if isinstance(program, str) and program != CODE:
                return str(_of_another_program(worker))
        return ""

    def worker_of(self, out: Future[Any]) -> str:
        """The address of the worker that has begun the job with this future; else empty."""
        return self._ran_on.get(out, "")

    def shun(self, worker: str, *, briefly: bool = False) -> None:
        """Have other machines do what there is to do for a while: Dask prefers who is done at once.

        All workers of its machine lack the same, and so does the one that is started in its place.
        """
        now = time.monotonic()
        still = {machine: until for machine, until in self._shunned.items() if until > now}
        machine, until = _machine_of(worker), now + (BRIEFLY if briefly else SHUN_SECONDS)
        self._shunned = {**still, machine: max(until, still.get(machine, until))}

    def close(self) -> None:
        """Kill what runs, and leave the cluster."""
        self._leaving = True
        self._news.set()
        super().close()
        self._follower.join(1.0)
        if self._client:
            self._client.close(timeout=2.0)
        self._end_loop()

    def _follow(self) -> None:
        """Keep a client and count the workers, off the daemon's thread: a scheduler may hang."""
        while not self._leaving:
            try:
                if not self._is_connected():
                    self._connect()
                self._look_at_workers()
            except Exception as error:  # noqa: BLE001  (tried again; jobs wait in the ledger)
                self._programs = {}
                self._trouble = f"no Dask scheduler answers at {self._address}: {error}"
            self._news.wait(LOOK_SECONDS)
            self._news.clear()

    def _look_at_workers(self) -> None:
        """Count the workers, and ask each new one for its CODE: another's may not know our jobs."""
        programs = {}
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        for worker, told in workers.items():
            if _takes_jobs(told):
                asked = self._programs.get(worker) or self._ask(worker)
                programs[worker] = asked if isinstance(asked, str) else _answer(asked)
        just_asked = programs.keys() - self._programs.keys()
        self._programs, self._seen = programs, time.monotonic()
        if strange := self.strange:
            self._trouble = strange
        elif not just_asked and time.monotonic() >= self._rests_until:
            free = "free " if workers else ""
            self._trouble = f"the Dask scheduler at {self._address} has no {free}workers"

    def _ask(self, worker: str) -> Any:
        """A worker's CODE, as a future.

        By a function of Python's own: a worker ends when it is sent a function that it lacks.
        """
        asked = self._client.submit(
            resolve_name, f"{perform.__module__}:CODE", workers=[worker], pure=False
        )
        asked.add_done_callback(lambda _: self._news.set())
        return asked

    def _is_connected(self) -> bool:
        """Whether the client is connected to the same scheduler: a new one sends no progress."""
        return (
            self._client is not None
            and self._client.status == "running"
            and self._client.scheduler_info()["id"] == self._scheduler
        )

    def _connect(self) -> None:
        if self._client:
            self._client.close(timeout=2.0)
            self._client = None
        self._programs = {}
        client = self._distributed.Client(
            self._address,
            security=self._security,
            timeout=ANSWER_SECONDS,
            set_as_default=False,
            loop=self._loop,
        )
        client.subscribe_topic(self._topic, lambda event: self._hear_from(*event[1]))
        self._client, self._scheduler = client, client.scheduler_info()["id"]

    def _hear_from(self, worker: str, serial: int, message: bytes) -> None:
        """Take a job's message, by which we know where it runs."""
        if job := self._jobs.get(serial):
            self._ran_on[job.out] = worker
        self._hear(message)

    def _launch(self, job: InFlight) -> None:
        try:
            self._hand_over(job)
        except Exception as error:  # its client is closed, perhaps in this moment, to be made anew
            raise _no_scheduler() from error

    def _hand_over(self, job: InFlight) -> None:
        if self._client is None or self._client.status != "running":
            raise _no_scheduler()
        job.place = self._client.submit(
            run_on_dask,
            self._topic,
            job.name,
            job.task,
            self._engine,
            CODE,
            key=f"{self._topic}-{job.serial}",
            pure=False,
            workers=self._workers(),  # a new one may be of any version
            allow_other_workers=True,  # or it would wait for ever if these are gone
        )
        job.place.add_done_callback(functools.partial(self._answered, job))

    def _answered(self, job: InFlight, answer: Any) -> None:
        if answer.status not in {"finished", "error"}:
            self._finish(job, error=_no_scheduler())
            return
        try:
            self._ran_on[job.out], data = answer.result(timeout=ANSWER_SECONDS)
        except Exception as error:  # noqa: BLE001  (Dask's own: a job's error comes as an answer)
            if killed := getattr(error, "last_worker", None):
                self._ran_on[job.out] = killed.address
                self._look_anew([killed.address])
            self._finish(job, error=_ours(error))
        else:
            self._read(job, data)

    def _kill(self, job: InFlight) -> None:
        """Dask can't end a job that runs: its worker's process has to restart."""
        with contextlib.suppress(Exception):  # what can't be killed is forgotten all the same
            doing = self._client.processing()
            at = self.worker_of(job.out)
            workers = [each for each, keys in doing.items() if job.place.key in keys or each == at]
            job.place.cancel()
            if workers:
                self._client.restart_workers(workers, timeout=ANSWER_SECONDS, raise_for_error=False)
                self._look_anew(workers)

    def _look_anew(self, gone: Collection[str]) -> None:
        """Count these workers no more, and see at once who has come in their place."""
        self._programs = {each: told for each, told in self._programs.items() if each not in gone}
        self._news.set()


def _running_loop() -> tuple[Any, Callable[[], None]]:
    """Tornado's loop in a thread of its own, and what ends it.

    A client that has none makes one, and leaves it behind where no scheduler answers.
    """
    from tornado.ioloop import IOLoop  # noqa: PLC0415  (comes with Dask)

    running: Future[Any] = Future()
    end = asyncio.Event()

    async def hold() -> None:
        running.set_result(IOLoop.current())
        await end.wait()

    threading.Thread(target=lambda: asyncio.run(hold()), name="dask-loop", daemon=True).start()
    loop = running.result()
    return loop, lambda: loop.add_callback(end.set)


def _machine_of(worker: str) -> str:
    """The worker's address without its port."""
    return worker.rpartition(":")[0]


def _takes_jobs(worker: dict[str, Any]) -> bool:
    """Whether Dask gives it jobs: not while it is paused as its memory is full, or if it is ending.

    But in the middle of one it is counted all the same.
    """
    status: str = worker["status"]
    doing: dict[str, int] = worker["metrics"].get("task_counts", {})
    return status == "running" or doing.get("executing", 0) > 0


def _answer(asked: Any) -> Any:
    """A worker's CODE; as long as it has not answered, the future; None if it never will."""
    match asked.status:
        case "finished":
            return asked.result(timeout=ANSWER_SECONDS)
        case "error":
            return "none of ours"
        case "cancelled":
            return None
    return asked


def run_on_dask(
    topic: str, name: JobName, task: bytes, engine: EngineSettings, code: str
) -> tuple[str, bytes]:
    """One job in a Dask worker's process, which is named, its progress as events of a topic.

    It ends with its next progress where nobody waits for it any more, as when the daemon was killed
    or has lost its scheduler: Dask itself only forgets it, and another one paints the same photo.
    """
    from distributed import get_worker  # noqa: PLC0415

    worker = get_worker()
    key = worker.get_current_task()
    if code != CODE:  # it was restarted with another version, which nobody has seen yet
        raise _of_another_program(worker.address)

    def send(message: bytes) -> None:
        task = worker.state.tasks.get(key)
        if task is None or task.state != "executing":
            raise EngineLost("nobody waits for this job any more")
        worker.log_event(topic, (worker.address, name[1], message))

    set_environment(engine)
    return worker.address, perform(name, task, send)


def _of_another_program(worker: str) -> EngineLost:
    problem = f"the Dask worker at {worker} has no stylewatch, or not the daemon's"
    remedy = "Install the same version there, on the same Python, and restart the worker"
    return EngineLost(f"{problem} {__version__}", remedy=remedy)


def _ours(error: Exception) -> WorkerDied | EngineLost:
    if isinstance(error, EngineLost):
        return error
    if type(error).__name__ == "KilledWorker":
        return WorkerDied("the Dask worker that ran the job died")
    remedy = "Is this version of stylewatch installed where its workers run?"
    return EngineLost("the Dask workers can't run jobs", received=repr(error), remedy=remedy)


def _no_scheduler() -> EngineLost:
    return EngineLost("the Dask scheduler is gone", remedy="Its jobs start again when it is back")


def _dask(address: str) -> tuple[Any, Any]:
    """The library and the security for this address; ConfigError where it can't be used."""
    if not re.fullmatch(SCHEDULER, address):
        raise ConfigError(
            "a Dask scheduler must be reached by TLS: without it anyone there may run code",
            key="workers",
            expected="tls://host:port, or tcp://127.0.0.1:port",
            received=address,
        )
    try:
        import distributed  # noqa: PLC0415  (an optional extra)
    except ImportError as error:
        remedy = f"Install it: {shlex.quote(sys.executable)} -m pip install 'stylewatch[dask]'"
        raise ConfigError(
            "Dask is not installed", key="workers", received=address, remedy=remedy
        ) from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # its errors come as ours
    return distributed, _tls(distributed) if address.startswith("tls:") else None


def _tls(distributed: Any) -> Any:
    """TLS as Dask itself is configured, by its environment variables or its config file."""
    security = distributed.Security(require_encryption=True)
    for attribute, variable in TLS_SETTINGS.items():
        file = getattr(security, attribute)
        if not file or not Path(file).is_file():
            raise ConfigError(
                "TLS is not set up for Dask",
                key="workers",
                expected=f"a file in {variable}",
                received=str(file or "nothing"),
            )
    return security
