"""Stained glass: a sun over hills and a river, leaded, with the light behind it."""

import numpy as np
import paint as p
from numpy.random import Generator
from scipy import ndimage


def draw(rng: Generator, size: int) -> p.Array:
    """Cut the scene into cells, give each its glass, then lay the leads and the light over it."""
    shape = p.shape_of(size, 1.12)
    x, y = p.plane(shape)
    x = x + 5 * p.fbm(rng, shape, 3, 2)
    y = y + 5 * p.fbm(rng, shape, 3, 2)
    unit, sun_x, sun_y = size / 1024, 610, 250
    r, turn = np.hypot(x - sun_x, y - sun_y), np.arctan2(y - sun_y, x - sun_x) / (2 * np.pi) + 0.5
    ring = np.searchsorted(
        [92, 130, 176, 232, 300, 382, 480, 600, 745, 900],
        r + 9 * np.sin(turn * 12 * np.pi + 1) + 6 * p.fbm(rng, shape, 4, 2),
    )
    sector = (turn + 0.007 * np.sin(r / 75)) * 16 % 16
    beam = sector % 1 < 0.36
    split = np.array([1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 4])[ring]
    label = ring * 1000 + np.where(
        beam,
        sector.astype(int),
        100 * (1 + ((sector % 1 - 0.36) / 0.64 * split).astype(int)) + sector.astype(int),
    )
    region = np.where(beam, 50, 0)
    rgb = p.gradient(r / 620, "bfe8f0", "5fb0e8", "2f78d8", "2350b8", "2a3a9a")
    rgb = np.where(
        beam[..., None], p.gradient(r / 640, "fff3b0", "ffd040", "ff9a3a", "f0606a", "b0489a"), rgb
    )
    spread = np.full(shape, 0.05, np.float32)

    def lay(
        number: int, mask: p.Mask, cells: p.Labels, colours: p.Array, variation: float = 0.07
    ) -> None:
        label[mask] = (cells + number * 100_000)[mask]
        region[mask] = number
        rgb[mask] = colours[mask]
        spread[mask] = variation

    def petals(
        number: int, cx: float, cy: float, radius: float, count: int, rings: int, *tones: str
    ) -> None:
        away, where = np.hypot(x - cx, y - cy) / radius, np.arctan2(y - cy, x - cx) / (2 * np.pi)
        ring = np.minimum((away * rings).astype(int), rings - 1)
        petal = np.floor((where + 0.5 * (ring % 2) / count) * count + 0.3).astype(int) % count
        phase = np.abs(((where + 0.5 * ((rings - 1) % 2) / count) * count + 0.3) % 1 - 0.5)
        mask = away < 1 - 0.22 * (phase * 2) ** 2
        lay(
            number,
            mask,
            np.where(ring == 0, 0, ring * 100 + petal),
            p.gradient(ring / (rings - 1) + 0 * x, *tones),
            0.045,
        )

    petals(1, sun_x, sun_y, 92, 16, 3, "fffbe0", "ffd84a", "ff9f2f")
    for number, level, amplitude, slope, tones in (
        (2, 0.52, 0.05, 0.10, ("7a5fc0", "5a7fd0", "8f6fb8")),
        (3, 0.60, 0.05, -0.12, ("2f8f8a", "3fa070", "1f7f9f")),
        (4, 0.72, 0.04, 0.14, ("4fae3f", "9fc83a", "2f8f4f")),
    ):
        line = p.ridge(rng, shape, level, amplitude, 1.1, 2) + slope * (
            np.arange(shape[1]) - shape[1] / 2
        )
        fall = y - line[None] / unit
        cells = p.panes(rng, x / 1.9 + 0.3 * fall, fall * 1.15, 42)
        lay(number, fall > 0, cells, p.gradient((cells * 0.618) % 1, *tones, tones[0]))
    stream = 470 + 150 * np.sin((y - 560) / 75) * p.smooth(560, 800, y) + (y - 560) * 0.1
    breadth = 8 + 0.55 * (y - 560).clip(0)
    cells = p.panes(rng, (x - stream) / 2.6, y * 1.25 + 14 * np.sin((x - stream) / 60), 30)
    lay(
        5,
        (np.abs(x - stream) < breadth) & (y > 585),
        cells,
        p.gradient((cells * 0.618) % 1, "1f6fd0", "4fb8e8", "bfeaf0", "2f8fd8"),
        0.06,
    )
    bend = 165 + 34 * np.sin(y / 130 + 0.6)
    girth = 20 + 24 * p.smooth(560, 800, y) + 10 * p.smooth(330, 200, y)
    cells = p.panes(rng, (x - bend) * 2.2, y / 1.8, 42)
    lay(
        6,
        (np.abs(x - bend) < girth) & (y > 230) & (y < 790),
        cells,
        p.gradient((cells * 0.618) % 1, "8a4a26", "b8682f", "6f3a4a"),
    )
    for number, (cx, cy, radius) in enumerate(
        (
            (40, 150, 105),
            (300, 215, 88),
            (150, 330, 82),
            (60, 290, 90),
            (255, 110, 100),
            (130, 60, 105),
            (165, 205, 100),
            (275, 305, 62),
        ),
        start=30,
    ):
        away, bearing = np.hypot(x - cx, y - cy), np.arctan2(y - cy, x - cx)
        cells = p.panes(rng, (bearing + 0.004 * away) * 52, away * 0.62, 24)
        tone = (cells * 0.618) % 1 * 0.75 + 0.25 * away / radius
        greens = p.gradient(tone, "c8d83a", "5fae2f", "1f8f4f", "0f6f5a", "f2b92f")
        lay(number, away < radius * (1 + 0.05 * np.cos(bearing * 9)), cells, greens, 0.07)
    for number, (cx, cy, radius, tones) in enumerate(
        (
            (90, 850, 78, ("ffd84a", "ff5f6a", "c81f4a")),
            (255, 880, 56, ("fff3b0", "ff9fd0", "c84fb0")),
            (880, 830, 84, ("ffd84a", "ff4f4f", "b01f3f")),
            (735, 880, 50, ("fffbe0", "ffb03f", "e8602f")),
            (965, 700, 48, ("fff3b0", "d88fff", "7f4fd0")),
            (370, 905, 40, ("ffd84a", "ff7f7f", "d02f4f")),
        ),
        start=8,
    ):
        petals(number, cx, cy, radius, 7, 3, *tones)

    label = np.unique(label, return_inverse=True)[1].reshape(shape)
    rgb = np.stack(
        [
            ndimage.mean(plane_, label, np.arange(label.max() + 1))
            for plane_ in np.moveaxis(rgb, -1, 0)
        ],
        -1,
    )
    rgb = p.vary(rng, rgb, hue=0.16, chroma=0.08)
    lab = p.oklab(rgb)
    lab[:, 0] += rng.normal(0, 1, len(lab)) * ndimage.mean(spread, label, np.arange(len(lab)))
    glass = p.srgb(lab)[label]
    heart = np.array(ndimage.center_of_mass(np.ones(shape), label, np.arange(len(lab))))
    breadth = np.sqrt(np.bincount(label.ravel())) / unit
    bearing = rng.uniform(0, 2 * np.pi, len(lab))
    across = (x - heart[label, 1] / unit) * np.cos(bearing)[label] + (
        y - heart[label, 0] / unit
    ) * np.sin(bearing)[label]
    across = across / breadth[label]
    fine, heavy = (
        p.blur(ndimage.distance_transform_edt(~p.borders(part)), 1.2) / unit
        for part in (label, region)
    )
    shift = rng.integers(0, 4096, (2, len(lab)))
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    rows, columns = (
        (rows + shift[0][label]) % (2 * shape[0]),
        (columns + shift[1][label]) % (2 * shape[1]),
    )
    own = np.minimum(rows, 2 * shape[0] - 1 - rows), np.minimum(columns, 2 * shape[1] - 1 - columns)
    streak = p.streaks(p.fbm(rng, shape, 5, 5), 0.9 * p.fbm(rng, shape, 2, 2), 60 * unit)[own]
    mottle = p.fbm(rng, shape, 9, 5, 0.6)[own]
    lab = p.oklab(glass)
    lab[..., 0] += (
        0.045 * streak + 0.026 * mottle + 0.05 * p.smooth(4, 26, fine) + 0.1 * across.clip(-1, 1)
    )
    lab[..., 1:] *= (1.12 + 0.13 * mottle)[..., None]
    glass = p.srgb(lab) * (0.55 + 0.5 * p.smooth(0, 11, fine))[..., None]
    glass = p.relief(glass, 1.1 * p.fbm(rng, shape, 26, 3)[own] + 0.9 * mottle, 0.14, 0.14)
    seeds = p.Canvas(rng, shape, p.colour("000000"))
    seeds.dots(np.ones_like(glass), spacing=13, radius=1.3, share=0.3)
    glass = p.mix(glass, np.ones(3), 0.55 * seeds.rgb[..., 0] * p.smooth(6, 9, fine))
    glass = glass + 0.16 * (1 - glass) * p.smooth(0, 900, 900 - r)[..., None] ** 2
    wide = 1.75 + 0.25 * p.fbm(rng, shape, 12, 2)
    lead = np.maximum(
        p.smooth(wide + 0.8, wide - 0.5, fine), p.smooth(wide + 2.3, wide + 1.0, heavy)
    )
    round_ = np.sqrt(np.clip(1.05 - np.minimum(fine / wide, heavy / (wide + 1.6)) ** 2, 0, 1))
    metal = p.relief(
        p.gradient(0.4 + 0.13 * p.fbm(rng, shape, 40, 3), "0b0b10", "1d1d26", "3a3a42"),
        p.blur(3 * round_, unit),
        0.6,
        0.1,
    )
    image = p.mix(glass, metal, lead)
    halo = p.blur(glass * (1 - lead)[..., None], 9 * unit)
    return 1 - (1 - np.clip(image, 0, 1)) * (1 - 0.3 * halo**1.5)
