"""What L-BFGS's last steps have shown of the curvature, and which way it goes on from there.

The same twice: in tensors on a device, and in arrays on the host. Knows nothing of what is
minimised, and not whether a step was good.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops
from scipy.linalg import solve_triangular

from stylewatch.engine.backend import Tensor, compiled, inner_products, to_numpy

FIRST_STEP = 10.0
"""A step straight down changes no pixel value by more than this (grey levels)."""
_CURVED = 1e-10  # the least of s·y / √(s·s y·Py): below it the loss is not curved upwards
_AHEAD = 2.0
"""Where no pair has shown the curvature, it is taken for so much less than where they have.

Changes of the gradient tell most of what is curved most. Where the loss is not, a step is longer
for it: one to two tenths fewer evaluations to the same loss.
"""
_PART = 1 << 16
_CACHED = 1 << 19
"""Values of all pairs together that stay near a processor between two uses."""

Bounds = tuple[Any, Any]
"""The least and the most of each value; shapes that broadcast to the image's."""
FREE: Bounds = (-np.inf, np.inf)
Preconditioner = Callable[[Any], Any]
"""The product of a vector with what the inverse Hessian might be, but for a factor.

Linear, symmetric, positive definite. Gives a new vector, or the very one that it was given.
"""


@dataclass(frozen=True)
class _Products:
    """Inner products after a step, float64: all that the next direction follows from."""

    of_y: np.ndarray
    """(2, pairs): the newest y with every s, and with every z; the newest pair last."""
    of_gradient: np.ndarray
    """The same of the gradient, less the values that are held."""
    length: float
    """s·s of the newest s."""
    steepness: float
    """That gradient with P times itself."""


class Model(ABC):
    """Where L-BFGS is, what its last steps have shown of the curvature, and where to go on.

    A pair is a step s, and z = P y: y is by how much the gradient changed over it, and P is the
    preconditioner. A direction is a sum of the pairs and P times the gradient, and what multiplies
    each follows from inner products alone (Byrd, Nocedal and Schnabel, "Representations of
    Quasi-Newton Matrices", 1994, theorem 2.2, with H₀ = γP): all vectors are read twice, for the
    products and for the sum.
    """

    x: Tensor
    """Where it is, within the bounds."""
    _sy: np.ndarray
    """Of the pairs, oldest first: s·y, right where y is the newer or the same."""
    _yz: np.ndarray
    """Of the pairs, oldest first: y·z."""
    straight: bool
    """Whether no pair has a share in the direction: it is −P times the gradient, or `plain`."""
    plain: bool
    """Whether P has none either."""

    def __init__(
        self, x: Tensor, history: int, bounds: Bounds, preconditioner: Preconditioner
    ) -> None:
        self.x = x
        self._history = history
        self._bounds = bounds
        self._preconditioner = preconditioner

    @abstractmethod
    def begin(self, gradient: Tensor) -> float:
        """Face straight down from x; the loss's slope that way."""

    @abstractmethod
    def trial(self, step: float) -> Tensor:
        """Where `step` along the direction leads, within the bounds."""

    @abstractmethod
    def look(self, x: Tensor, gradient: Tensor) -> None:
        """That trial and the gradient there, of which nobody knows yet whether it was good.

        A device goes on at once with what follows if it was: then it waits for nobody.
        """

    def straight_down(self, *, plain: bool) -> float:
        """Forget the pairs, and face straight down; the loss's slope that way."""
        self._forget()
        self.plain = plain
        return self._face_down()

    def accept(self) -> float:
        """Be where it looked, learn from the step there, and turn; the loss's slope that way."""
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
        by_s, by_z, by_gradient = self._shares(with_s, with_z)
        self._turn(by_s, by_z, by_gradient)
        if len(self._sy) == self._history:  # the next pair takes the place of the oldest
            self._sy, self._yz = self._sy[1:, 1:], self._yz[1:, 1:]
            self._drop_oldest()
        return float(by_s @ with_s + by_z @ with_z + by_gradient * products.steepness)

    def _forget(self) -> None:
        self._sy = self._yz = np.zeros((0, 0))
        self.straight = True

    def _shares(self, s: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """What multiplies each s, each z and P times the gradient, given its products with them."""
        curvature = np.diag(self._sy)
        scale = _AHEAD * float(np.median(curvature / np.diag(self._yz)))  # γ, from s·y / y·z
        by_z = solve_triangular(self._sy, s, check_finite=False)
        rest = curvature * by_z - scale * (z - self._yz @ by_z)
        by_s = solve_triangular(self._sy, rest, trans="T", check_finite=False)
        return -by_s, scale * by_z, -scale

    @abstractmethod
    def _face_down(self) -> float:
        """Turn straight down, which moves no value by more than `FIRST_STEP`; the slope."""

    @abstractmethod
    def _step(self) -> _Products:
        """Be where it looked; the products that the step from where it was makes."""

    @abstractmethod
    def _keep(self) -> None:
        """The pair of the last step is one of the pairs."""

    @abstractmethod
    def _drop_oldest(self) -> None:
        """The oldest pair is not needed any more."""

    @abstractmethod
    def _turn(self, by_s: np.ndarray, by_z: np.ndarray, by_gradient: float) -> None:
        """Face along the pairs, oldest first, and P times the gradient, each times its share."""


def model_at(x: Tensor, history: int, bounds: Bounds, preconditioner: Preconditioner) -> Model:
    """L-BFGS before its first step, from x cut to the bounds; x's kind says where it works."""
    kind = _HostModel if isinstance(x, np.ndarray) else _DeviceModel
    return kind(cut(x, bounds), history, bounds, preconditioner)


class _DeviceModel(Model):
    """All vectors are tensors on the device, and only numbers come to the host.

    Memory: 2·history images, for a moment as many again, and some that come and go.
    """

    _gradient: Tensor
    _held: Tensor
    _preconditioned: Tensor
    _direction: Tensor
    _newest: tuple[Tensor, Tensor]
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
        self._seen = ()  # before there are others
        return _move(self.x, step, self._direction, self._bounds)

    def _forget(self) -> None:
        super()._forget()
        self._pairs: deque[tuple[Tensor, Tensor]] = deque()

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
        self._seen = x, gradient, held, preconditioned, s, z, inner

    def _step(self) -> _Products:
        self.x, self._gradient, self._held, self._preconditioned, s, z, inner = self._seen
        self._newest = s, z
        table = to_numpy(inner).astype(np.float64)
        known = [*range(len(self._pairs)), -1]
        of_y, of_gradient = table[:, :-2].reshape(2, 2, -1)[:, :, known]
        return _Products(of_y, of_gradient, float(table[0, -2]), float(table[1, -1]))

    def _keep(self) -> None:
        self._pairs.append(self._newest)

    def _drop_oldest(self) -> None:
        self._pairs.popleft()

    def _turn(self, by_s: np.ndarray, by_z: np.ndarray, by_gradient: float) -> None:
        shares = np.pad([by_s, by_z], ((0, 0), (0, self._history - len(by_s)))).reshape(-1)
        self._direction = _sum(
            self._preconditioned,
            self._held,
            np.float32(by_gradient),
            np.float32(shares),
            *self._filled(self._history),
        )

    def _filled(self, count: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """All s and all z, and x where there are none yet, so that one graph serves all."""
        pairs = (*self._pairs, *((self.x, self.x),) * (count - len(self._pairs)))
        return tuple(s for s, _ in pairs), tuple(z for _, z in pairs)


def cut(x: Tensor, bounds: Bounds) -> Tensor:
    """What x is within the bounds; an array stays an array."""
    return (np if isinstance(x, np.ndarray) else ops).clip(x, *bounds)


def _held(x: Tensor, gradient: Tensor, bounds: Bounds) -> Tensor:
    """Which values lie at a bound that going down would cross."""
    least, most = bounds
    return ((x <= least) & (gradient > 0)) | ((x >= most) & (gradient < 0))


@compiled
def _move(x: Tensor, step: Tensor, direction: Tensor, bounds: Bounds) -> Tensor:
    return cut(x + step * direction, bounds)


def _free(x: Tensor, gradient: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """The gradient less the values that are held, and which these are."""
    held = _held(x, gradient, bounds)
    return ops.where(held, 0.0, gradient), held


@compiled
def _changed(
    x: Tensor, new_x: Tensor, gradient: Tensor, new_gradient: Tensor, bounds: Bounds
) -> tuple[Tensor, ...]:
    """The step, the gradient's change, and what of the new gradient is free."""
    return new_x - x, new_gradient - gradient, *_free(new_x, new_gradient, bounds)


@compiled
def _downhill(uphill: Tensor, gradient: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
    """Away from `uphill`, no value by more than `FIRST_STEP`; and the slope that way."""
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
    """What y and the gradient of the values not held make with each s and each z, the newest last.

    In the last two columns stand s·s, and the gradient with P times itself.
    """
    products = inner_products((y, gradient), (*steps, s, *changes, z))
    own = inner_products((s, gradient), (s, preconditioned))
    return ops.concatenate([products, own], 1)


@compiled
def _sum(
    preconditioned: Tensor,
    held: Tensor,
    by_gradient: Tensor,
    shares: Tensor,
    steps: tuple[Tensor, ...],
    changes: tuple[Tensor, ...],
) -> Tensor:
    """P times the gradient, all s and all z, each times its share, of the values not held."""
    total = by_gradient * preconditioned
    vectors = (*steps, *changes)
    for share, vector in zip(ops.unstack(shares, len(vectors)), vectors, strict=True):
        total = total + share * vector
    return ops.where(held, 0.0, total)


class _HostModel(Model):
    """The same in arrays, which is faster on a CPU, and in as little memory as it can.

    That is 2·history images, x, the best where that is another, and what holds a value back; three
    more during a step, and what P needs. Pairs are rows of two matrices, all s and all z, so that a
    product with all of them is one call. The row that the next pair will take holds the direction
    and the gradient meanwhile.
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
        self._seen = None  # before there are others
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
        del free  # and again in parts: there is no room for it and for z
        z = self._preconditioner(y.reshape(x.shape)).reshape(-1)
        table, own = np.zeros((2, 2, self._filled)), np.zeros(2)
        for part in self._parts():
            free = self._gradient[part] * ~self._held[part]
            change = y[part].copy()
            y[part] = z[part]
            for number, rows in enumerate((self._steps, self._changes)):
                pairs = rows[: self._filled, part]  # near for the second product
                table[:, number] += [pairs @ change, pairs @ free]
            own += np.dot(s[part], s[part]), np.dot(free, self._preconditioned[part])
        known = [*self._rows, self._next]
        return _Products(*table[:, :, known], *own.tolist())

    def _keep(self) -> None:
        self._rows.append(self._next)

    def _drop_oldest(self) -> None:
        self._rows.pop(0)

    def _turn(self, by_s: np.ndarray, by_z: np.ndarray, by_gradient: float) -> None:
        shares = np.zeros((2, self._filled), np.float32)
        shares[:, self._rows] = by_s, by_z
        if self._next in self._rows:
            self._next = (self._next + 1) % self._history
        for part in self._parts():
            direction = np.float32(by_gradient) * self._preconditioned[part]
            for share, rows in zip(shares, (self._steps, self._changes), strict=True):
                direction += share @ rows[: len(share), part]
            direction[self._held[part]] = 0.0
            self._steps[self._next, part] = direction
            self._changes[self._next, part] = self._gradient[part]
        self._filled = max(self._filled, self._next + 1)
        del self._gradient, self._preconditioned, self._held  # until the next step

    def _parts(self) -> Iterator[slice]:
        """Of all vectors: what the nearer caches hold, and few enough terms for float32."""
        length = min(_PART, _CACHED // self._history)
        return (slice(i, i + length) for i in range(0, self.x.size, length))

    def _dot(self, a: np.ndarray, b: np.ndarray) -> float:
        return sum(float(np.dot(a[part], b[part])) for part in self._parts())


def _in_rows(bound: np.ndarray | float, shape: tuple[int, ...]) -> np.ndarray:
    """One number, or one for each value of a row: NumPy is slow to repeat three along it."""
    if np.ndim(bound):
        bound = np.broadcast_to(bound, np.broadcast_shapes(np.shape(bound), shape[-2:]))
    return np.asarray(bound, np.float32, order="C")
