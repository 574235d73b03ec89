"""What commands take: options that several have in common, and how a command gets its help."""

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

TRY, WATCH, STEER, SET_UP = "Try it", "Watch folders", "Look and steer", "Set up and check"
ENGINE = "How it is painted"
DEFAULT_PRESET = "nocturne"


def as_typed(text: str) -> Path:
    """A path, with `~` put in: no shell does that in `--output=~/paint` or `"~/my photos"`."""
    return Path(os.path.expanduser(filled(text)))


def filled(text: str) -> str:
    """A path as text; an empty one is an error, as it comes from a variable that is not set."""
    if not text:
        raise typer.BadParameter("it is empty")
    return text


def given(**options: Any) -> dict[str, Any]:
    """Those of the options that were given on the command line."""
    return {name: value for name, value in options.items() if value is not None}


Json = Annotated[bool, typer.Option("--json", help="Give the result as JSON on stdout.")]
Styles = Annotated[
    list[Path] | None,
    typer.Option(
        "--style", "-s", metavar="IMAGE", parser=as_typed,
        help="Paint in the style of this image; all else comes from the preset. Repeatable.",
    ),
]  # fmt: skip
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        parser=as_typed,
        help="Where results go; made if missing.",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="imagenet|PATH", parser=filled, rich_help_panel=ENGINE,
        help="VGG19's weights: Keras's download, or a file in its format. Without this option the "
        "built-in features take over where VGG19 can't be had.",
    ),
]  # fmt: skip
Features = Annotated[
    Literal["auto", "vgg19", "builtin"] | None,
    typer.Option(
        rich_help_panel=ENGINE,
        help="The network that looks at pictures; auto: VGG19 where it can be had.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", rich_help_panel=ENGINE,
        help="Any key of a preset except base, style and description: strength=30, or "
        "'evaluations=[80, 40]'. A dotted key changes one value of a mapping and leaves its "
        "others: output.quality=80, style_layers.block5_conv1=0. Repeatable.",
    ),
]  # fmt: skip
ConfigPath = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE", parser=as_typed,
        help="The config, or its folder. Otherwise ./stylewatch.yaml, else "
        "~/.config/stylewatch/stylewatch.yaml.",
    ),
]  # fmt: skip
PresetsOf = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE", parser=as_typed,
        help="The config whose `presets:` folders are searched too. Otherwise that of `run`.",
    ),
]  # fmt: skip
StateDir = Annotated[
    str | None,
    typer.Option(
        "--state", metavar="DIR", parser=filled,
        help="The daemon's state folder, if it is neither the config's nor the usual one.",
    ),
]  # fmt: skip


class GlobalOptions:
    """What stood before the command's name, for all commands to read."""

    log_format: Literal["text", "json"] = "text"


class _Plain:
    """Help without Python's types, such as `<bool>` for a switch, or `<list[Path]>` for PHOTO."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, also typer's own, such as `--help`."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for each in params:
            if each.param_type_name == "argument" or each.is_flag:
                each.display_type_rich = lambda **_: ""
        return params

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse what follows the command; an error names it, which typer itself may forget."""
        try:
            return super().parse_args(ctx, args)  # type: ignore[misc, no-any-return]
        except Exception as error:
            if getattr(error, "ctx", ctx) is None:
                error.ctx = ctx  # type: ignore[attr-defined]
            raise


class _Command(_Plain, TyperCommand):
    pass


class Group(_Plain, TyperGroup):
    """Commands under one name."""


Command = TypeVar("Command", bound=Callable[..., None])


def command(
    where: typer.Typer, name: str | None = None, panel: str | None = None
) -> Callable[[Command], Command]:
    """A command whose help is its docstring, in paragraphs that fit any terminal's width."""

    def register(function: Command) -> Command:
        paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
        flowing = [one if "\n  " in one else " ".join(one.split()) for one in paragraphs]
        said = "\n\n".join(flowing)
        where.command(name, cls=_Command, help=said, rich_help_panel=panel)(function)
        return function

    return register


def group(says: str) -> typer.Typer:
    """Commands under one name, whose help begins with this."""
    return typer.Typer(cls=Group, no_args_is_help=True, help=says)
