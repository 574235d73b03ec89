"""The words of stylewatch: frozen data that its parts hand to each other.

Standard library only, but for `annotated_types`, whose bounds the YAML reader enforces. Nothing
here touches a file, a clock or an array.
"""

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from annotated_types import Ge, Gt, Le, MinLen

if TYPE_CHECKING:  # slow to import, and only its name is used
    import numpy as np

VGG19_LAYERS = tuple(
    f"block{block}_conv{conv}"
    for block, convs in enumerate((2, 2, 4, 4, 4), start=1)
    for conv in range(1, convs + 1)
)
"""VGG19's convolutions in order: what `content_layers` and `style_layers` choose from."""

BUILTIN_LAYERS = VGG19_LAYERS[: VGG19_LAYERS.index("block5_conv2") + 1]
"""Those that the built-in features have, too."""


@dataclass(frozen=True, kw_only=True)
class StyleSettings:
    """The numbers of one style transfer: what the core needs. It reads no file that is named here.

    Every field is a key that a preset may set; the docstrings below are its documentation.
    """

    objective: Literal["balanced", "classic", "classic-scaled"] = "balanced"
    """`balanced` measures each loss against the pair's own (the same look at every size);
    `classic` is the sum form of the Keras example; `classic-scaled` keeps classic's balance at
    sizes other than 400 rows."""
    strength: Annotated[float, Ge(0)] = 10.0
    """Weight of the style loss. With `balanced`: 1 subtle, 10 a painting that keeps the photo,
    100 bold, 1000 nearly all painting."""
    content_weight: Annotated[float, Ge(0)] = 1.0
    """Weight of the content loss."""
    tv_weight: Annotated[float, Ge(0)] = 0.0
    """Weight of the total variation loss: smooths noise, and strokes with it. With `balanced`:
    0.1 a little, 1 clearly, 10 a blur; `classic` was published with 1."""
    content_layers: Mapping[str, float] = field(default_factory=lambda: {"block4_conv2": 1.0})
    """VGG19 layers whose features keep the photo, each with its weight."""
    subject: Annotated[float, Ge(0), Le(1)] = 0.5
    """How much more the content counts where there is something to see in the photo, such as a
    face, and less elsewhere: 0 the same everywhere, 1 up to five times as much."""
    style_layers: Mapping[str, float] = field(
        default_factory=lambda: {
            "block1_conv1": 0.05,
            "block2_conv1": 0.08,
            "block3_conv1": 0.06,
            "block4_conv1": 0.2,
            "block5_conv1": 0.08,
        }
    )
    """VGG19 layers whose Gram matrices carry the style, each with its weight."""
    pooling: Literal["max", "average"] = "max"
    """How the network shrinks its features."""
    max_side: Annotated[int, Ge(16)] | Literal["photo"] = 1024
    """Longer side of the result in pixels, never larger than the photo; `photo`: its own size."""
    coarsest_side: Annotated[int, Ge(16)] = 192
    """The first, coarsest scale is no smaller than this; each next one is twice as large."""
    evaluations: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (45, 22, 15)
    """Loss evaluations per scale, coarsest first; the last number serves all finer scales."""
    optimizer: Literal["lbfgs", "lbfgs-scipy", "adam"] = "lbfgs"
    """`lbfgs` runs on the device; `lbfgs-scipy` is SciPy's L-BFGS-B, the reference."""
    history: Annotated[int, Ge(1), Le(100)] = 10
    """Correction pairs that L-BFGS remembers; fewer, at least 2, where they would need more than
    half of the engine's `memory`: a pair is two images in float32."""
    tolerance: Annotated[float, Ge(0)] = 0.0
    """Stop a scale early when the loss falls by less than this share over 10 evaluations."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the features; losses and the optimiser are always float32."""
    init: Literal["content", "noise"] | Path = "content"
    """What the optimisation starts from: the photo, noise, or an image file, which is stretched
    over the photo; relative to the preset's file."""
    style_fit: Literal["aspect", "stretch"] = "aspect"
    """How a style image meets the photo's size: keeping its shape, or stretched to the photo's."""
    colour: Literal["style", "photo", "match"] = "style"
    """`style`: the painting's colours; `photo`: only luminance is painted, the photo keeps its
    colours; `match`: the style takes on the photo's, or those under its mask, before the run."""
    features: Literal["auto", "vgg19", "builtin"] = "auto"
    """`auto`: VGG19 where its weights can be had, else the built-in features, saying so."""
    seed: Annotated[int, Ge(0)] = 0
    """For `init: noise`. The same input and seed give the same bytes on one machine's CPU, unless
    one was interrupted, or painted in tiles as little memory was free."""
    time_budget: Annotated[float, Gt(0)] | None = None
    """Seconds per photo; when they are spent the best image so far is the result."""


@dataclass(frozen=True, kw_only=True)
class StyleImage:
    """One style image of a preset."""

    image: Path
    """Any image file, relative to the preset's file."""
    weight: Annotated[float, Gt(0)] = 1.0
    """Its share beside the preset's other style images."""
    scale: Annotated[float, Gt(0), Le(8)] = 1.0
    """Size of its strokes: 2 doubles them, 0.5 halves them. The image is never enlarged for it, so
    its longer side should be `scale` times the result's. No effect with `style_fit: stretch`."""
    mask: Path | None = None
    """Where to apply it: an image stretched over the photo, white = here, black = not."""


@dataclass(frozen=True, kw_only=True)
class OutputSettings:
    """How a result is written."""

    format: Literal["same", "jpeg", "png", "webp", "tiff", "heic"] = "same"
    """`same` keeps the photo's own format where it can be written, else JPEG, or PNG if it is
    transparent."""
    quality: Annotated[int, Ge(1), Le(100)] = 95
    """For JPEG, WebP and HEIC."""
    keep_gps: bool = True
    """`false` drops the place where the photo was taken."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A named style, resolved: every inherited value filled in, every path absolute."""

    name: str
    description: str = ""
    effect: str = "style-transfer"
    style: tuple[StyleImage, ...] = ()
    settings: StyleSettings = field(default_factory=StyleSettings)
    output: OutputSettings = field(default_factory=OutputSettings)
    digest: str = ""
    """SHA-256 (hex) of everything above but name and description, style images by content."""

    @property
    def lacks_style(self) -> bool:
        """Whether it has no style image, though it is of the built-in effect, which needs one."""
        return not self.style and self.effect == Preset.effect


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """What a worker's process is told about painting here; the same for all of its jobs."""

    weights: str = "imagenet"
    """`imagenet`, or the path of a VGG19 weights file in Keras's format."""
    features: Literal["auto", "vgg19", "builtin"] = "auto"
    """What a preset's `features: auto` means here."""
    threads: int = 0
    """CPU threads per worker; 0 = its share of the cores."""
    nice: int = 10
    """Added to the worker's niceness."""
    memory: int = 0
    """Bytes that a painting may take, for an evaluation and for what L-BFGS remembers, before it is
    painted in tiles; 0 = three quarters of what is free when the job starts, shared by all workers.
    Tiles round sums otherwise, and in float32 1024 × 768 pixels are painted in tiles where less
    than 3.2 GB are free: a number here keeps a result the same to the byte, whatever else runs."""
    workers: int = 1
    """How many of them paint on this machine."""
    memory_limit: int = 0
    """Bytes of address space beyond what is used at start; 0 = no limit."""
    checkpoint_dir: Path | None = None
    checkpoint_seconds: float = 30.0
    max_pixels: int = 110_000_000  # phones have 108
    max_side: int = 30_000
    max_bytes: int = 200_000_000

    @property
    def limits(self) -> dict[str, int]:
        """The largest picture that may be decoded, as arguments of `read_picture`."""
        return {"max_pixels": self.max_pixels, "max_side": self.max_side}

    def features_for(self, settings: StyleSettings) -> Literal["auto", "vgg19", "builtin"]:
        """What a preset is painted with here; with weights of one's own `auto` is VGG19."""
        if settings.features != "auto":
            return settings.features
        return "vgg19" if self.features == "auto" and self.weights != "imagenet" else self.features


_GRAINS: Final = (1, 100, 1_000, 10_000_000, 1_000_000_000, 2_000_000_000)
"""Nanoseconds to which times are cut: by Linux, NTFS and SMB, some NFS, exFAT, tar, FAT and zip."""
_QUARTER, _FARTHEST = 900 * 10**9, 26 * 3600 * 10**9
"""Nanoseconds: the times of two zones, or of summer and winter, are some quarter hours apart."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which file this is, and in which state: if identities are equal, its bytes are untouched."""

    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> "Identity":
        """The identity in one `os.stat` result.

        SQLite's integers have a sign: an inode of 64 bits, or a time after 2262, wraps around.
        """
        numbers = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        return cls(*((number + 2**63) % 2**64 - 2**63 for number in numbers))

    def is_still(self, before: "Identity") -> bool:
        """Whether the file is untouched since; its disk may have another number by now."""
        return replace(self, dev=before.dev) == before

    def looks_like(self, before: "Identity", *, shifted: bool = False) -> bool:
        """Whether size and time are the same, as those of a moved file are, and of a copy.

        A copy's time may be cut, as file systems and archives keep it. With `shifted` all of the
        file's times may also be some quarter hours off: FAT keeps local time, and Linux takes it
        for that of the zone, and of the season, in which the machine is now.
        """
        early, late = sorted((self.mtime_ns, before.mtime_ns))
        cut = any(early == late - late % grain for grain in _GRAINS)
        return self.size == before.size and (cut or (shifted and self._is_shifted(before)))

    def _is_shifted(self, before: "Identity") -> bool:
        """Whether all times differ by the same number of quarter hours, not more than a day."""
        gap = self.mtime_ns - before.mtime_ns
        same = gap == self.ctime_ns - before.ctime_ns
        return same and gap % _QUARTER == 0 and abs(gap) <= _FARTHEST

    @property
    def inode(self) -> tuple[int, int]:
        """Device and inode: which file or folder this is, in whatever state."""
        return self.dev, self.ino


@dataclass(frozen=True, slots=True)
class Photo:
    """A file in a watched folder, in one state. `path` is relative to the folder's root."""

    folder: str
    root: Path
    path: Path
    identity: Identity


@dataclass(frozen=True, slots=True)
class Candidate:
    """A name seen in a watched folder, as it was at that moment; it may become a `Photo`."""

    folder: str
    root: Path
    path: Path
    """Relative to `root`."""
    stat: os.stat_result
    """Of the name itself: links are not followed."""
    closed: bool = False
    """Whether an event said that its writer closed it, or that it was renamed into place."""
    network: bool = False
    """Whether it lies on a network file system, where others may write to it unseen."""
    numberless: bool = False
    """Whether its inode and ctime say nothing, as its file system makes them up."""
    ignored: str = ""
    """Why it is no photo: `symlink`, `fifo`, `socket`, `device`, or by its name."""


@dataclass(frozen=True, slots=True)
class PhotoFacts:
    """What rules may ask about a photo, read from its header; sizes are those of it upright."""

    width: int
    height: int
    camera: str = ""

    @property
    def orientation(self) -> Literal["landscape", "portrait", "square"]:
        """The shape of the upright picture."""
        if self.width == self.height:
            return "square"
        return "landscape" if self.width > self.height else "portrait"


_DAY = 1440  # minutes


@dataclass(frozen=True)
class Hours:
    """A part of each day, in minutes since midnight; over midnight where it ends sooner."""

    begin: int
    end: int

    def cover(self, minute: int) -> bool:
        """Whether that minute of a day lies in it."""
        return (minute - self.begin) % _DAY < ((self.end - self.begin) % _DAY or _DAY)

    def wait(self, minute: int) -> int:
        """Minutes until it begins."""
        return (self.begin - minute) % _DAY


ALL_DAY = (Hours(0, _DAY),)


def with_rests(seconds: float, hours: Sequence[Hours], minute: int) -> float:
    """How long that much work takes from that minute of a day on, if it rests outside of the hours.

    Who works outside of them now goes on until they come.
    """
    at_work = any(each.cover(minute) for each in hours)
    before = 0 if at_work else min(each.wait(minute) for each in hours)
    if seconds < 60 * before:
        return seconds
    begin = minute + before
    open_ = [n for n in range(_DAY) if any(each.cover(begin + n) for each in hours)]
    days, place = divmod(int(seconds // 60) - before, len(open_))
    return 60 * (before + _DAY * days + open_[place]) + seconds % 60


After = Literal["keep", "delete"] | Path
"""What happens to a photo once its result is safe; a path is the folder that it is moved to."""


class JobState(StrEnum):
    """Where a job stands, as the ledger and `--json` spell it; people are told `wording.WORDS`."""

    READY = "ready"
    RUNNING = "running"
    PUBLISHING = "publishing"
    DONE = "done"
    RETRY_WAIT = "retry-wait"
    BLOCKED = "blocked"
    QUARANTINED = "quarantined"
    VANISHED = "vanished"
    SUPERSEDED = "superseded"
    HELD = "held"


class FailureKind(StrEnum):
    """Why a job failed, which decides whether and when it is tried again."""

    BAD_INPUT = "bad-input"  # quarantined at once
    CHANGED = "changed"  # the file settles again
    TRANSIENT = "transient"  # I/O trouble: backoff, not counted
    RESOURCE = "resource"  # disk full: the output pauses, not counted
    PERMISSION = "permission"  # blocked, looked at again later
    RENDER = "render"  # the effect failed: counted
    CRASH = "crash"  # the process died: counted
    TIMEOUT = "timeout"  # counted
    LOST = "lost"  # the executor went away: not counted


ENGINE_VERSION = "1"
"""Part of every job key: with another number no earlier result is the same picture."""


def job_key(photo_digest: str, preset_digest: str) -> str:
    """Tells whether two jobs give the same picture (hex): a hash of photo, preset and engine."""
    parts = f"{photo_digest}\n{preset_digest}\n{ENGINE_VERSION}"
    return hashlib.sha256(parts.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """All that a worker needs for one job. Small and picklable: paths and numbers, no arrays."""

    job_id: int
    key: str
    """Hex SHA-256 over the photo's bytes, the preset's digest and the engine's version."""
    source: Path
    digest: str
    """Hex SHA-256 of the photo's bytes as they were when the job was made."""
    preset: Preset
    target: Path
    """The result's intended path without extension; the temporary file is written beside it."""
    owner: str = ""
    """The end of the temporary file's name, as another daemon's may lie beside it."""
    crashes: int = 0
    """How many workers have died of it: perhaps it takes more memory than there is."""
    earlier: Path | None = None
    """A result for the photo as it was before: only what is written about it may have changed."""


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A finished temporary file, durable and tested by decoding it, ready to be published."""

    temporary: Path
    extension: str
    """Of the final name, with the dot: `.jpg`."""
    sha256: str
    width: int
    height: int
    seconds: float
    evaluations: int
    loss: float | None
    facts: Mapping[str, str]
    """Provenance as written into the file: photo, preset, features, precision, losses."""
    note: str = ""
    """For people, if anything was unusual, such as a time budget that was spent."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A job that gave no result."""

    kind: FailureKind
    reason: str
    """Short stable word: `truncated`, `crash`, `disk-full`."""
    message: str
    """One line for people, with the remedy."""


Outcome = Rendered | Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One loss evaluation, as told to a progress callback; an effect may have no loss."""

    scale: int = 1
    """1 … `scales`, coarsest first."""
    scales: int = 1
    width: int
    height: int
    evaluation: int
    """1 … `evaluations` within the scale."""
    evaluations: int
    loss: float = math.nan
    content: float = math.nan
    style: float = math.nan
    tv: float = math.nan
    fraction: float
    """Share of the whole job that is done, by cost: 0 … 1."""
    seconds: float
    """Since the job started."""
    eta_seconds: float
    """Until it is done, as far as can be told; 0 while it can't be, never infinite."""

    @property
    def left(self) -> float | None:
        """Seconds until it is done, once that can be told."""
        return self.eta_seconds if self.eta_seconds or self.fraction >= 1.0 else None


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Where a run stands: enough to go on after the process was killed."""

    scale: int
    evaluation: int
    """So many of that scale's evaluations count: fewer than there were, see `Progress.begin`."""
    image: "np.ndarray"
    """The best so far at that scale: (H, W, 3) RGB, with the frame around it, not clipped."""
    network: str = ""
    """The digest of the network that it was painted with, if there is one."""
    count: int = 0
    """Evaluations that there were, of all scales."""


OnStep = Callable[[Step], None]
"""A progress callback, called after every evaluation; it may raise to stop the run."""


TURN_SECONDS = 0.25
"""Seconds after which work in one tick of the daemon (looking at files on a slow share, hashing,
copying, moving) goes on in the next."""

AT_HAND = frozenset({"watching", "scanning"})
"""States of a folder whose photos can be painted: it is there, and so is its output."""

SILENT = "silent"
"""The reason of the warning that the daemon does not answer."""

LEARNING = "learning"
"""The reason of the warnings that tell how far a new ledger is that learns from the results."""

REFUSED = "refused"
"""The reason of the warning that a changed config can't be used; only the newest counts."""

LASTING = frozenset({"dead", "engine-lost", SILENT})
"""The reasons of warnings that still hold after the config was read again."""

_SEVERAL = frozenset({"", "dead", "preset"})
"""The reasons of warnings of which several may hold at once."""


EventKind = Literal[
    "started", "watching", "queued", "known", "running", "progress", "done", "failed", "retry",
    "blocked", "recovered", "folder", "reload", "paused", "resumed", "warning", "stopping",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something the daemon did, for the console, the log and the metrics."""

    kind: EventKind
    message: str
    folder: str = ""
    path: str = ""
    preset: str = ""
    job_id: int = 0
    step: Step | None = None
    output: str = ""
    """A photo's result; of `blocked` and `recovered`, the folder for results that it is about."""
    seconds: float = 0.0
    reason: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def general(self) -> bool:
        """Whether it is about no photo and no folder."""
        return not (self.folder or self.job_id or self.path)

    @property
    def stops_work(self) -> bool:
        """Whether its photo, if it was being painted, is not any more."""
        return self.kind in {"done", "failed", "retry", "blocked", "warning"}

    def ends(self, kind: str, reason: str, message: str, output: str) -> bool:
        """Whether a general trouble, told by an event with these values, is over by this.

        A warning takes the place of the last one for that reason, or, where each part is told of by
        itself, as those that are dead and presets that can't be used, of the last one like it.
        """
        if self.kind == "recovered":  # each output by itself, all else by its reason
            return (output or reason) == (self.output or self.reason)
        if self.kind == "warning" and self.general:
            same = message == self.message or reason not in _SEVERAL
            return kind == "warning" and reason == self.reason and same
        # all other warnings were about the config
        return self.kind == "reload" and kind == "warning" and reason not in LASTING


def counted(count: int, noun: str) -> str:
    """`1 photo`, `2 photos`."""
    return f"{count} {noun}{'s' * (count != 1)}"
