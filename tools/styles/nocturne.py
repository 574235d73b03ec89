"""A night over a bay: thick oil strokes that turn with the wind."""

import numpy as np
import paint as p
from numpy.random import Generator


def draw(rng: Generator, size: int) -> p.Array:
    """Compose the scene and the wind over it, then paint it from broad strokes to fine."""
    shape = p.shape_of(size, 1.25)
    x, y = p.plane(shape)
    unit, shore = size / 1024, 560
    wind = 60 * p.fbm(rng, shape, 1.6, 3) + 0.55 * y
    for cx, cy, radius, turn in (
        (330, 230, 150, 1),
        (590, 330, 105, -1),
        (95, 380, 90, -1),
        (800, 150, 150, 1),
        (930, 400, 90, 1),
    ):
        wind += (
            turn
            * radius
            * 1.5
            * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * (radius * 0.75) ** 2))
        )
    band = (
        0.5
        + 0.32 * np.sin(wind / 13.0 + p.fbm(rng, shape, 4, 3) * 0.5)
        + 0.2 * p.fbm(rng, shape, 2, 4)
    )
    sky = p.gradient(0.15 + 0.7 * band, "0b1440", "16307e", "2a5fb0", "4d93c4", "9cc9c9")
    glow = np.exp(-np.maximum(shore - y, 0) / 90)
    sky = p.mix(sky, p.gradient(band, "2b7f8c", "8fc7a4", "e5dd9a"), 0.75 * glow)
    stars = (
        (60, 60, 13),
        (190, 150, 21),
        (250, 42, 10),
        (395, 90, 15),
        (470, 225, 24),
        (590, 60, 17),
        (655, 390, 12),
        (690, 255, 11),
        (960, 265, 19),
        (975, 60, 12),
        (260, 395, 14),
        (880, 420, 10),
        (420, 440, 9),
    )
    lamps = [(800, 150, 58), *stars]
    for cx, cy, radius in lamps:
        r = np.hypot(x - cx, y - cy) / radius
        halo = p.gradient(
            np.clip(r / 3.4 + 0.06 * np.sin(r * 7), 0, 1),
            "fffbe0",
            "ffe07a",
            "f7bf4a",
            "b9d493",
            "5fb0c0",
            "3d7fb8",
        )
        sky = p.mix(sky, halo, p.smooth(3.3, 0.8, r))
    image, angle = sky, p.along(wind)
    for cx, cy, radius in lamps:
        near = p.smooth(3.2, 1.8, np.hypot(x - cx, y - cy) / radius)
        angle = p.blend_angles(angle, np.arctan2(y - cy, x - cx) + np.pi / 2, near)
    crescent = p.smooth(60, 57, np.hypot(x - 800, y - 150)) * p.smooth(
        48, 51, np.hypot(x - 781, y - 140)
    )
    disc = p.smooth(60, 57, np.hypot(x - 800, y - 150))
    image = p.mix(
        image, p.gradient(0.5 + 0.3 * p.fbm(rng, shape, 9, 3), "e09a35", "f2b94a", "f7cf6a"), disc
    )
    image = p.mix(image, p.colour("fffce6"), crescent)
    for level, tones in (
        (0.60, ("1d3f74", "2f6b92", "3f8a93")),
        (0.645, ("122a55", "1f4f6f", "3f7f6a")),
    ):
        line = p.ridge(rng, shape, level, 0.028, 2.5, 4)
        mask = p.below(line, shape)
        form = np.sin((y - line[None] / unit) / 6 + p.fbm(rng, shape, 5, 3))
        image = p.mix(image, p.gradient(0.5 + 0.4 * form, *tones), mask)
        angle = p.blend_angles(
            angle, np.broadcast_to(np.gradient(line), shape) + 0.25 * p.fbm(rng, shape, 4, 2), mask
        )
    water = p.smooth(shore - 1, shore + 1, y)
    ripple = np.sin(y / 4.5 + 1.5 * p.fbm(rng, shape, 5, 3, stretch=(2, 0.5))) * 0.5 + 0.25 * p.fbm(
        rng, shape, 6, 4, stretch=(3, 0.6)
    )
    sea = p.gradient(0.5 + 0.5 * ripple, "08163c", "123a78", "2b6ba6", "5fa3b5")
    moonlight = np.exp(-(((x - 800) / (40 + 0.22 * (y - shore).clip(0))) ** 2)) * p.smooth(
        -0.2, 0.6, ripple
    )
    sea = p.mix(sea, p.colour("ffe08a"), 0.9 * moonlight)
    image = p.mix(image, sea, water)
    for _ in range(34):
        house_x = rng.normal(330, 190)
        house_y = shore - rng.uniform(2, 34)
        w, h = rng.uniform(9, 20), rng.uniform(9, 20)
        wall = (np.abs(x - house_x) < w) & (y > house_y - h) & (y < shore)
        roof = (
            (y > house_y - h - w * 0.8 * (1 - np.abs(x - house_x) / w))
            & (y <= house_y - h)
            & (np.abs(x - house_x) < w)
        )
        image[wall] = p.colour(str(rng.choice(["24365f", "3a4a70", "4d4f6c", "1b2b50"])))
        image[roof] = p.colour(str(rng.choice(["6b3b3c", "2a2746", "804a35"])))
        lit = (np.abs(x - house_x) < 3.2) & (np.abs(y - house_y + h * 0.3) < 4)
        image[lit] = p.colour("ffcf55")
        gleam = (
            np.exp(-(((x - house_x) / 7) ** 2))
            * np.exp(-(y - shore).clip(0) / 75)
            * p.smooth(-0.3, 0.5, ripple)
            * water
        )
        image = p.mix(image, p.colour("f7a93b"), 0.85 * gleam)
    angle = p.blend_angles(angle, 0.12 * p.fbm(rng, shape, 5, 2), water)
    for cx, top, wide in ((60, 150, 52), (130, 300, 40)):
        sway = 14 * np.sin(y / 70 + cx)
        reach = (
            wide
            * np.sqrt(np.clip((y - top) / (760 - top), 0, None))
            * (1 + 0.25 * p.fbm(rng, shape, 14, 3))
        )
        tree = p.smooth(1.02, 0.95, np.abs(x - cx - sway) / np.maximum(reach, 1e-3)) * (y > top)
        flame = np.sin((x - cx - sway) / 5 + p.fbm(rng, shape, 6, 3) * 1.4)
        image = p.mix(
            image, p.gradient(0.5 + 0.5 * flame, "071a1e", "12382f", "2f5a33", "6b7a35"), tree
        )
        angle = p.blend_angles(angle, np.pi / 2 + 0.35 * np.sin(y / 38 + x / 30), tree)
    land = p.below(p.ridge(rng, shape, 0.93, 0.02, 2, 4), shape)
    image = p.mix(
        image,
        p.gradient(
            0.5 + 0.22 * p.fbm(rng, shape, 16, 4, stretch=(2.5, 1)),
            "0a1c2b",
            "143a3c",
            "2b5a44",
            "6f8a45",
            "c9a24a",
        ),
        land,
    )
    angle = p.blend_angles(angle, -0.5 + 0.25 * p.fbm(rng, shape, 2, 2), land)
    for cx, cy, tall in ((455, 640, 66), (560, 600, 36), (880, 690, 84)):
        up = (cy - y) / tall
        sail = (np.abs(x - cx - 3 * up) < 0.34 * tall * (1 - up)) & (up > 0.08) & (up < 1)
        image = p.mix(image, p.gradient(0.5 + (x - cx) / tall, "f3e3b0", "d9895a", "8a4a5c"), sail)
        hull = (np.abs(x - cx) < 0.42 * tall * (1 + up)) & (np.abs(up + 0.06) < 0.1)
        image = p.mix(image, p.colour("3a1f2e"), hull)
        wake = (
            np.exp(-(((x - cx) / (0.25 * tall)) ** 2)) * (up < -0.12) * np.exp(up.clip(-9, 0) * 1.3)
        )
        image = p.mix(image, p.colour("e2b27a"), 0.8 * wake * p.smooth(-0.2, 0.5, ripple))

    canvas = p.Canvas(rng, shape, p.colour("1a2140"))
    canvas.strokes(
        image,
        angle,
        spacing=17,
        width=30,
        length=120,
        tolerance=0.3,
        jitter={"lightness": 0.03, "hue": 0.1},
        dry=0.2,
    )
    canvas.strokes(
        image,
        angle,
        spacing=9.5,
        width=14,
        length=78,
        tolerance=0.13,
        jitter={"lightness": 0.045, "hue": 0.14, "tint": 0.01},
        streak=0.1,
        body=1.2,
    )
    busy = p.blur(p.orientation(image, 1.5 * unit)[1], 3 * unit)
    busy = p.smooth(0.1, 0.8, busy / np.quantile(busy, 0.93))
    canvas.strokes(
        image,
        angle,
        spacing=6.5,
        width=8,
        length=42,
        where=0.25 + 0.75 * busy,
        tolerance=0.09,
        jitter={"lightness": 0.05, "hue": 0.15, "tint": 0.012},
        streak=0.1,
        body=1.6,
    )
    canvas.strokes(
        image,
        angle,
        spacing=5,
        width=4.5,
        length=24,
        where=busy * 0.9,
        tolerance=0.07,
        jitter={"lightness": 0.04, "hue": 0.1},
        body=2.2,
    )
    return canvas.lit(0.5, 0.12, 0.05)
