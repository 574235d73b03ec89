"""The command line: parses, composes the parts, and turns every error into one line and a code.

The one place where the parts meet. What a command needs is imported inside it, so that `--help`
comes at once and `status` never loads the network's libraries.
"""
# ruff: noqa: PLC0415  (see above)

import inspect
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from stylewatch import __version__
from stylewatch.domain import JobState
from stylewatch.errors import (
    ConfigError,
    ExitCode,
    NotRunningError,
    OutputError,
    PresetError,
    StylewatchError,
    UsageError,
    WeightsError,
)

TRY, WATCH, STEER, SET_UP = "Try it", "Watch folders", "Look and steer", "Set up and check"
ENGINE = "How it is painted"
CONFIG_NAME = "stylewatch.yaml"
DEFAULT_PRESET = "nocturne"
DEMO_PHOTO = Path(__file__).parent / "data" / "demo.jpg"

app = typer.Typer(
    name="stylewatch",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
presets_app = typer.Typer(no_args_is_help=True, help="The styles there are, and your own.")
config_app = typer.Typer(no_args_is_help=True, help="stylewatch.yaml: check it, describe it.")
weights_app = typer.Typer(no_args_is_help=True, help="The VGG19 network's weights.")
service_app = typer.Typer(no_args_is_help=True, help="stylewatch in the background, by systemd.")
app.add_typer(presets_app, name="presets", rich_help_panel=SET_UP)
app.add_typer(config_app, name="config", rich_help_panel=SET_UP)
app.add_typer(weights_app, name="weights", rich_help_panel=SET_UP)
app.add_typer(service_app, name="service", rich_help_panel=SET_UP)

Json = Annotated[bool, typer.Option("--json", help="Give the result as JSON on stdout.")]
PresetNames = Annotated[
    list[str] | None,
    typer.Option(
        "--preset", "-p", metavar="NAME",
        help="A preset's name, or the path of a preset's YAML file. Several give several pictures.",
    ),
]  # fmt: skip
Styles = Annotated[
    list[Path] | None,
    typer.Option(
        "--style", "-s", metavar="IMAGE",
        help="Paint in the style of this image, with the numbers of the preset.",
    ),
]  # fmt: skip
Output = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="OUT", help="Where results go; made when missing."),
]
Weights = Annotated[
    str,
    typer.Option(
        metavar="imagenet|PATH", rich_help_panel=ENGINE,
        help="VGG19's weights: Keras's download, or a file in its format. Without this option the "
        "built-in features take over where they can't be had.",
    ),
]  # fmt: skip
Features = Annotated[
    Literal["auto", "vgg19", "builtin"] | None,
    typer.Option(rich_help_panel=ENGINE, help="Which network looks at the pictures."),
]
ConfigPath = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE",
        help="The config. Otherwise ./stylewatch.yaml, else ~/.config/stylewatch/stylewatch.yaml.",
    ),
]  # fmt: skip


Command = TypeVar("Command", bound=Callable[..., None])


def _command(
    where: typer.Typer, name: str | None = None, panel: str | None = None
) -> Callable[[Command], Command]:
    """A command whose help is its docstring, in paragraphs that fit any terminal's width."""

    def register(function: Command) -> Command:
        paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
        flowing = [one if "\n  " in one else " ".join(one.split()) for one in paragraphs]
        where.command(name, help="\n\n".join(flowing), rich_help_panel=panel)(function)
        return function

    return register


StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state", metavar="DIR",
        help="The daemon's state directory, where it is not the config's or the usual one.",
    ),
]  # fmt: skip


class _Asked:
    """What stood before the command's name."""

    log_format: Literal["text", "json"] = "text"


# --- the frame ------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code; every error ends here, as one line on stderr."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before anything loads TensorFlow
    try:
        code = app(args=arguments, prog_name="stylewatch", standalone_mode=False)
    except StylewatchError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", ExitCode.INTERRUPTED)
    except Exception as error:  # noqa: BLE001  (the last resort)
        if hasattr(error, "format_message"):  # the parser's own: an unknown option, a wrong value
            return _fail(_usage(error), ExitCode.USAGE)
        return _fail(_internal(error), ExitCode.INTERNAL)
    return code if isinstance(code, int) else ExitCode.OK


def _fail(line: str, code: int) -> int:
    from stylewatch.lines import visible

    with suppress(OSError):
        typer.echo(f"stylewatch: {visible(line)}", err=True)
    return int(code)


def _usage(error: Any) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "stylewatch"
    message = " ".join(str(error.format_message()).split()).rstrip(".")
    return f"{message}. See `{command} --help`"


def _internal(error: Exception) -> str:
    where = _write_traceback()
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"internal error: {what}. Please report it with the traceback in {where}"


def _write_traceback() -> str:
    from stylewatch.config import default_state_dir

    file = default_state_dir() / "last-traceback.txt"
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")
    except OSError:
        traceback.print_exc()
        return "the lines above"
    return str(file)


def _version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"stylewatch {__version__}")
        raise typer.Exit


@app.callback()
def stylewatch(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=lambda value: _version(wanted=value),
                     help="Say the version and end."),
    ] = False,
    log_format: Annotated[
        Literal["text", "json"],
        typer.Option(envvar="STYLEWATCH_LOG_FORMAT",
                     help="Events on stderr: for people, or one JSON object per line."),
    ] = "text",
    no_colour: Annotated[
        bool, typer.Option("--no-colour", help="No colours, as with NO_COLOR=1 set.")
    ] = False,
) -> None:  # fmt: skip
    """Watches folders and turns each new photo into a painting.

    First:
      stylewatch demo    paints a photo, to see that it works
      stylewatch init    writes a config and makes the folders
      stylewatch run     watches them; then drop photos in

    Exit codes:
      0 done            1 a photo failed      2 wrong usage
      3 config, preset  4 photo               5 weights
      6 output          7 another daemon      8 no daemon
      70 internal       130 interrupted
    """
    del version
    _Asked.log_format = log_format
    if no_colour:
        os.environ["NO_COLOR"] = "1"


def _chatter() -> Path:
    """Where what libraries say goes while a command runs."""
    from stylewatch.config import default_state_dir

    with suppress(OSError):
        default_state_dir().mkdir(parents=True, exist_ok=True, mode=0o700)
    return default_state_dir() / "chatter.log"


def _interrupt() -> None:
    raise KeyboardInterrupt


def _answer(data: object, text: str, *, as_json: bool) -> None:
    """The command's result on stdout."""
    if as_json:
        typer.echo(json.dumps(data, indent=2, default=str))
    elif text:
        typer.echo(text)


# --- paint here and now ---------------------------------------------------------------------------


@_command(app, panel=TRY)
def demo(
    *,
    output: Output = Path("demo"),
    preset: Annotated[
        str, typer.Option("--preset", "-p", metavar="NAME", help="The style to show.")
    ] = DEFAULT_PRESET,
    weights: Weights = "",
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
    from stylewatch.paint import choose_presets, plan

    overrides = {"features": features} if features else {}
    chosen = choose_presets(_presets(), [preset], [], overrides)
    _paint(plan([DEMO_PHOTO], chosen, output), _engine(weights), as_json=as_json)


@_command(app, panel=TRY)
def apply(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO", help="Photos to paint.")],
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
    weights: Weights = "",
    features: Features = None,
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"] | None,
        typer.Option(rich_help_panel=ENGINE, help="Of the features."),
    ] = None,
    optimizer: Annotated[
        Literal["lbfgs", "lbfgs-scipy", "adam"] | None,
        typer.Option(rich_help_panel=ENGINE, help="What lowers the loss."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", rich_help_panel=ENGINE,
            help="Any key of a preset: --set strength=30 --set output.quality=80. Repeatable.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Paint photos here and now, without a daemon.

    Makes a picture of each photo in each style, named PHOTO--PRESET, in the folder OUT (or, for
    one picture, under the very name OUT). Nothing is ever overwritten. A photo that can't be
    painted fails alone; the exit code is then 1, or, when none could be painted, tells why.
    The paths of the results go to stdout.

    Examples:
      stylewatch apply beach.jpg --preset nocturne
      stylewatch apply *.jpg -p ink -p woodcut -o painted --max-side 2048
      stylewatch apply beach.jpg --style monet.jpg -o beach-monet.png
      stylewatch apply beach.jpg -p nocturne --set strength=30 --set colour=photo
    """
    from stylewatch.paint import choose_presets, parse_settings, plan

    overrides = parse_settings(settings or [])
    if max_side is not None:
        overrides["max_side"] = int(max_side) if max_side.isdigit() else max_side
    named = {"features": features, "precision": precision, "optimizer": optimizer}
    overrides |= {key: value for key, value in named.items() if value is not None}
    tasks = plan(photos, choose_presets(_presets(), preset or [], style or [], overrides), output)
    _paint(tasks, _engine(weights), as_json=as_json)


def _engine(weights: str) -> Any:
    """The engine's settings; only unnamed weights may fall back to the built-in features."""
    from stylewatch.domain import EngineSettings

    if not weights:
        return EngineSettings()
    if weights != "imagenet" and not Path(weights).is_file():
        raise WeightsError(
            "no such weights file",
            received=weights,
            remedy="Name a VGG19 file in Keras's format, or leave --weights out",
        )
    return EngineSettings(weights=weights, features="vgg19")


def _paint(tasks: Sequence[Any], engine: Any, *, as_json: bool) -> None:
    """Paint the tasks, telling results on stdout; raises or exits when photos failed."""
    from stylewatch.console import open_bars
    from stylewatch.paint import paint_all
    from stylewatch.terminal import on_signals

    errors: list[StylewatchError] = []
    with (
        on_signals(_interrupt),
        open_bars(log_format=_Asked.log_format, chatter=_chatter()) as console,
    ):
        painted = []
        for result in paint_all(tasks, engine, console):
            if isinstance(result, StylewatchError):
                errors.append(result)
            else:
                painted.append(result)
    for one in painted:
        if not as_json:
            _say_path(one.output)
    if as_json:
        _answer([one.as_dict() for one in painted], "", as_json=True)
    elif painted:
        used = dict.fromkeys(one.rendered.facts.get("features", "") for one in painted)
        typer.echo(f"painted with {' and '.join(used)}", err=True)
    if errors:
        codes = {error.exit_code for error in errors}
        same = not painted and len(codes) == 1
        raise typer.Exit(codes.pop() if same else ExitCode.FAILED)


def _say_path(path: Path) -> None:
    """A path on stdout: to a terminal made safe, to a program as it is, byte for byte."""
    from stylewatch.lines import visible

    if sys.stdout.isatty():
        typer.echo(visible(path))
    else:
        typer.echo(os.fsencode(path))


# --- watch folders --------------------------------------------------------------------------------


@_command(app, panel=WATCH)
def watch(
    input_dir: Annotated[Path, typer.Argument(metavar="IN", help="The folder to watch.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Where results go.")],
    *,
    preset: PresetNames = None,
    weights: Weights = "",
    features: Features = None,
    state: StateDir = None,
) -> None:
    """Watch one folder, without a config, until q or Ctrl-C.

    Photos that are in IN already and those that arrive are painted into OUT, sub-folders
    mirrored. A photo in a sub-folder named after a preset is painted in that one. What was
    painted is remembered: a new start does nothing twice. To watch several folders at once, use a
    config and `run`, or give each its own --state.

    Examples:
      stylewatch watch ~/Pictures/in ~/Pictures/out --preset nocturne
      stylewatch watch in out -p ink -p soft      two pictures of each photo
    """
    from stylewatch.config import watch_config

    if not input_dir.is_dir():
        raise UsageError("no such folder to watch", received=str(input_dir), remedy="Make it first")
    settings: dict[str, Any] = {"features": features} if features else {}
    if weights:
        engine = _engine(weights)
        settings |= {"weights": engine.weights, "features": features or engine.features}
    if state is not None:
        settings["state_dir"] = str(state.expanduser().absolute())
    names = preset or [DEFAULT_PRESET]
    _serve(lambda: watch_config(input_dir, output, names, **settings))


@_command(app, panel=WATCH)
def run(*, config: ConfigPath = None) -> None:
    """Watch all folders of the config: the daemon, in the foreground.

    On a terminal it shows the live view; otherwise it writes one line per event to stderr.
    SIGTERM and Ctrl-C end it: the picture in work may be finished within the grace time, and
    goes on from its last checkpoint otherwise. A second signal ends it at once. SIGHUP reads the
    config again.

    Examples:
      stylewatch run
      stylewatch --log-format json run -c /etc/stylewatch.yaml
    """
    from stylewatch.config import load_config

    file = _config_file(config)
    _serve(lambda: load_config(file))


@_command(app, panel=WATCH)
def init(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="Where the folders go; the config is put there too."),
    ] = None,
    *,
    preset: Annotated[
        str, typer.Option("--preset", "-p", metavar="NAME", help="For photos that no rule matches.")
    ] = DEFAULT_PRESET,
) -> None:
    """Write a commented config and make the folders, with one sub-folder per style.

    Without DIR the folders are ~/Pictures/stylewatch/in and out, and the config is
    ~/.config/stylewatch/stylewatch.yaml, where `stylewatch run` finds it. A config that is there
    already is kept, and only missing folders are made.

    Examples:
      stylewatch init
      stylewatch init ~/paintings --preset ink
    """
    from stylewatch.config import load_config
    from stylewatch.lines import short_path
    from stylewatch.starter import default_config_text

    file = (folder / CONFIG_NAME) if folder else _user_config()
    places = ("in", "out") if folder else ("~/Pictures/stylewatch/in", "~/Pictures/stylewatch/out")
    with _writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with file.open("x", encoding="utf-8") as stream:
                stream.write(default_config_text(*places, preset))
            typer.echo(f"wrote {short_path(file)}", err=True)
        except FileExistsError:
            typer.echo(f"kept {short_path(file)}, which was there already", err=True)
    config = load_config(file)
    for watched in config.folders:
        names = config.presets if watched.subfolders else ()
        for place in (watched.output, watched.input, *(watched.input / name for name in names)):
            with _writing(place):
                place.mkdir(parents=True, exist_ok=True)
        typer.echo(f"drop photos into {short_path(watched.input)}", err=True)
    _say_path(file)


def _user_config() -> Path:
    from stylewatch.presets import user_presets_dir

    return user_presets_dir().with_name(CONFIG_NAME)


def _config_file(named: Path | None) -> Path:
    """The config to use; named, here, or the user's."""
    if named is not None:
        return named
    for file in (Path(CONFIG_NAME), _user_config()):
        if file.exists():
            return file
    raise ConfigError(
        "there is no config",
        expected=f"./{CONFIG_NAME} or {_user_config()}",
        remedy="`stylewatch init` writes one; `stylewatch watch IN OUT` needs none",
    )


def _serve(load: Callable[[], Any]) -> None:
    from stylewatch.serve import serve

    serve(load, version=__version__, log_format=_Asked.log_format)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path} can't be made: {error.strerror}") from error


# --- presets, config, weights ---------------------------------------------------------------------


@_command(presets_app, "list")
def presets_list(*, as_json: Json = False) -> None:
    """List all presets: the shipped ones and your own from ~/.config/stylewatch/presets."""
    presets, rows = _presets(), []
    for name in presets:
        try:
            rows.append((name, presets[name].description, bool(presets[name].style)))
        except PresetError as error:
            rows.append((name, f"broken: {error}", False))
    width = max((len(name) for name, _, _ in rows), default=0)
    text = "\n".join(
        f"{name:<{width}}  {description}{'' if style else '  (needs --style IMAGE)'}"
        for name, description, style in rows
    )
    data = [
        {"name": name, "description": description, "has_style": style}
        for name, description, style in rows
    ]
    _answer(data, text, as_json=as_json)


@_command(presets_app, "show")
def presets_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A preset's name.")],
    *,
    as_json: Json = False,
) -> None:
    """Show every value of a preset, and which file it comes from."""
    from stylewatch.lines import jsonable, visible

    presets = _presets()
    rows = presets.explain(name)
    lines = [f"# {visible(presets.origin(name))}"]
    for row in rows:
        value = visible(json.dumps(jsonable(row.value), ensure_ascii=False))
        lines.append(f"{row.key}: {value}" + (f"   # {row.preset}" if row.preset else ""))
    data = {row.key: jsonable(row._asdict()) for row in rows}
    _answer(data, "\n".join(lines), as_json=as_json)


@_command(presets_app, "check")
def presets_check(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", help="Presets' YAML files; all presets without any."),
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Check presets: every error with its file, line, column and key.

    Examples:
      stylewatch presets check
      stylewatch presets check ./mine.yaml
    """
    from stylewatch.presets import check, user_presets_dir

    presets = _presets()
    files = files or [presets.origin(name) for name in presets]
    errors = [error for file in files for error in check(file, [user_presets_dir()])]
    _report_errors(errors, f"{len(files)} presets are fine", as_json=as_json)


@_command(presets_app, "preview")
def presets_preview(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A preset, or its YAML file.")],
    photo: Annotated[
        Path | None, typer.Argument(metavar="PHOTO", help="Otherwise the demo's photo.")
    ] = None,
    *,
    output: Output = Path(),
    side: Annotated[
        int, typer.Option(min=64, max=1024, help="Longer side of the sample in pixels.")
    ] = 256,
    weights: Weights = "",
    features: Features = None,
) -> None:
    """Paint a small sample, to see what a preset does before a night's work.

    What it shows at 256 or 384 pixels is what the whole picture will look like.

    Examples:
      stylewatch presets preview ink beach.jpg
      stylewatch presets preview ./mine.yaml beach.jpg --side 384
    """
    from stylewatch.paint import choose_presets, plan

    overrides: dict[str, Any] = {"max_side": side} | ({"features": features} if features else {})
    [preset] = choose_presets(_presets(), [name], [], overrides)
    preset = replace(preset, name=f"{preset.name}-preview")
    _paint(plan([photo or DEMO_PHOTO], [preset], output), _engine(weights), as_json=False)


def _presets() -> Any:
    from stylewatch.presets import Presets, user_presets_dir

    return Presets.load([user_presets_dir()])


@_command(config_app, "check")
def config_check(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="The config.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Check the config: each error with file, line, column, key, and what was expected.

    Also names what keeps a valid config from working just now: folders that are missing or
    closed to us, a weights file that can't be read.
    """
    from stylewatch.config import check, load_config

    file = _config_file(file)
    try:
        errors = check(load_config(file))
    except ConfigError as error:
        errors = [error, *error.others]
    _report_errors(errors, f"{file} is fine", as_json=as_json)


@_command(config_app, "schema")
def config_schema(
    *,
    preset: Annotated[
        bool, typer.Option("--preset", help="Of a preset's file instead of stylewatch.yaml.")
    ] = False,
) -> None:
    """Print the JSON Schema, with which an editor completes and checks the YAML."""
    from stylewatch.config import config_schema as schema_of_config
    from stylewatch.presets import preset_schema

    _answer(preset_schema() if preset else schema_of_config(), "", as_json=True)


def _report_errors(errors: Sequence[ConfigError], fine: str, *, as_json: bool) -> None:
    from stylewatch.lines import jsonable

    for error in errors:
        error.others = ()  # each has its own line
    if as_json:
        _answer([jsonable(vars(error)) for error in errors], "", as_json=True)
    else:
        for error in errors:
            _fail(str(error), 0)
        if not errors:
            typer.echo(fine, err=True)
    if errors:
        raise typer.Exit(ExitCode.CONFIG)


@_command(weights_app, "path")
def weights_path() -> None:
    """Print where Keras keeps its copy of VGG19's weights; exit code 5 when it is not there."""
    from stylewatch.doctor import keras_weights

    file = keras_weights()
    _say_path(file)
    if not file.is_file():
        raise WeightsError("the weights are not there", remedy="`stylewatch weights fetch`")


@_command(weights_app, "fetch")
def weights_fetch() -> None:
    """Download VGG19's weights (80 MB) once, ahead of the first photo.

    Keras keeps them in ~/.keras/models and checks their hash. Behind a proxy, set https_proxy;
    without a network, copy the file there, or name it with `weights: PATH`.
    """
    from stylewatch.doctor import keras_weights
    from stylewatch.terminal import stderr_for_us

    with stderr_for_us(_chatter()), redirect_stdout(sys.stderr):
        from stylewatch.features import load_vgg19

        load_vgg19()
    _say_path(keras_weights())


@_command(app, panel=SET_UP)
def doctor(
    *,
    config: ConfigPath = None,
    as_json: Json = False,
) -> None:
    """Look at everything that stylewatch needs, and say what is wrong and what to do.

    Python, config, presets, folders and their permissions, inotify limits, network file systems,
    disk space, ledger, weights, TensorFlow and what it runs on, speed, service. Each line is ok,
    a warning (!) or a problem (✗); the exit code is 1 when there is a problem.
    """
    from stylewatch.doctor import examine
    from stylewatch.lines import jsonable, visible

    try:
        file: Path | None = _config_file(config)
    except ConfigError:
        file = None
    findings = []
    for finding in examine(file):
        findings.append(finding)
        if not as_json:
            mark = {"ok": "✓", "warning": "!", "problem": "✗"}[finding.state]
            typer.echo(f"{mark} {finding.check:<10}  {visible(finding.message)}")
            if finding.remedy:
                typer.echo(f"{'':<14}→ {visible(finding.remedy)}")
    if as_json:
        _answer([jsonable(finding) for finding in findings], "", as_json=True)
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(ExitCode.FAILED)


# --- look and steer -------------------------------------------------------------------------------


@_command(app, panel=STEER)
def console(*, config: ConfigPath = None, state: StateDir = None) -> None:
    """Show the live view of a running daemon, also of one that systemd started.

    q leaves the view and the daemon running; p pauses and resumes the daemon. Without a terminal
    it writes one line per event, or JSON with --log-format json.
    """
    from stylewatch.console import open_console
    from stylewatch.remote import Client, ask
    from stylewatch.serve import thumbnail
    from stylewatch.terminal import on_signals

    folder = _state_dir(config, state)
    left = threading.Event()

    def pause(wanted: bool) -> None:
        with suppress(StylewatchError):
            ask(folder, "pause" if wanted else "resume")

    with Client(folder) as client:

        def leave() -> None:
            left.set()
            client.close()

        with (
            open_console(
                log_format=_Asked.log_format,
                title=str(client.about.get("version", "")),
                attached=True,
                on_quit=leave,
                on_pause=pause,
                thumbnail=thumbnail,
            ) as view,
            on_signals(leave),
        ):
            for event in client.events():
                view(event)
    if not left.is_set():
        raise NotRunningError("the daemon has ended", remedy="`stylewatch run` starts one")


@_command(app, panel=STEER)
def status(*, config: ConfigPath = None, state: StateDir = None, as_json: Json = False) -> None:
    """Say what the daemon does: folders, pictures in work, queue.

    The exit code is 8 when no daemon runs; what the ledger knows is told all the same.

    Examples:
      stylewatch status
      stylewatch status --json | jq .folders
    """
    from stylewatch.overview import look, overview_text

    found = look(_state_dir(config, state))
    _answer(found, overview_text(found), as_json=as_json)
    if not found["running"]:
        raise NotRunningError(found["problem"])


@_command(app, panel=STEER)
def jobs(
    *,
    failed: Annotated[bool, typer.Option("--failed", help="Those that need a look.")] = False,
    done: Annotated[bool, typer.Option("--done", help="Those that are painted.")] = False,
    waiting: Annotated[bool, typer.Option("--waiting", help="Those that are to do.")] = False,
    running: Annotated[bool, typer.Option("--running", help="Those in work.")] = False,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many at most.")] = 50,
    config: ConfigPath = None,
    state: StateDir = None,
    as_json: Json = False,
) -> None:
    """List jobs, the latest change first: a job is one photo in one style.

    Works without a daemon too. `--failed` also names files that never became a job, and why.

    Examples:
      stylewatch jobs --failed
      stylewatch jobs --done --limit 5 --json
    """
    from stylewatch.overview import FAILED, WAITING, jobs_text, list_jobs

    states = [
        *(FAILED if failed else ()),
        *((JobState.DONE,) if done else ()),
        *(WAITING if waiting else ()),
        *((JobState.RUNNING, JobState.PUBLISHING) if running else ()),
    ]
    found = list_jobs(_state_dir(config, state), states, limit, notes=failed)
    _answer(found, jobs_text(found), as_json=as_json)


JobId = Annotated[int, typer.Argument(metavar="ID", help="The job's number, as `jobs` tells it.")]


@_command(app, panel=STEER)
def retry(
    job_id: Annotated[
        int | None, typer.Argument(metavar="ID", help="The job's number, as `jobs` tells it.")
    ] = None,
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Everything that was set aside.")
    ] = False,
    reason: Annotated[
        str, typer.Option(metavar="R", help="What was set aside for this reason, as crash.")
    ] = "",
    config: ConfigPath = None,
    state: StateDir = None,
) -> None:
    """Paint again what was set aside: one job, all of them, or those with one reason.

    A photo that is copied anew needs no retry: its change brings it back by itself.

    Examples:
      stylewatch retry 12
      stylewatch retry --reason disk-full
    """
    if (job_id is not None) + everything + bool(reason) != 1:
        raise UsageError("what to retry?", expected="ID, --all or --reason R")
    count = _ask(config, state, "retry", job_id=job_id, reason=reason)
    typer.echo(f"{count} job{'s' * (count != 1)} in the queue again", err=True)


@_command(app, panel=STEER)
def pause(*, config: ConfigPath = None, state: StateDir = None) -> None:
    """Start no new pictures; those in work are finished, new photos are still noticed."""
    _ask(config, state, "pause")


@_command(app, panel=STEER)
def resume(*, config: ConfigPath = None, state: StateDir = None) -> None:
    """Go on after a pause."""
    _ask(config, state, "resume")


@_command(app, panel=STEER)
def cancel(job_id: JobId, *, config: ConfigPath = None, state: StateDir = None) -> None:
    """End the work at one picture and set it aside, until `retry`."""
    _ask(config, state, "cancel", job_id=job_id)


def _ask(config: Path | None, state: Path | None, command: str, **arguments: Any) -> Any:
    from stylewatch.remote import ask

    given = {name: value for name, value in arguments.items() if value not in (None, "")}
    return ask(_state_dir(config, state), command, **given)


def _state_dir(config: Path | None, state: Path | None) -> Path:
    """Where the daemon has its state: as named, as the config says, or where it usually is."""
    from stylewatch.config import default_state_dir, load_config
    from stylewatch.remote import find_state_dir

    if state is not None:
        return state.expanduser().absolute()
    try:
        file = _config_file(config)
        return find_state_dir(load_config(file).state_dir, file)
    except ConfigError:  # none, or broken while the daemon goes on with what it has read
        if config is not None:
            raise
        return find_state_dir(default_state_dir(), None)


# --- the service ----------------------------------------------------------------------------------

User = Annotated[
    bool, typer.Option("--user", help="A service of your own, without root, from your login on.")
]


@_command(service_app, "install")
def service_install(
    *,
    user: User = False,
    config: ConfigPath = None,
    account: Annotated[
        str, typer.Option(metavar="NAME", help="Whom it runs as; otherwise who used sudo.")
    ] = "",
    no_start: Annotated[bool, typer.Option("--no-start", help="Do not start it now.")] = False,
) -> None:
    """Write the unit for this config, enable it and start it.

    It may write to the folders of the config and to nothing else. After a change of the folders
    in the config, install it again.

    Examples:
      stylewatch service install --user
      sudo stylewatch service install --config /etc/stylewatch.yaml --account anna
    """
    from stylewatch.config import load_config
    from stylewatch.service import install

    file = _config_file(config)
    lines = install(
        user=user,
        config=file,
        writable=_written_to(load_config(file)),
        account=account,
        start=not no_start,
    )
    typer.echo("\n".join(lines), err=True)


def _written_to(config: Any) -> list[Path]:
    """The folders that the daemon writes to."""
    from stylewatch.config import default_state_dir

    folders = [folder.output for folder in config.folders]
    for folder in config.folders:
        folders += [folder.input] if folder.after != "keep" else []
        folders += [folder.after] if isinstance(folder.after, Path) else []
    return folders + ([config.state_dir] if config.state_dir != default_state_dir() else [])


@_command(service_app, "uninstall")
def service_uninstall(*, user: User = False) -> None:
    """Stop and disable the service and remove its unit; photos, results and ledger stay."""
    from stylewatch.service import uninstall

    typer.echo("\n".join(uninstall(user=user)), err=True)


@_command(service_app, "status")
def service_status(*, user: User = False, as_json: Json = False) -> None:
    """Say how the service stands; exit code 8 when it does not run."""
    from stylewatch.lines import jsonable, visible
    from stylewatch.service import service_status

    found = service_status(user=user)
    running = found.state in {"active", "activating", "reloading"}
    words = [found.state or "unknown", "enabled" if found.enabled else "not enabled"]
    words += [f"process {found.pid}"] if found.pid else []
    words += [f"{found.restarts} restarts"] if found.restarts else []
    words += [found.result] if found.state == "failed" else []
    lines = [", ".join(words), f"unit: {found.unit or 'not installed'}", found.text]
    _answer(jsonable(found), "\n".join(visible(line) for line in lines if line), as_json=as_json)
    if not running:
        raise typer.Exit(ExitCode.NOT_RUNNING)
