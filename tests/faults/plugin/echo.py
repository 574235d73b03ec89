"""An effect in no time: the result is the photo, and the colour of some photos is an order.

`ECHO_LOG` names a file that gets a line for every photo: when it began, and its pixels' digest.
`ECHO_SECONDS` is how long each one takes.
"""

import ctypes
import hashlib
import os
import signal
import time

import numpy as np

from stylewatch.effect import Rendering

ORDERS = {
    (255, 0, 10): "segfault",
    (255, 0, 20): "killed",
    (255, 0, 30): "hang",
    (255, 0, 40): "memory",
    (255, 0, 50): "exit",
}


class Echo:
    def render(self, photo, preset, context):
        began = time.monotonic()
        pixels = np.rint(photo).astype(np.uint8)
        line = f"{began} {digest(pixels)}\n".encode()
        log = os.open(os.environ["ECHO_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(log, line)  # one write: lines of several workers never mix
        os.close(log)
        obey(ORDERS.get(tuple(int(value) for value in pixels[0, 0]), ""))
        time.sleep(float(os.environ.get("ECHO_SECONDS", "0")))
        return Rendering(rgb=photo)


def digest(pixels):
    """Of an (H, W, 3) uint8 array, its shape included."""
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def obey(order):
    if order == "segfault":
        ctypes.string_at(0)
    elif order == "killed":  # as the kernel does when memory runs out
        os.kill(os.getpid(), signal.SIGKILL)
    elif order == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(3600)
    elif order == "memory":
        np.ones(1 << 40, np.uint8)
    elif order == "exit":
        os._exit(3)
