"""From stylewatch.yaml, or from the command line of `watch`, to a `Config`.

What is wrong is a `ConfigError` that says where. What may come and go, such as a style image, is no
error here: photos wait for it.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from stylewatch.domain import EngineSettings, Preset
from stylewatch.errors import LACKING, ConfigError
from stylewatch.settings.checking import json_schema, raise_first, validate
from stylewatch.settings.config import AsWritten, Config, ConfigFile, Folder
from stylewatch.settings.layout import layout_errors
from stylewatch.settings.notations import Paths
from stylewatch.settings.paths import default_state_dir, user_presets_dir
from stylewatch.settings.presetfile import DEFAULT_EFFECT
from stylewatch.settings.presets import Presets, nearest_preset
from stylewatch.settings.readiness import presets_away, unlisted, weights_away
from stylewatch.settings.states import State, preset_files, states_of
from stylewatch.settings.yamlfile import YamlFile, load_yaml, shown, typed

T = TypeVar("T")


def load_config(file: Path) -> Config:
    """The config in `file`; a `ConfigError` tells what is wrong and where."""
    before = states_of([file])
    source = load_yaml(file)
    config = _build(source, validate(ConfigFile, source), file.absolute().parent)
    return replace(config, files={**config.files, **before})


def watch_config(
    input_dir: Path,
    output: Path,
    names: Sequence[str],
    /,
    *,
    presets: Sequence[Path] = (),
    state_dir: Path | None = None,
    weights: str = EngineSettings.weights,
    **settings: Any,
) -> Config:
    """`stylewatch watch IN OUT --preset NAME`; `settings` are further keys of stylewatch.yaml."""
    folder = {"input": ".", "output": ".", "preset": list(names)}
    source = typed({"folders": [folder], **settings})
    checked = validate(ConfigFile, source)
    # a path on the command line is bytes and need not be UTF-8, as text in YAML must
    watched = replace(checked.folders[0], input=input_dir, output=output)
    checked = replace(
        checked, folders=(watched,), presets=tuple(presets), state_dir=state_dir, weights=weights
    )
    try:
        return _build(source, checked, Path())
    except ConfigError as error:
        error.key = error.key.removeprefix("folders[0].")  # no such list was written by anybody
        raise


def config_schema() -> dict[str, Any]:
    """JSON Schema of stylewatch.yaml, for editors."""
    return json_schema(ConfigFile)


def state_dir_of(file: Path) -> Path:
    """The state directory of that config, whatever else is wrong with the config."""
    source = load_yaml(file)
    named = source.data.get("state_dir")
    if named is None:
        return default_state_dir()
    if not isinstance(named, str):
        raise source.error(("state_dir",), "wrong type", expected="a path", received=shown(named))
    return source.place(("state_dir",), Path(named), file.absolute().parent)


def preset_dirs_of(file: Path) -> tuple[list[Path], dict[Path, ConfigError]]:
    """The folders of presets that a config names, whatever else is wrong with it.

    The second value is about those of them that can't be listed now: what is wrong with each.
    """
    source = load_yaml(file)
    named = _only(_PresetDirs, source).presets
    base = file.absolute().parent
    dirs = [source.place(("presets", n), path, base) for n, path in enumerate(named)]
    return dirs, unlisted(source, dirs)


@dataclass(frozen=True)
class _PresetDirs:
    """The only key of stylewatch.yaml that `preset_dirs_of` reads."""

    presets: Paths = ()


def features_of(file: Path) -> EngineSettings:
    """The features that a config asks for, whatever else is wrong with it."""
    return EngineSettings(features=_only(_Features, load_yaml(file)).features)


@dataclass(frozen=True)
class _Features:
    """The only key of stylewatch.yaml that `features_of` reads."""

    features: Literal["auto", "vgg19", "builtin"] = EngineSettings.features


def _only(form: type[T], source: YamlFile) -> T:
    """Those keys of stylewatch.yaml, and no others."""
    names = {key.name for key in fields(form)}  # type: ignore[arg-type]
    said = {key: value for key, value in source.data.items() if key in names}
    return validate(form, replace(source, data=said))


def _build(source: YamlFile, checked: ConfigFile, base: Path) -> Config:
    config = _without_presets(source, checked, base)
    if errors := [*_name_errors(config), *_rule_errors(config), *layout_errors(config)]:
        raise_first(errors)
    return _with_presets(config)


def _without_presets(source: YamlFile, checked: ConfigFile, base: Path) -> Config:
    """The config with every path absolute, and no presets yet."""

    def place(*written: Any) -> Path:  # the keys, and what stands there
        return source.place(written[:-1], Path(written[-1]), base)

    folders = tuple(
        _placed(folder, checked.quiet_seconds, partial(place, "folders", number))
        for number, folder in enumerate(checked.folders)
    )
    own_dirs = [place("presets", number, path) for number, path in enumerate(checked.presets)]
    named = checked.state_dir
    state_dir = default_state_dir() if named is None else place("state_dir", named)
    return Config(
        **{same.name: getattr(checked, same.name) for same in fields(AsWritten)},
        source=source,
        folders=folders,
        preset_dirs=(*own_dirs, user_presets_dir()),
        presets={},
        engine=_engine(checked, place, state_dir),
        state_dir=state_dir,
        own_state_dir=named is not None,
    )


def _placed(folder: Folder, quiet_seconds: float, place: Callable[..., Path]) -> Folder:
    source = place("input", folder.input)
    after = folder.after
    return replace(
        folder,
        input=source,
        output=place("output", folder.output),
        name=folder.name or _label(os.path.basename(os.path.abspath(source))),  # noqa: PTH100, PTH119
        after=place("after", after) if isinstance(after, Path) else after,
        quiet_seconds=folder.quiet_seconds or quiet_seconds,
    )


def _label(name: str) -> str:
    """A file's name as text: what is no UTF-8 in it is written as numbers."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _engine(checked: ConfigFile, place: Callable[..., Path], state_dir: Path) -> EngineSettings:
    weights = checked.weights
    return EngineSettings(
        weights=weights if weights == "imagenet" else str(place("weights", weights)),
        features=checked.features,
        threads=checked.threads,
        nice=checked.nice,
        memory=checked.memory,
        workers=checked.workers if isinstance(checked.workers, int) else 1,
        memory_limit=checked.memory_limit,
        checkpoint_dir=state_dir / "checkpoints",
        checkpoint_seconds=checked.checkpoint_seconds,
        **vars(checked.limits),
    )


def _name_errors(config: Config) -> Iterator[ConfigError]:
    for number, folder in enumerate(config.folders):
        if folder.name in [earlier.name for earlier in config.folders[:number]]:
            problem = f"two folders are called {folder.name!r}"
            remedy = "Give one of them another `name:`"
            yield config.source.error(("folders", number, "name"), problem, remedy=remedy)


def _rule_errors(config: Config) -> Iterator[ConfigError]:
    for number, folder in enumerate(config.folders):
        for place, rule in enumerate(folder.rules):
            if rule.min_side and rule.max_side and rule.min_side > rule.max_side:
                keys = ("folders", number, "rules", place, "min_side")
                yield config.source.error(
                    keys,
                    "no photo has such sides",
                    expected=f"at most max_side, which is {rule.max_side}",
                    received=str(rule.min_side),
                )


def _with_presets(config: Config) -> Config:
    """The config with the presets that can be used now, and why others can't."""
    files: dict[Path, State] = {}
    with suppress(OSError):  # a folder is closed to us for now: all in it is new when it is not
        files = states_of(preset_files(config.preset_dirs))
    if away := presets_away(config):  # they may hold another preset of any name
        any_name = [*(name for _, name in config.named_presets()), *Presets.load()]
        return replace(config, broken=dict.fromkeys(any_name, str(away[0])), files=files)
    there = Presets.load(config.preset_dirs)
    presets, broken = _sorted_presets(config, there)
    files |= there.images()
    if config.engine.weights != "imagenet" and config.workers_are_here:
        files |= states_of([Path(config.engine.weights)])
        if trouble := weights_away(config):
            needy = [name for name in presets if _needs_vgg19(presets[name])]
            broken |= dict.fromkeys(needy, str(trouble))
            presets = {name: preset for name, preset in presets.items() if name not in needy}
    return replace(config, presets=presets, broken=broken, files=files)


def _sorted_presets(config: Config, there: Presets) -> tuple[dict[str, Preset], dict[str, str]]:
    """The presets that can be used, and what is wrong with the others.

    Raises:
        ConfigError: the config names one of the others. It may if that only lacks an image, or an
            effect's package, which may be back in a moment.
    """
    sound, broken = there.sorted_out(config.engine)
    usable = {name: preset for name, preset in sound.items() if not preset.lacks_style}
    source, errors = config.source, list[ConfigError]()
    for keys, name in config.named_presets():
        if name in broken:
            if broken[name].reason not in LACKING:
                raise broken[name]
        elif name not in there:
            problem, remedy = f"unknown preset {name!r}", nearest_preset(name, there)
            if config.file and "," in name:
                remedy = f"Several are a list: [{name}]"
            errors.append(source.error(keys, problem, remedy=remedy, reason="unknown-preset"))
        elif name not in usable:
            problem = f"preset {name!r} has no style image"
            errors.append(source.error(keys, problem, remedy="Name another: " + ", ".join(usable)))
    if errors:
        raise_first(errors)
    return usable, {name: str(error) for name, error in broken.items()}


def _needs_vgg19(preset: Preset) -> bool:
    return preset.effect == DEFAULT_EFFECT and preset.settings.features != "builtin"
