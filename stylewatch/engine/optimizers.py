"""Minimisers of an image's loss: L-BFGS on a GPU or the host, SciPy's L-BFGS-B, and Adam.

Each takes `evaluate(x) -> (loss, gradient)` over backend tensors and a budget of evaluations,
and tells of every evaluation, so that the caller decides about progress, checkpoints and
stopping. Knows nothing of images, networks or files.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, SupportsFloat

import numpy as np
from keras import ops

from stylewatch.engine.backend import Tensor, to_numpy
from stylewatch.engine.curvature import (
    FIRST_STEP,
    FREE,
    Bounds,
    Model,
    Preconditioner,
    cut,
    model_at,
)

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


Evaluate = Callable[[Tensor], tuple[SupportsFloat, Tensor]]
"""The loss, which to read may mean to wait for the device, and the gradient."""
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
    preconditioner: Preconditioner | None = None,
) -> Tensor:
    """The best image found from `start` (float32, any shape) within `evaluations` and `bounds`.

    `noise` is the share of a loss by which rounding may raise it, and `preconditioner` what is
    assumed of the inverse Hessian before any step; both are for `lbfgs` only. If `start` is an
    array on the host, L-BFGS keeps all its vectors there, in as little memory as it can.
    """
    match optimizer:
        case "lbfgs":
            model = model_at(start, history, bounds, preconditioner or Preconditioner())
            del start  # there may be no memory to spare
            return _lbfgs(evaluate, model, on_iterate, evaluations, noise)
        case "lbfgs-scipy":
            return _lbfgs_scipy(evaluate, start, on_iterate, evaluations, history, bounds)
        case "adam":
            return _adam(evaluate, start, on_iterate, evaluations, bounds)


def _lbfgs(
    evaluate: Evaluate,
    model: Model,
    on_iterate: OnIterate,
    evaluations: int,
    noise: float,
) -> Tensor:
    """Limited-memory BFGS (Nocedal and Wright, algorithm 7.5) with step 1 and backtracking.

    On the device only scalars come to the host. A step may raise the loss by as much as is noise
    (Hager and Zhang's approximate Wolfe conditions do the same): the gradient is good for longer
    than the difference of two losses. Ends early where not even a step along the gradient is good
    enough: there the precision has no more to give.

    Within bounds it is a projected method (Bertsekas, "Projected Newton Methods for Optimization
    Problems with Simple Constraints", 1982): a value at a bound that would leave is held for one
    step, and every trial is cut to the bounds. What the cut takes from values next to a bound may
    be all that leads down, unless the direction is the gradient's own: that is the last resort.
    """
    x = model.x
    told, gradient = evaluate(x)
    slope = model.begin(gradient)
    step = 1.0
    loss = best_loss = float(told)
    best = x
    go_on = on_iterate(Iterate(loss, loss, x))
    for _ in range(evaluations - 1):
        if not go_on:
            break
        del x, gradient  # before there are new ones
        x = model.trial(step)
        told, gradient = evaluate(x)
        model.look(x, gradient)
        trial_loss = float(told)
        if trial_loss <= loss + noise * abs(loss) + _ARMIJO * step * slope:  # never true of NaN
            if trial_loss <= best_loss:
                best_loss, best = trial_loss, x
            slope = model.accept()
            loss, step = trial_loss, 1.0
        else:
            step *= _SHRINK
        stuck = False
        if step < _SMALLEST_STEP or not slope < 0:  # the model is of no use here: start anew
            stuck = model.plain
            slope = model.straight_down(plain=model.straight)
            step = 1.0
        go_on = on_iterate(Iterate(trial_loss, best_loss, best)) and not stuck
    return best


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
        point = flat.reshape(shape).astype(np.float32)
        told, gradient = evaluate(point)
        loss = float(told)
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
            to_numpy(cut(x, bounds)).ravel().astype(np.float64),
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
    x = cut(x, bounds)
    best_loss, best = np.inf, x
    first = second = epsilon = 0.0
    for t in range(1, evaluations + 1):
        told, gradient = evaluate(x)
        loss = float(told)
        if loss < best_loss:
            best_loss, best = loss, x
        if not on_iterate(Iterate(loss, best_loss, best)) or t == evaluations:
            break
        if t == 1:
            epsilon = 1e-2 * float(ops.mean(ops.square(gradient))) ** 0.5
        first = _MOMENTUM * first + (1.0 - _MOMENTUM) * gradient
        second = _SPREAD * second + (1.0 - _SPREAD) * gradient**2
        mean, spread = first / (1.0 - _MOMENTUM**t), (second / (1.0 - _SPREAD**t)) ** 0.5
        x = cut(x - _ADAM_RATE * mean / (spread + epsilon), bounds)
    return best
