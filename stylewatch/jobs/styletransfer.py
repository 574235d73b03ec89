"""The built-in effect: neural style transfer, with the network that this machine can have.

Joins the preset, the style images on disk and the core; retries in float32 what failed in
bfloat16. Knows nothing of watching, jobs or where results go.
"""

import time
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from stylewatch.domain import BUILTIN_LAYERS, EngineSettings, Preset, StyleImage, StyleSettings
from stylewatch.effect import Context, Rendering, check_values
from stylewatch.engine.backend import check_device, has_gpu
from stylewatch.engine.colours import is_of_one_colour
from stylewatch.engine.features import STRIDE, FeatureNetwork, load_builtin, load_vgg19
from stylewatch.engine.images import Picture, read_picture
from stylewatch.engine.sizes import resize
from stylewatch.engine.transfer import Painting, Style, choose_precision, stylize, usable_memory
from stylewatch.errors import (
    DeviceError,
    PresetError,
    PresetImageError,
    RenderError,
    StylewatchError,
    UnchangedError,
    WeightsError,
    named,
    ran_out_of_memory,
)
from stylewatch.settings.weights import downloaded, one_download

_UNCHANGED = 0.1  # grey levels, on average: nobody would see them
_ENOUGH = 10  # evaluations after which something has to be seen
_BEFORE_ANOTHER_TRY = 300.0  # seconds
_LOST_ON_TRIES = 0.05
"""The share of the time that tries to have VGG19 may take: minutes each, where packets vanish."""
_BLACK, _WHITE = 0.0, 255.0  # behind a transparent mask, which means "not here"; behind a picture
_HALVINGS = 4
"""How often a picture that runs out of memory is tried again, with half as much each time."""
_HALVINGS_OF_A_CRASH = 2
"""So many at once for each process that died of the photo, perhaps of memory: it has few tries."""


class StyleTransfer:
    """Neural style transfer with VGG19's features or the built-in ones."""

    def render(self, photo: np.ndarray, preset: Preset, context: Context) -> Rendering:
        """Paint `photo` in the preset's styles; what fails in bfloat16 is redone in float32."""
        network, note = choose_network(preset.settings, context.engine)
        styles = [read_style(style, context.engine, preset.settings) for style in preset.style]
        if not styles:
            raise PresetError(
                f"Preset '{preset.name}' has no style image",
                key="style",
                expected="at least one image",
                remedy="Add `style: picture.jpg` to it",
            )
        _check_paints(photo, styles, preset.settings)
        started = time.monotonic()
        painting = None
        try:
            painting = self._paint(photo, styles, preset.settings, network, context, started)
        except RenderError:
            if choose_precision(preset.settings.precision) == "float32":
                raise
        if painting is None:  # out of `except`, where the error would keep its frames in memory
            settings = replace(preset.settings, precision="float32")
            painting = self._paint(photo, styles, settings, network, context, started)
            note = _joined(note, "painted in float32 after bfloat16 failed")
        if not painting.complete:
            _check_begun(painting)
            note = _joined(note, "time budget spent: the best picture so far")
        return Rendering(
            rgb=painting.rgb,
            evaluations=painting.evaluations,
            loss=painting.parts.loss,
            facts=_facts(painting, network),
            note=note,
        )

    def _paint(
        self,
        photo: np.ndarray,
        styles: list[Style],
        settings: StyleSettings,
        network: FeatureNetwork,
        context: Context,
        started: float,
    ) -> Painting:
        """Paint once, in one precision, and make sure that the picture is one."""
        checkpoint = context.checkpoint

        def paint(memory: int) -> Painting:
            budget = settings.time_budget
            if budget is not None:
                budget = max(1e-3, budget - (time.monotonic() - started))
            return stylize(
                photo,
                styles,
                replace(settings, time_budget=budget),
                network,
                context.on_step,
                start=read_start(settings, context.engine),
                resume=checkpoint.load() if checkpoint else None,
                on_checkpoint=checkpoint.offer if checkpoint else None,
                memory=max(1, memory),  # 0 would be as much as there is
            )

        memory = context.engine.memory or usable_memory(context.engine.workers)
        try:
            painting = _within_memory(paint, memory >> _HALVINGS_OF_A_CRASH * context.crashes)
            check_values(painting.rgb, float(photo.max()))
            if painting.complete and sum(settings.evaluations) >= _ENOUGH:
                _check_changed(painting, photo)
        except RenderError:
            if checkpoint:  # it may be what went wrong
                checkpoint.clear()
            raise
        return painting


def _within_memory(paint: Callable[[int], Painting], memory: int) -> Painting:
    """Call `paint` with so many bytes, then with fewer: other programs may have taken some.

    Tiles that small take as much of a GPU whatever the photo is, so it is no photo's fault.
    """
    for halvings in range(_HALVINGS):
        try:
            return paint(memory >> halvings)
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
    try:
        return paint(memory >> _HALVINGS)
    except Exception as error:
        if not (has_gpu() and ran_out_of_memory(error)) or isinstance(error, MemoryError):
            raise
        raise DeviceError(
            "The GPU has too little memory left",
            received=named(error),
            remedy="Close other programs that use it, or paint on the CPU, with "
            "CUDA_VISIBLE_DEVICES=",
        ) from error


def choose_network(settings: StyleSettings, engine: EngineSettings) -> tuple[FeatureNetwork, str]:
    """The feature network for a preset on this machine, and a note when it is a fallback.

    Only `auto` with the standard weights falls back, where the built-in features have all layers;
    whatever is asked for by name is an error when it can't be had.
    """
    check_device()
    wanted = engine.features_for(settings)
    if wanted == "builtin":
        return _builtin(), ""
    vgg19 = _vgg19(engine.weights)
    if not isinstance(vgg19, WeightsError):
        return vgg19, ""
    layers = {*settings.content_layers, *settings.style_layers}
    if wanted == "auto" and layers.issubset(BUILTIN_LAYERS):
        return _builtin(), "built-in features: VGG19 could not be downloaded"
    raise vgg19.with_traceback(None)


_builtin = cache(load_builtin)
_failures: dict[Hashable, tuple[float, WeightsError]] = {}
"""Of the last try to have VGG19, by its weights' name and state: until when it counts, and why."""


def _vgg19(weights: str) -> FeatureNetwork | WeightsError:
    """The network, or why it can't be had, which is not asked again for a while."""
    state = _state_of(weights)
    until, known = _failures.get((weights, state), (0.0, None))
    started = time.monotonic()
    if known and started < until:
        return known
    _failures.clear()
    try:  # of a download: once loaded, it stays, whatever becomes of the file
        return _loaded(weights, None if weights == "imagenet" else state)
    except WeightsError as error:
        now = time.monotonic()
        pause = max(_BEFORE_ANOTHER_TRY, (now - started) / _LOST_ON_TRIES)
        _failures[weights, state] = now + pause, error
        return error


def _state_of(weights: str) -> Hashable:
    """What changes with a file, or when it is downloaded: then a try is worth its time at once."""
    if weights == "imagenet":
        return downloaded()
    try:
        return Path(weights).stat().st_ctime_ns  # of new rights, too
    except OSError:
        return 0


@lru_cache(maxsize=1)
def _loaded(weights: str, state: Hashable) -> FeatureNetwork:  # noqa: ARG001
    with one_download(weights):
        return load_vgg19(weights)


def _check_paints(photo: np.ndarray, styles: list[Style], settings: StyleSettings) -> None:
    """An UnchangedError, before it takes its time, where only the photo can come of it."""
    if settings.strength == 0.0:
        remedy = "Give the preset a `strength` above 0"
    elif not any(style.mask is None or style.mask.any() for style in styles):
        remedy = "Make the preset's masks white where the style is to apply"
    elif settings.colour != "style" and is_of_one_colour(photo):
        remedy = "For a photo of a single colour use `colour: style`"
    else:
        return
    raise UnchangedError("The picture would be the photo, unchanged", remedy=remedy)


def read_style(style: StyleImage, engine: EngineSettings, settings: StyleSettings) -> Style:
    """A preset's style image, no larger than it is needed, with its mask, from their files."""
    fit = None
    if settings.max_side != "photo" and settings.style_fit == "aspect":
        fit = max(STRIDE, round(settings.max_side * style.scale))
    mask = None
    if style.mask is not None:
        mask = _read(style.mask, engine).on(_BLACK).mean(axis=-1) / 255.0
    return Style(_read(style.image, engine, fit=fit).on(_WHITE), style.weight, style.scale, mask)


def read_start(settings: StyleSettings, engine: EngineSettings) -> np.ndarray | None:
    """The image that the optimisation starts from, if the preset names one."""
    if not isinstance(settings.init, Path):
        return None
    return _read(settings.init, engine, key="init").on(_WHITE)


def _read(
    path: Path, engine: EngineSettings, key: str = "style", fit: int | None = None
) -> Picture:
    usual = EngineSettings().limits  # narrower ones are meant for photos, not for chosen images
    limits = {name: max(most, usual[name]) for name, most in engine.limits.items()}
    try:
        return read_picture(path.read_bytes(), **limits, fit=fit)
    except (OSError, StylewatchError) as error:
        why = (isinstance(error, OSError) and error.strerror) or error
        raise PresetImageError(
            f"The image {path} can't be read: {why}",
            key=key,
            remedy="Put it back, or name another",
        ) from error


def probe_speed(engine: EngineSettings) -> dict[str, float | str]:
    """Evaluations per second at 384×384, in two seconds, with the features used here."""
    settings = StyleSettings(max_side=384, coarsest_side=384, evaluations=(1000,))
    network, _ = choose_network(settings, engine)
    rng = np.random.default_rng(0)
    picture = rng.uniform(0, 255, (384, 384, 3)).astype(np.float32)
    # on a GPU, where L-BFGS itself is compiled, until it has learnt the image's curvature once
    warm = replace(settings, evaluations=(16 if has_gpu() else 2,))
    stylize(picture, [Style(picture[::-1])], warm, network)
    started = time.monotonic()
    timed = replace(settings, time_budget=2.0)
    painting = stylize(picture, [Style(picture[::-1])], timed, network)
    return {
        "features": network.name,
        "precision": painting.precision,
        "evaluations_per_second": painting.evaluations / (time.monotonic() - started),
    }


def _facts(painting: Painting, network: FeatureNetwork) -> dict[str, str]:
    parts = painting.parts
    return {
        "features": network.name,
        "features_sha256": network.digest,
        "precision": painting.precision,
        "evaluations": str(painting.evaluations),
        "loss": f"{parts.loss:.6g}",
        "content_loss": f"{parts.content:.6g}",
        "style_loss": f"{parts.style:.6g}",
        "tv_loss": f"{parts.tv:.6g}",
    }


def _check_begun(painting: Painting) -> None:
    """A RenderError if the time was spent so soon that the picture is the photo, only blurred."""
    if painting.evaluations < _ENOUGH:
        raise RenderError(
            "The time budget was spent before there was a painting",
            expected=f"at least {_ENOUGH} evaluations",
            received=str(painting.evaluations),
            remedy="Raise the preset's `time_budget`",
            reason="time-budget",
        )


def _check_changed(painting: Painting, photo: np.ndarray) -> None:
    """An UnchangedError if the picture is the photo, also where a mask is white.

    A style loss of zero tells that too: nothing is painted then, though stages may blur it.
    """
    rgb = painting.rgb
    change = np.abs(rgb - resize(photo, rgb.shape[1], rgb.shape[0]))
    changed = np.mean(change, where=change > 0) if change.any() else 0.0
    if painting.parts.style == 0.0 or changed < _UNCHANGED:
        raise UnchangedError(
            "The picture came out unchanged",
            remedy="Raise the preset's `strength`, or make its mask whiter",
        )


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
