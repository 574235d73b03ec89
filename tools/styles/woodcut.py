"""Pines over the sea at sunrise: a carved key block and three colour blocks."""

import numpy as np
import paint as p
from numpy.random import Generator
from scipy import ndimage


def draw(rng: Generator, size: int) -> p.Array:
    """Lay out what is carved and inked where, then print three colours and the key block."""
    shape = p.shape_of(size, 1.3)
    x, y = p.plane(shape)
    unit, sun_x, sun_y, shore = size / 1024, 600, 235, 470
    r = np.hypot(x - sun_x, y - sun_y)
    bearing = np.arctan2(y - sun_y, x - sun_x) / (2 * np.pi)
    double = 2.0 ** np.floor(np.log2(r / 60 + 0.4).clip(0))
    lines = bearing * 46 * double  # one carved line for each whole number
    tone = 0.98 - 0.42 * p.smooth(90, 620, r) + 0.1 * p.fbm(rng, shape, 3, 3)
    tint = np.zeros((*shape, 3), np.float32)  # how much ochre, red and blue ink
    tint[..., 0] = 0.9 - 0.25 * p.smooth(100, 500, r)
    tint[..., 1] = (
        0.75 * p.smooth(170, 480, r + 40 * p.fbm(rng, shape, 2, 3)) * p.smooth(-60, 200, y) + 0.1
    )
    tint[..., 2] = 0.55 * p.smooth(260, 20, y) * p.smooth(150, 420, r)
    region = np.zeros(shape, int)

    def lay(
        mask: p.Mask, potential: p.Array, light: p.Array, inks: tuple[p.Array | float, ...]
    ) -> None:
        region[mask] = region.max() + 1
        lines[mask] = potential[mask]
        tone[mask] = light[mask]
        tint[mask] = np.stack(np.broadcast_arrays(*inks, x), -1)[..., :3][mask]

    lay(r < 74, y / 9, 1.2 + 0 * x, (0.15, 0.95, 0))
    for cx, cy, wide in ((215, 120, 210), (905, 95, 170), (420, 330, 120), (860, 300, 150)):
        bank = np.maximum.reduce(
            [
                1 - np.hypot(x - cx - dx * wide, (y - cy - dy * wide) * 1.3) / (s * wide)
                for dx, dy, s in (
                    (-0.62, 0.09, 0.22),
                    (-0.3, 0, 0.34),
                    (0.08, -0.09, 0.4),
                    (0.42, 0.02, 0.3),
                    (0.68, 0.1, 0.19),
                )
            ]
        )
        bank = np.where(y < cy + 0.17 * wide, bank, -1)
        lay(
            bank > 0,
            bank * 0.3 * wide / 9,
            0.62
            + 0.5 * p.smooth(0.5, 0.05, bank)
            - 0.2 * p.smooth(cy - 0.1 * wide, cy + 0.2 * wide, y),
            (0.12, 0.16 * p.smooth(0, 0.6, bank), 0.12),
        )
    for level, height, seed, inks in (
        (0.50, 0.085, 2.3, (0.1, 0.4, 0.62)),
        (0.56, 0.06, 3.4, (0.15, 0.12, 0.95)),
    ):
        line = p.ridge(rng, shape, level, height, seed, 5, 0.45)
        form = p.fbm(rng, shape, 4, 4) + 0.6 * p.fbm(rng, shape, 9, 3)
        facet = np.tanh(6 * (form - p.warp(form, 10 * unit, 4 * unit)))
        skew = x * np.cos(0.5 * facet) + (y - line[None] / unit) * np.sin(0.5 * facet)
        lay((y > line[None] / unit) & (y < shore), skew / 8.5, 0.45 + 0.4 * facet, inks)
    deep = ((y - shore) / 320).clip(0, 1)
    swell = p.fbm(rng, shape, 3.2, 3, stretch=(2.2, 1))
    wave = np.log1p(deep * 5) * 13 + 0.45 * swell
    glitter = np.exp(-(((x - sun_x) / (60 + 130 * deep)) ** 2))
    lay(
        y > shore,
        wave * 2.6,
        0.4 + 0.3 * np.sin(wave * 2.2) + 0.5 * glitter,
        (0.2 + 0.6 * glitter, 0.35 * glitter, 0.95 - 0.75 * glitter),
    )
    for n in range(5):
        crest = (
            610
            + 46 * n
            + (17 + 3 * n) * np.abs(np.sin(x / (70 + 14 * n) + 2.1 * n)) ** 0.8 * -1.3
            + 6 * p.fbm(rng, shape, 5, 2)
        )
        fall = y - crest
        lay(
            fall > 0,
            fall / (8 + n) + 0.5 * np.sin(x / 40),
            1.15 - 0.95 * p.smooth(5, 42, fall) + 0.28 * np.sin(fall / 11 + x / 60),
            (0.1, 0.0, 0.25 + 0.75 * p.smooth(6, 26, fall)),
        )
    cliff_line = (
        560
        - 330 * p.smooth(330, 40, x) ** 1.1
        + 60 * p.smooth(260, 300, x)
        + 10 * p.fbm(rng, (8, shape[1]), 14, 4)[4][None]
    )
    rock = p.fbm(rng, shape, 4, 4) + x / 90
    lay(
        (y > cliff_line) & (x < 330 + 12 * p.fbm(rng, shape, 8, 3) + 0.1 * y),
        rock * 4.6 + y / 26,
        0.42 + 0.36 * np.sin(rock * 2.4 + y / 50),
        (0.75, 0.62, 0.2),
    )
    rock = p.fbm(rng, shape, 4, 4) - x / 80
    cliff_line = 640 - 210 * p.smooth(800, 990, x) + 9 * p.fbm(rng, (8, shape[1]), 12, 4)[4][None]
    lay(
        (y > cliff_line) & (x > 770 + 10 * p.fbm(rng, shape, 8, 3) - 0.1 * (y - 640)),
        rock * 4.6 + y / 26,
        0.42 + 0.36 * np.sin(rock * 2.5 + y / 45),
        (0.75, 0.62, 0.2),
    )
    pads = []
    for foot_x, foot_y, top, lean, wide in (
        (165, 330, 30, 120, 92),
        (75, 260, 20, -50, 78),
        (905, 520, 250, -110, 78),
    ):
        up = ((foot_y - y) / (foot_y - top)).clip(-0.1, 1.1)
        trunk = foot_x + lean * np.abs(up) ** 1.4 + 12 * np.sin(up * 7)
        lay(
            (np.abs(x - trunk) < 14 * (1 - 0.75 * up)) & (up > -0.05) & (up < 1),
            (x - trunk) / 5 + 0.8 * np.sin(y / 9),
            0.3 + 0.02 * (x - trunk),
            (0.6, 0.7, 0.3),
        )
        for high in np.linspace(0.3, 1.03, 7):
            for side in (-1, 1):
                reach = wide * (1.15 - 0.75 * high) * rng.uniform(0.7, 1.1)
                pads.append(
                    (
                        foot_x + lean * high**1.4 + 12 * np.sin(high * 7) + side * reach * 0.75,
                        foot_y - high * (foot_y - top) + rng.uniform(-8, 8),
                        reach,
                        reach * rng.uniform(0.3, 0.42),
                    )
                )
    for pad_x, pad_y, rx, ry in pads:
        u, v = (x - pad_x) / rx, (y - pad_y) / ry
        needles = np.arctan2(v + 1.6, u) * 16 * rx / 60
        inside = np.hypot(u, v) + 0.1 * np.abs(needles % 1 - 0.5) < 1
        lay(inside & (v < 0.55), needles, 0.36 - 0.32 * v + 0.15 * u, (0.75, 0.0, 0.85))

    angle = p.along(lines)
    taper = p.streaks(p.fbm(rng, shape, 60, 4, 0.7), angle, 46 * unit)
    wobble = 0.1 * p.fbm(rng, shape, 30, 3)
    comb = np.abs((lines + wobble) % 1 * 2 - 1)
    pitch = 1 / (np.hypot(*np.gradient(lines)).clip(1e-4, 0.4))  # pixels from line to line
    black = p.smooth(-0.8, 0.8, (comb + 0.17 * taper - tone) * pitch * 0.5)
    edge = p.blur(ndimage.distance_transform_edt(~p.borders(region)), 1) / unit
    black = np.maximum(
        black, p.smooth(2.4, 1.4, edge + 0.5 * p.fbm(rng, shape, 30, 3)) * (region > 0)
    )
    fibre = p.fbm(rng, shape, 6, 6, 0.75, stretch=(16, 0.5))
    salt = p.fbm(rng, shape, 200, 3, 0.9)
    black *= 1 - 0.7 * p.smooth(1.6, 2.6, salt + 0.5 * fibre)
    hollow = p.smooth(0.55, 0.8, np.abs((lines * 0.5 + 0.25) % 1 * 2 - 1) + 0.25 * taper)
    paper = p.gradient(
        0.5 + 0.16 * p.fbm(rng, shape, 4, 5) + 0.1 * p.fbm(rng, shape, 120, 3),
        "e8d9b5",
        "f3e8cc",
        "faf3e0",
    )
    print_ = paper
    for n, (ink, dx, dy) in enumerate(
        (("e9a83a", 1.6, -1.0), ("d2452f", -1.4, 1.2), ("2a6f8f", 1.0, 1.6))
    ):
        block = np.roll(tint[..., n], (round(dy * unit), round(dx * unit)), (0, 1))
        cover = (
            block
            * (0.86 + 0.09 * fibre)
            * (1 - 0.35 * p.smooth(1.2, 2.3, salt + 0.6 * fibre))
            * (1 - 0.5 * hollow * (n != 0))
        )
        print_ = print_ * p.mix(np.ones(3), p.colour(ink), cover.clip(0, 1))
    key = p.colour("1c1a26") * (1 + 0.25 * p.fbm(rng, shape, 70, 3)[..., None])
    return p.relief(p.mix(print_, key, 0.95 * black), 0.5 * p.blur(black, unit) + 0.12 * salt, 0.12)
