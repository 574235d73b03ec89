"""The one place that knows which backend Keras runs on, and on what device.

TensorFlow is what stylewatch installs; `KERAS_BACKEND=jax` and `torch` work where they are
present. Everything else in the core is written in `keras.ops`. Knows nothing of losses or images.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

Tensor = Any
Objective = Callable[[Tensor, Any], tuple[Tensor, Any]]
"""`objective(x, targets) -> (loss, parts)`: `parts` is a structure of scalars to report."""


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


def device() -> Device:
    """What the computation will run on."""
    backend = keras.backend.backend()
    gpu = _gpu_name(backend)
    if gpu:
        return Device(backend, gpu, fast_bfloat16=True)
    flags = _cpu_flags()
    if "amx_bf16" in flags:
        return Device(backend, "CPU with AMX", fast_bfloat16=backend == "tensorflow")
    if "avx512_bf16" in flags:
        return Device(backend, "CPU with AVX512-BF16", fast_bfloat16=backend == "tensorflow")
    return Device(backend, "CPU", fast_bfloat16=False)


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
