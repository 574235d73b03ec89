"""The features that ship with the package: which file, how large, how fast, and what they see."""

import hashlib
import json
import time
from importlib.resources import files

import numpy as np
import pytest
from keras import ops

from stylewatch.domain import BUILTIN_LAYERS
from stylewatch.engine import features

SHA256 = "1b20a7f6debfdefae6a72f76a548466c504e75c20e1544e6a68c75c96fbbe02e"
WIDTHS = {"block1": 64, "block2": 128, "block3": 256, "block4": 512, "block5": 512}
TAPS = [f"block{block}_conv1" for block in range(1, 6)] + ["block4_conv2", "block5_conv2"]
MEANS = {
    "block1_conv1": 48.07003,
    "block2_conv1": 264.29041,
    "block3_conv1": 482.83789,
    "block4_conv1": 1588.61938,
    "block4_conv2": 947.58136,
    "block5_conv1": 93.52528,
    "block5_conv2": 40.12075,
}
"""Mean activation per layer on `picture()`; any other weights change all but the first."""


@pytest.fixture(scope="module")
def file():
    return files("stylewatch") / "data" / "builtin.npz"


@pytest.fixture(scope="module")
def builtin():
    return features.load_builtin()


def picture(side=96):
    """Rings, a ramp and a checkerboard: the same on every machine."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    rings = 127.5 + 127.5 * np.sin(np.hypot(x - 30, y - 40) / 3)
    ramp = 255 * x / side
    board = 255.0 * ((x // 12 + y // 12) % 2)
    return np.stack([rings, ramp, board], axis=-1).astype(np.float32)


def activations(network, layers, precision="float32"):
    extract = network.extractor(layers, precision=precision)
    return {
        name: ops.convert_to_numpy(ops.cast(tap, "float32"))
        for name, tap in extract(ops.convert_to_tensor(features.preprocess(picture()))).items()
    }


def test_the_file_is_the_one_that_was_measured(file):
    assert hashlib.sha256(file.read_bytes()).hexdigest() == SHA256


def test_it_is_small_enough_for_the_wheel(file):
    assert len(file.read_bytes()) <= 8_000_000


def test_it_loads_in_a_fifth_of_a_second(pace):
    def seconds():
        started = time.process_time()  # of this process alone: other people's work doesn't count
        features.load_builtin()
        return time.process_time() - started

    assert min(seconds() for _ in range(5)) < 0.2 * pace


def test_it_has_vgg19_s_layers_and_widths(builtin):
    names = [convolution.name for convolution in builtin.convolutions]
    assert names == list(BUILTIN_LAYERS)
    channels = 3
    for convolution in builtin.convolutions:
        width = WIDTHS[convolution.name[:6]]
        assert convolution.kernels[0].shape[:3] == (3, 3, channels)
        assert convolution.kernels[-1].shape[-1] == width
        assert convolution.bias.shape == (width,)
        channels = width


def test_it_says_where_it_comes_from(file):
    with np.load(file) as archive:
        meta = json.loads(str(archive["meta"]))
    assert "Simonyan" in meta["credits"]
    assert "CC BY 4.0" in meta["credits"]
    assert meta["command"].startswith("python tools/distil.py")


def test_its_activations_are_those_that_were_measured(builtin):
    seen = {name: float(tap.mean()) for name, tap in activations(builtin, TAPS).items()}
    assert seen == pytest.approx(MEANS, rel=1e-3)


def test_bfloat16_sees_the_same(builtin):
    full, half = (activations(builtin, TAPS, p) for p in ("float32", "bfloat16"))
    for name in TAPS:
        error = np.sum((full[name] - half[name]) ** 2) / np.sum(full[name] ** 2)
        assert error < 2e-3, name


@pytest.mark.assets
def test_its_first_layer_is_vgg19_s_and_the_others_are_close(builtin, vgg19_file):
    theirs = activations(features.load_vgg19(str(vgg19_file)), TAPS)
    ours = activations(builtin, TAPS)
    wrong = {
        name: float(np.sum((ours[name] - theirs[name]) ** 2) / np.sum(theirs[name] ** 2))
        for name in TAPS
    }
    limits = [1e-6, 0.03, 0.1, 0.15, 0.3, 0.7, 0.7]
    assert {name: share for name, share in wrong.items() if share > limits[TAPS.index(name)]} == {}
