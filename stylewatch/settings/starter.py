"""What `stylewatch init` makes: a config with every key in it, explained, and its folders."""

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stylewatch.errors import OutputError
from stylewatch.settings.config import Folder
from stylewatch.settings.paths import default_state_dir

_TEMPLATE = """\
# What stylewatch does. `stylewatch config check` tells whether it can be used;
# `stylewatch presets list` shows the presets. Paths are relative to this file, ~ is your home.
# Lines that begin with # are comments; the keys in them, except `rules`, show the defaults.

folders:
  - input: {input}  # drop photos here, or into a sub-folder named after a preset
    output: {output}  # results: sub/IMG_1.jpg becomes sub/IMG_1--{preset}.jpg
    preset: {preset}  # when no rule matches; [a, b] makes two pictures of each photo
    after: keep  # or delete, or {{move: FOLDER}}: the photo, once its result is safe
    # name: in            # what `stylewatch status` calls this folder
    # subfolders: true    # false: a sub-folder named after a preset means nothing special
    # quiet_seconds: 2s   # this folder's own, such as 30s for a slow scanner
    # weight: 1           # its share of the work when several folders have photos waiting
    # rules:              # the first that matches decides
    #   - {{path: "portraits/**", preset: {preset}}}
    #   - {{camera: "*X100*", orientation: portrait, preset: {preset}}}
    #   - {{max_side: 600, preset: []}}    # leave thumbnails alone; min_side likewise

# workers: local           # {{local: 4}} for four processes, tls://host:8786 for a Dask cluster
# presets: []              # folders with presets of your own, besides ~/.config/stylewatch/presets

# The network that looks at pictures
# weights: imagenet        # downloaded once; or the path of a VGG19 weights file
# features: auto           # vgg19, or builtin, which needs no download
# threads: 0               # CPU threads per worker; 0 = its share of the cores
# nice: 10                 # how far workers give way to other programs, 0 to 19
# memory: 0                # 4GB: what needs more is painted in tiles; 0 = 3/4 of what is free
# memory_limit: 0          # a worker that takes this much beyond its start fails; 0 = no limit,
#                          # which a GPU's driver needs
# checkpoint_seconds: 30s  # how often an unfinished painting is saved; a large one less often,
#                          # one of 24 megapixels (288 MB) every five minutes
# limits: {{max_pixels: 110000000, max_side: 30000, max_bytes: 200MB}}   # larger photos are refused

# When things happen
# quiet_seconds: 2s        # a file is complete when it has not changed for this long, or for a
#                          # quarter of that since it was closed; 10s or more on a network
# settle_max_seconds: 10min  # a file not whole this long after its last change is set aside
# rescan_seconds: 30s      # how often folders are looked through
# hours: 00:00-24:00       # when photos are begun, such as 22:00-07:00; at others they wait
# on_battery: paint        # wait: no photo is begun while this machine runs on battery
# job_timeout: 1h          # a photo that takes longer is stopped and tried again; where its
#                          # preset has a time_budget, this counts beyond that
# max_attempts: 3          # after this many failures, or 2 crashes, a photo is set aside
# grace_seconds: 5s        # how long a running photo may go on after a request to stop
# idle_release: 10min      # idle workers give their memory back; 0 keeps them
# min_free: 500MB          # with less free space on a disk, outputs on it and moves to it pause

# Records
# state_dir: {state_dir}   # on a local disk
# retention_days: 365      # how long photos that are gone are remembered
# metrics_port: null       # a port such as 9464: figures for Prometheus on this machine
"""


def write_config(file: Path, text: str) -> bool:
    """Write the config, whole or not at all, unless there is one already; whether it was written.

    A config is UTF-8: what is not in it, as in a folder's name, is written as numbers.
    """
    with _making(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            stream = file.open("xb")
        except FileExistsError:
            return False
        try:
            with stream:
                stream.write(text.encode(errors="backslashreplace"))
        except BaseException:
            file.unlink()
            raise
    return True


def make_folders(folder: Folder, presets: Iterable[str]) -> list[str]:
    """Make a folder's output and input, with a sub-folder for each preset if these mean anything.

    Returns the names of the sub-folders that were not there yet.
    """
    names = presets if folder.subfolders else ()
    new = [name for name in names if not os.path.lexists(folder.input / name)]
    for place in (folder.output, folder.input, *(folder.input / name for name in names)):
        with _making(place):
            place.mkdir(parents=True, exist_ok=True)
    return new


@contextmanager
def _making(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = "a file lies there" if isinstance(error, FileExistsError) else error.strerror
        problem = f"{error.filename or path} can't be made: {why}"
        raise OutputError(problem, remedy="Choose another place") from error


def default_config_text(input_dir: str, output: str, preset: str) -> str:
    """A config with every key explained, for `stylewatch init`."""
    state_dir = str(default_state_dir())
    words = {"input": input_dir, "output": output, "preset": preset, "state_dir": state_dir}
    text = _TEMPLATE.format(**{key: _as_yaml(word) for key, word in words.items()})
    return "\n".join(map(_aligned, text.split("\n")))


def _aligned(line: str) -> str:
    """The line with its remark in the same column as others', if what stands before it is short."""
    key, _, remark = line.rpartition("  # ")
    is_key = key.strip() and not key.lstrip().startswith("#")
    return f"{key:<24}  # {remark}" if is_key else line


def _as_yaml(word: str) -> str:
    plain = re.fullmatch(r"~?/[\w/. +-]*\w|[A-Za-z][\w./-]*", word)
    meant = word.lower() not in {"null", "true", "false"}
    return word if plain and meant else json.dumps(word, ensure_ascii=False)
