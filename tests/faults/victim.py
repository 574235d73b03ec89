"""The process that faults are done to: a real daemon, or a re-creation of a peer's watcher.

Forked from a server that has imported everything already, so that five hundred lives of a daemon
cost five hundred forks. Its workers are fresh interpreters, as always.
"""

import os
import signal
import sys
from pathlib import Path

import stylewatch.app.serve
import stylewatch.cli
from stylewatch import failpoints
from stylewatch.folders import settle
from stylewatch.host import daemon, delivery
from stylewatch.state import retries

PLUGIN = Path(__file__).parent / "plugin"
ROOT = Path(__file__).parents[2]


def live(kind: str, config: str, log: str, environment: dict[str, str]) -> None:
    """Be the daemon with this config, or `peers.<kind>`, until killed or asked to end."""
    os.setsid()
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # a job in the background is born deaf to them
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    os.environ.update(environment)
    sys.path[:0] = [str(PLUGIN), str(ROOT)]
    failpoints._WANTED, _, failpoints._COUNT = os.environ.get("STYLEWATCH_FAILPOINT", "").partition(
        ":"
    )
    if os.environ.get("STYLEWATCH_SABOTAGE"):
        from tests.faults import sabotage

        sabotage.install()
    if kind != "stylewatch":
        from tests.faults import peers

        getattr(peers, kind)(*config.split("\n"))
        return
    daemon.LOOK_SECONDS = daemon.LEDGER_SECONDS = 1.0  # shorter waits, the same steps
    delivery.UNNAMED_SECONDS = 1.0
    daemon.RESOURCE_PAUSE = retries.RESOURCE_PAUSE = 2.0
    settle.LAST_PATIENCE = 3.0
    retries.FIRST_PAUSE, retries.LONGEST_PAUSE, retries.PERMISSION_PAUSE = 0.5, 2.0, 2.0
    sys.argv = ["stylewatch", "run", "--config", config]
    code = stylewatch.cli.main()
    sys.stdout.flush()
    os._exit(code or 0)
