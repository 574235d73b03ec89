"""The config as data: `ConfigFile`, stylewatch.yaml as written, and `Config`, what is made of it.

Knows nothing of how it is read, and of jobs, processes or the network.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MinLen

from stylewatch import domain
from stylewatch.domain import EngineSettings, Preset
from stylewatch.settings.notations import (
    After,
    Bytes,
    Hours,
    Memory,
    Names,
    Paths,
    Seconds,
    Workers,
)
from stylewatch.settings.presetfile import DEFAULT_BASE
from stylewatch.settings.rules import Rule
from stylewatch.settings.states import States
from stylewatch.settings.yamlfile import KeyPath, YamlFile


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
    """This folder's own, as for a slow scanner; 0 means the general one."""
    weight: Annotated[float, Gt(0)] = 1.0
    """Its share of the work when several folders have photos waiting."""

    @property
    def stays(self) -> bool:
        """Whether photos stay in it when they are painted."""
        return self.after == "keep"


@dataclass(frozen=True, kw_only=True)
class AsWritten:
    """The keys of stylewatch.yaml that `ConfigFile` and `Config` have in common."""

    workers: Workers = "local"
    """Who paints: `local` (one process here), {local: 4}, or a Dask scheduler's tls://HOST:PORT."""
    quiet_seconds: Annotated[Seconds, Ge(0.1)] = 2.0
    """A file is complete when it has not changed for this long, or for a quarter of this since it
    was closed."""
    settle_max_seconds: Annotated[Seconds, Gt(0)] = 600.0
    """A file that is still not whole this long after its last change is set aside."""
    rescan_seconds: Annotated[Seconds, Ge(1)] = 30.0
    """How often folders are looked through, besides being told of changes; large ones less often,
    but every ten minutes."""
    job_timeout: Annotated[Seconds, Gt(0)] = 3600.0
    """A photo that takes longer, beyond its preset's `time_budget`, is stopped and tried again."""
    hours: Hours = domain.ALL_DAY
    """When photos are begun, such as 22:00-07:00; at other times they wait. Several with commas."""
    on_battery: Literal["paint", "wait"] = "paint"
    """With `wait` no photo is begun while this machine runs on its battery."""
    max_attempts: Annotated[int, Ge(1)] = 3
    """After this many failures, or two crashes, a photo is set aside; `retry` brings it back."""
    grace_seconds: Annotated[Seconds, Ge(0)] = 5.0
    """How long a running photo may go on after a request to stop."""
    idle_release: Annotated[Seconds, Ge(0)] = 600.0
    """Idle workers are ended after this long, which frees their memory; 0 keeps them."""
    min_free: Annotated[Bytes, Ge(0)] = 500_000_000
    """With less space than this on its disk an output pauses, and no photo is moved there."""
    retention_days: Annotated[float, Gt(0)] = 365
    """How long the ledger remembers photos that are gone, and results that newer ones replaced."""
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
    """CPU threads per worker; 0 = its share of the cores."""
    nice: Annotated[int, Ge(0), Le(19)] = EngineSettings.nice
    """How far workers give way to other programs."""
    memory: Memory = EngineSettings.memory
    """What each worker may take for a photo; one that needs more is painted in tiles, and takes
    0.15 kB a pixel at least. 0 = three quarters of what is free, on a GPU of its memory, shared
    by all workers."""
    memory_limit: Memory = EngineSettings.memory_limit
    """A worker that uses this much more than at its start fails; 0 = no limit. With a limit
    a GPU's driver may not start, as it takes far more addresses than memory."""
    checkpoint_seconds: Annotated[Seconds, Gt(0)] = EngineSettings.checkpoint_seconds
    """How often an unfinished painting is saved, so that a restart goes on from there; one of more
    than 2.5 megapixels less often, so that no more is written."""
    limits: Limits = field(default_factory=Limits)
    """The largest photo that is opened at all."""


@dataclass(frozen=True, kw_only=True)
class Config(AsWritten):
    """All that the daemon needs to know, checked: paths absolute, presets resolved."""

    source: YamlFile = field(repr=False, compare=False)
    """As it was read: what is found wrong later still has its place in it."""
    folders: tuple[Folder, ...]
    presets: Mapping[str, Preset]
    """Every preset that can be used, by name."""
    broken: Mapping[str, str] = field(default_factory=dict)
    """The presets that can't be used just now, by name, and why: photos wait for them."""
    files: States = field(default_factory=dict, repr=False, compare=False)
    """What it was read from, with the images and weights that presets need, there or not; each as
    it was just before. What is in another state by now is to be read again."""
    preset_dirs: tuple[Path, ...]
    """The folders that presets were read from, besides the shipped ones; the user's own is last."""
    engine: EngineSettings
    state_dir: Path
    own_state_dir: bool = field(default=False, compare=False)
    """Whether the config names `state_dir`; else systemd may choose another."""

    @property
    def file(self) -> Path | None:
        """None when there is no file: `stylewatch watch IN OUT`."""
        return self.source.path

    @property
    def workers_are_here(self) -> bool:
        """Whether this machine paints, and not a cluster."""
        return isinstance(self.workers, int)

    def named_presets(self) -> Iterator[tuple[KeyPath, str]]:
        """The names of presets in folders and their rules, each with the keys where it stands."""
        for number, folder in enumerate(self.folders):
            yield from ((("folders", number, "preset"), name) for name in folder.preset)
            for place, rule in enumerate(folder.rules):
                keys: KeyPath = ("folders", number, "rules", place, "preset")
                yield from ((keys, name) for name in rule.preset)

    def waits(self, lacking: Mapping[str, str] = {}) -> list[str]:
        """Which presets photos may have to wait for, and why, a line for each reason.

        `lacking` are presets with which workers have met a trouble that the config does not know.
        """
        named = {name for _, name in self.named_presets()}
        meant = any(folder.subfolders for folder in self.folders)
        found: dict[str, list[str]] = {}
        wait = {name: why for name, why in self.broken.items() if meant or name in named}
        for name, why in (wait | dict(lacking)).items():
            found.setdefault(why, []).append(name)
        return [f"photos for {self._listed(names)} wait: {why}" for why, names in found.items()]

    def _listed(self, names: Sequence[str]) -> str:
        """Presets in words: `ink, mosaic`, or, if they are most of all, `all presets but ink`."""
        others = sorted({*self.broken, *self.presets}.difference(names))
        if len(others) >= len(names):
            return ", ".join(names)
        return "all presets" + (f" but {', '.join(others)}" if others else "")

    def written_folders(self) -> list[Path]:
        """All folders that the daemon writes to, but for the usual state directory."""
        written = [folder.output for folder in self.folders]
        written += [folder.input for folder in self.folders if not folder.stays]
        written += [folder.after for folder in self.folders if isinstance(folder.after, Path)]
        return [*written, self.state_dir] if self.own_state_dir else written
