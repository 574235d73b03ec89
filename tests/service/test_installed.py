"""stylewatch itself as an installed service under a real systemd, as a person would have it.

`stylewatch service install`, then photos are dropped, things are killed, and every photo gets its
picture. The tests follow one service through its life, in their order. A quick effect of another
package paints, so this also shows that there can be such packages; one test paints for real.
"""

import io
import json
import sys
import time
from pathlib import Path

import pytest
from booted import Machine, why_not
from PIL import Image

import stylewatch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.timeout(300),
]

SESSION = "XDG_RUNTIME_DIR=/run/user/4242"
STYLEWATCH = ["env", "PYTHONPATH=/opt/dreams", SESSION, sys.executable, "-P", "-m", "stylewatch"]
CONFIG = "/etc/stylewatch.yaml"
PHOTOS, HOLD = "/srv/photos", "/srv/photos/hold"
FIRST = 120.0  # seconds: a worker's start loads the network's libraries, here on a busy machine

SETTINGS = f"""
folders:
  - input: {PHOTOS}/in
    output: {PHOTOS}/out
    preset: dream
presets: {PHOTOS}/presets
features: builtin
quiet_seconds: 0.2
rescan_seconds: 5
min_free: 0
checkpoint_seconds: 1
"""

EFFECT = f"""
import time
from pathlib import Path
from stylewatch.effect import Rendering

class Dream:
    def render(self, photo, preset, context):
        Path("{PHOTOS}/out/.begun").write_text("x")
        while Path("{HOLD}").exists():
            time.sleep(0.05)
        return Rendering(rgb=255.0 - photo)
"""

# A person's own systemd, as a login starts it.
MANAGER = """
[Service]
Type=notify
User=painter
RuntimeDirectory=user/4242
RuntimeDirectoryMode=0700
Environment=XDG_RUNTIME_DIR=/run/user/4242 HOME=/home/painter
ExecStart=/lib/systemd/systemd --user
Delegate=yes
KillMode=mixed
"""

# ExecStart is the installed one: only where another package lies is added, and less patience.
DROP_IN = """
[Service]
Environment=PYTHONPATH=/opt/dreams TF_CPP_MIN_LOG_LEVEL=3
WatchdogSec=15
RestartSec=0.2
"""


def jpeg(shade):
    picture = io.BytesIO()
    Image.linear_gradient("L").resize((96, 64)).convert("RGB").point(
        lambda value: (value + shade) % 256
    ).save(picture, "JPEG")
    return picture.getvalue()


class Service:
    def __init__(self, machine):
        self.machine = machine
        self.hold = machine.root / HOLD.lstrip("/")
        self.begun = machine.root / f"{PHOTOS}/out/.begun".lstrip("/")

    def stylewatch(self, *arguments, account="painter", **options):
        return self.machine.run(*STYLEWATCH, *arguments, account=account, **options)

    def drop(self, name, shade):
        """Put a photo there as people do: under another name first, owned by them."""
        file = self.machine.root / f"{PHOTOS}/in/{name}".lstrip("/")
        file.write_bytes(jpeg(shade))
        self.machine.run("chown", "painter", f"{PHOTOS}/in/{name}")

    def result(self, name, seconds=FIRST):
        file = self.machine.root / f"{PHOTOS}/out/{name}".lstrip("/")
        self.machine.wait_for(file.exists, seconds, f"no {name}")
        return Image.open(io.BytesIO(file.read_bytes()))

    def begin_and_hold(self, name, shade):
        """A job that is in the middle until `hold` is gone."""
        self.begun.unlink(missing_ok=True)
        self.hold.touch()
        self.drop(name, shade)
        self.machine.wait_for(self.begun.exists, FIRST, f"{name} was not begun")

    def status(self):
        return json.loads(self.stylewatch("status", "--config", CONFIG, "--json").stdout)

    def workers(self):
        """Processes that the daemon started for jobs."""
        found = self.machine.run("pgrep", "-f", "spawn_main", check=False).stdout.split()
        return [pid for pid in found if pid != self.pid]

    @property
    def pid(self):
        return self.machine.show("MainPID")

    def is_another(self, before):
        return self.pid not in {"0", before} and self.machine.show("ActiveState") == "active"


@pytest.fixture(scope="module")
def service():
    with Machine() as machine:
        for folder in ("in", "out", "presets"):
            machine.run("install", "-d", "-o", "painter", "-g", "painter", f"{PHOTOS}/{folder}")
        machine.write(CONFIG, SETTINGS)
        preset = "effect: dream\noutput: {format: png}\n"
        machine.write(f"{PHOTOS}/presets/dream.yaml", preset)
        machine.write("/opt/dreams/dreams.py", EFFECT)
        about = "/opt/dreams/dreams-1.0.dist-info"
        machine.write(f"{about}/METADATA", "Metadata-Version: 2.1\nName: dreams\nVersion: 1.0\n")
        machine.write(f"{about}/entry_points.txt", "[stylewatch.effects]\ndream = dreams:Dream\n")
        machine.write("/etc/systemd/system/stylewatch.service.d/trial.conf", DROP_IN)
        machine.write("/etc/systemd/user/stylewatch.service.d/trial.conf", DROP_IN)
        machine.write("/etc/systemd/system/manager.service", MANAGER)
        yield Service(machine)


def test_one_command_installs_and_starts_it(service):
    arguments = ("service", "install", "--config", CONFIG, "--account", "painter")
    said = service.stylewatch(*arguments, account="root").stderr
    assert "wrote /etc/systemd/system/stylewatch.service" in said
    assert service.machine.show("ActiveState") == "active"
    assert service.machine.show("User") == "painter"
    assert service.machine.show("UnitFileState") == "enabled"
    assert service.machine.show("StatusText") == "watching 1 folder"
    unit = "/etc/systemd/system/stylewatch.service"
    assert service.machine.run("systemd-analyze", "verify", "--man=no", unit).stderr == ""
    assert "active, enabled" in service.stylewatch("service", "status", account="root").stdout


def test_a_photo_that_is_dropped_becomes_a_picture(service):
    service.drop("first.jpg", 5)
    assert service.result("first--dream.png").size == (96, 64)
    assert (
        "painter"
        in service.machine.run("stat", "-c", "%U", f"{PHOTOS}/out/first--dream.png").stdout
    )


def test_its_owner_can_ask_it_and_nobody_else(service):
    told = service.status()
    assert told["running"]
    assert str(told["pid"]) == service.pid
    assert told["folders"][0]["done"] == 1
    refused = service.stylewatch("status", "--config", CONFIG, account="stranger", check=False)
    assert refused.returncode == 8
    code = "from pathlib import Path; from stylewatch.app.remote import ask; "
    code += "ask(Path('/var/lib/stylewatch'), 'pause')"
    refused = service.machine.run(sys.executable, "-c", code, account="stranger", check=False)
    assert "NotRunningError: the daemon in /var/lib/stylewatch belongs" in refused.stderr
    assert not service.status()["paused"]


def test_a_worker_that_is_killed_costs_no_photo(service):
    service.begin_and_hold("worker-killed.jpg", 10)
    pid = service.pid
    assert service.status()["painting"][0]["photo"] == "worker-killed.jpg"
    [worker] = service.workers()
    service.machine.run("kill", "-9", worker)
    service.hold.unlink()
    service.result("worker-killed--dream.png")
    jobs = json.loads(service.stylewatch("jobs", "--config", CONFIG, "--json").stdout)
    [job] = [job for job in jobs if job["photo"] == "worker-killed.jpg"]
    assert (job["state"], job["attempts"]) == ("done", 2)
    assert service.pid == pid
    assert service.machine.show("NRestarts") == "0"


def test_a_daemon_that_is_killed_takes_its_work_up_again(service):
    service.begin_and_hold("daemon-killed.jpg", 20)
    pid, workers = service.pid, service.workers()
    service.machine.run("kill", "-9", pid)
    service.hold.unlink()
    service.machine.wait_for(lambda: service.is_another(pid), 60, "it was not started again")
    service.result("daemon-killed--dream.png")
    assert not set(workers) & set(service.workers())


def test_a_daemon_that_hangs_is_started_again_by_the_watchdog(service):
    pid = service.pid
    service.machine.run("kill", "-STOP", pid)
    service.drop("hung.jpg", 30)
    service.machine.wait_for(lambda: service.is_another(pid), 60, "the watchdog did nothing")
    service.result("hung--dream.png")


def test_reload_brings_a_new_preset(service):
    pid = service.pid
    preset = "effect: dream\noutput: {format: webp}\n"
    service.machine.write(f"{PHOTOS}/presets/reverie.yaml", preset)
    settings = SETTINGS.replace("preset: dream", "preset: reverie")
    service.machine.write(CONFIG, settings)
    service.machine.run("systemctl", "reload", "stylewatch")
    service.drop("new.jpg", 40)
    assert service.result("new--reverie.webp").format == "WEBP"
    assert service.pid == pid
    assert service.machine.show("ActiveState") == "active"


def test_a_config_that_is_broken_leaves_the_service_as_it_was(service):
    pid = service.pid
    service.machine.write(CONFIG, "folders: [")
    service.machine.run("systemctl", "reload", "stylewatch")
    service.drop("still.jpg", 50)
    service.result("still--reverie.webp")
    assert service.pid == pid
    assert "the old config goes on" in service.machine.journal()
    service.machine.write(CONFIG, SETTINGS)
    service.machine.run("systemctl", "reload", "stylewatch")


def test_an_output_that_was_replaced_needs_a_restart_as_the_doctor_says(service):
    machine, out, aside = service.machine, f"{PHOTOS}/out", f"{PHOTOS}/aside"
    machine.run("mv", out, aside)
    machine.run("install", "-d", "-o", "painter", "-g", "painter", out)
    service.drop("replaced.jpg", 55)
    machine.wait_for(lambda: service.status()["blocked"], FIRST, "it was not noticed")
    told = service.stylewatch("doctor", "--config", CONFIG, check=False).stdout
    assert "sudo systemctl restart stylewatch" in told
    machine.run("systemctl", "restart", "stylewatch")
    service.result("replaced--dream.png")
    machine.run("sh", "-c", f"mv {aside}/* {out}")


def test_a_stop_in_the_middle_of_a_job_is_quick_and_loses_nothing(service):
    service.begin_and_hold("stopped.jpg", 60)
    began = time.monotonic()
    service.machine.run("systemctl", "stop", "stylewatch")
    assert time.monotonic() - began < 25
    assert service.machine.show("Result") == "success"
    assert service.workers() == []
    waiting = service.stylewatch("status", "--config", CONFIG, "--json", check=False)
    assert waiting.returncode == 8
    assert json.loads(waiting.stdout)["folders"][0]["waiting"] == 1  # by the service's own ledger
    service.hold.unlink()
    service.machine.run("systemctl", "start", "stylewatch")
    service.result("stopped--dream.png")


def test_an_upgrade_is_taken_up_with_the_next_worker(service):
    machine, package = service.machine, Path(stylewatch.__file__).parent
    pid = service.pid
    machine.run("cp", "-r", package, "/opt/dreams/stylewatch")
    for beside in ("presets", "systemd"):
        if (package.parent / beside).is_dir():  # not where a wheel was installed
            machine.run("ln", "-s", package.parent / beside, "/opt/dreams")
    machine.write("/opt/dreams/stylewatch/__init__.py", '__version__ = "9"\n')
    for worker in service.workers():
        machine.run("kill", "-9", worker)
    service.drop("upgraded.jpg", 65)
    service.result("upgraded--dream.png")
    assert service.pid != pid
    assert service.status()["version"] == "9"
    assert "upgraded while it ran. systemd restarts it" in machine.journal()


def test_nothing_was_lost_and_nothing_made_twice(service):
    out = service.machine.root / f"{PHOTOS}/out".lstrip("/")
    names = sorted(file.name for file in out.iterdir() if not file.name.startswith("."))
    assert names == sorted(
        [
            *(f"{name}--dream.png" for name in ("first", "worker-killed", "daemon-killed", "hung")),
            *("new--reverie.webp", "still--reverie.webp", "stopped--dream.png"),
            *("replaced--dream.png", "upgraded--dream.png"),
        ]
    )
    assert not list(out.glob(".*.sw-tmp"))


def test_the_network_paints_behind_all_the_walls(service):
    """TensorFlow, as hardened as the unit has it."""
    preset = "base: draft\nmax_side: 64\ncoarsest_side: 64\nevaluations: [3]\n"
    preset += "style: [/shipped/style.png]\n"
    picture = io.BytesIO()
    Image.linear_gradient("L").rotate(45).convert("RGB").save(picture, "PNG")
    style = service.machine.root / "srv/photos/presets/style.png"
    style.write_bytes(picture.getvalue())
    preset = preset.replace("/shipped/", f"{PHOTOS}/presets/")
    service.machine.write(f"{PHOTOS}/presets/tiny.yaml", preset)
    service.machine.run("systemctl", "reload", "stylewatch")
    service.machine.run("install", "-d", "-o", "painter", f"{PHOTOS}/in/tiny")
    service.drop("tiny/real.jpg", 70)
    service.result("tiny/real--tiny.jpg")


def test_uninstall_leaves_photos_pictures_and_ledger(service):
    service.stylewatch("service", "uninstall", account="root")
    assert service.machine.show("ActiveState") == "inactive"
    assert service.machine.show("LoadState") == "not-found"
    assert (service.machine.root / "var/lib/stylewatch/ledger.db").exists()
    assert (service.machine.root / f"{PHOTOS}/in/first.jpg".lstrip("/")).exists()
    status = service.stylewatch("service", "status", account="root", check=False)
    assert "not installed" in status.stdout


def test_a_person_has_a_service_of_their_own_without_root(service):
    machine = service.machine
    machine.run("systemctl", "start", "manager")
    said = service.stylewatch("service", "install", "--user", "--config", CONFIG).stderr
    assert "loginctl enable-linger painter" in said
    status = json.loads(service.stylewatch("service", "status", "--user", "--json").stdout)
    assert (status["state"], status["enabled"]) == ("active", True)
    seen = machine.run("cat", f"/proc/{status['pid']}/status").stdout
    assert "NoNewPrivs:\t1\n" in seen
    assert "Seccomp:\t2\n" in seen
    service.drop("mine.jpg", 80)
    service.result("mine--dream.png")
    assert (machine.root / "home/painter/.local/state/stylewatch/ledger.db").exists()
    service.stylewatch("service", "uninstall", "--user")
    assert not (machine.root / "proc" / str(status["pid"])).exists()
    assert service.stylewatch("service", "status", "--user", check=False).returncode == 8
