"""`stylewatch presets`: the styles there are, and one's own."""
# ruff: noqa: PLC0415  (what a command needs is imported when it runs)

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from stylewatch.commands.answers import answer, folded, note, report_errors, say_noted
from stylewatch.commands.known import (
    NAME_OR_FILE,
    PresetName,
    preset_dirs,
    preset_features,
    preset_names,
    preset_option,
)
from stylewatch.commands.options import (
    Features,
    Json,
    Output,
    PresetsOf,
    Settings,
    Styles,
    Weights,
    as_typed,
    command,
    given,
    group,
)
from stylewatch.commands.painting import DEMO_PHOTO, bars, paint_and_tell
from stylewatch.domain import EngineSettings
from stylewatch.errors import ConfigError, ExitCode, PresetError

app = group("List, check and try presets: the shipped ones and your own.")

Photo = Annotated[
    Path | None,
    typer.Argument(
        metavar="PHOTO", parser=as_typed, help="The photo to paint; otherwise the demo's."
    ),
]
Named = Annotated[list[str] | None, preset_option(f"{NAME_OR_FILE} Repeatable.")]
Side = Annotated[
    int, typer.Option(min=64, max=1024, metavar="PIXELS", help="Longer side of each sample.")
]


@command(app, "list")
def presets_list(*, config: PresetsOf = None, as_json: Json = False) -> None:
    """List all presets: the shipped ones and your own.

    Your own lie in ~/.config/stylewatch/presets, or in a folder that the config's `presets:` names.
    """
    from stylewatch.faces.lines import visible
    from stylewatch.settings.presets import known_presets

    sound, broken = known_presets(preset_dirs(config)).sorted_out()
    told = {name: preset.description for name, preset in sound.items()}
    told |= {name: f"broken: {error}" for name, error in broken.items()}
    rows = [(name, told[name], sound.get(name)) for name in sorted(told)]
    longest = max((len(name) for name, _, _ in rows), default=0)
    lines: list[str] = []
    for name, description, preset in rows:
        lacks = "  (needs --style IMAGE)" if preset and preset.lacks_style else ""
        line = f"{name:<{longest}}  {visible(' '.join(description.split()))}{lacks}"
        lines.append(folded(line, longest + 2))
    text = "\n".join(lines)
    data = [
        {
            "name": name,
            "description": preset.description if preset else "",
            "has_style": bool(preset and preset.style),
            "problem": str(broken[name]) if name in broken else None,
        }
        for name, _, preset in rows
    ]
    answer(data, text, as_json=as_json)


@command(app, "show")
def presets_show(
    name: PresetName,
    *,
    config: PresetsOf = None,
    as_json: Json = False,
) -> None:
    """Show every value of a preset, and which preset it comes from.

    If a value comes from a preset that another one of the same name hides, its file is shown.
    """
    from stylewatch.faces.lines import jsonable, visible
    from stylewatch.settings.presets import find_preset

    presets, name = find_preset(name, preset_dirs(config))
    rows = presets.explain(name)
    lines = [f"# {visible(presets.origin(name))}"]
    for row in rows:
        value = visible(json.dumps(jsonable(row.value), ensure_ascii=False))
        source = ""
        if row.preset:  # its name may stand for another: one's own that builds on it
            named = presets.origin(row.preset) == row.file
            source = f"   # {visible(row.preset if named else row.file)}"
        lines.append(f"{row.key}: {value}{source}")
    data = {row.key: row._asdict() for row in rows}
    answer(data, "\n".join(lines), as_json=as_json)


@command(app, "check")
def presets_check(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            autocompletion=preset_names,
            help="Presets, or their YAML files; none means all.",
        ),
    ] = None,
    *,
    config: PresetsOf = None,
    as_json: Json = False,
) -> None:
    """Check presets: every error with its file, line, column and key.

    Also opens their bases and the images that they name, and goes by `features:` in the config.

    Examples:
      stylewatch presets check
      stylewatch presets check ink ./mine.yaml
    """
    from stylewatch.engine.images import read_picture
    from stylewatch.settings.presets import find_preset, known_presets

    def look(image: Path) -> None:
        read_picture(image.read_bytes(), **EngineSettings().limits)

    dirs = preset_dirs(config)
    engine = preset_features(config)
    known = known_presets(dirs)
    asked = names or [*known]
    errors: list[ConfigError] = []
    for called in asked:
        try:
            presets, name = find_preset(called, dirs) if names else (known, called)
            presets.resolved(name, look, engine)
        except PresetError as error:
            errors.append(error)
    fine = f"{asked[0]} is fine" if len(asked) == 1 else f"{len(asked)} presets are fine"
    report_errors(errors, fine, as_json=as_json)


@command(app, "preview")
def presets_preview(
    name: PresetName,
    photo: Photo = None,
    *,
    output: Output = Path(),
    side: Side = 256,
    weights: Weights = None,
    features: Features = None,
    settings: Settings = None,
    config: PresetsOf = None,
) -> None:
    """Paint a small sample, to see what a preset does before a night's work.

    What it shows at 256 or 384 pixels is what the whole picture will look like.

    Examples:
      stylewatch presets preview ink beach.jpg
      stylewatch presets preview ./mine.yaml beach.jpg --side 384
      stylewatch presets preview ink beach.jpg --set strength=50
    """
    from stylewatch.app.order import choose_presets, parse_settings, plan

    changes = parse_settings(settings or []) | given(max_side=side, features=features)
    [preset] = choose_presets([name], [], changes, preset_dirs(config))
    preset = replace(preset, name=f"{preset.name}-preview")
    paint_and_tell(plan([photo or DEMO_PHOTO], [preset], output), weights, as_json=False)


@command(app, "sheet")
def presets_sheet(
    photo: Photo = None,
    *,
    preset: Named = None,
    style: Styles = None,
    output: Output = Path(),
    side: Side = 256,
    weights: Weights = None,
    features: Features = None,
    config: PresetsOf = None,
) -> None:
    """Paint a photo in every preset, or in styles of yours, small and on one sheet, to choose by.

    The sheet is PHOTO--presets.jpg in the folder OUT, or the file OUT. It takes as long as a few
    large pictures; with --preset or --style only what you name is painted. What can't be painted is
    left out, with a note; if you named it, the exit code is 1. If a name does not fit below its
    picture, the pictures are numbered, and a list says which is which.

    Examples:
      stylewatch presets sheet beach.jpg
      stylewatch presets sheet beach.jpg -p ink -p ./mine.yaml --side 384 -o sheet.png
      stylewatch presets sheet beach.jpg --style monet.jpg --style hokusai.jpg
    """
    from stylewatch.app.order import choose_presets, engine_for
    from stylewatch.app.paint import set_up

    set_up(EngineSettings())  # before NumPy is imported, whose libraries read it then
    from stylewatch.app.sheet import paint_sheet

    dirs = preset_dirs(config)
    names = preset or ([] if style else _with_style(dirs))
    presets = choose_presets(names, style or [], given(features=features), dirs)
    with bars() as on_event:
        sheet, numbered, failed = paint_sheet(
            photo or DEMO_PHOTO, presets, side, output, engine_for(weights), on_event
        )
    for number, name in enumerate(numbered, start=1):
        note(f"{number} is {name}")
    note(f"the sheet is {sheet}")
    say_noted(sheet)
    if failed and (preset or style):
        raise typer.Exit(ExitCode.FAILED)


def _with_style(dirs: list[Path]) -> list[str]:
    """All presets that can be painted in as they are; of the broken ones is told."""
    from stylewatch.settings.presets import known_presets

    sound, broken = known_presets(dirs).sorted_out()
    for name, error in broken.items():
        note(f"not on the sheet: {name}: {error}")
    return [name for name, each in sound.items() if not each.lacks_style]
