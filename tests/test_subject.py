"""Where the content counts: as the built-in network sees a drawn photo, and what painting makes of it."""

from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
from PIL import Image

from stylewatch.domain import StyleSettings
from stylewatch.engine.features import load_builtin
from stylewatch.engine.subject import subject_of
from stylewatch.engine.transfer import Style, stylize
from stylewatch.settings.presets import Presets


@pytest.fixture(scope="module")
def photo():
    """A lighthouse between 0.67 and 0.82 of the width, and above it to both sides sky."""
    with Image.open(files("stylewatch") / "data" / "demo.jpg") as image:
        return np.asarray(image.convert("RGB"), dtype=np.float32)


def at(seen, *, top, bottom, left, right):
    rows, columns = seen.shape[:2]
    return seen[
        round(top * rows) : round(bottom * rows), round(left * columns) : round(right * columns)
    ]


LIGHTHOUSE = {"top": 0.15, "bottom": 0.6, "left": 0.68, "right": 0.82}
SKY = {"top": 0.05, "bottom": 0.4, "left": 0.35, "right": 0.6}


def test_a_lighthouse_is_seen_more_than_the_sky_beside_it(photo):
    seen = subject_of(photo, load_builtin(), "float32")
    assert seen.mean() == pytest.approx(1.0, rel=1e-5)
    assert at(seen, **LIGHTHOUSE).mean() > 3 * at(seen, **SKY).mean()
    assert seen.max() / seen.min() == pytest.approx(4 / 0.75)


def test_a_photo_s_size_makes_no_difference_to_what_is_seen(photo):
    small = Image.fromarray(photo.astype(np.uint8)).resize((300, 200), Image.Resampling.LANCZOS)
    large = subject_of(photo, load_builtin(), "float32")
    assert subject_of(np.asarray(small, np.float32), load_builtin(), "float32").shape == large.shape
    again = subject_of(photo[::2, ::2], load_builtin(), "float32")
    assert np.corrcoef(again.ravel(), large.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (40, 30)])
def test_where_nothing_is_to_be_seen_all_counts_alike(network, size):
    """The small network has no biases: it answers nothing to its own mean grey."""
    grey = np.broadcast_to(np.float32([123.68, 116.779, 103.939]), (*size, 3))
    seen = subject_of(grey, network, "float32")
    np.testing.assert_array_equal(seen, np.ones_like(seen))


def test_the_more_there_is_to_see_the_nearer_a_painting_stays_to_the_photo(photo):
    """Beside a painting that counts all places alike; the sky takes more of the style for it.

    With less of the style than usual: more of it, and in the end the sky is full either way.
    """
    noise = np.random.default_rng(1).uniform(0, 255, (96, 96, 3)).astype(np.float32)
    settings = StyleSettings(max_side=192, evaluations=(60,), strength=2.0, features="builtin")

    def changed(subject):
        chosen = replace(settings, subject=subject)
        painted = stylize(photo, [Style(noise)], chosen, load_builtin()).rgb
        small = Image.fromarray(photo.astype(np.uint8)).resize(painted.shape[1::-1])
        return np.abs(painted - np.asarray(small, np.float32))

    alike, chosen = changed(0.0), changed(1.0)
    assert at(chosen, **LIGHTHOUSE).mean() < at(alike, **LIGHTHOUSE).mean()
    assert at(chosen, **SKY).mean() > at(alike, **SKY).mean()


def test_the_classics_count_all_places_alike():
    presets = Presets.load()
    assert [presets[name].settings.subject for name in ("classic", "classic-scaled")] == [0, 0]
    assert presets["nocturne"].settings.subject == 0.75
