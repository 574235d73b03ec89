"""Poppies in the sun: short broken touches, warm lights against cool shadows."""

import numpy as np
import paint as p
from numpy.random import Generator


def draw(rng: Generator, size: int) -> p.Array:
    """Compose the scene and how its strokes lie, then paint it from broad to fine."""
    shape = p.shape_of(size, 1.33)
    x, y = p.plane(shape)
    horizon, bottom = 318, 770
    billow = p.fbm(rng, shape, 2.2, 6, stretch=(1.6, 1)) + (y - 150) / 260
    image = p.gradient(
        y / horizon + 0.05 * p.fbm(rng, shape, 5, 4), "4d86cc", "7fb0e0", "b6d4e8", "f4dfbd"
    )
    cloud = p.smooth(-0.1, 0.75, billow) * p.smooth(330, 210, y)
    shade = billow - p.warp(billow, -14, -22)
    image = p.mix(
        image, p.gradient(0.55 - 1.2 * shade, "9fa6cf", "e6cfd6", "fff0d4", "fffbee"), cloud
    )
    angle = 0.35 * p.fbm(rng, shape, 2.5, 3)
    for level, tones in (
        (0.345, ("7d8fc4", "9aa5d0", "c0b6d0")),
        (0.385, ("5d7fa8", "7ea0a8", "b7b98e")),
    ):
        hills = p.below(p.ridge(rng, shape, level, 0.022, 2.2, 5), shape)
        image = p.mix(
            image, p.gradient(0.5 + 0.28 * p.fbm(rng, shape, 9, 4, stretch=(2, 1)), *tones), hills
        )
    field = p.below(np.full(shape[1], horizon * size / 1024, np.float32), shape, 4)
    depth = ((y - horizon) / (bottom - horizon)).clip(0, 1)
    rows = p.fbm(rng, shape, 5, 5, stretch=(5, 1)) * 0.7 + p.fbm(rng, shape, 2, 3, stretch=(3, 1))
    grass = p.gradient(0.5 + 0.2 * rows, "3f6b3a", "6f9440", "b5b04a", "e8c95c", "f6e08a")
    near = p.gradient(0.5 + 0.26 * rows, "24503f", "3f7a3c", "7fa03f", "c3b84a", "ecd878")
    image = p.mix(image, p.mix(grass, near, depth), field)
    lavender = (
        p.smooth(0.5, 1.1, np.sin(depth**0.55 * 26 + x / 300) + 0.35 * rows)
        * p.smooth(0.03, 0.08, depth)
        * p.smooth(0.42, 0.3, depth)
    )
    image = p.mix(
        image,
        p.gradient(0.5 + 0.25 * p.fbm(rng, shape, 30, 3), "6a5aa8", "9a86cc", "c9b3dc"),
        lavender * p.smooth(470, 620, x),
    )
    middle = 560 - 190 * depth + 95 * np.sin(depth**0.6 * 6.5)
    path = (
        p.smooth(1.1, 0.8, np.abs(x - middle + 9 * p.fbm(rng, shape, 9, 4)) / (7 + 78 * depth))
        * field
    )
    image = p.mix(
        image,
        p.gradient(
            0.5 + 0.25 * p.fbm(rng, shape, 14, 4, stretch=(3, 1)), "b58aa0", "e3bd9c", "f9e3bd"
        ),
        path * 0.95,
    )
    clumps = [
        (
            rng.uniform(-20, 1040),
            horizon - 8 + rng.uniform(-3, 8),
            r := rng.uniform(10, 26),
            r * rng.uniform(0.7, 1.2),
        )
        for _ in range(60)
    ]
    for crown_x, crown_y, wide, tall, count in (
        (105, 215, 62, 48, 44),
        (262, 262, 24, 26, 12),
        (915, 240, 40, 42, 26),
    ):
        clumps += sorted(
            (
                (
                    crown_x + rng.normal(0, wide),
                    crown_y + rng.normal(0, tall),
                    r := rng.uniform(0.4, 0.75) * tall,
                    r * 0.8,
                )
                for _ in range(count)
            ),
            key=lambda place: -place[1],
        )
    which, lit = p.lumps(rng, shape, clumps, 0.3)
    image = p.mix(
        image,
        p.gradient(0.5 + 0.5 * lit, "1d3560", "2a5f5a", "4a8042", "a3b545", "f7e27a"),
        which >= 0,
    )
    for cx, wide, tall, foot in ((640, 46, 30, 322), (702, 28, 22, 324)):
        wall = (np.abs(x - cx) < wide) & (y < foot) & (y > foot - tall)
        image = np.where(
            wall[..., None],
            p.gradient((x - cx) / wide / 2 + 0.5, "fff3d6", "f3d9b4", "b99ab0"),
            image,
        )
        roof = (
            (y <= foot - tall)
            & (y > foot - tall * 1.95)
            & (np.abs(x - cx) < wide * 1.15 - 0.6 * (foot - tall - y))
        )
        image = np.where(
            roof[..., None],
            p.gradient((x - cx) / wide / 2 + 0.5, "e87a4a", "c9533f", "8f4058"),
            image,
        )
        for door in (-0.5, 0.05, 0.55):
            hole = (np.abs(x - cx - door * wide) < 4) & (np.abs(y - foot + tall * 0.45) < 6)
            image[hole] = p.colour("4a5a86")
    stand = -np.pi / 2 + 0.45 * p.fbm(rng, shape, 7, 3) + 0.25 * np.sin(x / 90)
    angle = p.blend_angles(angle, stand, field * (1 - path) * p.smooth(0.02, 0.2, depth))
    leafy = which >= 0
    angle = np.where(leafy, 0.9 + 1.3 * p.fbm(rng, shape, 16, 2), angle)

    canvas = p.Canvas(rng, shape, p.colour("d8b98a"))
    jitter = {"lightness": 0.04, "chroma": 0.15, "hue": 0.18, "tint": 0.018}
    canvas.strokes(
        image, angle, spacing=16, width=26, length=50, tolerance=0.4, jitter=jitter, dry=0.25
    )
    canvas.strokes(
        image,
        angle,
        spacing=9,
        width=13,
        length=30,
        tolerance=0.2,
        jitter=jitter,
        streak=0.08,
        detail=0.75 + 0.45 * depth,
    )
    canvas.strokes(
        image,
        angle,
        spacing=6.2,
        width=7.5,
        length=18,
        tolerance=0.12,
        jitter=jitter,
        streak=0.09,
        body=1.6,
        where=0.35 + 0.5 * leafy + 0.3 * (y < 330) * (y > 260) + 0.25 * field,
        detail=0.65 + 0.7 * depth,
    )
    cottage = (np.abs(x - 665) < 95) & (np.abs(y - 296) < 40)
    canvas.strokes(
        image,
        0.1 * angle,
        spacing=4,
        width=5,
        length=9,
        where=cottage * 0.9,
        tolerance=0.08,
        jitter={"lightness": 0.03, "hue": 0.1},
        body=1.6,
    )
    drifts = (
        p.smooth(0.05, 1.0, p.fbm(rng, shape, 3.0, 4, stretch=(2.4, 1)) + 0.2)
        * field
        * (1 - 0.93 * path)
    )
    flowers = np.broadcast_to(p.colour("e2382a"), image.shape)
    flat = 0.25 * p.fbm(rng, shape, 4, 2)
    far, close = p.smooth(0.02, 0.1, depth) * p.smooth(0.5, 0.2, depth), p.smooth(0.25, 0.7, depth)
    red = {"lightness": 0.06, "chroma": 0.2, "hue": 0.2, "tint": 0.02}
    canvas.strokes(
        flowers,
        flat,
        spacing=5.5,
        width=5.5,
        length=7,
        where=drifts * far * 0.85,
        jitter=red,
        body=2.2,
        dry=0.1,
    )
    canvas.strokes(
        flowers,
        flat,
        spacing=10,
        width=12,
        length=12,
        where=drifts * close * 0.85,
        jitter=red,
        body=2.2,
        dry=0.1,
        detail=0.5 + 0.75 * depth,
    )
    canvas.strokes(
        flowers * 0 + p.colour("ff8a4a"),
        flat - 0.5,
        spacing=13,
        width=6,
        length=7,
        where=drifts * close * 0.7,
        jitter=red,
        body=2.4,
        dry=0.1,
    )
    daisies = (
        p.smooth(0.3, 1.2, p.fbm(rng, shape, 4, 4, stretch=(2, 1)))
        * field
        * (1 - path)
        * p.smooth(0.2, 0.5, depth)
    )
    canvas.strokes(
        flowers * 0 + p.colour("fff4d8"),
        flat,
        spacing=10,
        width=6,
        length=6,
        where=daisies * 0.7,
        jitter=jitter,
        body=2.4,
        dry=0.1,
        detail=0.5 + 0.7 * depth,
    )
    bells = (
        p.smooth(0.3, 1.2, p.fbm(rng, shape, 4, 4, stretch=(2, 1)))
        * field
        * (1 - path)
        * p.smooth(0.2, 0.5, depth)
    )
    canvas.strokes(
        flowers * 0 + p.colour("6a66c8"),
        flat + 1.5,
        spacing=9,
        width=5,
        length=10,
        where=bells * 0.6,
        jitter=jitter,
        body=2,
        dry=0.1,
        detail=0.5 + 0.8 * depth,
    )
    return canvas.lit(0.45, 0.08, 0.08)
