"""Commands that set up and check: config, weights, doctor and service."""
# ruff: noqa: PLC0415  (what a command needs is imported when it runs)

import os
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from stylewatch.commands.answers import (
    answer,
    chatter,
    folded,
    note,
    report_errors,
    say,
    say_json,
    say_noted,
    say_path,
)
from stylewatch.commands.options import (
    SET_UP,
    ConfigPath,
    GlobalOptions,
    Json,
    as_typed,
    command,
    group,
)
from stylewatch.domain import EngineSettings, counted
from stylewatch.errors import ConfigError, ExitCode, UsageError, WeightsError

app = typer.Typer()
config_app = group("Check stylewatch.yaml, or print its schema.")
weights_app = group("The VGG19 network's weights.")
service_app = group("stylewatch in the background, with systemd.")


@command(config_app, "check")
def config_check(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="The config.", parser=as_typed)
    ] = None,
    *,
    config: ConfigPath = None,
    as_json: Json = False,
) -> None:
    """Check the config: each error with file, line, column, key, and what was expected.

    Also names what keeps a valid config from working just now: folders that are missing or
    lack permissions, a weights file that can't be read.
    """
    from stylewatch.settings.loading import load_config
    from stylewatch.settings.paths import find_config
    from stylewatch.settings.readiness import check

    if file and config:
        raise UsageError("one config at a time", expected="FILE or --config FILE")
    file = find_config(file or config)
    try:
        errors = check(load_config(file))
    except ConfigError as error:
        errors = [error]
    report_errors(errors, f"{file} is fine", as_json=as_json)


@command(config_app, "schema")
def config_schema(
    *,
    preset: Annotated[
        bool,
        typer.Option(
            "--preset", help="The schema of a preset's file instead of stylewatch.yaml's."
        ),
    ] = False,
) -> None:
    """Print the JSON Schema, with which an editor completes and checks the YAML."""
    from stylewatch.settings.loading import config_schema as schema_of_config
    from stylewatch.settings.presetfile import preset_schema

    say_json(preset_schema() if preset else schema_of_config())


@command(weights_app, "path")
def weights_path() -> None:
    """Print where Keras keeps its copy of VGG19's weights; exit code 5 when it is not there."""
    from stylewatch.settings.weights import keras_weights

    file = keras_weights()
    say_path(file)
    if not os.path.isfile(file):
        raise WeightsError(
            "the weights are not there", remedy="`stylewatch weights fetch` downloads them"
        )


@command(weights_app, "fetch")
def weights_fetch() -> None:
    """Download VGG19's weights (80 MB) once, ahead of the first photo.

    Keras keeps them in ~/.keras/models and checks their hash. Behind a proxy, set https_proxy, and
    SSL_CERT_FILE if it has certificates of its own; without a network, copy the file there, or name
    it with `weights: PATH`.
    """
    from stylewatch.app.paint import set_up
    from stylewatch.engine.machine import check_processor
    from stylewatch.faces.lines import short_path
    from stylewatch.faces.terminal import is_live, stderr_for_us
    from stylewatch.settings.weights import downloaded, keras_weights, one_download

    file = keras_weights()
    note("loading Keras, which takes a moment")
    set_up(EngineSettings())
    check_processor()
    with stderr_for_us(chatter()):
        from stylewatch.engine.features import load_vgg19
    if not downloaded():
        note(f"downloading 80 MB to {short_path(file.parent)}")
    with stderr_for_us(chatter()) as terminal, redirect_stdout(terminal):
        wanted = GlobalOptions.log_format == "text" and is_live(terminal, os.environ)
        with one_download("imagenet"):
            load_vgg19(progress=wanted)
    note(f"the weights are in {short_path(file.parent)}")
    say_noted(file)


@command(app, panel=SET_UP)
def doctor(
    *,
    config: ConfigPath = None,
    as_json: Json = False,
) -> None:
    """Look at everything that stylewatch needs, and say what is wrong and what to do.

    Python, config, presets, folders and their permissions, inotify limits, network file systems,
    disk space, ledger, the workers of a cluster, weights, TensorFlow and what it runs on, speed,
    service. Each line is ok, a warning (!) or a problem (✗); the exit code is 1 when there is a
    problem.
    """
    from stylewatch.app.doctor import examine
    from stylewatch.faces.lines import visible
    from stylewatch.settings.paths import find_config

    try:
        file: Path | None = find_config(config)
    except ConfigError:
        file = None
    findings = []
    if not as_json:
        note("this takes a moment, as painting is tried too")
    for finding in examine(file):
        findings.append(finding)
        if not as_json:
            mark = {"ok": "✓", "warning": "!", "problem": "✗"}[finding.state]
            lines = [folded(f"{mark} {finding.check:<10}  {visible(finding.message)}", 14)]
            lines += [f"{'':<14}→ {visible(finding.remedy)}"] if finding.remedy else []
            say("\n".join(lines))
    if as_json:
        say_json(findings)
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(ExitCode.FAILED)


User = Annotated[
    bool, typer.Option("--user", help="A service of your own, without root, from your login on.")
]


@command(service_app, "install")
def service_install(
    *,
    user: User = False,
    config: ConfigPath = None,
    account: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The account it runs as; otherwise whoever used sudo, or else the config's owner.",
        ),
    ] = "",
    no_start: Annotated[bool, typer.Option("--no-start", help="Do not start it now.")] = False,
) -> None:
    """Write the unit for this config, enable it and start it.

    Without --user the service may write only to the config's folders and its own: after you change
    the folders in the config, install it again.

    Examples:
      stylewatch service install --user
      sudo stylewatch service install --config /etc/stylewatch.yaml --account anna
    """
    from stylewatch.app.service import account_of, install
    from stylewatch.settings.loading import load_config
    from stylewatch.settings.paths import find_config

    if not user:  # `~` in the config is the home of whom the service runs as
        os.environ["HOME"] = account_of(account, config).pw_dir
    file = find_config(config)
    if not user:  # where nobody is named it runs as whose config this is
        os.environ["HOME"] = account_of(account, file).pw_dir
    lines = install(
        user=user,
        config=file,
        writable=load_config(file).written_folders(),
        account=account,
        start=not no_start,
    )
    for line in lines:
        note(line)


@command(service_app, "uninstall")
def service_uninstall(*, user: User = False) -> None:
    """Stop and disable the service and remove its unit; photos, results and ledger stay."""
    from stylewatch.app.service import uninstall

    for line in uninstall(user=user):
        note(line)


@command(service_app, "status")
def service_status(*, user: User = False, as_json: Json = False) -> None:
    """Say how the service stands; exit code 8 when it does not run."""
    from stylewatch.app.service import of_other_scope, service_status
    from stylewatch.faces.lines import visible

    found = service_status(user=user)
    words = [found.state or "unknown", "enabled" if found.enabled else "not enabled"]
    words += [f"process {found.pid}"] if found.pid else []
    words += [counted(found.restarts, "restart")] if found.restarts else []
    words += [found.result] if found.failing else []
    other = of_other_scope("status", user=user)
    missing = "not installed" + (f"; {other} shows the one that is" if other else "")
    lines = [", ".join(words), f"unit: {found.unit or missing}", found.text]
    answer(found, "\n".join(visible(line) for line in lines if line), as_json=as_json)
    if not found.running:
        raise typer.Exit(ExitCode.NOT_RUNNING)
