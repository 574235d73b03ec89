"""L-BFGS's guess of the inverse Hessian of an image's loss, up to a factor.

The loss answers to fine detail ten to fifty times as strongly as to light and dark over many
pixels, so the way straight down leads to grain first and to large forms last. If what is coarse in
a gradient counts for more, L-BFGS reaches the same loss with a tenth to two fifths fewer
evaluations: a Sobolev gradient (Neuberger, "Sobolev Gradients and Differential Equations", 1997).
So it begins. What its steps then show of places, waves and colours saves another sixth.
"""

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial, reduce
from typing import Any

import numpy as np
from keras import ops

from stylewatch.engine.backend import Tensor, compiled, to_numpy
from stylewatch.engine.curvature import Pair, Preconditioner

_GAIN = 10.0
"""At first: how many times as much is added of what is the same everywhere (frequency 0)."""
_CORNER = 0.03
"""The frequency, in waves per pixel, of which half as much is added."""
_COARSE = 0.125
"""Only these frequencies of each axis, from zero up, are told apart: this share of all.

Of the others too little would be added to be worth the time.
"""
_LOWEST, _BANDS = 1 / 128, 4
"""Waves per pixel of the first band, and how many bands there are, an octave apart."""
_ABOUT = 9.0
"""What lies about a place is summed by a Gaussian of so many pixels.

It is never negative, and the coarse waves hold all of it. A narrower one would ring: beside a place
where y² is large there would seem to be none, and R would grow without bounds.
"""
_LEAST_ABOUT, _LEAST = 0.1, 1e-3
"""A place's share, and a colour's, is taken for at least this share of the mean."""
_ROUNDED = 3e-4
"""So much of all is added to what is fine, which is a difference of sums.

GPUs may multiply with eleven bits, and it is then off by up to a quarter of this.
"""
_FIRST, _GROWTH = 8, 1.5
"""It learns after so many steps, and again when there have been so many times as many."""
_NEWEST = 10
"""It learns from so many pairs."""
_SIDE_BY_SIDE = 4
"""So many pixels are a row of a matrix: with three columns it takes three times as long."""
_STRIP = 64
"""So many rows of an image, and what comes of them, stay in a processor's cache."""


def _of_either(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(xp, image, …)` as one of arrays, by NumPy, and of tensors, compiled."""
    on_device = compiled(partial(function, ops))

    def call(image: Tensor, *others: Any) -> Any:
        if isinstance(image, np.ndarray):
            return function(np, image, *others)
        return on_device(image, *others)

    return call


class ImagePreconditioner(Preconditioner):
    """v ↦ R (M + (M_f − M) on what is coarse) R v, for images like one, (1, H, W, channels).

    R scales each place. M mixes the colours of what is fine; of waves with the frequency f, as far
    as cosines below 1/16 along each axis can tell, M_f mixes them instead. It begins with R = 1,
    M = 1 and M_f = 1 + 10 / (1 + (f / 0.03)²), that is v + 10 · (1 − c∇²)⁻¹ v.

    What it learns from steps s and the gradient's changes y: R⁴ is the share of all s² that lies
    about a place, over that of all y². Of R⁻¹s and Ry each M is then the one symmetric and positive
    definite matrix with M · cov(y) · M = cov(s), of their colours: the geometric mean of cov(s) and
    cov(y)⁻¹ (Bhatia, "Positive Definite Matrices", 2007, chapter 4). Where a loss is curved at each
    place, or along each wave, by itself, that is the inverse Hessian.

    Products with two matrices of cosines, (H/8, H) and (W/8, W), there and back; made when first
    needed. An array's takes one more array, and some rows; R is a third of one.
    """

    def __init__(self, like: Tensor) -> None:
        self._shape = like.shape
        self._kept = np.asarray if isinstance(like, np.ndarray) else ops.convert_to_tensor
        self._place = self._kept(np.broadcast_to(np.float32(1.0), (*like.shape[:3], 1)))
        self._steps, self._due = 0, _FIRST

    def __call__(self, image: Tensor) -> Tensor:
        """P times the image."""
        times = _times_in_place if isinstance(image, np.ndarray) else _times
        return times(image, self._place, *self._mixtures, *self._cosines)

    def learn(self, pairs: Sequence[Pair]) -> bool:
        """Take note of a step; less and less often it is a reason to be another."""
        self._steps += 1
        if self._steps < self._due or not pairs:  # L-BFGS may remember none
            return False
        self._due = math.ceil(_GROWTH * self._due)
        newest = pairs[-_NEWEST:]
        of_s = self._squares_about(s for s, _ in newest)
        of_y = self._squares_about(_moved(y, s) for s, y in newest)
        self._place = (of_s / of_y) ** 0.25
        inverse = 1.0 / self._place
        of_s = self._covariances(_scaled(s, inverse) for s, _ in newest)
        of_y = self._covariances(_scaled(_moved(y, s), self._place) for s, y in newest)
        self._mixtures = self._mixed(_between(of_s, of_y))
        return True

    def _squares_about(self, images: Iterable[Tensor]) -> Tensor:
        """(1, H, W, 1): what lies of them about each place."""
        total = reduce(operator.iadd, map(_squares, images))  # an array's in place
        return _about(total, self._near, *self._cosines)

    def _covariances(self, images: Iterable[Tensor]) -> np.ndarray:
        """Of the colours, of each band and at last of what is fine, float64; none is singular."""
        tables = [to_numpy(_spread(each, self._bands, *self._cosines)) for each in images]
        found = np.sum(tables, axis=0, dtype=np.float64)
        traces = np.trace(found, axis1=1, axis2=2)
        least = _LEAST * np.maximum(traces, 0.0) / found.shape[-1] + 1e-12
        least[-1] += _ROUNDED * traces.sum()
        return np.asarray(found + least[:, None, None] * np.eye(found.shape[-1]))

    def _mixed(self, mixtures: np.ndarray) -> tuple[Tensor, Tensor]:
        """M, and for each wave M_f − M, of the mixtures of the bands, and at last of all else."""
        bands, fine = mixtures[:-1], np.float32(mixtures[-1])
        return self._kept(fine), self._for_waves(np.tensordot(self._shares, bands - fine, 1))

    @cached_property
    def _mixtures(self) -> tuple[Tensor, Tensor]:
        """M, and for each wave M_f − M; before anything is learnt."""
        alike = np.eye(self._shape[-1], dtype=np.float32)
        added = _GAIN / (1.0 + (self._frequencies / _CORNER) ** 2)
        return self._kept(alike), self._for_waves(added[..., None, None] * alike)

    @cached_property
    def _near(self) -> Tensor:
        """What is left of each wave where places are taken with their surroundings."""
        return self._for_waves(np.exp(-2.0 * (np.pi * _ABOUT * self._frequencies) ** 2))

    @cached_property
    def _bands(self) -> Tensor:
        return self._for_waves(self._shares)

    @cached_property
    def _shares(self) -> np.ndarray:
        """(W/8, H/8, bands): how much each wave belongs to each band, 1 in all."""
        octaves = np.log2(np.maximum(self._frequencies, _LOWEST) / _LOWEST)
        apart = np.minimum(octaves, _BANDS - 1)[..., None] - np.arange(_BANDS)
        return np.asarray(np.maximum(0.0, 1.0 - np.abs(apart)))

    @cached_property
    def _frequencies(self) -> np.ndarray:
        """(W/8, H/8): of each wave, in waves per pixel."""
        across, down = (np.arange(_coarse_of(side)) / (2.0 * side) for side in self._shape[2:0:-1])
        return np.asarray(np.hypot(across[:, None], down))

    @cached_property
    def _cosines(self) -> tuple[Tensor, ...]:
        """The cosines down and across, one in each row."""
        return tuple(self._kept(_cosines(side)[None, ..., None]) for side in self._shape[1:3])

    def _for_waves(self, values: np.ndarray) -> Tensor:
        """(W/8, H/8, …) in the shape of an image, whose size a graph leaves open."""
        flat = values.reshape(1, *values.shape[:2], -1)
        return self._kept(np.ascontiguousarray(flat, np.float32))


def _coarse_of(side: int) -> int:
    return math.ceil(_COARSE * side)


def _cosines(length: int) -> np.ndarray:
    """The coarse cosines over so many pixels (orthonormal DCT-II)."""
    cosines = np.empty((_coarse_of(length), length), np.float32)
    for number in range(len(cosines)):  # in double precision they would be as large as an image
        size = ((1.0 if number == 0 else 2.0) / length) ** 0.5
        cosines[number] = size * np.cos(np.pi / length * number * (np.arange(length) + 0.5))
    return cosines


def _between(of_s: np.ndarray, of_y: np.ndarray) -> np.ndarray:
    """The geometric means of `of_s` and the inverses of `of_y`, matrix by matrix."""
    root, inverse = _power(of_y, 0.5), _power(of_y, -0.5)
    return np.asarray(inverse @ _power(root @ of_s @ root, 0.5) @ inverse)


def _power(matrices: np.ndarray, exponent: float) -> np.ndarray:
    """Powers of symmetric, positive definite matrices."""
    values, vectors = np.linalg.eigh(matrices)
    return np.asarray((vectors * values[:, None] ** exponent) @ vectors.swapaxes(1, 2))


def _by_wave(xp: Any, image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(W/8, H/8, channels): how much of each coarse wave is in the image."""
    down = xp.tensordot(rows[0, ..., 0], image[0], (1, 0))
    return xp.tensordot(columns[0, ..., 0], down, (1, 1))


def _from_waves(xp: Any, waves: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The image that so much of each coarse wave makes."""
    across = xp.tensordot(columns[0, ..., 0], waves, (0, 0))
    return xp.tensordot(rows[0, ..., 0], across, (0, 1))[None]


@compiled
def _times(image: Tensor, place: Tensor, fine: Tensor, coarse: Tensor, *cosines: Tensor) -> Tensor:
    scaled = place * image
    waves = _mixed_waves(ops, _by_wave(ops, scaled, *cosines), coarse)
    flat = ops.matmul(ops.reshape(scaled, (-1, ops.shape(image)[-1])), fine)
    return place * (ops.reshape(flat, ops.shape(image)) + _from_waves(ops, waves, *cosines))


def _times_in_place(
    image: np.ndarray,
    place: np.ndarray,
    fine: np.ndarray,
    coarse: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
) -> np.ndarray:
    """The same of arrays, in the result's memory: there may be none to spare."""
    result = _scaled_in(np.empty_like(image), image, place)
    waves = _mixed_waves(np, _by_wave(np, result, rows, columns), coarse)
    across = np.tensordot(waves, columns[0, ..., 0], (0, 0)).swapaxes(1, 2)  # (H/8, W, channels)
    across = across.reshape(len(across), -1)
    for start in range(0, image.shape[1], _STRIP):
        strip = np.s_[:, start : start + _STRIP]
        mixed = (result[strip].reshape(-1, len(fine)) @ fine).reshape(result[strip].shape)
        mixed += (rows[0, :, start : start + _STRIP, 0].T @ across).reshape(mixed.shape)
        _scaled_in(result[strip], mixed, place[strip])
    return result


def _mixed_waves(xp: Any, waves: Tensor, coarse: Tensor) -> Tensor:
    mixtures = xp.reshape(coarse[0], (*xp.shape(waves), -1))
    return xp.matmul(mixtures, waves[..., None])[..., 0]


@_of_either
def _moved(xp: Any, y: Tensor, s: Tensor) -> Tensor:
    """Zero where a value was held at a bound: what it would have changed says nothing of a step."""
    return xp.multiply(y, s != 0)


@_of_either
def _scaled(xp: Any, image: Tensor, place: Tensor) -> Tensor:
    """The image, each place multiplied by its own number in `place` (1, H, W, 1)."""
    return _scaled_in(np.empty_like(image), image, place) if xp is np else place * image


def _scaled_in(result: np.ndarray, image: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The same of arrays; by channels, as NumPy is slow to make three of one."""
    for channel in range(image.shape[-1]):
        np.multiply(image[..., channel], place[..., 0], out=result[..., channel])
    return result


@_of_either
def _squares(xp: Any, image: Tensor) -> Tensor:
    """The image's squares, scaled to a mean of 1."""
    squares = image * image
    squares *= 1.0 / xp.mean(squares)
    return squares


@_of_either
def _about(xp: Any, squares: Tensor, near: Tensor, *cosines: Tensor) -> Tensor:
    waves = xp.sum(_by_wave(xp, squares, *cosines), axis=-1, keepdims=True)
    found = _from_waves(xp, near[0] * waves, *cosines)
    return xp.maximum(found, _LEAST_ABOUT * xp.mean(found))


@_of_either
def _spread(xp: Any, image: Tensor, bands: Tensor, *cosines: Tensor) -> Tensor:
    """(bands + 1, channels, channels): products of the colours, of each band and of what is fine.

    Their traces are 1 in all.
    """
    waves = _by_wave(xp, image, *cosines)
    of_bands = xp.tensordot(bands[0], waves[..., None] * waves[..., None, :], ((0, 1), (0, 1)))
    of_all = _of_colours(xp, image)
    of_fine = of_all - xp.sum(of_bands, 0)  # as the cosines are orthonormal
    return xp.concatenate([of_bands, of_fine[None]], 0) / xp.trace(of_all)


def _of_colours(xp: Any, image: Tensor) -> Tensor:
    """(channels, channels): their products, over all places."""
    channels = xp.shape(image)[-1]
    flat = xp.reshape(image, (-1, channels))
    even = xp.shape(flat)[0] // _SIDE_BY_SIDE * _SIDE_BY_SIDE
    wide = xp.reshape(flat[:even], (-1, _SIDE_BY_SIDE * channels))
    blocks = xp.matmul(xp.transpose(wide), wide)
    blocks = xp.reshape(blocks, (_SIDE_BY_SIDE, channels, _SIDE_BY_SIDE, channels))
    rest = xp.matmul(xp.transpose(flat[even:]), flat[even:])
    return sum((blocks[i, :, i] for i in range(_SIDE_BY_SIDE)), rest)
