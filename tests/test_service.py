"""The service: its unit as systemd's own checks see it, and what `systemctl` is told."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_control import Daemon

from stylewatch import cli
from stylewatch.app import service, unit
from stylewatch.app.service import service_status, uninstall
from stylewatch.app.unit import read_unit, render_unit, shipped_unit, unit_path
from stylewatch.errors import ExitCode, OutputError, StylewatchError, UsageError
from stylewatch.faces.control import ControlServer

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


def test_what_a_unit_says_is_read_back(tmp_path):
    folders = [tmp_path / name for name in ("Fotos und Bilder", '50% "off"', "käse$HOME\\", "写真")]
    found = read_unit(rendered(tmp_path, folders=folders))
    assert (found.config, found.account) == (tmp_path / "a b.yaml", "painter")
    assert found.writable == tuple(sorted(folders))


def test_what_people_take_back_of_a_unit_it_says_no_more(tmp_path):
    file = rendered(tmp_path)
    extra = tmp_path / f"{file.name}.d/override.conf"  # `systemctl edit`
    extra.parent.mkdir()
    extra.write_text("[Service]\nUser=\nExecStart=\nProtectSystem=\n")
    found = read_unit(file)
    assert (found.config, found.account, found.writable) == (None, "", None)


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


@pytest.mark.parametrize("sign", ["'", '"', "\\"])
def test_a_program_that_systemd_does_not_start_is_refused(sign):
    """Its name alone: in arguments each of these can be told."""
    with pytest.raises(UsageError, match="Rename"):
        render_unit("ExecStart=x", command=[f"/a{sign}b/python", "run"])


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


programs = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\"'\\"),
                   min_size=1)  # fmt: skip


@given(programs, st.lists(names))
def test_systemd_reads_back_every_word_as_it_was(program, arguments):
    words = [program, *arguments]
    line = render_unit("ExecStart=x", command=words).rstrip("\n").removeprefix("ExecStart=")
    assert as_systemd_reads(line) == words


# --- install, uninstall, status -------------------------------------------------------------------


able_to_run = service._able_to_run


def install(**options):
    return [*service.install(**options)]


SYSTEMCTL = """#!/bin/sh
echo "$@" >> "$CALLS"
case "$*" in
  *"$REFUSE"*) echo "Job for stylewatch.service failed." >&2; exit 1 ;;
  *Version*) echo Version=252 ;;
  *ActiveState*)
    printf "ActiveState=$STATE\\nUnitFileState=enabled\\nStatusText=painting a=b.jpg\\n"
    printf "Result=success\\nMainPID=$PID\\nNRestarts=3\\n" ;;
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
    monkeypatch.setattr(service, "_able_to_run", lambda _, account: account)  # may be made up
    monkeypatch.setenv("PID", "42")
    monkeypatch.setenv("STATE", "active\\nSubState=running")
    return lambda: [
        line.removeprefix("--user --no-ask-password --no-pager ")
        for line in (tmp_path / "calls").read_text().splitlines()
        if "Version" not in line
    ]


def test_install_puts_the_unit_in_place_and_starts_it(systemctl, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = install(user=True, config=Path("my.yaml"), writable=[], command=["/x/stylewatch"])
    file = tmp_path / "config/systemd/user/stylewatch.service"
    assert unit_path(user=True) == file
    assert f'ExecStart="/x/stylewatch" "run" "--config" "{tmp_path}/my.yaml"' in file.read_text()
    assert list(file.parent.iterdir()) == [file]
    assert systemctl() == [
        "daemon-reload", "enable stylewatch.service", "restart stylewatch.service",
    ]  # fmt: skip
    assert said[0] == f"wrote {file}"
    assert not any("until now" in line for line in said)


def test_a_second_install_replaces_the_first_and_says_so(systemctl, tmp_path):
    for _ in range(2):
        said = install(user=True, config=tmp_path / "one.yaml", writable=[], start=False)
        assert not any("until now" in line for line in said)
    said = install(user=True, config=tmp_path / "two.yaml", writable=[], start=False)
    assert f"until now it ran with {tmp_path}/one.yaml" in said
    assert "two.yaml" in unit_path(user=True).read_text()
    assert not any("restart" in call for call in systemctl())


def test_another_account_is_told_too(systemctl, tmp_path, monkeypatch):
    monkeypatch.setattr(unit, "SYSTEM_UNITS", tmp_path)
    file = rendered(tmp_path)
    me = pwd.getpwuid(os.getuid()).pw_name
    said = install(user=False, config=tmp_path / "a b.yaml", writable=[], account=me, start=False)
    assert f"until now it ran as painter with {tmp_path}/a b.yaml" in said
    assert read_unit(file).account == me


def test_the_service_of_the_other_scope_is_named(systemctl, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(unit, "SYSTEM_UNITS", tmp_path / "system")
    options = {"config": tmp_path / "my.yaml", "writable": [], "start": False}
    install(user=True, **options)
    cli.main(["service", "status"])
    missing = "unit: not installed; `stylewatch service status --user` shows the one that is"
    assert missing in capfd.readouterr().out.splitlines()
    other = "another service is installed, too: unless both are meant, "
    said = install(user=False, **options)
    assert f"{other}`stylewatch service uninstall --user`" in said
    assert f"{other}`stylewatch service uninstall`" in install(user=True, **options)
    uninstall(user=True)
    assert not any("another" in line for line in install(user=False, **options))


def test_what_systemd_refuses_is_told_with_where_to_look(systemctl, tmp_path, monkeypatch):
    monkeypatch.setenv("REFUSE", "restart")
    with pytest.raises(StylewatchError, match="restart .* failed: Job for .* `journalctl --user"):
        install(user=True, config=tmp_path / "my.yaml", writable=[])


def test_what_was_done_is_told_though_another_daemon_keeps_it_from_starting(
    systemctl, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("REFUSE", "restart")
    monkeypatch.setenv("PID", "0")
    (tmp_path / "in").mkdir()
    config = tmp_path / "my.yaml"
    config.write_text("folders: [{input: in, output: out}]\nstate_dir: state")
    (tmp_path / "state").mkdir()
    with ControlServer(tmp_path / "state", Daemon().ask, {}):
        assert cli.main(["service", "install", "--user", "-c", str(config)]) == ExitCode.FAILED
    *done, error = capfd.readouterr().err.splitlines()
    assert done[:2] == [f"wrote {unit_path(user=True)}", "enabled: it starts at login"]
    assert "started" not in done
    assert error.endswith(
        "restart stylewatch.service failed: Job for stylewatch.service failed. Another stylewatch "
        "runs: stop it, by q or Ctrl-C, and the service starts within half a minute; else "
        "`journalctl --user -u stylewatch -e` tells more"
    )
    monkeypatch.setenv("PID", "42")  # it is the service that runs there, and is not ready in time
    with ControlServer(tmp_path / "state", Daemon().ask, {}):
        cli.main(["service", "install", "--user", "-c", str(config)])
    assert "Another" not in capfd.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another")
def test_a_program_that_is_closed_to_its_account_is_not_installed(systemctl, monkeypatch, home):
    """As in root's own home: systemd would try it twice a minute, and only say 203/EXEC."""
    monkeypatch.setattr(service, "_able_to_run", able_to_run)
    monkeypatch.setattr(unit, "SYSTEM_UNITS", home / "units")
    program = home / "program"
    options = {"user": False, "config": home / "c.yaml", "writable": [], "start": False}
    options |= {"command": [str(program)], "account": "nobody"}

    def refused(words):
        program.write_text(f"#!/bin/sh\n{words}\n")
        program.chmod(0o755)
        with pytest.raises(UsageError, match=f"nobody can't run {program}: ") as told:
            install(**options)
        assert not unit_path(user=False).exists()
        return str(told.value)

    home.chmod(0o700)
    assert "Permission denied. Install stylewatch where that account" in refused("exit 0")
    home.chmod(0o755)
    assert "No module named x." in refused("echo Traceback >&2; echo No module named x >&2; exit 1")
    program.write_text("#!/bin/sh\n[ $1$(id -un) = --versionnobody ]\n")
    assert "enabled: it starts at boot, as nobody" in install(**options)


def test_what_selinux_may_forbid_is_told(systemctl, tmp_path, monkeypatch):
    (tmp_path / "python").symlink_to("/bin/true")
    options = {"config": tmp_path / "c.yaml", "writable": [], "start": False}
    options |= {"command": [str(tmp_path / "python")]}
    labels = {tmp_path / "python": b"unconfined_u:object_r:user_home_t:s0\0"}
    monkeypatch.setattr(
        os, "getxattr", lambda path, *_, **__: labels.get(Path(path), b"system_u:object_r:bin_t:s0")
    )
    monkeypatch.setattr(unit, "SYSTEM_UNITS", tmp_path / "system")
    monkeypatch.setattr(service, "SELINUX", tmp_path / "enforce")
    hint = f"SELinux may forbid systemd to run {tmp_path}/python, as it is in a home: "
    for enforced, told in (("", False), ("0", False), ("1", True)):
        (tmp_path / "enforce").write_text(enforced)
        said = install(user=False, **options)
        assert any(line.startswith(hint) for line in said) is told
        assert not any("SELinux" in line for line in install(user=True, **options))
    labels.clear()
    assert not any("SELinux" in line for line in install(user=False, **options))


def test_uninstall_leaves_nothing(systemctl, tmp_path, capfd):
    install(user=True, config=tmp_path / "my.yaml", writable=[], start=False)
    assert cli.main(["service", "uninstall", "--user"]) == ExitCode.OK
    told = ["stopped and disabled", f"removed {unit_path(user=True)}"]
    assert capfd.readouterr().err.splitlines() == told
    assert not unit_path(user=True).exists()
    assert systemctl()[-2:] == ["disable --now stylewatch.service", "daemon-reload"]
    with pytest.raises(UsageError, match="not installed"):
        uninstall(user=True)


def test_a_unit_that_can_t_be_removed_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(service, "BOOTED", tmp_path / "missing")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    unit_path(user=True).mkdir(parents=True)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(OutputError, match="can't be removed: Is a directory. Use sudo"):
        uninstall(user=True)


def test_a_unit_that_can_t_be_written_is_one_clear_error(systemctl, tmp_path):
    (tmp_path / "config").touch()
    with pytest.raises(OutputError, match="can't be written: Not a directory. Use sudo"):
        install(user=True, config=tmp_path / "my.yaml", writable=[])


def test_status_is_what_systemd_says(systemctl, tmp_path):
    install(user=True, config=tmp_path / "my.yaml", writable=[], start=False)
    status = service_status(user=True)
    assert (status.systemd, status.enabled, status.state) == (True, True, "active")
    assert (status.text, status.pid, status.restarts) == ("painting a=b.jpg", 42, 3)
    assert status.unit == unit_path(user=True)


def test_status_is_told_in_three_lines(systemctl, tmp_path, capfd):
    install(user=True, config=tmp_path / "my.yaml", writable=[], start=False)
    assert cli.main(["service", "status", "--user"]) == ExitCode.OK
    assert capfd.readouterr().out.splitlines() == [
        "active, enabled, process 42, 3 restarts",
        f"unit: {unit_path(user=True)}",
        "painting a=b.jpg",
    ]


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


def test_a_tilde_is_the_home_of_whom_the_service_runs_as(systemctl, tmp_path, monkeypatch, capfd):
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
    monkeypatch.setattr(unit, "SYSTEM_UNITS", tmp_path)
    assert cli.main(["service", "install", "--no-start"]) == 0
    text = unit_path(user=False).read_text()
    assert f'ReadWritePaths="-{anna}/out"' in text
    assert "User=anna" in text
    assert str(file) in text
    missing = f"{anna}/out does not exist yet: make it, then restart the service"
    assert missing in capfd.readouterr().err.splitlines()


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
    monkeypatch.setattr(unit, "SYSTEM_UNITS", tmp_path)
    assert cli.main(["service", "install", "--no-start"]) == 0
    assert f'ReadWritePaths="-{anna}/out"' in unit_path(user=False).read_text()
    assert asked[:2] == [os.getuid(), owner]


def test_root_is_told_what_it_may_not_do_as_a_service(systemctl, tmp_path, monkeypatch):
    monkeypatch.setattr(unit, "SYSTEM_UNITS", tmp_path / "system")
    hint = "root has no power over others' files there: "
    options = {"config": tmp_path / "c.yaml", "writable": [], "start": False}
    said = install(user=False, account="root", **options)
    assert "enabled: it starts at boot, as root" in said
    assert f"{hint}give the owner of the photos with `--account`" in said
    account = pwd.struct_passwd(("anna", "x", 1000, 1000, "", "/home/anna", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwnam", {"anna": account}.__getitem__)
    said = install(user=False, account="anna", **options)
    assert "enabled: it starts at boot, as anna" in said
    assert not any(hint in line for line in [*said, *install(user=True, **options)])


def test_what_systemd_lets_only_root_do_is_told_so(systemctl, tmp_path, monkeypatch):
    program = tmp_path / "bin" / "systemctl"
    program.write_text(program.read_text().replace("Job for stylewatch.service failed",
                                                   "Interactive authentication required"))  # fmt: skip
    monkeypatch.setenv("REFUSE", "daemon-reload")
    with pytest.raises(StylewatchError, match="Use sudo, or --user"):
        install(user=True, config=tmp_path / "c.yaml", writable=[])


def test_a_config_that_is_not_there_is_not_installed(systemctl, tmp_path, monkeypatch, capfd):
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    typo = str(tmp_path / "typo.yaml")
    assert cli.main(["service", "install", "-c", typo]) == ExitCode.UNREADABLE
    assert typo in capfd.readouterr().err


def test_an_account_that_does_not_exist_is_named(systemctl, tmp_path):
    with pytest.raises(UsageError, match="nobody-of-that-name"):
        install(user=False, config=tmp_path / "c.yaml", writable=[], account="nobody-of-that-name")


def test_a_place_that_is_not_ours_is_told_with_the_remedy(
    systemctl, tmp_path, monkeypatch, like_anybody
):
    monkeypatch.setattr(unit, "SYSTEM_UNITS", tmp_path / "units")
    unit.SYSTEM_UNITS.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="can't be written: Permission denied. Use sudo"):
        like_anybody(install, user=False, config=tmp_path / "c.yaml", writable=[])
