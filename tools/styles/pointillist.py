"""A harbour at sundown in pure dots that mix in the eye."""

import numpy as np
import paint as p
from numpy.random import Generator


def draw(rng: Generator, size: int) -> p.Array:
    """Compose the harbour, then lay dots over it, smaller with each layer."""
    shape = p.shape_of(size, 1.3)
    x, y = p.plane(shape)
    horizon, sun_x, sun_y = 395, 640, 330
    r = np.hypot(x - sun_x, (y - sun_y) * 1.15)
    ring = 0.07 * np.sin(r / 15) * np.exp(-r / 330)
    image = p.gradient(
        r / 640 + ring + 0.05 * p.fbm(rng, shape, 3, 4),
        "fff3b8",
        "ffd27a",
        "fba56a",
        "ee86a0",
        "a98ad6",
        "5f86d8",
        "3f66bf",
    )
    cloud = p.smooth(0.5, 1.5, p.fbm(rng, shape, 2.4, 5, stretch=(4, 1))) * p.smooth(380, 250, y)
    image = p.mix(image, p.gradient(r / 560, "fff0cf", "ffb38a", "d97fb0", "8a7ad0"), 0.8 * cloud)
    image = p.mix(image, p.colour("fffbe6"), p.smooth(40, 34, np.hypot(x - sun_x, y - sun_y)))
    for level, tones in (
        (0.36, ("8a86d8", "c08ac8", "f0a0a0")),
        (0.44, ("4f5fb8", "7a66b8", "c87a8a")),
    ):
        line = p.ridge(rng, shape, level, 0.04, 1.7, 5)
        far = (
            p.below(line, shape, 2)
            * (y < horizon)
            * p.smooth(900, 560, np.abs(x - 60) + 380 * (level > 0.4))
        )
        image = p.mix(
            image, p.gradient(np.exp(-r / 300) + 0.1 * p.fbm(rng, shape, 9, 4), *tones), far
        )
    mirror = image[np.clip(2 * int(horizon * size / 1024) - np.arange(shape[0]), 0, shape[0] - 1)]
    sea = y > horizon
    deep = ((y - horizon) / 390).clip(0, 1)
    wave = np.sin(
        np.log1p(deep * 9) * 34 + 1.6 * p.fbm(rng, shape, 4, 4, stretch=(3, 1))
    ) + 0.6 * p.fbm(rng, shape, 9, 4, stretch=(4, 1))
    water = p.mix(
        mirror,
        p.gradient(0.5 + 0.33 * wave, "203f9a", "2f72b8", "3fb0b8", "a8d8c0"),
        0.35 + 0.45 * deep,
    )
    glitter = np.exp(-(((x - sun_x) / (26 + 150 * deep)) ** 2)) * p.smooth(-0.5, 0.7, wave)
    water = p.mix(water, p.colour("ffe08f"), 0.9 * glitter)
    image = np.where(sea[..., None], water, image)
    for cx, foot, tall, hue in (
        (250, 470, 190, 0),
        (395, 432, 110, 1),
        (880, 455, 150, 2),
        (505, 412, 60, 0),
        (760, 408, 50, 1),
    ):
        up = (foot - y) / tall
        main = (
            (x > cx + 3)
            & (x - cx < 0.52 * tall * (1 - up).clip(0) ** 0.9 + 2)
            & (up > 0.1)
            & (up < 1)
        )
        jib = (x < cx - 2) & (cx - x < 0.38 * tall * (0.9 - up).clip(0)) & (up > 0.12) & (up < 0.9)
        tones = (
            ("fff0d8", "ffc9a0", "d78ac0"),
            ("ffd98a", "f58a5a", "b0509a"),
            ("ff9a6a", "d8506a", "7a3f9a"),
        )[hue]
        cut = 0.5 + (x - cx) / tall * 0.9 + 0.1 * p.fbm(rng, shape, 12, 2)
        image = np.where(
            (main | jib)[..., None], p.gradient(1 - cut if cx < sun_x else cut, *tones), image
        )
        hull = (np.abs(x - cx - 0.03 * tall) < (0.5 + 0.35 * up) * tall) & (
            np.abs(up - 0.03) < 0.055
        )
        image = np.where(hull[..., None], p.gradient(cut, "2a2f7a", "5a3f8a", "b0506a"), image)
        wake = (
            np.exp(-(((x - cx - 0.08 * tall) / (0.3 * tall)) ** 2))
            * (up < -0.02)
            * np.exp(up.clip(-9, 0) * 1.6)
        )
        image = p.mix(
            image,
            p.mix(p.colour(tones[0]), p.colour(tones[2]), 0.4),
            0.75 * wake * p.smooth(-0.4, 0.6, wave),
        )
    shore = p.below(
        p.ridge(rng, shape, 0.9, 0.03, 1.5, 4)
        + 0.00016 * (np.arange(shape[1]) - shape[1] * 0.75) ** 2 / (size / 1024) * -0.45,
        shape,
    )
    image = p.mix(
        image,
        p.gradient(
            0.5 + 0.25 * p.fbm(rng, shape, 9, 5, stretch=(2, 1)),
            "3a2f8a",
            "5a5aa8",
            "4f9a7a",
            "b8c85a",
            "ffd86a",
        ),
        shore,
    )
    clumps = [
        (80 + rng.normal(0, 85), 130 + rng.normal(0, 55), rng.uniform(28, 52), rng.uniform(16, 30))
        for _ in range(26)
    ]
    which, lit = p.lumps(rng, shape, clumps, 0.28, (0.8, 0.4))
    trunk = np.abs(x - 78 - 26 * np.sin(y / 120) - (y - 400) * 0.06) < 9 + 0.012 * (y - 200)
    trunk = trunk & (y > 150) & (y < 720)
    image = np.where(
        trunk[..., None],
        p.gradient(
            0.5 + 0.3 * p.fbm(rng, shape, 20, 3) + 0.02 * (x - 78),
            "2f2468",
            "5f3f80",
            "c0607a",
            "ffab70",
        ),
        image,
    )
    image = p.mix(
        image,
        p.gradient(0.45 + 0.4 * lit, "1f2f78", "28608a", "2f8f70", "9fc04f", "ffe070"),
        which >= 0,
    )

    canvas = p.Canvas(rng, shape, p.colour("ead9b8"))
    jitter = {"lightness": 0.05, "chroma": 0.3, "hue": 0.35, "tint": 0.035}
    canvas.dots(image, spacing=9, radius=7.5, jitter=jitter, body=0.6)
    canvas.dots(image, spacing=7.4, radius=4.6, jitter=jitter)
    canvas.dots(image, spacing=6.2, radius=3.5, share=0.85, jitter=jitter)
    canvas.dots(
        image,
        spacing=5.6,
        radius=2.7,
        share=0.6,
        jitter={**jitter, "tint": 0.05, "lightness": 0.07},
    )
    return canvas.lit(0.32, 0.05, 0.1)
