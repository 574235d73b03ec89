"""Minimisers of an image's loss: L-BFGS on a GPU or the host, SciPy's L-BFGS-B, and Adam.

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
from scipy.linalg import solve_triangular

from stylewatch.engine.backend import compiled, inner_products, to_numpy

Tensor = Any

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
    memory as it can, and `evaluate` gives arrays that may be written to.
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

    On the device only scalars come to the host. A step may raise the loss by as much as is noise
    (Hager and Zhang's approximate Wolfe conditions do the same): the gradient is good for longer
    than the difference of two losses. Ends early where not even a step straight down is good
    enough: there the precision has no more to give.

    Within bounds it is a projected method (Bertsekas, "Projected Newton Methods for Optimization
    Problems with Simple Constraints", 1982): a value at a bound that would leave is held for one
    step, and every trial is cut to the bounds.
    """
    on_host = isinstance(x, np.ndarray)
    model = _HostModel(history, bounds) if on_host else _DeviceModel(history, bounds)
    x = _cut(x, bounds)
    loss, gradient = evaluate(x)
    direction, slope = model.straight_down(x, gradient)
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
            s, before = trial - x, gradient
            x, loss, gradient = trial, trial_loss, trial_gradient
            if loss <= best_loss:
                best_loss, best = loss, x
            del trial, trial_gradient
            direction, slope = model.onward(s, x, before, gradient)
            step = 1.0
        else:
            step *= _SHRINK
        stuck = False
        if step < _SMALLEST_STEP or not slope < 0:  # a stale model: start a new one here
            stuck = model.straight
            direction, slope = model.straight_down(x, gradient)
            step = 1.0
        go_on = on_iterate(Iterate(trial_loss, best_loss, best)) and not stuck
    return best


class _DeviceModel:
    """The curvature as the last steps showed it: correction pairs, all of them on the device.

    A direction is a sum of the pairs and the gradient, and what multiplies each follows from inner
    products alone (Byrd, Nocedal and Schnabel, "Representations of Quasi-Newton Matrices", 1994,
    theorem 2.2): those are taken all at once, and the host does the rest in float64. Memory:
    2·history images, for a moment as many again, and some that come and go.
    """

    def __init__(self, history: int, bounds: Bounds) -> None:
        least, most = (ops.convert_to_tensor(each, dtype="float32") for each in bounds)
        self._bounds = least, most
        self._history = history
        self._pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=history)
        self._sy = self._yy = np.zeros((0, 0))
        """Of the pairs, oldest first: s·y, right where y is the newer or the same; and y·y."""
        self.straight = True
        """Whether the last direction was straight down."""

    def move(self, x: Tensor, step: float, direction: Tensor) -> Tensor:
        """Where `step` along the direction leads, within the bounds."""
        return _move(x, step, direction, self._bounds)

    def straight_down(self, x: Tensor, gradient: Tensor) -> tuple[Tensor, float]:
        """Begin anew: the direction straight down from x, and the loss's slope along it."""
        self._pairs.clear()
        self._sy = self._yy = np.zeros((0, 0))
        self.straight = True
        direction, slope = _downhill(x, gradient, self._bounds)
        return direction, float(slope)

    def onward(
        self, s: Tensor, x: Tensor, before: Tensor, gradient: Tensor
    ) -> tuple[Tensor, float]:
        """The direction from x, which the step s has led to, and the loss's slope along it.

        That step, and how it changed the gradient from what was `before`, are the newest pair.
        """
        y, held, inner = _products(s, x, before, gradient, self._bounds, *self._filled(x))
        table = to_numpy(inner).astype(np.float64)
        with_y, with_gradient = table[:, :-2].reshape(2, 2, -1)  # each of all s, and of all y
        length, steepness = table[0, -2], table[1, -1]
        known = list(range(len(self._pairs)))  # where the products with each pair stand
        if with_y[0, -1] > _CURVED * (length * with_y[1, -1]) ** 0.5:
            known = [*known, -1][-self._history :]
            self._pairs.append((s, y))
            self._sy, self._yy = (
                np.pad(old, (0, 1))[-self._history :, -self._history :]
                for old in (self._sy, self._yy)
            )
            self._sy[:, -1], self._yy[:, -1] = with_y[:, known]
            self._yy[-1] = self._yy[:, -1]
        if not known:
            return self.straight_down(x, gradient)
        self.straight = False
        by_s, by_y, by_gradient = self._shares(*with_gradient[:, known])
        slope = by_s @ with_gradient[0, known] + by_y @ with_gradient[1, known]
        shares = np.pad([by_s, by_y], ((0, 0), (0, self._history - len(known))))
        direction = _sum(gradient, held, by_gradient, np.float32(shares), *self._filled(x))
        return direction, float(slope + by_gradient * steepness)

    def _filled(self, x: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """All s and all y, and x where there are none yet, so that one graph serves all."""
        none = ((x, x),) * (self._history - len(self._pairs))
        steps, changes = zip(*self._pairs, *none, strict=True)
        return steps, changes

    def _shares(self, s: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.float32]:
        """What multiplies each s, each y and the gradient, given its products with them."""
        curvature = np.diag(self._sy)
        scale = curvature[-1] / self._yy[-1, -1]  # H₀ = s·y / y·y of the newest pair
        by_y = solve_triangular(self._sy, s, check_finite=False)
        rest = curvature * by_y - scale * (y - self._yy @ by_y)
        by_s = solve_triangular(self._sy, rest, trans="T", check_finite=False)
        return -by_s, scale * by_y, np.float32(-scale)


def _cut(x: Tensor, bounds: Bounds) -> Tensor:
    """What x is within the bounds; an array stays an array."""
    return (np if isinstance(x, np.ndarray) else ops).clip(x, *bounds)


def _held(x: Tensor, gradient: Tensor, bounds: Bounds) -> Tensor:
    """Which values lie at a bound that going down would cross."""
    least, most = bounds
    return ((x <= least) & (gradient > 0)) | ((x >= most) & (gradient < 0))


@compiled
def _move(x: Tensor, step: Tensor, direction: Tensor, bounds: Bounds) -> Tensor:
    return _cut(x + step * direction, bounds)


@compiled
def _downhill(x: Tensor, gradient: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """Straight down, `FIRST_STEP` where the gradient is largest; and the slope along it."""
    gradient = ops.where(_held(x, gradient, bounds), 0.0, gradient)
    direction = -gradient * (FIRST_STEP / ops.maximum(ops.max(ops.abs(gradient)), 1e-30))
    return direction, _dot(direction, gradient)


@compiled
def _products(
    s: Tensor,
    x: Tensor,
    before: Tensor,
    gradient: Tensor,
    bounds: Bounds,
    steps: tuple[Tensor, ...],
    changes: tuple[Tensor, ...],
) -> tuple[Tensor, Tensor, Tensor]:
    """The newest y; which values are held; and what the host needs to know of them all.

    That is what y, and the gradient of the values not held, make with each s and each y, the
    newest last. At the end stand s·s and the square of that gradient.
    """
    y = gradient - before
    held = _held(x, gradient, bounds)
    gradient = ops.where(held, 0.0, gradient)
    products = inner_products((y, gradient), (*steps, s, *changes, y))
    return y, held, ops.concatenate([products, inner_products((s, gradient), (s, gradient))], 1)


@compiled
def _sum(
    gradient: Tensor,
    held: Tensor,
    by_gradient: Tensor,
    shares: Tensor,
    steps: tuple[Tensor, ...],
    changes: tuple[Tensor, ...],
) -> Tensor:
    """The gradient, the steps and the changes, each times its share, of the values not held."""
    total = by_gradient * gradient
    for kind, vectors in enumerate((steps, changes)):
        for number, vector in enumerate(vectors):
            total = total + shares[kind, number] * vector
    return ops.where(held, 0.0, total)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return ops.sum(a * b)


class _HostModel:
    """The same on the host, in place: on a CPU faster, and the one that huge pictures fit into.

    Memory: 2·history images, two of them only while a direction is sought, and one for that.
    Gradients that it has learnt from are no longer the caller's.
    """

    def __init__(self, history: int, bounds: Bounds) -> None:
        self._history = history
        self._bounds = bounds
        self._pairs: deque[tuple[np.ndarray, np.ndarray, float]] = deque()
        self.straight = True

    def move(self, x: np.ndarray, step: float, direction: np.ndarray) -> np.ndarray:
        """Where `step` along the direction leads, within the bounds."""
        trial: np.ndarray = direction * np.float32(step)
        trial += x
        np.clip(trial, *self._bounds, out=trial)
        return trial

    def straight_down(self, x: np.ndarray, gradient: np.ndarray) -> tuple[np.ndarray, float]:
        """Begin anew: the direction straight down from x, and the loss's slope along it."""
        self._pairs.clear()
        self.straight = True
        direction = np.negative(gradient)
        direction[_held(x, gradient, self._bounds)] = 0.0
        direction *= FIRST_STEP / max(float(direction.max()), -float(direction.min()), 1e-30)
        return direction, _host_dot(direction, gradient)

    def onward(
        self, s: np.ndarray, x: np.ndarray, before: np.ndarray, gradient: np.ndarray
    ) -> tuple[np.ndarray, float]:
        """The direction from x, which the step s has led to, and the loss's slope along it.

        By two loops over the pairs (Nocedal and Wright, algorithm 7.4).
        """
        y = np.subtract(gradient, before, out=before)
        product = _host_dot(s, y)
        if product > _CURVED * (_host_dot(s, s) * _host_dot(y, y)) ** 0.5:
            self._pairs.append((s, y, 1.0 / product))
        if not self._pairs:
            return self.straight_down(x, gradient)
        self.straight = False
        held = _held(x, gradient, self._bounds)
        q = np.negative(gradient)
        q[held] = 0.0
        alphas = []
        for step, change, rho in reversed(self._pairs):
            alphas.append(rho * _host_dot(step, q))
            _host_add(q, -alphas[-1], change)
        _, change, rho = self._pairs[-1]
        q *= 1.0 / (rho * _host_dot(change, change))
        for (step, change, rho), alpha in zip(self._pairs, reversed(alphas), strict=True):
            _host_add(q, alpha - rho * _host_dot(change, q), step)
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
