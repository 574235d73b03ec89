"""What the engine's tests share: VGG19's topology with few seeded filters, and noise to look at."""

import numpy as np
from keras import ops

from stylewatch.domain import VGG19_LAYERS, StyleSettings
from stylewatch.engine.features import STRIDE, Convolution, FeatureNetwork, preprocess
from stylewatch.engine.tiles import TiledObjective, divided, margin_of, tiles_of

CLASSIC = StyleSettings(
    objective="classic", content_weight=0.025, strength=1.0, tv_weight=1.0,
    content_layers={"block5_conv2": 1.0},
    style_layers={f"block{block}_conv1": 0.2 for block in range(1, 6)},
)  # fmt: skip


def small_network(widths=(8, 8, 16, 16, 16), seed=0):
    rng = np.random.default_rng(seed)
    convolutions = []
    channels = 3
    for name in VGG19_LAYERS:
        width = widths[int(name[5]) - 1]
        scale = np.sqrt(2.0 / (9 * channels)) * (0.1 if channels == 3 else 1.0)  # of 0…255
        kernel = rng.normal(0.0, scale, (3, 3, channels, width)).astype(np.float32)
        convolutions.append(Convolution(name, (kernel,), np.zeros(width, np.float32)))
        channels = width
    return FeatureNetwork("small filters", f"seed {seed}", tuple(convolutions))


def noise(seed=1, height=32, width=32):
    """A picture of noise, RGB."""
    return np.random.default_rng(seed).uniform(0, 255, (height, width, 3)).astype(np.float32)


def noise_input(seed, height=32, width=48):
    """The same as the network's input."""
    return ops.convert_to_tensor(preprocess(noise(seed, height, width)))


def in_tiles(side, *arguments, grid=STRIDE):
    """An objective in tiles of that side, however much more than that each of them sees."""
    objective = TiledObjective(*arguments)
    margin = margin_of([*objective.content_layers, *objective.style_layers])
    objective.pixels = side**2
    objective._tiles = lambda image: tiles_of(
        *(divided(int(length), side, margin, grid) for length in image.shape[1:3])
    )
    return objective
