"""A lake in autumn: washes that run, pool, dry to dark rims and grain in the paper."""

import numpy as np
import paint as p
from numpy.random import Generator


def draw(rng: Generator, size: int) -> p.Array:
    """Wash after wash, from the sky to the flowers in front and the drops."""
    shape = p.shape_of(size, 1.36)
    x, y = p.plane(shape)
    sheet, unit = p.Sheet(rng, shape), size / 1024
    shore = 445
    whole = np.ones(shape)
    sheet.wash(
        whole,
        p.gradient(y / 400 + 0.1 * p.fbm(rng, shape, 3, 4), "9cc4ea", "c8dcf0", "fae4d0", "fde0b4"),
        0.6,
        wet=0,
        edge=0,
    )
    sky = p.smooth(0.0, 0.5, p.fbm(rng, shape, 2.4, 5, stretch=(1.8, 1)) - (y - 170) / 260)
    sheet.wash(
        sky * (y < 330),
        p.gradient(0.5 + 0.3 * p.fbm(rng, shape, 2, 4), "4f8fdc", "6fa0e0", "a0a0dc"),
        0.55,
        wet=0.85,
        edge=0.5,
        granulate=0.3,
        flow=0.4,
    )
    cloud = p.smooth(0.6, 0.9, p.fbm(rng, shape, 2.6, 5, stretch=(2.6, 1)) + 0.2) * (y < 300)
    sheet.wash(
        cloud,
        p.gradient(0.5 + 0.3 * p.fbm(rng, shape, 3, 3), "9a8fc0", "d8a8b0", "8fa8d8"),
        0.42,
        wet=0.8,
        edge=0.3,
    )
    for level, height, cells, tones, strength in (
        (0.36, 0.075, 1.6, ("8f9fd8", "a8a0d8", "c8a8c8"), 0.5),
        (0.45, 0.05, 2.2, ("5f7fc0", "7f7fc0", "6f9fb8"), 0.55),
        (0.53, 0.032, 2.6, ("4f8a9a", "5f8f7a", "8a9f5a"), 0.6),
    ):
        line = p.ridge(rng, shape, level, height, cells, 6, 0.48)
        hill = p.below(line, shape) * (y < shore)
        fade = p.smooth(0, 190, y - line[None] / unit)
        sheet.wash(
            hill,
            p.mix(
                p.gradient(0.5 + 0.25 * p.fbm(rng, shape, 4, 4), *tones), np.ones(3), 0.65 * fade
            ),
            strength,
            wet=0.3,
            granulate=0.45,
        )
        form = p.fbm(rng, shape, 5, 4)
        face = (form - p.warp(form, 9 * unit, 5 * unit) > 0.12) & (hill > 0.5)
        sheet.wash(face, p.colour(tones[0]), 0.32 * strength, wet=0.35, rough=3)
    mirrored = sheet.density[np.clip(2 * int(shore * unit) - np.arange(shape[0]), 0, shape[0] - 1)]
    mirrored = p.blur(
        p.warp(mirrored, 7 * unit * p.fbm(rng, shape, 12, 3, stretch=(4, 0.4)), 0), 3 * unit
    )
    water = p.smooth(shore - 1, shore + 1, y)
    sheet.density = p.mix(sheet.density, 0.6 * mirrored, water)
    ripple = np.sin(
        np.log1p((y - shore).clip(0) / 40) * 26 + 1.4 * p.fbm(rng, shape, 4, 4, stretch=(2, 0.8))
    )
    sheet.wash(
        water,
        p.gradient((y - shore) / 330 + 0.1 * ripple, "a8d8e0", "4fa0c0", "4f88c0", "3f6fb0"),
        0.55,
        wet=0,
        edge=0,
        granulate=0.35,
    )
    sheet.wash((ripple > 0.35) * water, p.colour("5f96c8"), 0.3, wet=0.35, rough=3)
    for cx, foot, wide, tall, tones in (
        (95, 440, 78, 150, ("f2b52a", "e8862a", "c8503a")),
        (215, 446, 60, 118, ("e0602f", "c83f3a", "a8304a")),
        (20, 446, 66, 110, ("9fb03a", "5f8f3a", "3f6f4a")),
        (318, 450, 38, 74, ("e8c83a", "c8a02f", "8f9f3a")),
        (730, 447, 46, 88, ("d8a82f", "e87a2f", "b04f3a")),
        (838, 452, 74, 138, ("d84f3f", "b8304f", "7f2f5a")),
        (945, 455, 80, 165, ("f2c83a", "f09a2f", "d0602f")),
        (1010, 458, 60, 120, ("7f9f3a", "4f7f4a", "2f5f5a")),
        (400, 450, 24, 42, ("6f9f4a", "4f7f5a", "3f6f6a")),
        (655, 449, 26, 46, ("8f6f3a", "c88f3a", "6f7f4a")),
    ):
        clumps = [
            (
                cx + rng.normal(0, wide * 0.42),
                foot - tall * rng.uniform(0.22, 0.95),
                r := wide * rng.uniform(0.2, 0.42),
                r * 0.8,
            )
            for _ in range(26)
        ]
        which, lit = p.lumps(rng, shape, clumps, 0.4)
        sheet.lift(0.35 * p.blur((which >= 0).astype(np.float32), 1.5 * unit))
        local = p.gradient(0.45 - 0.35 * lit + 0.2 * p.fbm(rng, shape, 6, 3), *tones)
        sheet.wash(which >= 0, local, 0.7, wet=0.3, rough=3.2, granulate=0.25, edge=0.7, flow=0.4)
        sheet.wash((lit < -0.12) & (which >= 0), p.colour(tones[2]), 0.4, wet=0.45, rough=3)
        stem = (
            (np.abs(x - cx - 5 * np.sin(y / 30)) < 2.6) & (y > foot - tall * 0.4) & (y < foot + 2)
        )
        sheet.wash(stem, p.colour("4a3240"), 0.7, wet=0.1, rough=0.8)
        mirror = (
            np.hypot((x - cx) / wide, (y - foot - 0.45 * tall) / (0.5 * tall))
            + 0.35 * np.sin(y / 6 + p.fbm(rng, shape, 6, 2))
            < 0.95
        )
        sheet.wash(
            mirror & (y > foot + 3),
            p.gradient(0.5 + 0.3 * p.fbm(rng, shape, 5, 3), *tones),
            0.5,
            wet=0.5,
            rough=2.4,
        )
    bank = (np.abs(y - shore + 3) < 5 + 3 * p.fbm(rng, shape, 5, 4)) & (
        np.abs(x - 530) > 90 + 40 * p.fbm(rng, shape, 3, 2)
    )
    sheet.wash(
        bank,
        p.gradient(0.5 + 0.3 * p.fbm(rng, shape, 9, 3), "6f5a3a", "5a6f3a", "3f4a4a"),
        0.7,
        wet=0.25,
    )
    hut = (np.abs(x - 560) < 34) & (y > 405) & (y < 441)
    roof = (np.abs(x - 560) < 44 - 1.05 * (408 - y)) & (y <= 408) & (y > 372)
    sheet.lift(0.9 * p.blur((hut | roof).astype(np.float32), unit))
    sheet.wash(hut, p.gradient((x - 526) / 68, "fbe8c8", "e0b890", "a87f7a"), 0.8, wet=0, rough=0.6)
    sheet.wash(
        roof, p.gradient((x - 516) / 88, "d8603a", "b03f3a", "7a2f3f"), 0.95, wet=0.1, rough=0.6
    )
    sheet.wash(
        (np.abs(x - 548) < 5) & (np.abs(y - 424) < 9)
        | (np.abs(x - 575) < 6) & (y > 416) & (y < 441),
        p.colour("3a3048"),
        0.8,
        wet=0,
        rough=0.5,
    )
    sheet.wash(
        (np.abs(x - 560) < 30) & (y > 447) & (y < 500) & (ripple < 0.3),
        p.colour("c86f4a"),
        0.55,
        wet=0.4,
    )
    line = p.ridge(rng, shape, 0.86, 0.03, 1.6, 5)
    near = p.below(line, shape)
    sheet.lift(0.85 * near)
    sheet.wash(
        near,
        p.gradient(0.5 + 0.3 * p.fbm(rng, shape, 4, 4), "d8c03f", "8faf3a", "4f8a3f", "3a6a5a"),
        0.6,
        wet=0.3,
        granulate=0.35,
        flow=0.45,
    )
    for greens, thick, strength in (
        (("7fa03a", "4f7f3f"), 2.2, 0.7),
        (("2f5a4a", "5a7a2f"), 1.8, 0.85),
        (("b0903a", "7f5f3a"), 1.6, 0.7),
    ):
        blades = p.Canvas(rng, shape, p.colour("000000"))
        lean = -np.pi / 2 + 0.4 * p.fbm(rng, shape, 5, 2)
        blades.strokes(
            np.ones_like(sheet.density),
            lean,
            spacing=15,
            width=thick * 2,
            length=70,
            where=p.smooth(620, 720, y) * 0.8,
            dry=0.05,
            soft=0.6,
        )
        sheet.wash(
            blades.rgb[..., 0],
            p.gradient(0.5 + 0.4 * p.fbm(rng, shape, 6, 2), *greens),
            strength,
            wet=0,
            rough=0.4,
            edge=0.4,
        )
    for tone, count, radius in (
        ("e0304f", 40, 11),
        ("f0a02f", 34, 9),
        ("8f4fb8", 46, 8),
        ("f08fb0", 26, 10),
    ):
        places = np.stack(
            [
                rng.uniform(0, 1024, count),
                rng.uniform(640, 760, count),
                *(radius * rng.uniform(0.6, 1.3, (2, count))),
            ],
            -1,
        )
        which, _ = p.lumps(rng, shape, places, 0.45)
        sheet.lift(0.8 * p.blur((which >= 0).astype(np.float32), unit))
        sheet.wash(which >= 0, p.colour(tone), 0.85, wet=0.2, rough=1.6, edge=1.2)
        sheet.wash(
            p.lumps(rng, shape, places * (1, 1, 0.3, 0.3), 0.2)[0] >= 0,
            p.colour("4a2f3f"),
            0.6,
            wet=0.3,
            rough=0.8,
        )
    for tone in ("c8503a", "3f7fb8", "d8a82f", "4f7f3f"):
        drops = np.stack(
            [
                rng.uniform(0, 1024, 45),
                rng.uniform(0, 753, 45),
                *np.repeat(np.exp(rng.normal(0.6, 0.5, (1, 45))), 2, 0),
            ],
            -1,
        )
        sheet.wash(
            p.lumps(rng, shape, drops, 0.1)[0] >= 0,
            p.colour(tone),
            0.45,
            wet=0,
            rough=0.2,
            edge=1.2,
        )
    return sheet.rgb()
