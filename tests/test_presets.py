"""Presets: what a YAML file may say, what it inherits, how errors read, when digests differ."""

import hashlib
import json
import os
from dataclasses import asdict, fields, replace
from pathlib import Path
from unittest.mock import patch

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stylewatch.domain import (
    BUILTIN_LAYERS,
    VGG19_LAYERS,
    EngineSettings,
    OutputSettings,
    Preset,
    StyleImage,
    StyleSettings,
)
from stylewatch.errors import PresetError, PresetImageError, UsageError
from stylewatch.settings.checking import validate
from stylewatch.settings.paths import user_presets_dir
from stylewatch.settings.presetfile import PresetFile, preset_schema
from stylewatch.settings.presets import (
    Presets,
    as_config_names,
    changed,
    digest,
    find_preset,
    shipped_presets_dir,
)
from stylewatch.settings.yamlfile import load_yaml

quick = settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example writes its own file
)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A presets folder with two pictures (only their bytes matter here)."""
    (tmp_path / "waves.png").write_bytes(b"picture of waves")
    (tmp_path / "night.png").write_bytes(b"picture of a night")
    return tmp_path


def check(file: Path) -> list:
    """All that is wrong with one preset's file."""
    try:
        presets, name = find_preset(str(file))
        presets.resolved(name)
    except PresetError as error:
        return [error, *error.others]
    return []


def alone(*folders: Path) -> Presets:
    """The presets in these folders, of which the last one is where the shipped ones lie."""
    with patch("stylewatch.settings.presets.shipped_presets_dir", lambda: folders[-1]):
        return Presets.load(folders[:-1])


def load(folder: Path, name: str = "mine", **files: str) -> Preset:
    for stem, text in files.items():
        (folder / f"{stem}.yaml").write_text(text)
    return alone(folder)[name]


# --- what a preset says ---------------------------------------------------------------------------


def test_flat_keys_become_settings(folder):
    preset = load(
        folder, mine="description: Big waves\nstyle: waves.png\nstrength: 30\ncolour: photo"
    )
    assert preset.name == "mine"
    assert preset.description == "Big waves"
    assert preset.settings == StyleSettings(strength=30.0, colour="photo")
    assert preset.style == (StyleImage(image=folder / "waves.png"),)


@pytest.mark.parametrize(
    "style",
    ["waves.png", "[waves.png]", "[{image: waves.png}]", "{image: waves.png, weight: 1}"],
)
def test_a_style_may_be_written_short_or_long(folder, style):
    assert load(folder, mine=f"style: {style}").style == (StyleImage(image=folder / "waves.png"),)


def test_names_and_mappings_mix_in_a_list_of_styles(folder):
    text = "style: [waves.png, {image: night.png, weight: 2, scale: 0.5, mask: waves.png}]"
    waves, night = folder / "waves.png", folder / "night.png"
    assert load(folder, mine=text).style == (
        StyleImage(image=waves),
        StyleImage(image=night, weight=2.0, scale=0.5, mask=waves),
    )


@pytest.mark.parametrize("text", ["90", "90s", "1.5min"])
def test_a_time_is_written_as_in_the_config(folder, text):
    assert load(folder, mine=f"time_budget: {text}").settings.time_budget == 90.0


def test_a_tilde_is_the_home_folder(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert load(folder, mine="style: ~/waves.png").style[0].image == folder / "waves.png"


def test_words_are_those_of_yaml_1_2(folder):
    """`no`, `1:30` and dates are text, `1e-3` is a number: nothing turns into a surprise."""
    words = {"no": "no", "on": "on", "1:30": "1:30", "2024-01-01": "2024-01-01", "017": 17}
    words |= {"1e-3": 0.001, "1_000": "1_000", "~": None, "true": True, "0x10": "0x10", ".5": 0.5}
    (folder / "a.yaml").write_text("\n".join(f"- {word}" for word in words).join(["a:\n", ""]))
    assert load_yaml(folder / "a.yaml").data == {"a": list(words.values())}


def test_every_key_has_its_place(folder):
    file = folder / "a.yaml"
    file.write_text("a: 1\nb:\n  - x\n  - {c: 2,\n     d: 3}\n")
    assert load_yaml(file).marks == {
        (): (1, 1),
        ("a",): (1, 1),
        ("b",): (2, 1),
        ("b", 0): (3, 5),
        ("b", 1): (4, 5),
        ("b", 1, "c"): (4, 6),
        ("b", 1, "d"): (5, 6),
    }


# --- inheritance ----------------------------------------------------------------------------------


def test_a_preset_fills_in_from_its_base_and_that_one_from_its_own(folder):
    preset = load(
        folder,
        mine="base: middle\nstrength: 3",
        middle="description: Middle\nbase: bottom\nstrength: 2\nseed: 2",
        bottom="style: waves.png\nstrength: 1\nseed: 1\nhistory: 5\noutput: {format: png}",
    )
    assert preset.settings == StyleSettings(strength=3.0, seed=2, history=5)
    assert preset.output == OutputSettings(format="png")
    assert preset.style == (StyleImage(image=folder / "waves.png"),)
    assert preset.description == ""


def test_painting_is_the_base_of_presets_that_name_none(folder):
    assert load(folder, mine="seed: 1", painting="strength: 7").settings.strength == 7.0


def test_a_mapping_replaces_the_base_s_mapping(folder):
    preset = load(
        folder, mine="style_layers: {block1_conv2: 1}", painting="style_layers: {block5_conv1: 1}"
    )
    assert preset.settings.style_layers == {"block1_conv2": 1.0}


def test_a_style_path_is_relative_to_the_file_that_says_it(folder):
    (folder / "own").mkdir()
    (folder / "painting.yaml").write_text("style: waves.png")
    (folder / "own" / "mine.yaml").write_text("strength: 1")
    presets = alone(folder / "own", folder)
    assert presets["mine"].style[0].image == folder / "waves.png"


def test_an_image_to_start_from_counts_by_its_content_and_lies_beside_its_preset(folder):
    (folder / "copy.png").write_bytes((folder / "waves.png").read_bytes())
    inits = ("waves.png", "copy.png", "night.png", "content", "noise")
    presets = [load(folder, mine=f"init: {init}") for init in inits]
    assert presets[0].settings.init == folder / "waves.png"
    assert presets[3].settings.init == "content"
    assert presets[0].digest == presets[1].digest
    assert len({preset.digest for preset in presets}) == 4
    assert load(folder, mine="base: other", other="init: waves.png").settings.init.is_absolute()


def test_a_base_s_missing_picture_does_not_matter_where_it_is_replaced(folder):
    assert load(folder, mine="style: waves.png", painting="style: gone.png").style


def test_one_s_own_preset_hides_the_shipped_one_and_may_build_on_it(folder):
    own, shipped = folder / "own", folder / "shipped"
    for place, text in ((own, "base: soft\nseed: 2"), (shipped, "strength: 4\nseed: 1")):
        place.mkdir()
        (place / "soft.yaml").write_text(text)
    presets = alone(own, shipped)
    assert presets.origin("soft") == own / "soft.yaml"
    assert presets["soft"].settings == StyleSettings(strength=4.0, seed=2)


def test_the_same_folder_twice_is_one_folder(folder):
    (folder / "link").symlink_to(folder)
    (folder / "painting.yaml").write_text("base: painting")
    with pytest.raises(PresetError, match="circle: painting -> painting"):
        _ = alone(folder, folder / "link")["painting"]


def test_a_folder_that_does_not_exist_holds_no_presets(folder):
    assert list(alone(folder / "none")) == []


@pytest.mark.parametrize("name", ["نقاشی\u200cها", "👩\u200d🎨", "Öl auf Holz"])
def test_a_preset_s_name_may_be_of_any_letters(folder, name):
    (folder / f"{name}.yaml").write_text("strength: 4")
    assert Presets.load([folder])[name].name == name


def test_hidden_and_other_files_are_no_presets(folder):
    for name in (".a.yaml", "b.yaml~", "c.txt", "d.yaml", "e.yml"):
        (folder / name).write_text("seed: 1")
    assert list(alone(folder)) == ["d", "e"]


def test_explain_tells_where_each_value_comes_from(folder):
    load(folder, mine="seed: 2", painting="description: P\nstyle: waves.png\nstrength: 1\nseed: 1")
    told = {row.key: row for row in alone(folder).explain("mine")}
    assert told["seed"][1:] == (2, "mine", folder / "mine.yaml")
    assert told["strength"][1:] == (1.0, "painting", folder / "painting.yaml")
    assert told["style"].preset == "painting"
    assert told["history"][1:] == (10, "", None)
    assert told["description"][1:] == ("", "", None)
    keys = {field.name for field in fields(PresetFile)} - {"base", "output"}
    assert set(told) == keys | {"output.format", "output.quality", "output.keep_gps"}


def test_each_key_of_output_is_inherited_by_itself(folder):
    """A preset that asks for less quality does not publish again where its photos were taken."""
    preset = load(
        folder,
        mine="base: middle\noutput: {quality: 80}",
        middle="base: bottom\noutput: {}",
        bottom="output: {format: png, keep_gps: false}",
    )
    assert preset.output == OutputSettings(format="png", quality=80, keep_gps=False)
    told = {row.key: row for row in alone(folder).explain("mine")}
    assert told["output.quality"][1:] == (80, "mine", folder / "mine.yaml")
    assert told["output.keep_gps"][1:] == (False, "bottom", folder / "bottom.yaml")
    assert load(folder, mine="output: {quality: 80}").output == OutputSettings(quality=80)


def test_a_preset_file_edited_while_the_presets_are_loaded_is_seen_by_the_next_load(folder):
    assert load(folder, mine="seed: 1").settings.seed == 1
    assert load(folder, mine="seed: 2").settings.seed == 2


@pytest.mark.parametrize("name", ["mine", "on_it"])
def test_of_two_presets_of_one_name_in_a_folder_none_is_taken(folder, name):
    (folder / "on_it.yaml").write_text("base: mine")
    for ending in ("yaml", "yml"):
        (folder / f"mine.{ending}").write_text("style: waves.png")
    line = r"mine\.yaml: two presets are called 'mine': received .*mine\.yml\. Rename one"
    with pytest.raises(PresetError, match=line):
        alone(folder)[name]
    assert alone(folder).sorted_out()[1].keys() == {"mine", "on_it"}
    assert Presets.around(folder / "mine.yml")["mine"].style  # that one is meant


def test_an_image_that_goes_away_once_it_was_read_harms_nothing(folder):
    (folder / "mine.yaml").write_text("style: [waves.png, night.png]")
    preset = alone(folder)["mine"]
    assert alone(folder).resolved("mine", look=Path.unlink) == preset


def test_an_image_that_goes_away_while_a_preset_is_resolved_costs_only_that_preset(folder):
    (folder / "mine.yaml").write_text("style: waves.png")
    (folder / "other.yaml").write_text("style: night.png")

    class Engine(EngineSettings):
        def features_for(self, settings):
            (folder / "waves.png").unlink(missing_ok=True)
            return "builtin"

    sound, broken = alone(folder).sorted_out(Engine())
    assert [(name, one.settings.features) for name, one in sound.items()] == [("other", "builtin")]
    assert [(name, one.reason) for name, one in broken.items()] == [("mine", "style-image")]


# --- by the path of a file ------------------------------------------------------------------------


@pytest.fixture
def elsewhere(folder, monkeypatch) -> Path:
    """Two presets, one built on the other, in a folder that nobody knows."""
    monkeypatch.chdir(folder)
    place = folder / "pre"
    place.mkdir()
    (place / "mine.yaml").write_text("base: soft\nseed: 2")
    (place / "soft.yaml").write_text("style: ../waves.png\nstrength: 3")
    return place


@pytest.mark.parametrize("path", ["pre/mine.yaml", "./pre/mine.yaml", "{pre}/mine.yaml"])
def test_a_preset_that_is_named_by_its_file_finds_its_base_beside_it(elsewhere, path):
    presets, name = find_preset(path.replace("{pre}", str(elsewhere)))
    assert (presets[name].settings.seed, presets[name].settings.strength) == (2, 3.0)
    assert check(elsewhere / "mine.yaml") == []


def test_a_file_that_is_named_comes_before_others_of_its_name(elsewhere):
    (elsewhere / "mine.yml").write_text("base: soft\nseed: 3")
    presets, name = find_preset("pre/mine.yml")
    assert presets[name].settings.seed == 3
    with pytest.raises(UsageError, match="two presets are called 'mine'"):
        as_config_names(["pre/mine.yml"])


def test_presets_named_by_path_become_names_and_folders(elsewhere):
    assert as_config_names(["ink", "pre/mine.yaml"]) == (["ink", "mine"], [elsewhere])
    assert as_config_names(["ink"]) == (["ink"], [])
    with pytest.raises(PresetError, match="No such file"):
        as_config_names(["pre/none.yaml"])


def test_one_name_for_two_presets_is_refused(elsewhere):
    (elsewhere / "ink.yaml").write_text("base: soft")
    for names in (["ink", "pre/mine.yaml"], ["pre/soft.yaml", "other/soft.yaml"]):
        (elsewhere.parent / "other").mkdir(exist_ok=True)
        (elsewhere.parent / "other/soft.yaml").write_text("style: ../waves.png")
        with pytest.raises(UsageError, match="two presets are called"):
            as_config_names(names)


@pytest.mark.parametrize("name", [".mine", "two\nlines", os.fsdecode(b"caf\xe9")])
def test_a_file_that_a_folder_of_presets_would_hide_is_no_config_s_preset(elsewhere, name):
    file = elsewhere / f"{name}.yaml"
    (elsewhere / "mine.yaml").rename(file)
    with pytest.raises(UsageError, match="no preset of a folder is called") as caught:
        as_config_names([str(file)])
    assert caught.value.remedy == "Rename its file"


# --- other values, from a command line ------------------------------------------------------------


def test_a_change_is_checked_as_a_file_is_and_counts(folder, monkeypatch):
    monkeypatch.chdir(folder)
    preset = load(folder, mine="style: waves.png\noutput: {keep_gps: false}")
    said = {"strength": 3, "output": {"quality": 80}, "init": "night.png"}
    new = changed(preset, said)
    assert new.settings == replace(preset.settings, strength=3.0, init=folder / "night.png")
    assert new.output == OutputSettings(quality=80, keep_gps=False)
    assert new.digest not in {"", preset.digest}
    assert changed(preset, {}) == preset


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"init": "gone.png"}, "init: the image to start from can't be used: No such file"),
        ({"style_layers": {"block1_conv1": -1}}, "block1_conv1: out of range: expected at least 0"),
        ({"content_layers": {}}, "content_layers: out of range: expected at least 1 layer"),
        ({"effect": "nonsense"}, "effect: unknown effect 'nonsense'"),
        ({"init": "a\0.png"}, "init: the text has a control character"),
        ({"init": os.fsdecode(b"caf\xe9.png")}, "init: the text is not UTF-8"),
        ({"style_layers": {"\ud800": 1}}, ": the text is not UTF-8"),
        ({"strength": json.loads("[" * 90 + "]" * 90)}, "strength: nested too deeply"),
    ],
)
def test_a_change_that_a_file_could_not_say_is_refused(folder, monkeypatch, said, line):
    monkeypatch.chdir(folder)
    with pytest.raises(PresetError) as caught:
        changed(load(folder, mine="style: waves.png"), said)
    assert line in str(caught.value)
    assert "preset's file" not in str(caught.value)


# --- errors ---------------------------------------------------------------------------------------

SYNTAX = 'Indent alike what belongs together; text with : # * & @ or \' in it needs "quotes"'
KNOWN = ", ".join(sorted(field.name for field in fields(PresetFile)))
BROKEN = {
    "typo": ("seed: 1\nstregth: 3", "2:1: stregth: unknown key. Did you mean 'strength'?"),
    "no such key": ("zzz: 3", f"1:1: zzz: unknown key. Known: {KNOWN}"),
    "wrong type": ("strength: bold", "1:1: strength: wrong type: expected a number, received 'bold'"),
    "a comma in a number": (
        "strength: 3,5",
        "1:1: strength: wrong type: expected a number, received '3,5'. Write it as 3.5",
    ),
    "a number in quotes": (
        "seed: '3'",
        "1:1: seed: wrong type: expected a whole number, received '3'. Write it as 3",
    ),
    "yes is no number": ("strength: true", "1:1: strength: wrong type: expected a number, received true"),
    "nothing": ("strength:", "1:1: strength: wrong type: expected a number, received nothing"),
    "not a list": ("evaluations: 80", "1:1: evaluations: wrong type: expected a list (- value), received 80"),
    "empty list": (
        "evaluations: []",
        "1:1: evaluations: out of range: expected at least 1 in the list, received an empty list",
    ),
    "zero in a list": (
        "evaluations: [80, 0]",
        "1:19: evaluations[1]: out of range: expected more than 0, received 0",
    ),
    "fraction": ("seed: 1.5", "1:1: seed: wrong type: expected a whole number, received 1.5"),
    "negative": ("strength: -1", "1:1: strength: out of range: expected at least 0, received -1"),
    "too much": ("history: 1000", "1:1: history: out of range: expected at most 100, received 1000"),
    "either": (
        "max_side: 8",
        "1:1: max_side: out of range: expected at least 16 or 'photo', received 8",
    ),
    "not a choice": (
        "output:\n  format: jpg",
        ("2:3: output.format: wrong value: expected 'same', 'jpeg', 'png', 'webp', 'tiff' or 'heic', "
        "received 'jpg'. Did you mean 'jpeg'?"),
    ),
    "no time": (
        "time_budget: 5 minutes",
        ("1:1: time_budget: wrong value: expected seconds, or a duration such as 90s, 10min, 2h or 7d, "
        "received '5 minutes'"),
    ),
    "not a choice, in capitals": (
        "optimizer: LBFGS",
        ("1:1: optimizer: wrong value: expected 'lbfgs', 'lbfgs-scipy' or 'adam', received 'LBFGS'. "
        "Did you mean 'lbfgs'?"),
    ),
    "yes or no": (
        "output: {keep_gps: no}",
        "1:10: output.keep_gps: wrong type: expected true or false, received 'no'",
    ),
    "infinite": ("strength: 1e999", "1:11: strength: '1e999' is not a finite number"),
    "unknown base": ("base: strary", "1:1: base: unknown preset 'strary'. Did you mean 'starry'?"),
    "own base": (
        "base: mine",
        ("1:1: base: the presets build on each other in a circle: mine -> mine. "
        "Let one of them have another base"),
    ),
    "layer": (
        "style_layers: {block1_cov1: 1}",
        "1:16: style_layers.block1_cov1: not a layer of VGG19. Did you mean 'block1_conv1'?",
    ),
    "layer that VGG16 lacks too": (
        "content_layers: {block1_conv3: 1}",
        "1:18: content_layers.block1_conv3: not a layer of VGG19. Did you mean 'block5_conv3'?",
    ),
    "layer weight": (
        "style_layers: {block1_conv1: -1}",
        "1:16: style_layers.block1_conv1: out of range: expected at least 0, received -1",
    ),
    "layer that the built-in features lack": (
        "features: builtin\nstyle_layers: {block5_conv3: 1}",
        ("2:16: style_layers.block5_conv3: 'mine' is painted with the built-in features, which lack "
        "this layer: expected layers up to block5_conv2. Choose another, or `features: vgg19`"),
    ),
    "no layer": ("style_layers: {}", "1:1: style_layers: out of range: expected at least 1 layer"),
    "effect": (
        "effect: style-tranfer",
        "1:1: effect: unknown effect 'style-tranfer'. Did you mean 'style-transfer'?",
    ),
    "missing image": (
        "seed: 1\nstyle: gone.png",
        ("2:1: style: the style image can't be used: No such file or directory: "
        "received '{folder}/gone.png'. A path is relative to the folder of the preset's file"),
    ),
    "images that are no list": (
        "style: waves.png, gone.png",
        ("1:1: style: the style image can't be used: No such file or directory: "
        "received '{folder}/waves.png, gone.png'. A path is relative to the folder of the preset's "
        "file; several are a list: [a.jpg, b.jpg]"),
    ),
    "missing image in a list": (
        "style:\n  - waves.png\n  - gone.png",
        ("3:5: style[1]: the style image can't be used: No such file or directory: "
        "received '{folder}/gone.png'. A path is relative to the folder of the preset's file"),
    ),
    "missing mask": (
        "style:\n  - image: waves.png\n    mask: gone.png",
        ("3:5: style[0].mask: the mask can't be used: No such file or directory: "
        "received '{folder}/gone.png'. A path is relative to the folder of the preset's file"),
    ),
    "missing image to start from": (
        "seed: 1\ninit: nosie",
        ("2:1: init: the image to start from can't be used: No such file or directory: "
        "received '{folder}/nosie'. A path is relative to the folder of the preset's file; "
        "without an image: content or noise"),
    ),
    "a folder for an image": (
        "style: ''",
        ("1:1: style: the style image can't be used: not a regular file: "
        "received '{folder}'. A path is relative to the folder of the preset's file"),
    ),
    "style of a wrong type": (
        "style: 3",
        ("1:1: style: wrong type: expected a file name, {image, weight, scale, mask}, or a list of "
        "them, received 3"),
    ),
    "style with a typo": (
        "style: [{image: waves.png, weigth: 1}]",
        "1:28: style[0].weigth: unknown key. Did you mean 'weight'?",
    ),
    "style by itself with a typo": (
        "style: {image: waves.png, weigth: 1}",
        "1:1: style[0].weigth: unknown key. Did you mean 'weight'?",
    ),
    "style without an image": ("style: [{weight: 1}]", "1:9: style[0].image: missing key"),
    "duplicate key": (
        "strength: 1\nseed: 2\nstrength: 3",
        "3:1: strength: the key is there twice, first in line 1. Keep one of them",
    ),
    "tab": (
        "output:\n\tquality: 3",
        "2:1: there is a tab where YAML needs spaces. Indent with spaces",
    ),
    "not a mapping": (
        "- a\n- b",
        "1:1: wrong type: expected a mapping (key: value), received a list",
    ),
    "syntax": ("a: b: c", f"1:5: not valid YAML: mapping values are not allowed here. {SYNTAX}"),
    "no-break space": (
        "seed: 1\nstrength:\xa03\nseed: 2",
        ("3:1: not valid YAML: while scanning a simple key from line 2 could not find expected ':'. "
        "Line 2 has a no-break space: type a plain one"),
    ),
    "a no-break space on the first line": (
        "strength:\xa03\n\nseed: 2",
        ("3:5: not valid YAML: mapping values are not allowed here. "
        "Line 1 has a no-break space: type a plain one"),
    ),
    "a no-break space that does no harm": (
        "description: Chouette\xa0!\nseed: 1\nstrength 2\n",
        ("4:1: not valid YAML: while scanning a simple key from line 3 could not find expected ':'. "
        f"{SYNTAX}"),
    ),
    "two documents": (
        "seed: 1\n---\nseed: 2",
        ("2:1: not valid YAML: expected a single document in the stream from line 1 but found another "
        "document. Keep one of them, without the line ---"),
    ),
    "a star": (
        "style: *raw",
        f"1:8: not valid YAML: found undefined alias 'raw'. {SYNTAX}",
    ),
    "no colon": (
        "seed: 1\nstrength 2\n",
        ("3:1: not valid YAML: while scanning a simple key from line 2 could not find expected ':'. "
        f"{SYNTAX}"),
    ),
    "no closing quote": (
        "seed: 1\nstyle: 'a.jpg\nstrength: 2",
        ("3:12: not valid YAML: while scanning a quoted scalar from line 2 found unexpected end of "
        f"stream. {SYNTAX}"),
    ),
    "python object": (
        "seed: !!python/name:os.system ''",
        "1:7: seed: the tag 'tag:yaml.org,2002:python/name:os.system' has no meaning here",
    ),
    "endless": (
        "a: &a [*a]",
        "1:1: too many values, or nested too deeply. Use fewer aliases (`*name`)",
    ),
    "bomb": (
        "a: &a [0,0,0,0,0,0,0,0,0]\n"
        + "".join(f"{y}: &{y} [*{x},*{x},*{x},*{x},*{x},*{x},*{x},*{x},*{x}]\n" for x, y in zip("abcde", "bcdef", strict=True)),
        "1:1: too many values, or nested too deeply. Use fewer aliases (`*name`)",
    ),
    "control character": ('style: "\\0"', "1:8: style: the text has a control character"),
    "several": (
        "strength: -1\nseed: -1\nfoo: 1",
        "1:1: strength: out of range: expected at least 0, received -1 (and 2 more)",
    ),
}  # fmt: skip
NO_YAML = {
    "empty": (b"", "the file is empty: expected a mapping (key: value)"),
    "only remarks": (b"# nothing\n", "the file is empty: expected a mapping (key: value)"),
    "binary": (bytes(range(256)), "2:118: not UTF-8. Save it as UTF-8 text"),
    "a picture": (b"\x89PNG\r\n\x1a\n", "1:1: not UTF-8. Save it as UTF-8 text"),
    "zero bytes": (
        b"a: \0\0",
        "not a text file: expected YAML in UTF-8, received the character '\\x00'",
    ),
    "Latin-1": ("a: 1\ncafé: 1".encode("latin-1"), "2:4: not UTF-8. Save it as UTF-8 text"),
    "UTF-16": ("seed: 1".encode("utf-16"), "1:1: not UTF-8. Save it as UTF-8 text"),
    "too large": (b"#" * 300_000, "too large: expected at most 262144 bytes"),
    "too deep": (b"a: " + b"[" * 500, "nested too deeply"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_an_error_is_one_line_with_place_and_remedy(folder, name):
    text, line = BROKEN[name]
    (folder / "starry.yaml").write_text("seed: 1")
    with pytest.raises(PresetError) as caught:
        load(folder, mine=text)
    place = f"{folder}/mine.yaml:"
    assert str(caught.value) == place + line.replace("{folder}", str(folder))


@pytest.mark.parametrize("name", NO_YAML)
def test_a_file_that_is_no_yaml_is_one_line_too(folder, name):
    content, line = NO_YAML[name]
    (folder / "mine.yaml").write_bytes(content)
    with pytest.raises(PresetError) as caught:
        load(folder)
    place = f"{folder}/mine.yaml:"
    assert str(caught.value) == place + (line if line[0].isdigit() else f" {line}")


def test_an_unknown_name_is_answered_with_the_nearest(folder):
    with pytest.raises(PresetError) as caught:
        load(folder, "stary", starry="seed: 1", ink="seed: 1")
    assert str(caught.value) == "unknown preset 'stary'. Did you mean 'starry'?"
    with pytest.raises(PresetError) as caught:
        load(folder, "zzz")
    told = f"Known: ink, starry; your own go into {user_presets_dir()}"
    assert str(caught.value) == f"unknown preset 'zzz'. {told}"


def test_bases_that_form_a_circle_are_refused(folder):
    with pytest.raises(PresetError) as caught:
        load(folder, "a", a="base: b", b="seed: 1\nbase: c", c="base: a")
    assert str(caught.value) == (
        f"{folder}/c.yaml:1:1: base: the presets build on each other in a circle: a -> b -> c -> a. "
        "Let one of them have another base"
    )


def test_a_preset_that_is_a_folder_or_a_pipe_does_not_hang(folder):
    (folder / "a.yaml").mkdir()
    os.mkfifo(folder / "b.yaml")
    for name, why in {"a": "a folder, not a file", "b": "not a regular file"}.items():
        with pytest.raises(PresetError, match=why):
            load(folder, name)


def test_a_style_image_that_is_a_pipe_does_not_hang(folder):
    os.mkfifo(folder / "pipe.png")
    with pytest.raises(PresetError, match="not a regular file"):
        load(folder, mine="style: pipe.png")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("style", "style: film.mkv"),
        ("style[0].mask", "style: [{image: waves.png, mask: film.mkv}]"),
        ("init", "init: film.mkv"),
    ],
)
def test_an_image_of_any_size_is_not_read_to_find_that_it_is_none(folder, key, text):
    (folder / "film.mkv").touch()
    os.truncate(folder / "film.mkv", 1 << 40)
    with pytest.raises(PresetError) as raised:
        load(folder, mine=text)
    error = raised.value
    assert (error.key, error.line, error.reason) == (key, 1, PresetImageError.reason)
    assert "can't be used: the file is too large: expected an image of at most 1 GB" in str(error)
    assert f"received '{folder}/film.mkv'" in str(error)


def test_check_lists_every_error_of_a_file(folder):
    file = folder / "mine.yaml"
    file.write_text("strength: -1\nseed: -1\nfoo: 1")
    assert [(error.line, error.key) for error in check(file)] == [
        (1, "strength"),
        (2, "seed"),
        (3, "foo"),
    ]
    file.write_text("style: [gone.png, waves.png, lost.png]")
    assert [error.column for error in check(file)] == [9, 30]
    file.write_text("style: waves.png")
    assert check(file) == []
    assert "No such file" in str(*check(folder / "none.yaml"))


def test_an_error_in_a_base_names_the_base_s_file(folder):
    with pytest.raises(PresetError, match=r"painting\.yaml:1:1: sed: unknown key"):
        load(folder, mine="seed: 1", painting="sed: 1")


def test_a_base_s_missing_picture_is_told_with_the_base_s_file(folder):
    with pytest.raises(PresetError, match=r"middle\.yaml:2:1: style: the style image can't"):
        load(folder, mine="base: middle\nseed: 1", middle="seed: 2\nstyle: none.jpg")


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
plain = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from([f.name for f in fields(PresetFile)]) | st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
anything = (
    st.binary(max_size=60)
    | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.text(alphabet="ab01 :-[]{},'\"\n\t#&*!|>%@`?\\~<=.e+", max_size=30).map(str.encode)
    | plain.map(lambda data: yaml.safe_dump(data).encode())
)


@quick
@given(content=anything)
@example(content=b'a: "\\UFFFFFFFF"')
@example(content=b"%YAML 9.9\n---\na: 1")
@example(content=b"a: !!int x")
@example(content=b"a: !!float .inf")
@example(content=b"a: *b")
@example(content=b'"\\uD800": 1')
@example(content=b"strength: !!map [1]")
@example(content=b"- " * 5000)
def test_whatever_a_file_holds_is_a_preset_or_one_line(tmp_path, content):
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    for error in check(file):
        assert isinstance(error, PresetError)
        assert len(str(error).splitlines()) == 1


printable = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Z"]), min_size=1)
values = st.none() | st.booleans() | st.integers(-(10**17), 10**17) | printable | st.floats(
    allow_nan=False, allow_infinity=False
)  # fmt: skip
keys = printable.filter(lambda key: key.isprintable() and key != "<<")  # merge keys are refused


@quick
@given(data=st.dictionaries(keys, values, min_size=1))
def test_reading_gives_what_was_written_each_key_with_its_line(tmp_path, data):
    lines = [
        f"{json.dumps(key, ensure_ascii=False)}: {json.dumps(value, ensure_ascii=False)}"
        for key, value in data.items()
    ]
    (tmp_path / "a.yaml").write_text("\n".join(lines))
    read = load_yaml(tmp_path / "a.yaml")
    assert read.data == data
    assert [read.marks[key,] for key in data] == [(1 + n, 1) for n in range(len(data))]


# --- the digest -----------------------------------------------------------------------------------

names = st.sampled_from(BUILTIN_LAYERS)
weights = st.floats(0, 10, allow_subnormal=False).map(abs)
CHOICES = {
    "objective": st.sampled_from(["balanced", "classic", "classic-scaled"]),
    "strength": weights,
    "content_weight": weights,
    "tv_weight": weights,
    "subject": st.floats(0, 1, allow_subnormal=False).map(abs),
    "content_layers": st.dictionaries(names, weights, min_size=1, max_size=3),
    "style_layers": st.dictionaries(names, weights, min_size=1, max_size=3),
    "pooling": st.sampled_from(["max", "average"]),
    "max_side": st.integers(16, 9999) | st.just("photo"),
    "coarsest_side": st.integers(16, 999),
    "evaluations": st.lists(st.integers(1, 500), min_size=1, max_size=3).map(tuple),
    "optimizer": st.sampled_from(["lbfgs", "lbfgs-scipy", "adam"]),
    "history": st.integers(1, 100),
    "tolerance": weights,
    "precision": st.sampled_from(["auto", "float32", "bfloat16"]),
    "init": st.sampled_from(["content", "noise"]),
    "style_fit": st.sampled_from(["aspect", "stretch"]),
    "colour": st.sampled_from(["style", "photo", "match"]),
    "features": st.sampled_from(["auto", "vgg19", "builtin"]),
    "seed": st.integers(0, 2**31),
    "time_budget": st.none() | st.floats(0.1, 1000),
    "description": st.text("abc ", max_size=5),
    "output": st.fixed_dictionaries(
        {},
        optional={
            "format": st.sampled_from(["same", "png"]),
            "quality": st.integers(1, 100),
            "keep_gps": st.booleans(),
        },
    ),
}
some = st.fixed_dictionaries({}, optional=CHOICES)


def test_the_choices_below_cover_every_setting():
    assert set(CHOICES) >= {field.name for field in fields(StyleSettings)}


@quick
@given(one=some, other=some)
def test_the_digest_differs_exactly_when_something_that_matters_differs(tmp_path, one, other):
    """However it was written: inherited, spelled out, a default left out or named."""
    yamls = [json.dumps(each) for each in (one, other)]
    first, second = (
        load(tmp_path, name, **{name: text}) for name, text in zip("ab", yamls, strict=True)
    )
    differ = (first.settings, first.output) != (second.settings, second.output)
    assert (first.digest != second.digest) == differ
    inherited = load(tmp_path, "c", c="base: a\ndescription: another")
    assert inherited.digest == first.digest


@quick
@given(said=some)
def test_a_resolved_preset_written_out_and_read_again_is_the_same(tmp_path, said):
    first = load(tmp_path, mine=json.dumps(said))
    spelled = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in asdict(first.settings).items()
    }
    text = yaml.safe_dump(
        spelled | {"output": asdict(first.output), "description": first.description}
    )
    assert load(tmp_path, mine=text) == first


def test_a_style_image_counts_by_its_content(folder):
    (folder / "copy.png").write_bytes((folder / "waves.png").read_bytes())
    digests = [
        load(folder, mine=f"style: {style}").digest
        for style in ("waves.png", "copy.png", "night.png", "[waves.png, night.png]")
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


@pytest.mark.parametrize("more", ["weight: 2", "scale: 2", "mask: night.png"])
def test_what_is_said_of_a_style_image_counts(folder, more):
    plain_one = load(folder, mine="style: [{image: waves.png}]").digest
    assert load(folder, mine=f"style: [{{image: waves.png, {more}}}]").digest != plain_one


def test_an_image_that_is_painted_over_gives_another_digest(folder):
    before = load(folder, mine="style: waves.png").digest
    (folder / "waves.png").write_bytes(b"other  of  waves")
    assert load(folder, mine="style: waves.png").digest != before


def test_an_image_is_hashed_once_as_long_as_it_stays_the_same(folder):
    """Same identity, same hash, without a look at the bytes."""
    import stylewatch.settings.presets as module

    load(folder, mine="style: waves.png")
    before = module._hash_of.cache_info().misses
    load(folder, mine="style: waves.png\nseed: 3")
    assert module._hash_of.cache_info().misses == before


def digest_of(preset: Preset) -> str:
    images = {style.image for style in preset.style}
    return digest(preset, {each: hashlib.sha256(each.read_bytes()).hexdigest() for each in images})


def test_name_and_description_do_not_count(folder):
    preset = load(folder, mine="style: waves.png")
    assert digest_of(replace(preset, name="x", description="y")) == preset.digest
    assert digest_of(replace(preset, effect="y")) != preset.digest


@pytest.mark.parametrize("part", ["settings", "output"])
def test_every_setting_counts(folder, part):
    preset = load(folder, mine="style: waves.png")
    said = getattr(preset, part)
    for each in fields(said):
        other = replace(preset, **{part: replace(said, **{each.name: "another"})})
        assert digest_of(other) != preset.digest, each.name


# --- the schema, the folders, the shipped presets -------------------------------------------------


def test_the_schema_describes_every_key():
    schema = preset_schema()
    assert set(schema["properties"]) == {field.name for field in fields(PresetFile)}
    for shape in (schema, *schema["$defs"].values()):
        assert shape["additionalProperties"] is False
        for name, described in shape["properties"].items():
            assert described.get("description") or "$ref" in described, name
    assert schema["properties"]["strength"]["minimum"] == 0
    seconds = schema["properties"]["time_budget"]["anyOf"][0]["anyOf"][0]
    assert seconds == {"type": "number", "exclusiveMinimum": 0, "maximum": 31_536_000}
    assert {"type": "string"} in schema["properties"]["style"]["anyOf"]
    for key in ("content_layers", "style_layers"):
        layers = schema["properties"][key]
        assert (layers["minProperties"], layers["additionalProperties"]["minimum"]) == (1, 0)
        assert set(layers["propertyNames"]["enum"]) == set(VGG19_LAYERS)
    json.dumps(schema)


def test_one_s_own_presets_lie_in_the_config_home(monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", "/c")
    assert user_presets_dir() == Path("/c/stylewatch/presets")
    monkeypatch.setenv("HOME", "/h")
    for other in ("", "c"):
        monkeypatch.setenv("XDG_CONFIG_HOME", other)
        assert user_presets_dir() == Path("/h/.config/stylewatch/presets")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert user_presets_dir() == Path("/h/.config/stylewatch/presets")


def test_validate_gives_plain_dicts_and_tuples(folder):
    """Settings travel to another process."""
    import pickle

    preset = load(
        folder, mine="style: waves.png\nstyle_layers: {block1_conv1: 1}\nevaluations: [1, 2]"
    )
    assert pickle.loads(pickle.dumps(preset)) == preset
    assert type(preset.settings.style_layers) is dict
    assert preset.settings.evaluations == (1, 2)
    file = folder / "mine.yaml"
    assert validate(PresetFile, replace(load_yaml(file), data={"seed": 1})).seed == 1


def test_every_shipped_preset_loads():
    files = sorted(shipped_presets_dir().glob("*.y*ml"))
    presets = Presets.load()
    assert {file.stem for file in files} == set(presets)
    assert {"painting", "classic", "draft"} <= set(presets)
    for file in files:
        assert check(file) == [], file
        preset = presets[file.stem]
        assert preset.description, f"{file} has no description"
        assert len(preset.digest) == 64
        for style in preset.style:
            assert style.image.is_relative_to(shipped_presets_dir()), "the wheel would lack it"


def test_the_settings_own_values_are_painting_s():
    """A strength means the same where no preset says what it is the strength of.

    And editors are told them as the defaults.
    """
    assert Presets.load()["painting"].settings == StyleSettings()


@pytest.mark.parametrize("name", ["stylewatch.yaml", "photos.yaml"])
def test_a_config_beside_presets_is_none_of_them(tmp_path, name):
    """`presets: [.]` is read as one writes it, without a complaint about the config itself."""
    (tmp_path / name).write_text("presets: [.]\nfolders: [{input: in, output: out}]\n")
    (tmp_path / "mine.yaml").write_text("base: ink\n")
    assert list(alone(tmp_path)) == ["mine"]


def test_a_home_folder_that_is_not_there_is_told_with_its_place_and_harms_no_other(tmp_path):
    (tmp_path / "lost.yaml").write_text("description: x\nstyle: ~nobody-of-that-name/p.jpg\n")
    sound, broken = Presets.load([tmp_path]).sorted_out()
    assert "ink" in sound
    assert str(broken["lost"]).startswith(f"{tmp_path}/lost.yaml:2:1: style: there is no home")
