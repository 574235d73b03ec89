"""The one place that knows which backend Keras runs on, and on what device.

TensorFlow is what stylewatch installs; `KERAS_BACKEND=jax` and `torch` work where they are
present. Everything else in the core is written in `keras.ops`. Knows nothing of losses or images.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import keras
import numpy as np

from stylewatch.engine.machine import cpu_flags, memory_kept, memory_left
from stylewatch.errors import DeviceError, named

keras.config.set_image_data_format("channels_last")  # whatever somebody's keras.json says
keras.config.set_floatx("float32")

Tensor = Any
"""The backend's own tensor, or an array, if either will do: they have no type in common."""
Precision = Literal["float32", "bfloat16"]
LossFunction = Callable[[Tensor, Any], tuple[Tensor, Any]]
"""`objective(x, targets) -> (loss, parts)`: `parts` is whatever belongs to the loss."""

_BFLOAT16_GAIN = 0.65
"""bfloat16 counts as faster if a plain convolution takes no more than this share of float32's time.

Not 1, as float32 may also use the algorithms with fewer multiplications. Where the hardware has
bfloat16, the share is 0.2 to 0.55; elsewhere 1 and more.
"""
_PROBE_ROUNDS = 3
_SIZES = 256  # so many kinds of arguments are remembered, each with its graph
_PROGRAMS = 32  # on JAX, of each function, one for each size: the oldest is dropped
_AMPERE = 8
"""NVIDIA's first compute capability with bfloat16; older GPUs emulate it, or can't do it at all."""


@dataclass(frozen=True)
class Device:
    """Where tensors live and what it is good at."""

    name: str
    fast_bfloat16: bool
    """The hardware multiplies bfloat16 faster than float32."""


def value_and_gradient(
    objective: LossFunction,
) -> Callable[[Tensor, Any], tuple[Tensor, Any, Tensor]]:
    """Compile `objective` into `(x, targets) -> (loss, parts, gradient)`.

    One TensorFlow graph serves every image size (the spatial dimensions stay open); JAX compiles
    once per size. No XLA on TensorFlow: on CPUs it turns bfloat16's gain into a loss.
    """
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            def evaluate(x: Tensor, targets: Any) -> tuple[Tensor, Any, Tensor]:
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    loss, parts = objective(x, targets)
                return loss, parts, tape.gradient(loss, x)

        case "jax":
            import jax

            differentiated = jax.value_and_grad(objective, has_aux=True)

            def evaluate(x: Tensor, targets: Any) -> tuple[Tensor, Any, Tensor]:
                (loss, parts), gradient = differentiated(x, targets)
                return loss, parts, gradient

        case _:
            import torch

            def evaluate(x: Tensor, targets: Any) -> tuple[Tensor, Any, Tensor]:
                leaf = x.detach().requires_grad_(requires_grad=True)
                with torch.enable_grad():  # `compiled` does without
                    loss, parts = objective(leaf, targets)
                (gradient,) = torch.autograd.grad(loss, leaf)
                return loss.detach(), keras.tree.map_structure(torch.detach, parts), gradient

    return compiled(evaluate)


def _open_graph(function: Callable[..., Any]) -> Callable[..., Any]:
    """A TensorFlow graph in which the height and width of images and features stay open.

    From the first call on: left to itself TensorFlow traces the first size as it is, and opens the
    dimensions at the second. The two graphs round differently, and a photo's result would depend
    on what was painted before it.
    """
    import tensorflow as tf

    graph = tf.function(function, reduce_retracing=True, autograph=False)
    open_graphs: dict[Any, Any] = {}

    def call(*arguments: Any) -> Any:
        arguments = tf.nest.map_structure(_as_tensor, arguments)
        key = _kinds(arguments)
        if key not in open_graphs:  # to find it takes TensorFlow as long as a small GPU kernel
            if len(open_graphs) >= _SIZES:
                open_graphs.clear()
            specs = tf.nest.map_structure(_open_spec, arguments)
            open_graphs[key] = graph.get_concrete_function(*specs)
        return open_graphs[key](*arguments)

    return call


def _as_tensor(value: Any) -> Tensor:
    import tensorflow as tf

    return value if tf.is_tensor(value) else tf.convert_to_tensor(value)


def _kinds(value: Any) -> Any:
    """The shapes and types of arguments: what a graph is looked up by."""
    match value:
        case tuple() | list():
            return tuple(map(_kinds, value))
        case dict():
            return tuple((name, _kinds(each)) for name, each in value.items())
    return value.shape, value.dtype


def _open_spec(tensor: Tensor) -> Any:
    import tensorflow as tf

    shape = list(tensor.shape)
    if len(shape) == 4 and shape[0] == 1:  # no kernel: those have one size
        shape[1] = shape[2] = None
    return tf.TensorSpec(shape, tensor.dtype)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of tensors that needs no gradient."""
    match keras.backend.backend():
        case "tensorflow":
            return _open_graph(function)
        case "jax":
            return _program_for_each_size(function)
        case _:
            import torch

            without_gradient = torch.no_grad()(function)
            return lambda *arguments: without_gradient(*_as_torch_tensors(arguments))


def _program_for_each_size(function: Callable[..., Any]) -> Callable[..., Any]:
    """JAX's `jit`, but for the arrays that a function knows besides its arguments: a network's.

    They are arguments of its programs. Left to itself JAX writes them into each one: the network
    would lie in memory several times for every size of picture, and be compiled each time.
    """
    import jax

    programs: dict[Any, Any] = {}

    def call(*arguments: Any) -> Any:
        leaves, form = jax.tree.flatten(arguments)
        key = form, tuple(map(jax.typeof, leaves))
        if key not in programs:
            if len(programs) >= _PROGRAMS:
                del programs[next(iter(programs))]  # the oldest
            traced, result = jax.make_jaxpr(function, return_shape=True)(*arguments)
            compute = jax.jit(partial(jax.core.eval_jaxpr, traced.jaxpr))
            programs[key] = compute, traced.consts, jax.tree.structure(result)
        compute, known, result = programs[key]
        return jax.tree.unflatten(result, compute(known, *leaves))

    return call


def _as_torch_tensors(arguments: Any) -> Any:
    """All arrays as tensors on the device: NumPy can't read those of a GPU to mix them itself."""
    return keras.tree.map_structure(keras.ops.convert_to_tensor, arguments)


def with_gradient(
    function: Callable[[Tensor], tuple[Tensor, Callable[[Tensor], Tensor]]],
) -> Callable[[Tensor], Tensor]:
    """A function with a gradient of its own: `function(x)` gives (value, back).

    `back` takes the loss's slope by the value to its slope by `x`. Keras hands over the former
    alone, but on PyTorch `x` and then the former by name.
    """

    def differentiable(x: Tensor) -> tuple[Tensor, Callable[..., Tensor]]:
        value, back = function(x)

        def gradient(*arguments: Tensor, upstream: Tensor = None) -> Tensor:
            return back(arguments[0] if upstream is None else upstream)

        return value, gradient

    return keras.ops.custom_gradient(differentiable)  # type: ignore[no-any-return]


def max_pool(features: Tensor) -> Tensor:
    """The maximum of each 2×2 square of (1, H, W, C); an odd row or column at the edge is dropped.

    On JAX it is written as a maximum over axes, whose gradient needs no scatter: on GPUs an
    evaluation of VGG19 takes a sixth less. Equal values then share the gradient, of which other
    backends give all to the first.
    """
    if keras.backend.backend() != "jax":
        return keras.ops.max_pool(features, 2, strides=2, padding="valid")
    _, height, width, channels = features.shape
    even = features[:, : height // 2 * 2, : width // 2 * 2]
    squares = keras.ops.reshape(even, (1, height // 2, 2, width // 2, 2, channels))
    return keras.ops.max(squares, axis=(2, 4))


def inner_products(rows: Sequence[Tensor], columns: Sequence[Tensor]) -> Tensor:
    """The products of each of `rows` with each of `columns`, all float32 and of one shape.

    JAX sums all of them in one kernel, as a GPU takes longer to start many small ones.
    """
    if keras.backend.backend() != "jax":
        sums = [keras.ops.sum(row * column) for row in rows for column in columns]
        return keras.ops.reshape(keras.ops.stack(sums), (len(rows), len(columns)))
    left, right = (
        keras.ops.reshape(keras.ops.stack(list(each)), (len(each), -1)) for each in (rows, columns)
    )
    return keras.ops.sum(left[:, None] * right[None], axis=-1)


def to_numpy(tensor: Tensor) -> np.ndarray:
    """A float32 array on the host; blocks until the device has finished."""
    array = tensor if isinstance(tensor, np.ndarray) else keras.ops.convert_to_numpy(tensor)
    return np.asarray(array, dtype=np.float32)


@cache
def device() -> Device:
    """What the computation will run on. The first call takes a fifth of a second."""
    gpu, capability = _gpu()
    if gpu:
        return Device(gpu, fast_bfloat16=_multiplies_bfloat16(capability))
    for flag, name in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512-BF16")):
        if flag in cpu_flags():
            fast = keras.backend.backend() == "tensorflow" and _bfloat16_gains()
            return Device(f"CPU with {name}", fast_bfloat16=fast)
    return Device("CPU", fast_bfloat16=False)


def check_device() -> None:
    """Compute something, so that a device that can't is reported as such, not as a later error.

    Raises:
        DeviceError: it can't.
    """
    try:
        float(keras.ops.convert_to_tensor(1.0) + 1.0)
    except Exception as error:
        raise DeviceError(
            f"{keras.backend.backend()} can't compute on this machine's GPU, or at all",
            received=named(error),
            remedy="See whether `nvidia-smi` works (a new driver needs a restart), close other "
            "programs that use the GPU, or paint on the CPU, with CUDA_VISIBLE_DEVICES=",
        ) from error


def has_gpu() -> bool:
    """Whether tensors lie elsewhere than NumPy's arrays do."""
    return bool(_gpu()[0])


def place(values: Tensor) -> Tensor:
    """The values as an optimiser should have them: a tensor on a GPU, else an array, to be read.

    On a CPU NumPy sums in place and in slices that fit the cache, four times as fast.
    """
    return keras.ops.convert_to_tensor(values) if has_gpu() else np.asarray(values)


def _bfloat16_gains() -> bool:
    """Whether a convolution in bfloat16 is as much faster as the CPU's flags promise.

    They promise what an emulator, or a library without the kernels, may not keep. The answer has
    to be the same in every run, whatever else this machine does, or the same job would give other
    bytes: processor time does not count what others use, and the least of some rounds, taken in
    turn, differs by a few per cent where the two cases differ by half.
    """
    try:
        calls = [_convolution(dtype) for dtype in ("float32", "bfloat16")]
        spent = [[_processor_seconds(call) for call in calls] for _ in range(_PROBE_ROUNDS + 1)]
    except Exception:  # noqa: BLE001  (who can't do it says so with an exception of its own)
        return False
    float32, bfloat16 = (min(times) for times in zip(*spent[1:], strict=True))  # the first compiles
    return bool(bfloat16 < _BFLOAT16_GAIN * float32)


def _convolution(dtype: str) -> Callable[[], float]:
    """One of the network's, 5 GFLOP."""
    image = keras.ops.ones((1, 128, 128, 128), dtype=dtype)
    kernel = keras.ops.ones((3, 3, 128, 128), dtype=dtype)

    @compiled
    def convolve(image: Tensor, kernel: Tensor) -> Tensor:
        features = keras.ops.conv(image, kernel, padding="same")
        return keras.ops.sum(keras.ops.cast(features, "float32"))

    return lambda: float(convolve(image, kernel))


def _processor_seconds(call: Callable[[], float]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def is_tensorflow_on_cpu() -> bool:
    """Whether convolutions are oneDNN's, which may keep each kernel as it arranged it at first.

    It does so where TensorFlow is told that no kernel ever changes, which is for the process to
    say (`jobs.child.set_environment`). With a small picture the deep kernels are as much to arrange
    as the picture is to convolve. Not compiled, all convolutions would share what was arranged
    first, whosever kernel it is: so features are asked for in compiled functions alone.
    """
    return keras.backend.backend() == "tensorflow" and not has_gpu()


def waits_for_products(precision: Precision) -> bool:
    """Whether a convolution is as slow as its multiplications, so that fewer of them pay.

    They do on CPUs, but for AMX, which multiplies bfloat16 faster than memory brings it. Libraries
    for GPUs choose for themselves, and JAX compiles what it is given.
    """
    without_amx = precision == "float32" or "amx_bf16" not in cpu_flags()
    return is_tensorflow_on_cpu() and without_amx


def free_memory() -> int:
    """Bytes that this process could still use on the device; 0 when nobody can tell."""
    match keras.backend.backend():
        case "tensorflow" if has_gpu():
            with contextlib.suppress(Exception):  # what it does not tell is guessed below
                return _left_on_tensorflows_gpu()
        case "jax":
            import jax

            stats = jax.devices()[0].memory_stats() or {}
            if "bytes_limit" in stats:
                return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
        case "torch":
            import torch

            if torch.cuda.is_available():
                kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
                return int(torch.cuda.mem_get_info()[0] + kept)
    left = memory_left()
    return left and left + memory_kept()


def _left_on_tensorflows_gpu() -> int:
    """What TensorFlow has set aside for itself on the first GPU, or may, less what is in use."""
    import tensorflow as tf
    from tensorflow.python.client import device_lib

    gpus = [each for each in device_lib.list_local_devices() if each.device_type == "GPU"]
    return int(gpus[0].memory_limit - tf.config.experimental.get_memory_info("GPU:0")["current"])


@cache  # drivers take a moment, and each evaluation asks
def _gpu() -> tuple[str, object]:
    """The first GPU's name, empty where there is none, and NVIDIA's compute capability of it.

    That is as its library has it; other makers' vary.
    """
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            gpus = tf.config.list_physical_devices("GPU")
            if not gpus:
                return "", None
            details = tf.config.experimental.get_device_details(gpus[0])
            return str(details.get("device_name", "GPU")), details.get("compute_capability")
        case "jax":
            import jax

            first = jax.devices()[0]
            name = str(first.device_kind) if first.platform != "cpu" else ""
            return name, getattr(first, "compute_capability", None)
        case _:
            import torch

            if not torch.cuda.is_available():
                return "", None
            return torch.cuda.get_device_name(0), torch.cuda.get_device_capability(0)


def _multiplies_bfloat16(capability: object) -> bool:
    """Whether a GPU multiplies bfloat16, by NVIDIA's capability, (8, 6) or "7.5", if it has one."""
    major = capability[0] if isinstance(capability, tuple) else str(capability).partition(".")[0]
    return not str(major).isdecimal() or int(major) >= _AMPERE
