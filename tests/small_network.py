"""VGG19's topology with few seeded filters: real code, small numbers, no weights file."""

import numpy as np

from stylewatch.domain import VGG19_LAYERS
from stylewatch.engine.features import Convolution, FeatureNetwork


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
