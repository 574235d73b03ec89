"""HDR photos on a screen that is no brighter than white: curves from their numbers to its light.

ITU-R BT.2100 has two kinds of such numbers, PQ and HLG; both say how much light a screen gives.
Within this module that is a share of PQ's 10 000 cd/m².
"""

import numpy as np

_PEAK, _WHITE = 0.1, 0.0203  # the brightest, and what paper in the light has (BT.2408)
_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073


def pq(values: np.ndarray) -> np.ndarray:
    """The light for PQ's numbers, 0…1."""
    return _toned_down(_from_pq(values))


def hlg(values: np.ndarray) -> np.ndarray:
    """The light for HLG's numbers, 0…1."""
    scene = np.where(values <= 0.5, values**2 / 3, (np.exp((values - _C) / _A) + _B) / 12)
    return _toned_down(_PEAK * scene**1.2)


def _toned_down(light: np.ndarray) -> np.ndarray:
    """As BT.2390 has it: what is darker than half of white stays, the rest moves together."""
    peak, white = _to_pq(np.array([_PEAK, _WHITE]))
    values = np.minimum(_to_pq(light) / peak, 1)
    top = white / peak
    knee = 1.5 * top - 0.5
    t = np.maximum(values - knee, 0) / (1 - knee)
    bent = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (3 * t**2 - 2 * t**3) * top
    )
    return _from_pq(np.where(values < knee, values, bent) * peak) / _WHITE


def _from_pq(values: np.ndarray) -> np.ndarray:
    root = values ** (1 / _M2)
    return np.asarray((np.maximum(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1))


def _to_pq(light: np.ndarray) -> np.ndarray:
    root = light**_M1
    return np.asarray(((_C1 + _C2 * root) / (1 + _C3 * root)) ** _M2)
