"""Render the demo's photo, a lighthouse in evening light: `draw_demo.py [FILE] [--size PIXELS]`.

A height field seen in perspective: for every column of the picture the terrain is sampled along
a ray over the ground, and each pixel takes the first sample that hides all behind it. Lengths
are metres; x is to the right, z away from the camera, heights are above the sea.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import paint as p
from numpy.random import Generator
from paint import Array
from PIL import Image
from scipy import ndimage

OVERSAMPLE = 1.5
LIMIT = 290_000
EYE = 7.5  # the camera's height
HORIZON = 0.575  # of the picture's height
FOCAL = 1.02  # in widths
SUN = np.array([-0.85, 0.19, -0.33]) / np.linalg.norm([-0.85, 0.19, -0.33])  # towards it
LIGHT, SKYLIGHT = np.array([1.5, 1.08, 0.66]), np.array([0.30, 0.40, 0.56])
TOWER_X, TOWER_Z, TOWER_FOOT, TOWER_HEIGHT = 23.0, 92.0, 8.6, 24.0

Field = Callable[[Array, Array], Array]  # of x and z
Point = tuple[float, float, float]


class Noise:
    """Fractal noise over an endless plane, from one periodic tile looked up at many scales."""

    def __init__(self, rng: Generator) -> None:
        self.cell = 4
        tile = rng.normal(size=(256, 256)).astype(np.float32)
        tile = ndimage.zoom(np.pad(tile, 4, mode="wrap"), self.cell, order=3)[16:-16, 16:-16]
        self.tile = tile / tile.std()

    def at(self, x: Array, z: Array, scale: float) -> Array:
        """One octave with features of `scale` metres."""
        factor = self.cell / scale
        places = [
            np.asarray(line, np.float64) * factor + shift
            for line, shift in ((z, 311 * scale % 997), (x, 173 * scale % 991))
        ]
        octave = ndimage.map_coordinates(self.tile, places, order=1, mode="grid-wrap")
        return np.asarray(octave, np.float32)

    def fractal(
        self,
        x: Array,
        z: Array,
        scale: float,
        octaves: int,
        gain: float = 0.5,
        *,
        ridged: bool = False,
    ) -> Array:
        """Octaves from `scale` metres downwards, about -1…1; ridged ones have crests."""
        total = np.zeros(x.shape, np.float32)
        weight, size = 1.0, np.ones(x.shape, np.float32)
        for octave in range(octaves):
            # each octave turned, so that the grid does not show
            c, s = np.cos(0.6 * octave), np.sin(0.6 * octave)
            layer = self.at(c * x + s * z, c * z - s * x, scale / 2**octave) * 0.6
            if ridged:
                layer = 1 - 2 * np.abs(layer)
                total += layer * weight * size
                size *= np.clip(0.5 + 0.5 * layer, 0.2, 1)
            else:
                total += layer * weight
            weight *= gain
        return total


def mountains(noise: Noise, x: Array, z: Array) -> Array:
    """The far shore: ranges that rise out of the sea."""
    rise = p.smooth(1650, 4300, z + 0.10 * x + 500 * noise.at(x, z, 2600))
    crest = noise.fractal(x, z, 2300, 9, 0.47, ridged=True)
    valley = p.smooth(100, 1500, np.abs(x - 0.10 * z - 150)) * 0.75 + 0.25
    return rise * valley * (470 + 400 * crest) - 25


def headland(noise: Noise, x: Array, z: Array) -> Array:
    """The rock that the lighthouse stands on, and skerries before it."""
    dx, dz = x - TOWER_X - 14, z - TOWER_Z - 6
    body = 1.32 - np.hypot(dx / np.where(dx < 0, 34, 74), dz / np.where(dz < 0, 30, 60))
    low = np.maximum.reduce(
        [
            0.75 - np.hypot((x + 27) / 22, (z - 62) / 12),
            0.5 - np.hypot((x + 9) / 8, (z - 27) / 5),
            0.36 - np.hypot((x + 1) / 12, (z - 74) / 6),
        ]
    )
    blocks = noise.fractal(x, z, 15, 5, 0.5, ridged=True)
    rough = noise.fractal(x, z, 6, 8, 0.56)
    cracks = 1 - np.abs(noise.fractal(x * 0.9 + 2 * rough, z * 0.9, 5, 3, 0.5)).clip(0, 1)
    slabs = noise.fractal(x * 1.4, z * 0.8, 5, 6, 0.5, ridged=True)
    rock: Array = (
        8.4 * np.tanh(1.9 * (body + 0.14 * blocks)) + 0.75 * rough + 0.5 * blocks - 0.5 * cracks**6
    )
    skerry = 2.6 * np.tanh(1.5 * (low + 0.30 * slabs - 0.1)) + 0.28 * rough - 0.3 * cracks**6
    rock = np.maximum(rock, np.where(low > -0.6, skerry, -9))
    rock += 0.10 * noise.fractal(x, z, 1.1, 5, 0.62)
    yard = p.smooth(19, 9, np.hypot(x - TOWER_X - 7, (z - TOWER_Z - 1) * 1.2))
    return rock + (TOWER_FOOT + 0.12 * rough - rock) * yard * (body > 0)


def shadow(
    height_at: Field, xs: tuple[float, float], zs: tuple[float, float], step: float, softness: float
) -> Field:
    """A function of x, z: 1 in sunlight, 0 in shade, from a map of the heights."""
    x, z = np.meshgrid(np.arange(xs[0], xs[1], step), np.arange(zs[0], zs[1], step))
    height = height_at(x, z)
    flat = SUN[[0, 2]] / np.hypot(*SUN[[0, 2]])
    climb = SUN[1] / np.hypot(*SUN[[0, 2]])
    worst = np.full(height.shape, -1e9, np.float32)
    for far in step * 1.25 ** np.arange(3, 26):
        ahead = [
            np.arange(height.shape[0])[:, None] + 0 * x + flat[1] * far / step,
            np.arange(height.shape[1])[None] + 0 * x + flat[0] * far / step,
        ]
        over = ndimage.map_coordinates(height, ahead, order=1, mode="constant", cval=-99)
        worst = np.maximum(worst, (over - height - climb * far) / (softness * far))
    lit = p.smooth(0.6, -0.4, worst)

    def at(px: Array, pz: Array) -> Array:
        places = [(pz - zs[0]) / step, (px - xs[0]) / step]
        share: Array = ndimage.map_coordinates(lit, places, order=1, mode="constant", cval=1)
        return share

    return at


def see(
    height_at: Field,
    near: float,
    far: float,
    steps: int,
    columns: int,
    rows: int,
    *,
    mirrored: bool = False,
) -> Array:
    """What each pixel sees of a height field: x, z and height there; NaN where it sees none."""
    pixel = (np.arange(columns) + 0.5) / columns - 0.5
    z = near * (far / near) ** (np.arange(steps) / (steps - 1))
    x = pixel[None] / FOCAL * z[:, None]
    grid_z = np.broadcast_to(z[:, None], x.shape)
    height = height_at(x, grid_z)
    up = (-height if mirrored else height) - EYE
    row = HORIZON * rows - up / grid_z * FOCAL * columns
    hidden = height <= 0
    if mirrored:  # seen in the water: hangs down from the shore
        top = np.maximum.accumulate(np.where(hidden, -1e9, row), 0)
    else:
        top = -np.minimum.accumulate(np.where(hidden, 1e9, row), 0)
    found = np.full((3, rows, columns), np.nan, np.float32)
    wanted = np.arange(rows) + 0.5
    for column in range(columns):
        line = top[:, column]
        first = np.searchsorted(line, wanted if mirrored else -wanted)
        seen = (first > 0) & (first < steps)
        index = first[seen]
        low, high = line[index - 1], line[index]
        share = ((wanted if mirrored else -wanted)[seen] - low) / np.maximum(high - low, 1e-6)
        share = np.where(low < -1e8, 1, share)
        for part, field in enumerate((x, grid_z, height)):
            found[part, seen, column] = (
                field[index - 1, column] * (1 - share) + field[index, column] * share
            )
    # where the ray meets the sea before it meets land, there is water
    climb = (HORIZON * rows - wanted[:, None]) / (FOCAL * columns) * found[1]
    met = -EYE - climb if mirrored else EYE + climb
    found[:, ~(met > 0.02)] = np.nan
    return found


def slopes(height_at: Field, x: Array, z: Array, reach: float) -> Array:
    """The surface's normal at points, over `reach` metres."""
    gx = (height_at(x + reach, z) - height_at(x - reach, z)) / (2 * reach)
    gz = (height_at(x, z + reach) - height_at(x, z - reach)) / (2 * reach)
    normal: Array = np.stack([-gx, np.ones_like(gx), -gz], -1)
    length: Array = np.linalg.norm(normal, axis=-1, keepdims=True)
    return normal / length


def shine(
    albedo: Array, normal: Array, lit: Array | float = 1.0, occlusion: Array | float = 1.0
) -> Array:
    """Sun and sky on a matt surface (linear light)."""
    sun = np.clip(normal @ SUN.astype(np.float32), 0, 1) * lit
    sky = (0.55 + 0.45 * normal[..., 1]) * occlusion
    bounce = np.clip(normal @ np.array([0.5, -0.1, 0.4], np.float32), 0, 1) * 0.08
    light: Array = sun[..., None] * LIGHT + sky[..., None] * SKYLIGHT + bounce[..., None] * LIGHT
    return albedo * light


def linear(text: str) -> Array:
    """A colour's light."""
    return p.colour(text) ** 2.2


def sky(noise: Noise, dx: Array, dy: Array) -> Array:
    """The sky's light in a direction: dx to the right, dy up, of a vector with z = 1."""
    length = np.sqrt(1 + dx * dx + dy * dy)
    up = np.clip(dy / length, 0, 1)
    side = p.smooth(0.75, -0.75, dx)  # towards the sun
    base = p.gradient(up**0.62 * 1.25, "f3d9b4", "c9cfd4", "8fb2d6", "5d8cc4", "3f6fae") ** 2.2
    warm = p.gradient(up**0.7 * 1.6, "ffc37a", "ffd9a8", "cfd3d8", "7ea4d0") ** 2.2
    light = p.mix(base, warm * 1.12, side * p.smooth(0.5, 0.0, up))
    ceiling = np.maximum(dy, 0.002) + 0.05  # cloud banks lie closer together to the horizon
    x, z = dx / ceiling, 1 / ceiling

    def density(x: Array, z: Array) -> Array:
        puffs = 1.25 * noise.fractal(x + 4.2, z + 2.7, 1.1, 9, 0.55)
        banks = noise.at(x + 1.3, z + 8.1, 4.6)
        clouds: Array = puffs + 0.6 * banks + 0.35 * p.smooth(0.30, 0.08, dy) - 0.1
        return clouds

    body = density(x, z)
    cover = p.smooth(0.0, 0.5, body)
    thick = body - density(x - 0.11, z - 0.06)
    tone = 0.55 + 0.6 * thick - 0.25 * p.smooth(0.2, 1.2, body)
    cloud = p.gradient(tone, "5f6f8f", "8f90aa", "d8a890", "ffd09a", "fff2d6") ** 2.2
    cloud = p.mix(cloud, light, 0.6 * p.smooth(0.14, 0.0, dy))
    light = p.mix(light, cloud, 0.92 * cover)
    veil = noise.fractal(0.5 * x + 0.2 * z, 1.7 * z, 3.1, 7, 0.6)
    return p.mix(
        light,
        linear("ffe9d0"),
        0.4 * p.smooth(0.0, 1.3, veil) * p.smooth(0.08, 0.25, dy) * (1 - cover),
    )


def haze(light: Array, distance: Array, dx: Array, thickness: float = 7800.0) -> Array:
    """Air between the eye and a thing."""
    air = p.mix(linear("b4c0d0"), linear("f4cf9f"), p.smooth(0.65, -0.75, dx))
    return p.mix(light, air, 1 - np.exp(-((distance / thickness) ** 1.15)))


def paint_mountains(noise: Noise, x: Array, z: Array, height: Array, lit_at: Field) -> Array:
    """The far shore's light: rock, heath, woods and snow."""

    def height_at(x: Array, z: Array) -> Array:
        return mountains(noise, x, z)

    normal = slopes(height_at, x, z, 5.0)
    broad = slopes(height_at, x, z, 40.0)
    patch = noise.fractal(x, z, 420, 6, 0.6)
    flat = normal[..., 1]
    rock = p.mix(linear("6d665f"), linear("96887a"), p.smooth(-0.8, 0.8, patch))
    wood = p.mix(
        linear("26361f"), linear("46522c"), p.smooth(-1, 1, noise.fractal(x, z, 60, 3, 0.7))
    )
    heath = p.mix(linear("6a6a38"), linear("8a7440"), p.smooth(-0.6, 0.8, patch))
    albedo = p.mix(rock, heath, p.smooth(0.72, 0.86, flat + 0.06 * patch))
    albedo = p.mix(
        albedo, wood, p.smooth(330, 230, height + 110 * patch) * p.smooth(0.58, 0.72, flat)
    )
    snow = p.smooth(520, 680, height + 110 * patch) * p.smooth(0.55, 0.72, flat + 0.08 * patch)
    albedo = p.mix(albedo, linear("eef0f4"), snow)
    tufts = 0.75 + 0.25 * noise.at(x, z, 9)
    occlusion = 0.7 + 0.3 * broad[..., 1]
    light = shine(
        albedo * np.where(snow > 0.5, 1, tufts)[..., None], normal, lit_at(x, z), occlusion
    )
    return haze(light, z, x / z)


def paint_headland(noise: Noise, x: Array, z: Array, height: Array, lit_at: Field) -> Array:
    """The near shore's light: rock with lichen, grass on top, weed where it is wet."""

    def height_at(x: Array, z: Array) -> Array:
        return headland(noise, x, z)

    normal = slopes(height_at, x, z, 0.14)
    broad = slopes(height_at, x, z, 0.9)
    patch = noise.fractal(x, z, 7, 7, 0.6)
    grainy = noise.fractal(x, z, 0.9, 4, 0.7)
    rock = (
        p.gradient(0.5 + 0.25 * patch + 0.12 * grainy, "4a423c", "7d7066", "a5968a", "c2b3a2")
        ** 2.2
    )
    lichen = p.smooth(0.5, 1.1, noise.fractal(x, z, 2.4, 5, 0.6)) * p.smooth(2.5, 4.5, height)
    rock = p.mix(rock, linear("b08a3a"), 0.55 * lichen)
    blades = noise.fractal(x * 3.2, z, 0.8, 4, 0.8)
    grass = (
        p.gradient(0.5 + 0.26 * blades + 0.2 * patch, "2c3018", "4f5528", "7d7438", "a8925a") ** 2.2
    )
    meadow = p.smooth(0.66, 0.84, broad[..., 1] + 0.10 * patch) * p.smooth(4.6, 6.6, height + patch)
    albedo = p.mix(rock, grass, meadow)
    wet = p.smooth(1.5, 0.5, height + 0.35 * patch)
    albedo = albedo * (1 - 0.68 * wet)[..., None]
    weed = p.smooth(0.9, 0.3, height + 0.3 * patch)
    albedo = p.mix(albedo, linear("1f1f14"), 0.7 * weed)
    occlusion = p.smooth(-0.2, 1.0, broad[..., 1]) * p.smooth(
        -1.2, 0.5, height - height_at(x, z) + normal[..., 1] - 0.6
    )
    light = shine(albedo, normal, lit_at(x, z), 0.45 + 0.55 * occlusion)
    return haze(light, z, x / z)


def over(picture: Array, light: Array, cover: Array) -> Array:
    """Lay something on the picture."""
    return p.mix(picture, light, np.clip(cover, 0, 1))


def place(x: float, y: float, z: float, columns: int, rows: int) -> tuple[float, float]:
    """A point in space as a pixel."""
    return (x / z * FOCAL + 0.5) * columns, HORIZON * rows - (y - EYE) / z * FOCAL * columns


class Building:
    """Walls and roofs in front of the lighthouse's rock, lit like everything else."""

    def __init__(self, picture: Array, rng: Generator) -> None:
        self.picture, self.rng = picture, rng
        self.rows, self.columns = picture.shape[:2]
        self.v, self.u = np.mgrid[: self.rows, : self.columns].astype(np.float32) + 0.5
        self.dirt = p.fbm(rng, picture.shape[:2], 90, 5, 0.6, stretch=(0.12, 1))

    def flat(
        self,
        corners: Sequence[Point],
        albedo: str,
        normal: Point,
        texture: Array | float = 0.0,
    ) -> None:
        """A polygon of points (x, y, z) with one normal; `texture` a field that varies it."""
        points = np.array([place(x, y, z, self.columns, self.rows) for x, y, z in corners])
        inside = np.full(self.picture.shape[:2], 1e9, np.float32)
        (ax, ay), (bx, by) = points[1] - points[0], points[2] - points[1]
        turn = np.sign(ax * by - ay * bx)
        for (ax, ay), (bx, by) in zip(points, np.roll(points, -1, 0), strict=True):
            length = np.hypot(bx - ax, by - ay)
            inside = np.minimum(
                inside, turn * ((bx - ax) * (self.v - ay) - (by - ay) * (self.u - ax)) / length
            )
        shaded = shine(
            linear(albedo),
            np.asarray(normal, np.float32) / np.linalg.norm(normal),
        )
        self.picture = over(
            self.picture, shaded * (1 + texture + 0.05 * self.dirt)[..., None], inside + 0.5
        )

    def upright(
        self,
        left: float,
        right: float,
        foot: float,
        top: float,
        z: float,
        albedo: str,
        normal: Point,
        texture: Array | float = 0.0,
    ) -> None:
        """A rectangle across the view."""
        corners = [(left, foot, z), (right, foot, z), (right, top, z), (left, top, z)]
        self.flat(corners, albedo, normal, texture)

    def box(
        self,
        left: float,
        right: float,
        foot: float,
        top: float,
        near: float,
        far: float,
        wall: str,
    ) -> None:
        """The two walls of a house that the camera sees: front and the side to the sun."""
        boards = 0.05 * np.sign(np.sin(self.v * 2 * np.pi / (0.004 * self.columns)))
        self.upright(left, right, foot, top, near, wall, (0, 0.05, -1), boards)
        if left > 0:
            self.flat(
                [(left, foot, far), (left, foot, near), (left, top, near), (left, top, far)],
                wall,
                (-1, 0.05, 0),
                texture=boards,
            )

    def tower(
        self,
        x: float,
        z: float,
        foot: float,
        top: float,
        low: float,
        high: float,
        colours: Callable[[Array], Array],
        light: float = 1.0,
        shift: float = 0.0,
    ) -> None:
        """A round, tapering wall; `colours` is a function of the height's share to albedo."""
        centre, base = place(x, foot, z, self.columns, self.rows)
        _, tip = place(x, top, z, self.columns, self.rows)
        share = (base - self.v) / (base - tip)
        radius = (low + (high - low) * share.clip(0, 1)) / z * FOCAL * self.columns
        # seen a little from below, so level rings bend up
        bend = share + shift * (1 - np.clip((self.u - centre) / radius, -1, 1) ** 2) ** 0.5 * share
        across = np.clip((self.u - centre) / radius, -1, 1)
        normal = np.stack([across, np.full_like(across, 0.06), -np.sqrt(1 - across**2)], -1)
        shaded = shine(colours(bend) ** 2.2, normal, light)
        cover = (
            np.minimum(radius - np.abs(self.u - centre), np.minimum(base - self.v, self.v - tip))
            + 0.5
        )
        self.picture = over(self.picture, shaded * (1 + 0.11 * self.dirt)[..., None], cover)


def plain(text: str) -> Callable[[Array], Array]:
    """One colour all the way up a tower."""
    return lambda share: p.colour(text) + 0 * share[..., None]


def lighthouse(building: Building) -> None:
    """The tower with its bands, gallery, lamp and dome, and the keeper's house."""
    x, z, foot, top = TOWER_X, TOWER_Z, TOWER_FOOT - 0.6, TOWER_FOOT + TOWER_HEIGHT
    house = (x + 5.5, x + 17, foot, foot + 4.2, z - 4, z + 4)
    building.box(*house, "efe6d6")
    left, right, low, eaves, near, far = house
    ridge = eaves + 3.4
    building.flat(
        [(left, low + 4.2, far), (left, low + 4.2, near), (left, ridge, z)], "efe6d6", (-1, 0.05, 0)
    )
    tiles = 0.1 * np.sin(building.v * 2 * np.pi / (0.0035 * building.columns)) + 0.06 * np.sin(
        building.u * 2 * np.pi / (0.004 * building.columns)
    )
    building.flat(
        [
            (left - 0.5, eaves - 0.2, near - 0.5),
            (right + 0.5, eaves - 0.2, near - 0.5),
            (right + 0.5, ridge, z),
            (left - 0.5, ridge, z),
        ],
        "96402e",
        (-0.25, 0.8, -0.6),
        texture=tiles,
    )
    for wx in (1.6, 4.1, 8.0):
        for inset, tone in ((0.12, "f4efe4"), (0, "27303c")):
            building.upright(
                left + wx - inset,
                left + wx + 1.0 + inset,
                low + 1.5 - inset,
                low + 3.1 + inset,
                near,
                tone,
                (0, 0, -1),
            )
    building.upright(left + 6.0, left + 7.1, low, low + 2.5, near, "2f5a6a", (0, 0, -1))
    building.upright(right - 3, right - 1.9, ridge - 0.9, ridge + 1.3, z, "8a4a3a", (-0.4, 0, -1))

    def bands(share: Array) -> Array:
        red = p.smooth(0.005, -0.005, np.abs((share * 5 + 0.5) % 2 - 1.0) - 0.5)
        return p.mix(p.colour("f6f1e6"), p.colour("a8302c"), red)

    building.tower(x, z, foot, foot + 1.4, 4.1, 4.0, plain("8f8678"))
    building.tower(x, z, foot + 1.2, top - 4.6, 3.35, 2.2, bands, shift=0.006)
    for high in (4.5, 10.2, 15.6):
        for inset, tone in ((0.13, "d8d0c0"), (0, "20262e")):
            building.upright(
                x - 1.0 - inset,
                x - 0.35 + inset,
                foot + high - inset,
                foot + high + 1.2 + inset,
                z,
                tone,
                (-0.2, 0, -1),
            )
    building.tower(x, z, top - 5.4, top - 4.6, 2.3, 3.1, plain("e8e0d0"))
    building.tower(x, z, top - 4.6, top - 4.3, 3.3, 3.3, plain("3a3a40"))
    building.tower(x, z, top - 4.3, top - 3.6, 1.75, 1.75, plain("a8302c"))
    building.tower(
        x,
        z,
        top - 3.6,
        top - 1.4,
        1.55,
        1.55,
        lambda s: p.gradient(0.5 + 0.5 * s, "5f7078", "ffe7b0", "ffd890"),
        light=0.7,
    )
    for bar in np.linspace(-1, 1, 6):
        building.upright(
            x + 1.5 * bar - 0.06,
            x + 1.5 * bar + 0.06,
            top - 3.6,
            top - 1.4,
            z,
            "3a3034",
            (-0.3, 0, -1),
        )
    building.tower(x, z, top - 1.4, top - 1.1, 1.85, 1.85, plain("7a2a26"))
    building.tower(x, z, top - 1.1, top + 0.5, 1.7, 0.25, plain("a8302a"))
    building.tower(x, z, top + 0.5, top + 1.8, 0.09, 0.05, plain("3a3a40"))
    for bar in np.linspace(-1, 1, 15):
        building.upright(
            x + 3.25 * bar - 0.035,
            x + 3.25 * bar + 0.035,
            top - 4.3,
            top - 3.2,
            z,
            "2f2f34",
            (-0.3, 0, -1),
        )
    for high in (3.25, 3.75):
        building.upright(x - 3.3, x + 3.3, top - high, top - high + 0.1, z, "2f2f34", (-0.3, 0, -1))
    for post in range(-8, 31, 2):  # a fence before the yard
        building.upright(
            x + post - 0.07,
            x + post + 0.07,
            foot - 0.5,
            foot + 1.0,
            z - 8.5,
            "e0d6c6",
            (-0.5, 0, -1),
        )


def boat(building: Building) -> None:
    """A small sailing boat out in the sound."""
    x, z = -31.0, 128.0
    building.flat(
        [(x - 3.6, 0.15, z), (x + 3.2, 0.15, z), (x + 4.4, 1.5, z), (x - 3.8, 1.2, z)],
        "243a5a",
        (-0.3, 0.1, -1),
    )
    building.flat(
        [(x - 3.8, 1.15, z), (x + 4.4, 1.42, z), (x + 4.4, 1.6, z), (x - 3.8, 1.35, z)],
        "f0e8d8",
        (-0.3, 0.3, -1),
    )
    building.flat(
        [(x + 0.3, 1.4, z), (x + 0.45, 1.4, z), (x + 0.45, 13.2, z), (x + 0.3, 13.2, z)],
        "5a4a3a",
        (-0.6, 0, -1),
    )
    building.flat(
        [(x + 0.2, 2.3, z), (x - 4.2, 2.5, z), (x + 0.2, 12.8, z)], "f2e6d0", (-0.75, 0.1, -0.6)
    )
    building.flat(
        [(x + 0.6, 12.0, z), (x + 4.2, 1.7, z), (x + 0.9, 2.6, z)], "e8d2b4", (-0.5, 0.1, -0.9)
    )


def render(rng: Generator, columns: int, rows: int) -> Array:
    """The whole picture in linear light."""
    noise = Noise(rng)
    v, u = np.mgrid[:rows, :columns].astype(np.float32) + 0.5
    dx = (u / columns - 0.5) / FOCAL
    dy = (HORIZON * rows - v) / columns / FOCAL

    def far(x: Array, z: Array) -> Array:
        return mountains(noise, x, z)

    def near(x: Array, z: Array) -> Array:
        return headland(noise, x, z)

    far_lit = shadow(far, (-4500, 4500), (600, 8500), 12.0, 0.05)
    near_lit = shadow(near, (-60, 160), (8, 190), 0.35, 0.08)

    def land(picture: Array, *, mirrored: bool) -> Array:
        for height_at, painted, lit, near_z, far_z, steps in (
            (far, paint_mountains, far_lit, 700, 8400, 1600),
            (near, paint_headland, near_lit, 11, 185, 1900),
        ):
            x, z, height = see(height_at, near_z, far_z, steps, columns, rows, mirrored=mirrored)
            seen = np.isfinite(x)
            picture[seen] = painted(noise, x[seen], z[seen], height[seen], lit)
            mask[seen] = z[seen]
        return picture

    mask = np.full((rows, columns), np.inf, np.float32)  # how far away the land is
    picture = land(sky(noise, dx, dy), mirrored=False)
    building = Building(picture, rng)
    lighthouse(building)
    boat(building)
    above, solid = building.picture, mask.copy()

    mask = np.full((rows, columns), np.inf, np.float32)
    below = sky(noise, dx, -dy)
    below = land(below, mirrored=True)
    drop = int(HORIZON * rows)
    flipped = above[np.clip(2 * drop - np.arange(rows) - 1, 0, rows - 1)]
    changed = np.abs(building.picture - picture).sum(-1) > 0.01
    changed = changed[np.clip(2 * drop - np.arange(rows) - 1, 0, rows - 1)]
    # tower and boat stand on lower ground than the eye: their mirror image hangs a little lower
    sink = round(2 * EYE / TOWER_Z * FOCAL * columns)
    below = p.mix(
        below,
        np.roll(flipped, sink, 0),
        p.blur(np.roll(changed, sink, 0).astype(np.float32), 1) * (v > drop + sink),
    )

    distance = EYE / np.maximum(-dy, 1e-4)
    x, z = dx * distance, distance
    fade = 1 / (1 + (z / 420) ** 1.3)
    waves = [noise.fractal(x * 0.55 + shift, z + 7 * shift, 3.4, 6, 0.62) for shift in (0, 91)]
    gusts = p.smooth(-0.9, 0.9, noise.fractal(x * 0.35, z, 60, 3)) * 0.7 + 0.45
    tilt_x, tilt_z = (wave * gusts * fade for wave in waves)
    shift_u = columns * 0.010 * tilt_x
    shift_v = columns * (0.030 * np.abs(tilt_z) + 0.004 * tilt_z + 0.022 * (1 - fade))
    mirror = p.warp(below, shift_u, shift_v)
    mirror = p.mix(mirror, np.roll(p.blur(mirror, (columns / 900)), 1, 0), 0.5)
    glance = np.clip(-dy / np.sqrt(1 + dx**2 + dy**2) + 0.10 * tilt_z, 0.01, 1)
    fresnel = 0.03 + 0.97 * (1 - glance) ** 5
    deep = p.mix(linear("12303a"), linear("2b5a5c"), p.smooth(-0.5, 1.2, tilt_z))
    sea = p.mix(deep, mirror, fresnel)
    glint = p.smooth(0.75, 1.5, tilt_x * -1.0 + 0.4 * tilt_z) * p.smooth(0.6, -0.6, dx) * fade
    sea = sea + (0.32 * glint)[..., None] * LIGHT
    shore = near(x, z)
    foam = (
        p.smooth(-1.1, -0.05, shore + 0.5 * noise.fractal(x, z, 2.2, 5, 0.7))
        * p.smooth(-0.2, 0.8, noise.fractal(x, z, 1.1, 5, 0.7))
        * (z < 190)
    )
    sea = p.mix(sea, linear("e6e2da"), 0.75 * foam)
    sea = haze(sea, np.minimum(z, 9000), dx, 8200)
    water = (v > drop) & ~np.isfinite(solid) & ~(np.abs(building.picture - picture).sum(-1) > 0.01)
    picture = np.where(water[..., None], sea, above)

    for bx, by, span in (
        (0.30, 0.21, 11),
        (0.345, 0.25, 8),
        (0.27, 0.29, 7),
        (0.50, 0.14, 6),
        (0.385, 0.2, 6),
    ):
        wing = span * columns / 1200
        away = (u - bx * columns) / wing
        arc = by * rows - wing * (0.42 * np.sin(np.abs(away).clip(0, 1) * 2.6) - 0.1 * away)
        bird = (1.3 - np.abs(v - arc) / (0.1 * wing * (1.15 - np.abs(away)).clip(0.05))).clip(
            0, 1
        ) * (np.abs(away) < 1)
        picture = over(picture, linear("4a4a55"), 0.85 * bird)
    return picture


def develop(rng: Generator, light: Array) -> Array:
    """From light to a photograph: bloom, a film's curve, a lens's corners, a sensor's grain."""
    rows, columns = light.shape[:2]
    bright = np.clip(light - 0.8, 0, 3)
    light = light + 0.35 * p.blur(bright, columns / 150) + 0.05 * p.blur(light, columns / 60)
    light = light * 1.02
    curve = light * (2.51 * light + 0.03) / (light * (2.43 * light + 0.59) + 0.14)
    photo = np.clip(curve, 0, 1) ** (1 / 2.2)
    v, u = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    photo = photo * (1 - 0.16 * (0.5 * (u * u + v * v)) ** 1.3)[..., None]
    lab = p.oklab(photo)
    lab[..., 1:] *= 1.12
    noise = p.grain(rng, (rows, columns), 1.0)
    return p.srgb(lab) + 0.005 * noise[..., None]


def draw(size: int = 1200) -> Image.Image:
    """The photo as a Pillow image; equal calls give equal pixels."""
    columns = round(size * OVERSAMPLE)
    rng = np.random.default_rng(7)
    return p.reduce(develop(rng, render(rng, columns, columns * 2 // 3)), size)


def main() -> None:
    """Draw it, and say how large the file is."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parents[1] / "stylewatch" / "data" / "demo.jpg"
    parser.add_argument("file", nargs="?", type=Path, default=default)
    parser.add_argument("--size", type=int, default=1200, help="width in pixels")
    options = parser.parse_args()
    p.save(draw(options.size), options.file, LIMIT)
    print(f"{options.file}: {options.file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
