"""Draw the style images of the shipped presets: `draw_styles.py [FOLDER] [--only NAME]`."""

import argparse
import zlib
from importlib import import_module
from pathlib import Path

import numpy as np
import paint
from PIL import Image

OVERSAMPLE = 1.5
LIMIT = 400_000  # bytes a file
STYLES = {
    file.stem: import_module(f"styles.{file.stem}").draw
    for file in sorted(Path(__file__).with_name("styles").glob("*.py"))
}


def draw(name: str, size: int = 1024) -> Image.Image:
    """The style image of that name; equal calls give equal pixels."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return paint.reduce(STYLES[name](rng, round(size * OVERSAMPLE)), size)


def main() -> None:
    """Draw all of them, or one, and say how large the files are."""
    parser = argparse.ArgumentParser(description=__doc__)
    presets = Path(__file__).parents[1] / "presets"
    parser.add_argument("folder", nargs="?", type=Path, default=presets)
    parser.add_argument("--only", choices=STYLES, help="draw this one only")
    parser.add_argument("--size", type=int, default=1024, help="longer side in pixels")
    options = parser.parse_args()
    for name in [options.only] if options.only else STYLES:
        file = options.folder / f"{name}.jpg"
        paint.save(draw(name, options.size), file, LIMIT)
        print(f"{file}: {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
