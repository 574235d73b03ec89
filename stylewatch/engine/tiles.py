"""The objective for pictures that do not fit into memory: the same loss, tile by tile.

A Gram matrix is a sum over positions, so the exact gradient needs two passes. The first sums the
Gram matrices over all tiles. The second sends each tile's share of the gradient back: with G the
sum, dL/dG is known, and the loss of a tile is linear in its own part of G. Each position belongs
to one tile; a tile sees as much around it as its features can see, so there are no seams and
nothing is approximated. Knows nothing of scales, optimisers or files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from stylewatch.domain import VGG19_LAYERS
from stylewatch.engine import backend, convolution, losses
from stylewatch.engine.backend import Precision, Tensor
from stylewatch.engine.features import STRIDE, stride_of
from stylewatch.engine.objective import Description, Objective, Parts, Targets, style_part

_BAND = 10
"""A band has so many times the pixels of a tile: total variation takes just 0.12 kB for each."""


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

    def cut_at(self, layer: str, places: Any) -> Any:
        """The outer rectangle of (1, h, w, C), an array as large as a layer's features."""
        stride = stride_of(layer)
        top, bottom, left, right = (edge // stride for edge in self.outer)
        return places[:, top:bottom, left:right]

    def owned(self, features: Any, layer: str) -> Any:
        """The features at the positions that this tile owns, out of its outer rectangle's."""
        (above, below), (before, after) = self._margins(layer)
        _, height, width, _ = features.shape
        return features[:, above : height - below, before : width - after]

    def with_margins(self, owned: Any, layer: str) -> Any:
        """The features that this tile owns, with zeros around them where its margins are."""
        return ops.pad(owned, ((0, 0), *self._margins(layer), (0, 0)))

    def ownership(self, layer: str) -> np.ndarray:
        """1 where this tile owns the position, 0 in its margins: (1, h, w, 1) at a layer's size."""
        stride = stride_of(layer)
        top, bottom, left, right = (edge // stride for edge in self.outer)
        own = np.zeros((1, bottom - top, right - left, 1), dtype=np.float32)
        self.owned(own, layer)[...] = 1.0
        return own

    def _margins(self, layer: str) -> tuple[tuple[int, int], tuple[int, int]]:
        """How many rows above and below, and columns left and right, the tile does not own."""
        stride = stride_of(layer)
        inner, outer = ([edge // stride for edge in edges] for edges in (self.inner, self.outer))
        top, bottom, left, right = (abs(a - b) for a, b in zip(inner, outer, strict=True))
        return (top, bottom), (left, right)


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


def plan_tiles(height: int, width: int, side: int, margin: int, grid: int) -> list[Tile]:
    """Cover a picture with tiles of at most `side` pixels, each with its margin."""
    return [
        Tile(
            (top, bottom, left, right),
            (
                max(0, (top - margin) // grid * grid),
                min(height, bottom + margin),
                max(0, (left - margin) // grid * grid),
                min(width, right + margin),
            ),
        )
        for top, bottom in _spans(height, side, grid)
        for left, right in _spans(width, side, grid)
    ]


def _spans(length: int, side: int, grid: int) -> Iterator[tuple[int, int]]:
    """Even spans of at most `side`; they begin at multiples of `grid`, and `side` is one too."""
    count = -(-length // side)
    step = -(-length // (count * grid)) * grid
    for start in range(0, length, step):
        yield start, min(start + step, length)


class TiledObjective(Objective):
    """The same loss and gradient as `Objective`, with the memory of one tile."""

    def __init__(self, *arguments: Any, side: int) -> None:
        super().__init__(*arguments)
        self.side = side
        self.on_host = True  # all images stay there, and go to the device in tiles
        self._taps = backend.compiled(self.extract)
        self._tile_grams = backend.compiled(self._grams_of_tile)
        self._tile_gradient = backend.value_and_gradient(self._loss_of_tile)
        self._style_part = backend.value_and_gradient(_style_part)
        self._smoothness = backend.value_and_gradient(_weighted_tv)

    def describe(self, photo: Tensor, masks: Sequence[dict[str, Tensor]]) -> Description:
        """The photo's features, tile by tile, and its Gram matrices."""
        tiles = self._tiles(photo)
        features: dict[str, list[Any]] = {layer: [] for layer in self.content_layers}
        squares = dict.fromkeys(self.content_layers, 0.0)
        for tile in tiles:
            taps = self._taps(tile.cut(photo))
            for layer in self.content_layers:
                owned = tile.owned(taps[layer], layer)
                features[layer].append(owned)
                squares[layer] += float(ops.sum(ops.square(ops.cast(owned, "float32"))))
        elements = {layer: _elements(layer, features[layer][0], photo.shape) for layer in features}
        energy = {layer: squares[layer] / elements[layer] for layer in features}
        return Description(features, energy, elements, self._grams(photo, tiles, masks))

    def grams_of_style(self, image: Tensor) -> dict[str, Tensor]:
        """A style image's Gram matrices; it may be as large as the photo."""
        return self._grams(image, self._tiles(image), [{}])[0]

    def total_variation(self, photo: Tensor) -> float:
        """A picture's total variation, band by band."""
        bands = (photo[:, rows] for rows in self._bands(photo))
        return sum(map(super().total_variation, bands))

    def evaluate(self, image: Tensor, targets: Targets) -> tuple[Parts, Tensor]:
        """The loss at `image` (1, H, W, 3) and its gradient, in two passes over the tiles."""
        tiles = self._tiles(image)
        content_weight, style_weight, *tv_weight = targets["weights"]
        grams = self._grams(image, tiles, targets["masks"])
        style, slopes = self._style(grams, targets, float(style_weight))
        content = 0.0
        gradient = np.zeros(image.shape, dtype=np.float32)
        for number, tile in enumerate(tiles):
            wanted = self._tile_targets(
                number, tile, targets, slopes, image.shape, float(content_weight)
            )
            _, part, slope = self._tile_gradient(tile.cut(image), wanted)
            content += float(part)
            tile.cut(gradient)[...] += backend.to_numpy(slope)
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
        most = max(1, _BAND * self.side**2 // width)
        return (slice(top, bottom + 1) for top, bottom in _spans(height - 1, most, 1))

    def _tiles(self, image: Tensor) -> list[Tile]:
        margin = margin_of([*self.content_layers, *self.style_layers])
        height, width = int(image.shape[1]), int(image.shape[2])
        return plan_tiles(height, width, self.side, margin, grid_of(self.precision))

    def _grams(
        self, image: Tensor, tiles: Sequence[Tile], masks: Sequence[dict[str, Tensor]]
    ) -> list[dict[str, Tensor]]:
        """Pass 1: the whole picture's Gram matrices per location, region by region."""
        totals: list[dict[str, Any]] = [dict.fromkeys(self.style_layers, 0.0) for _ in masks]
        for tile in tiles:
            roots = [self._roots(tile, mask) for mask in masks]
            for total, part in zip(totals, self._tile_grams(tile.cut(image), roots), strict=True):
                for layer in self.style_layers:
                    total[layer] = total[layer] + part[layer]
        for total in totals:
            for layer in self.style_layers:
                total[layer] = total[layer] / _positions(layer, image.shape)
        return totals

    def _roots(self, tile: Tile, masks: dict[str, Tensor]) -> dict[str, Tensor]:
        """By layer, what a tile's features are multiplied by: its ownership times region's mask."""
        roots = {}
        for layer in self.style_layers:
            root = tile.ownership(layer)
            if masks:
                root = root * backend.to_numpy(tile.cut_at(layer, masks[layer]))
            roots[layer] = ops.convert_to_tensor(root)
        return roots

    def _grams_of_tile(
        self, image: Tensor, roots: list[dict[str, Tensor]]
    ) -> list[dict[str, Tensor]]:
        features = self.extract(image)
        return [
            {layer: self._sum_of_products(features[layer], root[layer]) for layer in root}
            for root in roots
        ]

    def _sum_of_products(self, features: Tensor, root: Tensor) -> Tensor:
        _, height, width, _ = ops.shape(features)
        gram = losses.gram_matrix(features * ops.cast(root, self.precision))
        return gram * ops.cast(height * width, "float32")

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
        self,
        number: int,
        tile: Tile,
        targets: Targets,
        slopes: Sequence[dict[str, Tensor]],
        shape: Sequence[int],
        content_weight: float,
    ) -> Targets:
        """Pass 2's arguments for one tile."""
        content = {}
        for layer, (features, factor) in targets["content"].items():
            each = content_weight / _elements(layer, features[number], shape)
            weight = each * backend.to_numpy(tile.cut_at(layer, factor)) * tile.ownership(layer)
            wanted = tile.with_margins(features[number], layer)
            content[layer] = (wanted, ops.convert_to_tensor(weight))
        style = []
        for slope, masks in zip(slopes, targets["masks"], strict=True):
            roots = self._roots(tile, masks)
            style.append(
                {
                    layer: (slope[layer] / _positions(layer, shape), roots[layer])
                    for layer in self.style_layers
                }
            )
        return {"content": content, "style": style}

    def _loss_of_tile(self, image: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """A function whose gradient is this tile's share of the whole, and the content loss."""
        features = self.extract(image)
        content = ops.zeros((), dtype="float32")
        for layer, (wanted, weight) in targets["content"].items():
            difference = ops.cast(features[layer], "float32") - ops.cast(wanted, "float32")
            content = content + ops.sum(weight * ops.square(difference))
        linear = ops.zeros((), dtype="float32")
        for region in targets["style"]:
            for layer, (slope, root) in region.items():
                linear = linear + ops.sum(slope * self._sum_of_products(features[layer], root))
        return content + linear, content


def _positions(layer: str, shape: Sequence[int]) -> float:
    """The number of positions at which a layer has features of an image of that shape."""
    stride = stride_of(layer)
    return float((shape[1] // stride) * (shape[2] // stride))


def _elements(layer: str, features: Tensor, shape: Sequence[int]) -> float:
    """The number of values of a layer's features, all tiles together; `features` are one tile's."""
    return _positions(layer, shape) * int(features.shape[-1])


def _style_part(gram: Tensor, targets: Any) -> tuple[Tensor, tuple[()]]:
    return style_part(gram, *targets), ()


def _weighted_tv(image: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    loss = weight * losses.total_variation_loss(image)
    return loss, loss
