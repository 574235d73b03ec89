"""What systemd is told, over a real datagram socket; the unit, as systemd's own checks see it."""

import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylewatch import cli
from stylewatch.app import service
from stylewatch.app.remote import ask
from stylewatch.app.service import (
    install,
    render_unit,
    service_status,
    shipped_unit,
    uninstall,
    unit_path,
)
from stylewatch.domain import Event
from stylewatch.errors import ExitCode, StylewatchError, UsageError
from stylewatch.faces.notify import Notifier, notify, watchdog_interval


class Listener:
    """systemd's end of the notify socket."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.settimeout(10)
        self.socket.bind(address)
        name = "@" + address[1:] if address.startswith("\0") else address
        self.environ = {"NOTIFY_SOCKET": name}

    def hear(self):
        """The next message's lines, and who sent it."""
        data, ancillary, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(12))
        pid, _, _ = struct.unpack("3i", ancillary[0][2])
        return data.decode().split("\n"), pid

    def lines(self):
        return self.hear()[0]

    def silent(self):
        self.socket.setblocking(False)
        try:
            self.socket.recv(4096)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(10)
        return False


@pytest.fixture(params=["path", "abstract"])
def listener(request, tmp_path):
    name = f"\0stylewatch-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "n")
    made = Listener(name)
    yield made
    made.socket.close()


def event(kind, **more):
    return Event(kind=kind, message=more.pop("message", kind), **more)


def test_a_message_arrives_whole_and_in_utf_8(listener):
    assert notify("READY=1", "STATUS=写真 café", environ=listener.environ)
    assert listener.lines() == ["READY=1", "STATUS=写真 café"]


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all", "vsock:2:1234", "@gone"])
def test_nobody_to_tell_is_no_trouble(address):
    assert not notify("READY=1", environ={"NOTIFY_SOCKET": address})


def test_the_watchdog_s_interval_is_ours_only_when_it_names_us():
    ours = str(os.getpid())
    assert watchdog_interval({"WATCHDOG_USEC": "6000000"}) == 6.0
    assert watchdog_interval({"WATCHDOG_USEC": "6000000", "WATCHDOG_PID": ours}) == 6.0
    assert watchdog_interval({"WATCHDOG_USEC": "6000000", "WATCHDOG_PID": "1"}) is None
    for nothing in ({}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}):
        assert watchdog_interval(nothing) is None


def test_the_daemon_s_events_become_systemd_s_words(listener):
    notifier = Notifier(environ=listener.environ)
    notifier(event("watching", message="in → out"))
    notifier(event("started", message="watching 1 folder"))
    assert listener.lines() == ["READY=1", "STATUS=watching 1 folder"]
    notifier(event("running", path="a.jpg", preset="ink", job_id=1))
    assert listener.lines() == ["STATUS=painting a.jpg → ink"]
    notifier(event("running", path="b.jpg", preset="ink", job_id=2))
    assert listener.lines() == ["STATUS=painting a.jpg → ink, b.jpg → ink"]
    notifier(event("done", job_id=1))
    assert listener.lines() == ["STATUS=painting b.jpg → ink"]
    notifier(event("warning", job_id=2, reason="cancelled"))
    assert listener.lines() == ["STATUS=watching 1 folder"]
    notifier(event("running", job_id=2, path="b.jpg", preset="ink"))
    notifier(event("failed", job_id=2))
    assert listener.lines() == ["STATUS=painting b.jpg → ink"]
    assert listener.lines() == ["STATUS=watching 1 folder"]
    notifier(event("progress", job_id=2))
    notifier(event("done", job_id=2))
    notifier(event("stopping"))
    assert listener.lines() == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=25000000", "STATUS=stopping"]


def test_the_grace_time_is_asked_of_systemd_too(listener):
    Notifier(grace=lambda: 120.0, environ=listener.environ).stopping()
    assert "EXTEND_TIMEOUT_USEC=145000000" in listener.lines()


def test_a_file_s_name_cannot_speak_to_systemd(listener):
    notifier = Notifier(environ=listener.environ)
    notifier(event("running", path="a\nWATCHDOG=1\n\udcff\x1b.jpg", preset="ink"))
    assert listener.lines() == [r"STATUS=painting a\nWATCHDOG=1\n\xff\x1b.jpg → ink"]


def test_a_reload_says_when_it_began_and_that_it_ended(listener):
    notifier = Notifier(environ=listener.environ)
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    first, second = listener.lines()
    assert first == "RELOADING=1"
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    notifier.ready()
    assert listener.lines() == ["READY=1"]


def test_the_watchdog_is_fed_in_time_but_only_while_alive(listener):
    alive = [True]
    environ = listener.environ | {"WATCHDOG_USEC": "9000000"}
    notifier = Notifier(lambda: alive[0], environ=environ)
    for now in range(100, 110):
        notifier.beat(float(now))
    assert [listener.lines() for _ in range(4)] == [["WATCHDOG=1"]] * 4  # at 100, 103, 106, 109
    alive[0] = False
    notifier.beat(200.0)
    assert listener.silent()


def test_a_feeding_that_was_lost_is_made_up_for(tmp_path):
    environ = {"NOTIFY_SOCKET": str(tmp_path / "n"), "WATCHDOG_USEC": "9000000"}
    notifier = Notifier(environ=environ)
    notifier.beat(1.0)
    listener = Listener(str(tmp_path / "n"))
    notifier.beat(1.1)
    assert listener.lines() == ["WATCHDOG=1"]
    listener.socket.close()


def test_a_daemon_s_life_as_systemd_hears_it(listener, tmp_path):
    """READY, the watchdog fed again and again, a reload, STOPPING: all from the main process."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    config = tmp_path / "stylewatch.yaml"
    config.write_text("folders: [{input: in, output: out}]\nstate_dir: state\n")
    command = [sys.executable, "-m", "stylewatch", "run", "--config", str(config)]
    environ = os.environ | listener.environ | {"WATCHDOG_USEC": "300000", "TERM": "dumb"}
    ignored = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # by nohup, and then by the daemon too
    daemon = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGHUP, ignored)
    try:
        ready = listener.hear()
        fed = []
        while len(fed) < 3:
            time.sleep(0.1)
            assert ask(tmp_path / "state", "status")["paused"] is False
            fed.append(listener.hear())
        daemon.send_signal(signal.SIGHUP)
        reloaded = []
        while ["READY=1"] not in [lines[:1] for lines, _ in reloaded]:
            assert len(reloaded) < 100  # older feedings may still wait to be heard
            reloaded.append(listener.hear())
        daemon.send_signal(signal.SIGTERM)
        heard = [*fed, *reloaded]
        while heard[-1][0][0] != "STOPPING=1":
            heard.append(listener.hear())
        assert daemon.wait(30) == 0
    finally:
        daemon.kill()
        daemon.wait()
    assert ready[0] == ["READY=1", "STATUS=watching 1 folder"]
    assert {tuple(lines) for lines, _ in fed} == {("WATCHDOG=1",)}
    words = [lines[0] for lines, _ in reloaded]
    assert words.index("RELOADING=1") < words.index("READY=1")
    assert {pid for _, pid in [ready, *heard]} == {daemon.pid}


# --- the unit -------------------------------------------------------------------------------------

needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def rendered(tmp_path, *, user=False, folders=()):
    text = render_unit(
        shipped_unit(user=user).read_text(encoding="utf-8"),
        command=["/bin/true", "run", "--config", str(tmp_path / "a b.yaml")],
        account="" if user else "painter",
        writable=folders,
    )
    file = tmp_path / "stylewatch.service"
    file.write_text(text, encoding="utf-8")
    return file


def analyze(*arguments, **environ):
    command = ["systemd-analyze", *map(str, arguments)]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=60, env=os.environ | environ
    )


@needs_analyze
@pytest.mark.parametrize("user", [False, True])
def test_systemd_finds_nothing_to_say_about_the_unit(tmp_path, user):
    folders = [tmp_path / name for name in ("Fotos und Bilder", '50% "off"', "käse$HOME\\", "写真")]
    file = rendered(tmp_path, user=user, folders=folders)
    scope = ["--user"] if user else []
    result = analyze(*scope, "verify", "--man=no", file, XDG_RUNTIME_DIR=str(tmp_path))
    assert (result.returncode, result.stderr) == (0, "")


@needs_analyze
def test_systemd_finds_a_program_with_a_dollar_in_its_path(tmp_path):
    program = tmp_path / "a $HOME ${b} 50%" / "python"
    program.parent.mkdir()
    program.symlink_to("/bin/true")
    template = shipped_unit(user=True).read_text(encoding="utf-8")
    file = tmp_path / "stylewatch.service"
    file.write_text(render_unit(template, command=[str(program), "run"]), encoding="utf-8")
    result = analyze("--user", "verify", "--man=no", file, XDG_RUNTIME_DIR=str(tmp_path))
    assert (result.returncode, result.stderr) == (0, "")


@needs_analyze
def test_the_check_itself_can_fail(tmp_path):
    file = rendered(tmp_path)
    file.write_text(file.read_text() + "\n[Service]\nNoSuchKey=1\n")
    assert "NoSuchKey" in analyze("verify", "--man=no", file).stderr


@needs_analyze
def test_the_system_s_unit_is_hardened(tmp_path):
    result = analyze("security", "--offline=true", "--threshold=30", rendered(tmp_path))
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("user", [False, True])
def test_nothing_in_the_unit_hides_a_gpu_or_keeps_kernels_from_being_compiled(user):
    keys = {line.partition("=")[0] for line in shipped_unit(user=user).read_text().splitlines()}
    devices = {"PrivateDevices", "DevicePolicy", "DeviceAllow", "ProtectClock", "PrivateUsers"}
    assert not keys & {*devices, "MemoryDenyWriteExecute", "ProcSubset"}


def test_the_unit_is_filled_in(tmp_path):
    text = rendered(
        tmp_path, folders=[Path("/b/in"), Path("/b"), Path("/a"), Path("/bc")]
    ).read_text()
    assert f'\nExecStart="/bin/true" "run" "--config" "{tmp_path}/a b.yaml"\n' in text
    assert "\nUser=painter\n" in text
    assert '\nReadWritePaths="-/a" "-/b" "-/bc"\n' in text
    assert "\nKillMode=mixed\n" in text


def test_a_user_s_unit_has_no_account_and_no_paths(tmp_path):
    text = rendered(tmp_path, user=True, folders=[Path("/a")]).read_text()
    assert "\nUser=" not in text
    assert "\nReadWritePaths=" not in text
    assert "\nExecStart=" in text


def test_without_folders_and_account_the_example_s_are_gone():
    template = shipped_unit(user=False).read_text(encoding="utf-8")
    text = render_unit(template, command=["/x"])
    assert "/srv/" not in text
    assert "\nUser=" not in text


@pytest.mark.parametrize("name", ["a\nExecStart=/bin/sh", "a\tb", "a\udcff"])
def test_a_name_that_systemd_cannot_be_told_is_refused(name):
    with pytest.raises(UsageError, match="Rename"):
        render_unit("ReadWritePaths=x", command=["x"], writable=[Path("/", name)])


def as_systemd_reads(line):
    """The words of a line after systemd's rules for quotes, specifiers and `$`.

    `$` is expanded in arguments only: what is run is taken as it stands.
    """
    words, word, escaped, inside = [], "", False, False
    for char in line:
        if escaped:
            word, escaped = word + char, False
        elif char == "\\":
            escaped = True
        elif char == '"':
            inside = not inside
            if not inside:
                words.append(word)
                word = ""
        elif inside:
            word += char
    assert not inside
    assert not escaped
    program, *arguments = words
    for word in words:  # each doubled, and so standing for itself
        assert "%" not in word.replace("%%", "")
    for word in arguments:
        assert "$" not in word.replace("$$", "")
    arguments = [word.replace("$$", "$") for word in arguments]
    return [word.replace("%%", "%") for word in (program, *arguments)]


names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1)


@given(st.lists(names, min_size=1))
def test_systemd_reads_back_every_word_as_it_was(words):
    line = render_unit("ExecStart=x", command=words).rstrip("\n").removeprefix("ExecStart=")
    assert as_systemd_reads(line) == words


# --- install, uninstall, status -------------------------------------------------------------------

SYSTEMCTL = """#!/bin/sh
echo "$@" >> "$CALLS"
case "$*" in
  *"$REFUSE"*) echo "Job for stylewatch.service failed." >&2; exit 1 ;;
  *Version*) echo Version=252 ;;
  *ActiveState*)
    printf "ActiveState=$STATE\\nUnitFileState=enabled\\nStatusText=painting a=b.jpg\\n"
    printf 'Result=success\\nMainPID=42\\nNRestarts=3\\n' ;;
esac
"""


@pytest.fixture
def systemctl(tmp_path, monkeypatch):
    """A systemctl that notes how it is called, and refuses what `REFUSE` names."""
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(SYSTEMCTL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("REFUSE", "nothing")
    monkeypatch.setenv("STATE", "active\\nSubState=running")
    return lambda: [
        line.removeprefix("--user --no-ask-password --no-pager ")
        for line in (tmp_path / "calls").read_text().splitlines()
        if "Version" not in line
    ]


def test_install_puts_the_unit_in_place_and_starts_it(systemctl, tmp_path):
    said = install(user=True, config=tmp_path / "my.yaml", writable=[], command=["/x/stylewatch"])
    unit = tmp_path / "config/systemd/user/stylewatch.service"
    assert unit_path(user=True) == unit
    assert f'ExecStart="/x/stylewatch" "run" "--config" "{tmp_path}/my.yaml"' in unit.read_text()
    assert list(unit.parent.iterdir()) == [unit]
    assert systemctl() == [
        "daemon-reload", "enable stylewatch.service", "restart stylewatch.service",
    ]  # fmt: skip
    assert said[0] == f"wrote {unit}"


def test_a_second_install_replaces_the_first(systemctl, tmp_path):
    install(user=True, config=tmp_path / "one.yaml", writable=[], start=False)
    install(user=True, config=tmp_path / "two.yaml", writable=[], start=False)
    assert "two.yaml" in unit_path(user=True).read_text()
    assert not any("restart" in call for call in systemctl())


def test_what_systemd_refuses_is_told_with_where_to_look(systemctl, tmp_path, monkeypatch):
    monkeypatch.setenv("REFUSE", "restart")
    with pytest.raises(StylewatchError, match="restart .* failed: Job for .* `journalctl --user"):
        install(user=True, config=tmp_path / "my.yaml", writable=[])


def test_uninstall_leaves_nothing(systemctl, tmp_path):
    install(user=True, config=tmp_path / "my.yaml", writable=[], start=False)
    uninstall(user=True)
    assert not unit_path(user=True).exists()
    assert systemctl()[-2:] == ["disable --now stylewatch.service", "daemon-reload"]
    with pytest.raises(UsageError, match="not installed"):
        uninstall(user=True)


def test_status_is_what_systemd_says(systemctl, tmp_path):
    install(user=True, config=tmp_path / "my.yaml", writable=[], start=False)
    status = service_status(user=True)
    assert (status.systemd, status.enabled, status.state) == (True, True, "active")
    assert (status.text, status.pid, status.restarts) == ("painting a=b.jpg", 42, 3)
    assert status.unit == unit_path(user=True)


@pytest.mark.parametrize(
    ("state", "word", "code"),
    [
        ("active\\nSubState=running", "active", ExitCode.OK),
        ("activating\\nSubState=start", "activating", ExitCode.OK),
        ("activating\\nSubState=auto-restart", "auto-restart", ExitCode.NOT_RUNNING),
        ("activating\\nSubState=auto-restart-queued", "auto-restart", ExitCode.NOT_RUNNING),
        ("failed\\nSubState=failed", "failed", ExitCode.NOT_RUNNING),
    ],
)
def test_what_crashes_again_and_again_does_not_run(
    systemctl, monkeypatch, capfd, state, word, code
):
    monkeypatch.setenv("STATE", state)
    assert cli.main(["service", "status", "--user"]) == code
    assert capfd.readouterr().out.startswith(f"{word}, enabled")


def test_a_service_that_may_run_where_we_cannot_ask_keeps_its_unit(
    systemctl, tmp_path, monkeypatch
):
    """`su` has no bus of the user's, while the service is on it."""
    install(user=True, config=tmp_path / "my.yaml", writable=[], start=False)
    monkeypatch.setenv("REFUSE", "Version")
    monkeypatch.setattr(service, "BOOTED", tmp_path)
    with pytest.raises(UsageError, match="does not answer: .* Log in as yourself"):
        uninstall(user=True)
    assert unit_path(user=True).exists()


def test_where_systemd_does_not_run_the_machine_the_unit_and_its_links_are_removed(
    systemctl, tmp_path, monkeypatch
):
    install(user=True, config=tmp_path / "my.yaml", writable=[], start=False)
    link = unit_path(user=True).parent / "default.target.wants" / service.UNIT
    link.parent.mkdir()
    link.symlink_to(unit_path(user=True))
    monkeypatch.setenv("REFUSE", "Version")
    monkeypatch.setattr(service, "BOOTED", tmp_path / "missing")
    assert uninstall(user=True) == [f"removed {unit_path(user=True)}"]
    assert not unit_path(user=True).exists()
    assert not link.is_symlink()


def test_without_systemd_each_says_so_and_what_to_do_instead(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with pytest.raises(UsageError, match="no systemctl.*run `stylewatch run` under"):
        install(user=True, config=tmp_path / "my.yaml", writable=[])
    assert not unit_path(user=True).exists()
    status = service_status(user=True)
    assert not status.systemd
    assert status.unit is None
    assert status.text == "there is no systemctl"


def test_a_tilde_is_the_home_of_whom_the_service_runs_as(systemctl, tmp_path, monkeypatch):
    anna = tmp_path / "anna"
    file = anna / ".config" / "stylewatch" / "stylewatch.yaml"
    file.parent.mkdir(parents=True)
    (anna / "in").mkdir()
    file.write_text("folders: [{input: ~/in, output: ~/out, preset: ink}]")
    account = pwd.struct_passwd(("anna", "x", 1, 1, "", str(anna), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwnam", {"anna": account}.__getitem__)
    monkeypatch.setenv("SUDO_USER", "anna")
    monkeypatch.setenv("HOME", "/root")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr(service, "unit_path", lambda *, user: tmp_path / "unit")
    assert cli.main(["service", "install", "--no-start"]) == 0
    text = (tmp_path / "unit").read_text()
    assert f'ReadWritePaths="-{anna}/out"' in text
    assert "User=anna" in text
    assert str(file) in text


def test_where_nobody_is_named_the_config_s_owner_runs_it(systemctl, tmp_path, monkeypatch):
    anna = tmp_path / "anna"
    (anna / "in").mkdir(parents=True)
    (tmp_path / "stylewatch.yaml").write_text(
        "folders: [{input: ~/in, output: ~/out, preset: ink}]"
    )
    account = pwd.struct_passwd(("anna", "x", 1, 1, "", str(anna), "/bin/sh"))
    root = pwd.struct_passwd(("root", "x", 0, 0, "", "/root", "/bin/sh"))
    owner = os.stat(tmp_path / "stylewatch.yaml").st_uid
    asked = []
    monkeypatch.setattr(
        pwd, "getpwuid", lambda uid: account if asked.append(uid) or len(asked) > 1 else root
    )
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setenv("HOME", "/root")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(service, "unit_path", lambda *, user: tmp_path / "unit")
    assert cli.main(["service", "install", "--no-start"]) == 0
    assert f'ReadWritePaths="-{anna}/out"' in (tmp_path / "unit").read_text()
    assert asked[:2] == [os.getuid(), owner]


def test_what_systemd_lets_only_root_do_is_told_so(systemctl, tmp_path, monkeypatch):
    program = tmp_path / "bin" / "systemctl"
    program.write_text(program.read_text().replace("Job for stylewatch.service failed",
                                                   "Interactive authentication required"))  # fmt: skip
    monkeypatch.setenv("REFUSE", "daemon-reload")
    with pytest.raises(StylewatchError, match="Use sudo, or --user"):
        install(user=True, config=tmp_path / "c.yaml", writable=[])


def test_a_config_that_is_not_there_is_the_config_s_error(systemctl, tmp_path, monkeypatch, capfd):
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    typo = str(tmp_path / "typo.yaml")
    assert cli.main(["service", "install", "-c", typo]) == ExitCode.CONFIG
    assert typo in capfd.readouterr().err


def test_an_account_that_does_not_exist_is_named(systemctl, tmp_path):
    with pytest.raises(UsageError, match="nobody-of-that-name"):
        install(user=False, config=tmp_path / "c.yaml", writable=[], account="nobody-of-that-name")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_that_is_not_ours_is_told_with_the_remedy(systemctl, tmp_path):
    from stylewatch.errors import OutputError

    with pytest.raises(OutputError, match="sudo"):
        install(user=False, config=tmp_path / "c.yaml", writable=[])
