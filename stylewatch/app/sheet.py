"""One photo in many styles, small and on one sheet, to choose by."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from stylewatch.app.order import Task, plan
from stylewatch.app.paint import OF_ALL, Painted, paint, without_frames
from stylewatch.domain import EngineSettings, Event, OutputSettings, Preset
from stylewatch.engine.images import Picture, read_picture
from stylewatch.engine.results import write_picture
from stylewatch.engine.sheets import sheet_of
from stylewatch.errors import PresetError, RenderError, StylewatchError, WeightsError
from stylewatch.folders.outputs import publish, write_temporary

_SHEET = Preset(name="presets", output=OutputSettings(format="jpeg", quality=90))


def paint_sheet(
    photo: Path,
    presets: Sequence[Preset],
    side: int,
    output: Path,
    engine: EngineSettings,
    on_event: Callable[[Event], None],
) -> tuple[Path, list[str], list[StylewatchError]]:
    """Paint `photo` in each preset at `side` pixels, all on one sheet.

    Gives the sheet's path; what the numbers on it stand for, if it has some in place of names; and
    why any presets are left out. `output` is its folder, or its own name.

    Raises:
        StylewatchError: the photo, all of the presets or `output` can't be used.
    """

    def told(event: Event) -> None:
        match event.kind:
            case "done":  # the small picture itself is nowhere to be found
                how = event.message.removeprefix(event.output)
                on_event(replace(event, message=event.preset + how, output=""))
            case "failed":  # is raised, or told below
                pass
            case _:
                on_event(event)

    [whole] = plan([photo], [_SHEET], output)
    extension = whole.extension or ".jpg"
    write_temporary(b"", whole.target, extension, os.getpid()).unlink()  # told before it is painted
    with TemporaryDirectory() as folder:
        alike: dict[str, list[Preset]] = {}  # but for their names
        for preset in presets:
            alike.setdefault(preset.digest, []).append(preset)
        small = [
            replace(one, settings=replace(one.settings, max_side=side))
            for one, *_ in alike.values()
        ]
        tasks = plan([photo], small, Path(folder))
        *_, last = tasks  # which is raised, if nothing could be painted
        pictures: list[tuple[str, np.ndarray]] = []
        failed: list[StylewatchError] = []
        for same, task in zip(alike.values(), tasks, strict=True):
            names = ", ".join(each.name for each in same)
            match result := _painted(task, engine, told):
                case Painted():
                    pictures.append((names, _read(result.output, engine)))
                case PresetError() | WeightsError() | RenderError() if pictures or task is not last:
                    failed.append(result)
                    words = f"not on the sheet: {names}: {result}"
                    reason, number = result.reason, task.number
                    on_event(Event(kind="failed", message=words, reason=reason, job_id=number))
                case _:
                    raise result
    pictures.insert(0, ("the photo", _read(photo, engine)))
    sheet, labels = sheet_of(pictures, side)
    titles = [title for title, _ in pictures]
    form, quality = whole.preset.output.format, whole.preset.output.quality
    assert form != "same"
    data = write_picture(Picture(sheet), format=form, quality=quality, keep_gps=False, facts={})
    temporary = write_temporary(data, whole.target, extension, os.getpid())
    return publish(temporary, whole.target, extension), titles * (titles != labels), failed


def _painted(
    task: Task, engine: EngineSettings, on_event: Callable[[Event], None]
) -> Painted | StylewatchError:
    try:
        return paint(task, engine, on_event)
    except OF_ALL as error:  # we have but one photo
        return without_frames(error)


def _read(file: Path, engine: EngineSettings) -> np.ndarray:
    return read_picture(file.read_bytes(), **engine.limits).on(255.0)
