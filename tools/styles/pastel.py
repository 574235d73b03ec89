"""A birch wood in autumn: chalk over dark, toothed paper."""

import numpy as np
import paint as p


def draw(rng, size):
    shape = p.shape_of(size, 1.25)
    x, y = p.plane(shape)
    unit, ground = size / 1024, 520
    leaf = p.fbm(rng, shape, 3.5, 5)
    glow = np.exp(-(((x - 560) / 260) ** 2) - ((y - 330) / 210) ** 2)
    image = p.gradient(
        0.38 + 0.16 * leaf + 0.42 * glow,
        "3a2f6a",
        "6a4f9a",
        "b0609a",
        "f08a5a",
        "ffc05a",
        "ffe89a",
        "fff8d8",
    )
    for n in range(46):
        far = n < 26
        cx = rng.uniform(0, 1024)
        wide = rng.uniform(2.5, 5) if far else rng.uniform(5, 9)
        stem = np.abs(x - cx - 6 * np.sin(y / 110 + n) - rng.normal(0, 0.04) * (y - 400)) < wide
        tones = ("5a4a8a", "8a6aa8", "c89ab0") if far else ("4a3a6a", "a88fb0", "f0d0b8")
        image = p.mix(
            image,
            p.gradient(0.5 + (x - cx) / wide * 0.4 + 0.1 * leaf, *tones[:: 1 if cx < 560 else -1]),
            0.8 * stem * (y < ground + 30),
        )
    clumps = [
        (rng.uniform(-20, 1044), abs(rng.normal(0, 150)) - 10, r := rng.uniform(20, 58), r * 0.7)
        for _ in range(95)
    ]
    which, lit = p.lumps(rng, shape, clumps, 0.5)
    image = p.mix(
        image,
        p.gradient(
            0.5 + 0.35 * lit + 0.12 * leaf, "7a2f4a", "c84f2f", "f0852a", "ffb83a", "ffe070"
        ),
        0.9 * (which >= 0),
    )
    floor = p.below(p.ridge(rng, shape, 0.62, 0.008, 2, 4), shape, 3)
    litter = p.gradient(
        0.45
        + 0.2 * p.fbm(rng, shape, 6, 5, stretch=(2.6, 1))
        + 0.3 * np.exp(-(((x - 560) / 240) ** 2)) * p.smooth(820, 480, y),
        "3f2a5a",
        "7a3a5a",
        "c8502f",
        "f0902f",
        "ffd05a",
        "fff0b0",
    )
    image = p.mix(image, litter, floor)
    bend = 540 + 120 * np.sin((y - 520) / 95) * p.smooth(520, 700, y)
    wide = 4 + 0.62 * (y - ground).clip(0)
    brook = p.smooth(1.05, 0.9, np.abs(x - bend) / wide.clip(1)) * (y > ground)
    mirror = np.sin(y / 5 + 1.5 * p.fbm(rng, shape, 5, 3, stretch=(2, 0.6)))
    image = p.mix(
        image,
        p.gradient(
            0.5 + 0.28 * mirror + 0.35 * np.exp(-(((x - bend) / wide.clip(1)) ** 2) * 3),
            "1f3f8a",
            "2f7fc0",
            "5fb0d0",
            "ffd89a",
            "fff4d0",
        ),
        brook,
    )
    angle = p.blend_angles(
        -0.75 + 0.35 * p.fbm(rng, shape, 3, 2), 0.08 * leaf, np.maximum(brook, 0.75 * floor)
    )
    trunks = np.zeros(shape)
    for cx, wide, foot, lean in (
        (120, 27, 735, 0.02),
        (212, 17, 660, -0.04),
        (345, 13, 600, 0.03),
        (735, 15, 615, -0.03),
        (845, 24, 700, 0.035),
        (955, 31, 770, -0.02),
        (290, 9, 570, 0.0),
        (675, 8, 565, 0.02),
        (40, 15, 640, 0.03),
    ):
        across = (x - cx - lean * (foot - y) - 6 * np.sin(y / 140 + cx)) / (
            wide * (1 + 0.12 * p.smooth(foot - 60, foot, y)) * (0.75 + 0.25 * y / foot)
        )
        stem = (np.abs(across) < 1) & (y < foot)
        bark = 0.5 + (0.42 if cx < 560 else -0.42) * across + 0.12 * p.fbm(rng, shape, 9, 4)
        image = np.where(
            stem[..., None],
            p.gradient(bark, "4f4a8a", "a090c0", "e8d0d0", "fff4e0", "fff8ea"),
            image,
        )
        scars = (p.fbm(rng, shape, 26, 4, stretch=(2.6, 0.7)) > 0.95) | (np.abs(across) > 0.9)
        image = np.where(
            (stem & scars)[..., None], p.gradient(bark, "1f1838", "3a2a4a", "5a3a4a"), image
        )
        angle = np.where(stem, np.where(scars, 0.1, np.pi / 2 + 0.1 * leaf), angle)
        trunks = np.maximum(trunks, stem)

    paper = p.gradient(0.5 + 0.2 * p.fbm(rng, shape, 120, 4, 0.8), "2a2038", "3a2a40", "4f3a48")
    canvas = p.Canvas(rng, shape, p.mix(paper, p.blur(image, 7 * unit), 0.68))
    canvas.tooth = (
        0.55 * p.fbm(rng, shape, 400, 2, 0.9) + 0.4 * p.canvas_weave(shape, unit, 5) - 0.25
    )
    chalk = {"soft": 0.35, "dry": 0.12, "body": 0.25, "streak": 0.05}
    loose = {"lightness": 0.05, "hue": 0.22, "chroma": 0.2, "tint": 0.022}
    canvas.strokes(
        image,
        angle,
        spacing=17,
        width=25,
        length=70,
        tolerance=0.35,
        toothy=0.30,
        opacity=0.7,
        jitter=loose,
        **chalk,
    )
    canvas.strokes(
        image,
        angle + 0.35,
        spacing=11,
        width=10,
        length=52,
        tolerance=0.2,
        toothy=0.34,
        opacity=0.85,
        jitter=loose,
        **chalk,
    )
    canvas.strokes(
        image,
        angle,
        spacing=7.5,
        width=6,
        length=40,
        tolerance=0.13,
        toothy=0.36,
        opacity=0.9,
        jitter=loose,
        **chalk,
    )
    busy = p.smooth(0.1, 0.8, np.maximum(trunks * 0.8, (which >= 0) * 0.5))
    canvas.strokes(
        image,
        angle,
        spacing=5,
        width=3.8,
        length=18,
        where=busy,
        tolerance=0.08,
        toothy=0.4,
        opacity=0.95,
        jitter=loose,
        **chalk,
    )
    falling = np.broadcast_to(p.colour("ffb02f"), image.shape)
    air = (1 - trunks * 0.7) * (0.18 + 0.6 * floor * (1 - brook))
    canvas.strokes(
        falling,
        3 * leaf,
        spacing=12,
        width=7,
        length=8,
        where=air,
        toothy=0.3,
        jitter={"lightness": 0.07, "hue": 0.45, "chroma": 0.2},
        **chalk,
    )
    canvas.strokes(
        falling * 0 + p.colour("e8452f"),
        3 * leaf,
        spacing=16,
        width=6,
        length=7,
        where=air,
        toothy=0.3,
        jitter={"lightness": 0.06, "hue": 0.3},
        **chalk,
    )
    return p.relief(canvas.rgb, 0.22 * canvas.tooth + canvas.height, 0.1)
