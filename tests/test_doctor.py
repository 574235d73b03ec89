"""The doctor: each break of a set-up is named, with its remedy, and none hides another."""

import hashlib
import io
import json
import math
import os
import pickle
import pwd
import shlex
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from stylewatch import cli, places
from stylewatch.app import doctor, remote, trial
from stylewatch.app.service import ServiceStatus
from stylewatch.app.unit import UNIT, read_unit, render_unit, shipped_unit
from stylewatch.domain import (
    EngineSettings,
    Failure,
    FailureKind,
    Identity,
    Photo,
    StyleSettings,
    counted,
)
from stylewatch.engine import machine
from stylewatch.errors import DeviceError
from stylewatch.faces.control import ControlServer
from stylewatch.jobs.child import THREADS
from stylewatch.settings.weights import keras_weights
from stylewatch.state.ledger import Ledger, Planned


@pytest.fixture(autouse=True)
def home(home, monkeypatch):
    nowhere = home / "stylewatch.service"  # whatever this machine has
    monkeypatch.setattr("stylewatch.app.service.unit_path", lambda *, user: nowhere)  # noqa: ARG005
    return home


@pytest.fixture
def set_up(tmp_path):
    """A set-up that is well: a function that writes its config and gives the config's path."""
    presets = tmp_path / "presets"
    presets.mkdir()
    Image.new("RGB", (32, 32), "red").save(presets / "red.png")
    (presets / "red.yaml").write_text("style: red.png\n")
    for name in ("in", "out"):
        (tmp_path / name).mkdir()

    def write(folder="{input: in, output: out, preset: red}", **more):
        lines = [f"folders: [{folder}]", "presets: presets", "state_dir: state", "min_free: 1kB"]
        lines += [f"{key}: {value}" for key, value in ({"features": "builtin"} | more).items()]
        file = tmp_path / "stylewatch.yaml"
        file.write_text("\n".join(lines) + "\n")
        return file

    return write


@pytest.fixture
def examine(monkeypatch):
    """The findings without the engine's, which takes seconds, by check."""
    monkeypatch.setattr(doctor, "_engine", lambda _: iter(()))

    def run(file):
        found = {}
        for finding in doctor.examine(file):
            found.setdefault(finding.check, []).append(finding)
        return found

    return run


def worst(findings):
    return max(findings, key=lambda one: ("ok", "warning", "problem").index(one.state))


def test_a_set_up_that_is_well_has_no_problem(examine, set_up):
    found = examine(set_up())
    assert {
        "python",
        "config",
        "presets",
        "folders",
        "watches",
        "disk",
        "ledger",
        "weights",
    } <= set(found)
    assert not [one for group in found.values() for one in group if one.state == "problem"]


@pytest.mark.skipif(find_spec("distributed") is None, reason="distributed is not installed")
def test_a_cluster_that_can_t_be_reached_as_it_has_to_be_is_a_problem(examine, set_up, monkeypatch):
    monkeypatch.delenv("DASK_DISTRIBUTED__COMM__TLS__CA_FILE", raising=False)
    [found] = examine(set_up(workers="tls://scheduler:8786"))["workers"]
    assert found.state == "problem"
    assert "TLS is not set up for Dask" in found.message


def no_config(file, tmp_path):
    file.unlink()


def wrong_key(file, tmp_path):
    file.write_text("foldrs: []\n")


def broken_preset(file, tmp_path):
    (tmp_path / "presets/bad.yaml").write_text("strenght: 3\n")


def preset_of_deep_layers(file, tmp_path):
    (tmp_path / "presets/deep.yaml").write_text("content_layers: {block5_conv4: 1}\n")


def no_style_image(file, tmp_path):
    (tmp_path / "presets/red.png").unlink()


def presets_are_a_file(file, tmp_path):
    place = Path.home() / ".config/stylewatch"
    place.mkdir(parents=True)
    (place / "presets").touch()
    file.write_text(file.read_text().replace("preset: red", "preset: ink"))


def no_input(file, tmp_path):
    (tmp_path / "in").rmdir()


def input_is_a_file(file, tmp_path):
    (tmp_path / "in").rmdir()
    (tmp_path / "in").touch()


def output_is_a_file(file, tmp_path):
    (tmp_path / "out").rmdir()
    (tmp_path / "out").touch()


def no_weights(file, tmp_path):
    file.write_text(file.read_text().replace("features: builtin", "weights: none.h5"))


def weights_are_a_folder(file, tmp_path):
    file.write_text(file.read_text() + "weights: in\n")


def damaged_weights(file, tmp_path):
    file.write_text(file.read_text().replace("builtin", "vgg19"))
    copy = keras_weights()
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"half a download")


def no_download(file, tmp_path):
    file.write_text(file.read_text().replace("builtin", "vgg19"))


def full_disk(file, tmp_path):
    file.write_text(file.read_text().replace("1kB", "9000TB"))


def nothing_of_the_input_s_place(file, tmp_path):
    file.write_text(file.read_text().replace("input: in", "input: no/disk/in"))


def damaged_ledger(file, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state/ledger.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)


def state_is_a_file(file, tmp_path):
    (tmp_path / "state").touch()


def ledger_of(version):
    def damage(file, tmp_path):
        Ledger(tmp_path / "state/ledger.db").close()
        with closing(sqlite3.connect(tmp_path / "state/ledger.db")) as db:
            db.execute(f"PRAGMA user_version = {version}")

    return damage


@pytest.mark.parametrize(
    ("damage", "check", "message", "remedy"),
    [
        (wrong_key, "config", "foldrs: unknown key", "Did you mean 'folders'"),
        (broken_preset, "presets", "bad.yaml:1:1: strenght", "Did you mean 'strength'"),
        (preset_of_deep_layers, "presets", "deep.yaml:1:18", "features: vgg19"),
        (no_style_image, "presets", "red.png", "relative to"),
        (no_input, "folders", "does not exist", "mkdir -p"),
        (nothing_of_the_input_s_place, "folders", "does not exist", "mkdir -p"),
        (input_is_a_file, "folders", "is not a folder", "Move that file"),
        (output_is_a_file, "folders", "is not a folder", "Move that file"),
        (presets_are_a_file, "config", "can't be read: Not a directory", "Correct it"),
        (no_weights, "weights", "none.h5 does not exist", "weights:"),
        (weights_are_a_folder, "weights", "in is a folder", "weights:"),
        (damaged_weights, "weights", "checksum", "rm "),
        (no_download, "weights", "does not exist", "weights fetch"),
        (full_disk, "disk", "GB free", "min_free"),
        (state_is_a_file, "ledger", "is not a folder", "Move that file"),
        (damaged_ledger, "ledger", "can't be read", "sets it aside"),
        (ledger_of(1), "ledger", "is from an older stylewatch", "another state_dir"),
        (ledger_of(99), "ledger", "belongs to a newer stylewatch", "Upgrade stylewatch"),
    ],
)
def test_each_break_is_named_with_its_remedy(
    examine, set_up, tmp_path, damage, check, message, remedy
):
    file = set_up()
    damage(file, tmp_path)
    found = [one for one in examine(file)[check] if message in one.message]
    assert {one.state for one in found} == {"problem"}
    assert remedy in found[0].remedy


def test_what_is_wrong_with_the_weights_is_told_once(examine, set_up, tmp_path):
    file = set_up()
    no_weights(file, tmp_path)
    found = examine(file)
    assert [one.state for one in found["weights"] + found["folders"]] == ["problem", "ok"]


def test_weights_may_be_where_a_cluster_paints_and_not_here(set_up, tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr(doctor, "_engine", lambda engine: tried.append(engine) or iter(()))
    monkeypatch.setattr(doctor, "_workers", lambda _: iter(()))
    file = set_up(features="vgg19", weights="none.h5", workers="tls://gpu:8786")
    found = list(doctor.examine(file))
    assert not [one for one in found if one.check == "weights" or one.state == "problem"]
    assert [engine.features for engine in tried] == ["builtin"]


def test_weights_that_are_there_or_are_not_needed_are_well(examine, set_up, tmp_path, monkeypatch):
    def told(**engine):
        (finding,) = examine(set_up(**engine))["weights"]
        return finding.state, finding.message

    assert told() == ("ok", "the built-in features need none")
    state, message = told(features="auto")
    assert (state, "if a download fails" in message) == ("warning", True)
    keras_weights().parent.mkdir(parents=True)
    keras_weights().write_bytes(b"all of them")
    monkeypatch.setattr(doctor, "MD5", hashlib.md5(b"all of them").hexdigest())
    state, message = told(features="vgg19")
    assert (state, "checksum right" in message) == ("ok", True)
    (tmp_path / "w.h5").write_bytes(bytes(3_000_000))
    state, message = told(features="vgg19", weights="w.h5")
    assert (state, "w.h5, 3 MB" in message) == ("ok", True)


def test_what_the_trial_finds_in_the_weights_takes_the_place_of_what_shows_from_outside(
    set_up, tmp_path, monkeypatch
):
    (tmp_path / "w.h5").write_bytes(b"half of them")
    file = set_up(features="vgg19", weights="w.h5")
    found = [one for one in doctor.examine(file) if one.check == "weights"]
    assert [(one.state, "can't be used" in one.message) for one in found] == [("problem", True)]
    monkeypatch.setattr(doctor, "_engine", lambda _: iter(()))  # it crashed, or had no time
    assert [one.state for one in doctor.examine(file) if one.check == "weights"] == ["ok"]


def test_breaks_do_not_hide_each_other(examine, set_up, tmp_path):
    file = set_up()
    for damage in (broken_preset, no_input, no_weights, damaged_ledger, full_disk):
        damage(file, tmp_path)
    found = examine(file)
    for check in ("presets", "folders", "weights", "ledger", "disk"):
        assert worst(found[check]).state == "problem", check


def test_closed_folders_are_named(examine, set_up, tmp_path, like_anybody):
    (tmp_path / "in").chmod(0o000)
    (tmp_path / "out").chmod(0o555)
    messages = " ".join(one.message for one in like_anybody(examine, set_up())["folders"])
    assert "can't be read" in messages
    assert "can't be written" in messages


def test_an_output_that_only_pretends_to_be_writable_is_found(monkeypatch, tmp_path):
    def full(*_, **__):
        raise OSError(122, "Disk quota exceeded")

    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", full)
    [finding] = doctor._write_trial(tmp_path)
    assert (finding.state, "Disk quota exceeded" in finding.message) == ("problem", True)


def test_without_a_config_there_is_a_hint(examine):
    [finding] = examine(None)["config"]
    assert finding.state == "warning"
    assert "stylewatch init" in finding.remedy


def test_the_state_folder_is_looked_at_without_a_config_too(examine, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "default_state_dir", lambda: tmp_path / "state")
    (tmp_path / "state").touch()
    [finding] = examine(None)["ledger"]
    assert (finding.state, "is not a folder" in finding.message) == ("problem", True)


def test_too_low_a_watch_limit_comes_with_the_command(examine, set_up, tmp_path, monkeypatch):
    for number in range(5):
        (tmp_path / f"in/{number}").mkdir()
    monkeypatch.setattr(doctor, "watch_limit", lambda: 4)
    finding = worst(examine(set_up())["watches"])
    assert finding.state == "problem"
    assert "6 folders" in finding.message
    assert "sysctl fs.inotify.max_user_watches=" in finding.remedy


def test_what_will_soon_be_too_little_is_a_warning(examine, set_up, tmp_path, monkeypatch):
    (tmp_path / "in/1").mkdir()
    monkeypatch.setattr(doctor, "watch_limit", lambda: 3)
    monkeypatch.setattr(doctor, "free_space", lambda _: 1_999_999_999)
    monkeypatch.setattr(doctor, "_number", lambda _: 4)
    file = set_up()
    file.write_text(file.read_text().replace("1kB", "1GB"))
    found = examine(file)
    watches, instances = found["watches"]
    assert (watches.state, watches.message) == (
        "warning", "2 folders to watch, and the limit is 3",
    )  # fmt: skip
    assert (instances.state, instances.message) == (
        "warning", "only 4 inotify instances for each user",
    )  # fmt: skip
    assert "max_user_watches" in watches.remedy
    assert "max_user_instances" in instances.remedy
    assert {(one.state, one.remedy) for one in found["disk"]} == {
        ("warning", "Free some space soon")
    }


NOTHING_LEFT = """
import contextlib, pathlib, sys
from stylewatch.app import doctor
from stylewatch.folders.watches import Inbox, Watches
from stylewatch.settings.loading import watch_config
root = pathlib.Path(sys.argv[1])
pathlib.Path("/proc/sys/user/max_inotify_watches").write_text("20")
config = watch_config(root / "in", root / "out", ["painting"])
print(*doctor._watches(config), sep="\\n")
others = Watches(lambda: None)
with contextlib.suppress(OSError):
    for number in range(21):
        (root / str(number)).mkdir()
        others.add(str(root / str(number)), Inbox(str(root), others.wake))
print(*doctor._watches(config), sep="\\n")
others.close()
"""


def test_watches_that_other_programs_have_taken_are_told(tmp_path):
    """In a user namespace of its own, which has its own limit."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    (tmp_path / "in").mkdir()
    command = ["unshare", "-Ur", sys.executable, "-c", NOTHING_LEFT, tmp_path]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if "max_inotify_watches" in result.stderr or "unshare" in result.stderr:
        pytest.skip(f"no user namespaces here: {result.stderr}")
    well, taken = result.stdout.splitlines()
    assert "state='ok', message='1 folder to watch, the limit is 20'" in well
    assert (
        "state='warning', message=\"1 folder to watch, but no further folder can be watched: "
        in taken
    )
    assert "remedy='sudo sysctl fs.inotify.max_user_watches=524288'" in taken


def test_a_network_file_system_is_named(examine, set_up, tmp_path, monkeypatch):
    device = tmp_path.stat().st_dev
    monkeypatch.setattr(doctor, "network_devices", lambda: frozenset({device}))
    found = examine(set_up())["network"]
    assert {one.state for one in found} == {"warning", "problem"}
    assert any("state_dir" in one.remedy for one in found)
    assert any("it is scanned every 10 s" in one.message for one in found)


def test_a_disk_is_told_of_once_whatever_lies_on_it(examine, set_up, tmp_path):
    (tmp_path / "in2").mkdir()
    file = set_up("{input: in, output: out}, {input: in2, output: out2}")
    [found] = examine(file)["disk"]
    assert found.message.endswith(f"free for {tmp_path}/out, {tmp_path}/out2, {tmp_path}/state")


def test_a_disk_that_does_not_tell_what_is_free_is_no_problem(examine, set_up, monkeypatch):
    monkeypatch.setattr(doctor, "free_space", lambda _: math.inf)
    [found] = examine(set_up())["disk"]
    assert found.state == "ok"
    assert found.message.startswith("an unknown number of GB free for ")


def test_set_aside_photos_are_told_of(examine, set_up, tmp_path):
    with closing(Ledger(tmp_path / "state/ledger.db")) as ledger:
        for name in "ab":
            photo = Photo("in", tmp_path / "in", Path(name), Identity(1, ord(name), 10, 1, 1))
            ledger.add(photo, name, "", [Planned("red", name, tmp_path / "out" / name)])
        (well,) = examine(set_up())["ledger"]
        assert (well.state, "with 2 jobs" in well.message) == ("ok", True)
        failure = Failure(kind=FailureKind.BAD_INPUT, reason="truncated", message="cut")
        ledger.fail(ledger.claim("in").id, failure, 3)
        (told,) = examine(set_up())["ledger"]
    assert (told.state, "with 2 jobs, 1 of them set aside" in told.message) == ("warning", True)
    assert "stylewatch retry --all" in told.remedy


@pytest.mark.parametrize(("count", "words"), [(0, "0 jobs"), (1, "1 job"), (2, "2 jobs")])
def test_what_is_counted_is_named_as_people_name_it(count, words):
    assert counted(count, "job") == words


def test_the_ledger_is_that_of_the_system_s_service_where_this_runs(
    examine, set_up, tmp_path, monkeypatch
):
    monkeypatch.setattr(remote, "SYSTEM_STATE", tmp_path / "system")
    file = set_up()
    with ControlServer(tmp_path / "system", lambda *_: None, {"config": str(file)}):
        Ledger(tmp_path / "system/ledger.db").close()
        found = examine(file)
    assert f"{tmp_path}/system/ledger.db with 0 jobs" in found["ledger"][0].message
    assert f"{tmp_path}/system" in found["disk"][0].message


def test_a_check_that_breaks_down_is_a_finding_itself(examine, set_up, monkeypatch):
    def broken():
        raise RuntimeError("a bug")

    monkeypatch.setattr(doctor, "network_devices", broken)
    found = examine(set_up())
    assert "a bug" in found["network"][0].message
    assert "weights" in found


class TestEngine:
    def failure(self, monkeypatch, code, stderr=b"", stdout=b""):
        done = subprocess.CompletedProcess([], code, stdout, stderr)
        monkeypatch.setattr(doctor.subprocess, "run", lambda *_, **__: done)
        return list(doctor._engine(EngineSettings()))

    def test_a_crash_is_one_line(self, monkeypatch):
        [finding] = self.failure(monkeypatch, -4)
        assert (finding.check, finding.state) == ("tensorflow", "problem")
        assert "processor" in finding.message
        [finding] = self.failure(monkeypatch, -11)
        assert "SIGSEGV" in finding.message
        assert doctor._PIP in finding.remedy
        [finding] = self.failure(monkeypatch, -9)  # nothing is wrong with what is installed
        assert "memory runs out" in finding.message
        assert "memory" in finding.remedy

    @pytest.mark.parametrize(
        ("code", "said", "may_be"),
        [
            (-4, "", False), (-9, "", False), (1, "ModuleNotFoundError: No module named 'jax'", False),
            (-6, "std::bad_alloc", True), (1, "ImportError: failed to map segment", True),
            (1, "RuntimeError: no memory", True),
        ],
    )  # fmt: skip
    def test_the_memory_limit_is_named_only_where_it_may_be_the_cause(self, code, said, may_be):
        finding = doctor._engine_failure({"memory_limit": 1 << 33}, code, said)
        assert ("Raise `memory_limit`" in finding.remedy) is may_be

    def test_what_it_says_before_it_crashes_is_told(self, monkeypatch):
        [finding] = self.failure(monkeypatch, -6, b"F cpu_feature_guard: no AVX512\n")
        assert finding.message == "it crashes (SIGABRT): F cpu_feature_guard: no AVX512"

    def test_a_device_that_does_not_work_is_told_with_what_to_do(self, monkeypatch):
        """To install everything again helps nobody."""
        said = b"Traceback\nstylewatch.errors.DeviceError: No AVX. Take another\n"
        [finding] = self.failure(monkeypatch, 1, said)
        assert (finding.message, finding.remedy) == ("No AVX. Take another", "")

    def test_a_processor_that_ends_tensorflow_is_told_before_it_is_loaded(self, monkeypatch):
        asked = io.BytesIO(pickle.dumps((EngineSettings(), StyleSettings())))
        monkeypatch.setattr(trial.sys, "stdin", SimpleNamespace(buffer=asked))
        monkeypatch.setattr(trial, "set_environment", lambda engine: None)
        monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset({"sse4_2"}))
        monkeypatch.delenv("KERAS_BACKEND", raising=False)
        with pytest.raises(DeviceError, match="no AVX"):
            trial.main()

    def test_a_missing_library_comes_with_the_command(self, monkeypatch):
        for lacks, installed in (("x", "stylewatch"), ("torch", "torch")):  # by KERAS_BACKEND
            told = f"Traceback\nModuleNotFoundError: No module named '{lacks}'\n"
            [finding] = self.failure(monkeypatch, 1, told.encode())
            assert f"No module named '{lacks}'" in finding.message
            assert finding.remedy.endswith(f": {doctor._PIP} {installed}")

    @pytest.mark.parametrize(
        ("there", "command"),
        [(True, "{} -m pip install"), (False, "uv pip install --python {}")],
    )
    def test_where_uv_has_put_no_pip_the_command_is_uv_s(self, there, command):
        script = (
            "import importlib.util\n"
            "real = importlib.util.find_spec\n"
            f"found = lambda name, *more: {there} if name == 'pip' else real(name, *more)\n"
            "importlib.util.find_spec = found\n"
            "from stylewatch.app import doctor\n"
            "print(doctor._PIP)"
        )
        told = subprocess.check_output([sys.executable, "-c", script], text=True)
        assert told.strip() == command.format(shlex.quote(sys.executable))

    def test_a_failure_after_the_import_belongs_to_the_speed(self, monkeypatch):
        told = b'{"backend": "tensorflow", "keras": "3", "version": "2"}\n'
        told += b'{"device": "CPU", "fast_bfloat16": false}\n'
        findings = self.failure(monkeypatch, 1, b"WeightsError: none\n", told)
        assert [(one.check, one.state) for one in findings] == [
            ("tensorflow", "ok"), ("device", "ok"), ("speed", "problem"),
        ]  # fmt: skip

    def test_a_gpu_that_the_library_does_not_see_is_told_with_the_command(
        self, monkeypatch, tmp_path
    ):
        driver = tmp_path / "version"
        monkeypatch.setattr(doctor, "NVIDIA", (tmp_path / "none", driver))
        monkeypatch.setattr(doctor, "_to_see_a_gpu", lambda words: f"for {words['backend']}")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        told = b'{"backend": "tensorflow", "keras": "3", "version": "2"}\n'
        told += b'{"device": "CPU with AMX", "fast_bfloat16": true}\n'
        assert self.failure(monkeypatch, 0, b"", told)[1].state == "ok"
        driver.touch()
        device = self.failure(monkeypatch, 0, b"", told)[1]
        assert (device.state, "NVIDIA GPU" in device.message) == ("warning", True)
        assert device.remedy == "for tensorflow"
        on_gpu = told.replace(b"CPU with AMX", b"NVIDIA H200")
        assert self.failure(monkeypatch, 0, b"", on_gpu)[1].state == "ok"
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # somebody wants it so
        assert self.failure(monkeypatch, 0, b"", told)[1].state == "ok"

    @pytest.mark.parametrize(
        ("backend", "machine", "installed", "remedy"),
        [
            ("tensorflow", "x86_64", "", '{} "tensorflow[and-cuda]"'),
            ("tensorflow", "x86_64", "nvidia-cudnn-cu12", doctor._DRIVER),
            ("tensorflow", "aarch64", "", '{} "jax[cuda13]", and set KERAS_BACKEND=jax'),
            ("jax", "aarch64", "nvidia-cudnn-cu12", '{} "jax[cuda13]"'),
            ("jax", "x86_64", "jax-cuda13-plugin", doctor._DRIVER),
            ("torch", "x86_64", "torch", doctor._DRIVER),
        ],
    )
    def test_what_is_installed_is_not_to_be_installed_again(
        self, monkeypatch, backend, machine, installed, remedy
    ):
        def version(package):
            if package != installed:
                raise PackageNotFoundError
            return "1"

        monkeypatch.setattr(doctor, "version", version)
        monkeypatch.setattr(doctor.platform, "machine", lambda: machine)
        monkeypatch.setattr(doctor, "_has_gpu_to_offer", lambda: True)
        words = {"backend": backend, "device": "CPU", "fast_bfloat16": False}
        [found] = doctor._engine_findings(words)
        assert (found.check, found.remedy) == ("device", remedy.format(doctor._PIP))

    def test_a_driver_that_a_backend_can_t_do_without_is_told_of(self, monkeypatch, tmp_path):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(doctor, "NVIDIA", (tmp_path,))
        told = b'{"backend": "jax", "keras": "3", "version": "2"}\n'
        *_, found = self.failure(monkeypatch, 1, b"RuntimeError: no backend 'cuda'\n", told)
        assert (found.check, found.message) == ("device", "RuntimeError: no backend 'cuda'")
        assert "nvidia-smi" in found.remedy

    def test_the_trial_runs_with_the_threads_of_the_config(self, monkeypatch, tmp_path):
        program = "import os\nraise OSError(','.join(os.environ[name] for name in {names}))\n"
        (tmp_path / "keras.py").write_text(program.format(names=THREADS))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
        for name in THREADS:
            monkeypatch.setenv(name, "9")
        for threads, seen in ((3, "3,3,3"), (0, "9,9,9")):
            [finding] = doctor._engine(EngineSettings(threads=threads))
            assert finding.message == f"OSError: {seen}"

    def test_the_trial_has_the_cores_of_all_workers(self, monkeypatch, tmp_path):
        program = f"import os\nraise OSError(os.environ.get({THREADS[0]!r}))\n"
        (tmp_path / "keras.py").write_text(program)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
        found = [
            finding.message
            for workers in (1, 1000)
            for finding in doctor._engine(EngineSettings(workers=workers))
        ]
        assert found[0] == found[1]

    def test_the_trial_has_the_memory_that_a_worker_has(self, monkeypatch, tmp_path):
        """A GPU's driver, which takes addresses for all its memory, doesn't start within a limit."""
        program = "import resource\nraise OSError(resource.getrlimit(resource.RLIMIT_AS)[0] > 0)\n"
        (tmp_path / "keras.py").write_text(program)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
        for limit, bounded in ((1 << 32, True), (0, False)):
            [finding] = doctor._engine(EngineSettings(memory_limit=limit))
            assert finding.message == f"OSError: {bounded}"
            assert ("memory_limit" in finding.remedy) is bounded
        words = {"backend": "tensorflow", "memory_limit": 1 << 32}
        assert "Leave `memory_limit` out" in doctor._to_see_a_gpu(words)

    def test_the_trial_imports_nothing_from_the_working_directory(self, monkeypatch, tmp_path):
        for place in ("here", "installed"):
            (tmp_path / place).mkdir()
            (tmp_path / place / "keras.py").write_text(f"raise OSError('{place}')\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"), prepend=os.pathsep)
        monkeypatch.chdir(tmp_path / "here")
        [finding] = doctor._engine(EngineSettings())
        assert finding.message == "OSError: installed"

    @pytest.mark.parametrize(
        ("told", "checks"),
        [
            (None, ["tensorflow"]),
            (b'{"backend": "jax", "keras": "3", "version": "2"}\n', ["tensorflow", "device"]),
        ],
    )
    def test_what_was_told_before_the_time_was_over_is_not_lost(self, monkeypatch, told, checks):
        def too_long(command, *, timeout, **_):
            raise subprocess.TimeoutExpired(command, timeout, output=told)

        monkeypatch.setattr(doctor.subprocess, "run", too_long)
        findings = list(doctor._engine(EngineSettings()))
        assert [one.check for one in findings] == checks
        assert (findings[-1].state, "120 s" in findings[-1].message) == ("problem", True)

    def test_a_machine_that_is_too_slow_to_be_measured_is_told_what_is_quicker(self, monkeypatch):
        """It paints, if only a photo an hour."""

        def too_long(command, *, timeout, **_):
            told = b'{"backend": "tensorflow", "keras": "3", "version": "2"}\n'
            told += b'{"device": "CPU", "fast_bfloat16": false}\n'
            raise subprocess.TimeoutExpired(command, timeout, output=told)

        monkeypatch.setattr(doctor.subprocess, "run", too_long)
        for features, quicker in (("auto", True), ("builtin", False)):
            *_, found = doctor._engine(EngineSettings(features=features))
            assert (found.check, found.state) == ("speed", "warning")
            assert ("features: builtin" in found.remedy) is quicker

    @pytest.mark.parametrize("damage", [no_weights, no_download, damaged_weights])
    def test_the_trial_downloads_nothing(self, monkeypatch, set_up, tmp_path, damage):
        file, asked = set_up(), []
        damage(file, tmp_path)
        monkeypatch.setattr(doctor, "_engine", lambda engine: asked.append(engine) or ())
        list(doctor.examine(file))
        assert [engine.features for engine in asked] == ["builtin"]

    def test_a_slow_machine_gets_a_hint(self):
        words = {"precision": "float32", "features": "VGG19", "evaluations_per_photo": 100.0}
        slow, quick = (
            list(doctor._engine_findings(words | {"evaluations_per_second": rate}))
            for rate in (0.1, 50.0)
        )
        assert slow[0].state == "warning"
        assert "about 3.6 photos/h" in slow[0].message
        assert quick[0].state == "ok"
        assert "features: builtin" in slow[0].remedy
        words |= {"features": "built-in", "evaluations_per_second": 0.1}
        (slow_already,) = doctor._engine_findings(words)
        assert "with built-in features: about 3.6 photos/h" in slow_already.message
        assert "builtin" not in slow_already.remedy


def test_the_command_tells_json_and_ends_with_1_on_a_problem(
    examine, set_up, tmp_path, capfd, monkeypatch
):
    file = set_up()
    assert cli.main(["doctor", "--config", str(file), "--json"]) == 0
    out, err = capfd.readouterr()
    found = json.loads(out)
    assert err == ""
    assert all(set(one) == {"check", "state", "message", "remedy"} for one in found)
    no_input(file, tmp_path)
    assert cli.main(["doctor", "--config", str(file)]) == 1
    out, err = capfd.readouterr()
    assert err == "this takes a moment, as painting is tried too\n"
    assert "✗ folders" in out
    assert "→ Correct the path, make it (`mkdir -p" in out


@pytest.mark.parametrize(
    ("standing", "state", "message", "remedy"),
    [
        ({}, "ok", "the service --user is active: painting", ""),
        ({"state": "activating"}, "ok", "is activating", ""),
        ({"enabled": False}, "warning", "not enabled", "systemctl --user enable"),
        ({"state": "auto-restart"}, "problem", "is auto-restart: exit-code", "journalctl --user"),
        ({"state": "failed"}, "problem", "is failed: exit-code", "journalctl --user"),
    ],
)
def test_the_service_is_told_of_as_it_stands(monkeypatch, standing, state, message, remedy):
    as_it_was = ServiceStatus(
        systemd=True, unit=Path("/unit"), enabled=True, state="active", result="exit-code",
        text="painting a.jpg", pid=0, restarts=7,
    )  # fmt: skip
    nowhere = replace(as_it_was, unit=None)
    stands = {False: nowhere, True: replace(as_it_was, **standing)}
    monkeypatch.setattr(doctor, "service_status", lambda *, user: stands[user])
    [finding] = doctor._service(None)
    assert finding.state == state
    assert message in finding.message
    assert ("not enabled" in finding.message) == (not stands[True].enabled)
    assert remedy in finding.remedy
    stands = {False: stands[True], True: nowhere}
    [finding] = doctor._service(None)
    assert finding.state == state
    assert message.replace(" --user", "") in finding.message
    assert remedy.replace(" --user", "") in finding.remedy


def test_a_service_whose_folders_have_moved_is_told_how_to_follow(set_up, tmp_path, monkeypatch):
    """Its unit lets it write where the config had its folders when it was installed."""
    config = doctor.load_config(set_up())
    file = tmp_path / "stylewatch.service"

    def made_for(config, named):
        account = pwd.getpwuid(os.getuid())
        monkeypatch.setenv("HOME", account.pw_dir)
        text = render_unit(
            shipped_unit(user=False).read_text(),
            command=["/py", "run", "--config", str(named)],
            account=account.pw_name,
            writable=config.written_folders(),
        )
        file.write_text(text)
        return list(doctor._made_for(read_unit(file), "", current, current.file))

    current = config
    assert made_for(config, config.file) == []
    current = replace(config, folders=(replace(config.folders[0], output=tmp_path / "o 2"),))
    (found,) = made_for(config, config.file)
    assert (found.state, found.message) == (
        "problem", f"the service may not write to {tmp_path}/o 2",
    )  # fmt: skip
    install = f"sudo {sys.executable} -P -m stylewatch service install --config {config.file}"
    assert install in found.remedy
    extra = tmp_path / "stylewatch.service.d/override.conf"  # `systemctl edit`
    extra.parent.mkdir()
    extra.write_text(f'[Service]\nReadWritePaths="{tmp_path}/o 2"\n')
    assert made_for(config, config.file) == []
    (found,) = made_for(config, tmp_path / "before.yaml")
    assert (found.state, found.message) == (
        "warning", f"the service runs with another config: {tmp_path}/before.yaml",
    )  # fmt: skip
    own = read_unit(shipped_unit(user=True))  # which may write wherever its person may
    assert own.may_write(Path("/anywhere"))


def test_an_output_that_the_system_s_service_knew_before_it_was_made_anew_is_told_of(
    set_up, tmp_path
):
    """systemd has mounted the folder that was there: the new one is read-only to the service."""
    config = doctor.load_config(set_up())
    said = {"config": config.file, "account": "", "writable": None}
    unit, own = (replace(read_unit(shipped_unit(user=user)), **said) for user in (False, True))
    for why, restarts in (("forbidden", 1), ("away", 1), ("disk-full", 0)):
        answer = Future()
        answer.set_result({"blocked": {str(tmp_path / "out"): why}})
        with ControlServer(config.state_dir, lambda *_, given=answer: given, {}):
            found = list(doctor._made_for(unit, "", config, config.file))
            assert list(doctor._made_for(own, "--user ", config, config.file)) == []
        assert len(found) == restarts
        assert all("sudo systemctl restart stylewatch" in one.remedy for one in found)


@pytest.mark.parametrize("scope", ["", "--user "])
def test_a_unit_of_another_stylewatch_is_told(set_up, tmp_path, scope):
    config = doctor.load_config(set_up())
    file, extra = tmp_path / UNIT, tmp_path / f"{UNIT}.d/override.conf"

    def made_of(template):
        command, folders = ["/py", "run", "--config", str(config.file)], config.written_folders()
        file.write_text(render_unit(template, command=command, account="anna", writable=folders))
        return list(doctor._made_for(read_unit(file), scope, config, config.file))

    shipped = shipped_unit(user=bool(scope)).read_text()
    assert made_of(shipped) == made_of(shipped.replace("\n#", "\n\n; old\n#")) == []
    (found,) = made_of(shipped.replace("WatchdogSec=600", "WatchdogSec=60"))
    assert (found.state, found.message) == (
        "warning", f"the unit of the service {scope}is another stylewatch's, or was edited",
    )  # fmt: skip
    assert f"service install {scope}--config {config.file}" in found.remedy
    assert f"`systemctl {scope}edit stylewatch`" in found.remedy
    extra.parent.mkdir()
    extra.write_text("[Service]\nWatchdogSec=60\n")
    assert made_of(shipped) == []


def test_a_service_of_root_s_that_may_not_write_to_others_folders_is_a_problem(
    set_up, tmp_path, monkeypatch
):
    config = doctor.load_config(set_up())
    file, output = tmp_path / "stylewatch.service", tmp_path / "out"
    extra = tmp_path / f"{file.name}.d/override.conf"  # `systemctl edit`
    extra.parent.mkdir()
    monkeypatch.setattr(doctor, "_is_home_of", lambda _: False)

    def made_for(account, writable):
        text = render_unit(
            shipped_unit(user=False).read_text(),
            command=["/py", "run", "--config", str(config.file)],
            account=account,
            writable=[writable],
        )
        file.write_text(text)
        return list(doctor._made_for(read_unit(file), "", config, config.file))

    if os.geteuid() == 0:
        os.chown(output, 1000, -1)
    (found,) = made_for("root", output)
    assert (found.state, found.message) == (
        "problem", f"the service runs as root, without power over others' files: {output}",
    )  # fmt: skip
    assert found.remedy.endswith(
        f"--config {config.file}`: give the owner of the photos with `--account`"
    )
    (found,) = made_for("", output / "new")
    assert found.message.endswith(f"{output}/new")
    assert made_for("root", Path("/")) == made_for("anna", output) == []
    extra.write_text("[Service]\nCapabilityBoundingSet=CAP_DAC_OVERRIDE\n")
    assert made_for("root", output) == []
    extra.unlink()
    output.chmod(0o777)
    assert made_for("root", output) == []


def test_the_real_engine_is_probed(set_up):
    found = {one.check: one for one in doctor._engine(EngineSettings(features="builtin"))}
    assert found["tensorflow"].state == "ok"
    assert found["device"].state == "ok"
    assert "photos/h" in found["speed"].message


def test_weights_that_can_t_be_read_are_no_fault_of_the_installation(tmp_path):
    (tmp_path / "w.h5").write_bytes(b"not weights")
    engine = EngineSettings(features="vgg19", weights=str(tmp_path / "w.h5"))
    *_, found = doctor._engine(engine)
    assert (found.check, found.state, found.remedy) == ("weights", "problem", "")
    assert found.message.startswith(f"The weights file {tmp_path}/w.h5 can't be used: expected ")


def test_a_mount_whose_name_is_no_utf_8_is_no_trouble(set_up, tmp_path, monkeypatch):
    file = tmp_path / "mountinfo"
    file.write_bytes(b"28 1 254:0 / /media/\xff rw - ext4 /dev/vda rw\n")
    monkeypatch.setattr(places, "MOUNTS", file)
    assert list(doctor._network(doctor.load_config(set_up()))) == []


@pytest.mark.parametrize(
    ("closed", "named", "expected"),
    [
        (None, None, ".keras"),
        (None, "mine", "mine"),
        ("", ".keras/mine", ".keras/mine"),
        ("", None, None),
        (".keras", None, None),
        (".keras", ".keras/mine", None),
    ],
)
def test_where_keras_may_not_write_its_download_is_where_keras_goes(
    home, monkeypatch, closed, named, expected
):
    (home / ".keras").mkdir()
    if named:
        monkeypatch.setenv("KERAS_HOME", str(home / named))
    monkeypatch.setattr(os, "access", lambda place, _: closed is None or place != home / closed)
    folder = home / expected if expected else Path("/tmp/.keras")
    assert keras_weights().parent == folder / "models"


def test_an_error_of_ours_is_no_fault_of_the_installation_either(home):
    presets = home / ".config/stylewatch/presets"
    presets.parent.mkdir(parents=True)
    presets.touch()
    (finding,) = doctor._alone("presets", lambda: doctor._presets(None))
    assert finding.message == f"{presets}: the presets folder can't be read: Not a directory"
    assert "the user that the daemon runs as" in finding.remedy


def test_what_is_closed_to_a_check_is_no_fault_of_the_installation():
    def closed():
        raise PermissionError(13, "Permission denied", "/closed/x")

    (finding,) = doctor._alone("disk", closed)
    assert finding.message == "could not be examined: Permission denied: /closed/x"
    assert "the user that the daemon runs as" in finding.remedy
