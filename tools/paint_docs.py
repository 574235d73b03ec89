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

from PIL import Image

ROOT = Path(__file__).parent.parent
PHOTO = ROOT / "stylewatch/data/demo.jpg"
DOCS = ROOT / "docs"
SHOWN = ("nocturne", "watercolour", "woodcut")
WIDTH = 720


def small(source: Path, target: Path) -> None:
    """A picture at the README's width."""
    with Image.open(source) as image:
        height = round(image.height * WIDTH / image.width)
        image.resize((WIDTH, height), Image.Resampling.LANCZOS).save(target, quality=88)


def stylewatch(weights: str, *command: str) -> None:
    """One of its commands."""
    source = ["--features", "builtin"] if weights == "builtin" else ["--weights", weights]
    subprocess.run([sys.executable, "-m", "stylewatch", *command, *source], check=True)  # noqa: S603


def main() -> None:
    """Paint the pictures and the sheet, or one of the two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="imagenet", help="imagenet, a file, or builtin")
    parser.add_argument("--only", choices=["pictures", "sheet"])
    options = parser.parse_args()
    DOCS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.only != "sheet":
            small(PHOTO, DOCS / "photo.jpg")
            named = [option for preset in SHOWN for option in ("--preset", preset)]
            size = ("--max-side", "768")
            stylewatch(options.weights, "apply", str(PHOTO), *named, *size, "-o", name)
            for preset in SHOWN:
                small(folder / f"{PHOTO.stem}--{preset}.jpg", DOCS / f"{preset}.jpg")
        if options.only != "pictures":
            stylewatch(options.weights, "presets", "sheet", "--side", "360", "-o", name)
            with Image.open(folder / f"{PHOTO.stem}--presets.jpg") as sheet:
                sheet.save(DOCS / "presets.jpg", quality=86)


if __name__ == "__main__":
    main()
