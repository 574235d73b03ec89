"""The same photo and style painted at several sizes, shown at one size: the look should stay.

    python benchmarks/sizes.py [--photo FILE] [--preset NAME] [--sizes 384 1024 2048] [--out FILE]

The photo is enlarged or shrunk to each size first, so that nothing but the size differs. With
`--style` any image replaces the preset's own.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

from stylewatch.domain import EngineSettings
from stylewatch.jobs.child import set_environment

set_environment(EngineSettings())  # as a worker has it

import numpy as np
from PIL import Image

from stylewatch.engine.features import load_builtin, load_vgg19
from stylewatch.engine.transfer import Style, stylize
from stylewatch.settings.presets import Presets

DEMO = Path(__file__).parents[1] / "stylewatch" / "data" / "demo.jpg"
GAP = 6


def scaled(image: Image.Image, side: int) -> Image.Image:
    factor = side / max(image.size)
    size = (round(image.width * factor), round(image.height * factor))
    return image.resize(size, Image.Resampling.LANCZOS)


def sheet_of(pictures: list[Image.Image], side: int) -> Image.Image:
    """All of them in a row, at one size."""
    shown = [scaled(picture, side) for picture in pictures]
    width = sum(picture.width for picture in shown) + GAP * (len(shown) - 1)
    sheet = Image.new("RGB", (width, shown[0].height), "white")
    left = 0
    for picture in shown:
        sheet.paste(picture, (left, 0))
        left += picture.width + GAP
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photo", type=Path, default=DEMO)
    parser.add_argument("--style", type=Path, help="instead of the preset's own")
    parser.add_argument("--preset", default="painting")
    parser.add_argument("--sizes", type=int, nargs="+", default=[384, 1024, 2048])
    parser.add_argument("--weights", default="", help="imagenet or a file; none: built-in features")
    parser.add_argument("--shown", type=int, default=480, help="width of each picture in the sheet")
    parser.add_argument("--keep", type=Path, help="a folder for the pictures themselves")
    parser.add_argument("--out", type=Path, default=Path("sizes.jpg"))
    options = parser.parse_args()
    preset = Presets.load()[options.preset]
    network = load_vgg19(options.weights) if options.weights else load_builtin()
    files = [options.style] if options.style else [style.image for style in preset.style]
    styles = [Style(np.asarray(Image.open(f).convert("RGB"), dtype=np.float32)) for f in files]
    photo = Image.open(options.photo).convert("RGB")
    pictures = []
    for side in options.sizes:
        content = np.asarray(scaled(photo, side), dtype=np.float32)
        settings = replace(preset.settings, max_side=side)
        started = time.monotonic()
        painting = stylize(content, styles, settings, network)
        print(
            f"{side} px: {time.monotonic() - started:.1f} s, loss {painting.parts.loss:.4f} "
            f"(content {painting.parts.content:.4f}, style {painting.parts.style:.4f})",
            flush=True,
        )
        pictures.append(Image.fromarray(painting.rgb.round().astype(np.uint8)))
        if options.keep:
            options.keep.mkdir(exist_ok=True)
            pictures[-1].save(options.keep / f"{options.photo.stem}-{side}.png")
    sheet_of(pictures, options.shown).save(options.out, quality=88)


if __name__ == "__main__":
    main()
