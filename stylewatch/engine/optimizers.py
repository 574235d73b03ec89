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
_CURVED = 1e-10  # least cosine between a step and the change of the gradient over it
_SLICE = 1 << 16
_ADAM_RATE = 4.0  # grey levels
_MOMENTUM, _SPREAD = 0.9, 0.99


@dataclass(frozen=True)
class Iterate:
    """One evaluation: the loss there, and the best image so far."""

    loss: float
    best_loss: float
    best: Tensor


Evaluate = Callable[[Tensor], tuple[float, Tensor]]
Bounds = tuple[Any, Any]
"""The least and the most of each value; shapes that broadcast to the image's."""
FREE: Bounds = (-np.inf, np.inf)
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
    noise: float = 0.0,
    bounds: Bounds = FREE,
) -> Tensor:
    """The best image found from `start` (float32, any shape) within `evaluations` and `bounds`.

    `noise` is the share of a loss by which its rounding may raise it; only `lbfgs` asks.
    `start` may be an array on the host: then L-BFGS keeps all its vectors there, in as little
    memory as it can, and `evaluate` gives arrays.
    """
    match optimizer:
        case "lbfgs":
            return _lbfgs(evaluate, start, on_iterate, evaluations, history, noise, bounds)
        case "lbfgs-scipy":
            return _lbfgs_scipy(evaluate, start, on_iterate, evaluations, history, bounds)
        case "adam":
            return _adam(evaluate, start, on_iterate, evaluations, bounds)


def _lbfgs(
    evaluate: Evaluate,
    x: Tensor,
    on_iterate: OnIterate,
    evaluations: int,
    history: int,
    noise: float,
    bounds: Bounds,
) -> Tensor:
    """Limited-memory BFGS (Nocedal and Wright, algorithm 7.5) with step 1 and backtracking.

    On the device only three scalars per evaluation come to the host. A step may raise the loss by
    as much as is noise (Hager and Zhang's approximate Wolfe conditions do the same): the gradient
    is good for longer than the difference of two losses. Ends early where not even a step straight
    down is good enough: there the precision has no more to give.

    Within bounds it is a projected method (Bertsekas, "Projected Newton Methods for Optimization
    Problems with Simple Constraints", 1982): a value at a bound that would leave is held for one
    step, and every trial is cut to the bounds.
    """
    on_host = isinstance(x, np.ndarray)
    model = _HostModel(history, bounds) if on_host else _DeviceModel(history, bounds)
    x = _cut(x, bounds)
    loss, gradient = evaluate(x)
    direction, slope = model.descend(x, gradient)
    step = 1.0
    best_loss, best = loss, x
    go_on = on_iterate(Iterate(loss, loss, x))
    for _ in range(evaluations - 1):
        if not go_on:
            break
        trial = model.move(x, step, direction)
        trial_loss, trial_gradient = evaluate(trial)
        if trial_loss <= loss + noise * abs(loss) + _ARMIJO * step * slope:  # never true of NaN
            del direction  # of a huge picture there is no room for two
            model.learn(trial - x, gradient, trial_gradient)
            x, loss, gradient = trial, trial_loss, trial_gradient
            if loss <= best_loss:
                best_loss, best = loss, x
            del trial, trial_gradient
            direction, slope = model.descend(x, gradient)
            step = 1.0
        else:
            step *= _SHRINK
        stuck = False
        if step < _SMALLEST_STEP or not slope < 0:  # a stale model: start a new one here
            stuck = model.straight
            model.forget()
            direction, slope = model.descend(x, gradient)
            step = 1.0
        go_on = on_iterate(Iterate(trial_loss, best_loss, best)) and not stuck
    return best


class _DeviceModel:
    """The curvature as the last steps showed it: correction pairs, all of them on the device.

    Memory: 2·history images, and some that come and go.
    """

    def __init__(self, history: int, bounds: Bounds) -> None:
        least, most = (ops.convert_to_tensor(each, dtype="float32") for each in bounds)
        self._bounds = least, most
        self._pairs: deque[Pair] = deque(maxlen=history)
        self.straight = True
        """Whether the last direction was straight down."""

    def forget(self) -> None:
        """Begin anew."""
        self._pairs.clear()

    def move(self, x: Tensor, step: float, direction: Tensor) -> Tensor:
        """Where `step` along the direction leads, within the bounds."""
        return _cut(x + step * direction, self._bounds)

    def learn(self, s: Tensor, before: Tensor, after: Tensor) -> None:
        """The step s was taken, and changed the gradient from `before` to `after`."""
        y, rho, curved = _difference(s, before, after)
        if bool(curved):
            self._pairs.append((s, y, rho))

    def descend(self, x: Tensor, gradient: Tensor) -> tuple[Tensor, float]:
        """The direction to go in from x, and the loss's slope along it."""
        self.straight = not self._pairs
        held = _held(x, gradient, self._bounds)
        if self.straight:
            direction, slope = _downhill(gradient, held)
        else:
            none = (ops.zeros_like(gradient),) * 2 + (ops.zeros((), dtype="float32"),)
            missing = self._pairs.maxlen - len(self._pairs)  # type: ignore[operator]
            direction, slope = _two_loop(
                gradient, held, *zip(*[none] * missing, *self._pairs, strict=True)
            )
        return direction, float(slope)


def _cut(x: Tensor, bounds: Bounds) -> Tensor:
    """What x is within the bounds; an array stays an array."""
    return (np if isinstance(x, np.ndarray) else ops).clip(x, *bounds)


def _held(x: Tensor, gradient: Tensor, bounds: Bounds) -> Tensor:
    """Which values lie at a bound that going down would cross."""
    least, most = bounds
    return ((x <= least) & (gradient > 0)) | ((x >= most) & (gradient < 0))


@compiled
def _downhill(gradient: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
    """Straight down, `FIRST_STEP` where the gradient is largest; and the slope along it."""
    gradient = ops.where(held, 0.0, gradient)
    direction = -gradient * (FIRST_STEP / ops.maximum(ops.max(ops.abs(gradient)), 1e-30))
    return direction, _dot(direction, gradient)


@compiled
def _difference(s: Tensor, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The y and ρ of an accepted step s, and whether its curvature can be trusted."""
    y = after - before
    product = _dot(s, y)
    curved = product > _CURVED * ops.sqrt(_dot(s, s)) * ops.sqrt(_dot(y, y))
    return y, 1.0 / ops.where(curved, product, 1.0), curved


@compiled
def _two_loop(
    gradient: Tensor,
    held: Tensor,
    steps: tuple[Tensor, ...],
    changes: tuple[Tensor, ...],
    weights: tuple[Tensor, ...],
) -> tuple[Tensor, Tensor]:
    """-H·gradient (algorithm 7.4) of the values not held, and the slope along it.

    Pairs not yet filled are zeros with ρ = 0 and change nothing, so one graph serves all.
    """
    q = ops.where(held, 0.0, gradient)
    alphas = []
    for s, y, rho in zip(reversed(steps), reversed(changes), reversed(weights), strict=True):
        alphas.append(rho * _dot(s, q))
        q = q - alphas[-1] * y
    q = q / (weights[-1] * _dot(changes[-1], changes[-1]))  # H₀ = s·y / y·y of the newest pair
    for s, y, rho, alpha in zip(steps, changes, weights, reversed(alphas), strict=True):
        q = q + (alpha - rho * _dot(y, q)) * s
    q = ops.where(held, 0.0, q)
    return -q, -_dot(q, gradient)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return ops.sum(a * b)


class _HostModel:
    """The same for a picture so large that it is kept on the host: in place, with fewer copies.

    Memory: 2·history images, two of them only while a direction is sought, and one for that.
    Gradients that it has learnt from are no longer the caller's.
    """

    def __init__(self, history: int, bounds: Bounds) -> None:
        self._history = history
        self._bounds = bounds
        self._pairs: deque[tuple[np.ndarray, np.ndarray, float]] = deque()
        self.straight = True

    def forget(self) -> None:
        """Begin anew."""
        self._pairs.clear()

    def move(self, x: np.ndarray, step: float, direction: np.ndarray) -> np.ndarray:
        """Where `step` along the direction leads, within the bounds."""
        trial: np.ndarray = direction * np.float32(step)
        trial += x
        np.clip(trial, *self._bounds, out=trial)
        return trial

    def learn(self, s: np.ndarray, before: np.ndarray, after: np.ndarray) -> None:
        """The step s was taken, and changed the gradient from `before` to `after`."""
        y = before
        np.subtract(after, before, out=y)
        product = _host_dot(s, y)
        if product > _CURVED * (_host_dot(s, s) * _host_dot(y, y)) ** 0.5:
            self._pairs.append((s, y, 1.0 / product))

    def descend(self, x: np.ndarray, gradient: np.ndarray) -> tuple[np.ndarray, float]:
        """The direction to go in from x, and the loss's slope along it."""
        held = _held(x, gradient, self._bounds)
        q = np.negative(gradient)
        q[held] = 0.0
        self.straight = not self._pairs
        if self.straight:
            q *= FIRST_STEP / max(float(q.max()), -float(q.min()), 1e-30)
            return q, _host_dot(q, gradient)
        alphas = []
        for s, y, rho in reversed(self._pairs):
            alphas.append(rho * _host_dot(s, q))
            _host_add(q, -alphas[-1], y)
        _, y, rho = self._pairs[-1]
        q *= 1.0 / (rho * _host_dot(y, y))
        for (s, y, rho), alpha in zip(self._pairs, reversed(alphas), strict=True):
            _host_add(q, alpha - rho * _host_dot(y, q), s)
        if len(self._pairs) == self._history:
            self._pairs.popleft()  # the next pair takes its place
        q[held] = 0.0
        return q, _host_dot(q, gradient)


def _host_dot(a: np.ndarray, b: np.ndarray) -> float:
    """Summed in float64 over slices: 10⁸ terms are too many for float32."""
    flat = a.reshape(-1), b.reshape(-1)
    return sum(float(np.dot(*(v[i : i + _SLICE] for v in flat))) for i in range(0, a.size, _SLICE))


def _host_add(a: np.ndarray, factor: float, b: np.ndarray) -> None:
    """Add factor·b to a, without a copy as large as they are."""
    flat, added = a.reshape(-1), b.reshape(-1)
    for i in range(0, a.size, _SLICE):
        flat[i : i + _SLICE] += np.float32(factor) * added[i : i + _SLICE]


class _Enough(Exception):  # noqa: N818  (how SciPy is left early)
    pass


def _lbfgs_scipy(
    evaluate: Evaluate,
    x: Tensor,
    on_iterate: OnIterate,
    evaluations: int,
    history: int,
    bounds: Bounds,
) -> Tensor:
    """SciPy's L-BFGS-B, the reference: one continuous run, float64 on the host.

    Within bounds its first step is the bare gradient, which may be too short to show in the loss:
    so the loss is scaled, which changes nothing else, until that step is `FIRST_STEP`.
    """
    from scipy import optimize  # noqa: PLC0415  (slow to import, rarely used)

    shape, used = tuple(x.shape), 0
    best_loss, best = np.inf, x
    unit = 0.0

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal used, best_loss, best, unit
        point = ops.convert_to_tensor(flat.reshape(shape).astype(np.float32))
        loss, gradient = evaluate(point)
        used += 1
        if loss < best_loss:
            best_loss, best = loss, point
        if not on_iterate(Iterate(loss, best_loss, best)) or used >= evaluations:
            raise _Enough
        slopes = to_numpy(gradient).ravel().astype(np.float64)
        unit = unit or FIRST_STEP / max(float(np.abs(slopes).max()), 1e-30)
        return unit * loss, unit * slopes

    limits = {"maxcor": history, "maxfun": evaluations, "maxiter": evaluations}
    least, most = (np.broadcast_to(each, shape).ravel() for each in bounds)
    with contextlib.suppress(_Enough):
        optimize.minimize(
            objective,
            to_numpy(_cut(x, bounds)).ravel().astype(np.float64),
            jac=True,
            method="L-BFGS-B",
            bounds=optimize.Bounds(least, most),
            options={**limits, "ftol": 0.0, "gtol": 0.0},
        )
    return best


def _adam(
    evaluate: Evaluate, x: Tensor, on_iterate: OnIterate, evaluations: int, bounds: Bounds
) -> Tensor:
    """Adam (Kingma and Ba, algorithm 1), its epsilon relative to the first gradient's size.

    An absolute epsilon too small for the loss's scale is what gives Adam its grey haze.
    """
    x = _cut(x, bounds)
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
        x = _cut(x - change, bounds)
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
