"""The README and docs/ do what they say, as far as it is tried here.

The README's commands and YAML are run, and so is the effect in docs/developing.md; the commands, keys,
exit codes, files and figures that they name are those that there are. So it is with what
pyproject.toml and the benchmarks say of themselves.
"""

import ast
import importlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import yaml
from PIL import Image
from small_network import small_network

from stylewatch.domain import EngineSettings, Event, Step, StyleSettings
from stylewatch.effect import steps_only
from stylewatch.errors import ExitCode
from stylewatch.faces.lines import event_dict, progress_text
from stylewatch.faces.wire import step_of
from stylewatch.jobs import child, styletransfer
from stylewatch.jobs.cluster import BRIEFLY, SHUN_SECONDS
from stylewatch.settings.config import Config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LONG_RUNNING = {"watch", "run"}


def blocks(language, text=README):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def newcomer(tmp_path):
    """A person with a new home, a photo, and no way to the weights' host."""
    home = tmp_path / "home"
    home.mkdir()
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8), "RGB")
    photo.save(tmp_path / "photo.jpg")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "STYLEWATCH_"))}
    nowhere = "http://127.0.0.1:9"
    return tmp_path, kept | {
        "HOME": str(home), "KERAS_HOME": str(home / "keras"), "TF_CPP_MIN_LOG_LEVEL": "3",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "http_proxy": nowhere, "https_proxy": nowhere,
    }  # fmt: skip


def run_until_started(command, folder, env):
    """Start a daemon, wait until it watches, stop it as a service would; returns its exit code."""
    process = subprocess.Popen(
        f"exec {command}", shell=True, cwd=folder, env=env, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    lines = []
    for line in process.stderr:
        lines.append(line)
        if " started " in line:
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert any(" started " in line for line in lines), lines
    return process.returncode


@pytest.mark.timeout(900)  # it paints a sheet of all presets, perhaps on a busy machine
def test_every_command_block_of_the_readme_works(newcomer):
    folder, env = newcomer
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    ran = []
    for command in (line for block in blocks("sh") for line in block.splitlines() if line):
        words = shlex.split(command)
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), command
            continue
        assert words[0] in {"stylewatch", "mkdir"}, command
        if words[1] in LONG_RUNNING:
            assert run_until_started(command, folder, env) == 0, command
        else:
            done = subprocess.run(
                command,
                shell=True,
                cwd=folder,
                env=env,
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
            assert done.returncode == 0, (command, done.stderr)
        ran.append(words[1])
    assert {"watch", "run", "init", "config", "apply", "presets"} <= set(ran)
    assert [p.name for p in (folder / "paintings").iterdir()] == ["photo--watercolour.jpg"]


def test_every_yaml_block_of_the_readme_is_valid(tmp_path, monkeypatch):
    from stylewatch.settings.loading import load_config
    from stylewatch.settings.presets import Presets

    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "grandma.jpg").write_bytes(b"any bytes: the image is opened when it is needed")
    kinds = set()
    for number, block in enumerate(blocks("yaml")):
        file = tmp_path / f"{number}.yaml"
        file.write_text(block, encoding="utf-8")
        if "folders" in yaml.safe_load(block):
            load_config(file)
            kinds.add("config")
        else:
            assert Presets.around(file)[file.stem].style
            kinds.add("preset")
    assert kinds == {"config", "preset"}


def test_the_effect_in_the_docs_paints(newcomer):
    folder, env = newcomer
    text = (ROOT / "docs/developing.md").read_text(encoding="utf-8")
    (code, _), [project] = blocks("python", text), blocks("toml", text)
    [(group, points)] = tomllib.loads(project)["project"]["entry-points"].items()
    about = folder / "posterize-1.dist-info"
    about.mkdir()
    lines = [f"[{group}]", *(f"{name} = {what}" for name, what in points.items())]
    (about / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    (about / "METADATA").write_text("Name: posterize\nVersion: 1\n", encoding="utf-8")
    (folder / "posterize.py").write_text(code, encoding="utf-8")
    (folder / "flat.yaml").write_text("effect: posterize\nstrength: 2", encoding="utf-8")
    apply = [sys.executable, "-m", "stylewatch", "apply", "photo.jpg", "-p", "flat.yaml"]
    env |= {"PYTHONPATH": f"{ROOT}:{folder}"}
    subprocess.run([*apply, "-o", "flat.png"], cwd=folder, env=env, check=True, timeout=100)
    with Image.open(folder / "flat.png") as flat:
        assert np.unique(np.asarray(flat)).tolist() == [0, 255]


def test_the_step_in_the_docs_is_one_that_can_be_shown():
    _, code = blocks("python", (ROOT / "docs/developing.md").read_text(encoding="utf-8"))
    told, known = [], {"Step": Step, "w": 640, "h": 480, "n": 4, "spent": 4.0, "left": 4.0}
    exec(code, known | {"context": SimpleNamespace(on_step=steps_only(told.append))})
    [step] = told
    text = "scale 1/1, 640x480, evaluation 4/8, 4 s left"
    assert (progress_text(step), step.fraction) == (text, 0.5)
    sent = json.dumps(event_dict(Event(kind="progress", message="", step=step)), allow_nan=False)
    assert step_of(json.loads(sent)["step"]).left == 4.0


def commands():
    import typer

    from stylewatch.cli import app

    root = typer.main.get_command(app)
    for name, command in root.commands.items():
        if hasattr(command, "commands"):
            yield from ((name, sub) for sub in command.commands)
        else:
            yield (name,)


def test_the_readme_names_every_command_and_no_other():
    table = README.split("## Commands")[1].split("##")[0]
    named = set()
    for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE):
        first, *others = re.findall(r"`([^`]+)`", row)
        words = [word for word in first.split() if word.islower()]
        named.add(tuple(words))
        named |= {(*words[:-1], other) for other in others}
    assert named == set(commands())


def test_the_readme_names_every_setting_of_a_preset():
    table = README.split("## Presets")[1].split("\n## ")[0]
    for setting in fields(StyleSettings):
        assert f"`{setting.name}`" in table, setting.name


def test_the_readme_names_every_exit_code():
    text = README.split("Exit codes:")[1].split("Results are")[0]
    assert {int(number) for number in re.findall(r"\b(\d+)\b", text)} == {int(c) for c in ExitCode}


LIMITS = EngineSettings()
UNIT = (ROOT / "systemd/stylewatch.service").read_text(encoding="utf-8")
WATCHDOG, RESTART = (int(re.search(rf"{k}Sec=(\d+)\n", UNIT)[1]) for k in ("Watchdog", "Restart"))
IN_WORDS = {10: "ten", 30: "half a minute", 300: "five minutes", 600: "ten minutes"}


@pytest.mark.parametrize(
    "words",
    [
        f"more than {LIMITS.max_pixels // 10**6} megapixels,",
        f"{LIMITS.max_side:,} pixels a side or".replace(",", " "),
        f"or {LIMITS.max_bytes // 10**6} MB are refused",
        f"a scan, which runs every {Config.rescan_seconds:g} seconds",
        f"at least {IN_WORDS[styletransfer._ENOUGH]} evaluations",
        f"other machines get the work for {IN_WORDS[SHUN_SECONDS]}",
        f"an unforeseen error in a worker they get it for {IN_WORDS[BRIEFLY]}",
        f"stands still for {IN_WORDS[WATCHDOG]}",
        f"systemd starts it {IN_WORDS[RESTART]} later",
    ],
)
def test_the_numbers_that_the_documents_tell_are_those_of_the_code(words):
    told = README + (ROOT / "docs/operating.md").read_text(encoding="utf-8")
    assert words in " ".join(told.split())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)
def test_what_a_document_leads_to_is_there(document):
    for name, part in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", document.read_text("utf-8")):
        target = document.parent / name if name else document
        assert target.exists(), name
        if part:
            headings = re.findall(r"^#+ (.*)", target.read_text(encoding="utf-8"), re.MULTILINE)
            known = [re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings]
            assert part in known


def test_the_readme_leads_to_every_document():
    assert all(f"]({file.relative_to(ROOT)})" in README for file in DOCUMENTS[1:])


def rows(text):
    return [line for line in text.splitlines() if re.match(r"\| [^-W ]", line)]


def test_the_readme_s_figures_are_those_of_the_list():
    told = rows(README.split("## Figures")[1].split("\n## ")[0])
    assert len(told) == 6
    assert {*told} <= {*rows((ROOT / "docs/figures.md").read_text(encoding="utf-8"))}


def test_the_readme_s_words_on_faults_are_those_of_the_table():
    kinds, times = re.search(r"injects (\d+) kinds of fault .*, ([\d ]+) times", README).groups()
    table = rows((ROOT / "docs/faults.md").read_text(encoding="utf-8"))
    counts = [[int(n) for n in re.findall(r"\| (\d+) (?=\|)", row)] for row in table]
    assert len(counts) == int(kinds)
    *proper, burst = sorted(injected for injected, *_ in counts)
    assert sum(proper) >= int(times.replace(" ", ""))
    assert burst == 10_000
    assert not any(sum(bad) for _, *bad in counts)


# --- what the package and its source archive say of themselves ------------------------------------

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]


def test_every_library_that_is_imported_is_declared():
    """None is there only because another one happens to bring it along."""
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    declared = {re.match(r"[\w-]+", line)[0] for lines in lists for line in lines}
    imported = set()
    for file in (ROOT / "stylewatch").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.partition(".")[0])
    imported -= sys.stdlib_module_names | {"stylewatch", "jax", "torch"}  # Keras's other backends
    names = {"yaml": "pyyaml", "PIL": "pillow", "tornado": "distributed"}  # which stands on it
    assert {names.get(name, name.replace("_", "-")) for name in imported} <= declared


def test_the_source_archive_has_what_its_makefile_needs():
    sdist = PYPROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {name for name in re.findall(r"[\w.]+", makefile) if (ROOT / name).is_file()}
    assert "requirements.lock" in named
    assert named <= {*sdist, "pyproject.toml"}  # which is always there


def test_make_takes_the_python_that_it_is_given_with_uv_too_and_pip_is_there(tmp_path, monkeypatch):
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\n")
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    told = subprocess.run(
        ["make", "-nB", "PYTHON=python3.12", ".venv/installed"], capture_output=True, text=True,
        check=True, cwd=ROOT,
    ).stdout  # fmt: skip
    [made] = [line for line in told.splitlines() if " venv " in line]
    assert "--seed --python python3.12 .venv" in made


def test_make_installs_anew_where_the_checkout_was_moved(tmp_path):
    """Programs in .venv begin with the path of its Python, and know the checkout's own, too."""
    place = tmp_path / "a b"
    (place / ".venv").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, place / name)
    command = ["make", "-n", "PYTHON=python3.12", ".venv/installed"]
    for stamp, anew in ((place, False), (tmp_path / "before", True), ("", False)):
        (place / ".venv/installed").write_text(f"{stamp}\n" if stamp else "")
        told = subprocess.check_output(command, text=True, cwd=place)
        assert ("rm -rf .venv" in told) is anew
        assert (f'echo "{place}" > .venv/installed' in told) is anew


def test_the_licence_names_that_of_the_built_in_weights_too():
    assert PROJECT["license"] == "MIT AND CC-BY-4.0"
    files = [file for glob in PROJECT["license-files"] for file in ROOT.glob(glob)]
    assert {"LICENSE", "VGG19-CC-BY-4.0.md"} == {file.name for file in files}


# --- the benchmarks that its figures come from ----------------------------------------------------

BENCHMARKS = ROOT / "benchmarks"


@pytest.mark.parametrize("command", ["peer.py", "builtin.py quality"])
def test_a_benchmark_without_pictures_says_what_it_lacks(command):
    file, *words = command.split()
    done = subprocess.run(
        [sys.executable, BENCHMARKS / file, *words], capture_output=True, text=True, check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"},
    )  # fmt: skip
    assert done.returncode == ExitCode.USAGE
    assert "which --photos and which --paintings?" in done.stderr


def test_what_a_side_of_the_race_makes_ready_is_nobody_s_time(tmp_path, monkeypatch):
    """PyTorch is imported, weights are read and the style is described before the clock runs."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(child, "set_environment", lambda _: None)  # this process is no side
    peer = importlib.import_module("peer")
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], process_time=lambda: now[0])
    monkeypatch.setattr(peer, "time", clock)
    image = Mock()
    for tensor in (image, image.grad):
        tensor.detach().permute().numpy.return_value = np.zeros(3)

    def ready(pair, evaluations, recorder):
        now[0] += 100.0

        def run():
            now[0] += 2.0
            recorder.evaluated(1.0, image)

        return run, image

    monkeypatch.setattr(peer, "torch_loop", ready)
    peer.run_peer(SimpleNamespace(record=tmp_path, pair=None, evaluations=1))
    (tmp_path / "stops.json").write_text("[]")
    assert peer.Record(tmp_path).spent(1) == (2.0, 2.0)


def test_what_the_benchmark_of_an_evaluation_times_has_ended(monkeypatch, capsys):
    """A GPU's library answers before it has computed."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    evaluation = importlib.import_module("evaluation")
    timed = {}

    def median_seconds(calls, *_):
        timed.update({name: call() for name, call in calls.items()})
        return dict.fromkeys(calls, 1.0)

    monkeypatch.setattr(evaluation, "median_seconds", median_seconds)
    monkeypatch.setattr(evaluation.features, "load_vgg19", lambda _: small_network())
    monkeypatch.setattr(sys, "argv", ["evaluation.py", "--sizes", "32"])
    evaluation.main()
    assert "| 32 | bfloat16 | 1.000 |" in capsys.readouterr().out
    assert {type(each) for each in timed.values()} == {float, np.ndarray}  # none is a tensor
    assert timed.keys() == {"products", "float32", "bfloat16", "bare float32", "bare bfloat16"}


def test_a_part_of_the_gpu_s_benchmark_that_fails_costs_no_other(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(BENCHMARKS)
    gpu = importlib.import_module("gpu")

    def fail(*_, **__):
        raise RuntimeError("no room")

    def prepare(_weights, _photo, _painting, pair):
        for name in ("photo", "painting"):
            np.save(pair / f"{name}.npy", np.zeros(1))

    monkeypatch.setattr(gpu, "prepare", prepare)
    monkeypatch.setattr(gpu.subprocess, "run", fail)
    for name in ("evaluation.product_rate", "gpu.one_evaluation", "gpu.against_peer"):
        monkeypatch.setattr(name, fail)
    monkeypatch.setattr("stylewatch.engine.features.load_vgg19", lambda *_: None)
    monkeypatch.setattr(gpu, "pictures", lambda *given: iter([f"a picture of {given[-1]} px"]))
    words = ["gpu.py", "--photo", "p", "--painting", "q", "--sizes", "16", "32"]
    monkeypatch.setattr(sys, "argv", [*words, "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="True"):
        gpu.main()
    out, err = capsys.readouterr()
    assert err.count("RuntimeError: no room") == 9  # the peer, 2 rates, 4 evaluations, 2 races
    assert [line.partition("] ")[2] for line in out.splitlines()][1:] == [
        "a picture of 16 px", "a picture of 32 px",
    ]  # fmt: skip


def test_the_peer_s_weights_are_nothing_but_those(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    peer = importlib.import_module("peer")
    saved = {}

    def savez(_file, **arrays):  # as before NumPy 2.2: what is named is an array
        saved.update(arrays)

    monkeypatch.setattr(peer.np, "savez", savez)
    monkeypatch.setattr("stylewatch.engine.features.load_vgg19", lambda *_: small_network())
    photo = ROOT / "stylewatch/data/demo.jpg"
    peer.prepare("", photo, photo, tmp_path)
    assert {name.partition("_")[0] for name in saved} == {f"block{n}" for n in range(1, 6)}
