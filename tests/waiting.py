"""For what happens elsewhere, in another thread or process."""

import time


def wait_until(condition, seconds=60.0, told=lambda: ""):
    """What the condition gives, as soon as that is true; `told` says what there was instead."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, told()
        time.sleep(0.02)
    return found
