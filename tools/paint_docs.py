"""Paint the README's pictures from the demo photo, with the product itself.

    python tools/paint_docs.py [--weights imagenet|PATH|builtin] [--only pictures|sheet]

Writes docs/photo.jpg, one picture for each of the README's presets, and docs/presets.jpg, a sheet
of all presets on the same photo.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).parent.parent
PHOTO = ROOT / "stylewatch/data/demo.jpg"
DOCS = ROOT / "docs"
SHOWN = ("nocturne", "watercolour", "woodcut")
WIDTH = 720
CELL = (360, 240)
COLUMNS = 4


def paint(presets: list[str], folder: Path, weights: str, *more: str) -> None:
    """`stylewatch apply` with these presets."""
    named = [option for preset in presets for option in ("--preset", preset)]
    source = ["--features", "builtin"] if weights == "builtin" else ["--weights", weights]
    command = ["apply", str(PHOTO), *named, *source, *more, "-o", str(folder)]
    subprocess.run([sys.executable, "-m", "stylewatch", *command], check=True)  # noqa: S603


def small(source: Path, target: Path) -> None:
    """A picture at the README's width."""
    with Image.open(source) as image:
        height = round(image.height * WIDTH / image.width)
        image.resize((WIDTH, height), Image.Resampling.LANCZOS).save(target, quality=88)


def sheet(folder: Path, presets: list[str]) -> None:
    """All presets on one photo, each with its name."""
    rows = -(-(len(presets) + 1) // COLUMNS)
    canvas = Image.new("RGB", (COLUMNS * CELL[0], rows * (CELL[1] + 24)), "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(16)
    pictures = [("the photo", PHOTO)]
    pictures += [(name, folder / f"{PHOTO.stem}--{name}.jpg") for name in presets]
    for number, (name, file) in enumerate(pictures):
        left, top = (number % COLUMNS) * CELL[0], (number // COLUMNS) * (CELL[1] + 24)
        with Image.open(file) as image:
            canvas.paste(image.convert("RGB").resize(CELL, Image.Resampling.LANCZOS), (left, top))
        draw.text((left + 6, top + CELL[1] + 3), name, fill="black", font=font)
    canvas.save(DOCS / "presets.jpg", quality=86)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="imagenet", help="imagenet, a file, or builtin")
    parser.add_argument("--only", choices=["pictures", "sheet"])
    options = parser.parse_args()
    DOCS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.only != "sheet":
            small(PHOTO, DOCS / "photo.jpg")
            paint(list(SHOWN), folder, options.weights, "--max-side", "768")
            for preset in SHOWN:
                small(folder / f"{PHOTO.stem}--{preset}.jpg", DOCS / f"{preset}.jpg")
        if options.only != "pictures":
            presets = sorted(path.stem for path in (ROOT / "presets").glob("*.yaml"))
            paint(presets, folder / "sheet", options.weights, "--max-side", "384")
            sheet(folder / "sheet", presets)


if __name__ == "__main__":
    main()
