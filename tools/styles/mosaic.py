"""Tesserae laid along the forms: fish in a bright sea under a golden sky."""

import numpy as np
import paint as p
from numpy.random import Generator
from scipy.spatial import KDTree


def draw(rng: Generator, size: int) -> p.Array:
    """Compose the scene and the lines that its tiles follow, then cut the tiles and set them."""
    shape = p.shape_of(size, 1.25)
    x, y = p.plane(shape)
    unit = size / 1024
    region = np.zeros(shape, int)
    sun_x, sun_y = 730, 150
    r = np.hypot(x - sun_x, y - sun_y)
    image = p.gradient(
        0.45 + 0.2 * p.fbm(rng, shape, 4, 3) + 0.12 * np.sin(r / 13),
        "b8862f",
        "dcae45",
        "f2d27a",
        "fff0c0",
    )
    guide = r * 1.0

    def lay(mask: p.Mask, colours: p.Array, lines: p.Array) -> None:
        region[mask] = region.max() + 1
        image[mask] = colours[mask] if np.ndim(colours) == 3 else colours
        guide[mask] = lines[mask]

    lay(r < 86, p.gradient(r / 86, "fff7d0", "ffc04a", "f0702f", "d8402f"), r)
    ray = np.abs((np.arctan2(y - sun_y, x - sun_x) / (2 * np.pi) * 18) % 1 - 0.5)
    lay(
        (r > 96) & (r < 96 + 74 * (1 - 2.6 * ray)),
        p.gradient(r / 170, "e8602f", "f29a3a", "c8382f"),
        r,
    )
    for cx, cy, wide in ((170, 120, 150), (420, 70, 100), (955, 90, 90), (60, 215, 90)):
        puff = np.maximum.reduce(
            [
                1 - np.hypot(x - cx - dx * wide, (y - cy - dy * wide) * 1.15) / (s * wide)
                for dx, dy, s in ((-0.5, 0.08, 0.36), (0, -0.1, 0.5), (0.5, 0.08, 0.38))
            ]
        )
        puff = np.where(y < cy + 0.3 * wide, puff, -1)
        lay(puff > 0, p.gradient(puff * 1.6, "7fa8c8", "c8dfe8", "fffaf0", "ffe8e0"), puff * 200)
    swell = 300 + 34 * np.sin(x / 95 + 0.7)
    for n, tones in enumerate(
        (
            ("2f7fb8", "7fc8d8", "f0f8f0"),
            ("1f5fa8", "3fa8c0", "a8e0d8"),
            ("1a4a98", "2f88b8", "6fc8c8"),
            ("143a80", "2a6fb0", "3fb0b0"),
            ("102f6f", "1f5fa0", "5fc0a8"),
        )
    ):
        top = swell + 96 * n + 18 * np.sin(x / (70 + 9 * n) + 1.9 * n)
        fall = y - top
        crest = p.smooth(26, 0, fall)
        body = p.gradient(
            0.35 + 0.3 * np.sin(fall / 9.0) + 0.12 * p.fbm(rng, shape, 6, 3), *tones[:2]
        )
        lay(fall > 0, p.mix(body, p.colour(tones[2]), 0.85 * crest), fall)
    for n, (cx, cy, long, tilt, tones) in enumerate(
        (
            (300, 470, 118, 0.18, ("c8302f", "f2763a", "ffc85a")),
            (690, 610, 140, -0.2, ("d85a2a", "ffb03f", "fff0b0")),
            (150, 690, 92, -0.3, ("8a2f6f", "e05a8a", "ffc0b0")),
            (520, 745, 84, 0.25, ("2f8f5f", "9fd05a", "f8f0a0")),
            (905, 455, 88, 0.3, ("b02f3f", "ff6f4f", "ffd890")),
            (925, 745, 84, -0.1, ("5f3f9f", "b07fd8", "ffe0f0")),
        )
    ):
        side = 1 if n % 2 else -1
        u = ((x - cx) * np.cos(tilt) + (y - cy) * np.sin(tilt)) * side / long
        v = ((y - cy) * np.cos(tilt) - (x - cx) * np.sin(tilt)) / long
        v = v + 0.06 * np.sin(u * 3)
        fan = (
            (u < -0.8)
            & (u > -1.45)
            & (np.abs(v) < 0.06 + 0.62 * (-0.8 - u))
            & (np.abs(v) > 0.6 * (-1.12 - u))
        )
        lay(fan, p.gradient(0.5 + 0.5 * np.sin(v * 22), tones[0], tones[1], tones[2]), v * 200)
        fin = (
            (np.abs(u + 0.05 + 0.6 * (np.abs(v) - 0.4)) < 0.34 * (1 - (np.abs(v) - 0.3) * 2.6))
            & (np.abs(v) > 0.3)
            & (np.abs(v) < 0.66)
        )
        lay(fin, p.gradient(0.5 + 0.5 * np.sin(u * 26), tones[0], tones[2]), u * 200)
        hull = u**2 + (v / (0.42 * (1 - 0.25 * u))) ** 2
        scale = np.sin(u * 17) * np.cos(v * 17)
        lay(hull < 1, p.gradient(0.5 + 0.32 * scale + 0.45 * v / 0.42 * -0.6, *tones), hull * 70)
        lay((hull < 0.97) & (u > 0.52), p.gradient(0.5 - v, tones[2], tones[1]), (u - 0.52) * 200)
        eye = np.hypot(u - 0.68, v + 0.06)
        lay(
            eye < 0.1,
            np.where((eye < 0.055)[..., None], p.colour("15203a"), p.colour("fff8e8")),
            eye * 100,
        )
    for n, (cx, top) in enumerate(
        ((30, 560), (75, 620), (395, 640), (432, 590), (790, 660), (1000, 600))
    ):
        blade = np.abs(x - cx - 15 * np.sin(y / 26 + n)) - 3 - 8 * p.smooth(top, 820, y)
        lay(
            (blade < 0) & (y > top),
            p.gradient(0.5 + 0.4 * np.sin(y / 7 + n), "1f6f4a", "5faf3f", "d0d85a"),
            blade * 3,
        )

    angle = p.along(p.blur(guide, 1.5 * unit))
    angle = 0.5 * np.arctan2(
        p.blur(np.sin(2 * angle), 5 * unit), p.blur(np.cos(2 * angle), 5 * unit)
    )
    seeds, cut, edge = tesserae(rng, region, angle, 12.5 * unit)
    reference = p.blur(image, 1.5 * unit)
    colours = p.vary(
        rng, p.sample(reference, *seeds.T), lightness=0.045, chroma=0.16, hue=0.12, tint=0.012
    )
    shine = rng.normal(0, 1, len(colours))
    tile = colours[cut] * (1 + 0.09 * shine[cut] + 0.05 * p.fbm(rng, shape, 90, 3))[..., None]
    edge = edge / unit
    dome = p.smooth(0.2, 3.2, edge) * 2.4 + 0.12 * p.fbm(rng, shape, 60, 3)
    slope_x, slope_y = rng.normal(0, 0.09, (2, len(colours)))
    dome += slope_x[cut] * (x - seeds[cut, 0] / unit) + slope_y[cut] * (y - seeds[cut, 1] / unit)
    grout = p.gradient(0.5 + 0.22 * p.fbm(rng, shape, 150, 3), "2f2a2a", "5a4f48", "857768")
    return p.relief(p.mix(grout, tile, p.smooth(0.5, 1.5, edge)), dome, 0.42, 0.22)


def tesserae(
    rng: Generator, region: p.Labels, angle: p.Array, side: float
) -> tuple[p.Array, p.Labels, p.Array]:
    """Square tiles of about `side` pixels, turned by the angles, cut at the regions' borders.

    Gives the tiles' centres, each pixel's tile, and its distance to the tile's edge.
    """
    height, width = region.shape
    seeds = p.scatter(rng, (width, height), side)
    seeds = seeds[(seeds > 0).all(1) & (seeds < (width, height)).all(1)]
    coarse = max(1, round(side / 7))
    for _ in range(14):  # every tile moves to the middle of its pixels
        y, x = np.mgrid[0:height:coarse, 0:width:coarse].reshape(2, -1)
        own = _nearest_tiles(seeds, x, y, region, angle)[0]
        count = np.maximum(np.bincount(own, minlength=len(seeds)), 1e-9)
        middle = (
            np.stack([np.bincount(own, side_, len(seeds)) for side_ in (x, y)], -1) / count[:, None]
        )
        seeds = np.where(count[:, None] > 0.5, middle, seeds)
    y, x = np.mgrid[:height, :width].reshape(2, -1)
    own, edge = _nearest_tiles(seeds, x, y, region, angle)
    return seeds, own.reshape(region.shape), edge.reshape(region.shape)


def _nearest_tiles(
    seeds: p.Array, x: p.Labels, y: p.Labels, region: p.Labels, angle: p.Array
) -> tuple[p.Labels, p.Array]:
    near = KDTree(seeds).query(np.stack([x, y], -1), k=7)[1]
    turn, place = p.sample(angle, *seeds.T), p.sample(region, *seeds.T)
    dx, dy = x[:, None] - seeds[near, 0], y[:, None] - seeds[near, 1]
    c, s = np.cos(turn)[near], np.sin(turn)[near]
    far = np.maximum(np.abs(dx * c + dy * s), np.abs(dy * c - dx * s))
    far = far + 1e4 * (place[near] != p.sample(region, x, y)[:, None])
    order = np.argsort(far, 1)[:, :2]
    two = np.take_along_axis(far, order, 1)
    return np.take_along_axis(near, order, 1)[:, 0], np.minimum((two[:, 1] - two[:, 0]) / 2, 99)
