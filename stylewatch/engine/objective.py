"""The loss of one style transfer, as a compiled function of the image and its targets.

One compiled graph serves all photos, sizes and weights of the same layers: everything that
differs is an argument. Knows nothing of scales, optimisers or files.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from keras import ops

from stylewatch.domain import StyleSettings
from stylewatch.engine import backend, losses
from stylewatch.engine.backend import Precision, Tensor
from stylewatch.engine.features import FeatureNetwork, stride_of

Targets = dict[str, Any]

CLASSIC_ROWS = 400
"""The height that the Keras example's weights were chosen for."""
_BEND = 0.04
"""Of the balanced style losses (`losses.bent`): chosen by pictures and losses in six pairs."""
_CACHED_STYLES = 32
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Region:
    """Where a set of styles applies: network inputs with their shares, and a mask or None.

    The mask is (H, W), 0…1, as large as the photo's network input.
    """

    styles: Sequence[tuple[Tensor, float]]
    mask: np.ndarray | None
    share: float = 1.0
    """Weight of its style loss beside the other regions', whose mean is 1."""


class Parts:
    """The loss of one evaluation and its parts, weights included.

    A device may still be computing these four numbers: to read one is to wait for it.
    """

    def __init__(self, numbers: Tensor) -> None:
        self._numbers = numbers

    @cached_property
    def _read(self) -> list[float]:
        is_host = isinstance(self._numbers, tuple)
        return list(self._numbers) if is_host else backend.to_numpy(self._numbers).tolist()

    def __float__(self) -> float:
        """The loss."""
        return self.loss

    @property
    def loss(self) -> float:
        """The sum of the others."""
        return self._read[0]

    @property
    def content(self) -> float:
        """Of the content layers."""
        return self._read[1]

    @property
    def style(self) -> float:
        """Of the style layers."""
        return self._read[2]

    @property
    def tv(self) -> float:
        """Total variation."""
        return self._read[3]


@dataclass(frozen=True, eq=False)
class Description:
    """What the losses need to know of a photo."""

    features: dict[str, Any]
    """Per content layer, in whatever form the objective compares them."""
    energy: dict[str, Tensor]
    """Sum of the squares of each content layer's features."""
    grams: list[dict[str, Tensor]]
    """Gram matrices per region and style layer."""


class Objective:
    """Style transfer's loss for one network, set of layers and precision."""

    def __init__(
        self,
        network: FeatureNetwork,
        content_layers: tuple[str, ...],
        style_layers: tuple[str, ...],
        pooling: Literal["max", "average"],
        precision: Precision,
    ) -> None:
        self.precision = precision
        self.on_host = not backend.has_gpu()
        """Whether the optimiser's images are arrays on the host, and no tensors."""
        self.content_layers = content_layers
        self.style_layers = style_layers
        layers = {*content_layers, *style_layers}
        self.extract = network.extractor(layers, precision=precision, pooling=pooling)
        self._features_and_grams = backend.compiled(
            lambda image, masks: self._described(self.extract(image), masks)
        )
        self._evaluate = backend.value_and_gradient(self._loss)
        self._styles: dict[tuple[tuple[int, ...], bytes], dict[str, Tensor]] = {}

    def targets(
        self,
        photo: Tensor,
        regions: Sequence[Region],
        settings: StyleSettings,
        weight: np.ndarray | None = None,
        of_styles: "Objective | None" = None,
    ) -> Targets:
        """What `evaluate` compares an image with: the photo's features, the styles' Grams.

        `photo` is a network input; `weight` (H, W) says how much each place of it counts, or is
        None; `of_styles` describes the styles' images instead, as they may be larger. Each target
        comes with the factor by which its loss counts in `settings.objective`: for `balanced` it is
        divided by the distance between photo and style.
        """
        masks = [self._layer_masks(region.mask) for region in regions]
        described = self.describe(photo, masks)
        _, rows, columns, _ = photo.shape
        if weight is None:
            weight = np.ones((rows, columns), dtype=np.float32)
        content = {
            layer: (
                described.features[layer],
                _content_factor(described, layer, settings)
                * ops.convert_to_tensor(_at_layer(weight, layer)),
            )
            for layer in self.content_layers
        }
        blend = (of_styles or self).blend
        style = [
            self._style_targets(region, blend(region.styles), grams, (rows, columns), settings)
            for region, grams in zip(regions, described.grams, strict=True)
        ]
        weights = self._weights(photo, settings)
        bend = _BEND if settings.objective == "balanced" else 0.0
        return {
            "content": content,
            "style": style,
            "masks": masks,
            "weights": weights,
            "bend": ops.convert_to_tensor(bend, dtype="float32"),
        }

    def place(self, image: np.ndarray) -> Tensor:
        """The image as the optimiser should have it: an array on the host, or a tensor."""
        return image if self.on_host else ops.convert_to_tensor(image)

    def evaluate(self, image: Tensor, targets: Targets) -> tuple[Parts, Tensor]:
        """The loss at `image` (1, H, W, 3) and its gradient."""
        _, parts, gradient = self._evaluate(image, targets)
        return Parts(parts), backend.place(gradient)

    def describe(self, photo: Tensor, masks: Sequence[dict[str, Tensor]]) -> Description:
        """The photo's features and Gram matrices."""
        features, grams = self._features_and_grams(photo, list(masks))
        energy = {layer: losses.energy(tap) for layer, tap in features.items()}
        return Description(features, energy, grams)

    def total_variation(self, photo: Tensor) -> float:
        """A picture's total variation."""
        return float(losses.total_variation_loss(photo))

    def grams_of_style(self, image: Tensor) -> dict[str, Tensor]:
        """A style image's Gram matrices."""
        _, [grams] = self._features_and_grams(image, [{}])  # as of a photo without masks: one graph
        return grams  # type: ignore[no-any-return]

    def _style_targets(
        self,
        region: Region,
        wanted: dict[str, Tensor],
        photo: dict[str, Tensor],
        size: tuple[int, int],
        settings: StyleSettings,
    ) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """The Gram matrices that a region is to have, given the photo's, with factor and weight."""
        share = region.share * (1.0 if region.mask is None else float(region.mask.mean()))
        return {
            layer: (
                target,
                _style_factor(photo[layer], target, layer, size, settings),
                ops.convert_to_tensor(share * settings.style_layers[layer], dtype="float32"),
            )
            for layer, target in wanted.items()
        }

    def _weights(self, photo: Tensor, settings: StyleSettings) -> tuple[Tensor, ...]:
        """The weights of content, style and total variation; tensors, so that a graph serves all.

        The last is left out if it is zero: its loss takes a tenth of the built-in features' time.
        """
        scaled = 1.0
        _, rows, columns, channels = photo.shape
        if settings.objective == "classic-scaled":
            scaled = CLASSIC_ROWS * (CLASSIC_ROWS * columns / rows) / (rows * columns)
        weights = [settings.content_weight * scaled, settings.strength]
        if settings.tv_weight:
            own = 1.0
            if settings.objective == "balanced":  # at least a grey level per value: flat photos
                own = max(self.total_variation(photo), rows * columns * channels)
            weights.append(settings.tv_weight * scaled / own)
        return tuple(ops.convert_to_tensor(weight, dtype="float32") for weight in weights)

    def _loss(self, image: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        features = self.extract(image)
        content_weight, style_weight, *tv_weight = targets["weights"]
        content = content_weight * sum(
            losses.content_loss(features[layer], target, factor)
            for layer, (target, factor) in targets["content"].items()
        )
        style = style_weight * sum(
            style_part(self._gram(features, layer, masks), target, targets["bend"])
            for region, masks in zip(targets["style"], targets["masks"], strict=True)
            for layer, target in region.items()
        )
        tv = ops.square(0.0 * ops.sum(image))  # NaN if a pixel is: ReLUs would hide that
        for weight in tv_weight:
            tv = tv + weight * losses.total_variation_loss(image)
        loss = content + style + tv
        return loss, ops.stack([loss, content, style, tv])  # as `Parts` has them

    def _gram(self, features: dict[str, Tensor], layer: str, masks: dict[str, Tensor]) -> Tensor:
        if not masks:
            return losses.gram_matrix(features[layer])
        return losses.gram_matrix(features[layer] * ops.cast(masks[layer], self.precision))

    def _layer_masks(self, mask: np.ndarray | None) -> dict[str, Tensor]:
        """Square roots of `mask` at each style layer's size, with a mean of 1 under the root.

        FᵀF of features times these is the Gram matrix per location of the region alone.
        """
        if mask is None:
            return {}
        masks = {}
        for layer in self.style_layers:
            small = _at_layer(mask, layer)
            masks[layer] = self.place(np.sqrt(small / max(float(small.mean()), _TINY)))
        return masks

    def _described(
        self, features: dict[str, Tensor], masks: list[dict[str, Tensor]]
    ) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        """The content layers' features, and the style layers' Gram matrices by region."""
        grams = [
            {layer: self._gram(features, layer, mask) for layer in self.style_layers}
            for mask in masks
        ]
        return {layer: features[layer] for layer in self.content_layers}, grams

    def blend(self, styles: Sequence[tuple[Tensor, float]]) -> dict[str, Tensor]:
        """The mean of the styles' Grams by their shares.

        Minimising the distance to the mean is minimising the mean of the distances.
        """
        total = sum(weight for _, weight in styles)
        grams = [(self._style_grams(image), weight / total) for image, weight in styles]
        return {
            layer: sum(gram[layer] * share for gram, share in grams) for layer in self.style_layers
        }

    def _style_grams(self, image: Tensor) -> dict[str, Tensor]:
        pixels = np.ascontiguousarray(backend.to_numpy(image))
        key = pixels.shape, hashlib.blake2b(pixels.data, digest_size=16).digest()
        grams = self._styles.pop(key, None) or self.grams_of_style(image)
        self._styles[key] = grams  # the newest comes last
        if len(self._styles) > _CACHED_STYLES:
            del self._styles[next(iter(self._styles))]
        return grams


def style_part(gram: Tensor, target: tuple[Tensor, Tensor, Tensor], bend: Tensor) -> Tensor:
    """What one layer of one region adds to the style loss; `target` as `targets` has it."""
    wanted, factor, weight = target
    return weight * losses.bent(factor * losses.style_loss(gram, wanted), bend)


def _content_factor(described: Description, layer: str, settings: StyleSettings) -> Tensor:
    weight = settings.content_layers[layer]
    if settings.objective == "balanced":
        return weight / ops.maximum(described.energy[layer], _TINY)
    return weight


def _style_factor(
    photo: Tensor, wanted: Tensor, layer: str, size: tuple[int, int], settings: StyleSettings
) -> Tensor:
    if settings.objective == "balanced":
        # a photo may already have the style it is to be painted in: never divide by nothing
        floor = 1e-4 * ops.sum(ops.square(wanted)) + _TINY
        return 1.0 / ops.maximum(losses.style_loss(photo, wanted), floor)
    # Σ(G−S)² / (4·channels²·size²) of the image's own 3 channels and size, G a plain sum
    rows, columns = (side // stride_of(layer) for side in size)
    pixels = float(size[0] * size[1])
    factor = (rows * columns) ** 2 / (4.0 * 3.0**2 * pixels**2)
    return ops.convert_to_tensor(factor, dtype="float32")


def _at_layer(places: np.ndarray, layer: str) -> np.ndarray:
    """(H, W) at a layer's size: means of its squares of pixels, (1, h, w, 1)."""
    stride = stride_of(layer)
    height, width = (side // stride for side in places.shape)
    cropped = places[: height * stride, : width * stride]
    small = cropped.reshape(height, stride, width, stride).mean(axis=(1, 3))
    return np.asarray(small[np.newaxis, ..., np.newaxis], dtype=np.float32)
