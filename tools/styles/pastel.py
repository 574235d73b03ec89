"""An autumn valley: chalk over dark, toothed paper."""

from functools import partial

import numpy as np
import paint as p
from numpy.random import Generator

TREES = ("6a2a5a", "c8423a", "f0802a", "ffb83a", "ffe27a")
GROVES = (  # middle x and foot of a grove, its width, its trees, its tones from shade to light
    (520, 405, 330, 26, ("3f3a8a", "7a5aa8", "c8709a", "f0a07a", "ffd89a")),
    (150, 490, 150, 18, TREES),
    (880, 500, 160, 20, ("4a2a6a", "a83a5a", "e85a3a", "ff9a3a", "ffd85a")),
    (60, 640, 120, 12, ("2a3a6a", "2f6a6a", "6a9a4a", "d8b83a", "ffe88a")),
    (960, 680, 130, 12, TREES),
)


def draw(rng: Generator, size: int) -> p.Array:
    """Compose the valley, then rub and draw it from broad to fine, with flowers at the front."""
    shape = p.shape_of(size, 1.25)
    x, y = p.plane(shape)
    unit, ground = size / 1024, 430
    mottle = p.fbm(rng, shape, 3.5, 5)
    image = p.gradient(
        y / 430 + 0.12 * mottle, "2f7fb8", "5fb0c8", "a8d8d0", "fff0c8", "ffc890", "f08a8a"
    )
    billow = p.fbm(rng, shape, 2.2, 5, stretch=(2, 1))
    shade = billow - p.warp(billow, -16 * unit, -22 * unit)
    cloud = p.smooth(0.2, 0.8, billow + 0.25) * p.smooth(380, 250, y)
    puffs = p.gradient(0.5 - 0.9 * shade, "8a7ac0", "d89ab8", "ffd0a8", "fff8e0")
    image = p.mix(image, puffs, 0.9 * cloud)
    angle = -0.55 + 0.4 * p.fbm(rng, shape, 2, 2)
    hills = (
        (0.43, 0.05, "4a4a9a", "7a6ab8", "a888c8"),
        (0.50, 0.04, "5a3a8a", "a85a9a", "e88a8a"),
        (0.58, 0.04, "7a3a6a", "d8603a", "ffb04a"),
        (0.70, 0.04, "3a4a6a", "6a8a4a", "e8c84a"),
    )
    lines = []
    for level, height, *layers in hills:
        line = p.ridge(rng, shape, level, height, 1.4, 4)
        fall = y - line[None] / unit
        bands = np.sin(fall / 11 + 1.6 * p.fbm(rng, shape, 3, 3)) + 0.8 * p.fbm(rng, shape, 8, 4)
        hill = p.gradient(0.5 + 0.26 * bands, *layers)
        image = p.mix(image, hill, fall > 0)
        slope = np.broadcast_to(np.arctan(np.gradient(line)), shape)
        angle = np.where(fall > 0, slope + 0.25 * p.fbm(rng, shape, 4, 2), angle)
        lines.append(line)
    middle = 560 + 120 * np.sin((y - 520) / 70) * p.smooth(500, 700, y)
    wide = 10 + 0.5 * (y - 505).clip(0)
    brook = p.smooth(1.05, 0.9, np.abs(x - middle) / wide) * (y > 505)
    ripple = np.sin(y / 8 + 3 * p.fbm(rng, shape, 4, 4, stretch=(2, 0.8))) + mottle
    image = p.mix(
        image,
        p.gradient(0.5 + 0.2 * ripple, "2a5a9a", "4fa0c0", "a8d8d0", "ffd8a8", "f0986a"),
        brook,
    )
    angle = p.blend_angles(angle, 0.06 * mottle, brook)
    leafy = np.zeros(shape)
    for cx, foot, breadth, count, tones in GROVES:
        tall = 0.36 * (foot - 330) + 34
        trees = [
            (cx + rng.normal(0, 0.5 * breadth), foot - 0.5 * tall + rng.normal(0, 8), r * 0.8, r)
            for r in tall * rng.uniform(0.35, 0.7, count)
        ]
        which, lit = p.lumps(rng, shape, sorted(trees, key=lambda tree: tree[1]), 0.35)
        crown = p.gradient(0.5 + 0.48 * lit + 0.08 * mottle, *tones)
        image = p.mix(image, crown, which >= 0)
        angle = np.where(which >= 0, 0.9 + 0.9 * p.fbm(rng, shape, 12, 2), angle)
        leafy = np.maximum(leafy, which >= 0)

    paper = p.gradient(0.5 + 0.2 * p.fbm(rng, shape, 120, 4, 0.8), "2a2038", "3a2a40", "4f3a48")
    canvas = p.Canvas(rng, shape, p.mix(paper, p.blur(image, 7 * unit), 0.68))
    canvas.tooth = (
        0.55 * p.fbm(rng, shape, 400, 2, 0.9) + 0.4 * p.canvas_weave(shape, unit, 5) - 0.25
    )
    chalk = partial(canvas.strokes, soft=0.35, dry=0.12, body=0.25, streak=0.05)
    loose = {"lightness": 0.05, "hue": 0.22, "chroma": 0.2, "tint": 0.022}
    chalk(
        image,
        angle,
        spacing=17,
        width=25,
        length=70,
        tolerance=0.35,
        toothy=0.30,
        opacity=0.7,
        jitter=loose,
    )
    chalk(
        image,
        angle + 0.35,
        spacing=11,
        width=10,
        length=52,
        tolerance=0.2,
        toothy=0.34,
        opacity=0.85,
        jitter=loose,
    )
    chalk(
        image,
        angle,
        spacing=7.5,
        width=6,
        length=40,
        tolerance=0.13,
        toothy=0.36,
        opacity=0.9,
        jitter=loose,
    )
    busy = p.smooth(0.1, 0.8, np.maximum(0.6 * leafy, 0.45 * brook))
    chalk(
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
    )
    near = p.smooth(ground + 60, 700, y) * (1 - brook)
    for colour, spacing, share in (("ffb02f", 15, 0.5), ("e8452f", 18, 0.45), ("8fb0e8", 20, 0.4)):
        chalk(
            np.broadcast_to(p.colour(colour), image.shape),
            3 * mottle,
            spacing=spacing,
            width=6.5,
            length=9,
            where=share * near,
            toothy=0.3,
            jitter={"lightness": 0.07, "hue": 0.35, "chroma": 0.2},
        )
    return p.relief(canvas.rgb, 0.22 * canvas.tooth + canvas.height, 0.1)
