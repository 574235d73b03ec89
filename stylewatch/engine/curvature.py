"""L-BFGS's model of the loss: what the last steps have shown of its curvature, and the direction.

Written twice: in tensors for a device, and in arrays for the host. Knows nothing of what is
minimised, and does not judge whether a step was good: `optimizers` does.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops
from scipy.linalg import solve_triangular

from stylewatch.engine.backend import Tensor, compiled, inner_products, to_numpy

FIRST_STEP = 10.0
"""A step straight down changes no pixel value by more than this (grey levels)."""
_CURVED = 1e-10  # below this s·y / √(s·s y·Py) a step has shown no upward curvature: no pair
_AHEAD = 2.0
"""Along directions that no pair has explored, the curvature is taken to be so much smaller.

The pairs tell most about where it is large. Elsewhere steps become longer by this: the same loss
takes one to two tenths fewer evaluations.
"""
_PART = 1 << 16
_CACHED = 1 << 19
"""So many values, of all pairs together, stay in a processor's cache between two uses."""

Bounds = tuple[Any, Any]
"""The least and the most of each value; shapes that broadcast to the image's."""
FREE: Bounds = (-np.inf, np.inf)
Pair = tuple[Tensor, Tensor]
"""A step s, and y, the change of the gradient over it."""


class Preconditioner:
    """P, a guess of the inverse Hessian, right but for a factor: here that all values are alike.

    Linear, symmetric, positive definite.
    """

    def __call__(self, vector: Tensor) -> Tensor:
        """P times the vector: a new one, or the very one that was given."""
        return vector

    def learn(self, pairs: Sequence[Pair]) -> bool:
        """Called after each step with all pairs, oldest first; returns whether P is another now."""
        del pairs
        return False


@dataclass(frozen=True)
class _Products:
    """Inner products after a step, float64: all that is needed for the next direction.

    "Free" is the gradient with zeros for the values that are held at a bound.
    """

    of_y: np.ndarray
    """(2, pairs): the newest y with every s, and with every z; the newest pair last."""
    of_gradient: np.ndarray
    """(2, pairs): the free gradient with every s, and with every z."""
    length: float
    """s·s of the newest s."""
    steepness: float
    """The free gradient with P times itself."""


class Model(ABC):
    """Where L-BFGS is, its pairs, and the direction in which it goes on.

    The direction is a weighted sum of all s, and P times one of all y and the gradient. The weights
    follow from inner products alone (Byrd, Nocedal and Schnabel, "Representations of Quasi-Newton
    Matrices", 1994, theorem 2.2, with H₀ = γP), of which some are of z = P y: so all vectors are
    read just twice, for the products and for the sums. Whenever P has learnt something, the
    products of all y with all z are made anew.

    `begin` once; then `trial`, `look`, and `accept` if the trial was good, again and again.
    """

    x: Tensor
    """The point that was accepted last, within the bounds."""
    _sy: np.ndarray
    """s·y of the pairs, oldest first; right only where y is the newer one, or of the same pair."""
    _yz: np.ndarray
    """y·z of the pairs, oldest first."""
    straight: bool
    """Whether the direction is straight down: −P times the gradient, or, if `plain`, −gradient."""
    plain: bool
    """Whether the direction is the negative gradient itself."""

    def __init__(
        self, x: Tensor, history: int, bounds: Bounds, preconditioner: Preconditioner
    ) -> None:
        self.x = x
        self._history = history
        self._bounds = bounds
        self._preconditioner = preconditioner

    @abstractmethod
    def begin(self, gradient: Tensor) -> float:
        """Turn straight down at x; returns the loss's slope in that direction."""

    @abstractmethod
    def trial(self, step: float) -> Tensor:
        """The point that is `step` along the direction, cut to the bounds."""

    @abstractmethod
    def look(self, x: Tensor, gradient: Tensor) -> None:
        """Take note of a trial and the gradient there, before it is known whether it was good.

        A device begins at once what is to be computed if it was, and so need not wait.
        """

    def straight_down(self, *, plain: bool) -> float:
        """Forget the pairs and turn straight down; returns the loss's slope in that direction."""
        self._forget()
        self.plain = plain
        return self._face_down()

    def accept(self) -> float:
        """Go to the last trial, learn from that step, and turn; returns the loss's new slope."""
        products = self._step()
        known = slice(None)
        if products.of_y[0, -1] > _CURVED * (products.length * products.of_y[1, -1]) ** 0.5:
            self._sy, self._yz = (np.pad(table, (0, 1)) for table in (self._sy, self._yz))
            self._sy[:, -1], self._yz[:, -1] = products.of_y
            self._yz[-1] = self._yz[:, -1]
            self._keep()
        else:
            known = slice(-1)
        if not self._sy.size:
            self._turn(np.zeros(0), np.zeros(0), -1.0)  # as after any step, but for its length
            return self.straight_down(plain=self.plain)
        self.straight = self.plain = False
        with_s, with_z = products.of_gradient[:, known]
        by_s, by_y, by_gradient = self._shares(with_s, with_z)
        self._turn(by_s, by_y, by_gradient)
        if len(self._sy) == self._history:  # the next pair takes the place of the oldest
            self._sy, self._yz = self._sy[1:, 1:], self._yz[1:, 1:]
            self._drop_oldest()
        pairs = self._pairs()
        if self._preconditioner.learn(pairs):
            self._yz = np.array([self._with_changes(self._preconditioner(y)) for _, y in pairs])
        return float(by_s @ with_s + by_y @ with_z + by_gradient * products.steepness)

    def _forget(self) -> None:
        self._sy = self._yz = np.zeros((0, 0))
        self.straight = True

    def _shares(self, s: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """The weights in the direction of each s, and, before P, of each y and of the gradient.

        `s` and `z` are the free gradient's products with each of them.
        """
        curvature = np.diag(self._sy)
        scale = _AHEAD * float(np.median(curvature / np.diag(self._yz)))  # γ, from s·y / y·z
        by_y = solve_triangular(self._sy, s, check_finite=False)
        rest = curvature * by_y - scale * (z - self._yz @ by_y)
        by_s = solve_triangular(self._sy, rest, trans="T", check_finite=False)
        return -by_s, scale * by_y, -scale

    @abstractmethod
    def _face_down(self) -> float:
        """Set the direction straight down, no value longer than `FIRST_STEP`; its slope."""

    @abstractmethod
    def _step(self) -> _Products:
        """Go to the last trial; the products of the step that leads there."""

    @abstractmethod
    def _keep(self) -> None:
        """Add the last step to the pairs."""

    @abstractmethod
    def _drop_oldest(self) -> None:
        """Remove the oldest pair."""

    @abstractmethod
    def _turn(self, by_s: np.ndarray, by_y: np.ndarray, by_gradient: float) -> None:
        """Set the direction, by the weights of the pairs, oldest first, and of the gradient."""

    @abstractmethod
    def _pairs(self) -> Sequence[Pair]:
        """All pairs, oldest first."""

    @abstractmethod
    def _with_changes(self, z: Tensor) -> np.ndarray:
        """The products of each y, oldest first, with z."""


def model_at(x: Tensor, history: int, bounds: Bounds, preconditioner: Preconditioner) -> Model:
    """L-BFGS before its first step, from x cut to the bounds: on the host if x is an array."""
    kind = _HostModel if isinstance(x, np.ndarray) else _DeviceModel
    return kind(cut(x, bounds), history, bounds, preconditioner)


class _DeviceModel(Model):
    """All vectors are tensors on the device; only numbers come to the host.

    Memory: 2·history images, for a moment twice as many, and a few more now and then.
    """

    _gradient: Tensor
    _free: Tensor
    _held: Tensor
    _direction: Tensor
    _newest: Pair
    _seen: tuple[Tensor, ...]

    def __init__(
        self, x: Tensor, history: int, bounds: Bounds, preconditioner: Preconditioner
    ) -> None:
        least, most = (ops.convert_to_tensor(each, dtype="float32") for each in bounds)
        super().__init__(x, history, (least, most), preconditioner)

    def begin(self, gradient: Tensor) -> float:
        self._gradient = gradient
        return self.straight_down(plain=False)

    def trial(self, step: float) -> Tensor:
        self._seen = ()  # frees them, before there are new ones
        return _move(self.x, step, self._direction, self._bounds)

    def _forget(self) -> None:
        super()._forget()
        self._remembered: deque[Pair] = deque()

    def _face_down(self) -> float:
        free, held = _free(self.x, self._gradient, self._bounds)
        uphill = free if self.plain else self._preconditioner(free)
        self._direction, slope = _downhill(uphill, free, held)
        return float(slope)

    def look(self, x: Tensor, gradient: Tensor) -> None:
        others = self._filled(self._history - 1)
        s, y, free, held = _changed(self.x, x, self._gradient, gradient, self._bounds)
        z, preconditioned = self._preconditioner(y), self._preconditioner(free)
        inner = _products(s, y, z, free, preconditioned, *others)
        self._seen = x, gradient, free, held, s, y, inner

    def _step(self) -> _Products:
        self.x, self._gradient, self._free, self._held, *newest, inner = self._seen
        self._newest = newest[0], newest[1]
        table = to_numpy(inner).astype(np.float64)
        known = [*range(len(self._remembered)), -1]
        of_y, of_gradient = table[:, :-2].reshape(2, 2, -1)[:, :, known]
        return _Products(of_y, of_gradient, float(table[0, -2]), float(table[1, -1]))

    def _keep(self) -> None:
        self._remembered.append(self._newest)

    def _drop_oldest(self) -> None:
        self._remembered.popleft()

    def _turn(self, by_s: np.ndarray, by_y: np.ndarray, by_gradient: float) -> None:
        unused = (0, self._history - len(by_s))
        of_s, of_y = np.pad(np.array([by_s, by_y], np.float32), ((0, 0), unused))
        steps, changes = self._filled(self._history)
        uphill = _uphill(self._free, np.float32(by_gradient), of_y, changes)
        self._direction = _direction(self._preconditioner(uphill), self._held, of_s, steps)

    def _pairs(self) -> Sequence[Pair]:
        return tuple(self._remembered)

    def _with_changes(self, z: Tensor) -> np.ndarray:
        _, changes = self._filled(self._history)
        return to_numpy(_inner((z,), changes))[0, : len(self._remembered)]

    def _filled(self, count: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """All s and all y, filled up by x to a fixed number, so that one graph serves all."""
        pairs = (*self._remembered, *((self.x, self.x),) * (count - len(self._remembered)))
        return tuple(s for s, _ in pairs), tuple(y for _, y in pairs)


def cut(x: Tensor, bounds: Bounds) -> Tensor:
    """The values cut to the bounds; an array stays an array."""
    return (np if isinstance(x, np.ndarray) else ops).clip(x, *bounds)


def _held(x: Tensor, gradient: Tensor, bounds: Bounds) -> Tensor:
    """Which values are held: they lie at a bound that a step down would cross."""
    least, most = bounds
    return ((x <= least) & (gradient > 0)) | ((x >= most) & (gradient < 0))


@compiled
def _move(x: Tensor, step: Tensor, direction: Tensor, bounds: Bounds) -> Tensor:
    return cut(x + step * direction, bounds)


def _free(x: Tensor, gradient: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """The gradient with zeros for the values that are held, and which these are."""
    held = _held(x, gradient, bounds)
    return ops.where(held, 0.0, gradient), held


@compiled
def _changed(
    x: Tensor, new_x: Tensor, gradient: Tensor, new_gradient: Tensor, bounds: Bounds
) -> tuple[Tensor, ...]:
    """The step, the gradient's change, and what `_free` gives at the new point."""
    return new_x - x, new_gradient - gradient, *_free(new_x, new_gradient, bounds)


@compiled
def _downhill(uphill: Tensor, gradient: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
    """The direction opposite to `uphill`, no value longer than `FIRST_STEP`; and its slope."""
    uphill = ops.where(held, 0.0, uphill)
    direction = -uphill * (FIRST_STEP / ops.maximum(ops.max(ops.abs(uphill)), 1e-30))
    return direction, ops.sum(direction * gradient)


@compiled
def _products(
    s: Tensor,
    y: Tensor,
    z: Tensor,
    gradient: Tensor,
    preconditioned: Tensor,
    steps: tuple[Tensor, ...],
    changes: tuple[Tensor, ...],
) -> Tensor:
    """Products of y and of the free gradient with each s and each z, the newest last.

    Those with z are z with y, and P times the gradient with y. The last two columns hold s·s, and
    the free gradient with P times itself.
    """
    with_s = inner_products((y, gradient), (*steps, s))
    with_z = inner_products((z, preconditioned), (*changes, y))
    own = inner_products((s, gradient), (s, preconditioned))
    return ops.concatenate([with_s, with_z, own], 1)


_inner = compiled(inner_products)


@compiled
def _uphill(
    gradient: Tensor, by_gradient: Tensor, shares: Tensor, changes: tuple[Tensor, ...]
) -> Tensor:
    """The sum of the gradient and all y by their weights."""
    return _added(by_gradient * gradient, shares, changes)


@compiled
def _direction(
    preconditioned: Tensor, held: Tensor, shares: Tensor, steps: tuple[Tensor, ...]
) -> Tensor:
    """P times that, and all s by their weights; zero for held values."""
    return ops.where(held, 0.0, _added(preconditioned, shares, steps))


def _added(total: Tensor, shares: Tensor, vectors: tuple[Tensor, ...]) -> Tensor:
    for share, vector in zip(ops.unstack(shares, len(vectors)), vectors, strict=True):
        total = total + share * vector
    return total


class _HostModel(Model):
    """All vectors are arrays, which is faster on a CPU, and takes as little memory as it can.

    That is 2·history images, x, the best if that is another, and which values are held; during a
    step three more, and what P needs. The pairs are rows of two matrices, all s in one and all y in
    the other, so that a product with all of them is one call. The row that the next pair will take
    holds, until then, the direction and the gradient.
    """

    _gradient: np.ndarray
    _held: np.ndarray
    _preconditioned: np.ndarray
    _seen: tuple[np.ndarray, np.ndarray] | None

    def __init__(
        self, x: np.ndarray, history: int, bounds: Bounds, preconditioner: Preconditioner
    ) -> None:
        least, most = (_in_rows(each, x.shape) for each in bounds)
        super().__init__(x, history, (least, most), preconditioner)

    def begin(self, gradient: np.ndarray) -> float:
        size = gradient.size
        self._steps, self._changes = (np.empty((self._history, size), np.float32) for _ in "sy")
        self._next = 0
        self._filled = 1
        self._changes[0] = gradient.reshape(-1)
        return self.straight_down(plain=False)

    def look(self, x: np.ndarray, gradient: np.ndarray) -> None:
        self._seen = x, gradient

    def trial(self, step: float) -> np.ndarray:
        self._seen = None  # frees them, before there are new ones
        trial: np.ndarray = self._steps[self._next].reshape(self.x.shape) * np.float32(step)
        trial += self.x
        return np.clip(trial, *self._bounds, out=trial)

    def _forget(self) -> None:
        super()._forget()
        self._rows: list[int] = []

    def _face_down(self) -> float:
        direction, gradient = (
            rows[self._next].reshape(self.x.shape) for rows in (self._steps, self._changes)
        )
        held = _held(self.x, gradient, self._bounds)
        free = gradient * ~held
        direction[...] = free if self.plain else self._preconditioner(free)
        direction[held] = 0.0
        direction *= -FIRST_STEP / max(float(direction.max()), -float(direction.min()), 1e-30)
        return self._dot(direction.reshape(-1), gradient.reshape(-1))

    def _step(self) -> _Products:
        assert self._seen is not None
        x, gradient = self._seen
        self._seen = None
        s, y = self._steps[self._next], self._changes[self._next]
        np.subtract(x.reshape(-1), self.x.reshape(-1), out=s)
        np.subtract(gradient.reshape(-1), y, out=y)
        self.x, self._gradient = x, gradient.reshape(-1)
        held = _held(x, gradient, self._bounds)
        free = gradient * ~held
        self._held = held.reshape(-1)
        self._preconditioned = self._preconditioner(free).reshape(-1)
        del free  # made again below, in parts: there is no room for it beside z
        z = self._preconditioner(y.reshape(x.shape)).reshape(-1)
        table, own = np.zeros((2, 2, self._filled)), np.zeros(2)
        for part in self._parts():
            free = self._gradient[part] * ~self._held[part]
            uphill = self._preconditioned[part]
            steps, changes = (rows[: self._filled, part] for rows in (self._steps, self._changes))
            table += [
                [steps @ y[part], changes @ z[part]],  # near for the second product
                [steps @ free, changes @ uphill],
            ]
            own += np.dot(s[part], s[part]), np.dot(free, uphill)
        known = [*self._rows, self._next]
        return _Products(*table[:, :, known], *own.tolist())

    def _keep(self) -> None:
        self._rows.append(self._next)

    def _drop_oldest(self) -> None:
        self._rows.pop(0)

    def _turn(self, by_s: np.ndarray, by_y: np.ndarray, by_gradient: float) -> None:
        shares = np.zeros((2, self._filled), np.float32)
        shares[:, self._rows] = by_s, by_y
        if self._next in self._rows:
            self._next = (self._next + 1) % self._history
        uphill = self._preconditioned  # needed no more
        del self._preconditioned
        by_s, by_y = shares
        steps, changes = (rows[: len(by_s)] for rows in (self._steps, self._changes))
        for part in self._parts():
            free = self._gradient[part] * ~self._held[part]
            uphill[part] = np.float32(by_gradient) * free + by_y @ changes[:, part]
        direction = self._preconditioner(uphill.reshape(self.x.shape)).reshape(-1)
        del uphill
        for part in self._parts():
            direction[part] += by_s @ steps[:, part]
            direction[part][self._held[part]] = 0.0
            self._steps[self._next, part] = direction[part]
            self._changes[self._next, part] = self._gradient[part]
        self._filled = max(self._filled, self._next + 1)
        del self._gradient, self._held  # until the next step

    def _pairs(self) -> Sequence[Pair]:
        shape = self.x.shape
        return [
            (self._steps[r].reshape(shape), self._changes[r].reshape(shape)) for r in self._rows
        ]

    def _with_changes(self, z: np.ndarray) -> np.ndarray:
        flat, products = z.reshape(-1), np.zeros(self._filled)
        for part in self._parts():
            products += self._changes[: self._filled, part] @ flat[part]
        return products[self._rows]

    def _parts(self) -> Iterator[slice]:
        """Slices of all vectors, small enough for the caches, and for sums in float32."""
        length = min(_PART, _CACHED // self._history)
        return (slice(i, i + length) for i in range(0, self.x.size, length))

    def _dot(self, a: np.ndarray, b: np.ndarray) -> float:
        return sum(float(np.dot(a[part], b[part])) for part in self._parts())


def _in_rows(bound: np.ndarray | float, shape: tuple[int, ...]) -> np.ndarray:
    """A bound as one number, or for each value of a row, which NumPy is slow to make of three."""
    if np.ndim(bound):
        bound = np.broadcast_to(bound, np.broadcast_shapes(np.shape(bound), shape[-2:]))
    return np.asarray(bound, np.float32, order="C")
