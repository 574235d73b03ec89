"""Feature networks: VGG19 by layer name, and the built-in network that ships with the package.

VGG19 is Simonyan and Zisserman's (arXiv:1409.1556), as Keras distributes it. Both networks are
one list of convolutions and poolings, evaluated in `keras.ops` up to the deepest layer asked
for, in float32 or bfloat16. Keras reads (and downloads) VGG19's weights. Knows nothing of losses or
optimisation.
"""

import contextlib
import gc
import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Literal

import keras
import numpy as np
from keras import ops

from stylewatch.domain import VGG19_LAYERS
from stylewatch.engine.backend import Precision, Tensor, max_pool
from stylewatch.engine.convolution import Convolve, convolution
from stylewatch.errors import DeviceError, StylewatchError, WeightsError, named, ran_out_of_memory

STRIDE = 16
"""Pixels between the deepest features; at multiples of it the features of all layers begin."""

MEAN_BGR = np.array([103.939, 116.779, 123.68], dtype=np.float32)
"""ImageNet's mean pixel, in the order that VGG19 was trained with."""

_DOWNLOAD_SECONDS = 10.0  # for each address of a host, of which there may be many, and each piece


@dataclass(frozen=True, eq=False)
class Convolution:
    """One 3×3 convolution with its ReLU, possibly factored into several kernels.

    `kernels` are applied one after the other (all (kh, kw, in, out), "same" padding), then the
    bias, then the ReLU.
    """

    name: str
    kernels: tuple[np.ndarray, ...]
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class FeatureNetwork:
    """VGG19's layers, or a stand-in with the same names, ready to be evaluated."""

    name: str
    """What people are told: `VGG19 (ImageNet)`, `built-in`."""
    digest: str
    """Hex SHA-256 of the weights."""
    convolutions: tuple[Convolution, ...]

    def extractor(
        self,
        layers: Iterable[str],
        *,
        precision: Precision = "float32",
        pooling: Literal["max", "average"] = "max",
    ) -> Callable[[Tensor], dict[str, Tensor]]:
        """A function from images to features at `layers`, with its weights on the device.

        It takes (1, H, W, 3), BGR minus `MEAN_BGR`, and gives (1, H/2^b, W/2^b, C) per layer, in
        `precision`. Nothing beyond the deepest layer is computed.
        """
        wanted = set(layers)
        deepest = max(VGG19_LAYERS.index(layer) for layer in wanted)
        used = self.convolutions[: deepest + 1]
        steps = [(layer.name, on_device(layer, precision)) for layer in used]

        def extract(image: Tensor) -> dict[str, Tensor]:
            taps: dict[str, Tensor] = {}
            x = image if precision == "float32" else _in_two(image, precision)
            block = "block1"
            for name, convolve in steps:
                if not name.startswith(block):
                    block = name.partition("_")[0]
                    x = _pool(x, pooling)
                x = convolve(x)
                if name in wanted:
                    taps[name] = x
            return taps

        return extract


@lru_cache(maxsize=64)  # 16 layers of two networks in two precisions
def on_device(layer: Convolution, precision: Precision) -> Convolve:
    """A layer as a function; its weights are on the device just once, as they may take 0.4 GB."""
    first, *others = layer.kernels
    if layer.name == VGG19_LAYERS[0] and precision != "float32":  # its input is `_in_two`
        first = np.concatenate([first, first], axis=2)
    convolutions = [convolution(kernel, precision) for kernel in (first, *others)]
    bias = ops.convert_to_tensor(layer.bias, dtype=precision)

    def convolve(x: Tensor) -> Tensor:
        for convolve_once in convolutions:
            x = convolve_once(x)
        return ops.relu(x + bias)

    return convolve


def _in_two(image: Tensor, precision: Precision) -> Tensor:
    """An image as (1, H, W, 6): its whole grey levels, and what remains, each in bfloat16.

    Simply rounded to bfloat16, whose values are half a grey level apart, an image would not show
    the small steps of an optimiser near its end.
    """
    whole = ops.stop_gradient(ops.cast(ops.round(image), precision))
    rest = ops.cast(image - ops.cast(whole, "float32"), precision)
    return ops.concatenate([whole, rest], axis=-1)


def _pool(x: Tensor, pooling: str) -> Tensor:
    if pooling == "max":
        return max_pool(x)
    return ops.average_pool(x, 2, strides=2, padding="valid")


def stride_of(layer: str) -> int:
    """How many pixels lie between a layer's features: each block ends by halving them."""
    return 1 << (int(layer[5]) - 1)


def preprocess(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) RGB 0…255 to the network's input (1, H, W, 3); the argument is left alone."""
    return np.asarray(rgb[..., ::-1] - MEAN_BGR, dtype=np.float32)[np.newaxis]


def deprocess(image: np.ndarray) -> np.ndarray:
    """The inverse of `preprocess`; values outside 0…255 stay, for the caller to clip."""
    return np.asarray((image[0] + MEAN_BGR)[..., ::-1])


def load_vgg19(weights: str = "imagenet", *, progress: bool = False) -> FeatureNetwork:
    """VGG19 with Keras's ImageNet weights (`imagenet`) or those of a file in the same format.

    With `progress` stdout shows how far a download is.

    Raises:
        WeightsError: no network to download them, a missing file, or not VGG19's.
        DeviceError: no memory for them.
    """
    if progress:
        keras.config.enable_interactive_logging()
    else:
        keras.config.disable_interactive_logging()  # its download bar would tear ours
    loaded = _loaded_by_keras(weights)
    gc.collect()  # Keras's own network is a knot of references, which Python unties late, if ever
    if isinstance(loaded, StylewatchError):
        raise loaded
    name = "VGG19 (ImageNet)" if weights == "imagenet" else f"VGG19 ({weights})"
    return FeatureNetwork(name, _digest(loaded), loaded)


def _loaded_by_keras(weights: str) -> tuple[Convolution, ...] | StylewatchError:
    """VGG19's layers, or why they can't be had: no more, as an error's frames hold the network."""
    try:
        with _network_timeout():
            model = keras.applications.VGG19(include_top=False, weights=weights)
    except Exception as error:  # noqa: BLE001  (Keras's own are of many kinds)
        if ran_out_of_memory(error):  # of a GPU, which this is the first to need
            remedy = "Close other programs, above all those that use the GPU"
            return DeviceError("No memory is left for VGG19", received=named(error), remedy=remedy)
        return _weights_error(weights, error)
    return tuple(
        Convolution(name, (kernel,), bias)
        for name in VGG19_LAYERS
        for kernel, bias in [model.get_layer(name).get_weights()]
    )


def _weights_error(weights: str, error: Exception) -> WeightsError:
    if weights == "imagenet":
        received = " ".join(str(error).split())
        remedy = "Run `stylewatch weights fetch` once where there is a network"
        if "CERTIFICATE_VERIFY" in received:  # a proxy's own
            remedy = "Name this network's certificates in SSL_CERT_FILE, such as "
            remedy += "/etc/ssl/certs/ca-certificates.crt"
        return WeightsError(
            "The VGG19 weights could not be downloaded",
            received=received,
            remedy=f"{remedy}, or give the file with `weights: PATH`",
            reason=WeightsError.not_downloaded,
        )
    if not os.path.exists(weights):
        remedy = "Correct `weights`, or put the file back"
        return WeightsError(f"There is no weights file {weights}", remedy=remedy)
    return WeightsError(
        f"The weights file {weights} can't be used",
        expected="VGG19's weights without the top, in the format of Keras's own download",
        received=" ".join(str(error).split()),
        remedy="Copy it again, or use Keras's own: `stylewatch weights path` prints where that is",
    )


@contextlib.contextmanager
def _network_timeout() -> Iterator[None]:
    """Keras downloads without a time-out; a dead link must not hang a worker."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def load_builtin() -> FeatureNetwork:
    """The network that ships with the package: VGG19's layers in a few megabytes.

    Its numbers are derived from VGG19 (Simonyan and Zisserman, CC BY 4.0).
    """
    resource = files("stylewatch") / "data" / "builtin.npz"
    with resource.open("rb") as stream, np.load(stream) as archive:
        arrays = {name: archive[name] for name in archive.files}
    meta = json.loads(str(arrays["meta"]))
    convolutions = tuple(_unpack(name, arrays) for name in VGG19_LAYERS if f"{name}/bias" in arrays)
    return FeatureNetwork(str(meta["name"]), _digest(convolutions), convolutions)


def _unpack(name: str, arrays: Mapping[str, np.ndarray]) -> Convolution:
    """The layer of that name: in one kernel, or in two factors."""
    stored = (arrays.get(f"{name}/{key}") for key in ("kernel", "reduce", "expand"))
    kernels = tuple(kernel.astype(np.float32) for kernel in stored if kernel is not None)
    return Convolution(name, kernels, arrays[f"{name}/bias"].astype(np.float32))


def _digest(convolutions: tuple[Convolution, ...]) -> str:
    sha = hashlib.sha256()
    for layer in convolutions:
        for array in (*layer.kernels, layer.bias):
            sha.update(array.tobytes())
    return sha.hexdigest()
