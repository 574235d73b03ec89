"""stylewatch.yaml: what it may say, how its errors read, which presets a photo gets."""

import errno
import json
import os
import re
import subprocess
import sys
from dataclasses import fields, replace
from functools import partial
from pathlib import Path, PurePosixPath
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rig import effect_package

from stylewatch import places
from stylewatch.commands import watching
from stylewatch.domain import EngineSettings, PhotoFacts, Preset, StyleImage
from stylewatch.errors import ConfigError, ExitCode, PresetError
from stylewatch.settings import presets
from stylewatch.settings.choice import match, misspelt
from stylewatch.settings.config import Config, ConfigFile, Folder
from stylewatch.settings.layout import overlap
from stylewatch.settings.loading import config_schema, load_config, watch_config
from stylewatch.settings.paths import absolute, default_state_dir, find_config
from stylewatch.settings.readiness import check
from stylewatch.settings.rules import Rule, path_matches
from stylewatch.settings.starter import default_config_text, write_config

quick = settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example writes its own file
)


@pytest.fixture
def home(home) -> Path:
    """A home with three presets of one's own."""
    presets = home / ".config" / "stylewatch" / "presets"
    presets.mkdir(parents=True)
    (presets / "waves.png").write_bytes(b"picture")
    for name in ("starry", "ink", "painting"):
        (presets / f"{name}.yaml").write_text("style: waves.png")
    return home


def load(home: Path, text: str) -> Config:
    (home / "stylewatch.yaml").write_text(text)
    return load_config(home / "stylewatch.yaml")


FOLDER = "folders:\n  - {input: in, output: out, preset: starry}\n"

# --- what a config says ---------------------------------------------------------------------------


def test_paths_are_relative_to_the_file_and_presets_are_resolved(home):
    config = load(home, FOLDER)
    assert config.file == home / "stylewatch.yaml"
    assert config.folders == (
        Folder(
            name="in", input=home / "in", output=home / "out", preset=("starry",), quiet_seconds=2.0
        ),
    )
    assert {"starry", "ink", "painting"} <= set(config.presets)
    assert isinstance(config.presets["starry"], Preset)
    assert config.state_dir == home / ".local/state/stylewatch"
    assert config.engine == EngineSettings(checkpoint_dir=config.state_dir / "checkpoints")


def test_a_config_can_say_everything(home):
    (home / "mine").mkdir()
    (home / "mine" / "own.yaml").write_text("style: ../.config/stylewatch/presets/waves.png")
    config = load(
        home,
        """
folders:
  - name: phone
    input: ~/phone
    output: /tmp/stylewatch-results
    preset: [own, ink]
    rules:
      - {path: "portraits/**", preset: [ink, own, ink]}
      - {camera: "*X100*", orientation: portrait, min_side: 100, max_side: 9000, preset: []}
    subfolders: false
    after: {move: done}
    quiet_seconds: 10s
    weight: 2
workers: {local: 4}
presets: mine
state_dir: state
weights: vgg19.h5
features: builtin
threads: 3
nice: 19
memory: 4GiB
memory_limit: 6GB
checkpoint_seconds: 1min
limits: {max_pixels: 1000000, max_side: 2000, max_bytes: 20MB}
quiet_seconds: 500ms
settle_max_seconds: 5min
rescan_seconds: 1min
job_timeout: 2h
max_attempts: 5
grace_seconds: 7
idle_release: 0
min_free: 1.5GB
retention_days: 30
metrics_port: 9464
""",
    )
    assert config.folders == (
        Folder(
            name="phone",
            input=home / "phone",
            output=Path("/tmp/stylewatch-results"),
            preset=("own", "ink"),
            rules=(
                Rule(path="portraits/**", preset=("ink", "own")),
                Rule(
                    camera="*X100*", orientation="portrait", min_side=100, max_side=9000, preset=()
                ),
            ),
            subfolders=False,
            after=home / "done",
            quiet_seconds=10.0,
            weight=2.0,
        ),
    )
    assert config.engine == EngineSettings(
        weights=str(home / "vgg19.h5"),
        features="builtin",
        threads=3,
        nice=19,
        memory=4 * 2**30,
        workers=4,
        memory_limit=6 * 10**9,
        checkpoint_dir=home / "state" / "checkpoints",
        checkpoint_seconds=60.0,
        max_pixels=1_000_000,
        max_side=2000,
        max_bytes=20_000_000,
    )
    assert (config.workers, config.state_dir) == (4, home / "state")
    assert (config.quiet_seconds, config.settle_max_seconds, config.rescan_seconds) == (
        0.5,
        300,
        60,
    )
    assert (config.job_timeout, config.max_attempts, config.grace_seconds) == (7200, 5, 7)
    assert (config.idle_release, config.min_free, config.retention_days) == (0, 1_500_000_000, 30)
    assert config.metrics_port == 9464
    assert config.preset_dirs[0] == home / "mine"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("local", 1),
        ("2", 2),
        ("{local: 3}", 3),
        ("tls://gpu.example:8786", "tls://gpu.example:8786"),
        ("tcp://127.0.0.1:8786", "tcp://127.0.0.1:8786"),
    ],
)
def test_workers(home, written, meant):
    config = load(home, FOLDER + f"workers: {written}")
    assert config.workers == meant
    assert config.engine.workers == (meant if isinstance(meant, int) else 1)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90", 90), ("1.5", 1.5), ("90s", 90), ("10min", 600), ("10 min", 600), ("1.5h", 5400), ("2d", 172800), ("1500ms", 1.5)],
)  # fmt: skip
def test_durations(home, written, seconds):
    assert load(home, FOLDER + f"job_timeout: {written}").job_timeout == seconds


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("7", 7),
        ("7B", 7),
        ("4kB", 4000),
        ("3KiB", 3072),
        ("4GB", 4 * 10**9),
        ("1.5 MiB", 3 * 2**19),
        ("1TB", 10**12),
    ],
)
def test_sizes(home, written, size):
    assert load(home, FOLDER + f"min_free: {written}").min_free == size


def test_a_preset_of_another_effect_needs_no_style_image_and_no_weights(home, monkeypatch):
    effect_package(home / "site")
    monkeypatch.syspath_prepend(home / "site")
    (home / ".config/stylewatch/presets/turned.yaml").write_text("effect: own\nbase: bare")
    (home / ".config/stylewatch/presets/bare.yaml").write_text("style: []")
    config = load(home, FOLDER.replace("starry", "turned") + "weights: gone.h5")
    assert config.presets["turned"].effect == "own"
    assert "starry" in config.broken


@pytest.mark.parametrize(
    "key",
    ["threads", "nice", "memory", "memory_limit", "min_free", "grace_seconds", "idle_release"],
)
def test_a_zero_that_has_a_meaning_can_be_said(home, key):
    config = load(home, FOLDER + f"{key}: 0")
    assert getattr(config, key, None) == 0 or getattr(config.engine, key, None) == 0


def test_a_preset_without_style_image_is_no_choice_but_a_base(home):
    (home / ".config/stylewatch/presets/bare.yaml").write_text("base: bare2")
    (home / ".config/stylewatch/presets/bare2.yaml").write_text("base: bare3")
    (home / ".config/stylewatch/presets/bare3.yaml").write_text("style: []")
    assert "bare" not in load(home, FOLDER).presets


def test_a_broken_preset_that_nothing_names_is_a_problem_and_no_error(home):
    (home / ".config/stylewatch/presets/torn.yaml").write_text("sed: 1")
    config = load(home, FOLDER)
    assert "torn" not in config.presets
    assert list(config.broken) == ["torn"]
    assert any("torn.yaml:1:1: sed: unknown key" in str(problem) for problem in check(config))


def test_the_images_of_all_presets_are_known_also_those_that_are_away(home):
    presets = home / ".config/stylewatch/presets"
    (presets / "away.yaml").write_text("style: [{image: gone.png, mask: m.png}]\ninit: i.png")
    config = load(home, FOLDER)
    assert list(config.broken) == ["away"]
    away = {presets / "gone.png", presets / "m.png", presets / "i.png"}
    assert away | {presets / "waves.png"} <= config.files.keys()


def test_the_state_lives_where_systemd_or_xdg_say(monkeypatch):
    monkeypatch.setenv("HOME", "/h")
    assert default_state_dir() == Path("/h/.local/state/stylewatch")
    monkeypatch.setenv("XDG_STATE_HOME", "/x")
    assert default_state_dir() == Path("/x/stylewatch")
    monkeypatch.setenv("XDG_STATE_HOME", "x")  # which XDG wants to be passed over
    assert default_state_dir() == Path("/h/.local/state/stylewatch")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/stylewatch:/var/lib/other")
    assert default_state_dir() == Path("/var/lib/stylewatch")


# --- errors ---------------------------------------------------------------------------------------

DURATION = "expected seconds, or a duration such as 90s, 10min, 2h or 7d"
SIZE = "expected bytes, or a size such as 500MB, 4GB or 2GiB"
WORKERS = (
    "expected local, {local: NUMBER}, tls://HOST:PORT, "
    "or, on this machine alone, tcp://127.0.0.1:PORT"
)
OUTSIDE = "Choose a folder outside of it"
BROKEN = {
    "typo": (FOLDER + "worker: 1", "3:1: worker: unknown key. Did you mean 'workers'?"),
    "typo in a folder": (
        "folders: [{input: in, outptu: out, output: out}]",
        "1:23: folders[0].outptu: unknown key. Did you mean 'output'?",
    ),
    "typo in a key that must be there": (
        "folders:\n  - input: in\n    outptu: out",
        "3:5: folders[0].outptu: unknown key. Did you mean 'output'?",
    ),
    "unknown key and a missing one": (
        "folders:\n  - input: in\n    colour: red",
        "2:5: folders[0].output: missing key (and 1 more)",
    ),
    "merge key": (
        "folders:\n  - &a {input: in, output: out}\n  - <<: *a\n    input: b",
        "3:5: folders[1]: merge keys (<<) are not read here: write the values themselves",
    ),
    "tag that does not fit": (
        FOLDER.replace("starry", "starry, subfolders: !!bool yes"),
        "2:58: folders[0].subfolders: 'yes' is not true or false",
    ),
    "typo in a rule": (
        FOLDER.replace("preset: starry", "rules: [{pth: x, preset: ink}]"),
        "2:39: folders[0].rules[0].pth: unknown key. Did you mean 'path'?",
    ),
    "typo in limits": (
        FOLDER + "limits: {max_byte: 1}",
        "3:10: limits.max_byte: unknown key. Did you mean 'max_bytes'?",
    ),
    "no folders": ("workers: 1", "1:1: folders: missing key"),
    "empty folders": (
        "folders: []",
        "1:1: folders: out of range: expected at least 1 in the list, received an empty list",
    ),
    "folders of a wrong type": (
        "folders: in",
        "1:1: folders: wrong type: expected a list (- value), received 'in'",
    ),
    "no output": ("folders:\n  - input: in", "2:5: folders[0].output: missing key"),
    "no input": (
        "folders:\n  - input:\n    output: out",
        (
            "2:5: folders[0].input: wrong type: expected text, received nothing. "
            "What is ~ or begins with # needs quotes"
        ),
    ),
    "an input of a wrong type": (
        "folders:\n  - input: 2024\n    output: out",
        "2:5: folders[0].input: wrong type: expected text, received 2024. Put it in quotes",
    ),
    "unknown preset": (
        FOLDER.replace("starry", "stary"),
        "2:30: folders[0].preset: unknown preset 'stary'. Did you mean 'starry'?",
    ),
    "several presets that are no list": (
        FOLDER.replace("starry", "'starry, ink'"),
        (
            "2:30: folders[0].preset: unknown preset 'starry, ink'. "
            "Several are a list: [starry, ink]"
        ),
    ),
    "unknown preset in a rule": (
        FOLDER.replace("preset: starry", "rules: [{preset: [ink, strary]}]"),
        "2:39: folders[0].rules[0].preset: unknown preset 'strary'. Did you mean 'starry'?",
    ),
    "preset of a wrong type": (
        FOLDER.replace("starry", "3"),
        "2:30: folders[0].preset: wrong value: expected a preset's name, or a list of names, in quotes where they are numbers, received 3",
    ),
    "after": (
        FOLDER.replace("starry", "starry, after: trash"),
        "2:46: folders[0].after: wrong value: expected keep, delete or {move: FOLDER}, received 'trash'",
    ),
    "pattern": (
        FOLDER.replace("starry", "starry, rules: [{path: /a/*, preset: ink}]"),
        (
            "2:55: folders[0].rules[0].path: wrong value: expected a pattern relative to the input, "
            "such as portraits/** or **/*.jpg, received '/a/*'"
        ),
    ),
    "pattern of an absolute path": (
        FOLDER.replace("starry", 'starry, rules: [{path: "~/a", preset: ink}]'),
        (
            "2:55: folders[0].rules[0].path: wrong value: expected a pattern relative to the input, "
            "such as portraits/** or **/*.jpg, received '~/a'"
        ),
    ),
    "sides": (
        FOLDER.replace("starry", "starry, rules: [{max_side: 9, min_side: 10, preset: ink}]"),
        (
            "2:68: folders[0].rules[0].min_side: no photo has such sides: "
            "expected at most max_side, which is 9, received 10"
        ),
    ),
    "orientation": (
        FOLDER.replace("starry", "starry, rules: [{orientation: portrat, preset: ink}]"),
        (
            "2:55: folders[0].rules[0].orientation: wrong value: expected 'landscape', 'portrait' or "
            "'square', received 'portrat'. Did you mean 'portrait'?"
        ),
    ),
    "duration": (
        FOLDER + "job_timeout: 10 moons",
        f"3:1: job_timeout: wrong value: {DURATION}, received '10 moons'",
    ),
    "negative duration": (
        FOLDER + "job_timeout: -1",
        "3:1: job_timeout: out of range: expected more than 0, received -1",
    ),
    "longer than any wait": (
        FOLDER + "job_timeout: 9999999999",
        "3:1: job_timeout: out of range: expected at most 31536000, received 9999999999",
    ),
    "smaller than any memory": (
        FOLDER + "memory: 4",
        "3:1: memory: wrong value: expected at least 1MB, such as 4GB, or 0, received 4",
    ),
    "larger than any memory": (
        FOLDER + "memory_limit: 99999999TB",
        "3:1: memory_limit: out of range: expected at most 1e+18, received '99999999TB'",
    ),
    "larger than a number": (
        FOLDER + f"min_free: {'9' * 330}TB",
        f"3:1: min_free: wrong value: {SIZE}, received '{'9' * 59}…'",
    ),
    "size": (FOLDER + "min_free: 4 gigs", f"3:1: min_free: wrong value: {SIZE}, received '4 gigs'"),
    "unencrypted": (
        FOLDER + "workers: tcp://gpu:8786",
        f"3:1: workers: wrong value: {WORKERS}, received 'tcp://gpu:8786'",
    ),
    "no workers": (FOLDER + "workers: 0", f"3:1: workers: wrong value: {WORKERS}, received 0"),
    "a yes for workers": (
        FOLDER + "workers: true",
        f"3:1: workers: wrong value: {WORKERS}, received true",
    ),
    "port": (
        FOLDER + "metrics_port: 99999",
        "3:1: metrics_port: out of range: expected at most 65535, received 99999",
    ),
    "presets folder": (
        FOLDER + "presets: .config/stylewatch/presets/ink.yaml",
        "3:1: presets: not a folder: {home}/.config/stylewatch/presets/ink.yaml",
    ),
    "same names": (
        FOLDER + "  - {input: b/in, output: out}",
        "3:5: folders[1].name: two folders are called 'in'. Give one of them another `name:`",
    ),
    "output inside input": (
        FOLDER.replace("out,", "in/out,"),
        (
            "2:17: folders[0].output: the output of 'in' lies inside the input of 'in': "
            "received {home}/in/out. " + OUTSIDE
        ),
    ),
    "input inside output": (
        FOLDER.replace("in,", "out/in,"),
        (
            "2:21: folders[0].output: the input of 'in' lies inside the output of 'in': "
            "received {home}/out/in. " + OUTSIDE
        ),
    ),
    "variable": (
        "folders:\n  - input: in\n    output: ${XDG_PICTURES_DIR}/out",
        (
            "3:5: folders[0].output: variables are not expanded here: "
            "received ${XDG_PICTURES_DIR}/out. Write ~, or the whole path"
        ),
    ),
    "variable alone": (
        FOLDER + "state_dir: $STATE_DIRECTORY",
        (
            "3:1: state_dir: variables are not expanded here: received $STATE_DIRECTORY. "
            "Write ~, or the whole path"
        ),
    ),
    "output is input": (
        FOLDER.replace("out,", "x/../in,"),
        (
            "2:17: folders[0].output: the output of 'in' is the input of 'in': "
            "received {home}/x/../in. " + OUTSIDE
        ),
    ),
    "another folder's output": (
        FOLDER + "  - {name: two, input: b, output: in/b}",
        (
            "3:27: folders[1].output: the output of 'two' lies inside the input of 'in': "
            "received {home}/in/b. " + OUTSIDE
        ),
    ),
    "input inside another folder's output": (
        FOLDER + "  - {name: two, input: out/b, output: b}",
        (
            "3:17: folders[1].input: the input of 'two' lies inside the output of 'in': "
            "received {home}/out/b. " + OUTSIDE
        ),
    ),
    "inputs overlap": (
        FOLDER + "  - {name: two, input: in/b, output: b}",
        (
            "3:17: folders[1].input: the input of 'two' lies inside the input of 'in': "
            "received {home}/in/b. " + OUTSIDE
        ),
    ),
    "moved photos inside input": (
        FOLDER.replace("starry", "starry, after: {move: in/done}"),
        (
            "2:46: folders[0].after: the folder that photos of 'in' move to lies inside the input of "
            "'in': received {home}/in/done. " + OUTSIDE
        ),
    ),
    "state inside input": (
        FOLDER + "state_dir: in/state",
        (
            "3:1: state_dir: the state folder lies inside the input of 'in': "
            "received {home}/in/state. " + OUTSIDE
        ),
    ),
    "input inside state": (
        FOLDER + "state_dir: .",
        (
            "3:1: state_dir: the input of 'in' lies inside the state folder: "
            "received {home}/in. " + OUTSIDE
        ),
    ),
    "presets inside input": (
        FOLDER + "presets: [.config, in/mine]",
        (
            "3:1: presets: the presets folder lies inside the input of 'in': "
            "received {home}/in/mine. " + OUTSIDE
        ),
    ),
    "several": (
        FOLDER + "worker: 1\nthreads: -1",
        "3:1: worker: unknown key. Did you mean 'workers'? (and 1 more)",
    ),
    "duplicate key": (
        "folders: []\nfolders: []",
        "2:1: folders: the key is there twice, first in line 1. Keep one of them",
    ),
    "tab": (
        "folders:\n\t- input: in",
        "2:1: there is a tab where YAML needs spaces. Indent with spaces",
    ),
    "not a mapping": ("- in", "1:1: wrong type: expected a mapping (key: value), received a list"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_error_is_one_line_with_place_and_remedy(home, name):
    (home / "in/mine").mkdir(parents=True)
    text, line = BROKEN[name]
    with pytest.raises(ConfigError) as caught:
        load(home, text)
    assert str(caught.value) == f"{home}/stylewatch.yaml:" + line.replace("{home}", str(home))
    assert caught.value.exit_code == ExitCode.CONFIG


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", " the file is empty: expected a mapping (key: value)"),
        (bytes(range(256)), "2:118: not UTF-8. Save it as UTF-8 text"),
        (
            None,
            (
                " can't be read: No such file or directory. Check the path; "
                "`stylewatch init` writes a config"
            ),
        ),
    ],
)
def test_a_file_that_is_no_yaml_is_one_line_too(home, content, line):
    file = home / "stylewatch.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(caught.value) == f"{file}:{line}"


def test_a_broken_preset_that_is_named_is_an_error_in_the_preset_s_file(home):
    (home / ".config/stylewatch/presets/starry.yaml").write_text("seed: 1\nstile: waves.png")
    with pytest.raises(PresetError, match=r"presets/starry\.yaml:2:1: stile: unknown key"):
        load(home, FOLDER)


def test_a_named_preset_whose_image_is_away_is_a_problem_and_no_error(home):
    (home / ".config/stylewatch/presets/starry.yaml").write_text("seed: 1\nstyle: gone.png")
    config = load(home, FOLDER)
    assert "starry" not in config.presets
    (trouble,) = config.broken.values()
    assert re.search(r"presets/starry\.yaml:2:1: style: .*gone\.png", trouble)
    assert config.waits() == [f"photos for starry wait: {trouble}"]
    assert trouble in [str(problem) for problem in check(config)]
    nowhere_else = replace(config, folders=(replace(config.folders[0], subfolders=False),))
    assert nowhere_else.waits() == config.waits()
    ink = replace(nowhere_else, folders=(replace(nowhere_else.folders[0], preset=("ink",)),))
    assert ink.waits() == []


def test_a_named_preset_whose_effect_is_not_installed_waits_for_it(home, monkeypatch):
    """As when a service starts while pip replaces its package."""
    mine = home / ".config/stylewatch/presets/turned.yaml"
    mine.write_text("effect: own")
    config = load(home, FOLDER.replace("starry", "turned"))
    trouble = f"{mine}:1:1: effect: unknown effect 'own'. Known: style-transfer"
    assert config.waits() == [f"photos for turned wait: {trouble}"]
    assert trouble in map(str, check(config))
    effect_package(home / "site")
    monkeypatch.syspath_prepend(home / "site")
    assert load(home, FOLDER.replace("starry", "turned")).broken == {}


@pytest.mark.parametrize(
    ("more", "waiting"),
    [
        ("features: auto", {"starry", "ink"}),
        ("features: builtin", {"own"}),
        ("features: builtin\nworkers: tls://gpu:8786", set()),  # it is there, or is not
    ],
)
def test_what_vgg19_paints_waits_for_its_weights(home, more, waiting):
    own = home / ".config/stylewatch/presets/own.yaml"
    own.write_text("style: waves.png\nfeatures: vgg19")
    config = load(home, FOLDER + f"weights: gone.h5\n{more}")
    assert waiting <= config.broken.keys()
    assert not config.broken.keys() & config.presets.keys()
    assert ("starry" in config.presets) == ("builtin" in more)
    assert (home / "gone.h5" in config.files) == ("tls" not in more)
    for line in config.waits():
        assert (
            f"stylewatch.yaml:3:1: weights: the weights file does not exist: received {home}"
            in line
        )
    (home / "gone.h5").write_bytes(b"weights")
    assert load(home, FOLDER + f"weights: gone.h5\n{more}").broken == {}


@pytest.mark.parametrize(
    ("more", "features"),
    [
        ("", "auto"),
        ("features: builtin", "builtin"),
        ("features: vgg19", "vgg19"),
        ("weights: own.h5", "vgg19"),  # what is named is never replaced
        ("weights: own.h5\nfeatures: builtin", "builtin"),
    ],
)
def test_presets_are_as_if_they_asked_for_the_config_s_features_themselves(home, more, features):
    (home / "own.h5").write_bytes(b"weights")
    mine = home / ".config/stylewatch/presets/mine.yaml"
    mine.write_text(f"style: waves.png\nfeatures: {features}")
    config = load(home, FOLDER + more)
    assert config.presets["starry"].settings.features == features
    assert config.presets["mine"] == load(home, FOLDER).presets["mine"]
    mine.write_text("style: waves.png")
    assert load(home, FOLDER + more).presets["mine"] == config.presets["mine"]


def test_a_preset_with_layers_that_the_config_s_features_lack_is_broken(home):
    deep = home / ".config/stylewatch/presets/deep.yaml"
    deep.write_text("style: waves.png\ncontent_layers: {block5_conv4: 1}")
    assert load(home, FOLDER).broken == {}
    config = load(home, FOLDER + "features: builtin")
    assert [*config.broken] == ["deep"]
    told = "content_layers.block5_conv4: 'deep' is painted with the built-in features, which lack"
    assert config.broken["deep"].startswith(f"{deep}:2:18: {told}")
    assert config.broken["deep"] in map(str, check(config))


def test_that_most_presets_wait_is_told_by_those_that_do_not(home):
    own = home / ".config/stylewatch/presets/own.yaml"
    own.write_text("style: waves.png\nfeatures: builtin")
    (told,) = load(home, FOLDER + "weights: gone.h5").waits()
    assert told.startswith("photos for all presets but own wait: ")
    assert load(home, FOLDER).waits({"ink": "why"}) == ["photos for ink wait: why"]


def test_an_empty_folder_of_presets_is_away_only_if_a_preset_is_missing(home):
    (home / "none_yet").mkdir()
    config = load(home, FOLDER + "presets: none_yet")
    assert (config.broken, config.presets["starry"].name) == ({}, "starry")
    assert not [problem for problem in check(config) if "presets" in problem.key]


@pytest.mark.parametrize("trouble", ["does not exist", "is empty"])
def test_while_a_folder_of_presets_is_away_no_preset_is_sure(home, trouble):
    """It may hold one of any name, which comes before the shipped one."""
    (home / "here").mkdir()
    (home / "here" / "mine.yaml").write_text("seed: 1")
    nas = home / "nas"
    if trouble == "is empty":  # what the network's folder is mounted on
        nas.mkdir()
    config = load(home, FOLDER.replace("starry", "[only_there, ink]") + "presets: [here, nas]")
    told = (
        f"{home}/stylewatch.yaml:3:17: presets[1]: the presets folder {trouble}: received {nas}. "
        "Correct the path, or mount its disk: until then a daemon paints nothing, as it may hold any "
        "preset"
    )
    assert config.presets == {}
    assert {"only_there", "ink", "painting", "nocturne"} <= config.broken.keys()
    assert set(config.broken.values()) == {told}
    assert told in map(str, check(config))
    nas.mkdir(exist_ok=True)
    (nas / "ink.yaml").write_text("seed: 7")
    with pytest.raises(ConfigError, match="unknown preset 'only_there'"):
        load(home, FOLDER.replace("starry", "[only_there, ink]") + "presets: nas")
    assert load(home, FOLDER + "presets: nas").presets["ink"].settings.seed == 7


def test_a_preset_without_a_style_image_can_t_be_named(home):
    (home / ".config/stylewatch/presets/bare.yaml").write_text("style: []")
    with pytest.raises(
        ConfigError, match=r"2:30: folders\[0\]\.preset: preset 'bare' has no style image"
    ):
        load(home, FOLDER.replace("starry", "bare"))


def test_the_folder_of_presets_may_be_the_one_around_the_input(home):
    assert load(home, FOLDER + "presets: .").preset_dirs[0] == home


def test_links_do_not_hide_that_folders_overlap(home):
    (home / "in" / "deep").mkdir(parents=True)
    (home / "link").symlink_to(home / "in" / "deep")
    with pytest.raises(ConfigError, match=r"output of 'in' lies inside the input"):
        load(home, FOLDER.replace("out,", "link/new,"))


def test_a_loop_of_links_is_no_crash(home):
    (home / "loop").symlink_to("loop")
    assert load(home, FOLDER.replace("out,", "loop/out,"))


@pytest.mark.parametrize(
    ("source", "point"),
    [("in", "other"), ("in/o ut", "other")],
    ids=["of the input", "of a folder inside the input"],
)
def test_bind_mounts_do_not_hide_that_folders_overlap(home, source, point):
    """In a mount namespace of its own, where the system lets us make one."""
    (home / "in" / "o ut").mkdir(parents=True)
    (home / point).mkdir()
    (home / "stylewatch.yaml").write_text(FOLDER.replace("out,", f"{point}/new,"))
    program = (
        "import sys; from pathlib import Path; from stylewatch.settings.loading import load_config;"
        "load_config(Path(sys.argv[1]))"
    )
    script = 'mount --bind "$1" "$2" || exit 99; exec "$3" -c "$4" "$5"'
    words = [home / source, home / point, sys.executable, program, home / "stylewatch.yaml"]
    ours = {"PYTHONPATH": str(Path(__file__).parent.parent)}
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", *words]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, env=os.environ | ours, timeout=30
        )
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if result.returncode == 99 or "unshare:" in result.stderr:
        pytest.skip(f"no mounts here: {result.stderr.strip()}")
    assert "the output of 'in' lies inside the input of 'in'" in result.stderr


def test_folders_that_only_look_alike_may_lie_side_by_side(home):
    assert load(home, FOLDER.replace("out,", "in2,"))
    assert load(home, FOLDER + "  - {name: two, input: in-b, output: out}")


@quick
@given(content=st.binary(max_size=50) | st.text(max_size=50).map(str.encode))
@example(content=b"folders: [{input: '', output: ''}]")
@example(content=b"folders: [{input: /, output: /x}]")
@example(content=b"folders: [[]]")
@example(content=b"folders: [{input: ~nobody/x, output: y, after: {move: 1}}]")
@example(content=b"workers: {local: {local: 3}}")
@example(content=b"min_free: 1e300")
@example(content=b"job_timeout: " + b"9" * 400 + b"d")
def test_whatever_a_file_holds_is_a_config_or_one_line(home, content):
    (home / "stylewatch.yaml").write_bytes(content)
    try:
        load_config(home / "stylewatch.yaml")
    except ConfigError as error:
        for each in (error, *error.others):
            assert len(str(each).splitlines()) == 1


# --- problems that come and go --------------------------------------------------------------------


def test_a_missing_input_and_a_blocked_output_are_problems_and_no_errors(home):
    (home / "file").write_text("")
    config = load(home, FOLDER.replace("out,", "file/out,") + "weights: gone.h5\nstate_dir: file")
    own = [str(problem) for problem in check(config) if "presets/" not in str(problem)]
    assert own == [
        (
            f"{home}/stylewatch.yaml:2:6: folders[0].input: the input of 'in' does not exist: received "
            f"{home}/in. Correct the path, make it (`mkdir -p {home}/in`), or mount what it lies on"
        ),
        (
            f"{home}/stylewatch.yaml:2:17: folders[0].output: the output of 'in' can't be made: "
            f"{home}/file is not a folder: received {home}/file/out. Move that file away, or name "
            "another folder"
        ),
        (
            f"{home}/stylewatch.yaml:4:1: state_dir: the state folder is not a folder: received "
            f"{home}/file. Move that file away, or name another folder"
        ),
        (
            f"{home}/stylewatch.yaml:3:1: weights: the weights file does not exist: received "
            f"{home}/gone.h5. Correct `weights:`, put the file back, or make it readable"
        ),
    ]


def test_what_is_wrong_is_told_with_its_place_in_the_config_that_was_read(home):
    config = load(home, FOLDER)
    for later in (f"# a remark\n{FOLDER}", "folders: [\n"):  # saved meanwhile
        (home / "stylewatch.yaml").write_text(later)
        assert str(check(config)[0]).startswith(f"{home}/stylewatch.yaml:2:6: folders[0].input: ")


@pytest.mark.parametrize("name", ["too long", "is not a folder"])
def test_what_to_do_about_a_folder_does_not_go_by_its_name(home, name):
    problem, *_ = check(load(home, FOLDER.replace("{input", f"{{name: {name}, input")))
    assert f"the input of '{name}' does not exist" in str(problem)
    assert problem.remedy.startswith("Correct the path, make it")


def test_photos_that_can_t_be_taken_out_of_their_folder_are_a_problem(home, monkeypatch):
    (home / "in").mkdir()
    monkeypatch.setattr(os, "access", lambda place, how: place != home / "in" or not how & os.W_OK)
    assert check(load(home, FOLDER)) == []
    (problem,) = check(load(home, FOLDER.replace("starry", "starry, after: delete")))
    assert str(problem) == (
        f"{home}/stylewatch.yaml:2:46: folders[0].after: photos can't be taken out of their folder, "
        f"which can't be written to: received {home}/in. chmod u+wx {home}/in, or run as its owner"
    )
    (home / "in").rmdir()  # which is told by itself
    assert len(check(load(home, FOLDER.replace("starry", "starry, after: delete")))) == 1


def test_a_place_on_a_disk_that_is_read_only_is_told_as_such(home, monkeypatch):
    (home / "in").mkdir()
    access, flags = os.access, os.statvfs(home).f_flag
    monkeypatch.setattr(os, "access", lambda place, how: not how & os.W_OK and access(place, how))
    monkeypatch.setattr(os, "statvfs", lambda _: Mock(f_flag=flags | os.ST_RDONLY))
    problem, *_ = check(load(home, FOLDER))
    assert "the output of 'in' is on a disk that is read-only: received" in str(problem)
    assert problem.remedy == "Mount it writable, or name another folder"


def test_a_folder_that_is_closed_to_us_is_named_with_the_one_that_closes_it(home, monkeypatch):
    """Root, as whom tests may run, is let in everywhere."""
    (shut := home / "shut").mkdir()
    config, stat = (
        load(home, FOLDER.replace("in,", "shut/in,").replace("out,", "shut/out,")),
        Path.stat,
    )

    def closed(place, **how):
        if shut in place.parents:
            raise PermissionError(errno.EACCES, "Permission denied")
        return stat(place, **how)

    monkeypatch.setattr(Path, "stat", closed)
    assert [str(problem).partition(" the ")[2] for problem in check(config)] == [
        f"{use} of 'in' {trouble}: received {shut}/{name}. chmod u+x {shut}, or run as its owner"
        for use, name, trouble in (
            ("input", "in", "can't be read: Permission denied"),
            ("output", "out", "can't be used: Permission denied"),
        )
    ]


@pytest.mark.parametrize("input_", ["file/in", "loop"])
def test_what_no_rights_and_no_making_would_mend_has_another_remedy(home, input_):
    (home / "file").write_text("")
    (home / "loop").symlink_to("loop")
    problem, *_ = check(load(home, FOLDER.replace("in,", f"{input_},")))
    assert problem.remedy == "Correct the path, or mount what it lies on"


def test_a_folder_that_is_there_is_no_problem(home):
    (home / "in").mkdir()
    for after in ("keep", "delete"):
        config = load(home, FOLDER.replace("starry", f"starry, after: {after}"))
        assert [p for p in check(config) if "presets/" not in str(p)] == []


def test_an_input_that_is_a_file_is_a_problem(home):
    (home / "in").write_text("")
    assert "the input of 'in' is not a folder" in str(check(load(home, FOLDER))[0])


def test_what_the_system_can_t_tell_of_a_place_is_a_problem_and_no_crash(home):
    for name in ("loop", "loop2"):
        (home / name).symlink_to(name)
    long = "x" * 256
    config = load(home, FOLDER.replace("in,", f"{long},").replace("out,", f"{long}2/out,"))
    looped = load(home, FOLDER.replace("in,", "loop/in,").replace("out,", "loop2,"))
    assert [
        str(problem).split(" the ", 1)[1].split(": received")[0]
        for problem in check(config) + check(looped)
        if problem.key.startswith("folders")
    ] == [
        f"input of '{long}' can't be read: File name too long",
        f"output of '{long}' can't be used: File name too long",
        "input of 'in' can't be read: Too many levels of symbolic links",
        "output of 'in' can't be used: Too many levels of symbolic links",
    ]
    problem = check(load(home, FOLDER + f"presets: {long}"))[-1]
    assert "the presets folder can't be read: File name too long" in str(problem)


@pytest.mark.parametrize(
    ("weights", "trouble"),
    [
        ("in", "is a folder"),
        ("''", "is a folder"),
        ("gone.h5", "does not exist"),
        ("pipe.h5", "is no regular file"),
    ],
)
def test_weights_that_are_no_file_are_a_problem(home, weights, trouble):
    (home / "in").mkdir()
    os.mkfifo(home / "pipe.h5")
    (problem,) = check(load(home, FOLDER + f"weights: {weights}"))
    assert f"weights: the weights file {trouble}: received {home}" in str(problem)
    assert not check(load(home, FOLDER + f"weights: {weights}\nworkers: tls://gpu:8786"))


def test_the_daemon_writes_to_a_state_folder_that_the_config_names_be_it_the_usual_one(home):
    usual = default_state_dir()
    assert load(home, FOLDER).written_folders() == [home / "out"]
    assert load(home, FOLDER + f"state_dir: {usual}").written_folders() == [home / "out", usual]


def test_missing_rights_are_problems(home, like_anybody):
    for name, mode in (("in", 0o000), ("out", 0o500)):
        (home / name).mkdir(mode=mode)
    try:
        text = "\n".join(map(str, like_anybody(check, load(home, FOLDER))))
    finally:
        (home / "in").chmod(0o700)
    assert "the input of 'in' can't be read" in text
    assert "the output of 'in' can't be written to" in text


# --- watch without a config -----------------------------------------------------------------------


def test_watch_needs_no_config(home, monkeypatch):
    monkeypatch.chdir(home)
    config = watch_config(
        Path("in"), Path("out"), ["starry", "ink"], job_timeout="10min", threads=2
    )
    assert config.file is None
    assert config.folders == (
        Folder(
            name="in",
            input=home / "in",
            output=home / "out",
            preset=("starry", "ink"),
            quiet_seconds=2.0,
        ),
    )
    assert (config.job_timeout, config.engine.threads) == (600.0, 2)


def test_watch_takes_names_that_are_not_utf_8(home, monkeypatch):
    """All that are typed, and what is relative to a folder of such a name."""
    place = home / os.fsdecode(b"here-\xff")
    (place / "in").mkdir(parents=True)
    (place / "mine.yaml").write_text("base: ink\n")
    (place / "own.h5").touch()
    monkeypatch.chdir(place)
    served = []
    monkeypatch.setattr(watching, "_serve", lambda load: served.append(load()))
    more = {"weights": str(place / "own.h5"), "state": Path("state")}
    watching.watch("in", "out", preset=["./mine.yaml"], **more)
    assert served[0].folders[0].input == place / "in"
    assert served[0].preset_dirs[0] == place
    assert served[0].state_dir == place / "state"
    assert served[0].engine.weights == str(place / "own.h5")


@pytest.mark.parametrize(
    ("output", "presets", "more", "line"),
    [
        ("in/out", ["ink"], {}, "output: the output of 'in' lies inside the input of 'in': received {home}/in/out. " + OUTSIDE),
        ("out", ["inc"], {}, "preset: unknown preset 'inc'. Did you mean 'ink'?"),
        ("out", ["ink"], {"threads": -1}, "threads: out of range: expected at least 0, received -1"),
        ("out", ["ink"], {"thread": 1}, "thread: unknown key. Did you mean 'threads'?"),
        ("out", ["ink"], {"hours": "9:00-\udce9"}, "hours: the text is not UTF-8"),
    ],
)  # fmt: skip
def test_watch_refuses_in_one_line(home, monkeypatch, output, presets, more, line):
    monkeypatch.chdir(home)
    with pytest.raises(ConfigError) as caught:
        watch_config(Path("in"), Path(output), presets, **more)
    assert str(caught.value) == line.replace("{home}", str(home))


# --- init and the schema --------------------------------------------------------------------------

AT_HOME = ("~/Pictures/stylewatch/in", "~/Pictures/stylewatch/out", "painting")


def test_what_init_writes_loads_and_means_the_defaults(home):
    config = load(home, default_config_text(*AT_HOME))
    assert config.folders[0].input == home / "Pictures/stylewatch/in"
    assert config == watch_config(
        home / "Pictures/stylewatch/in", home / "Pictures/stylewatch/out", ["painting"]
    )


def test_every_remark_of_init_is_the_default_and_loads(home):
    """The keys behind `#` are true: taken as they stand they change nothing, the rules apart."""
    text = default_config_text("in", "out", "ink")
    plain = load(home, text)
    spelled = load(home, re.sub(r"(?m)^( *)# (?=( *- \{)|[a-z_]+: )", r"\1", text))
    assert spelled.folders[0].rules == (
        Rule(path="portraits/**", preset=("ink",)),
        Rule(camera="*X100*", orientation="portrait", preset=("ink",)),
        Rule(max_side=600, preset=()),
    )
    assert replace(spelled, folders=()) == replace(plain, folders=())
    assert replace(spelled.folders[0], rules=()) == plain.folders[0]


@pytest.mark.parametrize("name", ["in", "a  # b"])
def test_the_remarks_of_init_stand_in_one_column(home, name):
    file = home / "stylewatch.yaml"
    file.write_text(default_config_text(name, "/results", "ink"))
    assert load_config(file).folders[0].input == home / name
    keys = file.read_text().partition("folders:\n")[2].splitlines()[:4]
    assert {line.rindex("# ") for line in keys} == {26}


def test_init_names_every_key():
    text = default_config_text(*AT_HOME)
    for shape in (ConfigFile, Folder, Rule):
        for field in fields(shape):
            assert re.search(rf"\b{field.name}:", text) or field.name == "min_side", field.name


@pytest.mark.parametrize(
    "name", ["/a b/ü", "/a: b #c", "null", "1", "- x", "~", "/{x}", '/"', "/\\x", " "]
)
def test_init_quotes_names_that_yaml_would_misread(home, name):
    (home / "stylewatch.yaml").write_text(default_config_text(name, "/results", "ink"))
    expected = home if name == "~" else home / name
    if name == "~":  # the state lies in there, which is refused, with the right name
        with pytest.raises(ConfigError, match=f"received {home}"):
            load_config(home / "stylewatch.yaml")
    else:
        assert load_config(home / "stylewatch.yaml").folders[0].input == expected


def test_init_writes_a_config_whole_or_not_at_all(home):
    """Over a limit on the size of files, as on a full disk."""
    program = (
        "import resource, signal, sys; from pathlib import Path;"
        "from stylewatch.settings.starter import write_config;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10));"
        "write_config(Path(sys.argv[1]), 'folders: []' * 10)"
    )
    file = home / "new/stylewatch.yaml"
    result = subprocess.run(
        [sys.executable, "-B", "-c", program, file], capture_output=True, text=True, check=False
    )
    assert "stylewatch.yaml can't be made: File too large" in result.stderr
    assert not file.exists()
    assert write_config(file, "folders: []")
    assert not write_config(file, "other")
    assert file.read_text() == "folders: []"


def test_init_in_a_home_that_is_not_utf_8(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", os.fsdecode(bytes(tmp_path) + b"/h\xff"))
    file = tmp_path / "stylewatch.yaml"
    assert write_config(file, default_config_text("in", "out", "ink"))
    assert load_config(file).folders[0].input == tmp_path / "in"


def test_the_schema_describes_every_key():
    schema = config_schema()
    assert set(schema["properties"]) == {field.name for field in fields(ConfigFile)}
    for shape in (schema, *schema["$defs"].values()):
        assert shape["additionalProperties"] is False
        for name, described in shape["properties"].items():
            assert described.get("description") or "$ref" in described, name
    assert schema["required"] == ["folders"]
    json.dumps(schema)


def fits(value, schema) -> bool:
    """Whether a value is as a JSON Schema wants it, in the few words that ours uses."""
    if "anyOf" in schema:
        return any(fits(value, branch) for branch in schema["anyOf"])
    kinds = {"integer": int, "number": (int, float), "string": str, "object": dict}
    if not isinstance(value, kinds[schema.get("type", "string")]):
        return False
    if isinstance(value, dict):
        return len(value) >= schema["minProperties"] and all(
            fits(key, schema["propertyNames"]) and fits(each, schema["additionalProperties"])
            for key, each in value.items()
        )
    if isinstance(value, str):
        choices = schema.get("enum", [schema["const"]] if "const" in schema else [value])
        return value in choices and bool(re.search(schema.get("pattern", ""), value))
    return (
        schema.get("minimum", value) <= value <= schema.get("maximum", value)
        and value > schema.get("exclusiveMinimum", value - 1)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("job_timeout", [1, 0.5, "90s", "1.5 h"], [0, -1, 31536001, "90", "soon", "1 day"]),
        ("quiet_seconds", [0.1, "100ms"], [0.09, "100 moons"]),
        ("min_free", [0, 9000 * 10**12, 10**18, "1.5GB"], [-1, 10**18 + 1, "4 gigs", "1gb"]),
        ("memory_limit", [0, "4 GiB"], ["x"]),
        ("threads", [0, 1024], [-1, 1025]),
        (
            "workers",
            ["local", 2, {"local": 2}, "tls://a:1", "tcp://127.0.0.1:1", "tcp://[::1]:1"],
            ["tcp://a:1", "tcp://localhost.a:1", 0, {}, {"local": 0}],
        ),
        ("after", ["keep", {"move": "x"}], ["trash", {}, {"moved": "x"}]),
        ("hours", ["22:00-07:00", "8:00-9:00, 22:00-24:00"], ["22-7", "25:00-26:00", "night"]),
    ],
)
def test_the_schema_takes_and_refuses_what_the_daemon_does(home, key, good, bad):
    schema = config_schema()
    shape = schema["$defs"]["Folder"] if key == "after" else schema
    for value in good + bad:
        folder = {"input": "in", "output": "out"} | ({key: value} if key == "after" else {})
        config = {"folders": [folder]} | ({} if key == "after" else {key: value})
        try:
            taken = bool(load(home, json.dumps(config)))
        except ConfigError:
            taken = False
        assert (taken, fits(value, shape["properties"][key])) == (value in good,) * 2, value
    assert fits(shape["properties"][key]["default"], shape["properties"][key])


# --- which presets a photo gets -------------------------------------------------------------------

PRESETS = {
    name: Preset(name=name, style=(StyleImage(image=Path("/x.png")),))
    for name in ("starry", "ink", "soft")
}
PORTRAIT = PhotoFacts(width=3000, height=4000, camera="FUJIFILM X100V")


def folder(*rules: Rule, **more) -> Folder:
    return Folder(
        **{
            "name": "in",
            "input": Path("/in"),
            "output": Path("/out"),
            "preset": ("starry",),
            "rules": rules,
        }
        | more
    )


def chosen(where: Folder, path: str, facts: PhotoFacts = PORTRAIT) -> list[str]:
    return [preset.name for preset in match(where, PurePosixPath(path), lambda: facts, PRESETS)]


def test_without_a_rule_the_folder_s_preset_is_used():
    assert chosen(folder(), "a.jpg") == ["starry"]
    assert chosen(folder(preset=("ink", "soft")), "deep/er/a.jpg") == ["ink", "soft"]
    assert chosen(folder(preset=()), "a.jpg") == []


def test_the_first_rule_that_holds_decides():
    where = folder(Rule(path="a/**", preset=("ink", "soft")), Rule(path="**", preset=("soft",)))
    assert chosen(where, "a/b.jpg") == ["ink", "soft"]
    assert chosen(where, "b/b.jpg") == ["soft"]
    assert chosen(folder(Rule(path="a/*", preset=())), "a/b.jpg") == []


def test_a_sub_folder_named_after_a_preset_beats_the_rules():
    where = folder(Rule(path="**", preset=("soft",)))
    assert chosen(where, "ink/a.jpg") == ["ink"]
    assert chosen(where, "ink/deep/a.jpg") == ["ink"]
    assert chosen(where, "Ink/a.jpg") == ["ink"], "as people write it"
    assert chosen(where, "deep/ink/a.jpg") == ["soft"], "the first folder only"
    assert chosen(where, "ink") == ["soft"], "a file of that name is no folder"
    assert chosen(replace(where, subfolders=False), "ink/a.jpg") == ["soft"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *(("inkk", "ink"), ("Inks", "ink"), ("stary", "starry"), ("starry 2", "starry")),
        *(("st\u00e4rry", "starry"), ("satrry", "starry")),
        *(("ink", ""), ("Ink", ""), ("torn", "")),  # they are presets'
        *(("pink", ""), ("start", ""), ("album", ""), ("2026", ""), ("in", "")),
    ],
)
def test_a_sub_folder_that_is_almost_named_after_a_preset_is_told_from_others(name, meant):
    path, known = PurePosixPath(name, "a.jpg"), [*PRESETS, "torn"]
    assert misspelt(folder(), path, known) == meant
    assert misspelt(folder(subfolders=False), path, known) == ""
    ruled = folder(Rule(path=f"{name}/**", preset=("soft",)), Rule(camera="*", preset=()))
    assert misspelt(ruled, path, known) == ""


def test_case_tells_two_presets_apart_and_counts_for_nothing_else():
    two = {name: replace(PRESETS["ink"], name=name) for name in ("INK", "ink")}
    for name, wanted in (("ink", "ink"), ("INK", "INK"), ("Ink", "INK")):
        (preset,) = match(folder(), PurePosixPath(name, "a.jpg"), lambda: PORTRAIT, two)
        assert preset.name == wanted
    torn = PurePosixPath("Torn/a.jpg")
    assert match(folder(), torn, lambda: PORTRAIT, PRESETS, {"torn"}) is None


def test_an_accent_may_be_written_in_two_ways(home):
    """As one letter in the config, and as letter and accent in the names of a Mac's files."""
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    (home / f".config/stylewatch/presets/{decomposed}.yaml").write_text("style: waves.png")
    (home / ".config/stylewatch/presets/ink.yaml").write_text(f"base: {composed}")
    config = load(home, FOLDER.replace("starry", composed))
    assert config.presets["ink"].style == config.presets["starry"].style
    watched = replace(config.folders[0], preset=("ink",))
    for name in (composed, decomposed):
        path = PurePosixPath(name, "a.jpg")
        (preset,) = match(watched, path, lambda: PORTRAIT, config.presets)
        assert preset.name == composed


def test_the_sub_folder_of_a_broken_preset_waits_and_gets_not_the_folder_s():
    path, where = PurePosixPath("torn/a.jpg"), folder()
    assert match(where, path, lambda: PORTRAIT, PRESETS, {"torn"}) is None
    assert match(where, path, lambda: PORTRAIT, PRESETS) == (PRESETS["starry"],)
    named = folder(Rule(path="*.png", preset=("ink", "torn")))
    assert match(named, PurePosixPath("a.png"), lambda: PORTRAIT, PRESETS, {"torn"}) is None
    no_meaning = replace(where, subfolders=False)
    assert match(no_meaning, path, lambda: PORTRAIT, PRESETS, {"torn"}) == (PRESETS["starry"],)


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ({"camera": "*x100*"}, True),
        ({"camera": "*X100v"}, True),
        ({"camera": "X100V"}, False),
        ({"camera": ""}, False),
        ({"orientation": "portrait"}, True),
        ({"orientation": "landscape"}, False),
        ({"min_side": 4000}, True),
        ({"min_side": 4001}, False),
        ({"max_side": 4000}, True),
        ({"max_side": 3999}, False),
        ({"path": "*.jpg", "camera": "*x100*", "orientation": "portrait", "min_side": 1}, True),
        ({"path": "*.png", "camera": "*x100*"}, False),
        ({}, True),
    ],
)
def test_a_rule_holds_when_all_it_says_holds(rule, holds):
    assert chosen(folder(Rule(preset=("ink",), **rule)), "a.jpg") == (
        ["ink"] if holds else ["starry"]
    )


@pytest.mark.parametrize(
    "rule", [{"max_side": 800}, {"orientation": "landscape"}, {"orientation": "square"}]
)
def test_of_a_photo_with_an_unreadable_header_no_rule_holds_that_asks_for_it(rule):
    where = folder(Rule(preset=("ink",), **rule))
    assert chosen(where, "a.jpg", PhotoFacts(0, 0)) == ["starry"]


def test_a_photo_is_looked_into_only_when_a_rule_asks_and_only_when_its_path_fits():
    def never() -> PhotoFacts:
        raise AssertionError

    where = folder(
        Rule(path="a/**", camera="*", preset=("soft",)), Rule(path="b/**", preset=("ink",))
    )
    assert match(where, PurePosixPath("b/x.jpg"), never, PRESETS) == (PRESETS["ink"],)
    assert match(where, PurePosixPath("soft/x.jpg"), never, PRESETS) == (PRESETS["soft"],)
    with pytest.raises(AssertionError):
        match(where, PurePosixPath("a/x.jpg"), never, PRESETS)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*.jpg", ["a.jpg", ".jpg", "a.JPG"], ["a/b.jpg", "a.jpg/b"]),
        ("Portraits/*.JPG", ["portraits/a.jpg"], ["portrait/a.jpg"]),
        ("**/*.jpg", ["a.jpg", "a/b.jpg", "a/b/c.jpg"], ["a.png"]),
        ("a/**", ["a/b", "a/b/c"], ["b/a", "ab/c"]),
        ("a/", ["a/b", "a/b/c"], ["b/a"]),
        ("A/b", ["a/b", "a/b/c"], ["b/a/b", "a/bc"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["a/b", "z", "a/z/b"]),
        ("**", ["a", "a/b"], []),
        ("**/b/**/d", ["b/d", "a/b/c/d", "b/b/d/d"], ["a/d"]),
        ("IMG_[0-9]?.jpg", ["IMG_12.jpg"], ["IMG_1.jpg", "IMG_x2.jpg"]),
        ("caf\u00e9/*", ["cafe\u0301/a", "caf\u00e9/a"], ["cafe/a"]),
        ("[", ["["], ["a"]),
    ],
)
def test_globs(pattern, yes, no):
    for path in yes:
        assert path_matches(PurePosixPath(path), pattern), path
    for path in no:
        assert not path_matches(PurePosixPath(path), pattern), path


def test_a_glob_with_many_stars_stays_fast():
    path = PurePosixPath("/".join(["a"] * 200))
    assert not path_matches(path, "/".join(["**", "a"] * 30) + "/b")


part = st.text(st.sampled_from("ab*?[]!.\udcff\n é~"), min_size=1, max_size=4) | st.sampled_from(
    ["ink", "soft", "**"]
)
paths = st.lists(part.filter(lambda name: name not in {".", ".."}), min_size=1, max_size=4).map(
    "/".join
)
rules = st.builds(
    Rule,
    preset=st.lists(st.sampled_from([*PRESETS, "gone"]), max_size=2).map(tuple),
    path=st.none() | paths,
    camera=st.none() | part,
    orientation=st.sampled_from([None, "portrait", "square"]),
    min_side=st.none() | st.integers(1, 9),
    max_side=st.none() | st.integers(1, 9),
)
photos = st.builds(PhotoFacts, st.integers(1, 9), st.integers(1, 9), camera=part)


@quick
@given(st.lists(rules, max_size=3), paths, photos, st.booleans())
def test_matching_never_raises_and_gives_known_presets(rules, path, facts, subfolders):
    where = folder(*rules, subfolders=subfolders)
    assert set(chosen(where, path, facts)) <= set(PRESETS)


@quick
@given(paths)
def test_a_path_without_wildcards_matches_itself_and_so_does_star_star(path):
    assert path_matches(PurePosixPath(path), "**")
    if not set(path) & set("*?["):
        assert path_matches(PurePosixPath(path), path)


def test_both_modules_start_fast_and_without_the_network_s_libraries(pace):
    program = (
        "import sys, time; start = time.process_time(); import stylewatch.settings.loading;"
        "print(time.process_time() - start, sorted({'tensorflow', 'keras', 'PIL', 'numpy'} & set(sys.modules)))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert all(run.split(maxsplit=1)[1].strip() == "[]" for run in runs)
    assert min(float(run.split()[0]) for run in runs) < 0.25 * pace


def test_only_a_folder_that_has_come_to_lie_in_another_is_in_trouble(home):
    config = load(home, "folders:\n  - {input: a, output: x}\n  - {input: b, output: y}\n")
    (home / "x" / "in").mkdir(parents=True)
    (home / "a").symlink_to("x/in")
    one, other = config.folders
    assert overlap(config, one) == "the input of 'a' lies inside the output of 'a'"
    assert overlap(config, other) == ""


def test_the_config_that_lies_here_comes_before_one_s_own(home, monkeypatch):
    monkeypatch.chdir(home)
    with pytest.raises(ConfigError, match="there is no config"):
        find_config(None)
    own = home / ".config/stylewatch/stylewatch.yaml"
    own.write_text(FOLDER)
    assert find_config(None) == own
    load(home, FOLDER)
    assert find_config(None).samefile(home / "stylewatch.yaml")


def test_a_tilde_is_the_home_folder_where_a_word_begins_with_it(home, monkeypatch):
    monkeypatch.chdir(home)
    load(home, FOLDER)
    assert find_config(Path("~/stylewatch.yaml")) == home / "stylewatch.yaml"
    assert find_config(Path("~")) == home / "stylewatch.yaml"  # as `init FOLDER` was told
    assert absolute("~/in") == home / "in"
    assert absolute("./~in") == home / "~in"


def test_watch_takes_a_name_that_only_looks_like_a_home_folder(home, monkeypatch):
    monkeypatch.chdir(home)
    (home / "~root").mkdir()
    served = []
    monkeypatch.setattr(watching, "_serve", lambda load: served.append(load().folders[0]))
    watching.watch("./~root", "~/out", preset=["ink"])
    assert (served[0].input, served[0].output) == (home / "~root", home / "out")


def test_a_working_folder_that_was_removed_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for use in (partial(absolute, "in"), partial(presets.find_preset, "mine.yaml")):
        with pytest.raises(ConfigError, match="the working folder was removed"):
            use()


def test_a_name_with_a_dollar_sign_is_no_variable(home):
    config = load(home, FOLDER.replace("in,", "$1.00,").replace("out,", "a/$HOME,"))
    assert (config.folders[0].input, config.folders[0].output) == (home / "$1.00", home / "a/$HOME")


def test_a_home_folder_that_is_not_there_is_told_with_its_place(tmp_path):
    file = tmp_path / "stylewatch.yaml"
    file.write_text("folders:\n  - input: in\n    output: ~nobody-of-that-name/out\n")
    with pytest.raises(ConfigError, match=r":3:5: folders\[0\].output: there is no home folder"):
        load_config(file)


MOUNTS = """\
1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 8:1 /srv/photos /srv/photos rw - ext4 /dev/sda1 rw
3 1 8:17 / /media/usb rw - exfat /dev/sdb1 rw
4 3 8:17 /out /media/usb/out rw - exfat /dev/sdb1 rw
5 1 8:1 /home/anna/out /srv/elsewhere rw - ext4 /dev/sda1 rw
6 1 8:33 / /media/写真\u3000\u2028夏 rw - exfat /dev/sdc1 rw
"""


@pytest.mark.parametrize(
    ("place", "mount"),
    [
        *(("/srv/photos/in", "/"), ("/srv", "/")),  # bound onto itself, as systemd does
        *(("/media/usb/out/2024", "/media/usb"), ("/media/usb", "/media/usb")),
        ("/srv/elsewhere/x", "/srv/elsewhere"),
        ("/media/写真\u3000\u2028夏/in", "/media/写真\u3000\u2028夏"),
    ],
)
def test_where_the_disk_of_a_place_is_mounted(place, mount, monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda *arguments, **more: MOUNTS)
    assert places.mount_of(Path(place)) == Path(mount)
