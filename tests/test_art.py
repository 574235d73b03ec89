"""The shipped pictures: drawn by our own scripts, the same each time, and rich in texture."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylewatch.settings.presets import Presets, shipped_presets_dir

ROOT = Path(__file__).parents[1]
IMAGES = sorted(shipped_presets_dir().glob("*.jpg"))
DEMO = ROOT / "stylewatch" / "data" / "demo.jpg"


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "tools"), *sys.path])


@pytest.mark.parametrize("file", IMAGES, ids=lambda file: file.stem)
def test_a_style_image_is_large_enough(file):
    with Image.open(file) as image:
        assert image.format == "JPEG"
        assert max(image.size) >= 700


def test_every_style_image_is_used_and_has_a_drawing(tools):
    from draw_styles import STYLES

    presets = Presets.load()
    used = {style.image.stem for name in presets for style in presets[name].style}
    assert used == set(STYLES) == {image.stem for image in IMAGES}


@pytest.mark.parametrize("file", IMAGES, ids=lambda file: file.stem)
def test_a_style_image_has_texture_everywhere_and_a_full_palette(file):
    pixels = np.asarray(Image.open(file).convert("RGB"), np.float32)
    high, wide = (side // 64 for side in pixels.shape[:2])
    tiles = pixels[: high * 64, : wide * 64].reshape(high, 64, wide, 64, 3).swapaxes(1, 2)
    deviation = tiles.mean(-1).std(axis=(2, 3))
    assert deviation.min() > 2.0, "an area without texture teaches nothing"
    assert np.median(deviation) > 8
    assert pixels.mean(-1).std() > 25, "light and dark"


def test_the_pictures_together_stay_small():
    sizes = [file.stat().st_size for file in (*IMAGES, DEMO)]
    assert max(sizes) <= 450_000
    assert sum(sizes) < 4_000_000


def test_the_demo_photo_is_a_photo_s_size():
    with Image.open(DEMO) as image:
        assert image.format == "JPEG"
        assert min(image.size) >= 700


def test_the_readme_shows_the_console_as_it_is(tools):
    import draw_console

    shown = draw_console.TARGET.read_text(encoding="utf-8")
    assert draw_console.draw() == shown, "draw it anew: python tools/draw_console.py"


def test_drawing_a_style_twice_gives_the_same_bytes(tools):
    import paint
    from draw_styles import draw

    first, second = (paint.jpeg(draw("mosaic", 96), 450_000) for _ in range(2))
    assert hashlib.sha256(first).hexdigest() == hashlib.sha256(second).hexdigest()


MANY_STROKES = ("meadow", "nocturne", "pastel")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(file.stem, marks=[pytest.mark.slow] if file.stem in MANY_STROKES else [])
        for file in IMAGES
    ],
)
def test_a_style_can_be_drawn_small(tools, name):
    from draw_styles import draw

    picture = draw(name, 64)
    assert max(picture.size) == 64
    assert np.asarray(picture).std() > 10
