"""Where in a photo there is something to see: a face, an animal, a tower.

VGG19 has learnt to tell things apart: its deepest block answers to them, and hardly to sky, water,
walls and cloth. Arrays in, arrays out.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from stylewatch.engine import backend, losses
from stylewatch.engine.backend import Precision, Tensor
from stylewatch.engine.features import STRIDE, FeatureNetwork, preprocess
from stylewatch.engine.sizes import resize

_LAYER = "block5_conv1"
_SIDE = 384
"""Pixels of the longer side that the network is shown, whatever the photo's: it learnt at these."""
_LEAST, _MOST = 0.75, 4.0
"""Of the mean: skies are still the photo's, and a small bird in one is still painted."""


def subject_of(photo: np.ndarray, network: FeatureNetwork, precision: Precision) -> np.ndarray:
    """How much there is to see at each place of `photo` (H, W, 3): (h, w), 1 on average."""
    shown = [max(1, round(side * _SIDE / max(photo.shape) / STRIDE)) for side in photo.shape[:2]]
    rows, columns = (count * STRIDE for count in shown)
    answers = _answers_of(network, precision)(preprocess(resize(photo, columns, rows)))
    seen = backend.to_numpy(answers)[0]
    if not seen.any():
        return np.ones_like(seen)
    seen = np.clip(seen / seen.mean(), _LEAST, _MOST)
    return np.asarray(seen / seen.mean())


@lru_cache(maxsize=4)
def _answers_of(network: FeatureNetwork, precision: Precision) -> Callable[[Tensor], Tensor]:
    extract = network.extractor([_LAYER], precision=precision)
    return backend.compiled(lambda image: losses.energy(extract(image)[_LAYER], axis=-1))
