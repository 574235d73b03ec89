"""A job's crash, hang or cancel costs that job and no more, here and on a Dask cluster."""

import contextlib
import importlib.util
import multiprocessing
import os
import pickle
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import jobs_for_tests as jobs
import psutil
import pytest
from waiting import wait_until

from stylewatch.app import doctor
from stylewatch.domain import EngineSettings
from stylewatch.errors import (
    ConfigError,
    DeviceError,
    EngineLost,
    InputError,
    JobTimeout,
    WorkerDied,
)
from stylewatch.jobs import child, executors, jobtable
from stylewatch.jobs.executors import LocalExecutor, open_executor
from stylewatch.settings.loading import watch_config

pytestmark = pytest.mark.usefixtures("light_workers")
ENGINE = EngineSettings(nice=1)
PATIENCE = 60  # seconds; nothing here takes that long on an idle machine

needs_dask = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="distributed is not installed"
)
BOTH = ["local", pytest.param("dask", marks=needs_dask)]
BOTH_BUT_DASK_IS_SLOW = ["local", pytest.param("dask", marks=[needs_dask, pytest.mark.slow])]


class Heard(queue.SimpleQueue):
    """The events of an executor."""

    def __call__(self, job_id, kind, info):
        self.put((job_id, kind, info))

    def next(self, kind="progress"):
        while (event := self.get(timeout=PATIENCE))[1] != kind:
            pass
        return event


@pytest.fixture
def heard():
    return Heard()


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """A real Dask scheduler and worker, each in a process of its own, over loopback."""
    here = tmp_path_factory.mktemp("dask")
    with Cluster(here) as cluster:
        yield cluster


class Cluster:
    def __init__(self, here: Path, *tls) -> None:
        self.address_file = here / "scheduler.json"
        self.here = here
        self.tls = tls
        paths = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(paths),
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
        }
        self.processes = []

    def __enter__(self):
        self.start("scheduler", "--port", "0", "--scheduler-file", str(self.address_file))
        wait_until(lambda: self.address_file.exists() and self.address_file.read_text())
        self.address = self.address_file.read_text().split('"address": "')[1].split('"')[0]
        self.start_worker()
        return self

    def start_worker(self, *packages, host="127.0.0.1"):
        """What is found in `packages` is taken from there, such as another stylewatch."""
        before = self.environment["PYTHONPATH"]
        self.environment["PYTHONPATH"] = os.pathsep.join([*map(str, packages), before])
        self.start("worker", self.address, "--nthreads", "1", "--nworkers", "1", host=host)
        self.environment["PYTHONPATH"] = before

    def start(self, what, *arguments, host="127.0.0.1"):
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *arguments, *self.tls]
        command += ["--host", host, "--no-dashboard"]
        log = (self.here / f"{what}.log").open("a")
        self.processes.append(
            subprocess.Popen(
                command, env=self.environment, cwd=self.here, stdout=log, stderr=subprocess.STDOUT
            )
        )
        log.close()

    def kill(self, process):
        with contextlib.suppress(psutil.NoSuchProcess):  # a child may end by itself
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
        process.kill()
        process.wait()

    def __exit__(self, *_):
        for process in reversed(self.processes):
            self.kill(process)


def with_slots(executor):
    wait_until(lambda: executor.slots, told=lambda: executor.trouble)
    return executor


@pytest.fixture
def executor(request, heard):
    kind = getattr(request, "param", "local")
    workers = request.getfixturevalue("scheduler").address if kind == "dask" else 1
    with contextlib.closing(open_executor(workers, ENGINE, heard)) as opened:
        yield with_slots(opened)


def result(future):
    return future.result(timeout=PATIENCE)


def error(future):
    return future.exception(timeout=PATIENCE)


def is_gone(pid):
    with contextlib.suppress(psutil.NoSuchProcess):  # it may go between any two looks
        wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    return True


def code_of(folder):
    """What a process says that finds stylewatch there, whatever the working folder has."""
    ask = [sys.executable, "-P", "-c", "from stylewatch.jobs.child import CODE; print(CODE)"]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.check_output(ask, env=environment, text=True).strip()


class TestContract:
    """What every executor keeps."""

    @pytest.mark.parametrize("executor", BOTH, indirect=True)
    def test_a_job_runs_elsewhere_and_tells_its_progress(self, executor, heard):
        assert executor.slots == 1
        assert executor.trouble == ""
        assert result(executor.submit(7, jobs.count, 3)) == 3
        events = [heard.get(timeout=PATIENCE) for _ in range(4)]
        assert events[0][:2] == (7, "started")
        assert events[0][2] != os.getpid()
        assert events[1:] == [(7, "progress", number) for number in range(3)]

    @pytest.mark.parametrize("executor", BOTH, indirect=True)
    def test_an_error_arrives_with_all_its_parts(self, executor):
        raised = InputError("bad photo", expected="JPEG", received="text", reason="not-an-image")
        arrived = error(executor.submit(1, jobs.raise_it, raised))
        assert type(arrived) is InputError
        assert str(arrived) == str(raised)
        assert arrived.reason == "not-an-image"
        arrived = error(executor.submit(2, jobs.raise_it, ValueError("a bug")))
        assert type(arrived) is ValueError
        assert result(executor.submit(3, jobs.add, 1, 2)) == 3

    @pytest.mark.parametrize("executor", BOTH_BUT_DASK_IS_SLOW, indirect=True)
    @pytest.mark.parametrize(
        "job",
        [
            *(jobs.raise_unreadable, jobs.raise_unpicklable),
            *(jobs.give_unreadable, jobs.give_unpicklable, jobs.leave),
        ],
    )
    def test_an_answer_that_cannot_travel_is_an_error_of_that_job(self, executor, job):
        raised = error(executor.submit(1, job))
        assert isinstance(raised, Exception)
        assert not isinstance(raised, WorkerDied | EngineLost)
        assert result(executor.submit(2, jobs.add, 1, 2)) == 3

    @pytest.mark.parametrize("broken", [RuntimeError("CUDA error"), DeviceError("No GPU")])
    @pytest.mark.parametrize("executor", BOTH_BUT_DASK_IS_SLOW, indirect=True)
    def test_a_worker_in_which_something_broke_unforeseen_is_replaced(self, executor, broken):
        """An error of a GPU stays until its process ends: each photo after it would fail, too."""
        first = result(executor.submit(1, jobs.pid))
        error(executor.submit(2, jobs.raise_it, InputError("bad photo")))
        assert result(executor.submit(3, jobs.pid)) == first
        error(executor.submit(4, jobs.raise_it, broken))
        assert result(executor.submit(5, jobs.pid)) != first

    @pytest.mark.parametrize("executor", BOTH_BUT_DASK_IS_SLOW, indirect=True)
    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
    def test_a_job_that_dies_costs_only_itself(self, executor, number):
        assert isinstance(error(executor.submit(1, jobs.die, number)), WorkerDied)
        assert result(executor.submit(2, jobs.add, 1, 2)) == 3

    @pytest.mark.parametrize("executor", BOTH_BUT_DASK_IS_SLOW, indirect=True)
    @pytest.mark.parametrize("code", [0, 3])
    def test_a_job_that_ends_its_process_costs_only_itself(self, executor, code):
        """Also where it says that all is well: nobody waits for the time-out."""
        assert isinstance(error(executor.submit(1, jobs.end, code)), WorkerDied)
        assert result(executor.submit(2, jobs.add, 1, 2)) == 3

    @pytest.mark.parametrize("executor", BOTH_BUT_DASK_IS_SLOW, indirect=True)
    def test_twenty_crashes_in_a_row_are_twenty_failed_jobs(self, executor):
        for number in range(20):
            crash = executor.submit(number, jobs.die, signal.SIGKILL)
            assert isinstance(error(crash), WorkerDied), number
        assert result(executor.submit(99, jobs.add, 1, 2)) == 3

    @pytest.mark.parametrize("executor", BOTH_BUT_DASK_IS_SLOW, indirect=True)
    @pytest.mark.parametrize("job", [jobs.sleep, jobs.hold_the_gil])
    def test_a_job_that_takes_too_long_is_killed(self, executor, job):
        pid = result(executor.submit(1, jobs.pid))
        arrived = error(executor.submit(2, job, 300, timeout=0.5))
        assert isinstance(arrived, JobTimeout)
        assert "0.5 s" in str(arrived)
        assert is_gone(pid)
        assert result(executor.submit(3, jobs.add, 1, 2)) == 3

    @pytest.mark.parametrize("executor", BOTH_BUT_DASK_IS_SLOW, indirect=True)
    def test_a_running_job_can_be_cancelled(self, executor, heard):
        future = executor.submit(1, jobs.sleep, 300)
        _, _, pid = heard.next("started")
        there = queue.SimpleQueue()
        future.add_done_callback(lambda _: there.put(os.path.exists(f"/proc/{pid}")))
        executor.cancel(1)
        assert isinstance(error(future), CancelledError)
        assert not there.get(timeout=PATIENCE)
        assert result(executor.submit(2, jobs.add, 1, 2)) == 3

    @pytest.mark.parametrize("executor", BOTH, indirect=True)
    def test_cancelling_what_does_not_run_does_nothing(self, executor):
        future = executor.submit(1, jobs.add, 1, 2)
        assert result(future) == 3
        executor.cancel(1)
        executor.cancel(99)
        assert result(executor.submit(2, jobs.add, 1, 2)) == 3

    @pytest.mark.parametrize("executor", BOTH_BUT_DASK_IS_SLOW, indirect=True)
    def test_closing_ends_what_runs_and_no_attempt_is_to_be_counted(self, executor, heard):
        future = executor.submit(1, jobs.sleep, 300)
        _, _, pid = heard.next("started")
        executor.close()
        assert isinstance(error(future), EngineLost)
        assert is_gone(pid)
        assert isinstance(error(executor.submit(2, jobs.add, 1, 2)), EngineLost)


class TestLocal:
    """Processes of this machine."""

    def test_one_process_serves_many_jobs_and_is_there_only_when_needed(self, executor):
        first = result(executor.submit(1, jobs.pid))
        assert result(executor.submit(2, jobs.pid)) == first
        executor.release()
        assert is_gone(first)
        assert result(executor.submit(3, jobs.pid)) != first

    def test_a_worker_that_is_idle_ends_though_another_one_works_now_and_then(
        self, heard, tmp_path
    ):
        """As after a batch, when photos come one by one: the same worker takes them all."""
        os.mkfifo(tmp_path / "gate")
        with contextlib.closing(LocalExecutor(ENGINE, heard, workers=2)) as executor:
            waiting = executor.submit(1, jobs.wait_at, tmp_path / "gate")
            idle = result(executor.submit(2, jobs.pid))
            (tmp_path / "gate").write_text("go")
            used = result(waiting)
            for number in (3, 4):
                now = time.monotonic()
                assert result(executor.submit(number, jobs.pid)) == used
                executor.release(now)
            assert is_gone(idle)
            assert result(executor.submit(5, jobs.pid)) == used

    def test_a_worker_imports_nothing_from_the_folder_that_it_is_started_in(
        self, heard, tmp_path, monkeypatch
    ):
        """Such as a shared folder of photos, into which somebody has put a `socket.py`."""
        for name in ("socket.py", "struct.py"):
            (tmp_path / name).write_text("raise SystemExit('not ours')\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
        with contextlib.closing(LocalExecutor(ENGINE, heard)) as executor:
            assert result(executor.submit(1, jobs.add, 1, 2)) == 3

    def test_an_idle_worker_that_was_killed_is_replaced(self, executor):
        """By whoever keeps the jobs: its thread stays, and a worker ends with what started it."""
        for number in range(3):
            pid = result(executor.submit(number, jobs.pid))
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.1 * number)  # found dead at once, or later
            assert isinstance(error(executor.submit(number, jobs.pid)), EngineLost)
            assert (executor.slots, executor.trouble) == (1, "")  # and is tried again at once
        assert result(executor.submit(9, jobs.add, 1, 2)) == 3

    def test_who_comes_after_a_crash_has_all_the_time_to_start(self, executor, monkeypatch):
        """Python alone may take seconds where memory has just run out: it is no idle worker."""
        monkeypatch.setattr(executors, "START_SECONDS", 0.0)
        assert isinstance(error(executor.submit(1, jobs.die, signal.SIGKILL)), WorkerDied)
        assert result(executor.submit(2, jobs.add, 1, 2)) == 3

    def test_an_idle_worker_that_hangs_is_replaced(self, executor, monkeypatch):
        monkeypatch.setattr(executors, "START_SECONDS", 0.5)
        pid = result(executor.submit(1, jobs.pid))
        os.kill(pid, signal.SIGSTOP)
        assert isinstance(error(executor.submit(2, jobs.pid)), EngineLost)
        assert is_gone(pid)
        assert (executor.slots, executor.trouble) == (1, "")
        assert result(executor.submit(2, jobs.pid)) != pid

    def test_an_idle_worker_that_begins_just_when_it_is_given_up_costs_the_job_nothing(
        self, executor, heard, monkeypatch
    ):
        """It may have been swapped out."""
        stop, pid = executors._stop, result(executor.submit(1, jobs.pid))
        assert heard.next("started")[0] == 1
        os.kill(pid, signal.SIGSTOP)

        def stop_late(pool):
            os.kill(pid, signal.SIGCONT)
            assert heard.next("started")[0] == 2
            stop(pool)

        with monkeypatch.context() as patched:
            patched.setattr(executors, "START_SECONDS", 0.5)
            patched.setattr(executors, "_stop", stop_late)
            assert isinstance(error(executor.submit(2, jobs.pid)), EngineLost)
        assert is_gone(pid)
        assert result(executor.submit(2, jobs.pid)) != pid

    def test_a_job_that_is_cancelled_while_its_worker_is_made_never_begins(
        self, executor, heard, monkeypatch
    ):
        make = executor._new_pool

        def cancelled_meanwhile():
            pool = make()
            executor.cancel(1)
            wait_until(lambda: not executor._jobs)
            return pool

        with monkeypatch.context() as patched:
            patched.setattr(executor, "_new_pool", cancelled_meanwhile)
            future = executor.submit(1, jobs.sleep, 300)
        assert isinstance(error(future), CancelledError)
        assert result(executor.submit(2, jobs.add, 1, 2)) == 3
        assert heard.next("started")[0] == 2

    def test_a_job_that_ends_before_it_is_launched_leaves_no_clock_running(
        self, executor, monkeypatch
    ):
        """One thread for an hour, for each job that a machine without descriptors can't start."""
        clocks = Mock()
        with monkeypatch.context() as patched:
            patched.setattr(jobtable.threading, "Timer", clocks)
            patched.setattr(executor, "_new_pool", Mock(side_effect=OSError("no descriptors")))
            assert isinstance(error(executor.submit(1, jobs.add, 1, 2, timeout=3600)), EngineLost)
        assert [call[0] for call in clocks().method_calls] == ["start", "cancel"]

    def test_several_workers_work_at_once_and_fail_alone(self, heard):
        with contextlib.closing(open_executor(2, ENGINE, heard)) as executor:
            assert executor.slots == 2
            long = executor.submit(1, jobs.sleep, 300)
            assert heard.next()[0] == 1
            assert isinstance(error(executor.submit(2, jobs.die, signal.SIGKILL)), WorkerDied)
            assert result(executor.submit(3, jobs.add, 1, 2)) == 3
            assert not long.done()
            executor.cancel(1)
            assert isinstance(error(long), CancelledError)

    def test_a_place_is_free_before_the_future_tells(self, executor):
        again = []
        future = executor.submit(1, jobs.add, 1, 2)
        future.add_done_callback(lambda _: again.append(executor.submit(2, jobs.add, 2, 3)))
        result(future)
        wait_until(lambda: again)
        assert result(again[0]) == 5

    def test_who_asks_a_worker_to_end_has_time_to_ask_the_daemon_too(
        self, executor, heard, monkeypatch
    ):
        monkeypatch.setattr(executors, "TERM_SECONDS", 0.5)
        future = executor.submit(1, jobs.sleep, 300)
        pid, asked = heard.next("started")[2], time.monotonic()
        os.kill(pid, signal.SIGTERM)
        assert isinstance(error(future), WorkerDied)
        assert time.monotonic() - asked >= 0.5
        assert result(executor.submit(2, jobs.add, 1, 2)) == 3

    @pytest.mark.slow
    def test_a_stopped_process_is_killed_by_force(self, executor):
        assert isinstance(error(executor.submit(1, jobs.stop_yourself, timeout=1.0)), JobTimeout)
        assert result(executor.submit(2, jobs.add, 1, 2)) == 3

    def test_a_worker_is_nice_quiet_limited_and_deaf_to_interrupts(self, heard):
        settings = replace(ENGINE, nice=3, threads=2, memory_limit=1 << 30)
        before = os.nice(0)
        with contextlib.closing(LocalExecutor(settings, heard)) as executor:
            facts = result(executor.submit(1, jobs.about_yourself))
            assert (1 << 30) < facts.pop("memory") < (8 << 30)
            assert facts == {
                "nice": min(before + 3, 19),
                "threads": "2",
                "tensorflow threads": "2",
                "operations at once": "1",
                "chatter": "3",
                "interrupt": True,
                "ended first": 500,
                "at its start": "glibc.malloc.hugetlb=1",
            }
            assert result(executor.submit(2, jobs.take_memory, 100 << 20)) == 100 << 20
            assert isinstance(error(executor.submit(3, jobs.take_memory, 2 << 30)), MemoryError)
            assert result(executor.submit(4, jobs.add, 1, 2)) == 3

    def test_what_a_job_writes_goes_to_the_log(self, heard, tmp_path, capfd):
        log = tmp_path / "worker.log"
        with contextlib.closing(LocalExecutor(ENGINE, heard, log=log)) as executor:
            result(executor.submit(1, jobs.talk))
            error(executor.submit(2, jobs.raise_it, ValueError("a bug in an effect")))
        text = log.read_text()
        assert "printed by the job" in text
        assert "written by the job's libraries" in text
        assert "ValueError: a bug in an effect" in text
        assert capfd.readouterr() == ("", "")

    def test_what_all_jobs_write_does_not_fill_the_disk(self, heard, tmp_path):
        """One worker may live for years, and some effects show a bar for each photo."""
        log = tmp_path / "worker.log"
        with contextlib.closing(LocalExecutor(ENGINE, heard, log=log)) as executor:
            for number in range(6):
                result(executor.submit(number, jobs.talk_much, 600_000))
                assert 600_000 <= log.stat().st_size <= 1_800_000

    def test_progress_that_nobody_reads_or_that_is_too_large_does_not_stop_a_job(self, heard):
        with contextlib.closing(LocalExecutor(ENGINE, lambda *_: time.sleep(0.5))) as executor:
            assert result(executor.submit(1, jobs.report_much, 1000, 2000)) == 2000
            assert result(executor.submit(2, jobs.report_much, 100_000, 3)) == 3

    def test_progress_is_sent_whole_or_not_at_all(self, monkeypatch):
        """What follows half a message can't be read, of no worker and never again."""
        for size in range(4000, 4100):
            ears, mouth = multiprocessing.Pipe(duplex=False)
            os.set_blocking(mouth.fileno(), False)
            monkeypatch.setattr(child, "_progress", mouth)
            child.run((1, 1), pickle.dumps((jobs.report_much, (size, 20))))  # the pipe holds fewer
            mouth.close()
            arrived = []
            with contextlib.closing(ears), contextlib.suppress(EOFError):
                while True:
                    arrived.append(pickle.loads(ears.recv_bytes())[1])
            message = pickle.dumps(((1, 1), "progress", b"x" * size))
            told = {"started", "progress"} if len(message) <= child.MESSAGE_LIMIT else {"started"}
            assert ({*arrived}, len(arrived) < 20) == (told, True)

    def test_an_error_in_the_event_callback_is_harmless(self):
        with contextlib.closing(LocalExecutor(ENGINE, lambda *_: 1 / 0)) as executor:
            assert result(executor.submit(1, jobs.count, 3)) == 3
            assert result(executor.submit(2, jobs.count, 3)) == 3

    def test_a_worker_that_cannot_start_is_nobody_s_fault_and_is_tried_again_later(
        self, heard, tmp_path
    ):
        log = tmp_path / "missing" / "worker.log"
        with contextlib.closing(LocalExecutor(ENGINE, heard, log=log)) as executor:
            assert isinstance(error(executor.submit(1, jobs.add, 1, 2)), EngineLost)
            assert executor.slots == 0  # no busy loop of failing starts
            assert "no worker process could be started" in executor.trouble
            assert "room in /dev/shm" in executor.trouble
            log.parent.mkdir()
            executor._rests_until = 0.0  # it is over
            assert executor.slots == 1
            assert "no worker process could be started" in executor.trouble  # nobody has tried yet
            assert result(executor.submit(1, jobs.add, 1, 2)) == 3
            assert executor.trouble == ""

    def test_workers_that_cannot_start_are_tried_less_and_less_often(
        self, heard, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(jobtable, "REST_SECONDS", 100.0)
        log, rests = tmp_path / "missing" / "worker.log", []
        with contextlib.closing(LocalExecutor(ENGINE, heard, log=log)) as executor:
            for number in range(6):
                assert isinstance(error(executor.submit(number, jobs.add, 1, 2)), EngineLost)
                rests.append(executor._rests_until - time.monotonic())
                executor._rests_until = 0.0  # it is over
            assert rests == pytest.approx([100, 200, 400, 800, 1600, 1600], abs=50)

    def test_jobs_that_are_lost_together_are_one_loss(self, heard, tmp_path, monkeypatch):
        monkeypatch.setattr(jobtable, "REST_SECONDS", 100.0)
        log = tmp_path / "missing" / "worker.log"
        with contextlib.closing(LocalExecutor(ENGINE, heard, workers=4, log=log)) as executor:
            for future in [executor.submit(number, jobs.add, 1, 2) for number in range(4)]:
                assert isinstance(error(future), EngineLost)
            rest = executor._rests_until - time.monotonic()
            assert rest == pytest.approx(100, abs=50)

    def test_a_worker_of_another_program_than_the_daemon_s_does_nothing(self, heard, monkeypatch):
        monkeypatch.setattr(jobtable, "REST_SECONDS", 0.0)
        monkeypatch.setattr(executors, "CODE", "as it was before an upgrade")
        with contextlib.closing(LocalExecutor(ENGINE, heard)) as executor:
            lost = error(executor.submit(1, jobs.add, 1, 2))
            assert isinstance(lost, EngineLost)
            assert executor.slots == 0  # for good
            assert "upgraded while it ran. Restart it" in executor.trouble

    def test_a_changed_file_makes_another_program_and_one_that_was_written_again_does_not(
        self, tmp_path
    ):
        package = tmp_path / "stylewatch"
        shutil.copytree(Path(child.__file__).parents[1], package)

        before, file = code_of(tmp_path), package / "engine/losses.py"
        was = file.stat()
        os.utime(file, ns=(1, 1))
        (package / "engine/.#losses.py").symlink_to("somebody's editor")
        assert code_of(tmp_path) == before
        file.write_bytes(file.read_bytes()[::-1])
        os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
        assert code_of(tmp_path) != before

    def test_another_python_makes_another_program(self, monkeypatch):
        """What the one pickles the other can't read: each photo was painted in vain."""
        monkeypatch.setattr(child, "sys", Mock(version_info=(3, 99, 0, "final", 0)))
        assert child._read_code() != child.CODE

    def test_closing_gives_back_processes_and_descriptors(self, heard):
        def held():
            children = psutil.Process().children()
            workers = [each for each in children if "resource_tracker" not in str(each.cmdline())]
            return len(workers), len(os.listdir("/proc/self/fd"))

        for _ in range(2):  # the first one starts what Python keeps for good
            before = held()
            executor = LocalExecutor(ENGINE, heard, workers=2)
            result(executor.submit(1, jobs.add, 1, 2))
            executor.close()
            after = held()
        assert after == before


PARENT = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
import jobs_for_tests as jobs
from stylewatch.domain import EngineSettings
from stylewatch.jobs.executors import LocalExecutor
import signal
signal.signal(signal.SIGINT, lambda *_: say("interrupted"))

def say(what):
    os.write(1, f"{what}\\n".encode())  # whole, though two threads talk

def tell(job_id, kind, info):
    if kind == "started":
        say(info)

if __name__ == "__main__":
    executor = LocalExecutor(EngineSettings(nice=0), tell)
    future = executor.submit(1, getattr(jobs, sys.argv[2]), int(sys.argv[3]))
    say(future.result())
    if sys.argv[4:] == ["wait"]:
        time.sleep(60)
    executor.close()
"""


class Parent:
    """A daemon of its own, with one job."""

    def __init__(self, tmp_path, *arguments):
        script = tmp_path / "parent.py"
        script.write_text(PARENT)
        command = [sys.executable, script, Path(__file__).parent, *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def __enter__(self):
        return self

    def read(self):
        return self.process.stdout.readline().strip()

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()


@pytest.mark.parametrize(
    ("job", "seconds", "mode"),
    [("sleep", 300, ""), ("hold_the_gil", 300, ""), ("sleep", 0, "wait")],
)
def test_a_worker_dies_with_its_daemon_whatever_it_does(tmp_path, job, seconds, mode):
    with Parent(tmp_path, job, seconds, mode) as parent:
        told = {parent.read() for _ in range(2 if mode else 1)}  # in any order
        told -= {"awake"}  # in this mode it is idle now
        parent.process.kill()
        assert is_gone(int(told.pop()))


def test_a_worker_ends_that_has_not_yet_heard_of_its_daemon_when_that_ends(tmp_path):
    with Parent(tmp_path, "sleep", 300) as parent:
        while len(children := psutil.Process(parent.process.pid).children()) < 2:
            pass  # the worker, which only starts, and Python's resource tracker
        parent.process.kill()
        assert all(is_gone(child.pid) for child in children)


def test_an_interrupt_at_the_keyboard_reaches_only_the_daemon(tmp_path):
    with Parent(tmp_path, "sleep", 1) as parent:
        int(parent.read())
        os.killpg(parent.process.pid, signal.SIGINT)
        assert parent.read() == "interrupted"
        assert parent.read() == "awake"
        assert parent.process.wait(PATIENCE) == 0


def test_an_interrupt_while_a_worker_starts_does_not_reach_it(tmp_path):
    with Parent(tmp_path, "sleep", 0) as parent:
        while len(children := psutil.Process(parent.process.pid).children()) < 2:
            pass  # at once, as they start
        for child in children:  # the worker, still starting, and Python's resource tracker
            child.send_signal(signal.SIGINT)
        assert "awake" in {parent.read(), parent.read()}


class TestDask:
    """What only a cluster has."""

    @pytest.mark.parametrize(
        "address", ["tcp://10.0.0.1:8786", "tcp://scheduler:8786", "10.0.0.1:8786", "ws://x:1"]
    )
    def test_an_address_without_encryption_is_refused_unless_it_is_this_machine(
        self, heard, address
    ):
        with pytest.raises(ConfigError, match="TLS") as caught:
            open_executor(address, ENGINE, heard)
        assert caught.value.key == "workers"
        assert address in str(caught.value)

    def test_without_the_extra_the_message_says_how_to_get_it(self, heard, monkeypatch):
        monkeypatch.setitem(sys.modules, "distributed", None)
        with pytest.raises(ConfigError, match=r"pip install 'stylewatch\[dask\]'"):
            open_executor("tls://scheduler:8786", ENGINE, heard)

    @needs_dask
    def test_missing_tls_files_are_named(self, heard):
        with pytest.raises(ConfigError, match="DASK_DISTRIBUTED__COMM__TLS__CA_FILE"):
            open_executor("tls://scheduler:8786", ENGINE, heard)

    @needs_dask
    @pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
    def test_a_scheduler_that_is_not_there_means_no_slots_and_lost_jobs(
        self, heard, monkeypatch, host
    ):
        monkeypatch.setattr("stylewatch.jobs.cluster.ANSWER_SECONDS", 0.2)
        address = f"tcp://{host}:9"
        with contextlib.closing(open_executor(address, ENGINE, heard)) as executor:
            assert executor.slots == 0
            assert isinstance(error(executor.submit(1, jobs.add, 1, 2)), EngineLost)
            wait_until(lambda: f"no Dask scheduler answers at {address}" in executor.trouble)

    @needs_dask
    def test_a_connection_that_is_made_anew_in_this_moment_costs_no_more_than_the_job(
        self, scheduler, heard
    ):
        with contextlib.closing(open_executor(scheduler.address, ENGINE, heard)) as executor:
            client = with_slots(executor)._client

            class ClosesOnceLookedAt:
                """What the thread that connects does, between our look and the next step."""

                @property
                def status(self):
                    if threading.current_thread() is not executor._follower:
                        client.close()
                        executor._client = None
                    return "running"

                def __getattr__(self, name):
                    return getattr(client, name)

            executor._client = ClosesOnceLookedAt()
            assert isinstance(error(executor.submit(1, jobs.add, 1, 2)), EngineLost)

    @needs_dask
    def test_a_job_whose_daemon_was_killed_ends_soon(self, scheduler, heard, tmp_path):
        """Or it would be beside the one that is started anew, and keep a worker busy for an hour."""
        with contextlib.closing(open_executor(scheduler.address, ENGINE, heard)) as executor:
            future = with_slots(executor).submit(1, jobs.report_for_ever, tmp_path / "ended")
            heard.next()
            executor._client.close()
            assert isinstance(error(future), EngineLost)
            wait_until((tmp_path / "ended").exists)

    @needs_dask
    def test_why_it_rests_is_told_until_it_goes_on(self, heard, scheduler):
        with contextlib.closing(open_executor(scheduler.address, ENGINE, heard)) as executor:
            with_slots(executor)._rest(EngineLost("the workers can't run jobs"))
            executor._look_at_workers()
            assert executor.trouble == "the workers can't run jobs"

    @needs_dask
    def test_a_machine_is_shunned_until_the_latest_time_that_was_asked_for(
        self, heard, monkeypatch
    ):
        monkeypatch.setattr("stylewatch.jobs.cluster.ANSWER_SECONDS", 0.2)
        until = []
        with contextlib.closing(open_executor("tcp://127.0.0.1:9", ENGINE, heard)) as executor:
            for seconds in (100.0, 200.0, 50.0):
                monkeypatch.setattr("stylewatch.jobs.cluster.BRIEFLY", seconds)
                executor.shun("tcp://127.0.0.2:1", briefly=True)
                until += executor._shunned.values()
        assert until[0] < until[1] == until[2]

    @needs_dask
    def test_a_worker_whose_memory_is_full_is_not_counted_unless_it_is_painting(
        self, scheduler, heard, monkeypatch
    ):
        """Dask gives it nothing: a photo would wait for it until its time is over."""
        with contextlib.closing(open_executor(scheduler.address, ENGINE, heard)) as executor:
            client = with_slots(executor)._client
            told = client.scheduler_info(n_workers=-1)
            [worker] = told["workers"].values()
            monkeypatch.setattr(client, "scheduler_info", lambda **_: told)
            worker["status"], worker["metrics"]["task_counts"] = "paused", {"executing": 0}
            executor._look_at_workers()
            assert executor.slots == 0
            assert "has no free workers" in executor.trouble
            worker["metrics"]["task_counts"] = {"executing": 1}
            with_slots(executor)

    @needs_dask
    def test_the_doctor_tells_how_many_workers_there_are(self, scheduler, tmp_path, monkeypatch):
        monkeypatch.setattr("stylewatch.jobs.cluster.ANSWER_SECONDS", 2.0)
        config = watch_config(tmp_path / "in", tmp_path / "out", ["painting"])
        away = "tcp://127.0.0.1:9"
        [missing] = doctor._workers(replace(config, workers=away))
        assert missing.state == "warning"
        assert f"no Dask scheduler answers at {away}" in missing.message
        [found] = doctor._workers(replace(config, workers=scheduler.address))
        assert (found.state, found.message) == (
            "ok",
            f"1 worker of the cluster at {scheduler.address}",
        )
        assert not [*doctor._workers(config)]

    @needs_dask
    def test_the_doctor_waits_until_all_workers_have_said_what_they_are(
        self, tmp_path, monkeypatch
    ):
        """One of another stylewatch has yet to import it when the others have answered."""
        told = iter(["no answer", "no answer"])

        def look(executor):
            other = "none of ours" if next(told, "") == "" else Mock()
            executor._programs = {"tcp://127.0.0.1:1": child.CODE, "tcp://127.0.0.2:1": other}
            executor._seen = time.monotonic()

        monkeypatch.setattr("stylewatch.jobs.cluster.LOOK_SECONDS", 0.4)
        monkeypatch.setattr("stylewatch.jobs.cluster.DaskExecutor._is_connected", lambda _: True)
        monkeypatch.setattr("stylewatch.jobs.cluster.DaskExecutor._look_at_workers", look)
        config = watch_config(tmp_path / "in", tmp_path / "out", ["painting"])
        counted, strange = doctor._workers(replace(config, workers="tcp://127.0.0.1:9"))
        assert (counted.state, strange.state) == ("ok", "warning")
        assert counted.message.startswith("1 worker of the cluster")
        assert strange.message.startswith("the Dask worker at tcp://127.0.0.2:1 has no stylewatch")

    @needs_dask
    def test_the_doctor_counts_workers_that_are_painting(
        self, scheduler, heard, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(doctor, "CLUSTER_SECONDS", 4.0)
        config = watch_config(tmp_path / "in", tmp_path / "out", ["painting"])
        os.mkfifo(tmp_path / "gate")
        with contextlib.closing(open_executor(scheduler.address, ENGINE, heard)) as executor:
            painting = with_slots(executor).submit(1, jobs.wait_at, tmp_path / "gate")
            heard.next("started")
            [found] = doctor._workers(replace(config, workers=scheduler.address))
            (tmp_path / "gate").write_text("go")
            result(painting)
        assert found.state == "ok"
        assert found.message == f"1 worker of the cluster at {scheduler.address}"

    @needs_dask
    def test_a_scheduler_that_is_away_for_long_costs_no_descriptors(self, heard, monkeypatch):
        monkeypatch.setattr("stylewatch.jobs.cluster.ANSWER_SECONDS", 0.2)
        monkeypatch.setattr("stylewatch.jobs.cluster.LOOK_SECONDS", 0.05)
        with contextlib.closing(open_executor("tcp://127.0.0.1:9", ENGINE, heard)) as executor:
            connect, open_at = executor._connect, []

            def counted():
                open_at.append((len(os.listdir("/proc/self/fd")), threading.active_count()))
                connect()

            monkeypatch.setattr(executor, "_connect", counted)
            wait_until(lambda: len(open_at) >= 7)
        assert open_at[6][0] <= open_at[2][0] + 2
        assert open_at[6][1] <= open_at[2][1] + 1

    @needs_dask
    @pytest.mark.slow
    def test_a_lost_scheduler_costs_no_attempt_and_is_found_again(self, heard, tmp_path):
        with Cluster(tmp_path) as cluster:
            port = cluster.address.rpartition(":")[2]
            with contextlib.closing(open_executor(cluster.address, ENGINE, heard)) as executor:
                with_slots(executor)
                future = executor.submit(1, jobs.sleep, 300)
                heard.next("started")
                heard.next()
                cluster.processes[0].kill()
                assert isinstance(error(future), EngineLost)
                cluster.start("scheduler", "--port", port)
                cluster.start_worker()
                with_slots(executor)
                assert result(executor.submit(2, jobs.count, 1)) == 1
                assert heard.next() == (2, "progress", 0)

    @needs_dask
    @pytest.mark.slow
    def test_a_worker_of_another_stylewatch_is_given_no_job(self, heard, tmp_path):
        other = tmp_path / "other" / "stylewatch"
        shutil.copytree(Path(child.__file__).parents[1], other)
        (other / "__init__.py").write_text('__version__ = "0.0.9"\n')
        (tmp_path / "none" / "stylewatch").mkdir(parents=True)
        (tmp_path / "none" / "stylewatch" / "__init__.py").touch()
        with Cluster(tmp_path) as cluster:
            cluster.start_worker(other.parent)
            cluster.start_worker(tmp_path / "none")
            with contextlib.closing(open_executor(cluster.address, ENGINE, heard)) as executor:

                def wait_for(*programs):
                    def told():
                        return sorted(map(str, executor._programs.values()))

                    wait_until(lambda: told() == sorted(programs), told=told)

                strange = (code_of(other.parent), "none of ours")
                wait_for(child.CODE, *strange)
                assert executor.slots == 1
                assert len({result(executor.submit(job, jobs.pid)) for job in range(5)}) == 1
                assert [process.poll() for process in cluster.processes] == [None] * 4
                config = watch_config(tmp_path / "in", tmp_path / "out", ["painting"])
                found = [*doctor._workers(replace(config, workers=cluster.address))]
                assert [each.state for each in found] == ["ok", "warning"]
                assert found[0].message == f"1 worker of the cluster at {cluster.address}"
                assert "has no stylewatch, or not the daemon's" in found[1].message
                cluster.kill(cluster.processes[1])
                wait_for(*strange)
                assert executor.slots == 0
                assert "has no stylewatch, or not the daemon's" in executor.trouble
                lost = error(executor.submit(9, jobs.add, 1, 2))  # as if it were too early to know
                assert isinstance(lost, EngineLost | WorkerDied)

    @needs_dask
    @pytest.mark.slow
    def test_a_worker_that_nobody_has_looked_at_yet_is_given_no_job(
        self, heard, tmp_path, monkeypatch
    ):
        """It may be of another version, or of a machine that lacks files."""
        with Cluster(tmp_path) as cluster:
            cluster.start_worker()
            with contextlib.closing(open_executor(cluster.address, ENGINE, heard)) as executor:
                wait_until(lambda: executor.slots == 2)
                pids = []
                for known in [{worker: child.CODE} for worker in executor._programs]:
                    look = partial(setattr, executor, "_programs", known)
                    monkeypatch.setattr(executor, "_look_at_workers", look)
                    executor._news.set()
                    wait_until(lambda known=known: executor._programs is known)
                    pids.append({result(executor.submit(job, jobs.pid)) for job in range(3)})
                assert [len(each) for each in pids] == [1, 1]
                assert pids[0] != pids[1]

    @needs_dask
    @pytest.mark.slow
    def test_two_workers_work_at_once(self, heard, tmp_path):
        with Cluster(tmp_path) as cluster:
            cluster.start_worker()
            with contextlib.closing(open_executor(cluster.address, ENGINE, heard)) as executor:
                wait_until(lambda: executor.slots == 2)
                for number in range(5):
                    both = [executor.submit(number, jobs.sleep, 1) for _ in range(2)]
                    [result(future) for future in both]
                    pids = {heard.next("started")[2] for _ in range(2)}
                    assert len(pids) == 2

    @needs_dask
    @pytest.mark.slow
    def test_a_worker_that_lacks_files_is_given_no_job_while_there_are_others(
        self, heard, tmp_path, monkeypatch
    ):
        """Nor is the one that is started in its place, on the same machine."""
        with Cluster(tmp_path) as cluster:
            cluster.start_worker(host="127.0.0.2")
            with contextlib.closing(open_executor(cluster.address, ENGINE, heard)) as executor:
                wait_until(lambda: executor.slots == 2)
                lacking = executor.submit(0, jobs.pid)
                shunned = result(lacking)
                executor.shun(executor.worker_of(lacking))
                assert executor.slots == 1
                with monkeypatch.context() as patch:
                    patch.setattr("stylewatch.jobs.cluster.BRIEFLY", 0.0)
                    executor.shun(executor.worker_of(lacking), briefly=True)
                assert executor.slots == 1
                others = {result(executor.submit(job, jobs.pid)) for job in range(1, 8)}
                assert len(others) == 1
                assert shunned not in others
                before = set(executor._programs)
                os.kill(shunned, signal.SIGKILL)
                wait_until(lambda: set(executor._programs) - before)
                wait_until(lambda: [*executor._programs.values()] == [child.CODE] * 2)
                assert executor.slots == 1
                other = executor.submit(9, jobs.pid)
                assert result(other) in others
                executor.shun(executor.worker_of(other))
                assert executor.slots == 2  # all lack something: it is no matter which
                del executor._shunned[executor.worker_of(lacking).rpartition(":")[0]]  # it is over
                assert result(executor.submit(10, jobs.pid)) not in others

    @needs_dask
    @pytest.mark.slow
    def test_what_still_runs_where_files_are_lacking_takes_no_place_elsewhere(
        self, heard, tmp_path
    ):
        with Cluster(tmp_path) as cluster:
            cluster.start_worker(host="127.0.0.2")
            with contextlib.closing(open_executor(cluster.address, ENGINE, heard)) as executor:
                wait_until(lambda: executor.slots == 2)
                gates, running = [tmp_path / "a gate", tmp_path / "another"], []
                for number, gate in enumerate(gates):
                    os.mkfifo(gate)
                    running.append(executor.submit(number, jobs.wait_at, gate))
                    heard.next("started")
                executor.shun(executor.worker_of(running[0]))
                assert executor.slots == 2  # both are taken
                gates[1].write_text("go")
                free = result(running[1])
                assert executor.slots == 2
                assert result(executor.submit(2, jobs.pid)) == free
                gates[0].write_text("go")
                result(running[0])
                assert executor.slots == 1

    @needs_dask
    @pytest.mark.slow
    def test_with_tls_only_who_has_a_certificate_is_served(self, heard, tmp_path, monkeypatch):
        files = [str(tmp_path / name) for name in ("cert.pem", "cert.pem", "key.pem")]
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost",
             "-keyout", files[2], "-out", files[1], "-days", "1"],
            check=True, capture_output=True,
        )  # fmt: skip
        options = ["--tls-ca-file", files[0], "--tls-cert", files[1], "--tls-key", files[2]]
        with Cluster(tmp_path, *options, "--protocol", "tls") as cluster:
            assert cluster.address.startswith("tls://")
            import dask

            settings = dict(zip(("ca-file", "client.cert", "client.key"), files, strict=True))
            with dask.config.set({f"distributed.comm.tls.{k}": v for k, v in settings.items()}):
                with contextlib.closing(open_executor(cluster.address, ENGINE, heard)) as executor:
                    assert result(with_slots(executor).submit(1, jobs.add, 1, 2)) == 3
            plain = cluster.address.replace("tls://", "tcp://")
            with contextlib.closing(open_executor(plain, ENGINE, heard)) as executor:
                wait_until(lambda: "no Dask scheduler answers" in executor.trouble)
                assert executor.slots == 0
