"""How well, and how fast, the built-in features stand in for VGG19.

    python benchmarks/builtin.py quality --weights FILE --photos DIR --paintings DIR --out DIR
    python benchmarks/builtin.py speed --weights FILE

`quality` paints every photo in the manner of every painting with both networks, equal numbers of
evaluations, and measures both results with the whole VGG19 objective in float32. VGG19's results
are kept in `--out`, so that a later run with other built-in weights only paints its own half; not
those of other code or settings. The settings are those of `painting`, at 384 pixels and with more
evaluations.
"""

import argparse
import hashlib
import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from stylewatch.domain import EngineSettings
from stylewatch.jobs.child import CODE, set_environment

set_environment(EngineSettings())  # as a worker has it
import numpy as np
from keras import ops
from peer import plain_convolutions
from sheets import in_a_row, read

from stylewatch.engine.backend import Precision
from stylewatch.engine.features import STRIDE, FeatureNetwork, load_builtin, load_vgg19, preprocess
from stylewatch.engine.objective import Objective, Region
from stylewatch.engine.sizes import fit_size, resize
from stylewatch.engine.transfer import Style, plan_scales, stylize
from stylewatch.settings.presets import Presets

SETTINGS = replace(Presets.load()["painting"].settings, max_side=384, evaluations=(80, 40))
VERSION = hashlib.sha256(f"{CODE}{SETTINGS}".encode()).hexdigest()[:12]
"""Of what paints: code and settings."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("quality", "speed"))
    parser.add_argument("--weights", default="imagenet", help="VGG19's: imagenet or a file")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--paintings", type=Path)
    parser.add_argument("--out", type=Path, default=Path("build/builtin"))
    parser.add_argument("--pairs", type=int, default=0, help="only so many, spread evenly")
    parser.add_argument("--side", type=int, default=512, help="of the square that is timed")
    args = parser.parse_args()
    if args.what == "quality" and not (args.photos and args.paintings):
        parser.error("which --photos and which --paintings?")
    networks = {"builtin": load_builtin(), "vgg19": load_vgg19(args.weights)}
    if args.what == "speed":
        speed(networks, args.side)
    else:
        quality(networks, args)


# -- quality -------------------------------------------------------------------------------------


def quality(networks: dict[str, FeatureNetwork], args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    photos, paintings = (sorted(p.glob("*.jpg")) for p in (args.photos, args.paintings))
    pairs = [(a, b) for a in photos for b in paintings]
    if args.pairs:  # diagonals first, so that few pairs still show every picture
        pairs = [
            (a, paintings[(i + shift) % len(paintings)])
            for shift in range(len(paintings))
            for i, a in enumerate(photos)
        ][: args.pairs]
    rows = []
    for photo_file, painting_file in pairs:
        name = f"{photo_file.stem}--{painting_file.stem}"
        photo, painting = read(photo_file), read(painting_file)
        results = {}
        for which, network in networks.items():
            stored = args.out / f"{name}--{which}-{network.digest[:12]}-{VERSION}.npy"
            if not stored.exists():
                painted = stylize(photo, [Style(painting)], SETTINGS, network).rgb
                np.save(stored, painted.astype(np.float16))
            results[which] = np.load(stored).astype(np.float32)
        rows.append({"pair": name, **_compare(networks["vgg19"], photo, painting, results)})
        print(json.dumps(rows[-1]), flush=True)
        pictures = (photo, painting, results["builtin"], results["vgg19"])
        in_a_row(pictures, 288).save(args.out / f"{name}.png")
    _summary(rows)


def _compare(
    vgg19: FeatureNetwork, photo: np.ndarray, painting: np.ndarray, results: dict[str, np.ndarray]
) -> dict[str, float]:
    scale = plan_scales(photo.shape[1], photo.shape[0], SETTINGS)[-1]
    small = resize(photo, scale.width, scale.height)
    style = resize(painting, *fit_size(painting.shape[1], painting.shape[0], max(small.shape)))
    objective = Objective(
        vgg19, tuple(SETTINGS.content_layers), tuple(SETTINGS.style_layers), "max", "float32"
    )
    region = Region([(ops.convert_to_tensor(preprocess(style)), 1.0)], None)
    targets = objective.targets(_input(small), [region], SETTINGS)
    targets["bend"] = ops.zeros(())  # plain shares
    losses = {
        which: objective.evaluate(_input(rgb), targets)[0]
        for which, rgb in {"photo": small, **results}.items()
    }
    reductions = {w: float(np.log(losses["photo"].style / losses[w].style)) for w in results}
    means = {which: _lab(rgb.mean(axis=(0, 1))) for which, rgb in results.items()}
    return {
        **{f"style_{w}": round(losses[w].style, 4) for w in losses},
        **{f"content_{w}": round(losses[w].content, 4) for w in results},
        "share": round(reductions["builtin"] / reductions["vgg19"], 4),
        "delta_e": round(float(np.linalg.norm(means["builtin"] - means["vgg19"])), 2),
    }


def _input(rgb: np.ndarray) -> Any:
    height, width = rgb.shape[:2]
    padded = np.pad(rgb, ((0, -height % STRIDE), (0, -width % STRIDE), (0, 0)), mode="reflect")
    return ops.convert_to_tensor(preprocess(padded))


def _lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of one sRGB colour 0…255."""
    linear = np.where(rgb <= 10.31475, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    x, y, z = np.cbrt(np.maximum(to_xyz @ linear / [0.9505, 1.0, 1.089], 0.008856))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def _summary(rows: list[dict[str, Any]]) -> None:
    shares = np.array([row["share"] for row in rows])
    colours = np.array([row["delta_e"] for row in rows])
    print(
        f"{len(rows)} pairs: share of VGG19's fall in log style loss: mean {shares.mean():.3f}, "
        f"median {np.median(shares):.3f}, least {shares.min():.3f}, {np.sum(shares >= 0.8)} reach "
        f"0.8; colour: mean {colours.mean():.1f}, most {colours.max():.1f} dE, "
        f"{np.sum(colours <= 5)} within 5"
    )


# -- speed ---------------------------------------------------------------------------------------


def speed(networks: dict[str, FeatureNetwork], side: int, rounds: int = 5) -> None:
    """Best of `rounds` evaluations (loss and gradient), in turn in one run.

    VGG19 also with plain convolutions alone, as other programs evaluate it.
    """
    rng = np.random.default_rng(0)
    image, style = (
        ops.convert_to_tensor(rng.normal(0, 50, (1, side, side, 3)).astype(np.float32))
        for _ in range(2)
    )
    layers = tuple(SETTINGS.content_layers), tuple(SETTINGS.style_layers)
    names = {"built-in": networks["builtin"], "VGG19": networks["vgg19"]}
    for precision in get_args(Precision):
        objectives = {n: Objective(net, *layers, "max", precision) for n, net in names.items()}
        with plain_convolutions():
            objectives["plain VGG19"] = Objective(names["VGG19"], *layers, "max", precision)
        runs = {}
        for name, objective in objectives.items():
            targets = objective.targets(image, [Region([(style, 1.0)], None)], SETTINGS)
            runs[name] = partial(objective.evaluate, style, targets)
            runs[name]()
        best = dict.fromkeys(runs, float("inf"))
        for _ in range(rounds):
            for name, run in runs.items():
                started = time.perf_counter()
                ops.convert_to_numpy(run()[1])
                best[name] = min(best[name], time.perf_counter() - started)
        print(
            f"{side} px, {precision}: "
            + ", ".join(
                f"{name} {seconds:.3f} s ({seconds / best['built-in']:.2f} ×)"
                for name, seconds in best.items()
            )
        )


if __name__ == "__main__":
    main()
