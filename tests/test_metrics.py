"""Figures for Prometheus: what is counted, how it reads, and who may read it."""

import contextlib
import http.client
import json
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import wait_until

from stylewatch.domain import Event, JobState, Step
from stylewatch.errors import UsageError
from stylewatch.faces import metrics as module
from stylewatch.faces.metrics import Metrics, MetricsServer
from stylewatch.faces.wire import line_of
from stylewatch.folders.sources import FolderHealth

STATUS = {
    "paused": False,
    "folders": [
        FolderHealth(folder="in", root=Path("/in"), state="watching", detail="", scan_age=4.5),
        FolderHealth(
            folder="usb",
            root=Path("/usb"),
            state="missing",
            detail="plug it in",
            scan_age=float("inf"),
        ),
    ],
    "settling": {"in": 2, "usb": 0},
    "running": [{"job": None, "step": None, "seconds": 1.0}],
    "blocked": {"/out": "disk-full"},
    "counts": {"in": {JobState.READY: 5, JobState.DONE: 100}},
    "pace": 10.0,
}


def event(kind, **more):
    return Event(kind=kind, message="", **more)


def step(scale, evaluation):
    return Step(
        scale=scale, scales=3, width=8, height=8, evaluation=evaluation, evaluations=80, loss=1.0,
        content=1.0, style=0.0, tv=0.0, fraction=0.1, seconds=1.0, eta_seconds=1.0,
    )  # fmt: skip


@pytest.fixture
def metrics():
    return Metrics(lambda: STATUS)


def figures(metrics):
    """Every sample, checked on the way for what the text format demands."""
    found, kind, family = {}, "", ""
    for line in metrics.text().splitlines():
        if line.startswith("# TYPE "):
            _, _, family, kind = line.split(" ")
        elif not line.startswith("# HELP "):
            name, labels, value = re.fullmatch(
                r'([a-z_]+)(\{(?:[a-z]+="(?:[^"\\]|\\.)*",?)+\})? (\S+)', line
            ).groups()
            assert name.startswith(family)
            assert name == family or kind == "histogram"
            assert name + (labels or "") not in found
            found[name + (labels or "")] = float(value)
    return found


def test_how_things_stand(metrics):
    got = figures(metrics)
    assert got["stylewatch_up"] == 1
    assert got["stylewatch_paused"] == 0
    assert got["stylewatch_running_jobs"] == 1
    assert got['stylewatch_jobs{folder="in",state="ready"}'] == 5
    assert got['stylewatch_jobs{folder="in",state="done"}'] == 100
    assert got['stylewatch_settling_files{folder="in"}'] == 2
    assert got['stylewatch_folder_healthy{folder="in"}'] == 1
    assert got['stylewatch_folder_healthy{folder="usb"}'] == 0
    assert got['stylewatch_folder_scan_age_seconds{folder="in"}'] == 4.5
    assert got['stylewatch_folder_scan_age_seconds{folder="usb"}'] == float("inf")
    assert got['stylewatch_output_blocked{output="/out",reason="disk-full"}'] == 1


def test_the_documents_name_every_metric_and_no_other(metrics):
    there = {*re.findall(r"^# TYPE stylewatch_(\w+)", metrics.text(), re.MULTILINE)}
    file = Path(__file__).parent.parent / "docs/operating.md"
    table = file.read_text(encoding="utf-8").split("## Prometheus")[1]
    cells = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    assert {*re.findall(r"`(\w+)", " ".join(cells))} == there


def test_durations_fall_into_buckets_that_add_up(metrics):
    for seconds in (0.5, 1.0, 7.0, 7.5, 5000.0):
        metrics(event("done", preset="ink", seconds=seconds))
    metrics(event("done", preset="soft", seconds=3.0))
    metrics(event("done", preset="soft", seconds=0.0))  # a copy of one that was painted before
    got = figures(metrics)
    bucket = 'stylewatch_photo_seconds_bucket{preset="ink",le="%s"}'
    assert [got[bucket % edge] for edge in ("1", "2", "5", "10", "3600", "+Inf")] == [
        2,
        2,
        2,
        4,
        4,
        5,
    ]
    assert got['stylewatch_photo_seconds_sum{preset="ink"}'] == 5016
    assert got['stylewatch_photo_seconds_count{preset="ink"}'] == 5
    assert got['stylewatch_photo_seconds_count{preset="soft"}'] == 1


def test_failures_are_counted_by_what_came_of_them_and_why(metrics):
    for kind, reason in (("failed", "truncated"), ("retry", "crash"), ("retry", "crash")):
        metrics(event(kind, reason=reason))
    metrics(event("warning", reason="config"))
    got = {name: value for name, value in figures(metrics).items() if "failures" in name}
    assert got == {
        'stylewatch_failures_total{kind="failed",reason="truncated"}': 1,
        'stylewatch_failures_total{kind="retry",reason="crash"}': 2,
    }


def test_evaluations_are_counted_even_where_steps_were_lost(metrics):
    metrics(event("running", job_id=1))
    for one in (step(1, 1), step(1, 2), step(1, 10), step(1, 10), step(2, 3)):
        metrics(event("progress", job_id=1, step=one))
    metrics(event("progress", job_id=2, step=step(1, 4)))
    metrics(event("done", job_id=1, preset="ink"))
    metrics(event("running", job_id=1))
    metrics(event("progress", job_id=1, step=step(2, 5)))
    assert figures(metrics)["stylewatch_evaluations_total"] == 10 + 3 + 4 + 5


def test_a_daemon_that_does_not_answer_is_down_but_its_counts_are_told():
    def hang():
        raise TimeoutError

    metrics = Metrics(hang)
    metrics(event("failed", reason="crash"))
    got = figures(metrics)
    assert got["stylewatch_up"] == 0
    assert got['stylewatch_failures_total{kind="failed",reason="crash"}'] == 1
    assert not any("jobs" in name for name in got)


def test_memory_of_the_daemon_and_of_its_workers_is_told(metrics):
    worker = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        before = figures(metrics)["stylewatch_workers"]
        worker.start()
        wait_until(lambda: figures(metrics)["stylewatch_workers"] == before + 1)
        got = figures(metrics)
        assert got['stylewatch_memory_bytes{process="workers"}'] > 1_000_000
        assert got['stylewatch_memory_bytes{process="daemon"}'] > 10_000_000
    finally:
        worker.kill()
        worker.join()
        bystander.kill()
        bystander.wait()


def test_workers_of_another_daemon_are_not_ours(tmp_path):
    for pid, parent in (("7", os.getpid()), ("8", 1)):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "stat").write_text(f"{pid} (a) b) S {parent} 1")
        (tmp_path / pid / "cmdline").write_text("python -c spawn_main")
    assert figures(Metrics(lambda: STATUS, proc=tmp_path))["stylewatch_workers"] == 1


@given(st.text(), st.text())
def test_no_name_can_break_the_text(preset, reason):
    metrics = Metrics(lambda: STATUS, proc=Path("/nonexistent"))
    metrics(event("done", preset=preset, seconds=1.0))
    metrics(event("failed", reason=reason))
    body = metrics.text()
    body.encode("utf-8")
    [line] = [line for line in body.split("\n") if "photo_seconds_count" in line]
    inside = line.split("{", 1)[1].rsplit("}", 1)[0].removeprefix('preset="').removesuffix('"')
    told = re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], inside)
    assert told == preset.encode("utf-8", "backslashreplace").decode()


# --- the port -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def port():
    with MetricsServer(0, Metrics(lambda: STATUS).text) as server:
        yield server.port


def get(port, path="/metrics", method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode(), response.headers
    finally:
        connection.close()


def test_the_port_gives_the_figures_and_nothing_else(port):
    status, body, headers = get(port)
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert "\nstylewatch_up 1\n" in body
    assert get(port, "/")[0] == 404
    assert get(port, "/metrics/../../etc/passwd")[0] == 404
    assert get(port, method="POST")[0] == 501


@pytest.mark.parametrize("host", ["localhost:9", "127.0.0.1", "[::1]:9", "[::1]"])
def test_this_machine_s_names_are_known(port, host):
    assert get(port, Host=host)[0] == 200


def test_a_page_that_points_its_own_name_at_us_gets_nothing(port):
    assert get(port, Host="evil.example:80")[0] == 403


def test_only_this_machine_can_reach_the_port(port):
    """As the kernel sees it: one listening socket on that port, on 127.0.0.1."""
    listening = [
        line.split()[1]
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(table).read_text().splitlines()[1:]
        if line.split()[3] == "0A" and int(line.split()[1].rpartition(":")[2], 16) == port
    ]
    assert listening == [f"0100007F:{port:04X}"]


def test_a_port_that_is_taken_is_one_line_with_the_remedy():
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"metrics_port {taken} can't be used: Address"):
            MetricsServer(taken, str).__enter__()


def test_a_reader_that_hangs_holds_up_nobody(port):
    with socket.create_connection(("127.0.0.1", port)) as lazy:
        lazy.sendall(b"GET /metrics HTTP/1.1\r\n")
        assert get(port)[0] == 200


def test_a_reader_that_says_nothing_is_hung_up_on(monkeypatch):
    monkeypatch.setattr("stylewatch.faces.metrics.CLIENT_SECONDS", 0.1)
    with (
        MetricsServer(0, str) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=60) as mute,
    ):
        assert mute.recv(1) == b""


def test_however_many_knock_and_wait_few_are_kept(monkeypatch):
    monkeypatch.setattr(module, "CLIENT_SECONDS", 600.0)
    monkeypatch.setattr(module, "MAX_CLIENTS", 4)
    with MetricsServer(0, str) as server, contextlib.ExitStack() as stack:
        knocking = []
        for _ in range(12):
            mute = socket.create_connection(("127.0.0.1", server.port), timeout=60)
            knocking.append(stack.enter_context(mute))
            mute.sendall(b"G")
        for first in knocking[:-4]:
            assert first.recv(1) == b""
        assert get(server.port)[0] == 200


def test_a_real_daemon_s_status_is_understood(rigs):
    """By the figures, and by the control socket, whose lines hold the same answer."""
    rig = rigs()
    rig.drop("a.jpg")
    rig.until(lambda: rig.results() == ["a--painting.jpg"])
    answer = rig.daemon.ask("status")
    rig.daemon.tick(time.monotonic())
    metrics = Metrics(answer.result)
    for each in rig.events:
        metrics(each)
    got = figures(metrics)
    assert got['stylewatch_jobs{folder="in",state="done"}'] == 1
    assert got['stylewatch_folder_healthy{folder="in"}'] == 1
    assert got['stylewatch_photo_seconds_count{preset="painting"}'] == 1
    assert json.loads(line_of(answer.result()))["counts"] == {"in": {"done": 1}}
