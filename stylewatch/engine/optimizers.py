"""Minimisers of an image's loss: L-BFGS on the device, SciPy's L-BFGS-B, and Adam.

Each takes `evaluate(x) -> (loss, gradient)` over backend tensors and a budget of evaluations,
and tells of every evaluation, so that the caller decides about progress, checkpoints and
stopping. Knows nothing of images, networks or files.
"""

import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from keras import ops

from stylewatch.engine.backend import compiled, to_numpy

Tensor = Any
Pair = tuple[Tensor, Tensor, Tensor]
"""A correction pair of L-BFGS with its weight: (s, y, ρ = 1 / s·y)."""

FIRST_STEP = 10.0
"""A step along the gradient alone changes no pixel value by more than this (grey levels)."""
_ARMIJO = 1e-4  # the share of the promised fall in loss that a step has to keep
_SHRINK = 0.3
_SMALLEST_STEP = 1e-3
_ADAM_RATE = 4.0  # grey levels
_MOMENTUM, _SPREAD = 0.9, 0.99


@dataclass(frozen=True)
class Iterate:
    """One evaluation: the loss there, and the best image so far."""

    loss: float
    best_loss: float
    best: Tensor


Evaluate = Callable[[Tensor], tuple[float, Tensor]]
OnIterate = Callable[[Iterate], bool]
"""Called after every evaluation; returns whether to go on."""


def minimize(
    evaluate: Evaluate,
    start: Tensor,
    on_iterate: OnIterate,
    *,
    optimizer: Literal["lbfgs", "lbfgs-scipy", "adam"],
    evaluations: int,
    history: int = 10,
) -> Tensor:
    """The best image found from `start` (float32, any shape) within `evaluations`."""
    match optimizer:
        case "lbfgs":
            return _lbfgs(evaluate, start, on_iterate, evaluations, history)
        case "lbfgs-scipy":
            return _lbfgs_scipy(evaluate, start, on_iterate, evaluations, history)
        case "adam":
            return _adam(evaluate, start, on_iterate, evaluations)


def _lbfgs(
    evaluate: Evaluate, x: Tensor, on_iterate: OnIterate, evaluations: int, history: int
) -> Tensor:
    """Limited-memory BFGS (Nocedal and Wright, algorithm 7.5) with step 1 and backtracking.

    All vectors stay on the device: per evaluation only three scalars come to the host. Memory:
    2·history + 6 images.
    """
    pairs = _no_pairs(x, history)
    loss, gradient = evaluate(x)
    direction, slope = _downhill(gradient)
    step = 1.0
    go_on = on_iterate(Iterate(loss, loss, x))
    for _ in range(evaluations - 1):
        if not go_on:
            break
        trial = x + step * direction
        trial_loss, trial_gradient = evaluate(trial)
        if trial_loss <= loss + _ARMIJO * step * float(slope):  # never true of NaN
            pair, curved = _pair(trial, x, trial_gradient, gradient)
            if bool(curved):
                pairs.append(pair)
            x, loss, gradient = trial, trial_loss, trial_gradient
            direction, slope = _descend(gradient, pairs)
            step = 1.0
        else:
            step *= _SHRINK
        if step < _SMALLEST_STEP or not float(slope) < 0:  # a stale model: start a new one here
            pairs = _no_pairs(x, history)
            direction, slope = _downhill(gradient)
            step = 1.0
        go_on = on_iterate(Iterate(trial_loss, loss, x))
    return x


def _no_pairs(x: Tensor, history: int) -> deque[Pair]:
    zeros, zero = ops.zeros_like(x), ops.zeros((), dtype="float32")
    return deque([(zeros, zeros, zero)] * history, maxlen=history)


def _descend(gradient: Tensor, pairs: deque[Pair]) -> tuple[Tensor, Tensor]:
    if float(pairs[-1][2]) == 0.0:
        return _downhill(gradient)  # type: ignore[no-any-return]
    steps, changes, weights = zip(*pairs, strict=True)
    return _two_loop(gradient, steps, changes, weights)  # type: ignore[no-any-return]


@compiled
def _downhill(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Straight down, `FIRST_STEP` where the gradient is largest; and the slope along it."""
    direction = -gradient * (FIRST_STEP / ops.maximum(ops.max(ops.abs(gradient)), 1e-30))
    return direction, _dot(direction, gradient)


@compiled
def _pair(
    new: Tensor, old: Tensor, new_gradient: Tensor, old_gradient: Tensor
) -> tuple[Pair, Tensor]:
    """The correction pair of an accepted step, and whether its curvature can be trusted."""
    s, y = new - old, new_gradient - old_gradient
    product = _dot(s, y)
    curved = product > 1e-10 * ops.sqrt(_dot(s, s)) * ops.sqrt(_dot(y, y))
    return (s, y, 1.0 / ops.where(curved, product, 1.0)), curved


@compiled
def _two_loop(
    gradient: Tensor,
    steps: tuple[Tensor, ...],
    changes: tuple[Tensor, ...],
    weights: tuple[Tensor, ...],
) -> tuple[Tensor, Tensor]:
    """-H·gradient (algorithm 7.4) and the slope along it.

    Pairs not yet filled are zeros with ρ = 0 and change nothing, so one graph serves all.
    """
    q = gradient
    alphas = []
    for s, y, rho in zip(reversed(steps), reversed(changes), reversed(weights), strict=True):
        alphas.append(rho * _dot(s, q))
        q = q - alphas[-1] * y
    q = q / (weights[-1] * _dot(changes[-1], changes[-1]))  # H₀ = s·y / y·y of the newest pair
    for s, y, rho, alpha in zip(steps, changes, weights, reversed(alphas), strict=True):
        q = q + (alpha - rho * _dot(y, q)) * s
    return -q, -_dot(q, gradient)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return ops.sum(a * b)


class _Enough(Exception):  # noqa: N818  (how SciPy is left early)
    pass


def _lbfgs_scipy(
    evaluate: Evaluate, x: Tensor, on_iterate: OnIterate, evaluations: int, history: int
) -> Tensor:
    """SciPy's L-BFGS-B, the reference: one continuous run, no bounds, float64 on the host."""
    from scipy.optimize import minimize as scipy_minimize  # noqa: PLC0415  (slow to import, rarely used)

    shape, used = tuple(x.shape), 0
    best_loss, best = np.inf, x

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal used, best_loss, best
        point = ops.convert_to_tensor(flat.reshape(shape).astype(np.float32))
        loss, gradient = evaluate(point)
        used += 1
        if loss < best_loss:
            best_loss, best = loss, point
        if not on_iterate(Iterate(loss, best_loss, best)) or used >= evaluations:
            raise _Enough
        return loss, to_numpy(gradient).ravel().astype(np.float64)

    limits = {"maxcor": history, "maxfun": evaluations, "maxiter": evaluations}
    with contextlib.suppress(_Enough):
        scipy_minimize(
            objective,
            to_numpy(x).ravel().astype(np.float64),
            jac=True,
            method="L-BFGS-B",
            options={**limits, "ftol": 0.0, "gtol": 0.0},
        )
    return best


def _adam(evaluate: Evaluate, x: Tensor, on_iterate: OnIterate, evaluations: int) -> Tensor:
    """Adam (Kingma and Ba, algorithm 1), its epsilon relative to the first gradient's size.

    An absolute epsilon too small for the loss's scale is what gives Adam its grey haze.
    """
    best_loss, best = np.inf, x
    first = second = ops.zeros_like(x)
    epsilon = ops.zeros((), dtype="float32")
    for t in range(1, evaluations + 1):
        loss, gradient = evaluate(x)
        if loss < best_loss:
            best_loss, best = loss, x
        if not on_iterate(Iterate(loss, best_loss, best)):
            break
        if t == 1:
            epsilon = 1e-2 * ops.sqrt(ops.mean(ops.square(gradient)))
        count = ops.convert_to_tensor(float(t), dtype="float32")
        change, first, second = _adam_step(gradient, first, second, epsilon, count)
        x = x - change
    return best


@compiled
def _adam_step(
    gradient: Tensor, first: Tensor, second: Tensor, epsilon: Tensor, t: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    first = _MOMENTUM * first + (1.0 - _MOMENTUM) * gradient
    second = _SPREAD * second + (1.0 - _SPREAD) * ops.square(gradient)
    mean = first / (1.0 - ops.power(_MOMENTUM, t))
    spread = ops.sqrt(second / (1.0 - ops.power(_SPREAD, t)))
    return _ADAM_RATE * mean / (spread + epsilon), first, second
