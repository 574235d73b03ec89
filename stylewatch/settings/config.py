"""stylewatch.yaml: which folders are watched, what is made of their photos, and within what limits.

Gives one frozen `Config`, or one line that says what is wrong and where. Knows nothing of jobs,
processes or the network; what may come and go (a volume, a permission) is no error here but a
problem that `check` lists.
"""

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import combinations
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, NamedTuple

from annotated_types import Ge, Gt, Le, MinLen

from stylewatch.domain import EngineSettings, PhotoFacts, Preset
from stylewatch.errors import ConfigError, PresetImageError
from stylewatch.settings.notations import After, Bytes, Names, Paths, Seconds, Workers, composed
from stylewatch.settings.places import lineage
from stylewatch.settings.presets import (
    CONFIG_NAME,
    DEFAULT_BASE,
    DEFAULT_EFFECT,
    Presets,
    base_folder,
    user_presets_dir,
)
from stylewatch.settings.rules import Rule
from stylewatch.settings.weights import weights_trouble
from stylewatch.settings.yamlfile import (
    KeyPath,
    YamlFile,
    did_you_mean,
    dotted,
    json_schema,
    load_yaml,
    raise_first,
    shown,
    validate,
)

# --- the data -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Folder:
    """One watched folder."""

    input: Path
    """Where photos are dropped."""
    output: Path
    """Where the results go; sub-folders are mirrored."""
    name: str = ""
    """What `status` and the ledger call it; the input's own name unless said otherwise."""
    preset: Names = (DEFAULT_BASE,)
    """For photos that no rule matches: one preset or several; `[]` leaves them alone."""
    rules: tuple[Rule, ...] = ()
    """The first that matches decides."""
    subfolders: bool = True
    """A photo in a sub-folder named after a preset gets that preset, whatever the rules say."""
    after: After = "keep"
    """What happens to a photo once its result is safe: keep, delete or {move: FOLDER}."""
    quiet_seconds: Annotated[Seconds, Ge(0)] = 0.0
    """This folder's own, for instance on a slow network drive; 0 means the general one."""
    weight: Annotated[float, Gt(0)] = 1.0
    """Its share of the work when several folders have photos waiting."""


@dataclass(frozen=True, kw_only=True)
class AsWritten:
    """What the daemon takes from stylewatch.yaml as it stands there."""

    workers: Workers = "local"
    """Who paints: `local` (one process here), {local: 4}, or a Dask scheduler's tls://HOST:PORT."""
    quiet_seconds: Annotated[Seconds, Ge(0.1)] = 2.0
    """A file is complete when it has not changed for so long, or for a quarter of it since it was
    closed."""
    settle_max_seconds: Annotated[Seconds, Gt(0)] = 600.0
    """A file that is still not whole so long after its last change is set aside."""
    rescan_seconds: Annotated[Seconds, Ge(1)] = 30.0
    """How often folders are looked through, besides being told of changes; large ones less often,
    but every ten minutes."""
    job_timeout: Annotated[Seconds, Gt(0)] = 3600.0
    """A photo that takes longer is stopped and tried again."""
    max_attempts: Annotated[int, Ge(1)] = 3
    """After so many failures a photo is set aside; `stylewatch retry` brings it back."""
    grace_seconds: Annotated[Seconds, Ge(0)] = 5.0
    """How long a running photo may go on after a request to stop."""
    idle_release: Annotated[Seconds, Ge(0)] = 600.0
    """Idle workers are ended after so long, which frees their memory; 0 keeps them."""
    min_free: Annotated[Bytes, Ge(0)] = 500_000_000
    """An output pauses while its disk has less space than this."""
    retention_days: Annotated[float, Gt(0)] = 365
    """How long the ledger keeps each job and its result, and remembers files that are gone."""
    metrics_port: Annotated[int, Ge(1), Le(65535)] | None = None
    """Port on this machine for Prometheus."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The largest photo that is opened at all."""

    max_pixels: Annotated[int, Ge(1)] = EngineSettings.max_pixels
    """Width times height."""
    max_side: Annotated[int, Ge(1)] = EngineSettings.max_side
    """Pixels of the longer side."""
    max_bytes: Annotated[Bytes, Ge(1)] = EngineSettings.max_bytes
    """Size of the file."""


@dataclass(frozen=True, kw_only=True)
class ConfigFile(AsWritten):
    """stylewatch.yaml."""

    folders: Annotated[tuple[Folder, ...], MinLen(1)]
    """The folders to watch."""
    presets: Paths = ()
    """Folders with presets of one's own, besides ~/.config/stylewatch/presets."""
    state_dir: Path | None = None
    """Where the ledger lives; on a local disk. Otherwise ~/.local/state/stylewatch."""
    weights: str = EngineSettings.weights
    """`imagenet` (downloaded once), or the path of a VGG19 weights file in Keras's format."""
    features: Literal["auto", "vgg19", "builtin"] = EngineSettings.features
    """What a preset's `features: auto` means here."""
    threads: Annotated[int, Ge(0), Le(1024)] = EngineSettings.threads
    """CPU threads per worker; 0 = all cores."""
    nice: Annotated[int, Ge(0), Le(19)] = EngineSettings.nice
    """How far workers stand back behind other programs."""
    memory: Annotated[Bytes, Ge(0)] = EngineSettings.memory
    """What painting may take at once; larger photos are painted in tiles. 0 = half of what is
    free."""
    memory_limit: Annotated[Bytes, Ge(0)] = EngineSettings.memory_limit
    """A worker that uses so much beyond what it had at its start fails; 0 = no limit."""
    checkpoint_seconds: Annotated[Seconds, Gt(0)] = EngineSettings.checkpoint_seconds
    """How often an unfinished painting is saved, so that a restart goes on from there."""
    limits: Limits = field(default_factory=Limits)
    """The largest photo that is opened at all."""


@dataclass(frozen=True, kw_only=True)
class Config(AsWritten):
    """All that the daemon needs to know, checked: paths absolute, presets resolved."""

    file: Path | None
    """None when there is no file: `stylewatch watch IN OUT`."""
    folders: tuple[Folder, ...]
    presets: Mapping[str, Preset]
    """Every preset that can be used, by name."""
    broken: Mapping[str, str] = field(default_factory=dict)
    """What is wrong with those that can't be used just now, by name: photos wait for them."""
    files: frozenset[Path] = frozenset()
    """What all these need, as images and weights: when one changes or comes back, so do they."""
    preset_dirs: tuple[Path, ...]
    """Where they came from, besides the shipped ones."""
    engine: EngineSettings
    state_dir: Path
    own_state_dir: bool = field(default=False, compare=False)
    """Whether the config names it, so that systemd's word for it does not count."""

    @property
    def workers_are_here(self) -> bool:
        """Whether this machine paints, with its own files, and not a cluster."""
        return isinstance(self.workers, int)

    def waits(self, lacking: Mapping[str, str] = {}) -> list[str]:
        """Which presets photos may have to wait for, and why; `lacking`: what else is known of."""
        named = {name for _, name in _named(self.folders)}
        meant = any(folder.subfolders for folder in self.folders)
        found: dict[str, list[str]] = {}
        wait = {name: why for name, why in self.broken.items() if meant or name in named}
        for name, why in (wait | dict(lacking)).items():
            found.setdefault(why, []).append(name)
        return [f"photos for {self._listed(names)} wait: {why}" for why, names in found.items()]

    def _listed(self, names: Sequence[str]) -> str:
        """Presets as people name them: most of many are all but the others."""
        others = sorted({*self.broken, *self.presets}.difference(names))
        if len(others) >= len(names):
            return ", ".join(names)
        return "all presets" + (f" but {', '.join(others)}" if others else "")

    def written(self) -> list[Path]:
        """The folders that the daemon writes to, besides the usual state directory."""
        folders = [folder.output for folder in self.folders]
        for folder in self.folders:
            folders += [folder.input] if folder.after != "keep" else []
            folders += [folder.after] if isinstance(folder.after, Path) else []
        return folders + [self.state_dir] * self.own_state_dir


# --- from YAML to Config --------------------------------------------------------------------------


def load_config(file: Path) -> Config:
    """The config in `file`; a `ConfigError` tells what is wrong and where."""
    source = load_yaml(file)
    return _build(source, validate(ConfigFile, source), file.absolute().parent)


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
    source = YamlFile(None, {"folders": [folder], **settings})
    checked = validate(ConfigFile, source)
    # a path on the command line is bytes and need not be UTF-8, as text in YAML must
    watched = replace(checked.folders[0], input=input_dir, output=output)
    checked = replace(
        checked,
        folders=(watched,),
        presets=tuple(presets),
        state_dir=state_dir,
        weights=weights,
    )
    try:
        return _build(source, checked, Path())
    except ConfigError as error:
        error.key = error.key.removeprefix("folders[0].")  # no such list was written by anybody
        raise


def config_schema() -> dict[str, Any]:
    """JSON Schema of stylewatch.yaml, for editors."""
    return json_schema(ConfigFile)


def default_state_dir() -> Path:
    """Where the state lives unless the config says otherwise; systemd has its own word for it."""
    systemd = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if systemd:
        return Path(systemd)
    return base_folder("XDG_STATE_HOME", "~/.local/state") / "stylewatch"


def state_dir_of(file: Path) -> Path:
    """Where the daemon of that config has its state, whatever else is wrong with the config."""
    source = load_yaml(file)
    named = source.data.get("state_dir")
    if named is None:
        return default_state_dir()
    if not isinstance(named, str):
        raise source.error(("state_dir",), "wrong type", expected="a path", received=shown(named))
    return source.place(("state_dir",), Path(named), file.absolute().parent)


def user_config() -> Path:
    """Where one's own config lies: `~/.config/stylewatch/stylewatch.yaml`."""
    return user_presets_dir().with_name(CONFIG_NAME)


def find_config(named: Path | None) -> Path:
    """The config to use: as named, the one here, or the user's."""
    if named is not None:
        return Path(os.path.expanduser(named))
    for file in (Path(CONFIG_NAME), user_config()):
        if os.path.exists(file):
            return file
    raise ConfigError(
        "there is no config",
        expected=f"./{CONFIG_NAME} or {user_config()}",
        remedy="`stylewatch init` writes one; `stylewatch watch IN OUT` needs none",
    )


def _build(source: YamlFile, checked: ConfigFile, base: Path) -> Config:
    config = _without_presets(source, checked, base)
    if errors := [*_name_errors(source, config.folders), *_place_errors(source, config)]:
        raise_first(errors)
    return _with_presets(source, config)


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
        file=source.path,
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
    """A file's name as text: it is bytes, and need not be UTF-8."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _engine(checked: ConfigFile, place: Callable[..., Path], state_dir: Path) -> EngineSettings:
    weights = checked.weights
    return EngineSettings(
        weights=weights if weights == "imagenet" else str(place("weights", weights)),
        features=checked.features,
        threads=checked.threads,
        nice=checked.nice,
        memory=checked.memory,
        memory_limit=checked.memory_limit,
        checkpoint_dir=state_dir / "checkpoints",
        checkpoint_seconds=checked.checkpoint_seconds,
        **vars(checked.limits),
    )


def _name_errors(source: YamlFile, folders: Sequence[Folder]) -> Iterator[ConfigError]:
    for number, folder in enumerate(folders):
        if folder.name in [earlier.name for earlier in folders[:number]]:
            problem = f"two folders are called {folder.name!r}"
            remedy = "Give one of them another `name:`"
            yield source.error(("folders", number, "name"), problem, remedy=remedy)


def _with_presets(source: YamlFile, config: Config) -> Config:
    """The config with the presets that can be used now, and with what is wrong with others."""
    if away := _presets_away(config):  # they may hold another preset of any name
        any_name = [*(name for _, name in _named(config.folders)), *Presets.load()]
        return replace(config, broken=dict.fromkeys(any_name, str(away[0])))
    there = Presets.load(config.preset_dirs)
    presets, broken = _sorted_presets(source, config, there)
    files = there.images()
    if config.engine.weights != "imagenet" and config.workers_are_here:
        files.add(Path(config.engine.weights))
        if trouble := _weights_away(config):
            needy = [name for name in presets if _needs_vgg19(presets[name], config.engine)]
            broken |= dict.fromkeys(needy, str(trouble))
            presets = {name: preset for name, preset in presets.items() if name not in needy}
    return replace(config, presets=presets, broken=broken, files=frozenset(files))


def _sorted_presets(
    source: YamlFile, config: Config, there: Presets
) -> tuple[dict[str, Preset], dict[str, str]]:
    """The presets of use, and what is wrong with others.

    Of these the config may name only such as lack an image, which may be back in a moment.
    """
    sound, broken = there.sorted_out()
    usable = {name: preset for name, preset in sound.items() if not preset.lacks_style}
    errors: list[ConfigError] = []
    for keys, name in _named(config.folders):
        if name in broken:
            if broken[name].reason != PresetImageError.reason:
                raise broken[name]
        elif name not in there:
            problem, remedy = f"unknown preset {name!r}", did_you_mean(name, there)
            errors.append(source.error(keys, problem, remedy=remedy, reason="unknown-preset"))
        elif name not in usable:
            problem = f"preset {name!r} has no style image"
            errors.append(source.error(keys, problem, remedy="Name another: " + ", ".join(usable)))
    if errors:
        raise_first(errors)
    return usable, {name: str(error) for name, error in broken.items()}


def _named(folders: Sequence[Folder]) -> Iterator[tuple[KeyPath, str]]:
    for number, folder in enumerate(folders):
        yield from ((("folders", number, "preset"), name) for name in folder.preset)
        for place, rule in enumerate(folder.rules):
            keys: KeyPath = ("folders", number, "rules", place, "preset")
            yield from ((keys, name) for name in rule.preset)


# --- which folders may lie where ------------------------------------------------------------------


class _Place(NamedTuple):
    keys: KeyPath
    what: str
    path: Path
    use: Literal["watched", "written", "read"] = "written"


def _places(config: Config) -> Iterator[_Place]:
    for number, folder in enumerate(config.folders):
        keys: KeyPath = ("folders", number)
        yield _Place((*keys, "input"), f"the input of {folder.name!r}", folder.input, "watched")
        yield _Place((*keys, "output"), f"the output of {folder.name!r}", folder.output)
        if isinstance(folder.after, Path):
            what = f"the folder that photos of {folder.name!r} move to"
            yield _Place((*keys, "after"), what, folder.after)
    yield _Place(("state_dir",), "the state folder", config.state_dir)


def _place_errors(source: YamlFile, config: Config) -> Iterator[ConfigError]:
    *own, _ = config.preset_dirs
    yield from (source.error(("presets",), f"not a folder: {p}") for p in own if os.path.isfile(p))
    read = [_Place(("presets",), "the presets folder", path, "read") for path in config.preset_dirs]
    for _, later, inner, problem in _overlaps([*_places(config), *read]):
        remedy = "Choose a folder outside of it"
        yield source.error(later.keys, problem, received=str(inner.path), remedy=remedy)


def _overlaps(places: Sequence[_Place]) -> Iterator[tuple[_Place, _Place, _Place, str]]:
    """Nothing may lie inside an input, nor an input where we write: results would be inputs.

    Both places in their order, the inner one of them, and what is wrong.
    """
    lines = {place: lineage(place.path) for place in places}
    for one, other in combinations(places, 2):
        if "watched" not in (one.use, other.use):
            continue
        for inner, outer in ((other, one), (one, other)):
            if outer.use != "read" and lines[outer][0] in lines[inner]:
                how = "is" if lines[outer][0] == lines[inner][0] else "lies inside"
                yield one, other, inner, f"{inner.what} {how} {outer.what}"
                break


def overlap(config: Config, folder: Folder) -> str:
    """What is wrong with where an input has come to lie since the config was read; else empty."""
    found = _overlaps(list(_places(config)))
    theirs = (why for one, other, _, why in found if folder.input in (one.path, other.path))
    return next(theirs, "")


# --- what may come and go -------------------------------------------------------------------------


def check(config: Config) -> list[ConfigError]:
    """What keeps a valid config from working just now: folders, rights, weights, other presets."""
    problem = partial(ConfigError, file=config.file)
    problems: list[ConfigError] = []
    for place in _places(config):
        trouble_of = _reading_trouble if place.use == "watched" else _writing_trouble
        if trouble := trouble_of(place.path):
            problems.append(
                problem(f"{place.what} {trouble}", key=dotted(place.keys), received=str(place.path))
            )
    for number, folder in enumerate(config.folders):
        if folder.after != "keep" and _writing_trouble(folder.input):
            text = f"photos can't be taken out of {folder.input}"
            problems.append(problem(text, key=f"folders[{number}].after"))
    if weights_away := _weights_away(config):
        problems.append(weights_away)
    away = _presets_away(config)
    _, broken = Presets.load(() if away else config.preset_dirs).sorted_out()
    return [*problems, *away, *broken.values()]


def _presets_away(config: Config) -> list[ConfigError]:
    """Folders of presets, but for the usual one, that can't be listed now.

    Where a preset is named that is in none of them, also those that are empty: a disk may be
    mounted there later.
    """
    own = config.preset_dirs[:-1]
    troubles = {folder: _listing_trouble(folder) for folder in own}
    if own and not any(troubles.values()):
        there = Presets.load(config.preset_dirs)
        if not all(name in there for _, name in _named(config.folders)):
            troubles = {folder: _listing_trouble(folder, empty="is empty") for folder in own}
    return [
        ConfigError(
            f"the presets folder {trouble}",
            file=config.file,
            key="presets",
            received=str(folder),
            remedy="It may hold a preset of any name. Is its disk there?",
        )
        for folder, trouble in troubles.items()
        if trouble
    ]


def _listing_trouble(folder: Path, *, empty: str = "") -> str:
    try:
        return "" if list(folder.iterdir()) else empty
    except OSError as error:
        return _reading_trouble(folder) or f"can't be read: {error.strerror}"


def _reading_trouble(path: Path) -> str:
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            return "is not a folder"
    except (FileNotFoundError, NotADirectoryError):
        return "does not exist"
    except OSError as error:
        return f"can't be read: {error.strerror}"
    return "" if os.access(path, os.R_OK | os.X_OK) else "can't be read"


def _weights_away(config: Config) -> ConfigError | None:
    weights = config.engine.weights
    if not (trouble := weights_trouble(weights)):
        return None
    problem = f"the weights file {trouble}"
    return ConfigError(problem, file=config.file, key="weights", received=weights)


def _needs_vgg19(preset: Preset, engine: EngineSettings) -> bool:
    return preset.effect == DEFAULT_EFFECT and engine.features_for(preset.settings) != "builtin"


def _writing_trouble(path: Path) -> str:
    """Why nothing can be written there; a folder that can be made is no trouble."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:  # closed to us, too long a name, a share that does not answer
        return f"can't be used: {error.strerror}"
    there = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if not os.path.isdir(there):
        return "is not a folder" if there == path else f"can't be made: {there} is not a folder"
    return "" if os.access(there, os.W_OK | os.X_OK) else "can't be written to"


# --- which presets a photo gets -------------------------------------------------------------------


def match(
    folder: Folder,
    path: PurePath,
    facts: Callable[[], PhotoFacts],
    presets: Mapping[str, Preset],
    broken: Collection[str] = (),
) -> tuple[Preset, ...]:
    """The presets for the photo at `path` below the folder's input; () leaves it alone.

    `facts` is asked only when a rule needs to look into the photo. It also waits while one that
    it is to get is `broken` for now: no other style was meant.
    """
    if folder.subfolders and len(path.parts) > 1:
        named = _called(path.parts[0], (*broken, *presets))
        if named in broken:
            return ()
        if named in presets:
            return (presets[named],)
    rule = next((rule for rule in folder.rules if rule.holds(path, facts)), folder)
    if any(name in broken for name in rule.preset):
        return ()
    return tuple(presets[name] for name in rule.preset if name in presets)


def _called(folder: str, names: Iterable[str]) -> str:
    """The one of `names` that a folder has, in another case if need be; else its own."""
    named = composed(folder)
    alike = [name for name in names if name.casefold() == named.casefold()]
    return named if named in alike else next(iter(alike), named)
