"""Mountains in mist: sumi washes and dry brush on old paper, a little indigo and cinnabar."""

from functools import partial

import numpy as np
import paint as p
from numpy.random import Generator


def draw(rng: Generator, size: int) -> p.Array:
    """Wash the ridges from far to near, then brush them dry; last the pines, birds and seal."""
    shape = p.shape_of(size, 1.28)
    x, y = p.plane(shape)
    unit = size / 1024
    sheet = p.Sheet(rng, shape, "efe3c8")
    fibres = p.streaks(p.fbm(rng, shape, 200, 3, 0.8), 3 * p.fbm(rng, shape, 6, 2), 36 * unit)
    sheet.wash(
        np.ones(shape),
        p.gradient(
            0.5 + 0.22 * p.fbm(rng, shape, 3, 6) + 0.1 * fibres, "c8a878", "e8d4ac", "f8ecd4"
        ),
        0.55,
        wet=0,
        edge=0,
        granulate=0.5,
    )
    haze = p.smooth(0.1, 1.2, p.fbm(rng, shape, 2.2, 5, stretch=(2.4, 1)))
    sheet.wash(haze > 0.5, p.colour("9aa0a0"), 0.4, wet=0.95, edge=0.2, granulate=0.4)
    sun = np.hypot(x - 690, y - 150) < 52
    sheet.wash(
        sun,
        p.gradient(0.5 + 0.3 * p.fbm(rng, shape, 5, 4), "d83a2a", "e86a3a"),
        0.85,
        wet=0.15,
        rough=1.5,
        granulate=0.5,
    )
    dark = np.array([0.10, 0.10, 0.12], np.float32)
    ridges = []
    for level, height, cells, tone, strength, fade in (
        (0.34, 0.10, 1.8, "8f9aa8", 0.75, 110),
        (0.44, 0.13, 2.3, "6f7f92", 0.85, 120),
        (0.57, 0.15, 2.0, "4a5260", 0.95, 150),
        (0.76, 0.10, 1.7, "3a3a3e", 1.0, 520),
    ):
        peaks = p.fbm(rng, (8, shape[1]), cells, 2)[4]
        rough = p.fbm(rng, (8, shape[1]), 7, 6, 0.55)[4]
        line = (level - height * np.abs(peaks) + 0.018 * rough) * shape[0]
        fall = y - line[None] / unit
        mist = p.smooth(fade, 0, fall + 26 * p.fbm(rng, shape, 4, 4))
        sheet.lift(0.8 * (fall > 0) * p.smooth(260, 40, fall))
        form = p.fbm(rng, shape, 5, 4) + 0.5 * p.fbm(rng, shape, 13, 3)
        shade = p.smooth(-0.4, 0.5, form - p.warp(form, 12 * unit, 4 * unit))
        sheet.wash(
            fall > 0,
            p.mix(np.ones(3), p.colour(tone), mist * (0.35 + 0.65 * shade)),
            strength,
            wet=0.2,
            granulate=0.5,
            edge=0.7,
        )
        warm = p.smooth(0.2, 1.0, p.fbm(rng, shape, 4, 4)) * mist
        sheet.wash(
            fall > 0,
            p.mix(np.ones(3), p.colour("d8945a" if level > 0.4 else "a8b8c8"), warm),
            0.5,
            wet=0.2,
            edge=0,
        )
        ridges.append((line, fall, mist, shade, form))
    canvas = p.Canvas(rng, shape, np.ones(3))
    canvas.rgb, canvas.tooth = sheet.rgb(), sheet.hollow
    black = np.broadcast_to(dark, canvas.rgb.shape)
    brush = partial(
        canvas.strokes,
        black,
        jitter={"lightness": 0.03},
        tolerance=9,
        streak=0.03,
        body=0.0,
        toothy=0.62,
    )
    for n, (line, fall, mist, shade, form) in enumerate(ridges):
        slope = np.arctan(np.gradient(line))
        down = np.where(slope >= 0, np.pi / 2 - 0.55, np.pi / 2 + 0.55) + 0.35 * form
        force = (0.25, 0.35, 0.6, 0.85)[n]
        next_fall = ridges[n + 1][1] if n < 3 else np.full(shape, -9.0)
        seen = (fall > 2) & (next_fall < 0)
        rim = (fall > -1) & (fall < 5) & (next_fall < 0)
        contour = np.broadcast_to(slope[None], shape)
        brush(
            contour,
            spacing=7,
            width=5,
            length=34,
            where=rim * 0.9,
            opacity=force,
            dry=0.4,
        )
        brush(
            down,
            spacing=9,
            width=5,
            length=34,
            where=seen * shade * mist * 0.9,
            opacity=0.75 * force,
            dry=0.55,
        )
        brush(
            down,
            spacing=7,
            width=2.6,
            length=22,
            where=seen * shade * mist,
            opacity=0.8 * force,
            dry=0.4,
        )
        brush(
            down * 0,
            spacing=8,
            width=4.5,
            length=5,
            where=seen * p.smooth(0.3, 1.2, p.fbm(rng, shape, 7, 3)) * (fall < 46) * 0.7,
            opacity=force,
            dry=0.15,
        )
        tiny = (fall > -3) & (fall < 16) & (next_fall < 0) & (p.fbm(rng, shape, 5, 3) > 0.1)
        brush(
            np.full(shape, np.pi / 2),
            spacing=8,
            width=3.2,
            length=15,
            where=tiny * 0.8,
            opacity=0.9 * force,
            dry=0.1,
        )
    for foot_x, foot_y, tall, lean in (
        (905, 640, 430, -150),
        (985, 690, 330, -40),
        (85, 720, 330, 95),
    ):
        _pine(rng, canvas, foot_x, foot_y, tall, lean, dark)
    for cx, cy, wing in ((520, 120, 15), (556, 142, 12), (488, 150, 10), (590, 104, 9)):
        for side in (-1, 1):
            path = (
                np.array(
                    [
                        (cx, cy),
                        (cx + side * wing * 0.5, cy - wing * 0.42),
                        (cx + side * wing, cy - wing * 0.15),
                    ]
                )
                * unit
            )
            canvas.stroke(path, 3 * unit, dark, dark, dry=0.1, body=0, taper=0.9)
    drops = np.stack(
        [
            rng.uniform(0, 1024, 90),
            rng.uniform(0, 800, 90),
            *np.repeat(np.exp(rng.normal(0.5, 0.6, (1, 90))), 2, 0),
        ],
        -1,
    )
    canvas.rgb = p.mix(
        canvas.rgb,
        dark,
        0.5 * p.blur((p.lumps(rng, shape, drops, 0.15)[0] >= 0).astype(np.float32), 0.7),
    )
    seal = (np.abs(x - 62) < 21) & (np.abs(y - 62) < 21)
    waves = np.abs((y - 62 + 3.5 * np.sin((x - 62) / 3.6)) % 10 - 5) < 1.7
    stamp = (
        seal
        & ~(waves & (np.abs(x - 62) < 16.5) & (np.abs(y - 62) < 16.5))
        & (p.fbm(rng, shape, 90, 3) > -1.4)
    )
    canvas.rgb = p.mix(canvas.rgb, p.colour("c0301f"), 0.88 * p.blur(stamp.astype(np.float32), 0.8))
    return p.relief(canvas.rgb, 0.25 * sheet.hollow + 0.1 * fibres, 0.1)


def _pine(
    rng: Generator,
    canvas: p.Canvas,
    foot_x: float,
    foot_y: float,
    tall: float,
    lean: float,
    dark: p.Array,
) -> None:
    """A pine: a dry trunk that leans, boughs, and fans of needles over pale green."""
    unit = canvas.unit
    rise = np.linspace(0, 1, 14)
    trunk = np.stack([foot_x + lean * rise**1.5 + 14 * np.sin(rise * 8), foot_y - tall * rise], -1)
    for n in range(len(trunk) - 2):
        wide = 27 * (1 - 0.8 * rise[n])
        canvas.stroke(
            trunk[n : n + 3] * unit,
            wide * unit,
            dark,
            dark + 0.3,
            dry=0.25,
            body=0,
            taper=0.1,
            toothy=0.8,
        )
        for _ in range(5):
            at = trunk[n] + rng.normal(0, (wide * 0.25, 6))
            turn = rng.uniform(-0.9, 0.9) + np.pi / 2
            path = at + np.array([[-1], [0], [1]]) * 5 * (np.cos(turn), np.sin(turn))
            canvas.stroke(path * unit, 3.4 * unit, dark * 0.6, dark, dry=0.1, body=0, opacity=0.85)
    for high in np.linspace(0.36, 1.02, 9):
        start = np.array([np.interp(high, rise, trunk[:, 0]), np.interp(high, rise, trunk[:, 1])])
        for side in rng.permutation((-1, 1))[: 2 if high > 0.5 else 1]:
            reach = tall * rng.uniform(0.16, 0.36) * (1.25 - 0.7 * high)
            bough = (
                start
                + np.linspace(0, 1, 7)[:, None] * (side * reach, -0.12 * reach)
                + np.sin(np.linspace(0, 5, 7))[:, None] * (0, 5)
            )
            canvas.stroke(bough * unit, 8 * unit, dark, dark + 0.15, dry=0.4, body=0, taper=0.8)
            for t in np.linspace(0.25, 1.08, max(3, int(reach / 15))):
                hub = (
                    start
                    + t * np.array((side * reach, -0.12 * reach))
                    + rng.normal(0, (6, 7))
                    - (0, 5)
                )
                fan = rng.uniform(15, 24)
                wash = hub + np.array([[-0.8, -0.3], [0, -0.5], [0.8, -0.3]]) * fan
                force = rng.uniform(0.45, 0.95)
                canvas.stroke(
                    wash * unit,
                    1.3 * fan * unit,
                    p.colour("4f7468"),
                    p.colour("8a9a7a"),
                    dry=0.1,
                    body=0,
                    opacity=0.4,
                    soft=0.9,
                )
                for turn in np.linspace(-np.pi - 0.25, 0.25, 17) + rng.normal(0, 0.07, 17):
                    tip = hub + fan * rng.uniform(0.8, 1.1) * np.array(
                        (np.cos(turn), 0.75 * np.sin(turn))
                    )
                    path = np.stack([hub, (hub + tip) / 2 + (0, -1), tip])
                    canvas.stroke(
                        path * unit, 2 * unit, dark, dark, dry=0.0, body=0, taper=0.9, opacity=force
                    )
