"""The README does what it says: every command block is run, every name in it exists."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from stylewatch.domain import StyleSettings
from stylewatch.errors import ExitCode

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
LONG_RUNNING = {"watch", "run"}


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


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
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=25)
    assert any(" started " in line for line in lines), lines
    assert time.monotonic() - started < 10
    return process.returncode


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
                timeout=100,
                check=False,
            )
            assert done.returncode == 0, (command, done.stderr)
        ran.append(words[1])
    assert {"watch", "run", "init", "config", "apply", "presets"} <= set(ran)
    assert [p.name for p in (folder / "paintings").iterdir()] == ["photo--watercolour.jpg"]


def test_every_yaml_block_of_the_readme_is_valid(tmp_path, monkeypatch):
    from stylewatch.settings.config import load_config
    from stylewatch.settings.presets import check

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
            assert check(file) == []
            kinds.add("preset")
    assert kinds == {"config", "preset"}


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


def test_every_file_that_the_readme_shows_is_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_help_loads_quickly_and_without_the_network_s_libraries():
    started = time.process_time()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import stylewatch.cli"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert time.process_time() - started < 5
    assert "tensorflow" not in done.stderr
    assert "keras" not in done.stderr
