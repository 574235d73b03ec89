"""Commands that paint here and now: demo and apply."""
# ruff: noqa: PLC0415  (what a command needs is imported when it runs)

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylewatch.commands.answers import are_together, chatter, note, say_json, say_path
from stylewatch.commands.known import PresetNames, preset_dirs, preset_option
from stylewatch.commands.options import (
    DEFAULT_PRESET,
    ENGINE,
    TRY,
    Features,
    GlobalOptions,
    Json,
    Output,
    PresetsOf,
    Settings,
    Styles,
    Weights,
    as_typed,
    command,
    given,
)
from stylewatch.errors import ConfigError, ExitCode, StylewatchError

if TYPE_CHECKING:
    from stylewatch.app.order import Task
    from stylewatch.app.paint import Painted
    from stylewatch.faces.console import Sink

DEMO_PHOTO = Path(__file__).parent.parent / "data" / "demo.jpg"

app = typer.Typer()


@command(app, panel=TRY)
def demo(
    *,
    output: Output = Path("demo"),
    preset: Annotated[str, preset_option("The style to show.")] = DEFAULT_PRESET,
    weights: Weights = None,
    features: Features = None,
    as_json: Json = False,
) -> None:
    """Paint the photo that comes with stylewatch, to see that it works here.

    Needs no network and no set-up: where VGG19's weights can't be had, the built-in features
    paint. Says which were used and where the picture is.

    Examples:
      stylewatch demo
      stylewatch demo --preset ink -o ~/Desktop
    """
    from stylewatch.app.order import choose_presets, plan

    chosen = choose_presets([preset], [], given(features=features), preset_dirs())
    paint_and_tell(plan([DEMO_PHOTO], chosen, output), weights, as_json=as_json)


@command(app, panel=TRY)
def apply(
    photos: Annotated[
        list[Path], typer.Argument(metavar="PHOTO", parser=as_typed, help="Photos to paint.")
    ],
    *,
    preset: PresetNames = None,
    style: Styles = None,
    output: Output = Path(),
    max_side: Annotated[
        str | None,
        typer.Option(
            metavar="PIXELS|photo", rich_help_panel=ENGINE,
            help="Longer side of the result, never larger than the photo; `photo`: its own size.",
        ),
    ] = None,
    weights: Weights = None,
    features: Features = None,
    settings: Settings = None,
    config: PresetsOf = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Paint photos here and now, without a daemon.

    Makes a picture of each photo in each style, named PHOTO--PRESET, in the folder OUT. For a
    single picture OUT may be a file name, whose ending (.jpg, .png, .webp, .tif, .heic) decides the
    format. Nothing is ever overwritten. A photo that can't be painted does not stop the others; the
    exit code is then 1, or, if none could be painted, tells why. The path of each result goes to
    stdout as soon as it is there, unless stdout is the terminal, which shows it anyway.

    Examples:
      stylewatch apply beach.jpg --preset nocturne
      stylewatch apply *.jpg -p ink -p woodcut -o painted --max-side 2048
      stylewatch apply beach.jpg --style monet.jpg -o beach-monet.png
      stylewatch apply beach.jpg -p nocturne --set strength=30 --set colour=photo
    """
    from stylewatch.app.order import choose_presets, parse_settings, plan

    sides = [] if max_side is None else [f"max_side={max_side}"]
    overrides = parse_settings([*(settings or []), *sides]) | given(features=features)
    chosen = choose_presets(preset or [], style or [], overrides, preset_dirs(config))
    tasks = plan(photos, chosen, output)
    _tell_if_watched(tasks[0].target.parent, config)
    paint_and_tell(tasks, weights, as_json=as_json)


def _tell_if_watched(folder: Path, config: Path | None) -> None:
    """Tell if the config's daemon takes what is put there for photos."""
    from stylewatch.faces.lines import short_path
    from stylewatch.places import lineage
    from stylewatch.settings.loading import load_config
    from stylewatch.settings.paths import find_config

    with suppress(ConfigError):  # there is none, or none that the daemon would take
        for each in load_config(find_config(config)).folders:
            if lineage(each.input)[0] in lineage(folder):
                watched = short_path(each.input)
                note(
                    f"{watched} is watched: results there are painted again; choose another with -o"
                )


def paint_and_tell(tasks: "Sequence[Task]", weights: str | None, *, as_json: bool) -> None:
    """Paint the tasks, telling results on stdout; raises or exits when photos failed."""
    from stylewatch.app.order import engine_for
    from stylewatch.app.paint import paint_all

    engine = engine_for(weights)
    shown = are_together()
    painted: list[Painted] = []
    codes: set[ExitCode] = set()
    told: list[dict[str, Any]] = []
    failed: list[str] = []
    try:
        with bars() as console:
            for task, result in zip(tasks, paint_all(tasks, engine, console), strict=True):
                if isinstance(result, StylewatchError):
                    codes.add(result.exit_code)
                    failed.append(task.photo.name)
                    told.append(task.failed_as_dict(result))
                    continue
                painted.append(result)
                told.append(result.as_dict())
                if not as_json and not shown:
                    say_path(result.output)
    finally:  # pictures that are painted are told, even if an error ends it all
        if as_json and told:
            say_json(told)
    if painted and not as_json:
        used = dict.fromkeys(one.rendered.facts.get("features") for one in painted)
        if named := " and ".join(filter(None, used)):  # effects of other packages have none
            note(f"features used: {named}")
    if failed and len(tasks) > 1:
        names = [*dict.fromkeys(failed)]  # a photo may have failed in several presets
        more = f" and {len(names) - 10} more" if names[10:] else ""
        note(f"{len(painted)} done, {len(failed)} failed: {', '.join(names[:10])}{more}")
    if codes:
        same = not painted and len(codes) == 1
        raise typer.Exit(codes.pop() if same else ExitCode.FAILED)


@contextmanager
def bars() -> "Iterator[Sink]":
    """A sink for events of what is painted here and now; within it a signal interrupts us."""
    from stylewatch.faces.console import open_bars
    from stylewatch.faces.terminal import on_signals

    with (
        on_signals(_interrupt),
        open_bars(log_format=GlobalOptions.log_format, chatter=chatter()) as console,
    ):
        yield console


def _interrupt() -> None:
    raise KeyboardInterrupt
