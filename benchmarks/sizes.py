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

from sheets import in_a_row, read

from stylewatch.commands.painting import DEMO_PHOTO
from stylewatch.engine.features import load_builtin, load_vgg19
from stylewatch.engine.transfer import Style, stylize
from stylewatch.settings.presets import Presets

GAP = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photo", type=Path, default=DEMO_PHOTO)
    parser.add_argument("--style", type=Path, help="instead of the preset's own")
    parser.add_argument("--preset", default="painting")
    parser.add_argument("--sizes", type=int, nargs="+", default=[384, 1024, 2048])
    parser.add_argument("--weights", default="", help="imagenet or a file; none: built-in features")
    parser.add_argument("--shown", type=int, default=360, help="height of each in the sheet")
    parser.add_argument("--out", type=Path, default=Path("sizes.jpg"))
    options = parser.parse_args()
    preset = Presets.load()[options.preset]
    network = load_vgg19(options.weights) if options.weights else load_builtin()
    files = [options.style] if options.style else [style.image for style in preset.style]
    styles = [Style(read(file)) for file in files]
    pictures = []
    for side in options.sizes:
        photo = read(options.photo, side)
        settings = replace(preset.settings, max_side=side)
        started = time.monotonic()
        painting = stylize(photo, styles, settings, network)
        print(
            f"{side} px: {time.monotonic() - started:.1f} s, loss {painting.parts.loss:.4f} "
            f"(content {painting.parts.content:.4f}, style {painting.parts.style:.4f})",
            flush=True,
        )
        pictures.append(painting.rgb)
    in_a_row(pictures, options.shown, GAP).save(options.out, quality=88)


if __name__ == "__main__":
    main()
