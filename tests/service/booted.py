"""A machine of its own for a test: a real systemd as the first process of fresh namespaces.

It sees this machine's files, copy on write, in memory: nothing it does reaches the host, and when
its first process is killed everything in it is gone. Needs root, overlayfs and cgroup2.
"""

import contextlib
import functools
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SYSTEMD = next(
    (file for file in ("/usr/lib/systemd/systemd", "/lib/systemd/systemd") if os.path.exists(file)),
    "",
)
UNSHARE = ["unshare", "--mount", "--pid", "--fork", "--cgroup", "--uts", "--ipc"]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BOOT_SECONDS = 30.0

INIT = r"""
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs "$BASE"
mkdir "$BASE/changes" "$BASE/scratch" "$BASE/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$BASE/changes,workdir=$BASE/scratch" "$BASE/root"
cd "$BASE/root"
for place in $ELSEWHERE; do  # on file systems of their own, so not in the overlay
    mkdir -p ".$place"
    mount --bind "$place" ".$place"
    mount -o remount,bind,ro ".$place"
done
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount --rbind /dev dev
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp

# Only the journal and what a test installs; the host's services stay where they are.
rm -rf etc/systemd/system usr/lib/systemd/system/*.wants etc/fstab
mkdir -p etc/systemd/system usr/lib/systemd/system/sysinit.target.wants
ln -s ../systemd-journald.service usr/lib/systemd/system/sysinit.target.wants/
printf '[Unit]\nRequires=sysinit.target\nAfter=sysinit.target\n' > etc/systemd/system/trial.target
for who in painter:4242 stranger:4243; do
    name=${who%:*} number=${who#*:}
    echo "$name:x:$number:$number::/home/$name:/bin/sh" >> etc/passwd
    echo "$name:x:$number:" >> etc/group
    install -d -o "$number" -g "$number" "home/$name"
done
for place in $OPENED; do chmod o+x ".$place" || true; done

mkdir .host
pivot_root . .host
umount -l .host
rmdir .host
exec env -i container=trial PATH="$PATH" "$SYSTEMD" --system --unit=trial.target --show-status=no --log-target=journal
"""


@functools.cache
def why_not() -> str:
    """What this machine lacks for such a machine; empty when it can be had."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root on Linux can boot a systemd of its own"
    missing = [name for name in ("unshare", "nsenter", "setpriv") if shutil.which(name) is None]
    if missing or not SYSTEMD:
        return f"not installed: {', '.join([*missing, *([] if SYSTEMD else ['systemd'])])}"
    if "overlay" not in Path("/proc/filesystems").read_text():
        return "the kernel has no overlayfs"
    if _cgroups() is None:
        return "there is no cgroup2 that we may write"
    if subprocess.run([*UNSHARE, "true"], check=False, capture_output=True).returncode:
        return "namespaces can't be made here"
    return ""


def _cgroups() -> Path | None:
    """Where cgroup2 is mounted, on a pure host or beside cgroup1."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup2" and "rw" in options.split(",") and os.access(place, os.W_OK):
            return Path(place)
    return None


class Machine:
    """The machine, while it is entered."""

    def __enter__(self):
        self._base = Path(tempfile.mkdtemp(prefix="stylewatch-machine-"))
        cgroups = _cgroups()
        assert cgroups is not None
        self._cgroup = cgroups / self._base.name
        self._cgroup.mkdir()
        self._log = (self._base / "log").open("w+b")
        try:
            self._boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _boot(self):
        needed = [Path(__file__).parents[2], Path(sys.prefix), Path(sys.base_prefix)]
        device = os.stat("/").st_dev
        environ = {
            "BASE": str(self._base),
            "SYSTEMD": SYSTEMD,
            "PATH": PATH,
            "ELSEWHERE": " ".join(str(each) for each in needed if each.stat().st_dev != device),
            "OPENED": " ".join(sorted({str(up) for each in needed for up in each.parents})),
        }
        script = f'echo $$ > {self._cgroup}/cgroup.procs; exec "$@"'
        inside = [*UNSHARE, "--kill-child=SIGKILL", "bash", "-c", INIT]
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "sh", "-c", script, "sh", *inside],
            env=environ, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
        )  # fmt: skip
        self.wait_for(self._is_up, BOOT_SECONDS, "systemd did not start")

    def _is_up(self):
        assert self._process.poll() is None, self.log()
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        if not children:
            return False
        self.pid = int(children.split()[0])
        self.root = Path(f"/proc/{self.pid}/root")
        if not (self.root / "run/systemd/private").is_socket():
            return False
        return self.run("systemctl", "is-active", "trial.target", check=False).returncode == 0

    def log(self):
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-4000:]

    def run(self, *command, account="root", check=True, timeout=90.0):
        """Run a command in the machine, as root, painter or stranger."""
        namespaces = ["--mount", "--pid", "--uts", "--ipc", "--cgroup"]
        entered = ["nsenter", "--target", str(self.pid), *namespaces]
        if account != "root":
            entered += ["setpriv", f"--reuid={account}", f"--regid={account}", "--clear-groups"]
        entered += ["env", "-i", "LC_ALL=C.UTF-8", f"HOME=/home/{account}", f"PATH={PATH}"]
        done = subprocess.run(
            [*entered, *map(str, command)],
            check=False, capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip
        if check and done.returncode:
            said = f"{shlex.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}"
            raise AssertionError(f"{said}\n{self.journal()}")
        return done

    def journal(self, unit="stylewatch"):
        command = ["journalctl", "-u", unit, "-o", "cat", "--no-pager", "-n", "60"]
        return self.run(*command, check=False).stdout

    def show(self, name, unit="stylewatch"):
        """One property of the service."""
        return self.run("systemctl", "show", unit, "--value", f"--property={name}").stdout.strip()

    def wait_for(self, condition, seconds, what):
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"{what}\n{self.journal() if hasattr(self, 'pid') else self.log()}"
                )
            time.sleep(0.1)
        return found

    def write(self, path, text, account=None):
        """A file in the machine."""
        file = self.root / str(path).lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        if account:
            self.run("chown", account, path)
        return file

    def __exit__(self, *_):
        """Kill the first process, and with it all others; nothing is left on the host."""
        with contextlib.suppress(AttributeError):
            self._process.kill()
            self._process.wait()
        deadline = time.monotonic() + 10
        while True:
            try:
                for folder, _, _ in os.walk(self._cgroup, topdown=False):
                    os.rmdir(folder)
                break
            except FileNotFoundError:
                break
            except OSError:
                assert time.monotonic() < deadline, "processes of the machine live on"
                time.sleep(0.05)
        self._log.close()
        shutil.rmtree(self._base)
