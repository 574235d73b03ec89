"""Paint, paper and light: what the drawn style images are made of.

Arrays are float32, colours sRGB 0…1. Lengths are in units of 1/1024 of the longer side, so a
picture has the same composition at every size. All chance comes from the generator handed in.
"""

import io
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageFile
from scipy import ndimage
from scipy.spatial import KDTree

Array = NDArray[np.floating]
Mask = NDArray[np.bool]
Labels = NDArray[np.integer]
Shape = tuple[int, int]  # rows, columns
Window = tuple[slice, slice]
Jitter = Mapping[str, float]  # `vary`'s measures by name

# --- colour -------------------------------------------------------------------

_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def oklab(rgb: Array) -> Array:
    """SRGB to OKLab, where equal steps look equal: the place to mix and vary colours."""
    rgb = np.clip(rgb, 0, 1)
    linear: Array = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lab: Array = np.cbrt(linear @ _TO_LMS.T) @ _TO_LAB.T
    return lab.astype(np.float32)


def srgb(lab: Array) -> Array:
    """OKLab back to sRGB."""
    linear = (lab @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_LMS).T
    linear = np.clip(linear, 0, 1)
    return np.where(
        linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055
    ).astype(np.float32)


def colour(text: str) -> Array:
    """`"1b2a49"` as sRGB."""
    return np.array([int(text[n : n + 2], 16) for n in (0, 2, 4)], np.float32) / 255


def gradient(t: Array, *stops: str) -> Array:
    """Colours along evenly spaced stops, mixed in OKLab; `t` is an array of 0…1."""
    lab = oklab(np.array([colour(stop) for stop in stops]))
    place = np.clip(t, 0, 1) * (len(stops) - 1)
    low = np.minimum(place.astype(int), len(stops) - 2)
    share = (place - low)[..., None]
    return srgb(lab[low] * (1 - share) + lab[low + 1] * share)


def vary(
    rng: Generator,
    rgb: Array,
    lightness: float = 0.0,
    chroma: float = 0.0,
    hue: float = 0.0,
    tint: float = 0.0,
) -> Array:
    """Each row of colours a little different: lightness, saturation, hue, a random tint."""
    lab, n = oklab(rgb), len(rgb)
    angle = rng.normal(0, hue, n) if hue else np.zeros(n)
    stretch = np.exp(rng.normal(0, chroma, n)) if chroma else np.ones(n)
    a = (lab[:, 1] * np.cos(angle) - lab[:, 2] * np.sin(angle)) * stretch
    b = (lab[:, 1] * np.sin(angle) + lab[:, 2] * np.cos(angle)) * stretch
    lab = np.stack([lab[:, 0] + rng.normal(0, lightness, n), a, b], -1)
    lab[:, 1:] += rng.normal(0, tint, (n, 2)) if tint else 0
    return srgb(lab)


# --- fields -------------------------------------------------------------------


def plane(shape: Shape) -> tuple[Array, Array]:
    """X and y in units of the longer side / 1024."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32) * (1024 / max(shape))
    return x, y


def smooth(low: Array | float, high: Array | float, x: Array) -> Array:
    """0 below `low`, 1 above `high`, an S between (`low` may be the greater one)."""
    t: Array = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def mix(a: Array, b: Array, share: ArrayLike) -> Array:
    """From `a` to `b`; a share without colour axis serves all three channels."""
    part: Array = np.asarray(share, np.float32)
    deepest = max(a.ndim, b.ndim)
    if part.ndim == deepest - 1 or (deepest == 1 and part.ndim in (1, 2)):
        part = part[..., None]
    return a * (1 - part) + b * part


def fbm(
    rng: Generator,
    shape: Shape,
    cells: float = 3.0,
    octaves: int = 6,
    gain: float = 0.5,
    stretch: tuple[float, float] = (1.0, 1.0),
) -> Array:
    """Fractal noise of mean 0 and deviation 1, `cells` features along the longer side.

    `stretch` multiplies the cells along y and x. Consumes one number of the generator, so the
    picture does not depend on the size it is drawn at.
    """
    grids = np.random.default_rng(rng.integers(2**32))
    height, width = shape
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        across = cells * 2**octave / max(shape)
        gh, gw = height * across * stretch[0], width * across * stretch[1]
        if max(gh / height, gw / width) > 1:
            break
        grid = grids.normal(size=(int(gh) + 5, int(gw) + 5)).astype(np.float32)
        box = (1.5, 1.5, 1.5 + gw, 1.5 + gh)
        layer = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC, box=box)
        total += np.asarray(layer) * gain**octave
    return _standard(total)


def _standard(field: Array) -> Array:
    standard: Array = (field - field.mean()) / (field.std() + 1e-6)
    return standard


def grain(rng: Generator, shape: Shape, sigma: float) -> Array:
    """Fine noise of mean 0 and deviation 1, blurred to `sigma` pixels."""
    noise = rng.normal(size=shape).astype(np.float32)
    noise = ndimage.gaussian_filter(noise, sigma, mode="wrap")
    even: Array = noise / noise.std()
    return even


def blur(image: Array, sigma: float) -> Array:
    """Gaussian blur over the plane, colours apart."""
    axes = (sigma, sigma, 0)[: image.ndim]
    blurred: Array = ndimage.gaussian_filter(image, axes, mode="nearest")
    return blurred


def sample(field: np.ndarray, x: ArrayLike, y: ArrayLike) -> np.ndarray:
    """The field's values at points, nearest pixel."""
    height, width = field.shape[:2]
    column = np.clip(np.asarray(x, np.float64), 0, width - 1).astype(int)
    row = np.clip(np.asarray(y, np.float64), 0, height - 1).astype(int)
    values: np.ndarray = field[row, column]
    return values


def warp(field: Array, dx: Array | float, dy: Array | float) -> Array:
    """The field looked up `dx`, `dy` pixels further."""
    y, x = np.mgrid[: field.shape[0], : field.shape[1]].astype(np.float32)
    if field.ndim == 2:
        moved: Array = ndimage.map_coordinates(field, [y + dy, x + dx], order=1, mode="nearest")
        return moved
    return np.stack([warp(plane, dx, dy) for plane in np.moveaxis(field, -1, 0)], -1)


def along(potential: Array) -> Array:
    """The angle of the lines on which a potential is constant."""
    gy, gx = np.gradient(potential)
    angle: Array = np.arctan2(-gx, gy)
    return angle


def orientation(image: Array, sigma: float) -> tuple[Array, Array]:
    """The angle along the edges of a picture, smoothed over `sigma` pixels, and how sure it is."""
    grey = image @ np.array([0.3, 0.59, 0.11], np.float32) if image.ndim == 3 else image
    gy, gx = ndimage.sobel(grey, 0), ndimage.sobel(grey, 1)
    xx, yy, xy = (blur(part, sigma) for part in (gx * gx, gy * gy, gx * gy))
    angle = 0.5 * np.arctan2(2 * xy, xx - yy) + np.pi / 2
    return angle, np.sqrt((xx - yy) ** 2 + 4 * xy**2)


def blend_angles(a: Array, b: Array, share: Array) -> Array:
    """Between two fields of lines (an angle and its opposite are the same)."""
    sine = mix(np.sin(2 * a), np.sin(2 * b), share)
    return 0.5 * np.arctan2(sine, mix(np.cos(2 * a), np.cos(2 * b), share))


def lumps(
    rng: Generator,
    shape: Shape,
    places: ArrayLike,
    rough: float = 0.25,
    light: tuple[float, float] = (-0.6, -0.8),
) -> tuple[Labels, Array]:
    """Round masses such as trees and clouds, the later before the earlier.

    `places` are rows of x, y, radius x, radius y in units. Gives which mass covers a pixel (-1
    none) and how lit it is there, -1…1.
    """
    unit = max(shape) / 1024
    noise = fbm(rng, shape, 14, 6, 0.62)
    which = np.full(shape, -1)
    lit = np.zeros(shape, np.float32)
    for n, place in enumerate(np.asarray(places) * unit):
        cx, cy, rx, ry = place
        window = spot(shape, cx, cy, rx * 1.6, ry * 1.6)
        y, x = np.ogrid[window]
        dx, dy = (x - cx) / rx, (y - cy) / ry
        bump = noise[window]
        inside = np.hypot(dx, dy) + rough * bump < 1
        which[window][inside] = n
        lit[window][inside] = (dx * light[0] + dy * light[1] + 0.35 * bump)[inside]
    return which, lit


def spot(shape: Shape, cx: float, cy: float, rx: float, ry: float) -> Window:
    """The window around a point, within the picture."""
    y0, y1 = np.clip((int(cy - ry), int(cy + ry) + 2), 0, shape[0])
    x0, x1 = np.clip((int(cx - rx), int(cx + rx) + 2), 0, shape[1])
    return slice(y0, y1), slice(x0, x1)


def streaks(field: Array, angle: Array, length: float) -> Array:
    """A field smeared along the lines of the angles, over about `length` pixels."""
    for step in (length / 8, length / 4, length / 2):
        dx, dy = np.cos(angle) * step / 2, np.sin(angle) * step / 2
        field = (warp(field, dx, dy) + field + warp(field, -dx, -dy)) / 3
    return _standard(field)


def scatter(rng: Generator, size: Iterable[float], spacing: float) -> Array:
    """Points on a jittered grid, shuffled: (n, 2) x, y in units, some beyond the borders."""
    width, height = size
    y, x = np.mgrid[0 : int(height / spacing) + 2, 0 : int(width / spacing) + 2]
    points = np.stack([x.ravel(), y.ravel()], -1) + rng.uniform(-0.5, 0.5, (x.size, 2))
    return rng.permutation(points * spacing - spacing / 2)


def panes(rng: Generator, u: Array, v: Array, spacing: float) -> Labels:
    """Numbers of the cells around points jittered over the plane of two coordinate fields."""
    low = np.array([u.min(), v.min()]) - spacing
    size = np.array([u.max(), v.max()]) + spacing - low
    tree = KDTree(scatter(rng, size, spacing) + low)
    cells: Labels = tree.query(np.stack([u, v], -1))[1]
    return cells


def borders(labels: Labels) -> Mask:
    """Where neighbouring pixels bear different labels."""
    differ: Mask = ndimage.maximum_filter(labels, 3) != ndimage.minimum_filter(labels, 3)
    return differ


# --- the canvas ---------------------------------------------------------------


class Canvas:
    """A picture that strokes are laid on: colour, and the paint's height for the light."""

    def __init__(self, rng: Generator, shape: Shape, ground: Array) -> None:
        self.rng = rng
        self.shape = shape
        self.unit = max(shape) / 1024
        self.size = (shape[1] / self.unit, shape[0] / self.unit)
        self.rgb: Array = np.broadcast_to(ground, (*shape, 3)).astype(np.float32).copy()
        self.height: Array = np.zeros(shape, np.float32)
        self.tooth: Array = np.zeros(shape, np.float32)
        self.bristles = [self._brush() for _ in range(12)]

    def _brush(self) -> Array:
        """What the hairs of one brush leave: (across 64, along 256), 0…1, streaks along it."""
        noise = self.rng.normal(size=(64, 256)).astype(np.float32)
        streaks = ndimage.gaussian_filter(noise, (1.0, 40), mode="wrap")
        bands = ndimage.gaussian_filter(noise[::-1], (4, 60), mode="wrap")
        broken = ndimage.gaussian_filter(noise[:, ::-1], (0.8, 7), mode="wrap")
        mixed: Array = (
            streaks / streaks.std() + 0.7 * bands / bands.std() + 0.55 * broken / broken.std()
        )
        return mixed.argsort(axis=None).argsort().reshape(mixed.shape) / mixed.size

    def paths(self, points: Array, angle: Array, length: Array) -> Array:
        """Curves through the points that follow the angles: (n, 9, 2) in pixels."""
        half = 4
        stride = np.asarray(length)[..., None] * self.unit / (2 * half)
        start = points * self.unit
        before: list[Array] = []
        after = [start]
        for sign, line in ((-1, before), (1, after)):
            place, heading = start, None
            for _ in range(half):
                turn = sample(angle, place[:, 0], place[:, 1])
                step = np.stack([np.cos(turn), np.sin(turn)], -1)
                if heading is None:
                    step = step * sign
                else:  # lines have no direction: keep going the way we came
                    step = step * np.where((step * heading).sum(-1) < 0, -1, 1)[:, None]
                place, heading = place + step * stride, step
                line.append(place)
        return np.stack([*before[::-1], *after], 1)

    def inside(self, paths: Array, reference: Array, tolerance: float) -> tuple[Labels, Labels]:
        """Where each path should end so as not to run into another colour: (n,) first, last."""
        colours = oklab(sample(reference, paths[..., 0], paths[..., 1]))
        middle = paths.shape[1] // 2
        far = np.linalg.norm(colours - colours[:, middle : middle + 1], axis=-1) > tolerance
        steps = np.arange(paths.shape[1])
        first = np.where(far & (steps < middle), steps + 1, 0).max(1)
        last = np.where(far & (steps > middle), steps, paths.shape[1]).min(1)
        return first, last

    def strokes(
        self,
        reference: Array,
        angle: Array,
        *,
        spacing: float,
        width: float,
        length: float,
        where: Array | None = None,
        tolerance: float = 0.12,
        soft: float = 0.25,
        dry: float = 0.35,
        body: float = 1.0,
        streak: float = 0.05,
        opacity: float = 1.0,
        jitter: Jitter | None = None,
        detail: Array | None = None,
        toothy: float = 0.0,
    ) -> None:
        """A layer of strokes that take their colours from the reference and follow the angles.

        `where` is the chance of a stroke (0…1) as a field; `detail` scales width and length.
        """
        points = scatter(self.rng, self.size, spacing)
        x, y = points.T * self.unit
        if where is not None:
            points = points[self.rng.uniform(size=len(points)) < sample(where, x, y)]
            x, y = points.T * self.unit
        scale = np.exp(self.rng.normal(0, 0.22, len(points)))
        if detail is not None:
            scale = scale * sample(detail, x, y)
        base = sample(blur(reference, width * self.unit * 0.3), x, y)
        colours = vary(self.rng, base, **(jitter or {}))
        seconds = vary(self.rng, colours, lightness=streak, tint=streak * 0.4)
        paths = self.paths(points, angle, length * scale)
        first, last = self.inside(paths, reference, tolerance)
        for n in range(len(points)):
            self.stroke(
                paths[n, first[n] : max(last[n], first[n] + 2)],
                width * scale[n] * self.unit,
                colours[n],
                seconds[n],
                soft=soft,
                dry=dry,
                body=body,
                opacity=opacity,
                toothy=toothy,
            )

    def dots(
        self,
        reference: Array,
        *,
        spacing: float,
        radius: float,
        share: float = 1.0,
        jitter: Jitter | None = None,
        body: float = 1.0,
    ) -> None:
        """A layer of round touches: one per cell of a jittered grid, overlapping at random."""
        pitch = spacing * self.unit
        rows, columns = (int(side / pitch) + 3 for side in self.shape)
        y, x = np.mgrid[:rows, :columns].reshape(2, -1)
        cx, cy = ((line - 0.5 + self.rng.uniform(-0.5, 0.5, x.size)) * pitch for line in (x, y))
        colours = vary(self.rng, sample(blur(reference, pitch * 0.25), cx, cy), **(jitter or {}))
        reach = radius * self.unit * np.exp(self.rng.normal(0, 0.15, x.size))
        rank = np.where(self.rng.uniform(size=x.size) < share, self.rng.uniform(0, 1, x.size), -1)
        turn, squash = self.rng.uniform(0, np.pi, x.size), 1 + self.rng.uniform(0, 0.25, x.size)
        py, px = np.mgrid[: self.shape[0], : self.shape[1]].astype(np.float32)
        best = np.zeros(self.shape, np.float32)
        depth, owner = np.zeros_like(best), np.zeros(self.shape, int)
        for oy, ox in itertools.product(range(3), repeat=2):
            cell = (py / pitch).astype(int) * columns + (px / pitch).astype(int) + oy * columns + ox
            dx, dy = px - cx[cell], py - cy[cell]
            u = dx * np.cos(turn[cell]) + dy * np.sin(turn[cell])
            v = (dy * np.cos(turn[cell]) - dx * np.sin(turn[cell])) * squash[cell]
            inside = reach[cell] - np.hypot(u, v)
            take = (inside > 0) & (rank[cell] > best)
            best[take], depth[take], owner[take] = rank[cell][take], inside[take], cell[take]
        cover = smooth(0, 1.3, depth) * (best > 0)
        self.rgb = mix(self.rgb, colours[owner], cover)
        dome = np.sqrt(np.clip(depth / np.maximum(reach[owner], 1), 0, 1))
        self.height = mix(self.height, 0.2 * self.height + body * (0.5 + dome), cover)

    def stroke(
        self,
        path: Array,
        width: float,
        first: Array,
        second: Array,
        *,
        soft: float = 0.25,
        dry: float = 0.35,
        body: float = 1.0,
        opacity: float = 1.0,
        toothy: float = 0.0,
        taper: float = 0.35,
    ) -> None:
        """One stroke along a path (pixels), of two colours that the brush had not quite mixed."""
        half = max(width / 2, 0.6)
        spot = self._spot(path, half * 1.1)
        if spot is None:
            return
        window, along_px, across, total = spot
        u = along_px / max(total, 1e-3)
        # full soon after the start, thinner to the end, as when a hand lifts the brush
        profile = half * (0.6 + 0.4 * np.minimum(u * 6, 1)) * (1 - taper * np.maximum(u - 0.5, 0))
        side = np.clip(across / profile, -1.2, 1.2)
        edge = smooth(1.0, 1.0 - soft, np.abs(side))
        brush = self.bristles[int(self.rng.integers(len(self.bristles)))]
        row = (across / self.unit * 1.3 + 1000 + int(self.rng.integers(64))).astype(int) % 64
        column = (along_px / self.unit * 1.6 + int(self.rng.integers(256))).astype(int) % 256
        hair = brush[row, column]
        need = dry * (0.25 + 0.75 * u * u) + 0.25 * dry * np.abs(side)
        cover = edge * smooth(need - 0.18, need + 0.12, hair)
        if toothy:
            cover = cover * smooth(-0.5, 0.5, self.tooth[window] + (0.5 - toothy) * 2 + hair - 0.5)
        cover = (cover * opacity).astype(np.float32)
        shade = mix(first, second, np.broadcast_to(hair[..., None], (*hair.shape, 3)))
        self.rgb[window] = mix(self.rgb[window], shade, cover)
        ridge = 0.55 * smooth(0.55, 0.9, np.abs(side)) * (0.4 + u)
        paint = body * (0.5 + 0.1 * half / self.unit) * (0.2 + hair + ridge)
        self.height[window] = mix(self.height[window], 0.35 * self.height[window] + paint, cover)

    def _spot(self, path: Array, reach: float) -> tuple[Window, Array, Array, float] | None:
        """The window around a path, and each pixel's place along it and across it."""
        low = np.floor(path.min(0) - reach).astype(int)
        high = np.ceil(path.max(0) + reach).astype(int) + 1
        x0, y0 = np.maximum(low, 0)
        x1, y1 = np.minimum(high, (self.shape[1], self.shape[0]))
        if x1 <= x0 or y1 <= y0 or len(path) < 2:
            return None
        delta = np.diff(path, axis=0).astype(np.float32)
        length = np.maximum(np.hypot(*delta.T), 1e-3)
        dx, dy = (delta / length[:, None]).T[:, :, None, None]
        px = np.arange(x0, x1, dtype=np.float32)[None, None] - path[:-1, 0, None, None]
        py = np.arange(y0, y1, dtype=np.float32)[None, :, None] - path[:-1, 1, None, None]
        t = np.clip(px * dx + py * dy, 0, length[:, None, None])
        squared = (px - t * dx) ** 2 + (py - t * dy) ** 2
        nearest = squared.argmin(0)[None]
        before = np.concatenate([[0], np.cumsum(length)[:-1]])[:, None, None]
        pick = [
            np.take_along_axis(part, nearest, 0)[0]
            for part in (squared, t + before, px * dy - py * dx)
        ]
        across = np.copysign(np.sqrt(pick[0]), pick[2])
        return (slice(y0, y1), slice(x0, x1)), pick[1], across, float(length.sum())

    def lit(self, strength: float = 0.5, gloss: float = 0.08, weave: float = 0.0) -> Array:
        """The picture with light from the upper left over the paint's height."""
        height = blur(self.height, 0.6 * self.unit)
        if weave:
            height = height + weave * canvas_weave(self.shape, self.unit)
        return relief(self.rgb, height / self.unit, strength, gloss)


def relief(rgb: Array, height: Array, strength: float, gloss: float = 0.0) -> Array:
    """Light from the upper left over a height map."""
    gy, gx = np.gradient(height)
    slope = (gx + gy) * 0.7
    slope = np.tanh(slope * 1.5) / 1.5
    lit: Array = rgb * (1 + strength * slope[..., None])
    shine = smooth(0.25, 0.65, slope) * gloss
    return np.clip(lit + shine[..., None], 0, 1)


def canvas_weave(shape: Shape, unit: float, pitch: float = 3.2) -> Array:
    """The height of a linen canvas."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32) * (2 * np.pi / (pitch * unit))
    weave: Array = np.where(np.sin(x) * np.sin(y) > 0, np.abs(np.sin(x)), np.abs(np.sin(y)))
    return weave


# --- watercolour paper --------------------------------------------------------


class Sheet:
    """Watercolour paper: washes darken it as glass filters light, and settle in its hollows."""

    def __init__(self, rng: Generator, shape: Shape, tone: str = "fbf6ea") -> None:
        self.rng, self.shape, self.unit = rng, shape, max(shape) / 1024
        tooth = fbm(rng, shape, 300, 2, 0.8) + 0.6 * fbm(rng, shape, 150, 2)
        self.hollow: Array = tooth / (tooth.std() + 1e-6)
        self.paper = colour(tone) * (1 + 0.012 * self.hollow[..., None])
        self.density: Array = np.zeros((*shape, 3), np.float32)

    def wash(
        self,
        mask: Array | Mask,
        pigments: Array,
        strength: float = 1.0,
        *,
        wet: float = 0.3,
        edge: float = 0.8,
        granulate: float = 0.25,
        rough: float = 2.0,
        flow: float = 0.32,
    ) -> None:
        """One layer of paint: pigments an sRGB field or colour, `wet` the share of soft edges."""
        wobble = rough * (fbm(self.rng, self.shape, 22, 5) + 0.6 * fbm(self.rng, self.shape, 70, 3))
        inside = mask > 0.5
        far = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
        far = blur(far.astype(np.float32), self.unit) / self.unit + wobble
        bleed = smooth(0.2, 1.2, fbm(self.rng, self.shape, 3.5, 3) + 2.4 * (wet - 0.5)) * (wet > 0)
        soft = 0.8 + 30 * bleed
        cover = smooth(
            -1, 1, (far + 0.35 * soft * fbm(self.rng, self.shape, 9, 6, 0.6) * bleed) / soft
        )
        pool = 1 + flow * fbm(self.rng, self.shape, 3, 5)
        front = fbm(self.rng, self.shape, 2.6, 6, 0.6)
        bloom = smooth(1.15, 1.2, front) * (1 - smooth(1.2, 1.75, front))
        pool = pool * (1 - 0.35 * smooth(1.15, 1.3, front)) + 0.35 * bloom
        rim = edge * (1 - bleed) * (np.exp(-far.clip(0) / 2.2) + 0.35 * np.exp(-far.clip(0) / 9))
        settle = 1 + granulate * (0.6 * self.hollow + 0.3 * fbm(self.rng, self.shape, 40, 4))
        amount = strength * cover * np.clip(pool, 0.25, 2) * np.clip(settle, 0.2, 2.2) * (1 + rim)
        self.density += amount[..., None] * -np.log(np.clip(pigments, 0.02, 1))

    def lift(self, share: Array) -> None:
        """Take paint away again, as with a thirsty brush or wax."""
        self.density *= (1 - share)[..., None]

    def rgb(self) -> Array:
        """What the paper shows in even light."""
        return relief(self.paper * np.exp(-self.density), 0.3 * self.hollow, 0.07)


# --- putting together ---------------------------------------------------------


def ridge(
    rng: Generator,
    shape: Shape,
    level: float,
    amplitude: float,
    cells: float = 2.0,
    octaves: int = 7,
    gain: float = 0.5,
) -> Array:
    """A skyline: for each column the row (pixels) at which a range of hills begins."""
    line: Array = fbm(rng, (8, shape[1]), cells, octaves, gain)[4]
    return (level + amplitude * line) * shape[0]


def below(line: Array, shape: Shape, soft: float = 1.0) -> Array:
    """1 below a skyline, 0 above."""
    rows = np.arange(shape[0], dtype=np.float32)[:, None]
    return np.clip((rows - line[None]) / soft + 0.5, 0, 1)


def shape_of(size: int, aspect: float) -> Shape:
    """(rows, columns) of a picture with that longer side and width / height."""
    return (round(size / aspect), size) if aspect >= 1 else (size, round(size * aspect))


def reduce(image: Array, size: int) -> Image.Image:
    """The finished picture: brought to its longer side, as a Pillow image."""
    pixels = Image.fromarray((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8))
    scale = size / max(pixels.size)
    target = (round(pixels.width * scale), round(pixels.height * scale))
    return pixels.resize(target, Image.Resampling.LANCZOS)


def jpeg(picture: Image.Image, limit: int) -> bytes:
    """JPEG at the best quality that stays within `limit` bytes."""
    ImageFile.MAXBLOCK = 1 << 23  # optimised tables need the whole picture in one block
    for quality in range(92, 50, -2):
        buffer = io.BytesIO()
        picture.save(buffer, "jpeg", quality=quality, subsampling=0, optimize=True)
        if buffer.tell() <= limit:
            break
    return buffer.getvalue()


def save(picture: Image.Image, file: Path, limit: int) -> None:
    """Write a picture as JPEG of at most `limit` bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(jpeg(picture, limit))
