"""What other programs do with a watched folder, re-created: the harness must see them fail.

`bare` is the watchdog handler of many tutorials: what is created is processed at once. `parsing`
works as OCRmyPDF's watcher does: only what comes while it runs, opened again each second until it
can be parsed, and dropped after five attempts; results are written under their final name.
"""

import contextlib
import io
import os
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer

PICTURES = (".png", ".jpg")


def bare(source: str, output: str) -> None:
    _watch(source, lambda path: _paint(path, Path(source), Path(output)))


def parsing(source: str, output: str) -> None:
    def handle(path: Path) -> None:
        for _ in range(5):
            with contextlib.suppress(Exception), Image.open(path) as image:
                image.load()
                break
            time.sleep(1.0)
        else:
            return
        with contextlib.suppress(Exception):
            _paint(path, Path(source), Path(output))

    _watch(source, handle)


def _watch(source: str, handle) -> None:
    class Handler(FileSystemEventHandler):
        def on_created(self, event) -> None:
            path = Path(os.fsdecode(event.src_path))
            if not event.is_directory and path.suffix in PICTURES:
                handle(path)

    observer = Observer()
    observer.schedule(Handler(), source, recursive=True)
    observer.start()
    while True:
        time.sleep(1.0)


def _paint(path: Path, source: Path, output: Path) -> None:
    sys.path.append(str(Path(__file__).parent / "plugin"))
    from echo import Echo

    with Image.open(io.BytesIO(path.read_bytes())) as image:
        pixels = np.asarray(image.convert("RGB"), np.float32)
    rgb = Echo().render(pixels, None, None).rgb.astype(np.uint8)
    result = (output / path.relative_to(source)).with_name(f"{path.stem}--echo.png")
    result.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(result)
