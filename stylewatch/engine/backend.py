"""The one place that knows which backend Keras runs on, and on what device.

TensorFlow is what stylewatch installs; `KERAS_BACKEND=jax` and `torch` work where they are
present. Everything else in the core is written in `keras.ops`. Knows nothing of losses or images.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

Tensor = Any
Precision = Literal["float32", "bfloat16"]
Objective = Callable[[Tensor, Any], tuple[Tensor, Any]]
"""`objective(x, targets) -> (loss, parts)`: `parts` is a structure of scalars to report."""

_BFLOAT16_GAIN = 0.65
"""The most of float32's time for a plain convolution: float32 then saves more multiplications.

Where the hardware has it, bfloat16 takes 0.2 to 0.55 of it; elsewhere 1 and more.
"""
_PROBE_ROUNDS = 3


@dataclass(frozen=True)
class Device:
    """Where tensors live and what it is good at."""

    backend: str
    name: str
    fast_bfloat16: bool
    """The hardware multiplies bfloat16 faster than float32."""


def value_and_gradient(objective: Objective) -> Callable[[Tensor, Any], tuple[Tensor, Any, Tensor]]:
    """Compile `objective` into `(x, targets) -> (loss, parts, gradient)`.

    One TensorFlow graph serves every image size (the spatial dimensions stay open); JAX compiles
    once per size. No XLA on TensorFlow: on CPUs it turns bfloat16's gain into a loss.
    """
    match keras.backend.backend():
        case "tensorflow":
            return _tensorflow_value_and_gradient(objective)
        case "jax":
            import jax

            compiled = jax.jit(jax.value_and_grad(objective, has_aux=True))

            def evaluate_jax(x: Tensor, targets: Any) -> tuple[Tensor, Any, Tensor]:
                (loss, parts), gradient = compiled(x, targets)
                return loss, parts, gradient

            return evaluate_jax
        case _:

            def evaluate_torch(x: Tensor, targets: Any) -> tuple[Tensor, Any, Tensor]:
                import torch

                leaf = x.detach().requires_grad_(requires_grad=True)
                loss, parts = objective(leaf, targets)
                (gradient,) = torch.autograd.grad(loss, leaf)
                return loss.detach(), keras.tree.map_structure(torch.detach, parts), gradient

            return evaluate_torch


def _tensorflow_value_and_gradient(
    objective: Objective,
) -> Callable[[Tensor, Any], tuple[Tensor, Any, Tensor]]:
    import tensorflow as tf

    # reduce_retracing opens the dimensions that vary after the second size it sees.
    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def evaluate(x: Tensor, targets: Any) -> tuple[Tensor, Any, Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss, parts = objective(x, targets)
        return loss, parts, tape.gradient(loss, x)

    return evaluate  # type: ignore[no-any-return]


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of tensors that needs no gradient."""
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            return tf.function(function, reduce_retracing=True)  # type: ignore[no-any-return]
        case "jax":
            import jax

            return jax.jit(function)  # type: ignore[no-any-return]
        case _:
            import torch

            return torch.no_grad()(function)  # type: ignore[no-any-return]


def to_numpy(tensor: Tensor) -> np.ndarray:
    """A float32 array on the host; blocks until the device has finished."""
    return np.asarray(keras.ops.convert_to_numpy(tensor), dtype=np.float32)


@lru_cache(maxsize=1)
def device() -> Device:
    """What the computation will run on. The first call takes a fifth of a second."""
    backend = keras.backend.backend()
    gpu = _gpu_name(backend)
    if gpu:
        return Device(backend, gpu, fast_bfloat16=True)
    flags = _cpu_flags()
    for flag, name in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512-BF16")):
        if flag in flags:
            fast = backend == "tensorflow" and _bfloat16_gains()
            return Device(backend, f"CPU with {name}", fast_bfloat16=fast)
    return Device(backend, "CPU", fast_bfloat16=False)


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


def waits_for_products(precision: Precision) -> bool:
    """Whether a convolution is as slow as its multiplications, so that fewer of them pay.

    They do on CPUs, but for AMX, which multiplies bfloat16 faster than memory brings it. Libraries
    for GPUs choose for themselves, and JAX compiles what it is given.
    """
    if keras.backend.backend() != "tensorflow" or _gpu_name("tensorflow"):
        return False
    return precision == "float32" or "amx_bf16" not in _cpu_flags()


def free_memory() -> int:
    """Bytes that this process could still use on the device; 0 when nobody can tell."""
    match keras.backend.backend():
        case "jax":
            import jax

            stats = jax.devices()[0].memory_stats() or {}
            if "bytes_limit" in stats:
                return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
        case "torch":
            import torch

            if torch.cuda.is_available():
                return int(torch.cuda.mem_get_info()[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    available = next((line for line in lines if line.startswith("MemAvailable:")), "x 0")
    return int(available.split()[1]) * 1024


def _gpu_name(backend: str) -> str:
    match backend:
        case "tensorflow":
            import tensorflow as tf

            gpus = tf.config.list_physical_devices("GPU")
            if not gpus:
                return ""
            return str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU"))
        case "jax":
            import jax

            first = jax.devices()[0]
            return str(first.device_kind) if first.platform != "cpu" else ""
        case _:
            import torch

            return torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return set()
    for line in text.splitlines():
        if line.startswith("flags"):
            return set(line.split())
    return set()
