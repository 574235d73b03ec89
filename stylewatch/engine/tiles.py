"""The objective for pictures that do not fit into memory: the same loss, tile by tile.

A Gram matrix is a sum over positions, so the exact gradient needs two passes. The first sums the
Gram matrices over all tiles. The second sends each tile's share of the gradient back: with G the
sum, dL/dG is known, and the loss of a tile is linear in its own part of G. Each position belongs
to one tile; a tile sees as much around it as its features can see, so there are no seams and
nothing is approximated. Knows nothing of scales, optimisers or files.
"""

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from keras import ops

from stylewatch.domain import VGG19_LAYERS, StyleSettings
from stylewatch.engine import backend, convolution, losses
from stylewatch.engine.backend import Precision, Tensor
from stylewatch.engine.features import STRIDE, stride_of
from stylewatch.engine.objective import (
    Description,
    Objective,
    Parts,
    Region,
    Targets,
    style_part,
)

_BAND = 10
"""A band has so many times the pixels of a tile: total variation takes just 0.12 kB for each."""
_SMALLEST = 256
"""Pixels of a side of the smallest tiles: of still smaller ones nearly all would be margin."""
Place = tuple[Tensor, Tensor]
"""A rectangle within another, in pixels: its corner, and an array without values of its size.

A graph is given the size as a shape, as JAX compiles a program for each.
"""
Division = list[tuple[tuple[int, int], tuple[int, int]]]
"""A side of a picture in spans, from … to, each with the longer one that its features can see."""


@dataclass(frozen=True)
class Tile:
    """A rectangle of positions and the larger one that its features can see; in pixels."""

    inner: tuple[int, int, int, int]
    """top, bottom, left, right"""
    outer: tuple[int, int, int, int]

    def cut(self, image: Any) -> Any:
        """The outer rectangle of (1, H, W, C)."""
        top, bottom, left, right = self.outer
        return image[:, top:bottom, left:right]

    def own(self, layer: str, places: Any) -> Any:
        """What lies at its positions, of (1, h, w, C), an array as large as a layer's features."""
        stride = stride_of(layer)
        top, bottom, left, right = (edge // stride for edge in self.inner)
        return places[:, top:bottom, left:right]

    @property
    def place(self) -> Place:
        """Where in its outer rectangle the inner one is."""
        top, bottom, left, right = self.inner
        corner = np.array([0, top - self.outer[0], left - self.outer[2], 0], dtype=np.int32)
        return corner, np.empty((1, bottom - top, right - left, 0), dtype=np.float32)

    def share(self, layer: str, shape: Sequence[int]) -> float:
        """Its share of a layer's positions in an image of that shape."""
        _, size = self.place
        return _positions(layer, size.shape) / _positions(layer, shape)


def margin_of(layers: Sequence[str]) -> int:
    """How many pixels around its own square a feature of the deepest layer can see.

    Receptive field arithmetic: each 3×3 convolution adds one step of the current stride on either
    side; a 2×2 pooling adds one to the right, which the next stride covers.
    """
    deepest = max(VGG19_LAYERS.index(layer) for layer in layers)
    reach = sum(stride_of(layer) for layer in VGG19_LAYERS[: deepest + 1])
    return -(-reach // STRIDE) * STRIDE


def grid_of(precision: Precision) -> int:
    """Tiles begin at multiples of this, in pixels.

    There the features of all layers begin, and convolutions that are computed several at a time
    are the same ones as in the whole picture, so that they are rounded alike.
    """
    return STRIDE * convolution.outputs_at_once(precision)


def plan_tiles(height: int, width: int, pixels: float, margin: int, grid: int) -> list[Tile]:
    """Cover a picture with tiles of at most so many pixels, margins included.

    Of all even divisions it is the one with the fewest pixels in all. Where none has tiles so
    small, it is the one with the smallest.
    """

    def cost(way: tuple[Division, Division]) -> tuple[float, int]:
        rows, columns = ([stop - start for _, (start, stop) in spans] for spans in way)
        return max(0.0, max(rows) * max(columns) - pixels), sum(rows) * sum(columns)

    rows, columns = (
        [
            divided(length, -(-length // count), margin, grid)
            for count in range(1, -(-length // _SMALLEST) + 1)
        ]
        for length in (height, width)
    )
    return tiles_of(*min(itertools.product(rows, columns), key=cost))


def tiles_of(rows: Division, columns: Division) -> list[Tile]:
    """The tiles of a picture whose sides are divided so."""
    return [
        Tile((*row, *column), (*seen_rows, *seen_columns))
        for row, seen_rows in rows
        for column, seen_columns in columns
    ]


def divided(length: int, side: int, margin: int, grid: int) -> Division:
    """A side of a picture in spans of at most `side`, as far as the grid allows."""
    return [
        ((start, stop), (max(0, (start - margin) // grid * grid), min(length, stop + margin)))
        for start, stop in _spans(length, side, grid)
    ]


def _spans(length: int, side: int, grid: int) -> Iterator[tuple[int, int]]:
    """Even spans of at most `side`, but that they begin at multiples of `grid`.

    The last has a rest that is shorter than the grid, too: it may be too short for any feature.
    """
    count = -(-length // side)
    step = -(-length // (count * grid)) * grid
    starts = range(0, max(1, length - grid + 1), step)
    for start in starts:
        yield start, length if start == starts[-1] else start + step


@dataclass(frozen=True, eq=False)
class _Piece:
    """A tile, with what its own features are multiplied by and compared with."""

    tile: Tile
    masks: list[dict[str, Any]]
    """Per region, as `Objective` has them."""
    content: dict[str, tuple[Tensor, np.ndarray]] = field(default_factory=dict)
    """The photo's features per content layer, and the weight of each place."""


class TiledObjective(Objective):
    """The same loss and gradient as `Objective`, with the memory of one tile."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.pixels = float(_SMALLEST**2)
        """The most that a tile has, margins included, if tiles can be so small."""
        self.on_host = True  # all images stay there, and go to the device in tiles
        self._tile_described = backend.compiled(
            lambda image, place, masks: self._described(self._own_features(image, place), masks)
        )
        self._tile_gradient = backend.value_and_gradient(self._loss_of_tile)
        self._style_part = backend.value_and_gradient(_style_part)
        self._smoothness = backend.value_and_gradient(_weighted_tv)

    def within(self, pixels: float) -> Self:
        """The same, with the same graphs and styles, in tiles of at most so many pixels."""
        other = copy.copy(self)
        other.pixels = max(self.pixels, pixels)
        return other

    def targets(
        self,
        photo: Tensor,
        regions: Sequence[Region],
        settings: StyleSettings,
        weight: np.ndarray | None = None,
        of_styles: Objective | None = None,
    ) -> Targets:
        """What `evaluate` compares an image with, and what of it each tile needs."""
        whole = super().targets(photo, regions, settings, weight, of_styles)
        content_weight = float(whole["weights"][0])
        weights = {
            layer: content_weight * backend.to_numpy(factor)
            for layer, (_, factor) in whole["content"].items()
        }
        pieces = []
        for number, piece in enumerate(self._pieces(photo, whole["masks"])):
            content = {
                layer: (features[number], piece.tile.own(layer, weights[layer]))
                for layer, (features, _) in whole["content"].items()
            }
            pieces.append(replace(piece, content=content))
        return {"pieces": pieces, **{name: whole[name] for name in ("style", "weights", "bend")}}

    def describe(self, photo: Tensor, masks: Sequence[dict[str, Tensor]]) -> Description:
        """The photo's features, tile by tile, and its Gram matrices."""
        features: dict[str, list[Any]] = {layer: [] for layer in self.content_layers}
        # of all tiles together they grow with the photo: a GPU need only have room for one tile
        kept = backend.to_numpy if backend.has_gpu() else (lambda values: values)

        def keep(own: dict[str, Tensor]) -> None:
            for layer, values in own.items():
                features[layer].append(kept(values))

        grams = self._grams(photo, self._pieces(photo, masks), keep)
        energy = {
            layer: sum(float(losses.energy(own)) for own in parts)
            for layer, parts in features.items()
        }
        return Description(features, energy, grams)

    def grams_of_style(self, image: Tensor) -> dict[str, Tensor]:
        """A style image's Gram matrices; it may be as large as the photo."""
        return self._grams(image, self._pieces(image, [{}]))[0]

    def total_variation(self, photo: Tensor) -> float:
        """A picture's total variation, band by band."""
        bands = (photo[:, rows] for rows in self._bands(photo))
        return sum(map(super().total_variation, bands))

    def evaluate(self, image: Tensor, targets: Targets) -> tuple[Parts, Tensor]:
        """The loss at `image` (1, H, W, 3) and its gradient, in two passes over the tiles."""
        _, style_weight, *tv_weight = targets["weights"]
        grams = self._grams(image, targets["pieces"])
        style, slopes = self._style(grams, targets, float(style_weight))
        content = 0.0
        gradient = np.zeros(image.shape, dtype=np.float32)
        for piece in targets["pieces"]:
            wanted = self._tile_targets(piece, slopes, image.shape)
            _, value, slope = self._tile_gradient(piece.tile.cut(image), wanted)
            content += float(value)
            piece.tile.cut(gradient)[...] += backend.to_numpy(slope)
        tv = (0.0 * float(np.sum(image))) ** 2  # NaN if a pixel is
        for weight in tv_weight:
            for rows in self._bands(image):
                value, _, slope = self._smoothness(image[:, rows], weight)
                tv += float(value)
                gradient[:, rows] += backend.to_numpy(slope)
        return Parts((content + style + tv, content, style, tv)), gradient

    def _bands(self, image: Tensor) -> Iterator[slice]:
        """Rows that take no more memory than a tile, each band with the first row of the next."""
        _, height, width, _ = image.shape
        most = max(1, int(_BAND * self.pixels) // width)
        return (slice(top, bottom + 1) for top, bottom in _spans(height - 1, most, 1))

    def _tiles(self, image: Tensor) -> list[Tile]:
        margin = margin_of([*self.content_layers, *self.style_layers])
        height, width = int(image.shape[1]), int(image.shape[2])
        return plan_tiles(height, width, self.pixels, margin, grid_of(self.precision))

    def _pieces(self, image: Tensor, masks: Sequence[dict[str, Any]]) -> list[_Piece]:
        def own(tile: Tile) -> list[dict[str, Any]]:
            return [
                {layer: tile.own(layer, mask) for layer, mask in region.items()} for region in masks
            ]

        return [_Piece(tile, own(tile)) for tile in self._tiles(image)]

    def _grams(
        self,
        image: Tensor,
        pieces: Sequence[_Piece],
        keep: Callable[[dict[str, Tensor]], None] = lambda _: None,
    ) -> list[dict[str, Tensor]]:
        """Pass 1: the whole picture's Gram matrices per location, region by region.

        `keep` is given each tile's own content features.
        """
        totals: list[dict[str, Any]] = [
            dict.fromkeys(self.style_layers, 0.0) for _ in pieces[0].masks
        ]
        for piece in pieces:
            tile = piece.tile
            features, grams = self._tile_described(tile.cut(image), tile.place, piece.masks)
            keep(features)
            for total, of_tile in zip(totals, grams, strict=True):
                for layer, gram in of_tile.items():
                    total[layer] = total[layer] + tile.share(layer, image.shape) * gram
        return totals

    def _own_features(self, image: Tensor, place: Place) -> dict[str, Tensor]:
        """The features at a tile's own positions, out of its outer rectangle's."""
        corner, size = place
        _, height, width, _ = ops.shape(size)
        own = {}
        for layer, features in self.extract(image).items():
            stride = stride_of(layer)
            shape = (1, height // stride, width // stride, features.shape[-1])
            own[layer] = ops.reshape(ops.slice(features, corner // stride, shape), shape)
        return own

    def _style(
        self, grams: Sequence[dict[str, Tensor]], targets: Targets, weight: float
    ) -> tuple[float, list[dict[str, Tensor]]]:
        """The style loss, and its slope by each Gram matrix."""
        loss = 0.0
        slopes = []
        for gram, region in zip(grams, targets["style"], strict=True):
            slope = {}
            for layer, target in region.items():
                part, _, by_gram = self._style_part(gram[layer], (target, targets["bend"]))
                loss += weight * float(part)
                slope[layer] = weight * by_gram
            slopes.append(slope)
        return loss, slopes

    def _tile_targets(
        self, piece: _Piece, slopes: Sequence[dict[str, Tensor]], shape: Sequence[int]
    ) -> Targets:
        """Pass 2's arguments for one tile."""
        own = [
            {layer: piece.tile.share(layer, shape) * slope for layer, slope in region.items()}
            for region in slopes
        ]
        return {
            "place": piece.tile.place,
            "content": piece.content,
            "style": own,
            "masks": piece.masks,
        }

    def _loss_of_tile(self, image: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """A function whose gradient is this tile's share of the whole, and the content loss."""
        features = self._own_features(image, targets["place"])
        content = ops.zeros((), dtype="float32")
        for layer, (wanted, weight) in targets["content"].items():
            content = content + losses.content_loss(features[layer], wanted, weight)
        linear = ops.zeros((), dtype="float32")
        for slopes, masks in zip(targets["style"], targets["masks"], strict=True):
            for layer, slope in slopes.items():
                linear = linear + ops.sum(slope * self._gram(features, layer, masks))
        return content + linear, content


def _positions(layer: str, shape: Sequence[int]) -> float:
    """The number of positions at which a layer has features of an image of that shape."""
    stride = stride_of(layer)
    return float((shape[1] // stride) * (shape[2] // stride))


def _style_part(gram: Tensor, targets: Any) -> tuple[Tensor, tuple[()]]:
    return style_part(gram, *targets), ()


def _weighted_tv(image: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    loss = weight * losses.total_variation_loss(image)
    return loss, loss
