"""How paths in files and on command lines are read, and where config, state and presets lie."""

import os
from pathlib import Path

from stylewatch.errors import ConfigError

CONFIG_NAME = "stylewatch.yaml"


def absolute(path: str | Path, folder: Path = Path()) -> Path:
    """A path as it is written in a file in `folder`, or else on the command line, made absolute.

    Given as text, `./~name` is no home folder; as a `Path` it is, since that forgets the `./`.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise ConfigError(
            f"there is no home folder {expanded.partition('/')[0]}", received=str(path),
            remedy="Set HOME, or write the path without ~",
        )  # fmt: skip
    try:
        return (folder / expanded).absolute()
    except FileNotFoundError:
        remedy = "Change to a folder that is there"
        raise ConfigError("the working folder was removed", remedy=remedy) from None


def find_config(named: Path | None) -> Path:
    """The config: the one named, or in the folder named; else the one here, or the user's own."""
    if named is not None:
        file = Path(os.path.expanduser(named))
        return file / CONFIG_NAME if os.path.isdir(file) else file
    for file in (Path(CONFIG_NAME), user_config()):
        if os.path.exists(file):
            return file
    raise ConfigError(
        "there is no config",
        expected=f"./{CONFIG_NAME} or {user_config()}",
        remedy="`stylewatch init` writes one; `stylewatch watch IN OUT` needs none",
    )


def shipped(folder: str) -> Path:
    """A folder that comes with stylewatch, in the wheel or in a checkout."""
    package = Path(__file__).parent.parent
    installed = package / "data" / folder
    return installed if installed.is_dir() else package.parent / folder


def user_config() -> Path:
    """Where one's own config lies: `~/.config/stylewatch/stylewatch.yaml`."""
    return user_presets_dir().with_name(CONFIG_NAME)


def user_presets_dir() -> Path:
    """Where one's own presets lie: `~/.config/stylewatch/presets`."""
    return _base_folder("XDG_CONFIG_HOME", "~/.config") / "stylewatch" / "presets"


def default_state_dir() -> Path:
    """Where the state lies unless the config says otherwise: where systemd says, or in the home."""
    systemd = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if systemd:
        return Path(systemd)
    return _base_folder("XDG_STATE_HOME", "~/.local/state") / "stylewatch"


def _base_folder(variable: str, usual: str) -> Path:
    """One of the XDG base directories; as that standard says, a relative path does not count."""
    named = os.environ.get(variable, "")
    return absolute(named if named.startswith(("/", "~")) else usual)
