"""Commands that watch folders: watch, run, and init, which makes some to watch."""
# ruff: noqa: PLC0415  (what a command needs is imported when it runs)

import os
import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from stylewatch.commands.answers import note, say_noted
from stylewatch.commands.known import PresetNames, named_dirs, preset_option
from stylewatch.commands.options import (
    DEFAULT_PRESET,
    WATCH,
    ConfigPath,
    Features,
    GlobalOptions,
    Weights,
    as_typed,
    command,
    filled,
    given,
)
from stylewatch.errors import UsageError

if TYPE_CHECKING:
    from stylewatch.settings.config import Config

app = typer.Typer()

_PATHS: Final = (
    "KERAS_HOME", "JAX_COMPILATION_CACHE_DIR", "SSL_CERT_FILE",
    "DASK_DISTRIBUTED__COMM__TLS__CA_FILE", "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT",
    "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY",
)  # fmt: skip
"""Variables that libraries read later on, and that may name a path as seen from here."""


@command(app, panel=WATCH)
def watch(
    input_dir: Annotated[
        str, typer.Argument(metavar="IN", parser=filled, help="The folder to watch.")
    ],
    output: Annotated[str, typer.Argument(metavar="OUT", parser=filled, help="Where results go.")],
    *,
    preset: PresetNames = None,
    hours: Annotated[
        str | None,
        typer.Option(metavar="FROM-TO", help="Begin photos only then, such as 22:00-07:00."),
    ] = None,
    weights: Weights = None,
    features: Features = None,
    state: Annotated[
        str | None,
        typer.Option(
            "--state", metavar="DIR", parser=filled,
            help="Where it keeps its ledger. Otherwise ~/.local/state/stylewatch.",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Watch one folder, without a config, until q or Ctrl-C.

    Photos that are in IN already and those that arrive are painted into OUT, sub-folders mirrored,
    with `nocturne` unless --preset says otherwise. A photo in a sub-folder named after a preset is
    painted with that one. What was painted is remembered: a new start paints nothing twice. If you
    give a preset as a file, the presets beside it are known too. Of a config, if there is one, only
    `presets:` counts here. To watch several folders at once, use a config and `run`, or give each
    its own --state.

    Examples:
      stylewatch watch ~/Pictures/in ~/Pictures/out --preset nocturne
      stylewatch watch in out -p ink -p woodcut   two pictures of each photo
      stylewatch watch in out --hours 22:00-07:00
    """
    from stylewatch.app.order import engine_for
    from stylewatch.settings.loading import watch_config
    from stylewatch.settings.paths import absolute
    from stylewatch.settings.presets import as_config_names

    watched, results = absolute(input_dir), absolute(output)
    if not os.path.isdir(watched):
        is_file = os.path.isfile(watched)
        remedy = "`stylewatch apply` paints a photo" if is_file else "Make it first"
        raise UsageError("no such folder to watch", received=input_dir, remedy=remedy)
    if os.path.isfile(results):
        remedy = "Name another folder; it is made when it is missing"
        raise UsageError("results can't go into a file", received=output, remedy=remedy)
    settings = given(hours=hours, features=features)
    if weights is not None:
        engine = engine_for(weights if weights == "imagenet" else str(absolute(weights)))
        settings |= {"weights": engine.weights, "features": features or engine.features}
    if state is not None:
        settings["state_dir"] = absolute(state)
    there, away = named_dirs()
    names, folders = as_config_names(preset or [DEFAULT_PRESET], there)
    folders += away
    _serve(lambda: watch_config(watched, results, names, presets=folders, **settings))


@command(app, panel=WATCH)
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
    from stylewatch.settings.loading import load_config
    from stylewatch.settings.paths import absolute, find_config

    file = absolute(find_config(config))
    _serve(lambda: load_config(file))


@command(app, panel=WATCH)
def init(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIR",
            parser=as_typed,
            help="Where the folders go; the config is put there too.",
        ),
    ] = None,
    *,
    preset: Annotated[
        str | None,
        preset_option("For photos that no rule matches.", show_default=DEFAULT_PRESET),
    ] = None,
) -> None:  # fmt: skip
    """Write a commented config and make the folders, with one sub-folder per style.

    Without DIR the folders are ~/Pictures/stylewatch/in and out, and the config is
    ~/.config/stylewatch/stylewatch.yaml, where `stylewatch run` finds it. A config that is there
    already is kept, and only missing folders are made. Presets of your own go into
    ~/.config/stylewatch/presets, which is made too.

    Examples:
      stylewatch init
      stylewatch init ~/paintings --preset ink
    """
    from stylewatch.faces.lines import short_path
    from stylewatch.settings.loading import load_config, watch_config
    from stylewatch.settings.paths import CONFIG_NAME, absolute, user_config, user_presets_dir
    from stylewatch.settings.starter import default_config_text, make_folders, write_config

    file = (folder / CONFIG_NAME) if folder else user_config()
    places = ("in", "out") if folder else ("~/Pictures/stylewatch/in", "~/Pictures/stylewatch/out")
    if not os.path.lexists(file):  # what is wrong with it is told before anything is written
        watched, output = (absolute(place, file.parent) for place in places)
        watch_config(watched, output, [preset or DEFAULT_PRESET])
    written = write_config(file, default_config_text(*places, preset or DEFAULT_PRESET))
    if written:
        note(f"wrote {short_path(file)}")
    else:
        rest = f"; to use {preset}, write it there yourself" if preset else ""
        note(f"kept {short_path(file)}, which was there already{rest}")
    config = load_config(file)
    for one in config.folders:
        made = make_folders(one, config.presets)
        if made and not written:
            note(f"new in {short_path(one.input)}: {', '.join(made)}")
        rest = ", or into a style's folder there" if one.subfolders else ""
        note(f"drop photos into {short_path(one.input)}{rest}")
    own = user_presets_dir()
    with suppress(OSError):  # a config elsewhere works all the same
        own.mkdir(parents=True, exist_ok=True)
    note(f"presets of your own go into {short_path(own)}")
    named = f" -c {shlex.quote(str(file))}" if folder else ""
    note(f"then: stylewatch run{named}")
    say_noted(file)


def _serve(load: "Callable[[], Config]") -> None:
    from stylewatch.app.serve import serve
    from stylewatch.settings.paths import absolute

    for name in _PATHS:
        if (named := os.environ.get(name)) and "://" not in named:  # JAX also takes a bucket
            os.environ[name] = str(absolute(named))
    os.chdir("/")  # where we are may be deleted, or on a disk that is to be ejected
    serve(load, GlobalOptions.log_format)
