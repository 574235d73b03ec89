"""The command line: what is asked, what is answered where, and every exit code."""

import dataclasses
import errno
import fcntl
import io
import json
import os
import pty
import pwd
import re
import resource
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import termios
import time
import weakref
from concurrent.futures import Future
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rig import effect_package, rendered
from test_control import Daemon as Answering
from typer.testing import CliRunner
from waiting import wait_until

from stylewatch import cli
from stylewatch.app import overview
from stylewatch.app.doctor import Finding
from stylewatch.app.order import parse_settings
from stylewatch.app.remote import Client
from stylewatch.app.unit import shipped_unit
from stylewatch.commands import steering, watching
from stylewatch.domain import Failure, FailureKind, Hours, Identity, Photo
from stylewatch.errors import DeviceError, ExitCode, InputError, WeightsError
from stylewatch.faces.control import ControlServer
from stylewatch.settings.loading import load_config
from stylewatch.settings.presets import shipped_presets_dir
from stylewatch.settings.weights import keras_weights
from stylewatch.state.ledger import Ledger, Planned
from tests.faults.lab import bomb

HERE = Path(__file__).parent
PATHS = {"PYTHONPATH": str(HERE.parent)}
NASTY = os.fsdecode(b"a\x1b[31m\xff.jpg")


def a_picture(file, size=(40, 30), colour=(200, 120, 40)):
    """A small picture that is not all of one colour."""
    image = Image.new("RGB", size, colour)
    image.paste((20, 60, 160), (0, 0, size[0] // 2, size[1] // 2))
    file.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG" if file.suffix == ".jpg" else "PNG")
    file.write_bytes(buffer.getvalue())
    return file


@pytest.fixture(autouse=True)
def home(home, tmp_path, monkeypatch):
    """A home with one small, quick preset, and a folder to be in."""
    presets = home / ".config/stylewatch/presets"
    a_picture(presets / "dots.png", (48, 48))
    presets.joinpath("quick.yaml").write_text(
        "description: Small and quick\nstyle: dots.png\nfeatures: builtin\nmax_side: 32\n"
        "coarsest_side: 32\nevaluations: [2]\nprecision: float32\n"
    )
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return home


@pytest.fixture
def stylewatch(capfd):
    """A function that runs the command line here and gives (code, stdout, stderr)."""

    def run(*arguments):
        capfd.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        return (code, *capfd.readouterr())

    return run


def on_a_terminal(*arguments, piped, code=0):
    """What the command line writes to its terminal, and to stdout where that is `piped`."""
    ours, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "stylewatch", *arguments],
        stdout=subprocess.PIPE if piped else terminal, stderr=terminal,
        env=os.environ | PATHS | {"TERM": "xterm"},
    )  # fmt: skip
    os.close(terminal)
    drawn = b""
    with suppress(OSError):  # its end
        while part := os.read(ours, 4096):
            drawn += part
    os.close(ours)
    out = process.communicate()[0] or b""
    assert process.returncode == code, drawn
    return drawn.decode(), out.decode()


def one_line(text):
    lines = text.splitlines()
    assert len(lines) == 1, text
    assert lines[0].startswith("stylewatch: ")
    return lines[0]


COMMANDS = [
    "demo", "apply", "watch", "run", "init", "console", "status", "jobs", "retry", "pause",
    "resume", "cancel", "presets list", "presets show", "presets check", "presets preview",
    "presets sheet",
    "config check", "config schema", "doctor", "weights fetch", "weights path",
    "service install", "service uninstall", "service status",
]  # fmt: skip


class TestHelp:
    def test_help_names_every_command_and_every_exit_code(self):
        text = CliRunner().invoke(cli.app, ["--help"]).output
        for command in COMMANDS:
            assert re.search(rf"^│ {command.split()[0]} ", text, re.MULTILINE), command
        for code in ExitCode:
            assert re.search(rf"\b{code.value} ", text), code
        assert "<bool>" not in text

    @pytest.mark.parametrize(("option", "coloured"), [([], True), (["--no-colour"], False)])
    def test_it_has_no_colours_where_none_are_wanted(self, monkeypatch, option, coloured):
        monkeypatch.delenv("NO_COLOR", raising=False)
        drawn, _ = on_a_terminal(*option, "--help", piped=False)
        assert bool(re.search(r"\x1b\[[\d;]*3\dm", drawn)) == coloured

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_explains_itself_within_80_columns(self, command):
        result = CliRunner().invoke(
            cli.app, [*command.split(), "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}
        )
        assert result.exit_code == 0
        assert f"Usage: stylewatch {command}" in result.output
        assert " Examples:\n stylewatch" not in re.sub(" +\n", "\n", result.output)  # indented
        assert all(len(line) <= 80 for line in result.output.splitlines())
        assert not re.findall(r"<\w*(?:bool|str|int|path|Path)\b", result.output)  # Python's words

    @pytest.mark.parametrize(
        ("command", "options"),
        [
            ("apply", "--preset --style --output --max-side --weights --features"),
            ("apply", "--set --json"),
            ("demo", "--preset --output --weights --features --json"),
            ("watch", "--preset --weights --features"),
            ("run", "--config"),
            ("init", "--preset"),
            ("status", "--json"),
            ("jobs", "--failed --done --json"),
            ("retry", "--all --reason"),
            ("presets list", "--json"),
            ("presets preview", "--side --output --set"),
            ("presets sheet", "--preset --style --side --output"),
            ("config schema", "--preset"),
            ("doctor", "--json --config"),
            ("service install", "--user"),
        ],
    )  # fmt: skip
    def test_every_documented_option_is_in_the_help(self, command, options):
        text = CliRunner().invoke(cli.app, [*command.split(), "--help"]).output
        for option in options.split():
            assert option in text, option

    def test_no_command_is_missing_from_these_tests(self):
        def names(app, prefix=""):
            for one in app.registered_commands:
                yield prefix + (one.name or one.callback.__name__)
            for group in app.registered_groups:
                named = f"{prefix}{group.name} " if isinstance(group.name, str) else prefix
                yield from names(group.typer_instance, named)

        assert sorted(names(cli.app)) == sorted(COMMANDS)

    def test_help_comes_at_once_and_loads_nothing_heavy(self, pace):
        code = (
            "import sys; sys.argv = ['stylewatch', '--help']\n"
            "from stylewatch import cli; cli.main()\n"
            "heavy = {'tensorflow', 'keras', 'scipy', 'numpy', 'PIL', 'pydantic', 'watchdog'}\n"
            "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
        )
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, env=os.environ | PATHS
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Of the processor, as others may be at work here too.
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5 * pace

    def test_the_version(self, stylewatch):
        code, out, _ = stylewatch("--version")
        assert (code, out) == (0, "stylewatch 0.1.0\n")


class TestWrongUse:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["aply"], "Did you mean 'apply'? See `stylewatch --help`"),
            (["apply", "a.jpg", "--features", "vgg"], "'--features': 'vgg' is not one of"),
            (["apply"], "Missing argument 'PHOTO'"),
            (["apply", "a.jpg", "--prset", "x"], "--preset"),
            (["apply", "a.jpg"], "--preset NAME or --style IMAGE. Presets: brushwork, cathedral"),
            (["apply", "a.jpg", "-p", "quick", "--set", "strength"], "KEY=VALUE"),
            (["apply", "a.jpg", "-s", "none.png"], "no such style image"),
            (["apply", "a.jpg", "b.jpg", "-p", "quick", "-o", "c.png"], "one picture"),
            (
                ["watch", "nowhere", "out"],
                "no such folder to watch: received nowhere. Make it first",
            ),
            (["watch", __file__, "out"], "`stylewatch apply` paints a photo"),
            (["watch", ".", __file__], "results can't go into a file"),
            (["--log-format", "xml", "status"], "text"),
            (["presets", "preview", "quick", "--side", "5"], "64"),
            (["presets", "sheet", "a.jpg", "--side", "5"], "64"),
            (["retry", "#no"], "'#no' is no job's number"),
            (["cancel", "9.5"], "'9.5' is no job's number"),
            (["status", "a(s).jpg"], "Got unexpected extra argument (a(s).jpg). See"),
            (["apply", "a.jpg", "-p"], "requires an argument. See `stylewatch apply --help`"),
            (["watch", "", "out"], "'IN': it is empty"),  # as of a variable that is not set
            (["watch", ".", ""], "'OUT': it is empty"),
            (["init", ""], "'DIR': it is empty"),
            (["apply", ""], "'PHOTO': it is empty"),
            (["status", "--state="], "'--state': it is empty"),
            (["run", "-c", ""], "it is empty"),
            (["demo", "--weights="], "'--weights': it is empty"),
        ],
    )
    def test_one_line_says_what_is_wrong_and_the_code_is_2(self, stylewatch, arguments, words):
        code, out, err = stylewatch(*arguments)
        assert (code, out) == (2, "")
        assert words in one_line(err)

    def test_a_preset_without_a_style_image_is_told_to_need_one(self, stylewatch, home):
        (home / ".config/stylewatch/presets/bare.yaml").write_text("style: []")
        assert "(needs --style IMAGE)\nbrushwork" in stylewatch("presets", "list")[1]
        code, _, err = stylewatch("apply", "a.jpg", "-p", "bare")
        assert (code, "'bare' has no style image. Add --style" in one_line(err)) == (2, True)

    def test_an_unknown_preset_suggests_the_nearest(self, stylewatch):
        code, _, err = stylewatch("apply", "a.jpg", "-p", "quikc")
        assert code == 3
        assert "Did you mean 'quick'" in one_line(err)

    def test_an_unknown_key_suggests_the_nearest(self, stylewatch):
        code, _, err = stylewatch("apply", "a.jpg", "-p", "quick", "--set", "strenght=3")
        assert code == 3
        assert "Did you mean 'strength'" in one_line(err)

    def test_a_value_of_the_wrong_type_is_refused(self, stylewatch):
        code, _, err = stylewatch("apply", "a.jpg", "-p", "quick", "--max-side", "huge")
        assert code == 3
        assert "max_side" in one_line(err)

    @pytest.mark.parametrize(
        ("code", "words", "arguments"),
        [
            (3, "'block1_conv1'", ["style_layers.block1_con1=1"]),
            (3, "expected at least 0, received -1", ["style_layers.block1_conv1=-1"]),
            (3, "expected at least 0, received -1", ['style_layers={"block1_conv1": -1}']),
            (3, "at least 1 layer", ["content_layers={}"]),
            (3, "No such file", ["init=nofile.jpg"]),
            (3, "init: the text has a control character", ["init=a\u0001b"]),
            (3, "unknown effect", ["effect=nonsense"]),
            (3, "expected a number, received a mapping", ["strength.x=1"]),
            (3, "output.qualty: unknown key", ["output.qualty=80"]),
            (3, "expected a mapping", ["output=png"]),
            (2, "needs a mapping in `output`", ["output=png", "output.quality=80"]),
            (2, "KEY=VALUE", ["output.=80"]),
            (2, "--preset", ["base=classic"]),
            (2, "--style", ["style=a.jpg"]),
            (2, "no difference", ["description=Mine"]),
            (3, "expected a number, received 'Infinity'", ["strength=Infinity"]),
            (3, "expected a number, received '-Infinity'", ["strength=-Infinity"]),
            (3, "expected a number, received 'NaN'", ["strength=NaN"]),
            (3, "expected a number, received '1e999'", ["strength=1e999"]),
            (3, "expected a number, received '999", ["strength=" + "9" * 400]),
            (3, "expected a mapping", ['style_layers={"block1_conv1": 1e999}']),
            (3, "expected a whole number", ["seed=1" + "0" * 30]),
            (3, "expected a number", ["strength=" + "[" * 100_000]),
            (3, "'block1_conv1'", ["style_layers={block1_con1: 1}"]),
            (3, "expected a mapping (key: value), received '{block1", ["style_layers={block1"]),
            (3, "expected a mapping", ["style_layers={a: !!python/name:os.abort }"]),
            (3, "expected a mapping", ["style_layers=" + "{a: " * 100_000]),
            (3, "expected a mapping", ["style_layers=block1_conv1: 0.2"]),
        ],
    )
    def test_a_wrong_set_is_refused_as_in_yaml(self, stylewatch, code, words, arguments):
        options = [part for pair in arguments for part in ("--set", pair)]
        told, out, err = stylewatch("apply", "a.jpg", "-p", "quick", *options)
        assert (told, out) == (code, "")
        assert words in one_line(err)

    @pytest.mark.parametrize("side", ["²", "", "1e999", "3.5", "photos"])
    def test_a_side_that_is_none(self, stylewatch, side):
        code, _, err = stylewatch("apply", "a.jpg", "-p", "quick", "--max-side", side)
        assert code == 3
        one_line(err)

    @pytest.mark.parametrize("name", ["a.bmp", "a.GIF", "a.avif", "new/a.jxl", "a.orf"])
    def test_a_format_that_cannot_be_written(self, stylewatch, name):
        code, _, err = stylewatch("apply", "a.jpg", "-p", "quick", "-o", name)
        assert code == 2
        assert ".jpg, .jpeg, .png, .webp, .tif, .tiff, .heic" in one_line(err)
        assert list(Path().iterdir()) == []

    @pytest.mark.parametrize(
        ("weights", "trouble"), [("none.h5", "does not exist"), ("/", "is a folder")]
    )
    def test_a_weights_file_that_is_none(self, stylewatch, weights, trouble):
        code, _, err = stylewatch("apply", "a.jpg", "-p", "quick", "--weights", weights)
        assert code == 5
        assert f"the weights file {trouble}: received {weights}. " in one_line(err)


def test_an_empty_home_is_what_the_user_database_says(stylewatch, monkeypatch):
    """Without it `~/.config` would be `/.config`, which root can even make."""
    home = pwd.getpwuid(os.getuid()).pw_dir
    for folder in ("", home):
        monkeypatch.setenv("HOME", folder)
        _, _, err = stylewatch("status", "--state", "~/none-of-ours")
        assert f"no stylewatch daemon for {home}/none-of-ours" in one_line(err)


class TestErrors:
    def test_an_unexpected_error_is_one_line_that_says_where_the_traceback_is(
        self, stylewatch, monkeypatch, home
    ):
        def broken(*_):
            raise RuntimeError("a bug\nwith \x1b[31mcolours")

        monkeypatch.setattr("stylewatch.settings.presets.known_presets", broken)
        code, _, err = stylewatch("presets", "list")
        assert code == 70
        line = one_line(err)
        assert "RuntimeError: a bug" in line
        assert "\x1b" not in line
        file = home / ".local/state/stylewatch/last-traceback.txt"
        assert str(file) in line
        assert "Traceback" in file.read_text()

    def test_an_interrupt_is_130(self, stylewatch, monkeypatch):
        def interrupted(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr("stylewatch.settings.presets.known_presets", interrupted)
        code, _, err = stylewatch("presets", "list")
        assert (code, err) == (130, "stylewatch: interrupted\n")

    @pytest.mark.parametrize(
        ("words", "code", "said"),
        [
            ("presets list 2>&-", 0, ""),
            ("presets list >&-", 0, ""),
            ("presets list > /dev/full", 6, "stdout can't be written: No space left"),
            ("doctor > /dev/full", 6, "stdout can't be written: No space left"),
            ("--version > /dev/full", 6, "stdout can't be written: No space left"),
            ("--help > /dev/full", 6, "stdout can't be written: No space left"),
            ("init there 2> /dev/full", 0, ""),
            ("nonsense 2> /dev/full", 2, ""),
            ("", 2, ""),  # the help alone
        ],
    )
    def test_streams_that_are_closed_or_full(self, home, words, code, said):
        command = f"exec '{sys.executable}' -m stylewatch {words}"
        done = subprocess.run(
            command, shell=True, capture_output=True, text=True, check=False, timeout=60,
            stdin=subprocess.DEVNULL, env=os.environ | {"PYTHONUNBUFFERED": ""},
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert "Exception" not in done.stderr
        assert said in done.stderr
        assert ": . See" not in done.stderr
        assert "internal" not in done.stderr

    def test_it_paints_where_streams_are_closed(self, tmp_path):
        """As some programs start it, and ssh with `>&-`."""
        a_picture(tmp_path / "in/a.jpg")
        command = f"exec '{sys.executable}' -m stylewatch watch in out -p quick"
        process = subprocess.Popen(
            f"{command} <&- >&- 2>&-", shell=True, cwd=tmp_path, env=os.environ | PATHS
        )
        try:
            wait_until((tmp_path / "out/a--quick.jpg").exists)
        finally:
            process.terminate()
            process.wait()

    def test_it_paints_when_the_folder_that_it_was_started_in_is_gone(self, tmp_path):
        gone = tmp_path / "gone"
        gone.mkdir()
        (tmp_path / "in").mkdir()
        process = subprocess.Popen(
            [sys.executable, "-m", "stylewatch", "watch", tmp_path / "in", tmp_path / "out", "-p", "quick"],
            cwd=gone, stderr=subprocess.PIPE, env=os.environ | PATHS,
        )  # fmt: skip
        try:
            while b"watching" not in process.stderr.readline():
                assert process.poll() is None
            gone.rmdir()
            a_picture(tmp_path / "in/a.jpg")
            wait_until((tmp_path / "out/a--quick.jpg").exists)
        finally:
            process.terminate()
            process.communicate()

    def test_the_death_of_workers_is_seen_whatever_started_us(self, stylewatch):
        """Some desktops ignore SIGCHLD, and so would all that they start."""
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            assert stylewatch("--version")[0] == 0
            assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
        finally:
            signal.signal(signal.SIGCHLD, before)

    def test_an_interrupt_while_it_is_loaded_needs_no_traceback(self, tmp_path):
        (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n")
        done = subprocess.run(
            [sys.executable, "-m", "stylewatch", "status"], capture_output=True, check=False,
            env=os.environ | {"PYTHONPATH": f"{tmp_path}:{HERE.parent}"}, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (130, b"")

    def test_for_programs_whatever_is_told_is_json(self, stylewatch, tmp_path):
        photo = a_picture(tmp_path / "a.jpg")
        json_lines = ("--log-format", "json")
        _, _, err = stylewatch(*json_lines, "apply", photo, "-p", "quick")
        told = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
        assert told[-1]["message"].startswith("features used: built-in")
        assert "features used" not in "".join(x for x in err.splitlines() if x[0] != "{")
        for words in (["aply"], ["apply", photo, "-p", "none"], ["retry", "--all"]):
            line = stylewatch(*json_lines, *words)[2]
            assert json.loads(line)["level"] == "error", line
        assert one_line(stylewatch("aply")[2])  # for people again

    @pytest.mark.parametrize(
        ("words", "code", "said"),
        [
            ("status", 8, "no stylewatch daemon"),
            ("status -c my.yaml", 3, "the working folder was removed"),
        ],
    )
    def test_a_working_directory_that_is_gone(self, home, tmp_path, words, code, said):
        gone = tmp_path / "gone"
        gone.mkdir()
        command = f"cd '{gone}' && rmdir '{gone}' && '{sys.executable}' -P -m stylewatch {words}"
        done = subprocess.run(
            command, shell=True, capture_output=True, text=True, check=False, timeout=60,
            env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])},
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert said in done.stderr

    def test_without_a_home_folder_it_is_said(self, stylewatch, monkeypatch):
        monkeypatch.delenv("HOME")
        monkeypatch.setattr("pwd.getpwuid", dict[int, object]().__getitem__)
        for command in ("status", "run", "init"):
            code, _, err = stylewatch(command)
            assert (code, "there is no home folder ~" in one_line(err)) == (3, True), err


class TestPresets:
    def test_list(self, stylewatch):
        code, out, err = stylewatch("presets", "list")
        assert (code, err) == (0, "")
        assert re.search(r"^quick +Small and quick$", out, re.MULTILINE)
        data = json.loads(stylewatch("presets", "list", "--json")[1])
        named = {one["name"]: one for one in data}
        assert (named["quick"]["description"], named["quick"]["has_style"]) == (
            "Small and quick",
            True,
        )
        assert named["quick"]["problem"] is None

    def test_list_tells_what_can_t_be_used(self, stylewatch, home):
        (home / ".config/stylewatch/presets/bad.yaml").write_text("strenght: 3\n")
        data = json.loads(stylewatch("presets", "list", "--json")[1])
        [problem] = [one["problem"] for one in data if one["name"] == "bad"]
        assert "bad.yaml:1:1: strenght: unknown key" in problem

    def test_list_fits_a_narrow_terminal(self, stylewatch, monkeypatch):
        monkeypatch.setattr("stylewatch.commands.answers.width", lambda *_: 44)
        _, out, _ = stylewatch("presets", "list")
        assert max(map(len, out.splitlines())) <= 44
        assert "\ninconspicuous" not in out
        assert (
            "draft           A quick, small painting, to\n                try photos and styles\n"
            in out
        )

    def test_show_says_where_each_value_comes_from(self, stylewatch, home):
        code, out, _ = stylewatch("presets", "show", "quick")
        assert code == 0
        assert "quick.yaml" in out.splitlines()[0]
        assert "max_side: 32   # quick" in out
        assert "seed: 0\n" in out
        data = json.loads(stylewatch("presets", "show", "quick", "--json")[1])
        assert data["max_side"]["value"] == 32
        assert data["max_side"]["preset"] == "quick"

    def test_show_tells_one_s_own_preset_from_the_shipped_one_of_its_name(self, stylewatch, home):
        (home / ".config/stylewatch/presets/ink.yaml").write_text("base: ink\nstrength: 7\n")
        _, out, _ = stylewatch("presets", "show", "ink")
        shipped = shipped_presets_dir() / "ink.yaml"
        assert re.search(rf"^style: .*   # {re.escape(str(shipped))}$", out, re.MULTILINE)
        assert "strength: 7.0   # ink\n" in out

    def test_no_name_of_a_file_is_obeyed_by_the_terminal(self, stylewatch, home):
        file = home / ".config/stylewatch/presets/quick.yaml"
        file.rename(file.with_name("a\x1b[31m.yaml"))
        _, out, _ = stylewatch("presets", "show", file.with_name("a\x1b[31m.yaml"))
        assert "max_side: 32   # a\\x1b[31m\n" in out
        assert "\x1b" not in out

    def test_check_names_every_fault_with_its_place(self, stylewatch, home):
        file = home / "bad.yaml"
        file.write_text("style: none.png\nstrenght: 3\nmax_side: -1\n")
        code, _, err = stylewatch("presets", "check", file)
        assert code == 3
        assert f"{file}:2:1: strenght: unknown key" in err
        assert f"{file}:3:" in err
        found = json.loads(stylewatch("presets", "check", file, "--json")[1])
        assert {one["key"] for one in found} >= {"strenght", "max_side"}
        assert {one["reason"] for one in found} == {"preset"}
        assert stylewatch("presets", "check")[0] == 0

    def test_check_takes_names_as_show_does(self, stylewatch, home):
        assert stylewatch("presets", "check", "quick", "nocturne")[2] == "2 presets are fine\n"
        assert stylewatch("presets", "check", "quick") == (0, "", "quick is fine\n")
        (home / ".config/stylewatch/presets/bad.yaml").write_text("strenght: 3\n")
        code, _, err = stylewatch("presets", "check", "quikc", "bad")
        assert code == 3
        assert "Did you mean 'quick'" in err
        assert "bad.yaml:1:1: strenght" in err

    def test_check_opens_the_images(self, stylewatch, home):
        file = home / "mine.yaml"
        file.write_text("seed: 1\nstyle: photo.jpg\n")
        whole = a_picture(home / "photo.jpg").read_bytes()
        assert stylewatch("presets", "check", file)[0] == 0
        for content, why in (
            (
                b"hello",
                "This is not an image of a kind that is read here: expected JPEG, PNG, WebP, ",
            ),
            (b"", "The file is empty"),
            (whole[:-50], "The image is incomplete or damaged"),
        ):
            (home / "photo.jpg").write_bytes(content)
            code, _, err = stylewatch("presets", "check", file)
            assert code == 3
            assert f"{file}:2:1: style: the style image can't be used: {why}" in one_line(err)
            assert str(home / "photo.jpg") in one_line(err)

    def test_each_has_one_line_whatever_its_description_holds(self, stylewatch, home):
        (home / ".config/stylewatch/presets/long.yaml").write_text(
            "description: |\n  Over the\n  sofa \u202e\n"
        )
        _, out, _ = stylewatch("presets", "list")
        assert re.search(r"^long +Over the sofa \\u202e$", out, re.MULTILINE)

    def test_a_broken_preset_does_not_hide_the_others(self, stylewatch, home):
        (home / ".config/stylewatch/presets/bad.yaml").write_text("strenght: 3\n")
        _, out, _ = stylewatch("presets", "list")
        assert "quick" in out
        assert re.search(r"^bad +broken: .*strenght", out, re.MULTILINE)
        told = json.loads(stylewatch("presets", "list", "--json")[1])
        [bad] = [each for each in told if each["name"] == "bad"]
        assert (bad["description"], "strenght" in bad["problem"]) == ("", True)


@pytest.fixture
def of_a_config(home, tmp_path):
    """A config that names a folder with the preset `sofa`, which only it knows."""
    presets = tmp_path / "styles"
    a_picture(presets / "sofa.png", (48, 48))
    (presets / "sofa.yaml").write_text("base: quick\nstyle: sofa.png\n")
    config = home / ".config/stylewatch/stylewatch.yaml"
    config.write_text(f"folders: [{{input: in, output: out}}]\npresets: [{presets}]\n")
    a_picture(Path("a.jpg"))
    return config


class TestJson:
    def test_the_documents_name_every_field(self, stylewatch, tmp_path):
        """Those of `status` and `jobs`, which have more of them, have tables of their own."""
        photo, empty = a_picture(tmp_path / "a.jpg"), tmp_path / "empty.jpg"
        empty.touch()
        (tmp_path / "bad.yaml").write_text("strenght: 3\n")
        told = {
            "apply": ("apply", photo, empty, "-p", "quick"),
            "presets list": ("presets", "list"),
            "presets check": ("presets", "check", tmp_path / "bad.yaml"),
            "config check": ("config", "check", tmp_path / "bad.yaml"),
            "service status": ("service", "status", "--user"),
        }
        text = (HERE.parent / "docs/operating.md").read_text(encoding="utf-8")
        rows = re.findall(
            r"^\| (`.+?`) \| (.+) \|$", text.split("other commands' `--json`")[1], re.MULTILINE
        )
        named = {
            name: {*re.findall(r"`(\w+)`", fields)}
            for names, fields in rows
            for name in re.findall(r"`(.+?)`", names)
        }
        for name, command in told.items():
            found = json.loads(stylewatch(*command, "--json")[1])
            fields = {key for one in ([found] if isinstance(found, dict) else found) for key in one}
            assert fields == named[name], name
        [shown] = {frozenset(one) for one in json.loads(
            stylewatch("presets", "show", "quick", "--json")[1]
        ).values()}  # fmt: skip
        assert shown == named["presets show"]
        assert {field.name for field in dataclasses.fields(Finding)} <= named["doctor"]


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("apply a.jpg -p wat", ["watercolour"]),
        ("watch in out --preset ow", ["own"]),
        ("demo -p wood", ["woodcut"]),
        ("init -p wood", ["woodcut"]),
        ("presets show past", ["pastel"]),
        ("presets preview in", ["ink"]),
        ("presets check ink d", ["draft", "duet"]),
        ("apply a.jpg -p ./wat", []),  # a file: the shell's own business
    ],
)
def test_a_shell_that_completes_is_told_of_the_presets_and_of_nothing_else(home, typed, offered):
    folder = home / ".config/stylewatch"
    (folder / "presets/own.yaml").write_text("strength: [broken\n")
    (folder / "stylewatch.yaml").write_text("presets: [broken\n")
    words = f"stylewatch {typed}"
    asked = {
        "_STYLEWATCH_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    told = subprocess.run(
        [sys.executable, "-m", "stylewatch"], capture_output=True, text=True, check=False,
        env=os.environ | PATHS | asked,
    )  # fmt: skip
    assert (told.stdout.split(), told.stderr) == (offered, "")


class TestPresetsOfAConfig:
    """What `run` would know is known to every command, whatever else is wrong with the config."""

    @pytest.mark.parametrize("more", ["", "folders_: 3\nweights: none.h5\n"])
    def test_are_listed_shown_and_checked(self, stylewatch, of_a_config, more):
        of_a_config.write_text(of_a_config.read_text() + more)
        code, out, err = stylewatch("presets", "list")
        assert (code, err) == (0, "")
        assert re.search(r"^sofa\b", out, re.MULTILINE)
        assert "sofa.yaml" in stylewatch("presets", "show", "sofa")[1]
        assert stylewatch("presets", "check", "sofa") == (0, "", "sofa is fine\n")
        assert "Did you mean 'sofa'?" in stylewatch("apply", "a.jpg", "-p", "sofas")[2]

    def test_a_file_that_was_meant_is_told_how_to_be_named(self, stylewatch, of_a_config):
        Path("mine.yaml").write_text("base: quick\n")
        for name, told in (("mine", "A file needs its ending: mine.yaml"),
                           ("a.jpg", "A preset's file ends in .yaml; for the style of an image"),
            ("ink,woodcut", "Name each one by itself, as in -p ink -p woodcut")):  # fmt: skip
            code, _, err = stylewatch("apply", "a.jpg", "-p", name)
            assert (code, told in one_line(err)) == (3, True)
            assert told in one_line(stylewatch("presets", "check", name)[2])

    def test_are_checked_with_the_features_that_paint_them(self, stylewatch, of_a_config, home):
        deep = home / ".config/stylewatch/presets/deep.yaml"
        deep.write_text("style_layers:\n  block5_conv4: 1\n")
        assert stylewatch("presets", "check", "deep")[0] == 0
        of_a_config.write_text(of_a_config.read_text() + "features: builtin\nfolders_: 3\n")
        for names in (["deep"], [deep], []):
            code, _, err = stylewatch("presets", "check", *names)
            assert (code, f"{deep}:2:3: style_layers.block5_conv4: " in err) == (3, True)

    def test_can_be_painted_with(self, stylewatch, of_a_config):
        assert stylewatch("apply", "a.jpg", "-p", "sofa")[0] == 0
        assert stylewatch("presets", "preview", "sofa", "a.jpg", "--side", "64")[0] == 0
        assert stylewatch("presets", "sheet", "a.jpg", "-p", "sofa", "--side", "64")[0] == 0
        assert stylewatch("demo", "-p", "sofa", "-o", "shown")[0] == 0
        assert {"a--sofa.jpg", "a--sofa-preview.jpg"} <= {file.name for file in Path().iterdir()}

    def test_are_those_of_the_config_that_is_named(self, stylewatch, of_a_config, tmp_path):
        other = of_a_config.rename(tmp_path / "other.yaml")
        code, _, err = stylewatch("apply", "a.jpg", "-p", "sofa")
        assert (code, "unknown preset 'sofa'" in one_line(err)) == (3, True)
        assert stylewatch("apply", "a.jpg", "-p", "sofa", "-c", other)[0] == 0
        assert stylewatch("presets", "check", "-c", other)[0] == 0
        other.write_text("presets: [")
        code, _, err = stylewatch("apply", "a.jpg", "-p", "quick", "-c", other)
        assert (code, f"{other}:1:11: not valid YAML" in one_line(err)) == (3, True)

    def test_that_can_t_be_known_are_told_and_cost_no_other(self, stylewatch, of_a_config):
        for text, place in (
            ("presets: [", ":1:11: not valid YAML"),
            ("presets: 3", ":1:1: presets: wrong value"),
            ("presets: [., gone]", ":1:14: presets[1]: the presets folder does not exist"),
        ):
            of_a_config.write_text(text)
            code, _, err = stylewatch("apply", "a.jpg", "-p", "quick")
            assert (code, err.splitlines()[0].partition(place)[0]) == (
                0, f"presets may be missing: {of_a_config}",
            )  # fmt: skip

    def test_watch_knows_them(self, stylewatch, of_a_config, monkeypatch):
        Path("in").mkdir()
        loaded = []
        monkeypatch.setattr(watching, "_serve", lambda load: loaded.append(load()))
        assert stylewatch("watch", "in", "out", "-p", "sofa")[0] == 0
        assert stylewatch("watch", "in", "out")[0] == 0
        assert [config.folders[0].preset for config in loaded] == [("sofa",), ("nocturne",)]
        assert all("sofa" in config.presets for config in loaded)  # as a sub-folder's name too

    def test_watch_waits_for_a_folder_of_them_as_run_does(
        self, stylewatch, of_a_config, tmp_path, monkeypatch
    ):
        """A photo in `in/sofa` would be painted in another style."""
        Path("in").mkdir()
        loaded = []
        monkeypatch.setattr(watching, "_serve", lambda load: loaded.extend([load(), load]))
        (tmp_path / "styles").rename(tmp_path / "away")
        code, _, err = stylewatch("watch", "in", "out", "-p", "quick")
        assert (code, f"{of_a_config}:2:11: presets[0]: the presets folder" in err) == (0, True)
        config, load = loaded
        [told] = config.waits()
        assert told.startswith("photos for all presets wait: presets: the presets folder does not")
        (tmp_path / "away").rename(tmp_path / "styles")
        assert {"quick", "sofa"} < set(load().presets)

    def test_what_will_never_be_a_folder_of_them_is_not_waited_for(
        self, stylewatch, of_a_config, tmp_path, monkeypatch
    ):
        Path("in").mkdir()
        loaded = []
        monkeypatch.setattr(watching, "_serve", lambda load: loaded.append(load()))
        of_a_config.write_text(f"presets: {tmp_path / 'styles' / 'sofa.png'}")
        code, _, err = stylewatch("watch", "in", "out", "-p", "quick")
        assert (code, "the presets folder is not a folder" in err) == (0, True)
        assert [*loaded[0].waits(), *loaded[0].broken] == []


class TestConfig:
    def test_init_writes_a_config_that_holds_and_the_folders(self, stylewatch, tmp_path):
        place = tmp_path / "new"
        code, out, err = stylewatch("init", place, "--preset", "quick")
        assert code == 0
        assert out == f"{place}/stylewatch.yaml\n"
        assert f"drop photos into {place}/in, or into a style's folder there\n" in err
        assert f"then: stylewatch run -c {place}/stylewatch.yaml\n" in err
        assert (place / "in/quick").is_dir()
        assert (place / "out").is_dir()
        assert stylewatch("config", "check", place / "stylewatch.yaml")[0] == 0

    def test_init_with_a_preset_that_is_none_writes_nothing(self, stylewatch, tmp_path):
        place = tmp_path / "new"
        code, out, err = stylewatch("init", place, "--preset", "quikc")
        assert (code, out) == (3, "")
        assert "Did you mean 'quick'" in one_line(err)
        assert not place.exists()
        assert stylewatch("init", place, "--preset", "quick")[0] == 0

    def test_init_where_a_file_lies_names_it(self, stylewatch):
        Path("photo.jpg").touch()
        code, out, err = stylewatch("init", "photo.jpg", "--preset", "quick")
        assert (code, out) == (6, "")
        line = "stylewatch: photo.jpg can't be made: a file lies there. Choose another place"
        assert one_line(err) == line

    def test_init_never_overwrites_a_config(self, stylewatch, tmp_path):
        stylewatch("init", tmp_path, "--preset", "quick")
        file = tmp_path / "stylewatch.yaml"
        file.write_text(file.read_text() + "# mine\n")
        (tmp_path / "in/quick").rmdir()
        code, _, err = stylewatch("init", tmp_path)
        assert code == 0
        assert "kept" in err
        assert file.read_text().endswith("# mine\n")
        assert (tmp_path / "in/quick").is_dir()
        assert "to use ink, write it there yourself" in stylewatch("init", tmp_path, "-p", "ink")[2]

    def test_init_names_folders_of_styles_that_have_come_since(self, stylewatch, tmp_path, home):
        assert "new in" not in stylewatch("init", tmp_path)[2]
        presets = home / ".config/stylewatch/presets"
        presets.joinpath("grandma.yaml").write_text("base: quick\n")
        assert f"new in {tmp_path}/in: grandma\n" in stylewatch("init", tmp_path)[2]
        assert "new in" not in stylewatch("init", tmp_path)[2]

    @pytest.mark.parametrize("piped", [True, False])
    def test_init_ends_with_what_to_do_and_a_pipe_gets_the_path(self, home, piped):
        file = home / ".config/stylewatch/stylewatch.yaml"
        shown, out = on_a_terminal("init", piped=piped)
        assert out == (f"{file}\n" if piped else "")
        assert shown.splitlines()[-1] == "then: stylewatch run"

    @pytest.mark.parametrize("place", [(), ("there",)])
    def test_init_makes_the_folder_for_one_s_own_presets(self, stylewatch, home, place):
        shutil.rmtree(home / ".config")
        code, _, err = stylewatch("init", *place)
        assert (code, (home / ".config/stylewatch/presets").is_dir()) == (0, True)
        assert "presets of your own go into ~/.config/stylewatch/presets\n" in err

    def test_init_elsewhere_needs_no_home_that_can_be_written(self, stylewatch, home, monkeypatch):
        real = Path.mkdir

        def mkdir(path, *given, **more):
            if path.is_relative_to(home):
                raise OSError(errno.EROFS, "Read-only file system", str(path))
            real(path, *given, **more)

        monkeypatch.setattr(Path, "mkdir", mkdir)
        assert stylewatch("init", "there")[0] == 0

    def test_init_without_a_folder_writes_where_run_looks(self, stylewatch, home):
        assert stylewatch("init", "--preset", "quick")[0] == 0
        assert (home / ".config/stylewatch/stylewatch.yaml").is_file()
        assert (home / "Pictures/stylewatch/in/quick").is_dir()
        assert stylewatch("config", "check")[0] == 0

    def test_check_names_line_column_and_key(self, stylewatch, tmp_path):
        file = tmp_path / "stylewatch.yaml"
        text = "folders:\n  - input: in\n    output: in/out\n    presett: quick\nworkers: many\n"
        file.write_text(text)
        code, _, err = stylewatch("config", "check", file)
        assert (code, err.count("\n"), " more)" in err) == (3, 2, False)
        assert "stylewatch.yaml:4:5: folders[0].presett: unknown key. Did you mean 'preset'?" in err
        assert stylewatch("config", "check", "-c", file) == (code, "", err)
        code, _, err = stylewatch("config", "check", file, "-c", file)
        assert (code, "FILE or --config FILE" in one_line(err)) == (2, True)

    def test_check_tells_what_keeps_it_from_working_now(self, stylewatch, tmp_path):
        file = tmp_path / "stylewatch.yaml"
        file.write_text("folders: [{input: gone, output: out, preset: quick}]\n")
        code, _, err = stylewatch("config", "check", file)
        assert code == 3
        assert "does not exist" in err

    def test_check_tells_all_that_is_wrong_with_a_preset_that_the_config_does_not_name(
        self, stylewatch, home, tmp_path
    ):
        (tmp_path / "in").mkdir()
        file = tmp_path / "stylewatch.yaml"
        file.write_text("folders: [{input: in, output: out, preset: quick}]\n")
        own = home / ".config/stylewatch/presets/own.yaml"
        own.write_text("strenght: 3\nsed: 1\n")
        code, _, err = stylewatch("config", "check", file)
        assert (code, " more)" in err) == (3, False)
        told = re.findall(r"own\.yaml:(.+): unknown key", err)
        assert told == ["1:1: strenght", "2:1: sed"]
        code, out, _ = stylewatch("config", "check", file, "--json")
        assert (code, [error["key"] for error in json.loads(out)]) == (3, ["strenght", "sed"])

    def test_check_ends_with_the_code_that_run_would(self, stylewatch, tmp_path):
        wrong, away = tmp_path / "wrong.yaml", tmp_path / "away.yaml"
        wrong.write_text("strenght: 3\n")
        assert stylewatch("config", "check", away)[0] == ExitCode.UNREADABLE
        assert stylewatch("presets", "check", away)[0] == ExitCode.UNREADABLE
        code, out, _ = stylewatch("presets", "check", away, wrong, "--json")
        assert code == ExitCode.CONFIG
        assert [error["exit_code"] for error in json.loads(out)] == [9, 3]

    def test_without_a_config_run_says_how_to_get_one(self, stylewatch):
        code, _, err = stylewatch("run")
        assert code == 3
        assert "stylewatch init" in one_line(err)

    def test_a_config_that_is_not_there_is_none_that_a_service_gives_up(self, stylewatch, tmp_path):
        """Its disk may be mounted later, unlike what is wrong in one, which no restart corrects."""
        code, _, err = stylewatch("run", "-c", tmp_path / "away.yaml")
        assert code == ExitCode.UNREADABLE
        assert "away.yaml: can't be read: No such file" in one_line(err)
        for unit in (shipped_unit(user=False), shipped_unit(user=True)):
            lines = unit.read_text(encoding="utf-8").splitlines()
            assert {"Restart=on-failure", "RestartPreventExitStatus=3"} <= {*lines}

    @pytest.mark.parametrize(
        ("words", "code"),
        [
            ("config check secret", ExitCode.UNREADABLE),
            ("run --config secret", ExitCode.UNREADABLE),
            ("init folder", ExitCode.OUTPUT),
            ("status --state folder", ExitCode.NOT_RUNNING),
            ("apply secret fine --preset none", ExitCode.CONFIG),
            ("presets preview none secret", ExitCode.CONFIG),
            ("presets sheet secret", ExitCode.INPUT),
            ("presets sheet -p none", ExitCode.CONFIG),
        ],
    )
    def test_what_can_t_be_read_is_no_wrong_usage(self, like_anybody, words, code):
        """It has its own code, and of several photos it fails alone."""
        for path in (Path("secret"), Path("fine"), Path("folder/ledger.db")):
            path.parent.mkdir(exist_ok=True)
            path.touch()
        Path("secret").chmod(0)
        Path("folder").chmod(0)
        command = [sys.executable, "-m", "stylewatch", *words.split()]
        done = like_anybody(
            subprocess.run, command, capture_output=True, text=True, check=False, timeout=60
        )
        Path("folder").chmod(0o700)
        assert done.returncode == code, done.stderr

    def test_output_inside_input_is_refused(self, stylewatch, tmp_path):
        (tmp_path / "in").mkdir()
        code, _, err = stylewatch("watch", tmp_path / "in", tmp_path / "in/out", "-p", "quick")
        assert code == 3
        assert "inside" in one_line(err)

    def test_watch_has_options_for_what_is_often_another(self, stylewatch, monkeypatch):
        Path("in").mkdir()
        Path("w.h5").touch()
        here, loaded = Path.cwd(), []
        monkeypatch.setattr("stylewatch.app.serve.serve", lambda load, _: loaded.append(load()))
        options = ("--hours", "22:00-07:00", "--weights", "w.h5", "--state", "s")
        for more in ((), ("--features", "auto")):
            os.chdir(here)  # which a daemon leaves
            assert stylewatch("watch", "in", "out", *options, *more)[0] == 0
        assert Path.cwd() == Path("/")
        config = loaded[0]
        assert config.hours == (Hours(22 * 60, 7 * 60),)
        assert config.state_dir == here / "s"
        assert (config.engine.weights, config.broken) == (str(here / "w.h5"), {})
        assert [config.engine.features for config in loaded] == ["vgg19", "auto"]

    def test_what_the_environment_names_is_meant_as_seen_from_where_a_daemon_is_started(
        self, stylewatch, monkeypatch, home
    ):
        Path("in").mkdir()
        tls = "DASK_DISTRIBUTED__COMM__TLS__"
        meant = {
            f"{tls}CA_FILE": ("ca.pem", str(Path("ca.pem").absolute())),
            f"{tls}CLIENT__KEY": ("/own.key", "/own.key"),
            "KERAS_HOME": ("~/keras", f"{home}/keras"),
            "JAX_COMPILATION_CACHE_DIR": ("gs://mine/jax", "gs://mine/jax"),
        }
        for name, (written, _) in meant.items():
            monkeypatch.setenv(name, written)
        seen = []
        monkeypatch.setattr("stylewatch.app.serve.serve", lambda *_: seen.append({**os.environ}))
        assert stylewatch("watch", "in", "out", "-p", "quick")[0] == 0
        assert {name: (written, seen[0][name]) for name, (written, _) in meant.items()} == meant

    def test_the_schemas_are_json(self, stylewatch):
        for arguments, key in ([], "folders"), (["--preset"], "style"):
            code, out, _ = stylewatch("config", "schema", *arguments)
            assert code == 0
            assert key in json.loads(out)["properties"]


class TestApply:
    def test_it_paints_and_tells_paths_on_stdout_alone(self, stylewatch, tmp_path):
        photo = a_picture(tmp_path / "photos/sea.jpg")
        code, out, err = stylewatch("apply", photo, "-p", "quick", "-o", "painted")
        assert code == 0
        assert out == "painted/quick.jpg\n".replace("quick", "sea--quick")
        assert "features used: built-in" in err
        assert f"painting {photo} → quick\n" in err
        assert "sea.jpg → quick: scale 1/1, 32x24, evaluation 1/" in err
        with Image.open("painted/sea--quick.jpg") as result:
            assert result.size == (32, 24)

    def test_several_photos_and_styles_and_nothing_overwritten(self, stylewatch, tmp_path, home):
        photos = [a_picture(tmp_path / f"{name}.png") for name in "ab"]
        style = a_picture(tmp_path / "art.png", colour=(30, 200, 90))
        preset = ("-p", "quick")
        for _ in range(2):
            code, out, _ = stylewatch("apply", *photos, *preset, "--style", style, "-o", "o")
            assert code == 0
        assert out.split() == ["o/a--quick-art~2.png", "o/b--quick-art~2.png"]
        assert len(list(Path("o").iterdir())) == 4

    def test_on_a_terminal_messages_break_between_words(self, stylewatch):
        words = ["apply", "a.jpg"]
        drawn, _ = on_a_terminal(*words, piped=True, code=2)
        lines = drawn.splitlines()
        assert max(map(len, lines)) <= 80
        assert " ".join(lines) + "\n" == stylewatch(*words)[2]

    def test_one_bad_photo_fails_alone(self, stylewatch, tmp_path):
        good = a_picture(tmp_path / "good.jpg")
        bad = tmp_path / "bad.jpg"
        bad.write_bytes(good.read_bytes()[:200])
        code, out, err = stylewatch("apply", bad, good, "nowhere.jpg", "-p", "quick", "-o", "o")
        assert code == 1
        assert out == "o/good--quick.jpg\n"
        failed = [line for line in err.splitlines() if " failed " in line]
        assert len(failed) == 2
        assert "nowhere.jpg" in failed[1]
        assert err.splitlines()[-1] == "1 done, 2 failed: bad.jpg, nowhere.jpg"

    @pytest.mark.parametrize(
        ("name", "content", "words"),
        [
            ("empty.jpg", b"", "empty"),
            ("text.jpg", b"hello", "not an image"),
            ("bomb.png", bomb(), "too"),
        ],
    )
    def test_when_all_fail_for_one_reason_the_code_is_that_ones(
        self, stylewatch, tmp_path, name, content, words
    ):
        photo = tmp_path / name
        photo.write_bytes(content)
        code, out, err = stylewatch("apply", photo, "-p", "quick")
        assert (code, out) == (4, "")
        [line] = [line for line in err.splitlines() if " failed " in line]
        assert words in line.lower()
        assert name in line

    def test_a_folder_is_no_photo_but_may_be_watched(self, stylewatch, tmp_path):
        code, _, err = stylewatch("apply", tmp_path, "-p", "quick")
        assert code == 4
        assert "Name the photos in it, or `stylewatch watch` it" in err

    def test_an_output_that_cannot_be_written_is_6(self, stylewatch, tmp_path):
        photo = a_picture(tmp_path / "a.jpg")
        Path("o").write_text("a file")
        for name in ("o", "o/sub"):
            code, _, err = stylewatch("apply", photo, "-p", "quick", "-o", name)
            assert code == 6
            assert "A file lies in its way: move that, or name another folder" in one_line(err)
        assert stylewatch("apply", photo, "-p", "quick", "-o", "o", "--json")[:2] == (6, "")
        Path("b.png").write_text("foreign")
        code, _, err = stylewatch("apply", photo, "-p", "quick", "-o", "b.png")
        assert code == 6
        assert "not overwritten" in err
        assert Path("b.png").read_text() == "foreign"

    def test_one_result_takes_the_name_and_format_it_is_given(self, stylewatch, tmp_path):
        photo = a_picture(tmp_path / "a.jpg")
        code, out, _ = stylewatch("apply", photo, "-p", "quick", "-o", "x/b.webp")
        assert (code, out) == (0, "x/b.webp\n")
        with Image.open("x/b.webp") as result:
            assert result.format == "WEBP"

    @pytest.mark.parametrize("name", ["b.jpeg", "b.tiff", "b.JPG", "b.heif"])
    def test_one_result_has_the_very_name_it_is_given(self, stylewatch, tmp_path, name):
        photo = a_picture(tmp_path / "a.jpg")
        assert stylewatch("apply", photo, "-p", "quick", "-o", name)[:2] == (0, f"{name}\n")
        assert [file.name for file in Path().iterdir()] == [name]
        assert stylewatch("apply", photo, "-p", "quick", "-o", name)[0] == 6
        assert [file.name for file in Path().iterdir()] == [name]

    def test_a_preset_that_is_a_file_brings_what_lies_beside_it(self, stylewatch, tmp_path, home):
        photo = a_picture(tmp_path / "a.jpg")
        base = (home / ".config/stylewatch/presets/quick.yaml").read_text()
        a_picture(Path("pre/dots.png"), (48, 48))
        Path("pre/beside.yaml").write_text(base)
        Path("pre/mine.yaml").write_text("base: beside\n")
        assert stylewatch("apply", photo, "-p", "pre/mine.yaml")[:2] == (0, "a--mine.jpg\n")
        code, out, _ = stylewatch("presets", "preview", "pre/mine.yaml", photo, "--side", "64")
        assert (code, out) == (0, "a--mine-preview.jpg\n")
        assert "max_side: 32   # beside" in stylewatch("presets", "show", "pre/mine.yaml")[1]
        assert stylewatch("presets", "check", "pre/mine.yaml")[0] == 0

    @pytest.mark.parametrize(
        ("name", "data", "why"),
        [
            ("bad.yaml", b"style: a.jpg", "This is not an image of a kind that is read here: "),
            ("bad.jpg", b"", "The file is empty: received bad.jpg. Name a picture; a preset's"),
        ],
    )
    def test_a_style_image_that_is_none_is_told_at_once(self, stylewatch, name, data, why):
        Path(name).write_bytes(data)
        code, out, err = stylewatch("apply", "a.jpg", "-p", "quick", "--style", name)
        assert (code, out) == (2, "")
        assert f"the style image can't be used: {why}" in one_line(err)

    @pytest.mark.parametrize(
        "command",
        [
            "apply a.jpg -p quick",
            "apply a.jpg -p quick --json",
            "presets preview quick a.jpg",
            "presets sheet a.jpg -p quick",
        ],
    )
    def test_what_is_no_photo_is_told_with_what_to_do(self, stylewatch, command):
        Path("a.jpg").write_text("no photo at all")
        code, out, err = stylewatch(*command.split())
        told = json.loads(out)[0]["message"] if out else err.rstrip()
        assert (code, told.partition(". ")[2]) == (4, "Remove it, or export it as JPEG")

    def test_a_style_image_that_proves_to_be_none_is_told_once(self, stylewatch, tmp_path):
        photo, style = a_picture(tmp_path / "a.jpg"), a_picture(Path("torn.png"), (48, 48))
        style.write_bytes(style.read_bytes()[:80])
        command = ("apply", photo, photo, "-p", "quick", "--style", "torn.png")
        assert stylewatch(*command, "--json")[:2] == (3, "")
        code, out, err = stylewatch(*command)
        assert (code, out) == (3, "")
        assert err.count("torn.png can't be read: The image is incomplete or damaged") == 1
        assert err.rstrip().endswith("Put it back, or name another")

    @pytest.mark.parametrize(
        ("output", "watched"), [("in", True), ("in/Rome/b.jpg", True), ("out", False)]
    )
    def test_a_result_that_would_come_in_as_a_photo_is_told_of(
        self, stylewatch, tmp_path, output, watched
    ):
        photo = a_picture(tmp_path / "a.jpg")
        Path("in").mkdir()
        Path("stylewatch.yaml").write_text("folders: [{input: in, output: out}]\n")
        code, _, err = stylewatch("apply", photo, "-p", "quick", "-o", output)
        told = f"{Path.cwd() / 'in'} is watched: results there are painted again; choose another with -o"
        assert (code, told in err.splitlines()) == (0, watched)

    @pytest.mark.parametrize(("side", "width"), [("24", 24), ("photo", 40)])
    def test_json_tells_figures(self, stylewatch, tmp_path, side, width):
        photo = a_picture(tmp_path / "a.jpg")
        code, out, err = stylewatch(
            *("--log-format", "json", "apply", photo, "-p", "quick", "--json"),
            *("--set", "evaluations=[3]", "--set", "output.quality=80", "--max-side", side),
        )
        assert code == 0
        [told] = json.loads(out)
        assert told["output"] == "a--quick.jpg"
        assert (told["evaluations"], told["width"]) == (3, width)
        assert told["loss"] > 0
        kinds = [json.loads(line)["event"] for line in err.splitlines() if line.startswith("{")]
        assert kinds[0] == "running"
        assert kinds[-1] == "done"

    def test_a_name_that_is_no_utf8_and_steers_terminals(self, tmp_path, capfdbinary):
        a_picture(tmp_path / "a.jpg").rename(tmp_path / NASTY)
        assert cli.main(["apply", str(tmp_path / NASTY), "-p", "quick", "-o", "o"]) == 0
        out, err = capfdbinary.readouterr()
        assert b"\x1b" not in err
        assert rb"\x1b[31m\xff" in err
        assert os.path.exists(out.removesuffix(b"\n"))  # byte for byte: `xargs` finds it

    def test_a_link_to_a_photo_is_painted_under_its_own_name(self, stylewatch, tmp_path):
        a_picture(tmp_path / "photos/a.jpg")
        (tmp_path / "folder").symlink_to("photos")
        (tmp_path / "link.jpg").symlink_to("folder/a.jpg")
        assert stylewatch("apply", "../link.jpg", "-p", "quick")[:2] == (0, "link--quick.jpg\n")
        assert (tmp_path / "link.jpg").is_symlink()

    def test_what_is_no_file_is_not_waited_for(self, home, tmp_path):
        os.mkfifo("pipe.jpg")
        done = subprocess.run(
            [sys.executable, "-m", "stylewatch", "apply", "pipe.jpg", "/dev/stdin", "-p", "quick"],
            input="a photo", capture_output=True, text=True, env=os.environ | PATHS, timeout=60,
            check=False,
        )  # fmt: skip
        assert done.returncode == 4
        told = [
            line.split(maxsplit=2)[2] for line in done.stderr.splitlines() if " failed " in line
        ]
        remedy = "is not a regular file. Save the photo as a file first"
        assert told == [f"pipe.jpg {remedy}", f"/dev/stdin {remedy}"]

    def test_a_tilde_that_no_shell_sees_is_the_home_folder(self, stylewatch, tmp_path, home):
        photo = a_picture(tmp_path / "a.jpg")
        a_picture(home / "art.png")
        options = ("-p", "quick", "--style=~/art.png", "--output=~/paint")
        code, out, _ = stylewatch("apply", photo, *options)
        assert (code, out) == (0, f"{home}/paint/a--quick-art.jpg\n")
        a_picture(home / "a b.jpg")
        assert stylewatch("apply", "~/a b.jpg", *options)[0] == 0  # in quotes, for its space
        assert stylewatch("init", "~/all of it")[0] == 0
        assert (home / "all of it/in").is_dir()
        assert not Path("~").exists()
        assert str(home / "none.h5") in stylewatch("demo", "--weights=~/none.h5")[2]

    def test_preview_is_small(self, stylewatch, tmp_path):
        photo = a_picture(tmp_path / "a.jpg", (400, 300))
        code, out, _ = stylewatch("presets", "preview", "quick", photo, "--side", "64")
        assert (code, out) == (0, "a--quick-preview.jpg\n")
        with Image.open("a--quick-preview.jpg") as result:
            assert result.size == (64, 48)

    def test_a_preview_takes_other_values_for_a_try_and_may_be_of_the_photo_that_comes_along(
        self, stylewatch
    ):
        options = ("--side", "64", "--set", "output.format=png", "--set", "max_side=100")
        code, out, _ = stylewatch("presets", "preview", "quick", *options)
        assert (code, out) == (0, "demo--quick-preview.png\n")
        with Image.open(out.strip()) as result:
            assert result.size == (64, 43), "--side is how large a preview is"

    def test_a_sheet_shows_which_of_several_style_images_suits(self, stylewatch, tmp_path):
        photo = a_picture(tmp_path / "a.jpg", (400, 300))
        colours = {"b.png": (200, 120, 40), "c.png": (40, 200, 120)}
        styles = [f"--style={a_picture(Path(each), (48, 48), colours[each])}" for each in colours]
        options = ("-p", "quick", *styles, "--side", "64")
        code, out, err = stylewatch("presets", "sheet", photo, *options)
        told = [line.split()[1:3] for line in err.splitlines() if " done " in line]
        assert (code, told) == (0, [["done", "quick-b"], ["done", "quick-c"]])
        with Image.open(out.strip()) as sheet:
            assert sheet.size == (64 * 2, 2 * (48 + 24))
        assert ["1 is the photo", "2 is quick-b", "3 is quick-c"] == err.splitlines()[-4:-1]

    def test_a_sheet_shows_a_photo_in_several_styles(self, stylewatch, tmp_path, home, monkeypatch):
        monkeypatch.setattr("stylewatch.jobs.styletransfer._ENOUGH", 1)
        photo = a_picture(tmp_path / "a.jpg", (400, 300))
        a_picture(Path("other.png"), (48, 48))
        Path("mine.yaml").write_text("base: quick\nstyle: other.png\ntime_budget: 1ms\n")
        options = ("-p", "quick", "-p", "mine.yaml", "--side", "64", "-o", "sheets")
        code, out, err = stylewatch("presets", "sheet", photo, *options)
        assert (code, out) == (0, "sheets/a--presets.jpg\n")
        told = [line.split()[1:] for line in err.splitlines() if " done " in line]
        assert [words[:3] for words in told] == [["done", "quick", "in"], ["done", "mine", "in"]]
        assert "(time budget spent" in err, "as of built-in features for VGG19's"
        with Image.open(out.strip()) as sheet:
            assert sheet.size == (64 * 2, 2 * (48 + 24))
        assert stylewatch("presets", "sheet", photo, *options)[1] == "sheets/a--presets~2.jpg\n"

    def test_a_sheet_of_all_styles_leaves_out_what_can_t_be_painted(
        self, stylewatch, tmp_path, home, monkeypatch
    ):
        monkeypatch.setattr("stylewatch.settings.presets.shipped_presets_dir", lambda: home)
        presets = home / ".config/stylewatch/presets"
        (presets / "bare.yaml").write_text("base: quick\nstyle: []\n")
        (presets / "broken.yaml").write_text("base: nobody\n")
        Path("cut-off.jpg").write_text("hello")
        (presets / "sofa.yaml").write_text(
            f"base: quick\nstyle: {Path('cut-off.jpg').absolute()}\n"
        )
        photo = a_picture(tmp_path / "a.jpg", (400, 300))
        code, out, err = stylewatch("presets", "sheet", photo, "--side", "64")
        assert (code, err.count(" done ")) == (0, 1)
        told = [line for line in err.splitlines() if "not on the sheet: " in line]
        assert ["unknown preset 'nobody'" in told[0], "cut-off.jpg" in told[1]] == [True, True]
        assert [line.partition("sheet: ")[2].split()[0] for line in told] == ["broken:", "sofa:"]
        with Image.open(out.strip()) as sheet:
            assert sheet.size == (64 * 2, 48 + 24)
        code, out, err = stylewatch("presets", "sheet", photo, "-p", "sofa", "-p", "quick")
        assert (code, out) == (1, "a--presets~2.jpg\n"), "it was asked for by its name"
        code, out, err = stylewatch("presets", "sheet", photo, "-p", "sofa")
        assert (code, out, err.count("cut-off.jpg")) == (3, "", 1)
        Path("mine.yaml").write_text("base: sofa\nseed: 1\n")
        options = ("-p", "sofa", "-p", "mine.yaml")
        code, out, err = stylewatch("presets", "sheet", photo, *options)
        assert (code, out, err.count("cut-off.jpg")) == (3, "", 2), "each is told once"

    @pytest.mark.parametrize("error", ["ValueError", "OSError"])
    def test_a_sheet_leaves_out_a_style_whose_effect_breaks_down(
        self, stylewatch, tmp_path, monkeypatch, error
    ):
        effect_package(tmp_path / "site", f"raise {error}('no model')")
        monkeypatch.syspath_prepend(tmp_path / "site")
        monkeypatch.delitem(sys.modules, "own_effect", raising=False)
        Path("own.yaml").write_text("effect: own")
        photo = a_picture(tmp_path / "a.jpg", (400, 300))
        options = ("-p", "quick", "-p", "own.yaml", "--side", "64")
        code, out, err = stylewatch("presets", "sheet", photo, *options)
        assert (code, out) == (1, "a--presets.jpg\n")
        assert f"not on the sheet: own: {error}: no model" in err

    def test_presets_that_are_the_same_but_for_their_names_are_one_picture(self, stylewatch):
        """As `painting` and `meadow` are; here of the photo that comes along."""
        Path("mine.yaml").write_text("base: quick\n")
        options = ("-p", "quick", "-p", "mine.yaml", "--side", "64")
        code, out, err = stylewatch("presets", "sheet", *options)
        assert (code, err.count(" done ")) == (0, 1)
        with Image.open(out.strip()) as sheet:
            assert sheet.size == (64 * 2, 43 + 24)

    def test_a_sheet_may_have_a_name_of_its_own(self, stylewatch, tmp_path):
        photo = a_picture(tmp_path / "a.jpg", (400, 300))
        options = ("-p", "quick", "--side", "64", "-o")
        assert stylewatch("presets", "sheet", photo, *options, "s/all.png")[1] == "s/all.png\n"
        with Image.open("s/all.png") as sheet:
            assert sheet.format == "PNG"
        for name, code, words in (
            ("s/all.png", 6, "already exists"),
            ("all.gif", 2, "can't be written in this format"),
        ):
            found, out, err = stylewatch("presets", "sheet", photo, *options, name)
            assert (found, out, words in one_line(err)) == (code, "", True)

    def test_a_sheet_has_all_presets_of_a_name_and_any_photo_s_name(self, stylewatch, tmp_path):
        photo = a_picture(tmp_path / f"{'a' * 245}.jpg", (400, 300))
        Path("mine").mkdir()
        Path("mine/quick.yaml").write_text("base: quick\nstrength: 20\n")
        options = ("-p", "quick", "-p", "mine/quick.yaml", "--side", "64")
        code, out, _ = stylewatch("presets", "sheet", photo, *options)
        assert (code, out.endswith("--presets.jpg\n")) == (0, True)
        with Image.open(out.strip()) as sheet:
            assert sheet.size == (64 * 2, 2 * (48 + 24))
            below = np.asarray(sheet.convert("L"))[-24:, :64]
        assert below.min() < 50, "the last one's name"

    def test_a_sheet_of_what_is_no_photo_is_told_once(self, stylewatch):
        Path("a.jpg").write_text("hello")
        code, out, err = stylewatch("presets", "sheet", "a.jpg", "-p", "quick")
        assert (code, out, err.count("This is not an image")) == (4, "", 1)
        assert [file.name for file in Path().iterdir()] == ["a.jpg"]

    def test_nothing_is_painted_for_a_sheet_that_can_t_be_kept(self, stylewatch, tmp_path):
        photo = a_picture(tmp_path / "a.jpg")
        Path("full").write_text("")
        code, _, err = stylewatch("presets", "sheet", photo, "-p", "quick", "-o", "full/sheets")
        assert code == 6
        assert "painting" not in err


class TestBatches:
    """What comes of many photos, without painting any."""

    PHOTOS = ("a.jpg", "b.jpg", "c.jpg")

    def apply(self, stylewatch, monkeypatch, paint, *options):
        """Run `apply` with `paint(request)` for a worker."""
        for name in self.PHOTOS:
            a_picture(Path(name))
        monkeypatch.setattr("stylewatch.jobs.worker.render_job", lambda request, *_: paint(request))
        return stylewatch("apply", *self.PHOTOS, "-p", "quick", "-o", "o", *options)

    def painted(self, request):
        return rendered(request, b"picture", facts={"features": "none"})

    def test_an_exception_costs_one_photo(self, stylewatch, monkeypatch, home):
        def paint(request):
            if request.source.name == "b.jpg":
                raise RuntimeError("out of\nluck")
            return self.painted(request)

        with open(2, "w", closefd=False) as stderr:  # as it is outside of tests
            monkeypatch.setattr(sys, "stderr", stderr)
            code, out, err = self.apply(stylewatch, monkeypatch, paint)
        assert (code, out) == (1, "o/a--quick.jpg\no/c--quick.jpg\n")
        [line] = [line for line in err.splitlines() if " failed " in line]
        assert line.endswith(
            "b.jpg: RuntimeError: out of luck. "
            "The full traceback is in `chatter.log` in the state folder, "
            "or, on a cluster, in what the `dask worker` prints"
        )
        assert "Traceback" not in err
        chatter = home / ".local/state/stylewatch/chatter.log"
        assert "RuntimeError: out of" in chatter.read_text()

    @pytest.mark.parametrize("name", ["o/sub", "o.jpg/sub", f"{'x' * 250}.jpg"])
    def test_an_output_that_cannot_be_written_costs_no_painting(
        self, stylewatch, monkeypatch, name
    ):
        Path("o").write_text("a file")
        Path("o.jpg").symlink_to("/proc/nowhere")
        monkeypatch.setattr(self, "PHOTOS", ("a.jpg",))
        code, out, err = self.apply(stylewatch, monkeypatch, pytest.fail, "-o", name)
        assert (code, out) == (6, "")
        assert "can't be written" in one_line(err)

    def test_what_a_photo_took_that_failed_is_free_when_the_next_begins(
        self, stylewatch, monkeypatch
    ):
        before = []

        def paint(request):
            assert [picture for picture in before if picture() is not None] == []
            picture = np.zeros(9)  # a local of a frame that the error refers to
            before.append(weakref.ref(picture))
            raise InputError("no use")

        assert self.apply(stylewatch, monkeypatch, paint)[0] == ExitCode.INPUT
        assert len(before) == len(self.PHOTOS)

    def test_where_nothing_can_be_painted_no_other_photo_is_tried(self, stylewatch, monkeypatch):
        tried = []

        def paint(request):
            tried.append(request)
            raise DeviceError("No AVX", remedy="Take another")

        code, _, err = self.apply(stylewatch, monkeypatch, paint)
        assert (code, len(tried)) == (1, 1)
        assert err.splitlines()[-1] == "stylewatch: No AVX. Take another"

    def test_of_the_test_whether_the_output_can_be_written_nothing_is_left(
        self, stylewatch, monkeypatch
    ):
        def paint(request):
            assert list(request.target.parent.iterdir()) == []
            raise KeyboardInterrupt

        assert self.apply(stylewatch, monkeypatch, paint)[0] == 130

    def test_each_path_is_told_as_soon_as_it_is_there(self, stylewatch, monkeypatch, capfd):
        told = []

        def paint(request):
            told.append(capfd.readouterr().out)
            return self.painted(request)

        self.apply(stylewatch, monkeypatch, paint)
        assert told == ["", "o/a--quick.jpg\n", "o/b--quick.jpg\n"]

    @pytest.mark.parametrize("options", [(), ("--json",)])
    def test_what_is_painted_is_told_when_the_next_one_ends_it_all(
        self, stylewatch, monkeypatch, options
    ):
        def paint(request):
            if request.source.name == "b.jpg":
                raise KeyboardInterrupt
            return self.painted(request)

        code, out, _ = self.apply(stylewatch, monkeypatch, paint, *options)
        assert code == 130
        outputs = [one["output"] for one in json.loads(out)] if options else out.split()
        assert outputs == ["o/a--quick.jpg"]

    def test_json_tells_of_photos_that_failed_too(self, stylewatch, monkeypatch):
        def paint(request):
            if request.source.name == "b.jpg":
                raise InputError("b.jpg: cut", reason="truncated")
            return self.painted(request)

        code, out, _ = self.apply(stylewatch, monkeypatch, paint, "--json")
        told = json.loads(out)
        assert (code, [one["photo"] for one in told]) == (1, list(self.PHOTOS))
        assert told[0]["output"] == "o/a--quick.jpg"
        assert told[1] == {
            "photo": "b.jpg", "preset": "quick", "output": None, "reason": "truncated",
            "message": "b.jpg: cut. Copy it again from its source",
        }  # fmt: skip

    def test_weights_that_are_fetched_are_told_before_and_after(
        self, stylewatch, monkeypatch, home
    ):
        asked = []

        def load(**how):
            asked.append(how)
            print("a bar")

        monkeypatch.setattr("stylewatch.engine.features.load_vgg19", load)
        code, out, err = stylewatch("weights", "fetch")
        assert (code, asked) == (0, [{"progress": False}])  # a bar is for terminals
        assert out == f"{keras_weights()}\n"
        assert err.splitlines() == [
            "loading Keras, which takes a moment",
            "downloading 80 MB to ~/.keras/models",
            "a bar",
            "the weights are in ~/.keras/models",
        ]
        monkeypatch.setattr("stylewatch.settings.weights.downloaded", lambda: True)
        assert "downloading" not in stylewatch("weights", "fetch")[2]

    def test_weights_are_not_fetched_where_tensorflow_would_end_the_process(
        self, stylewatch, monkeypatch
    ):
        monkeypatch.setattr("stylewatch.engine.machine.cpu_flags", lambda: frozenset({"sse4_2"}))
        monkeypatch.delenv("KERAS_BACKEND", raising=False)
        monkeypatch.setattr("stylewatch.engine.features.load_vgg19", lambda **_: None)
        code, out, err = stylewatch("weights", "fetch")
        assert (code, out) == (1, "")
        assert "no AVX" in err

    def test_where_the_weights_belong_is_told_whether_they_are_there_or_not(self, stylewatch):
        code, out, err = stylewatch("weights", "path")
        assert (code, out) == (ExitCode.WEIGHTS, f"{keras_weights()}\n")
        assert "`stylewatch weights fetch`" in one_line(err)
        keras_weights().parent.mkdir(parents=True)
        keras_weights().touch()
        assert stylewatch("weights", "path") == (0, f"{keras_weights()}\n", "")

    @pytest.mark.parametrize("reason", ["weights", "weights-missing"])
    def test_without_weights_no_other_photo_is_tried(self, stylewatch, monkeypatch, reason):
        tried = []

        def paint(request):
            tried.append(request.source.name)
            raise WeightsError("no weights", reason=reason)

        code, out, err = self.apply(stylewatch, monkeypatch, paint)
        assert (code, out, tried) == (ExitCode.WEIGHTS, "", ["a.jpg"])
        assert err.endswith("stylewatch: no weights\n")

    def test_a_dot_changes_one_value_of_a_mapping(self, stylewatch, monkeypatch):
        seen = []

        def paint(request):
            seen.append(request.preset)
            return self.painted(request)

        pairs = ["style_layers.block3_conv1=0.5", "output.quality=80", "strength=3", "strength = 4"]
        pairs += ["optimizer=adam", "precision=float32"]
        options = [part for pair in pairs for part in ("--set", pair)] + ["--features", "vgg19"]
        assert self.apply(stylewatch, monkeypatch, paint, *options)[0] == 0
        settings = seen[0].settings
        used = (settings.optimizer, settings.precision, settings.features)
        assert used == ("adam", "float32", "vgg19")
        assert settings.style_layers["block3_conv1"] == 0.5
        assert len(settings.style_layers) == 5
        assert (settings.strength, seen[0].output.quality) == (4.0, 80)

        whole = [
            "--set",
            'style_layers={"block1_conv1": 1}',
            "--set",
            "style_layers.block2_conv1=2",
        ]
        self.apply(stylewatch, monkeypatch, paint, *whole)
        assert seen[-1].settings.style_layers == {"block1_conv1": 1.0, "block2_conv1": 2.0}

        whole[1] = "style_layers= {block1_conv1: 0.2, 'block4_conv1': 1} "  # as in a preset
        assert self.apply(stylewatch, monkeypatch, paint, *whole)[0] == 0
        layers = {"block1_conv1": 0.2, "block4_conv1": 1.0, "block2_conv1": 2.0}
        assert seen[-1].settings.style_layers == layers

    def test_a_number_is_written_as_in_a_preset(self):
        pairs = ["subject=.5", "strength=+30.", "seed=+7", "init=1.jpg", "time_budget=5min"]
        values = [0.5, 30.0, 7, "1.jpg", "5min"]
        assert list(parse_settings(pairs).values()) == values
        for odd in ("-", "-.", "-a: b", "+&x", ".#", "1e", "+1e999", "0:", "--- a", "٣"):
            assert parse_settings([f"init={odd}"]) == {"init": odd}

    def test_what_is_set_last_holds_also_beside_the_whole_mapping(self):
        pairs = ["output.quality=80", 'output={"format": "png"}', "output.quality=90"]
        assert list(parse_settings(pairs)) == ["output", "output.quality"]

    @pytest.mark.parametrize("piped", [True, False])
    def test_each_path_is_told_once_by_a_live_bar_and_to_a_pipe_beside_it(
        self, tmp_path, home, piped
    ):
        """Rich takes over sys.stdout while it draws on a terminal."""
        photos = [a_picture(tmp_path / name) for name in ("a.jpg", "b.jpg")]
        drawn, out = on_a_terminal("apply", *photos, "-p", "quick", piped=piped)
        assert out == ("a--quick.jpg\nb--quick.jpg\n" if piped else "")
        assert "✓" in drawn
        assert "2/2 b.jpg → quick" in drawn
        assert drawn.count("a--quick.jpg") == 1

    def test_a_bar_is_followed_by_one_line_and_no_traceback(self, tmp_path, home):
        effect_package(Path(), "raise ValueError('bad')")
        (tmp_path / "own.yaml").write_text("effect: own")
        photo = a_picture(tmp_path / "a.jpg")
        drawn, _ = on_a_terminal("apply", photo, "-p", tmp_path / "own.yaml", piped=False, code=1)
        assert "ValueError: bad" in drawn
        assert "Traceback" not in drawn
        assert "Traceback" in (home / ".local/state/stylewatch/chatter.log").read_text()

    @pytest.mark.parametrize("render", ["print('hello'); sys.exit('enough')", "print('hello')"])
    def test_what_an_effect_prints_or_ends_with_is_its_own_affair(
        self, stylewatch, monkeypatch, tmp_path, render
    ):
        effect_package(tmp_path / "site", render)
        monkeypatch.syspath_prepend(tmp_path / "site")
        monkeypatch.delitem(sys.modules, "own_effect", raising=False)
        Path("own.yaml").write_text("effect: own")
        photos = [a_picture(Path(name)) for name in ("a.jpg", "b.jpg")]
        code, out, _ = stylewatch("apply", *photos, "-p", "own.yaml", "--json")
        assert code == 1
        assert [told["output"] for told in json.loads(out)] == [None, None]


class TestWithoutADaemon:
    @pytest.mark.parametrize(
        "arguments", [["pause"], ["resume"], ["cancel", "1"], ["retry", "--all"], ["console"]]
    )
    def test_who_asks_is_told_in_one_line(self, stylewatch, arguments):
        code, out, err = stylewatch(*arguments)
        assert (code, out) == (8, "")
        assert "no stylewatch daemon" in one_line(err)

    def test_status_tells_what_the_ledger_knows(self, stylewatch, home):
        code, out, err = stylewatch("status")
        assert (code, out) == (8, "no daemon answers\n")
        assert "stylewatch run" in one_line(err)
        code, out, _ = stylewatch("status", "--json")
        assert code == 8
        assert json.loads(out)["running"] is False

    @pytest.mark.parametrize("command", ["status", "pause", "console"])
    def test_whoever_waits_for_one_that_hangs_is_told_so(
        self, stylewatch, home, monkeypatch, command
    ):
        told = []
        state = home / ".local/state/stylewatch"
        state.mkdir(parents=True)
        monkeypatch.chdir(state)  # its whole name may be too long for a socket
        with socket.socket(socket.AF_UNIX) as hangs:
            hangs.bind("control.sock")
            hangs.listen()
            monkeypatch.setattr(steering, "_SOON", 0.0)
            monkeypatch.setattr(steering, "note", lambda line: (told.append(line), hangs.close()))
            code, _, _ = stylewatch(command)
        assert told == ["the daemon has not answered yet; waiting 10 s for it at most"]
        assert code == 8

    def test_before_the_first_daemon_there_are_no_jobs(self, stylewatch):
        told = "there is no ledger in ~/.local/state/stylewatch: nothing has been painted yet\n"
        assert stylewatch("jobs") == (0, "no such jobs\n", told)
        assert stylewatch("jobs", "--json") == (0, "[]\n", told)

    def test_a_state_whose_name_only_looks_like_a_home_folder(self, stylewatch):
        code, _, err = stylewatch("status", "--state", "./~root")
        assert (code, f"no stylewatch daemon for {Path.cwd() / '~root'}." in err) == (8, True)

    def test_jobs_are_chosen_by_how_they_stand(self, stylewatch, tmp_path):
        options = ("--running", "--failed", "--held", "--done", "--waiting")
        with closing(Ledger(tmp_path / "ledger.db")) as ledger:
            for number, name in enumerate(options):
                photo = Photo("in", tmp_path, Path(name), Identity(1, number, 9, 9, 9))
                ledger.add(photo, name, "", [Planned("ink", name, Path("/out") / name)])
            assert [ledger.claim("in").id for _ in range(2)] == [1, 2]
            failure = Failure(kind=FailureKind.BAD_INPUT, reason="truncated", message="cut")
            ledger.fail(2, failure, 3)
            ledger.hold(3, "cancelled")
            ledger.done(4, Path("/out/4.jpg"))

        def listed(*chosen):
            told = stylewatch("jobs", *chosen, "--json", "--state", tmp_path)[1]
            return [job["photo"] for job in json.loads(told)]

        with ControlServer(tmp_path, Answering().ask, {"version": "1"}):
            assert [listed(option) for option in options] == [[option] for option in options]
            assert set(listed("--running", "--held")) == {"--running", "--held"}
            assert set(listed()) == set(options)
        assert set(listed("--waiting")) == {"--running", "--waiting"}  # nobody is at work

    def test_jobs_say_how_many_more_there_are_and_programs_get_all(self, stylewatch, tmp_path):
        ledger = Ledger(tmp_path / "ledger.db")
        for number in range(60):
            path = Path(os.fsdecode(b"caf\xe9.jpg")) if number == 7 else Path(f"{number}.jpg")
            photo = Photo("in", tmp_path, path, Identity(1, number, 9, 9, 9))
            ledger.add(photo, "d", "", [Planned("ink", f"key {number}", Path(f"/out/{number}"))])
        ledger.close()
        state = ("--state", tmp_path)
        code, out, err = stylewatch("jobs", *state)
        assert (code, out.count("\n"), err) == (0, 50, "… and 10 more (`--limit`)\n")
        assert stylewatch("jobs", "--limit", 58, *state)[2] == "… and 2 more (`--limit`)\n"
        assert stylewatch("jobs", "--limit", 60, *state)[2] == ""
        code, out, err = stylewatch("jobs", "--json", *state)
        assert (code, len(json.loads(out)), err) == (0, 60, "")
        assert out == json.dumps(json.loads(out), indent=2) + "\n"
        assert r"caf\xe9.jpg" in {job["photo"] for job in json.loads(out)}
        assert len(json.loads(stylewatch("jobs", "--json", "--limit", 5, *state)[1])) == 5
        assert stylewatch("jobs", "--limit", 10**20, *state)[1].count("\n") == 60

    def test_a_broken_config_does_not_hide_what_the_usual_ledger_knows(self, stylewatch):
        Path("stylewatch.yaml").write_text("folders: [")
        code, out, err = stylewatch("status")
        assert (code, out) == (8, "no daemon answers\n")
        assert "not valid YAML" in err.splitlines()[0]
        assert stylewatch("status", "-c", "stylewatch.yaml")[0] == 3

    @pytest.mark.parametrize("arguments", [[], ["1", "--all"], ["--all", "--reason", "crash"]])
    def test_retry_wants_one_thing(self, stylewatch, arguments):
        code, _, err = stylewatch("retry", *arguments)
        assert code == 2
        assert "what to retry is not clear: expected ID, --all or --reason R" in one_line(err)


@pytest.mark.parametrize(
    ("state", "remedy"),
    [("done", "`touch` its photo to have a deleted result again"), ("ready", "Only what was set")],
)
def test_what_can_t_be_retried_is_told_with_what_to_do(stylewatch, tmp_path, state, remedy):
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        photo = Photo("in", tmp_path, Path("a.jpg"), Identity(1, 1, 9, 9, 9))
        ledger.add(photo, "d", "", [Planned("ink", "key", Path("/out/a"))])
        ledger.change("UPDATE jobs SET state = ?", state)
    daemon = Answering()
    daemon.answers["retry"] = 0
    with ControlServer(tmp_path, daemon.ask, {"version": "1"}):
        code, _, err = stylewatch("retry", "1", "--state", tmp_path)
    assert (code, remedy in one_line(err)) == (2, True)


def test_cancel_says_whether_the_job_is_set_aside_yet(stylewatch, tmp_path):
    ledger = Ledger(tmp_path / "ledger.db")
    for number in (1, 2):
        photo = Photo("in", tmp_path, Path(f"{number}.jpg"), Identity(1, number, 9, 9, 9))
        ledger.add(photo, "d", "", [Planned("ink", f"key {number}", Path(f"/out/{number}"))])
    assert ledger.claim("in").id == 1
    ledger.hold(2, "cancelled")
    ledger.close()
    with ControlServer(tmp_path, Answering().ask, {"version": "1"}):
        told = [stylewatch("cancel", number, "--state", tmp_path)[2] for number in (1, 2)]
    assert told == [
        "job 1 is being set aside; then `stylewatch retry 1` brings it back\n",
        "job 2 is set aside; `stylewatch retry 2` brings it back\n",
    ]


def test_cancel_is_done_by_a_daemon_with_an_older_ledger_too(stylewatch, tmp_path):
    with sqlite3.connect(tmp_path / "ledger.db") as db:
        db.execute("PRAGMA user_version = 1")
    db.close()
    with ControlServer(tmp_path, Answering().ask, {"version": "1"}):
        told = stylewatch("cancel", "1", "--state", tmp_path)
    assert told == (0, "", "job 1 is being set aside; then `stylewatch retry 1` brings it back\n")


@pytest.mark.parametrize(("left", "code"), [(True, 0), (False, 8)])
def test_who_leaves_the_console_has_not_failed(stylewatch, tmp_path, monkeypatch, left, code):
    def events(client):
        if left:
            signal.raise_signal(signal.SIGTERM)
        else:
            (tmp_path / "control.sock").unlink()
        return iter(())

    monkeypatch.setattr("stylewatch.app.remote.Client.events", events)
    with ControlServer(tmp_path, Answering().ask, {"version": "1"}):
        assert stylewatch("console", "--state", tmp_path)[0] == code


def test_a_daemon_that_has_hung_up_has_not_ended(stylewatch, tmp_path, monkeypatch):
    """As it does on who does not read what it tells, being stopped or behind a pager."""
    monkeypatch.setattr("stylewatch.app.remote.Client.events", lambda _client: iter(()))
    with ControlServer(tmp_path, Answering().ask, {"version": "1"}):
        code, _, err = stylewatch("console", "--state", tmp_path)
    assert (code, "the daemon hung up" in one_line(err)) == (1, True)


def test_nor_has_who_leaves_it_before_it_has_begun(stylewatch, tmp_path, monkeypatch):
    real = Client.events

    def events(client):
        signal.raise_signal(signal.SIGTERM)
        return real(client)

    monkeypatch.setattr(Client, "events", events)
    with ControlServer(tmp_path, Answering().ask, {"version": "1"}):
        assert stylewatch("console", "--state", tmp_path) == (0, "", "")


PATIENT = """
import sys
from stylewatch.__main__ import main
from stylewatch.app import remote
remote.ANSWER_SECONDS = 1000.0
sys.exit(main())
"""


def test_who_asks_a_daemon_that_hangs_for_a_pause_may_leave_all_the_same(tmp_path):
    asked = []
    server = ControlServer(tmp_path, lambda command: asked.append(command) or Future(), {})
    ours, terminal = pty.openpty()
    attached = [sys.executable, "-c", PATIENT, "console", "--state", tmp_path]
    with server, ExitStack() as ended:
        process = subprocess.Popen(
            attached, stdin=terminal, stdout=terminal, stderr=terminal,
            env=os.environ | PATHS | {"TERM": "xterm"},
        )  # fmt: skip
        ended.callback(process.wait)
        ended.callback(process.kill)
        os.close(terminal)
        drawn = b""
        while b"leave" not in drawn:
            drawn += os.read(ours, 4096)
        os.write(ours, b"ppp")
        wait_until(lambda: asked)
        os.write(ours, b"q")
        assert process.wait(60) == 0
    assert asked == ["pause"]
    os.close(ours)


def test_no_table_is_made_for_programs(stylewatch, tmp_path, monkeypatch):
    Ledger(tmp_path / "ledger.db").close()
    monkeypatch.setattr(overview, "jobs_text", lambda found: 1 / 0)
    assert stylewatch("jobs", "--json", "--state", tmp_path)[:2] == (0, "[]\n")


class TestWhichDaemon:
    """Each command is for the daemon of the config, also when that has just become broken."""

    @pytest.fixture
    def daemons(self, home, tmp_path):
        """What the config's daemon is asked, and what another one in the usual place is."""
        places = {tmp_path / "state": tmp_path / "mine.yaml"}
        places[home / ".local/state/stylewatch"] = tmp_path / "other.yaml"
        with ExitStack() as stack:
            made = []
            for place, config in places.items():
                place.mkdir(parents=True)
                daemon = Answering()
                about = {"version": "1", "config": str(config)}
                stack.enter_context(ControlServer(place, daemon.ask, about))
                made.append(daemon.asked)
            yield made

    @pytest.mark.parametrize("text", ["foldres: []\n", "folders: []\n", "presets: [none]\n"])
    def test_a_config_with_errors_still_says_where_its_daemon_is(
        self, stylewatch, daemons, tmp_path, monkeypatch, text
    ):
        mine, other = daemons
        file = tmp_path / "mine.yaml"
        file.write_text(f"state_dir: state\n{text}")
        assert stylewatch("pause", "-c", file) == (0, "", "paused; `stylewatch resume` goes on\n")
        monkeypatch.chdir(tmp_path)
        file.rename("stylewatch.yaml")
        assert stylewatch("resume")[0] == 0
        assert [mine, other] == [[("pause", {}), ("resume", {})], []]

    def test_without_a_hint_no_other_daemon_is_asked(self, stylewatch, daemons, tmp_path):
        file = tmp_path / "mine.yaml"
        file.write_text("state_dir: state\nfolders: [")
        code, _, err = stylewatch("pause", "-c", file)
        assert (code, "not valid YAML" in one_line(err)) == (3, True)
        file.write_text("state_dir: [state]\n")
        assert stylewatch("pause", "-c", file)[0] == 3
        file.write_text("folders: [")
        file.rename(tmp_path / "work/stylewatch.yaml")
        assert stylewatch("pause")[0] == 3
        assert daemons == [[], []]

    def test_the_usual_one_is_asked_and_the_error_told_where_it_is_this_config_s(
        self, stylewatch, daemons, tmp_path
    ):
        file = tmp_path / "other.yaml"
        file.write_text("folders: [")
        code, _, err = stylewatch("pause", "-c", file)
        assert (code, daemons) == (0, [[], [("pause", {})]])
        assert [line.split(":")[0] for line in err.splitlines()] == [
            "stylewatch", "paused; `stylewatch resume` goes on",
        ]  # fmt: skip
        assert "not valid YAML" in err
        assert stylewatch("cancel", 1, "-c", file)[2].count("not valid YAML") == 1

    def test_a_broken_config_in_its_usual_place_hides_no_watch(self, stylewatch, home):
        state, file = home / ".local/state/stylewatch", home / ".config/stylewatch/stylewatch.yaml"
        state.mkdir(parents=True)
        file.write_text("folders: [")
        daemon = Answering()
        with ControlServer(state, daemon.ask, {"version": "1", "config": None}):
            assert stylewatch("pause")[0] == 0
        assert daemon.asked == [("pause", {})]


class TestService:
    @pytest.fixture(autouse=True)
    def no_systemd(self, monkeypatch):
        """Nothing is really installed, whatever this machine has."""
        monkeypatch.setenv("PATH", "/nowhere")

    def test_without_systemd_it_says_so(self, stylewatch, tmp_path):
        stylewatch("init", tmp_path, "--preset", "quick")
        file = tmp_path / "stylewatch.yaml"
        code, _, err = stylewatch("service", "install", "--user", "--config", file)
        assert code == 2
        assert "there is no systemctl" in one_line(err)

    def test_nothing_installed_is_no_service(self, stylewatch):
        code, out, _ = stylewatch("service", "status", "--user")
        assert code == 8
        assert "not installed" in out
        assert json.loads(stylewatch("service", "status", "--user", "--json")[1])["unit"] is None
        assert stylewatch("service", "uninstall", "--user")[0] == 2

    def test_it_may_write_to_its_folders_alone(self, tmp_path, home):
        file = tmp_path / "stylewatch.yaml"
        file.write_text(
            "folders:\n"
            "  - {input: a, output: b, preset: quick}\n"
            "  - {input: c, output: d, preset: quick, after: {move: e}}\n"
        )
        folders = load_config(file).written_folders()
        assert {folder.name for folder in folders} == set("bdce")


class Daemon:
    """A real `stylewatch watch` in a process of its own."""

    def __init__(self, folder, preset="quick"):
        self.input, self.output, self.log = folder / "in", folder / "out", folder / "log"
        (self.input / "quick").mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stylewatch", "--log-format", "json", "watch",
                 self.input, self.output, "-p", preset, "--state", folder / "state"],
                stdin=subprocess.DEVNULL, stderr=log, cwd=folder,
                env=os.environ | PATHS,
            )  # fmt: skip

    def events(self):
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines]

    def wait_for(self, kind, count=1, seconds=100.0):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = [one for one in self.events() if one["event"] == kind]
            if len(found) >= count:
                return found
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)
        raise AssertionError(f"no {kind}: {self.log.read_text()}")


@pytest.fixture
def daemon(tmp_path, home):
    daemon = Daemon(tmp_path)
    yield daemon
    daemon.process.kill()
    daemon.process.wait()


def test_a_preset_that_is_a_file_is_watched_with(tmp_path, home, stylewatch):
    """It is looked for before anything is made; then it paints."""
    (tmp_path / "pre").mkdir()
    quick = (home / ".config/stylewatch/presets/quick.yaml").read_text()
    (tmp_path / "pre/mybase.yaml").write_text(quick)
    (tmp_path / "pre/mine.yaml").write_text("base: mybase\n")
    a_picture(tmp_path / "pre/dots.png", (48, 48))
    (tmp_path / "in").mkdir()
    code, _, err = stylewatch("watch", tmp_path / "in", "out", "-p", "../pre/none.yaml")
    assert code == ExitCode.UNREADABLE
    assert "none.yaml: can't be read" in one_line(err)
    daemon = Daemon(tmp_path, "pre/mine.yaml")
    try:
        daemon.wait_for("started")
        a_picture(daemon.input / "a.jpg")
        [done] = daemon.wait_for("done")
        assert done["output"] == str(daemon.output / "a--mine.jpg")
    finally:
        daemon.process.kill()
        daemon.process.wait()


def test_a_daemon_one_can_talk_to(daemon, stylewatch, tmp_path):
    """One long story, as each daemon costs seconds: it paints, tells, obeys and ends."""
    state = ("--state", tmp_path / "state")
    daemon.wait_for("started")
    a_picture(daemon.input / "sub" / "a.jpg")
    (daemon.input / "text.jpg").write_text("no picture")
    [done] = daemon.wait_for("done")
    assert done["output"] == str(daemon.output / "sub/a--quick.jpg")
    daemon.wait_for("failed")

    code, out, err = stylewatch("status", *state)
    assert (code, err) == (0, "")
    assert f"runs as process {daemon.process.pid}" in out
    told = json.loads(stylewatch("status", "--json", *state)[1])
    assert told["running"]
    assert (told["folders"][0]["done"], told["folders"][0]["failed"]) == (1, 1)

    [failed] = json.loads(stylewatch("jobs", "--failed", "--json", *state)[1])
    assert failed["photo"] == "text.jpg"
    assert "not an image" in failed["message"]
    code, out, _ = stylewatch("jobs", *state)
    assert re.search(r"^#\d+ +done .* sub/a.jpg .*a--quick.jpg$", out, re.MULTILINE)

    code, _, err = stylewatch("retry", f"#{failed['id']}", *state)
    assert (code, err) == (0, "1 job in the queue again\n")
    daemon.wait_for("failed", 2)
    code, _, err = stylewatch("cancel", f"#{failed['id']}", *state)
    assert (code, f"Job {failed['id']} is failed" in one_line(err)) == (2, True)
    code, _, err = stylewatch("retry", done["job_id"], *state)
    assert (code, f"Job {done['job_id']} is done" in one_line(err)) == (2, True)
    code, _, err = stylewatch("retry", "--reason", "bogus", *state)
    assert (code, "expected one of not-an-image" in one_line(err)) == (2, True)

    assert stylewatch("pause", *state)[0] == 0
    assert ", paused" in stylewatch("status", *state)[1]
    a_picture(daemon.input / "quick" / "b.png", colour=(0, 200, 0))
    daemon.wait_for("queued", 3)
    waiting = []
    while not waiting:
        waiting = json.loads(stylewatch("jobs", "--waiting", "--json", *state)[1])
    assert waiting[0]["photo"] == "quick/b.png"
    assert stylewatch("resume", *state)[0] == 0
    daemon.wait_for("done", 2)

    code, _, err = stylewatch("watch", daemon.input, daemon.output, "-p", "quick", *state)
    assert code == 7
    assert str(daemon.process.pid) in one_line(err)

    first = subprocess.run(
        f"{shlex.join([sys.executable, '-m', 'stylewatch', 'console', *map(str, state)])}"
        " 2>&1 | head -n 1",
        shell=True, capture_output=True, timeout=60, env=os.environ | PATHS, check=True,
    )  # fmt: skip
    assert first.stdout.count(b"\n") == 1  # and it has ended, as its reader has

    attached = subprocess.Popen(
        [sys.executable, "-m", "stylewatch", "console", *state], stderr=subprocess.PIPE,
        env=os.environ | PATHS,
    )  # fmt: skip
    assert "b--quick.png" in next(
        line.decode() for line in attached.stderr if b"b--quick" in line
    )  # what happened before it came
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(60) == 0
    assert attached.wait(60) == 8
    assert b"the daemon has ended" in attached.stderr.read()
    attached.stderr.close()
    assert daemon.events()[-1]["event"] == "stopping"
    assert sorted(path.name for path in daemon.output.rglob("*.*")) == [
        "a--quick.jpg", "b--quick.png",
    ]  # fmt: skip


def test_a_state_folder_on_a_disk_without_sockets_is_one_clear_error(stylewatch, monkeypatch):
    def bind(*_):  # as FAT answers
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(socket.socket, "bind", bind)
    Path("in").mkdir()
    code, _, err = stylewatch("watch", "in", "out", "-p", "quick", "--state", "s")
    assert (code, Path("s/control.sock").exists()) == (6, False)
    assert "/s can't hold a socket: Operation not permitted. Set state_dir" in one_line(err)


@pytest.mark.parametrize(("live", "key"), [(True, b""), (True, b"q"), (False, b"")])
def test_a_terminal_that_is_closed_ends_what_runs_on_it_as_its_key_does(tmp_path, live, key):
    """As long as it is there, the same signal has the config read again."""
    (tmp_path / "in").mkdir()
    ours, terminal = pty.openpty()
    ignored = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # by nohup, and then by the daemon too
    process = subprocess.Popen(
        [sys.executable, "-m", "stylewatch", "watch", tmp_path / "in", tmp_path / "out"],
        stdin=terminal, stdout=terminal, stderr=terminal if live else subprocess.PIPE,
        env=os.environ | PATHS | {"TERM": "xterm"}, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
    )  # fmt: skip
    signal.signal(signal.SIGHUP, ignored)
    os.close(terminal)
    screen = ours if live else process.stderr.fileno()

    def await_word(word):
        seen = b""
        while word not in seen:
            seen += os.read(screen, 4096)

    try:
        await_word(b"drop a photo" if live else b"watching")
        for told in (b"resume", b"pause") if live else ():  # what the key would do next
            os.write(ours, b"p")
            await_word(told)
        process.send_signal(signal.SIGHUP)
        await_word(b"config read again")
        if key:
            os.write(ours, key)
            assert process.wait(60) == 0
    finally:
        os.close(ours)
        try:
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
            if process.stderr:
                process.stderr.close()


def test_what_a_locale_has_no_sign_for_is_written_as_its_number(tmp_path):
    presets = tmp_path / ".config" / "stylewatch" / "presets"
    presets.mkdir(parents=True)
    (presets / "mine.yaml").write_text("description: 写真 → 絵\n", encoding="utf-8")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")}
    done = subprocess.run(
        [sys.executable, "-m", "stylewatch", "presets", "list"], capture_output=True, check=False,
        env=kept | {"HOME": str(tmp_path), "PYTHONIOENCODING": "latin-1"}, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\u5199\u771f \u2192 \u7d75" in done.stdout


def test_events_are_written_as_the_locale_has_it_too():
    done = subprocess.run(
        [sys.executable, "-m", "stylewatch", "apply", "Käse.jpg", "-p", "quick"], check=False,
        env=os.environ | PATHS | {"PYTHONIOENCODING": "latin-1"}, capture_output=True, timeout=60,
    )  # fmt: skip
    assert "painting Käse.jpg \\u2192 quick\n".encode("latin-1") in done.stderr
