"""Around the daemon: who may run it, and when it reads its config again."""

import itertools
import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock, Mock

import pytest
from rig import Rig

from stylewatch.app import reloading
from stylewatch.app import serve as serve_module
from stylewatch.app.reloading import OnChange
from stylewatch.app.serve import _refuse_a_second
from stylewatch.domain import Preset, StyleImage
from stylewatch.errors import ConfigError, LedgerError, LockedError
from stylewatch.settings.loading import load_config, watch_config
from stylewatch.settings.states import states_of
from stylewatch.settings.weights import BYTES, keras_weights
from stylewatch.settings.yamlfile import YamlFile
from stylewatch.state.locks import Locks


@pytest.fixture
def config(tmp_path, home):
    (home / ".config/stylewatch/presets").mkdir(parents=True)
    (tmp_path / "in").mkdir()
    file = tmp_path / "stylewatch.yaml"
    file.write_text("1")
    config = watch_config(
        tmp_path / "in", tmp_path / "out", ["painting"], state_dir=str(tmp_path / "state")
    )
    (tmp_path / "style.png").write_text("1")
    mine = Preset(name="mine", style=(StyleImage(image=tmp_path / "style.png"),))
    files = {**config.files, **states_of([file, tmp_path / "style.png"])}
    presets = config.presets | {"mine": mine}
    return replace(config, source=YamlFile(file, {}), presets=presets, files=files)


def touch(file: Path, text: str) -> None:
    file.write_text(text)
    os.utime(file, ns=(1, len(text)))


class Daemon:
    """What is asked of it, each with the future of its answer."""

    def __init__(self, config):
        self.config, self.asked, self.answers = config, [], []

    def read(self):
        """Do what it was asked last: read the config, whose files are what they are by now."""
        self.config = replace(self.config, files=states_of(self.config.files))
        self.answers[-1].set_result(None)

    def ask(self, command, **arguments):
        self.asked.append(" ".join([command, *arguments.values()]))
        self.answers.append(Future())
        return self.answers[-1]


def looking(daemon: Daemon) -> Callable[[], int]:
    """A look at its files, time and again; each tells how often it was asked to read them."""
    on_change, times = OnChange(daemon), itertools.count(10.0, 10.0)

    def look():
        on_change.look(next(times))
        return len(daemon.asked)

    return look


def test_p_pressed_again_before_the_daemon_has_answered_is_not_obeyed_twice(config, monkeypatch):
    """Outside of the hours a second pause is one by hand, which never ends."""
    daemon = Daemon(config)
    console = MagicMock()

    def run(stop, after_tick):
        press = console.call_args.kwargs["on_pause"]
        for wanted in (True, True):
            press(wanted)
        daemon.answers[-1].set_result(None)
        press(False)

    daemon.run = run
    monkeypatch.setattr(serve_module, "Daemon", lambda *_, **__: daemon)
    monkeypatch.setattr(serve_module, "open_console", console)
    serve_module.serve(lambda: config, "text")
    assert daemon.asked == ["pause", "resume"]


class TestOnChange:
    @pytest.fixture
    def look(self, config):
        look = looking(Daemon(config))
        look()
        return look

    def test_nothing_changed_nothing_read(self, look):
        assert [look() for _ in range(3)] == [0, 0, 0]

    def test_a_change_is_read_once_and_when_it_has_rested(self, look, config):
        touch(config.file, "22")
        assert look() == 0  # somebody may still be writing
        touch(config.file, "333")
        assert look() == 0
        assert [look() for _ in range(3)] == [1, 1, 1]

    def test_a_glance_right_after_another_does_not_show_that_it_rests(self, config):
        on_change = OnChange(daemon := Daemon(config))
        touch(config.file, "22")
        for now in (10.0, 10.1, 11.9):
            on_change.look(now)
        assert daemon.asked == []
        on_change.look(12.1)
        assert daemon.asked == ["reload"]

    def test_photos_wait_for_a_change_until_it_is_read_however_long_nothing_had_changed(
        self, config, monkeypatch
    ):
        on_change = OnChange(Daemon(config))
        for now in (10.0, 20.0, 1000.0):
            on_change.look(now)
        assert not on_change.is_outdated(1000.5)
        touch(config.file, "22")
        assert on_change.is_outdated(1001.0)
        monkeypatch.setattr(Path, "glob", Mock(side_effect=OSError(116, "Stale file handle")))
        assert not on_change.is_outdated(1001.0)
        monkeypatch.undo()
        on_change.look(1002.0)
        assert on_change.is_outdated(1003.0)
        on_change.look(1004.0)
        assert not on_change.is_outdated(1004.5)

    def test_a_new_a_changed_and_a_removed_preset_count(self, look, config):
        preset = config.preset_dirs[-1] / "mine.yaml"
        touch(preset, "1")
        assert [look(), look()] == [0, 1]
        touch(preset, "22")
        assert [look(), look()] == [1, 2]
        preset.unlink()
        assert [look(), look()] == [2, 3]

    def test_of_a_folder_with_presets_its_rights_count_and_what_else_it_holds_does_not(
        self, look, config
    ):
        folder = config.preset_dirs[-1]
        (folder / "photo.jpg").touch()
        (folder / "out").mkdir()
        assert [look() for _ in range(3)] == [0, 0, 0]
        folder.chmod(0o500)
        assert [look(), look()] == [0, 1]

    def test_a_changed_style_image_counts(self, look, config):
        touch(config.presets["mine"].style[0].image, "another")
        assert [look() for _ in range(3)] == [0, 1, 1]

    def test_a_folder_of_presets_that_comes_and_an_image_that_may_be_read_count(self, config):
        folder = config.file.parent / "mine"
        files = {**config.files, **states_of([folder])}
        dirs = (folder, *config.preset_dirs)
        look = looking(Daemon(replace(config, preset_dirs=dirs, files=files)))
        folder.mkdir()
        assert [look(), look()] == [0, 1]
        config.presets["mine"].style[0].image.chmod(0o600)
        assert [look(), look()] == [1, 2]

    def test_what_a_reload_brought_is_no_change(self, config):
        daemon = Daemon(replace(config, files={}))
        look = looking(daemon)
        daemon.config = config
        assert [look() for _ in range(3)] == [0, 0, 0]
        touch(config.presets["mine"].style[0].image, "another")
        assert [look(), look()] == [0, 1]

    @pytest.mark.parametrize("at", ["a start", "a reload"])
    @pytest.mark.parametrize("name", ["new.png", "old.png", "mine.yaml", "other.yaml", "config"])
    def test_what_comes_or_changes_right_after_it_was_read_counts(self, config, name, at):
        folder = config.preset_dirs[-1]
        (folder / "old.png").write_text("1")
        (folder / "mine.yaml").write_text("style: [new.png, old.png]")
        config.file.write_text("folders: [{input: in, output: out}]")
        daemon = Daemon(config)
        look = looking(daemon)
        daemon.config = load_config(config.file)
        touch(config.file if name == "config" else folder / name, "another")
        look = look if at == "a reload" else looking(daemon)
        assert [look() for _ in range(3)] == [0, 1, 1]

    def test_a_folder_of_presets_that_is_closed_to_us_at_first_counts_when_it_is_not(
        self, config, monkeypatch
    ):
        config.file.write_text("folders: [{input: in, output: out}]")
        (config.preset_dirs[-1] / "mine.yaml").write_text("base: ink")
        closed = Mock(side_effect=OSError(116, "Stale file handle"))
        with monkeypatch.context() as patched:
            patched.setattr(Path, "glob", closed)
            look = looking(Daemon(load_config(config.file)))
            assert [look(), look()] == [0, 0]
        assert [look() for _ in range(3)] == [0, 1, 1]

    def test_what_was_refused_counts_when_all_is_as_it_was_before(self, config, tmp_path):
        """As when the disk of its presets is unplugged, and plugged in again."""
        link = tmp_path / "link"
        link.symlink_to(config.preset_dirs[-1])
        files = {**config.files, **states_of([link])}
        daemon = Daemon(replace(config, preset_dirs=(link,), files=files))
        look = looking(daemon)
        assert [look(), look()] == [0, 0]
        link.unlink()
        assert [look(), look()] == [0, 1]
        daemon.answers[-1].set_exception(ConfigError("away"))
        assert [look(), look()] == [1, 1]
        link.symlink_to(config.preset_dirs[-1])
        assert [look(), look()] == [1, 2]
        daemon.read()
        assert [look(), look()] == [2, 2]

    def test_a_change_before_the_first_look_counts(self, config):
        daemon = Daemon(config)
        look = looking(daemon)
        touch(config.file, "22")
        assert [look(), look()] == [0, 1]
        assert daemon.asked == ["reload"]

    def test_without_a_config_s_file_presets_count_all_the_same(self, config):
        look = looking(Daemon(replace(config, source=YamlFile(None, {}))))
        touch(config.preset_dirs[-1] / "mine.yaml", "22")
        assert [look(), look()] == [0, 1]

    def test_photos_that_wait_for_keras_s_weights_are_tried_when_all_of_these_are_there(
        self, config
    ):
        daemon = Daemon(config)
        look, file = looking(daemon), keras_weights()
        file.parent.mkdir(parents=True)
        file.write_bytes(b"on its way")
        assert [look(), look()] == [0, 0]
        os.truncate(file, BYTES)
        assert [look(), look()] == [1, 1]
        file.unlink()
        assert [look(), look()] == [1, 1]
        assert daemon.asked == ["retry weights-missing"]

    def test_what_the_ledger_did_not_let_be_read_is_read_when_it_does(self, config):
        daemon = Daemon(config)
        look = looking(daemon)
        touch(config.file, "22")
        assert [look() for _ in range(3)] == [0, 1, 1]  # it is not answered yet
        daemon.answers[-1].set_exception(LedgerError("full"))
        assert look() == 2
        daemon.answers[-1].set_exception(ConfigError("nonsense"))
        assert look() == 2

    def test_a_config_with_another_daemon_s_folder_is_tried_again_now_and_then(self, config):
        daemon = Daemon(config)
        look = looking(daemon)
        touch(config.file, "22")
        assert [look(), look()] == [0, 1]
        daemon.answers[-1].set_exception(LockedError("watched"))
        assert [look() for _ in range(4)] == [1, 1, 2, 2]
        daemon.read()
        assert [look() for _ in range(4)] == [2] * 4


class TestAPhotoRightAfterAChange:
    @pytest.fixture
    def rig(self, tmp_path, monkeypatch):
        """Paints with a preset of one's own; the config's files are looked at as `serve` does."""
        monkeypatch.setattr(reloading, "LOOK_SECONDS", 0.5)
        rig = Rig(tmp_path, preset="mine")
        self.save("mine", strength=3)
        rig.build()
        on_change = OnChange(rig.daemon)
        rig.daemon._is_outdated = on_change.is_outdated
        tick = rig.daemon.tick

        def tick_and_look(now):
            due = tick(now)
            on_change.look(now)
            return due

        rig.daemon.tick = tick_and_look
        rig.daemon.start(time.monotonic())
        yield rig
        rig.stop()

    @pytest.fixture(autouse=True)
    def presets(self, config):
        self.folder = config.preset_dirs[-1]

    def save(self, name, **values):
        lines = [f"style: {name}.png", *(f"{key}: {value}" for key, value in values.items())]
        (self.folder / f"{name}.png").touch()
        (self.folder / f"{name}.yaml").write_text("\n".join(lines))

    def test_of_a_preset_is_painted_with_it_as_it_is_now(self, rig):
        photo = rig.drop("a.jpg")
        rig.until(lambda: rig.counts() == {"done": 1})
        self.save("mine", strength=30)
        subprocess.run(["touch", photo], check=True)
        rig.until(lambda: len(rig.executor.ran) == 2)

    def test_in_the_folder_of_a_new_preset_is_painted_with_that(self, rig):
        rig.until(rig.idle)
        self.save("new")
        rig.drop("new/a.jpg")
        rig.until(lambda: rig.counts() == {"done": 1})
        assert rig.executor.ran == [("a.jpg", "new")]

    def test_that_is_refused_is_painted_as_before(self, rig):
        rig.until(rig.idle)
        (self.folder / "mine.yaml").write_text("styel: mine.png")
        rig.drop("a.jpg")
        rig.until(lambda: rig.counts() == {"done": 1})

    def test_waits_no_longer_for_a_file_that_never_rests(self, rig, monkeypatch):
        monkeypatch.setattr(reloading, "RESTLESS_SECONDS", 1.5)
        rig.until(rig.idle)
        rig.drop("a.jpg")
        versions = itertools.count()

        def done():
            self.save("mine", strength=f"1{next(versions)}")
            return rig.counts() == {"done": 1}

        rig.until(done)


def test_a_second_daemon_is_refused_before_the_screen_is_taken(config):
    _refuse_a_second(config)
    locks = Locks()
    locks.hold_state(config.state_dir)
    with pytest.raises(LockedError, match=str(os.getpid())):
        _refuse_a_second(config)
    locks.release()
    _refuse_a_second(config)
    locks.hold_folder(config.folders[0].input)
    with pytest.raises(LockedError, match="watches"):
        _refuse_a_second(config)
    locks.release()
