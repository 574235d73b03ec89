"""VGG19's weights on this disk: where they lie, and whether they are there and can be read.

Opens none of them.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from stylewatch.places import nearest_existing

NAME: Final = "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
BYTES: Final = 80_134_624
"""Of Keras's own file; while it has fewer, it is being downloaded."""
MD5: Final = "253f8cb515780f3b799900260a226db6"
"""Keras's own checksum of it."""


def keras_weights() -> Path:
    """Where Keras keeps its download; in /tmp, if it may not write to its usual folder."""
    own = os.environ.get("KERAS_HOME")
    folder = Path(os.path.expanduser(own or "~/.keras"))
    there = nearest_existing(folder)
    asked = [there] if own else [there, folder.parent]
    if not all(os.access(place, os.W_OK) for place in asked):
        folder = Path("/tmp/.keras")  # noqa: S108  (Keras's own choice)
    return folder / "models" / NAME


def downloaded() -> bool:
    """Whether Keras's own weights are there, as a whole."""
    try:
        return keras_weights().stat().st_size == BYTES
    except OSError:
        return False


@contextlib.contextmanager
def one_download(weights: str) -> Iterator[None]:
    """Whoever loads Keras's own weights does it in here, as these may have to be downloaded first.

    Keras would have several processes write over each other's file. So one of them begins, and the
    others wait; they find the whole file, or else all try at once.
    """
    with contextlib.ExitStack() as held:
        if weights == "imagenet" and not downloaded():
            with contextlib.suppress(OSError):  # no locks there, or nothing can be written at all
                lock = keras_weights().with_suffix(".lock")
                lock.parent.mkdir(parents=True, exist_ok=True)
                stream = held.enter_context(lock.open("a+b"))
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    fcntl.flock(stream, fcntl.LOCK_SH)
        yield


def weights_trouble(weights: str) -> str:
    """Why a weights file can't be used, as far as can be told without opening it; else empty."""
    if weights == "imagenet":
        return ""
    if os.path.isdir(weights):
        return "is a folder"
    if not os.path.exists(weights):
        return "does not exist"
    if not os.path.isfile(weights):  # who opens a pipe waits for its writer
        return "is no regular file"
    return "" if os.access(weights, os.R_OK) else "can't be read"
