"""Presets: named styles in YAML, inherited from each other, made comparable by a digest.

Knows nothing of watching, of workers or of pixels: a style image is a file that exists and has a
hash.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from stylewatch.domain import BUILTIN_LAYERS, EngineSettings, Identity, Preset
from stylewatch.errors import ConfigError, InputError, PresetError, PresetImageError, UsageError
from stylewatch.settings.checking import did_you_mean, raise_first
from stylewatch.settings.notations import composed
from stylewatch.settings.paths import CONFIG_NAME, absolute, shipped, user_presets_dir
from stylewatch.settings.presetfile import DEFAULT_BASE, OUTPUT, SETTINGS, values_of, with_values
from stylewatch.settings.states import States, states_of
from stylewatch.settings.yamlfile import MAX_BYTES, KeyPath, YamlFile, load_yaml, typed

_SUFFIXES = {".yaml", ".yml"}
_JOINERS = str.maketrans("", "", "\u200c\u200d")  # parts of Persian words, and of many an emoji
_OF_A_CONFIG = re.compile(rb"^folders\s*:", re.MULTILINE)  # no preset says it
_Look = Callable[[Path], object]
_PLAIN = EngineSettings()
LARGEST_IMAGE = 1 << 30
"""Bytes of a style image: what is larger, such as a film, would be hashed for minutes."""


class Explained(NamedTuple):
    """Where one value of a preset comes from; preset and file are empty for built-in defaults."""

    key: str
    value: Any
    preset: str = ""
    file: Path | None = None


@dataclass(frozen=True)
class _Layer:
    """One file of a preset's chain of bases: only what it says itself, as `values_of` gives it."""

    source: YamlFile
    file: Path
    values: Mapping[str, Any]
    images: States
    """Those that it names, each as it was when nothing of it had been read."""

    @property
    def name(self) -> str:
        return _name_of(self.file)


class Presets:
    """All presets there are, by name; each is read and checked when it is asked for.

    Earlier folders come before later ones and the shipped presets come last, so that one's own
    preset may take a shipped one's name, and may then build on it with `base: <that name>`.
    """

    def __init__(self, files: Mapping[str, tuple[Path, ...]]) -> None:
        self._files = files
        self._layers: dict[Path, _Layer] = {}

    @classmethod
    def load(cls, dirs: Iterable[Path] = ()) -> "Presets":
        """The presets in `dirs` (a folder that does not exist holds none), then the shipped."""
        folders: dict[str, Path] = {}
        for folder in (*dirs, shipped_presets_dir()):
            folders.setdefault(os.path.realpath(folder), folder)
        files: dict[str, tuple[Path, ...]] = {}
        for file in (file for folder in folders.values() for file in _yaml_files(folder)):
            files[_name_of(file)] = (*files.get(_name_of(file), ()), file)
        return cls(files)

    @classmethod
    def around(cls, file: Path, dirs: Iterable[Path] = ()) -> "Presets":
        """What one preset's file is read among: itself, the presets beside it, then as `load`."""
        return cls.load([file.parent, *dirs]).with_first(file)

    def with_first(self, file: Path) -> "Presets":
        """These presets, with `file` before all others of its name, and alone in its folder."""
        of_its_name = self._files.get(_name_of(file), ())
        others = (other for other in of_its_name if other.parent != file.parent)
        return Presets({**self._files, _name_of(file): (file, *others)})

    def __iter__(self) -> Iterator[str]:
        """The names, sorted."""
        return iter(sorted(self._files))

    def __contains__(self, name: str) -> bool:
        """Whether a file has that name; it may still hold errors."""
        return composed(name) in self._files

    def __getitem__(self, name: str) -> Preset:
        """The preset, resolved. A `PresetError` says what is wrong with it, or that it is none."""
        return self.resolved(name)

    def resolved(
        self, name: str, look: _Look | None = None, engine: EngineSettings = _PLAIN
    ) -> Preset:
        """The preset, resolved, with the features that `engine` paints it with.

        With others it is another job. `look` is given each image, and raises if it can't be used.
        """
        chain = self._chain(name)
        values = {key: value for layer in reversed(chain) for key, value in layer.values.items()}
        described = Preset(name=chain[0].name, description=chain[0].values.get("description", ""))
        preset = with_values(described, values)
        settings = replace(preset.settings, features=engine.features_for(preset.settings))

        def source_of(key: str) -> YamlFile:
            return next((layer for layer in chain if key in layer.values), chain[0]).source

        return _finished(replace(preset, settings=settings), source_of, look)

    def sorted_out(
        self, engine: EngineSettings = _PLAIN
    ) -> tuple[dict[str, Preset], dict[str, PresetError]]:
        """Those that can be used, as `resolved` gives them, and what is wrong with the others."""
        sound: dict[str, Preset] = {}
        broken: dict[str, PresetError] = {}
        for name in self:
            try:
                sound[name] = self.resolved(name, engine=engine)
            except PresetError as error:
                broken[name] = error
        return sound, broken

    def images(self) -> States:
        """The images that the presets read so far name, there or not, as they were before that."""
        layers = reversed(self._layers.values())  # what the first has seen counts
        return {path: state for layer in layers for path, state in layer.images.items()}

    def origin(self, name: str) -> Path:
        """The preset's file."""
        if name not in self:
            remedy = nearest_preset(name, self._files)
            raise PresetError(f"unknown preset {name!r}", remedy=remedy, reason="unknown-preset")
        return self._files[composed(name)][0]

    def explain(self, name: str) -> tuple[Explained, ...]:
        """Every value of a preset with the preset and file that set it, for `presets show`."""
        preset, chain = self[name], self._chain(name)
        values = {key: getattr(preset, key) for key in ("description", "style", "effect")}
        values |= {key: getattr(preset.settings, key) for key in SETTINGS}
        values |= {key: getattr(preset.output, name) for key, name in OUTPUT.items()}
        owners = {key: layer for layer in reversed(chain) for key in layer.values}
        return tuple(
            Explained(key, value, owners[key].name, owners[key].file)
            if key in owners and (key != "description" or owners[key] is chain[0])
            else Explained(key, value)
            for key, value in values.items()
        )

    def _chain(self, name: str) -> list[_Layer]:
        """The preset's layers, from its own file down to the last base."""
        chain: list[_Layer] = []
        base: Path | None = self.origin(name)
        while base is not None:
            if base in [layer.file for layer in chain]:
                raise _cycle(chain, base)
            if base not in self._layers:
                self._require_one(base)
                self._layers[base] = _read_layer(base)
            chain.append(self._layers[base])
            base = self._base(chain)
        return chain

    def _require_one(self, file: Path) -> None:
        """A folder has one preset of a name: of `ink.yaml` and `ink.yml` none is meant for sure."""
        for other in self._files[_name_of(file)]:
            if other != file and other.parent == file.parent:
                problem, remedy = f"two presets are called {file.stem!r}", "Rename one of the files"
                raise PresetError(problem, file=file, received=str(other), remedy=remedy)

    def _base(self, chain: list[_Layer]) -> Path | None:
        layer = chain[-1]
        name = composed(layer.values.get("base", DEFAULT_BASE))
        files = self._files.get(name, ())
        shadowed = files[files.index(layer.file) + 1 :] if layer.file in files else files
        if shadowed:
            return shadowed[0]
        if "base" not in layer.values:
            return None
        if files:
            raise _cycle(chain, layer.file)
        remedy = nearest_preset(name, self._files)
        raise layer.source.error(("base",), f"unknown preset {name!r}", remedy=remedy)


def changed(preset: Preset, said: Mapping[str, Any]) -> Preset:
    """The preset with other values for some keys, checked as if a file built on it said them.

    Paths are relative to the working folder.
    """
    source = typed(said, PresetError)
    return _finished(with_values(preset, values_of(source, Path())), lambda _key: source)


def nearest_preset(name: str, known: Iterable[str]) -> str:
    """What to do about a name that no preset has."""
    return did_you_mean(name, known, f"; your own go into {user_presets_dir()}")


def shipped_presets_dir() -> Path:
    """Where the presets lie that come with stylewatch."""
    return shipped("presets")


def known_presets(dirs: Sequence[Path] = ()) -> Presets:
    """Those in `dirs`, which a config names, then one's own and the shipped ones."""
    return Presets.load([*dirs, user_presets_dir()])


def find_preset(called: str, dirs: Sequence[Path] = ()) -> tuple[Presets, str]:
    """A preset that was named on the command line: the presets to look it up in, and its name.

    People give its name, or the path of its YAML file.
    """
    if not _is_path(called):
        presets = known_presets(dirs)
        if called not in presets and (meant := _meant(called)):
            problem = f"unknown preset {called!r}"
            raise PresetError(problem, remedy=meant, reason="unknown-preset")
        return presets, called
    file = absolute(called)
    return Presets.around(file, [*dirs, user_presets_dir()]), file.stem


def _meant(called: str) -> str:
    """What to do about a name that is no preset's, if it is clear what was meant; else empty."""
    if "," in called:
        return "Name each one by itself, as in -p ink -p woodcut"
    path = os.path.expanduser(called)
    for ending in sorted(_SUFFIXES):
        if os.path.isfile(path + ending):
            return f"A file needs its ending: {called}{ending}"
    if os.path.isfile(path):
        return "A preset's file ends in .yaml; for the style of an image there is `apply --style`"
    return ""


def as_config_names(
    called: Sequence[str], dirs: Sequence[Path] = ()
) -> tuple[list[str], list[Path]]:
    """The names and folders by which a config would name these presets of a command line.

    Raises:
        PresetError: one is not there, or has a fault.
        UsageError: two have the same name, or one has a name that no folder's preset may have.
    """
    files: list[Path] = []
    for one in called:
        presets, name = find_preset(one, dirs)
        _ = presets[name]
        files.append(presets.origin(name))
    pairs = zip(called, files, strict=True)
    folders = [*(file.parent for one, file in pairs if _is_path(one)), *dirs]
    together = known_presets(folders)
    for file in files:
        if file.stem not in together:  # as it is passed over in a folder
            problem, remedy = f"no preset of a folder is called {file.stem!r}", "Rename its file"
            raise UsageError(problem, received=str(file), remedy=remedy)
        other = together.origin(file.stem)
        if not file.samefile(other):
            problem, remedy = f"two presets are called {file.stem!r}", "Rename one of the files"
            raise UsageError(problem, received=f"{other} and {file}", remedy=remedy)
    return [file.stem for file in files], folders


def _is_path(called: str) -> bool:
    return Path(called).suffix in _SUFFIXES


def digest(preset: Preset, hashes: Mapping[Path, str]) -> str:
    """Hex SHA-256 of all that makes a difference to the result; images count by their `hashes`."""
    style = [
        asdict(style)
        | {"image": hashes[style.image], "mask": hashes[style.mask] if style.mask else None}
        for style in preset.style
    ]
    parts: dict[str, Any] = {"effect": preset.effect, "style": style}
    init = preset.settings.init
    settings = asdict(preset.settings) | {"init": hashes[init] if isinstance(init, Path) else init}
    parts |= {"settings": settings, "output": asdict(preset.output)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _hash(path: Path) -> str:
    info = path.stat()
    if not stat.S_ISREG(info.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    if info.st_size > LARGEST_IMAGE:
        raise InputError("the file is too large", expected="an image of at most 1 GB")
    return _hash_of(path, Identity.of(info))


@lru_cache(maxsize=256)
def _hash_of(path: Path, _identity: Identity) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name_of(file: Path) -> str:
    return composed(file.stem)


def _yaml_files(folder: Path) -> list[Path]:
    try:
        files = sorted(folder.absolute().iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        problem = f"the presets folder can't be read: {error.strerror}"
        raise PresetError(problem, file=folder) from None
    named = (f for f in files if f.suffix in _SUFFIXES and not f.name.startswith("."))
    shown = (file for file in named if file.name.translate(_JOINERS).isprintable())
    return [file for file in shown if not _is_config(file)]


def _is_config(file: Path) -> bool:
    """Whether it is a config, which may lie beside presets under any name."""
    if file.name == CONFIG_NAME:
        return True
    with contextlib.suppress(OSError):  # which is told when it is read
        if file.is_file():  # a pipe would wait for its writer
            with file.open("rb") as stream:
                return bool(_OF_A_CONFIG.search(stream.read(MAX_BYTES)))
    return False


def _read_layer(file: Path) -> _Layer:
    source = load_yaml(file, PresetError)
    values = values_of(source, file.parent)
    named = _images(with_values(Preset(name=""), values))
    return _Layer(source, file, values, states_of(path for _, path in named))


def _finished(
    preset: Preset, source_of: Callable[[str], YamlFile], look: _Look | None = None
) -> Preset:
    """The preset with its digest, once it is sure that its images and layers can be used.

    `source_of` tells who has set a key, and `look` is as of `Presets.resolved`.
    """
    hashes: dict[Path, str] = {}
    errors: list[ConfigError] = []
    for keys, path in _images(preset):
        try:
            hashes[path] = _hash(path)
            if look:
                look(path)
        except (OSError, InputError) as error:
            errors.append(_image_error(source_of(str(keys[0])), keys, path, error))
    errors += _layer_errors(preset, source_of)
    if errors:
        raise_first(errors)
    return replace(preset, digest=digest(preset, hashes))


def _images(preset: Preset) -> Iterator[tuple[KeyPath, Path]]:
    """The images that it names, with the keys they stand at."""
    if isinstance(preset.settings.init, Path):
        yield ("init",), preset.settings.init
    for number, style in enumerate(preset.style):
        yield ("style", number, "image"), style.image
        if style.mask:
            yield ("style", number, "mask"), style.mask


def _layer_errors(preset: Preset, source_of: Callable[[str], YamlFile]) -> Iterator[ConfigError]:
    """If it is painted with the built-in features: errors for the layers that these lack."""
    if (preset.effect, preset.settings.features) != (Preset.effect, "builtin"):
        return
    problem = f"{preset.name!r} is painted with the built-in features, which lack this layer"
    told = {"expected": f"layers up to {BUILTIN_LAYERS[-1]}"}
    told |= {"remedy": "Choose another, or `features: vgg19`"}
    for key in ("content_layers", "style_layers"):
        for layer in getattr(preset.settings, key):
            if layer not in BUILTIN_LAYERS:
                yield source_of(key).error((key, layer), problem, **told)


def _image_error(
    source: YamlFile, keys: KeyPath, path: Path, error: OSError | InputError
) -> ConfigError:
    what = {"image": "style image", "mask": "mask", "init": "image to start from"}[str(keys[-1])]
    parts = {"received": repr(str(path)), "reason": PresetImageError.reason}
    if isinstance(error, InputError):
        why = error.problem
        parts |= {"expected": error.expected, "remedy": error.remedy}
    else:
        why = str(error.strerror)
        where = "the folder of the preset's file" if source.path else "the working folder"
        parts["remedy"] = f"A path is relative to {where}"
        if ", " in path.name:
            parts["remedy"] += "; several are a list: [a.jpg, b.jpg]"
        if keys == ("init",):
            parts["remedy"] += "; without an image: content or noise"
    return source.error(source.written(keys), f"the {what} can't be used: {why}", **parts)


def _cycle(chain: list[_Layer], again: Path) -> ConfigError:
    names = " -> ".join([*(layer.name for layer in chain), again.stem])
    problem = f"the presets build on each other in a circle: {names}"
    return chain[-1].source.error(("base",), problem, remedy="Let one of them have another base")
