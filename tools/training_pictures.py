"""Pictures to fit the built-in features on: drawn from a seed, and random crops of them.

Drawn pictures stand in for photographs and paintings: occluding shapes of all sizes with
textures in them (dead leaves), 1/f noise, strokes along a flow, stripes and grids, letters.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from stylewatch.engine.features import MEAN_BGR

Array = NDArray[np.floating]
Pixels = NDArray[np.uint8]


def noise(rng: Generator, side: int, power: float) -> Array:
    """(side, side, 3) of 1/f^power noise with correlated colours, roughly 0…255."""
    stretch = np.exp(rng.normal(0, 0.6))
    angle = rng.uniform(0, np.pi)
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    u, v = fx * np.cos(angle) + fy * np.sin(angle), fy * np.cos(angle) - fx * np.sin(angle)
    frequency = np.maximum(np.hypot(u * stretch, v / stretch), 1.0 / side)
    planes = []
    for _ in range(3):
        spectrum = np.fft.rfft2(rng.normal(size=(side, side))) / frequency**power
        plane = np.fft.irfft2(spectrum, s=(side, side))
        planes.append((plane - plane.mean()) / (plane.std() + 1e-9))
    mix = rng.normal(size=(3, 3)) * 0.35 + 1.0 / np.sqrt(3) * rng.uniform(0.3, 1.2)
    colours: Array = np.stack(planes, -1) @ mix * rng.uniform(15, 60) + rng.uniform(40, 215, 3)
    return np.clip(colours, 0, 255).astype(np.float32)


def _palette(rng: Generator) -> Array:
    """A few colours that go together: around an axis of brightness with two or three hues."""
    base = rng.uniform(20, 235, (int(rng.integers(2, 6)), 3))
    grey: Array = base.mean(axis=1, keepdims=True)
    return grey + (base - grey) * rng.uniform(0.2, 1.3)


def _colour(rng: Generator, palette: Array) -> Array:
    nearby: Array = palette[rng.integers(len(palette))] + rng.normal(0, 18, 3)
    return np.clip(nearby, 0, 255)


def _texture(rng: Generator, side: int, palette: Array) -> Array:
    """A filled square to cut shapes from: noise, stripes, a gradient, or a flat colour."""
    a, b = _colour(rng, palette), _colour(rng, palette)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    share: Array
    match int(rng.integers(7)):
        case 0 | 1:
            return noise(rng, side, rng.uniform(0.6, 2.0))
        case 2:
            wave = np.sin(along * 2 * np.pi / np.exp(rng.uniform(np.log(3), np.log(60))))
            share = 1 / (1 + np.exp(-wave * rng.uniform(1, 12)))
        case 3:
            period = np.exp(rng.uniform(np.log(4), np.log(60)))
            share = ((along // period + across // period) % 2).astype(np.float32)
        case 4:
            bend = noise(rng, side, 2.0)[..., 0] * rng.uniform(0.0, 0.5)
            share = 0.5 + 0.5 * np.sin((along + bend) * 2 * np.pi / rng.uniform(5, 40))
        case 5:
            share = np.clip(along / side * rng.uniform(0.5, 1.5), 0, 1)
        case _:
            share = np.zeros_like(x)
    grain = noise(rng, side, rng.uniform(0.0, 1.2)) - 128
    return a + (b - a) * share[..., None] + grain * rng.uniform(0, 0.35)


def _outline(rng: Generator, cx: float, cy: float, radius: float) -> list[tuple[float, float]]:
    """A polygon: smooth blob, star, box or sliver."""
    kind = rng.integers(4)
    angle = rng.uniform(0, 2 * np.pi)
    if kind == 0:
        count = int(rng.integers(3, 7))
        turns = np.sort(rng.uniform(0, 2 * np.pi, count))
        lengths = np.full(count, radius)
    else:
        turns = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        lengths = radius * np.ones(28)
        for k in range(2, 6):
            lengths *= 1 + rng.normal(0, 0.5 / k) * np.cos(k * turns + rng.uniform(0, 6.28))
    x, y = lengths * np.cos(turns), lengths * np.sin(turns) * np.exp(rng.normal(0, 0.6))
    x, y = x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
    return list(zip((x + cx).tolist(), (y + cy).tolist(), strict=True))


def _dead_leaves(rng: Generator, side: int) -> Image.Image:
    palette = _palette(rng)
    textures = [
        Image.fromarray(np.clip(_texture(rng, side, palette), 0, 255).astype(np.uint8))
        for _ in range(5)
    ]
    picture = textures[0].copy()
    largest = rng.uniform(0.1, 0.5) * side
    shapes = int(rng.integers(20, 350))
    textured = rng.uniform(0, 0.6)
    for radius in np.sort(largest * rng.uniform(0.02, 1, shapes) ** 2)[::-1]:
        x, y = rng.uniform(0, side, 2)
        outline = _outline(rng, x, y, max(radius, 1.5))
        if radius > 8 and rng.random() < textured:
            mask = Image.new("L", (side, side))
            ImageDraw.Draw(mask).polygon(outline, fill=255)
            picture.paste(textures[int(rng.integers(5))], (0, 0), mask)
        else:
            fill = tuple(int(c) for c in _colour(rng, palette))
            ImageDraw.Draw(picture).polygon(outline, fill=fill)
    return picture


def _strokes(rng: Generator, side: int) -> Image.Image:
    """Brush strokes along a flow, over a picture of leaves or noise that gives their colours."""
    under = _dead_leaves(rng, side) if rng.random() < 0.6 else _as_image(noise(rng, side, 1.6))
    colours = np.asarray(under)
    flow = noise(rng, side, rng.uniform(1.5, 2.5))[..., 0] / rng.uniform(15, 60)
    picture = under.filter(ImageFilter.GaussianBlur(3))
    draw = ImageDraw.Draw(picture)
    width, length = rng.uniform(1.5, 12), rng.uniform(6, 60)
    jitter = rng.uniform(3, 30)
    for _ in range(int(min(2500, 1.5 * side * side / (width * length)))):
        x, y = rng.uniform(0, side, 2)
        colour = colours[int(y), int(x)] + rng.normal(0, jitter, 3) + rng.normal(0, jitter)
        points = [(x, y)]
        for _ in range(5):
            angle = flow[int(y) % side, int(x) % side]
            x, y = x + np.cos(angle) * length / 5, y + np.sin(angle) * length / 5
            points.append((x, y))
        fill = tuple(int(c) for c in np.clip(colour, 0, 255))
        draw.line(
            points, fill=fill, width=max(1, round(width * rng.uniform(0.6, 1.4))), joint="curve"
        )
    return picture


def _letters(rng: Generator, side: int) -> Image.Image:
    picture = _dead_leaves(rng, side) if rng.random() < 0.5 else _as_image(noise(rng, side, 1.8))
    draw = ImageDraw.Draw(picture)
    palette = _palette(rng)
    for _ in range(int(rng.integers(10, 80))):
        text = "".join(chr(int(c)) for c in rng.integers(33, 126, int(rng.integers(1, 9))))
        font = ImageFont.load_default(size=float(np.exp(rng.uniform(np.log(8), np.log(90)))))
        fill = tuple(int(c) for c in _colour(rng, palette))
        draw.text(tuple(rng.uniform(-20, side, 2)), text, fill=fill, font=font)
    return picture


def _as_image(rgb: Array) -> Image.Image:
    return Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))


def _lit(rng: Generator, picture: Image.Image, side: int) -> Array:
    """Uneven light and a little blur or grain, as a camera would add."""
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.6)))
    light = noise(rng, side, 2.2)[..., :1] / 128.0
    rgb = np.asarray(picture, np.float32) * (1 + (light - 1) * rng.uniform(0, 0.8))
    if rng.random() < 0.7:  # most of the world is less colourful and less harsh than a palette
        grey, middle = rgb.mean(axis=-1, keepdims=True), rgb.mean(axis=(0, 1))
        rgb = grey + (rgb - grey) * rng.uniform(0.1, 0.9)
        rgb = middle + (rgb - middle) * rng.uniform(0.4, 1.2)
    return np.clip(rgb + rng.normal(0, rng.uniform(0, 6), rgb.shape), 0, 255)


def draw_pictures(count: int, side: int, seed: int) -> list[Pixels]:
    """`count` pictures (side, side, 3) uint8."""
    pictures = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        make = (_dead_leaves, _strokes, _dead_leaves, _letters, _strokes, None)[number % 6]
        picture = make(rng, side) if make else _as_image(noise(rng, side, rng.uniform(0.5, 2.0)))
        pictures.append(_lit(rng, picture, side).astype(np.uint8))
    return pictures


class Crops:
    """Random crops at random scales, as network input, with the augmentations of a batch."""

    def __init__(self, pictures: list[Pixels], side: int) -> None:
        self.side = side
        self._pyramids = [self._pyramid(picture) for picture in pictures]

    def _pyramid(self, picture: Pixels) -> list[Pixels]:
        levels = []
        image = Image.fromarray(picture)
        while True:
            levels.append(np.asarray(image))
            width, height = (round(length / 1.4) for length in image.size)
            if min(width, height) < self.side:
                return levels
            image = image.resize((width, height), Image.Resampling.LANCZOS)

    def batch(self, rng: Generator, count: int) -> Array:
        """(count, side, side, 3), BGR minus the mean pixel."""
        crops = [self._augmented(rng, self._crop(rng)) for _ in range(count)]
        return np.stack(crops)[..., ::-1] - MEAN_BGR

    def _crop(self, rng: Generator) -> Array:
        levels = self._pyramids[rng.integers(len(self._pyramids))]
        level = levels[rng.integers(len(levels))]
        y, x = (int(rng.integers(length - self.side + 1)) for length in level.shape[:2])
        crop = level[y : y + self.side, x : x + self.side].astype(np.float32)
        return crop[:, ::-1] if rng.random() < 0.5 else crop

    def _augmented(self, rng: Generator, crop: Array) -> Array:
        if rng.random() < 0.3:
            crop = crop[..., rng.permutation(3)]
        if rng.random() < 0.2:
            crop = crop.swapaxes(0, 1)
        if rng.random() < 0.5:
            gain, shift = np.exp(rng.normal(0, 0.25, 3)), rng.normal(0, 15, 3)
            crop = (crop - 128) * gain * np.exp(rng.normal(0, 0.2)) + 128 + shift
        if rng.random() < 0.3:
            crop = crop + rng.normal(0, np.exp(rng.uniform(0, 3.5)), crop.shape)
        return np.asarray(crop, np.float32)
