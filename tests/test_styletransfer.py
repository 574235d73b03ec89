"""The built-in effect: what it refuses to hand out, and what it tries again in float32."""

import itertools
import os
import resource
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from small_network import noise, small_network

from stylewatch.domain import EngineSettings, FailureKind, Preset, StyleImage, StyleSettings
from stylewatch.effect import Context
from stylewatch.engine import backend, machine, preconditioner
from stylewatch.engine.features import Convolution
from stylewatch.engine.transfer import usable_memory
from stylewatch.errors import DeviceError, PresetError, RenderError, UnchangedError, WeightsError
from stylewatch.jobs import styletransfer
from stylewatch.settings.weights import BYTES, downloaded, keras_weights
from stylewatch.state.checkpoints import CheckpointFile

PHOTO = noise(0, 32, 48)


@pytest.fixture(autouse=True)
def nothing_was_tried():
    """No test knows the networks of another, nor that they could not be had."""
    yield
    styletransfer._loaded.cache_clear()
    styletransfer._failures.clear()


@pytest.fixture
def preset(tmp_path, monkeypatch):
    network = small_network()
    monkeypatch.setattr(styletransfer, "choose_network", lambda *_: (network, ""))
    Image.effect_noise((32, 32), 90).convert("RGB").save(tmp_path / "style.png")

    def make(mask=None, **settings):
        file = None
        if mask is not None:
            file = tmp_path / "mask.png"
            Image.new("L", (4, 4), mask).save(file)
        style = StyleImage(image=tmp_path / "style.png", mask=file)
        numbers = {"max_side": 48, "evaluations": (12,), "precision": "float32"} | settings
        return Preset(name="test", style=(style,), settings=StyleSettings(**numbers))

    return make


def render(preset, checkpoint=None, engine=None, crashes=0, photo=PHOTO):
    context = Context(
        engine=engine or EngineSettings(), on_step=lambda step: None, checkpoint=checkpoint,
        crashes=crashes,
    )  # fmt: skip
    return styletransfer.StyleTransfer().render(photo, preset, context)


@pytest.mark.parametrize("scales", [{}, {"coarsest_side": 24, "evaluations": (12, 12)}])
def test_a_picture_that_came_out_unchanged_is_none(preset, scales):
    """Of two stages, the first leaves it blurred where no style is asked for."""
    layers = dict.fromkeys(StyleSettings().style_layers, 0.0)
    with pytest.raises(UnchangedError, match="came out unchanged"):
        render(preset(style_layers=layers, **scales))
    assert render(preset(mask=255, **scales)).evaluations >= 12


@pytest.mark.parametrize("nothing", [{"mask": 0}, {"strength": 0.0}])
def test_what_can_only_come_out_unchanged_is_not_painted(preset, monkeypatch, nothing):
    """It would be in two precisions, at each attempt, and for every photo."""
    monkeypatch.delattr(styletransfer, "stylize")
    with pytest.raises(UnchangedError) as caught:
        render(preset(precision="bfloat16", **nothing))
    assert caught.value.failure.kind is FailureKind.BAD_INPUT  # set aside at once


@pytest.mark.parametrize("value", [0.0, 255.0])
def test_a_photo_of_one_colour_is_only_painted_in_the_style_s(preset, monkeypatch, value):
    """A style that takes on its colours is as flat; the photo is not to blame, nor precision."""
    photo = np.full_like(PHOTO, value)
    photo[::2] += 3.0 if value == 0.0 else -3.0
    assert np.ptp(render(preset(), photo=photo).rgb) > 3.0
    monkeypatch.delattr(styletransfer, "stylize")
    for colour in ("photo", "match"):
        with pytest.raises(UnchangedError, match="`colour: style`"):
            render(preset(colour=colour), photo=photo)


@pytest.mark.parametrize(("value", "reason"), [(np.nan, "not-finite"), (0.9, "black")])
def test_a_picture_that_came_out_as_none_at_all_is_painted_in_float32_or_is_none(
    preset, monkeypatch, value, reason
):
    real = styletransfer.stylize

    def stylize(photo, styles, settings, *arguments, **more):
        painting = real(photo, styles, settings, *arguments, **more)
        spoilt = settings.precision != "float32" or settings.seed == 1
        return replace(painting, rgb=np.full_like(painting.rgb, value)) if spoilt else painting

    monkeypatch.setattr(styletransfer, "stylize", stylize)
    assert "in float32" in render(preset(precision="bfloat16")).note
    with pytest.raises(RenderError) as caught:
        render(preset(seed=1))
    assert caught.value.reason == reason


def test_the_time_that_bfloat16_took_counts_when_it_is_painted_again(preset, monkeypatch):
    budgets, now = [], [0.0]
    real = styletransfer.stylize

    def stylize(photo, styles, settings, *arguments, **more):
        budgets.append(settings.time_budget)
        if settings.precision == "bfloat16":
            now[0] += 40.0
            raise RenderError("The loss is not a finite number")
        return real(photo, styles, settings, *arguments, **more)

    monkeypatch.setattr(styletransfer, "stylize", stylize)
    monkeypatch.setattr(styletransfer.time, "monotonic", lambda: now[0])
    render(preset(precision="bfloat16", time_budget=100.0))
    assert budgets == [100.0, 60.0]


@pytest.mark.parametrize("features", ["auto", "builtin"])
def test_what_can_compute_nothing_is_told_of_as_that_and_nothing_else_paints(monkeypatch, features):
    """It would be told of as VGG19 that could not be downloaded; JAX would go on, on the CPU."""

    def broken(value):
        raise RuntimeError("Unable to initialize backend 'cuda'")

    monkeypatch.setattr("keras.ops.convert_to_tensor", broken)
    with pytest.raises(DeviceError, match=r"Unable to initialize .* `nvidia-smi`") as caught:
        styletransfer.choose_network(StyleSettings(features=features), EngineSettings())
    assert caught.value.failure.kind is FailureKind.TRANSIENT  # no photo's fault


def test_weights_that_can_t_be_used_are_tried_again_when_they_have_changed(monkeypatch, tmp_path):
    """Each try takes seconds, and photos wait for them without end."""
    weights, tried, now = tmp_path / "w.h5", [], [0.0]

    def load(weights):
        tried.append(weights)
        raise WeightsError("They can't be used", remedy="Take others", reason="weights")

    def choose_thrice():
        for _ in range(3):
            with pytest.raises(WeightsError, match=r"^They can't be used\. Take others$"):
                styletransfer.choose_network(StyleSettings(), engine)

    monkeypatch.setattr(styletransfer, "load_vgg19", load)
    monkeypatch.setattr(styletransfer.time, "monotonic", lambda: now[0])
    engine = EngineSettings(weights=str(weights))
    for content in (None, b"half", b"other"):
        if content:
            weights.with_suffix(".new").write_bytes(content)
            os.utime(weights.with_suffix(".new"), (1, 1))
            weights.with_suffix(".new").replace(weights)
        choose_thrice()
    assert len(tried) == 3
    now[0] = 300.0  # a share may have failed to read them, or another program have had the GPU
    choose_thrice()
    assert len(tried) == 4


@pytest.mark.parametrize(("took", "pause"), [(1.0, 300.0), (299.0, 5980.0)])
def test_a_try_that_fails_counts_from_its_end_and_the_longer_the_more_time_it_took(
    monkeypatch, tmp_path, took, pause
):
    """Where a network drops packets it takes minutes: each photo would wait for another."""
    now, tried = [250.0], []

    def load(weights):
        tried.append(weights)
        now[0] += took
        raise WeightsError("The VGG19 weights could not be downloaded")

    monkeypatch.setattr(styletransfer, "load_vgg19", load)
    monkeypatch.setattr(styletransfer, "_builtin", lambda: "builtin")
    monkeypatch.setattr(styletransfer.time, "monotonic", lambda: now[0])
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    for later, tries in [(0.0, 1), (1.0, 1), (pause - 2.0, 1), (1.0, 2)]:
        now[0] += later
        network, note = styletransfer.choose_network(StyleSettings(), EngineSettings())
        assert (network, "built-in features" in note, len(tried)) == ("builtin", True, tries)


def test_a_weights_file_that_is_exchanged_is_read_again(monkeypatch, tmp_path):
    """By a worker that has painted with the other one: photos of one batch should not differ."""
    weights, digests = tmp_path / "w.h5", []

    def loaded(weights):
        kernel = np.frombuffer(Path(weights).read_bytes(), np.uint8)
        return (Convolution("block1_conv1", (kernel,), np.zeros(1)),)

    monkeypatch.setattr("stylewatch.engine.features._loaded_by_keras", loaded)
    engine = EngineSettings(weights=str(weights))
    for content in ("one", "other"):
        weights.with_suffix(".new").write_text(content)
        weights.with_suffix(".new").replace(weights)
        networks = [styletransfer.choose_network(StyleSettings(), engine)[0] for _ in range(2)]
        assert networks[0] is networks[1]
        digests.append(networks[0].digest)
    assert digests[0] != digests[1]


@pytest.mark.parametrize("key", ["content_layers", "style_layers"])
def test_a_layer_that_the_built_in_features_lack_waits_for_vgg19(monkeypatch, tmp_path, key):
    def load(weights):
        raise WeightsError("no network", reason=WeightsError.not_downloaded)

    monkeypatch.setattr(styletransfer, "load_vgg19", load)
    monkeypatch.setattr(styletransfer, "_builtin", lambda: "builtin")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    there, deep = (StyleSettings(**{key: {f"block5_conv{n}": 1.0}}) for n in (2, 3))
    assert styletransfer.choose_network(there, EngineSettings())[0] == "builtin"
    with pytest.raises(WeightsError) as caught:
        styletransfer.choose_network(deep, EngineSettings())
    assert caught.value.reason == WeightsError.not_downloaded


@pytest.mark.parametrize("comes", ["with the network", "as a file"])
def test_vgg19_is_used_as_soon_as_it_can_be_had(monkeypatch, tmp_path, comes):
    now, there = [0.0], []

    def load(weights):
        if not there:
            raise WeightsError("The VGG19 weights could not be downloaded")
        return "vgg19"

    monkeypatch.setattr(styletransfer, "load_vgg19", load)
    monkeypatch.setattr(styletransfer, "_builtin", lambda: "builtin")
    monkeypatch.setattr(styletransfer.time, "monotonic", lambda: now[0])
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    engine = EngineSettings(features="auto")
    assert styletransfer.choose_network(StyleSettings(), engine)[0] == "builtin"
    there.append("all of it")
    keras_weights().parent.mkdir(exist_ok=True)
    keras_weights().write_bytes(b"its first bytes")
    assert styletransfer.choose_network(StyleSettings(), engine)[0] == "builtin"
    if comes == "as a file":
        os.truncate(keras_weights(), BYTES)
    else:
        now[0] += 300.0
    assert styletransfer.choose_network(StyleSettings(), engine) == ("vgg19", "")


@pytest.mark.parametrize("comes", [True, False])
def test_of_two_that_need_vgg19_at_once_one_downloads_it(monkeypatch, tmp_path, comes):
    """Keras would have each write over what the other has so far, and find it damaged."""
    begun, again, tries = threading.Event(), threading.Event(), itertools.count(1)

    def load(weights):
        if downloaded():
            return "VGG19"
        if next(tries) > 1:
            again.set()
            raise WeightsError("There is half of it")
        begun.set()
        if again.wait(1.0):
            raise WeightsError("It was written over")
        if not comes:
            raise WeightsError("no network")
        keras_weights().touch()
        os.truncate(keras_weights(), BYTES)
        return "VGG19"

    monkeypatch.setattr(styletransfer, "load_vgg19", load)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with ThreadPoolExecutor(2) as pool:  # a lock keeps threads apart as it does processes
        first = pool.submit(styletransfer._vgg19, "imagenet")
        assert begun.wait(60)
        second = pool.submit(styletransfer._vgg19, "imagenet")
    came = ["VGG19", "VGG19"] if comes else ["no network", "There is half of it"]
    assert [str(first.result()), str(second.result())] == came


def test_vgg19_is_loaded_where_there_can_be_no_lock(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(styletransfer, "load_vgg19", lambda weights: weights)
    assert styletransfer._vgg19("imagenet") == "imagenet"


def test_what_is_transparent_is_paper_in_a_style_and_not_here_in_a_mask(tmp_path):
    clear = Image.new("RGBA", (4, 2), (255, 255, 255, 255))
    clear.paste((0, 0, 0, 0), (0, 0, 2, 2))
    clear.save(tmp_path / "style.png")
    clear.paste((255, 255, 255, 0), (0, 0, 2, 2))
    clear.save(tmp_path / "mask.png")
    image = StyleImage(image=tmp_path / "style.png", mask=tmp_path / "mask.png")
    style = styletransfer.read_style(image, EngineSettings(), StyleSettings())
    assert style.rgb.min() == 255
    np.testing.assert_array_equal(style.mask, [[0, 0, 1, 1]] * 2)
    settings = StyleSettings(init=tmp_path / "style.png")
    assert styletransfer.read_start(settings, EngineSettings()).min() == 255


def test_what_fails_in_bfloat16_is_painted_in_float32_from_the_start(preset, tmp_path, monkeypatch):
    checkpoint = CheckpointFile(tmp_path / "checkpoint.npz", 0.0)
    real, precisions, kept = styletransfer.stylize, [], []

    def stylize(photo, styles, settings, network, on_step, **more):
        precisions.append((settings.precision, more["resume"]))
        assert [each for each in kept if each() is not None] == []  # float32 takes twice the memory
        painting = real(photo, styles, settings, network, on_step, **more)
        kept.append(weakref.ref(painting))
        if settings.precision == "bfloat16":
            painting.rgb[:] = 0
        return painting

    monkeypatch.setattr(styletransfer, "stylize", stylize)
    rendering = render(preset(precision="bfloat16"), checkpoint)
    assert precisions == [("bfloat16", None), ("float32", None)]
    assert "float32" in rendering.note


def test_what_fails_in_float32_is_not_painted_again(preset, monkeypatch):
    tried = []

    def stylize(*arguments, **more):
        tried.append(1)
        raise RenderError("The loss is not a finite number")

    monkeypatch.setattr(styletransfer, "stylize", stylize)
    with pytest.raises(RenderError):
        render(preset())
    assert len(tried) == 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_next_attempt_does_not_go_on_from_a_failure(preset, tmp_path, monkeypatch, precision):
    checkpoint = CheckpointFile(tmp_path / "checkpoint.npz", 0.0)
    real = styletransfer.stylize

    def stylize(*arguments, **more):
        painting = real(*arguments, **more)
        return replace(painting, rgb=np.zeros_like(painting.rgb))

    monkeypatch.setattr(styletransfer, "stylize", stylize)
    with pytest.raises(RenderError, match="black"):
        render(preset(precision=precision), checkpoint)
    assert checkpoint.load() is None


def test_a_picture_that_was_cut_short_says_so_and_one_that_was_hardly_begun_is_none(
    preset, monkeypatch
):
    """JAX compiles for longer than some budgets, and the photo itself was published."""
    real = styletransfer.stylize

    def stylize(photo, styles, settings, network, on_step, **more):
        steps = []  # of a second each
        told = {**more, "clock": lambda: float(len(steps))}
        return real(photo, styles, settings, network, steps.append, **told)

    assert render(preset()).note == ""
    monkeypatch.setattr(styletransfer, "stylize", stylize)
    assert "time budget spent" in render(preset(time_budget=10.0)).note
    with pytest.raises(RenderError, match=r"at least 10 evaluations, received 9\. Raise") as caught:
        render(preset(time_budget=9.0))
    assert caught.value.reason == "time-budget"


def test_a_preset_without_a_style_image_is_told_so(preset):
    with pytest.raises(PresetError, match="no style image"):
        render(replace(preset(), style=()))


@pytest.mark.parametrize(
    "none_left",
    [MemoryError, lambda: tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")],
)
def test_what_finds_less_memory_than_there_seemed_to_be_is_painted_in_smaller_tiles(
    preset, monkeypatch, none_left
):
    real, tried = styletransfer.stylize, []

    def stylize(*arguments, memory, **more):
        tried.append(memory)
        if memory > enough:
            raise none_left()
        return real(*arguments, memory=memory, **more)

    monkeypatch.setattr(styletransfer, "stylize", stylize)
    enough = 1 << 28
    whole = render(preset(), engine=EngineSettings(memory=enough))
    tried.clear()
    assert np.array_equal(render(preset(), engine=EngineSettings(memory=1 << 30)).rgb, whole.rgb)
    assert tried == [1 << 30, 1 << 29, 1 << 28]
    enough = 0
    with pytest.raises(type(none_left())):
        render(preset(), engine=EngineSettings(memory=1 << 30))
    assert tried[-1] == 1 << 26


@pytest.mark.parametrize(
    ("none_left", "gpu_s"),
    [(lambda: tf.errors.ResourceExhaustedError(None, None, "OOM"), True), (MemoryError, False)],
)
def test_a_gpu_that_is_too_full_for_the_smallest_tiles_sets_no_photo_aside(
    preset, monkeypatch, none_left, gpu_s
):
    def stylize(*_, **__):
        raise none_left()

    monkeypatch.setattr(styletransfer, "stylize", stylize)
    monkeypatch.setattr(styletransfer, "has_gpu", lambda: True)
    with pytest.raises(DeviceError if gpu_s else MemoryError):
        render(preset(), engine=EngineSettings(memory=1 << 30))


@pytest.mark.parametrize(
    ("engine", "crashes", "memory"),
    [
        (EngineSettings(), 0, 9 << 30),
        (EngineSettings(workers=2), 0, 9 << 29),  # both may begin at once
        (EngineSettings(workers=5), 0, (9 << 30) // 5),
        (EngineSettings(memory=1 << 30, workers=5), 0, 1 << 30),
        (EngineSettings(memory=1 << 30), 1, 1 << 28),  # it may have taken too much
        (EngineSettings(memory=1), 1, 1),
    ],
)
def test_a_photo_is_painted_in_its_share_of_the_memory_that_is_free(
    preset, monkeypatch, engine, crashes, memory
):
    real, given = styletransfer.stylize, []

    def stylize(*arguments, memory, **more):
        given.append(memory)
        return real(*arguments, memory=memory, **more)

    monkeypatch.setattr(styletransfer, "stylize", stylize)
    monkeypatch.setattr(backend, "free_memory", lambda: 12 << 30)
    render(preset(), engine=engine, crashes=crashes)
    assert given == [memory]


def test_a_control_group_s_limit_bounds_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "memory_kept", lambda: 0)
    free = backend.free_memory()
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    assert backend.free_memory() == pytest.approx(free, rel=0.2)
    for name, text in {
        "memory.max": "5000000\n",
        "memory.current": "4000000\n",
        "memory.stat": "anon 3000000\ninactive_file 500000\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert backend.free_memory() == 1_500_000
    (tmp_path / "memory.max").write_text("3000000\n")
    assert usable_memory() == 1  # none is left, which is not to say that nobody can tell
    (tmp_path / "memory.max").write_text("max\n")
    assert backend.free_memory() == pytest.approx(free, rel=0.2)
    (tmp_path / "memory.high").write_text("4600000\n")  # beyond it all is slowed down
    assert backend.free_memory() == 1_100_000


def test_the_limit_of_a_container_of_version_1_bounds_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    (tmp_path / "memory").mkdir()
    for name, text in {
        "memory.limit_in_bytes": "5000000\n",
        "memory.usage_in_bytes": "4000000\n",
        "memory.stat": "inactive_file 1\ntotal_inactive_file 500000\n",
    }.items():
        (tmp_path / "memory" / name).write_text(text)
    assert machine.memory_left() == 1_500_000


def test_names_that_are_no_utf_8_tell_what_they_can(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "PROC", tmp_path)
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    (tmp_path / "cpuinfo").write_bytes(b"model name\t: \xff\nflags\t\t: fpu avx\n")
    assert "avx" in machine.cpu_flags.__wrapped__()
    (tmp_path / "self").mkdir()
    (tmp_path / "self/cgroup").write_bytes(b"0::/a\xff/b\n")
    group = tmp_path / os.fsdecode(b"a\xff")
    group.mkdir()
    for name in ("memory.max", "memory.current"):
        (group / name).write_text("7")
    assert list(machine._left_to_groups()) == [1]


def test_what_a_process_keeps_of_earlier_paintings_is_there_for_the_next(tmp_path, monkeypatch):
    """TensorFlow gives nothing back: the second photo that just fitted was painted in tiles."""
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)

    def usable(used):
        for name, text in {
            "memory.max": 2_000_000_000, "memory.current": used, "memory.stat": "inactive_file 0",
        }.items():  # fmt: skip
            (tmp_path / name).write_text(str(text))
        return usable_memory()

    before = usable(1_400_000_000)
    kept = np.ones(25_000_000)
    assert usable(1_400_000_000 + kept.nbytes) == pytest.approx(before, abs=20e6)


def test_the_process_s_own_limit_bounds_the_memory(monkeypatch):
    monkeypatch.setattr(backend, "memory_kept", lambda: 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 10**9, hard))
    try:
        assert backend.free_memory() == pytest.approx(10**9, rel=0.2)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_what_tensorflow_can_t_tell_of_a_gpu_is_guessed_from_the_machine_s_memory(monkeypatch):
    free = backend.free_memory()
    monkeypatch.setattr(backend, "has_gpu", lambda: True)
    assert backend.free_memory() == pytest.approx(free, rel=0.2)


def test_narrow_limits_for_photos_do_not_refuse_a_preset_s_own_image(tmp_path):
    file = tmp_path / "style.png"
    Image.new("RGB", (64, 48), "teal").save(file)
    narrow = EngineSettings(max_pixels=10, max_side=8, max_bytes=20)
    style = styletransfer.read_style(StyleImage(image=file), narrow, StyleSettings())
    assert style.rgb.shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("scale", "settings", "side"),
    [
        (1.0, {"max_side": 48}, 48),
        (2.0, {"max_side": 48}, 96),
        (0.1, {"max_side": 48}, 16),  # the network needs so many
        (1.0, {"max_side": 1024}, 400),
        (1.0, {"max_side": 48, "style_fit": "stretch"}, 400),
        (1.0, {"max_side": "photo"}, 400),
    ],
)
def test_a_style_image_is_read_no_larger_than_its_strokes_need(tmp_path, scale, settings, side):
    """A camera's would be in memory for as long as a photo is painted in it."""
    file = tmp_path / "style.png"
    Image.effect_noise((400, 300), 90).save(file)
    image = StyleImage(image=file, scale=scale)
    style = styletransfer.read_style(image, EngineSettings(), StyleSettings(**settings))
    assert style.rgb.shape == (side * 3 // 4, side, 3)


def test_a_style_image_that_is_read_small_paints_as_before(preset, monkeypatch, tmp_path):
    Image.effect_noise((200, 150), 90).convert("RGB").save(tmp_path / "style.png")
    small = render(preset()).rgb
    real = styletransfer.read_picture
    monkeypatch.setattr(
        styletransfer, "read_picture", lambda data, fit, **limits: real(data, **limits)
    )
    np.testing.assert_array_equal(render(preset()).rgb, small)


@pytest.mark.parametrize(("gpu", "enough"), [(False, 2), (True, 2 * preconditioner._FIRST)])
def test_what_a_gpu_compiles_for_the_first_steps_is_no_part_of_its_speed(gpu, enough, monkeypatch):
    """L-BFGS's own code too, which learns the image's curvature after some steps."""
    asked = []

    def stylize(picture, styles, settings, network):
        asked.append(settings)
        return SimpleNamespace(evaluations=6, precision="float32")

    monkeypatch.setattr(styletransfer, "stylize", stylize)
    monkeypatch.setattr(styletransfer, "has_gpu", lambda: gpu)
    found = styletransfer.probe_speed(EngineSettings(features="builtin"))
    assert [each.evaluations for each in asked] == [(enough,), (1000,)]
    assert asked[1].time_budget == 2.0
    assert found["evaluations_per_second"] > 0
