"""What `pip install` gives: all that it needs, though no checkout lies beside it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def files_below(folder):
    return {
        file.relative_to(folder)
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


def test_a_wheel_has_all_that_it_needs(tmp_path):
    pytest.importorskip("hatchling", reason="hatchling, which builds wheels, is not installed")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=100)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(site)
    package, data = site / "stylewatch", site / "stylewatch/data"
    for folder, place in (
        ("stylewatch", package), ("presets", data / "presets"), ("systemd", data / "systemd"),
    ):  # fmt: skip
        assert files_below(ROOT / folder) - files_below(place) == set(), folder
    (entries,) = site.glob("*.dist-info/entry_points.txt")
    assert "stylewatch.__main__:main" in entries.read_text(encoding="utf-8")
    script = (
        "from stylewatch.app.unit import shipped_unit; from stylewatch.cli import main\n"
        "print(*(shipped_unit(user=user).is_file() for user in (True, False)), flush=True)\n"
        "main(['presets', 'list'])"
    )
    asked = subprocess.run(
        [sys.executable, "-P", "-c", script],
        env=os.environ | {"PYTHONPATH": str(site)}, cwd=tmp_path, check=True,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    units, *presets = asked.stdout.splitlines()
    assert units == "True True"
    names = {line.split()[0] for line in presets}
    assert names >= {file.stem for file in (ROOT / "presets").glob("*.yaml")}
