"""One job, whole: photo in, published-ready result out; and every failure with its class."""

import errno
import hashlib
import io
import math
import os
import struct
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin
from rig import effect_package

from stylewatch.domain import (
    Checkpoint,
    EngineSettings,
    Failure,
    FailureKind,
    JobRequest,
    OutputSettings,
    Preset,
    Rendered,
    Step,
    StyleImage,
    StyleSettings,
)
from stylewatch.effect import Rendering, checked, open_effect, steps_only
from stylewatch.engine import machine
from stylewatch.engine.images import Picture
from stylewatch.engine.results import read_facts
from stylewatch.errors import (
    DeviceError,
    ExecutorError,
    OutputError,
    OutputFullError,
    PresetError,
    RenderError,
    WeightsError,
)
from stylewatch.jobs import worker
from stylewatch.jobs.styletransfer import choose_network
from stylewatch.jobs.worker import run_job
from stylewatch.state.checkpoints import CheckpointFile
from stylewatch.state.wording import explained

QUICK = StyleSettings(max_side=48, coarsest_side=48, evaluations=(3,), features="builtin")


def picture_file(path, seed=0, size=(64, 48), form="JPEG", **options):
    rng = np.random.default_rng(seed)
    noise = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8), "RGB")
    noise.resize(size, Image.Resampling.BICUBIC).save(path, form, **options)
    return path


@pytest.fixture
def preset(tmp_path):
    style = picture_file(tmp_path / "style.png", 1, form="PNG")
    return Preset(name="soft", style=(StyleImage(image=style),), settings=QUICK, digest="d")


def request_for(photo: Path, preset, target=None):
    data = photo.read_bytes()
    return JobRequest(
        job_id=7, key="k" * 64, source=photo, digest=hashlib.sha256(data).hexdigest(),
        preset=preset, target=target or photo.parent / "out" / "a--soft",
    )  # fmt: skip


def run(request, engine=None, steps=None):
    report = steps.append if steps is not None else (lambda step: None)
    return run_job(request, engine or EngineSettings(), report=report)


def test_a_job_gives_a_complete_result_under_a_temporary_name(tmp_path, preset):
    photo = picture_file(tmp_path / "a.jpg")
    steps = []
    outcome = run(request_for(photo, preset), steps=steps)
    assert isinstance(outcome, Rendered)
    data = outcome.temporary.read_bytes()
    assert hashlib.sha256(data).hexdigest() == outcome.sha256
    assert outcome.extension == ".jpg"
    assert (outcome.width, outcome.height) == (48, 36)
    assert len(steps) == outcome.evaluations == 3
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (48, 36)
    facts = read_facts(data)
    assert facts["job_key"] == "k" * 64
    assert facts["features"] == "built-in"
    assert facts["preset"] == "soft"


@pytest.mark.parametrize("owner", ["-daemon", ""])
def test_a_daemon_s_result_knows_its_photo_and_one_that_was_asked_for_is_but_a_picture(
    tmp_path, preset, owner
):
    (tmp_path / "out").mkdir()  # as a daemon does
    request = replace(request_for(picture_file(tmp_path / "a.jpg"), preset), owner=owner)
    facts = read_facts(run(request).temporary.read_bytes())
    assert facts.get("photo", "") == (request.digest if owner else "")


def test_the_output_format_is_the_preset_s_choice_and_the_photo_s_by_default(tmp_path, preset):
    photo = picture_file(tmp_path / "a.png", form="PNG")
    assert run(request_for(photo, preset)).extension == ".png"
    webp = replace(preset, output=OutputSettings(format="webp"))
    assert run(request_for(photo, webp)).extension == ".webp"


def test_what_is_transparent_in_a_photo_is_so_in_its_painting(tmp_path, preset):
    photo = picture_file(tmp_path / "a.png", form="PNG")
    alpha = Image.new("L", (64, 48))
    alpha.paste(255, (32, 0, 64, 48))
    with Image.open(photo) as image:
        image.putalpha(alpha)
        image.save(photo)
    with Image.open(run(request_for(photo, preset)).temporary) as painted:
        kept = np.asarray(painted.getchannel("A"))
    assert kept.shape == (36, 48)
    assert kept[:, :20].max() == 0
    assert kept[:, 28:].min() == 255


def test_limits_are_for_photos_not_for_results(tmp_path, preset):
    photo = picture_file(tmp_path / "a.webp", form="WEBP", quality=1)
    settings = replace(QUICK, max_side="photo", evaluations=(1,))
    tiff = replace(preset, settings=settings, output=OutputSettings(format="tiff"))
    limit = max(file.stat().st_size for file in (photo, preset.style[0].image))
    outcome = run(request_for(photo, tiff), EngineSettings(max_bytes=limit))
    assert isinstance(outcome, Rendered)
    assert outcome.temporary.stat().st_size > limit
    refused = run(request_for(photo, tiff), EngineSettings(max_bytes=photo.stat().st_size - 1))
    assert (refused.kind, refused.reason) == (FailureKind.BAD_INPUT, "too-large")


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff\xe0 half a picture"])
def test_a_result_that_can_t_be_opened_is_our_failure_and_leaves_nothing(
    tmp_path, preset, monkeypatch, content
):
    monkeypatch.setattr(worker, "write_picture", lambda *_, **__: content)
    outcome = run(request_for(picture_file(tmp_path / "a.jpg"), preset))
    assert (outcome.kind, outcome.reason) == (FailureKind.RENDER, "result")
    assert "Copy it" not in outcome.message  # nothing is wrong with the photo
    assert not list((tmp_path / "out").iterdir())


def test_a_result_that_its_format_can_t_hold_is_our_failure():
    """WebP ends at 16383 pixels."""
    wide = Picture(np.zeros((1, 16_400, 3), np.float32))
    with pytest.raises(RenderError) as caught:
        worker._encoded(wide, "webp", OutputSettings(), {})
    failure = worker.failure_of(caught.value)
    assert (failure.kind, failure.reason) == (FailureKind.RENDER, "encode")
    assert failure.message.startswith("The result can't be encoded: received ")
    assert "\n" not in failure.message


@pytest.mark.parametrize("mode", ["1", "P", "LA", "CMYK", "I;16"])
def test_a_tiff_of_any_mode_is_painted_as_tiff(tmp_path, preset, mode):
    photo = tmp_path / "a.tif"
    grey = Image.linear_gradient("L").resize((64, 48))
    if mode == "I;16":
        Image.fromarray(np.asarray(grey, np.uint16) * 257).save(photo)
    else:
        grey.convert("RGB").convert(mode).save(photo)
    outcome = run(request_for(photo, preset))
    assert isinstance(outcome, Rendered)
    assert outcome.extension == ".tif"
    with Image.open(outcome.temporary) as image:
        assert image.size == (48, 36)


def test_a_photo_that_changed_after_it_was_queued_settles_again(tmp_path, preset):
    photo = picture_file(tmp_path / "a.jpg")
    request = request_for(photo, preset)
    picture_file(photo, 5)
    outcome = run(request)
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.CHANGED


@pytest.mark.parametrize(
    ("make", "kind", "reason"),
    [
        (lambda p: p.write_text("I am no picture"), FailureKind.BAD_INPUT, "not-an-image"),
        (lambda p: p.write_bytes(b""), FailureKind.BAD_INPUT, "empty"),
        (
            lambda p: p.write_bytes(picture_file(p).read_bytes()[:900]),
            FailureKind.BAD_INPUT,
            "truncated",
        ),
    ],
    ids=["text", "empty", "truncated"],
)
def test_bad_photos_are_the_photo_s_fault_and_are_left_alone(tmp_path, preset, make, kind, reason):
    photo = tmp_path / "a.jpg"
    make(photo)
    before = photo.read_bytes()
    outcome = run(request_for(photo, preset))
    assert (outcome.kind, outcome.reason) == (kind, reason)
    assert "\n" not in outcome.message
    assert photo.read_bytes() == before
    assert not list(tmp_path.glob("out/.*"))


def test_a_photo_that_is_gone_or_a_link_is_told_apart(tmp_path, preset):
    photo = picture_file(tmp_path / "a.jpg")
    request = request_for(photo, preset)
    photo.unlink()
    gone = run(request)
    assert (gone.reason, gone.message) == ("vanished", "The photo is gone")
    photo.symlink_to(picture_file(tmp_path / "b.jpg"))
    assert run(request).kind is FailureKind.BAD_INPUT


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_a_photo_whose_name_a_folder_or_a_pipe_has_now_is_gone(tmp_path, preset, make):
    photo = picture_file(tmp_path / "a.jpg")
    request = request_for(photo, preset)
    photo.unlink()
    make(photo)
    outcome = run(request)
    assert (outcome.kind, outcome.reason) == (FailureKind.CHANGED, "vanished")


def test_a_path_that_is_too_long_for_a_worker_is_not_tried_again(tmp_path, preset):
    """The daemon opens it step by step."""
    photo = picture_file(tmp_path / "a.jpg")
    source = tmp_path.joinpath(*["d" * 200] * 25, "a.jpg")
    outcome = run(replace(request_for(photo, preset), source=source))
    assert (outcome.kind, outcome.reason) == (FailureKind.BAD_INPUT, "enametoolong")
    assert "a shorter name" in explained(outcome.reason, outcome.message)


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (OutputFullError("full"), FailureKind.RESOURCE, "disk-full"),
        (OutputError("closed", reason="eacces"), FailureKind.PERMISSION, "eacces"),
        (OSError(errno.ENOSPC, "full"), FailureKind.RESOURCE, "enospc"),
        (OSError(errno.EACCES, "closed"), FailureKind.PERMISSION, "eacces"),
        (OSError(errno.EIO, "broken"), FailureKind.TRANSIENT, "eio"),
        (OSError("strange"), FailureKind.TRANSIENT, "io"),
    ],
)
def test_a_disk_s_trouble_is_no_photo_s_fault(error, kind, reason):
    failure = worker.failure_of(error)
    assert (failure.kind, failure.reason) == (kind, reason)


def test_a_photo_that_grew_too_large_since_it_was_queued_is_not_read(tmp_path, preset):
    request = request_for(picture_file(tmp_path / "a.jpg"), preset)
    os.truncate(request.source, 1 << 40)  # more than any memory holds
    outcome = run(request)
    assert (outcome.kind, outcome.reason) == (FailureKind.BAD_INPUT, "too-large")


def test_a_missing_style_image_is_no_photo_s_fault(tmp_path, preset):
    photo = picture_file(tmp_path / "a.jpg")
    preset.style[0].image.unlink()
    outcome = run(request_for(photo, preset))
    assert outcome.kind is FailureKind.TRANSIENT
    assert outcome.reason == "style-image"
    assert "style.png can't be read: No such file or directory. Put" in outcome.message


def test_a_preset_s_own_image_is_where_a_run_starts(tmp_path, preset):
    photo = picture_file(tmp_path / "a.jpg")
    start = picture_file(tmp_path / "start.png", 5, size=(20, 20), form="PNG")
    from_image = replace(preset, settings=replace(QUICK, init=start, evaluations=(1,)))
    from_photo = replace(preset, settings=replace(QUICK, evaluations=(1,)))
    losses = [run(request_for(photo, each)).loss for each in (from_image, from_photo)]
    assert losses[0] != losses[1]
    start.write_bytes(b"no picture")
    outcome = run(request_for(photo, from_image))
    assert (outcome.kind, outcome.reason) == (FailureKind.TRANSIENT, "style-image")
    assert "start.png" in outcome.message


def test_an_unknown_effect_names_those_that_are_there():
    with pytest.raises(PresetError, match="style-transfer"):
        open_effect("style-transfre")


@pytest.fixture
def painted_by(tmp_path, monkeypatch):
    """A function that has a photo painted by an installed effect, whose `render` it is given."""

    def paint(render, at_last=""):
        effect_package(tmp_path / "site", render, at_last)
        monkeypatch.syspath_prepend(tmp_path / "site")
        monkeypatch.delitem(sys.modules, "own_effect", raising=False)
        photo = picture_file(tmp_path / "a.jpg")
        return run(request_for(photo, Preset(name="soft", effect="own")))

    return paint


@pytest.mark.parametrize(
    ("given", "reason", "told"),
    [
        ("None", "render", "The effect gave no picture: expected a Rendering, received NoneType"),
        ("photo", "render", "expected a Rendering, received ndarray"),
        ("Rendering(rgb=photo[..., 0])", "render", "the shape (H, W, 3), received (48, 64)"),
        ("Rendering(rgb=np.dstack([photo, photo]))", "render", "received (48, 64, 6)"),
        ("Rendering(rgb=photo[:0])", "render", "received (0, 64, 3)"),
        ("Rendering(rgb=photo / 0)", "not-finite", "values that are not numbers"),
        ("Rendering(rgb=photo / 255)", "black", "values of 0…255, received at most 1"),
        ("Rendering(rgb=np.divide(photo, 255, out=photo))", "black", "received at most 1"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_what_another_package_s_effect_gives_is_no_result_unless_it_is_a_picture(
    painted_by, given, reason, told
):
    failure = painted_by(f"return {given}")
    assert (failure.kind, failure.reason) == (FailureKind.RENDER, reason)
    assert told in failure.message


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_photo_is_made_small_at_once_but_for_another_package_s_effect(
    tmp_path, preset, monkeypatch, form
):
    """A camera's whole photo would be in memory for as long as it is painted."""
    given = []

    def render(photo, preset, context):
        given.append(photo.shape)
        return Rendering(rgb=photo)

    monkeypatch.setattr(worker, "open_effect", lambda name: SimpleNamespace(render=render))
    photo = picture_file(tmp_path / "a", size=(642, 483), form=form)
    whole = replace(preset, settings=replace(QUICK, max_side="photo"))
    for asked in (preset, whole, replace(preset, effect="own")):
        run(request_for(photo, asked))
    assert given == [(36, 48, 3), (483, 642, 3), (483, 642, 3)]


def test_a_black_photo_may_come_out_black():
    """A silhouette on transparent ground, or what a camera saw of its lens cap."""
    black = Rendering(rgb=np.zeros((2, 2, 3), np.float32))
    assert not checked(black, 3.0).rgb.any()
    with pytest.raises(RenderError, match="came out black"):
        checked(black, 100.0)


def test_an_effect_s_error_that_is_no_disk_s_costs_an_attempt_and_its_worker(painted_by, capfd):
    """Pillow's and `requests`' are OSErrors, too, and a GPU's: waiting mends none of them."""
    with pytest.raises(ExecutorError) as caught:
        painted_by("import io; from PIL import Image; Image.open(io.BytesIO(b'-'))")
    failure = caught.value.failure
    assert (failure.kind, failure.reason) == (FailureKind.RENDER, "error")
    assert failure.message.startswith("UnidentifiedImageError: cannot identify")
    assert "Traceback" in capfd.readouterr().err


def test_an_effect_s_error_that_is_a_disk_s_is_no_photo_s_fault(painted_by, capfd):
    failure = painted_by("open('/dev/null/x')")
    assert (failure.kind, failure.reason) == (FailureKind.TRANSIENT, "enotdir")
    assert "Traceback" in capfd.readouterr().err


def test_another_package_s_effect_may_compute_in_types_of_its_own(painted_by):
    """The ledger and JSON take Python's alone."""
    outcome = painted_by(
        "return Rendering(rgb=photo.astype(int).tolist(), evaluations=np.int64(3), "
        "loss=np.float32(2.5), facts={'levels': 4}, note=np.int64(4))"
    )
    assert isinstance(outcome, Rendered)
    assert (type(outcome.loss), type(outcome.evaluations)) == (float, int)
    assert (outcome.loss, outcome.facts["levels"], outcome.note) == (2.5, "4", "4")


@pytest.mark.parametrize(
    ("lacks", "told"),
    [
        ("import not_installed_here", "No module named 'not_installed_here'"),
        ("import sys; sys.exit('no licence')", "SystemExit: no licence"),
        ("import abc; Own = abc.ABCMeta", "TypeError"),
    ],
)
def test_an_effect_that_can_t_be_loaded_is_no_photo_s_fault(
    tmp_path, painted_by, lacks, told, capfd
):
    """Its photos wait, as for weights."""
    failure = painted_by("return Rendering(rgb=photo)", lacks)
    assert (failure.kind, failure.reason) == (FailureKind.TRANSIENT, "effect")
    assert failure.message.startswith("effect: The effect 'own' can't be loaded: received ")
    assert told in failure.message
    assert "Traceback" in capfd.readouterr().err
    unknown = run(request_for(tmp_path / "a.jpg", Preset(name="soft", effect="none")))
    assert (unknown.kind, unknown.reason) == (FailureKind.TRANSIENT, "effect")


def test_only_steps_are_progress(painted_by):
    with pytest.raises(TypeError, match="on_step takes a Step, not float"):
        painted_by("context.on_step(0.5)")


@pytest.mark.parametrize("name", ["fraction", "seconds", "eta_seconds"])
def test_a_step_says_how_far_it_is_in_finite_numbers(painted_by, name):
    """Status and the live view reckon with them; a loss may be anything."""
    numbers = dict.fromkeys((each.name for each in fields(Step)), 1) | {"loss": math.nan}
    told = []
    steps_only(told.append)(Step(**numbers))
    assert len(told) == 1
    given = repr({**numbers, name: math.inf})
    with pytest.raises(ValueError, match="finite numbers, not as in Step"):
        painted_by(
            "from math import inf, nan; from stylewatch.domain import Step; "
            f"context.on_step(Step(**{given}))"
        )


def test_a_note_that_is_none_is_empty(painted_by):
    assert painted_by("return Rendering(rgb=photo, note=None)").note == ""


def test_a_loss_that_is_no_number_is_none(painted_by):
    assert painted_by("return Rendering(rgb=photo, loss=float('nan'))").loss is None


def test_named_weights_never_fall_back(tmp_path):
    engine = EngineSettings(weights=str(tmp_path / "nowhere.h5"))
    with pytest.raises(WeightsError):
        choose_network(StyleSettings(), engine)
    with pytest.raises(WeightsError):
        choose_network(StyleSettings(features="vgg19"), engine)
    network, note = choose_network(StyleSettings(features="builtin"), engine)
    assert (network.name, note) == ("built-in", "")


def test_weights_that_are_away_are_no_photo_s_fault(tmp_path, preset):
    """A wrong `weights:` sets no folder of photos aside: they wait, and come back by themselves."""
    photo = picture_file(tmp_path / "a.jpg")
    by_vgg19 = replace(preset, settings=replace(QUICK, features="vgg19"))
    engine = EngineSettings(weights=str(tmp_path / "nowhere.h5"))
    outcome = run(request_for(photo, by_vgg19), engine)
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.reason) == (FailureKind.TRANSIENT, "weights")


def test_a_device_that_does_not_work_is_told_by_an_error_for_which_the_process_is_replaced(
    tmp_path, preset, monkeypatch
):
    def render_job(*_):
        raise DeviceError("The GPU has fallen off the bus")

    monkeypatch.setattr(worker, "render_job", render_job)
    with pytest.raises(DeviceError):
        run(request_for(picture_file(tmp_path / "a.jpg"), preset))


def test_where_tensorflow_would_end_the_process_it_is_not_loaded(
    tmp_path, preset, painted_by, monkeypatch
):
    """Each photo would be set aside after two tries, as too much for this machine."""
    monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset({"sse4_2"}))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    assert painted_by("return Rendering(rgb=photo)").note == ""  # another effect needs none
    with monkeypatch.context() as patch:
        patch.delattr(worker, "open_effect")
        with pytest.raises(DeviceError, match="no AVX") as caught:
            run(request_for(picture_file(tmp_path / "a.jpg"), preset))
    assert caught.value.failure.kind is FailureKind.TRANSIENT
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    machine.check_processor()
    monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.setattr(machine, "cpu_flags", frozenset)  # of an ARM, which names them otherwise
    machine.check_processor()


def test_a_killed_job_goes_on_from_its_checkpoint(tmp_path, preset):
    photo = picture_file(tmp_path / "a.jpg")
    settings = replace(QUICK, evaluations=(10,), history=2)
    request = request_for(photo, replace(preset, settings=settings))
    engine = EngineSettings(checkpoint_dir=tmp_path / "checkpoints", checkpoint_seconds=0.0)

    class Killed(BaseException): ...

    def die_at_six(step):
        if step.evaluation == 6:
            raise Killed

    with pytest.raises(Killed):
        run_job(request, engine, report=die_at_six)
    steps = []
    outcome = run(request, engine, steps)
    assert isinstance(outcome, Rendered)
    assert [step.evaluation for step in steps] == [4, 5, 6, 7, 8, 9, 10]
    assert (outcome.evaluations, outcome.facts["evaluations"]) == (5 + 7, "12")
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_damaged_checkpoint_counts_as_none(tmp_path):
    path = tmp_path / "k.npz"
    path.write_bytes(os.urandom(100))
    assert CheckpointFile(path, 0.0).load() is None
    kept = CheckpointFile(path, 0.0)
    kept.offer(lambda: Checkpoint(1, 4, np.zeros((2, 2, 3), np.float32)))
    assert kept.load().evaluation == 4


def test_a_place_where_no_checkpoint_can_be_costs_only_the_checkpoint(tmp_path):
    (tmp_path / "k.npz/in the way").mkdir(parents=True)
    kept = CheckpointFile(tmp_path / "k.npz", 0.0)
    kept.offer(lambda: Checkpoint(1, 4, np.zeros((2, 2, 3), np.float32)))
    assert kept.load() is None
    kept.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["k.npz"]


def test_a_full_disk_costs_only_the_newer_checkpoint(tmp_path):
    kept = CheckpointFile(tmp_path / "k.npz", 0.0)
    kept.offer(lambda: Checkpoint(1, 4, np.zeros((2, 2, 3), np.float32)))
    (tmp_path / "k.tmp").symlink_to("/dev/full")
    kept.offer(lambda: Checkpoint(1, 5, np.zeros((2, 2, 3), np.float32)))
    assert kept.load().evaluation == 4
    assert [path.name for path in tmp_path.iterdir()] == ["k.npz"]


def test_checkpoints_are_kept_no_more_often_than_asked(tmp_path):
    times = iter([0.0, 10.0, 31.0, 31.0])
    made = []

    def make():
        made.append(1)
        return Checkpoint(1, 1, np.zeros((1, 1, 3), np.float32))

    kept = CheckpointFile(tmp_path / "k.npz", 30.0, clock=lambda: next(times))
    kept.offer(make)
    assert not made
    kept.offer(make)
    assert made


def test_a_checkpoint_that_takes_long_to_write_is_written_less_often(tmp_path):
    now, made = 30.0, []

    def make():
        nonlocal now
        made.append(now)
        now += 9.0
        return Checkpoint(1, 1, np.zeros((1, 1, 3), np.float32))

    kept = CheckpointFile(tmp_path / "k.npz", 30.0, clock=lambda: now)
    while now < 300.0:
        kept.offer(make)
        now += 1.0
    assert made == [60.0, 159.0, 258.0]


@pytest.mark.parametrize(("megapixels", "expected"), [(1.0, 20), (2.5, 20), (24.0, 3)])
def test_a_large_checkpoint_is_written_less_often(tmp_path, megapixels, expected):
    """A photo of 24 megapixels wrote 13 GB on its way, and wore a card out in months."""
    now, made = 0.0, []

    class Image:
        nbytes = megapixels * 12e6

        def __array__(self, *given, **more):
            return np.zeros(1, np.float32)

    def make():
        made.append(now)
        return Checkpoint(1, 1, Image())

    kept = CheckpointFile(tmp_path / "k.npz", 30.0, clock=lambda: now)
    while now < 610.0:
        kept.offer(make)
        now += 1.0
    assert len(made) == expected


def test_a_library_s_lack_of_memory_is_told_as_such(tmp_path, preset, monkeypatch):
    """Real exceptions of the library's, not asked for by filling this machine's memory."""
    import tensorflow as tf

    def render(*arguments):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(worker, "open_effect", lambda name: SimpleNamespace(render=render))
    failure = run(request_for(picture_file(tmp_path / "a.jpg"), preset))
    assert (failure.kind, failure.reason) == (FailureKind.RENDER, "memory")
    assert failure.message == "not enough memory for a photo of this size"


@pytest.mark.parametrize(("form", "most"), [("webp", 16383), ("jpeg", 65500)])
def test_what_a_format_can_t_hold_is_said_before_it_is_painted(tmp_path, preset, form, most):
    Image.new("L", (most + 1, 2)).save(tmp_path / "a.png")
    asked = replace(preset, output=OutputSettings(format=form))
    large = EngineSettings(max_side=most + 1)
    whole = replace(asked, settings=replace(QUICK, max_side="photo"))
    steps = []
    failure = run(request_for(tmp_path / "a.png", whole), large, steps=steps)
    assert (failure.kind, failure.reason, steps) == (FailureKind.BAD_INPUT, "too-large", [])
    assert str(most) in failure.message
    assert isinstance(run(request_for(tmp_path / "a.png", asked), large), Rendered)


def test_a_worker_with_another_disk_than_the_daemon_s_paints_nothing(tmp_path, preset):
    """And makes no folder there, below which the daemon would see none of its files."""
    request = replace(request_for(picture_file(tmp_path / "a.jpg"), preset), owner="-daemon")
    steps = []
    failure = run(request, steps=steps)
    assert (failure.kind, failure.reason, steps) == (FailureKind.RESOURCE, "forbidden", [])
    assert str(tmp_path / "out") in failure.message
    assert not (tmp_path / "out").exists()


def test_a_tiff_with_values_that_are_no_numbers_is_the_photo_s_fault(tmp_path, preset):
    values = np.full((20, 30), 0.5, np.float32)
    values[3, 4] = np.nan
    Image.fromarray(values).save(tmp_path / "a.tif")
    failure = run(request_for(tmp_path / "a.tif", preset))
    assert (failure.kind, failure.reason) == (FailureKind.BAD_INPUT, "not-finite")


class TestOnlyWhatIsWrittenAboutThePhotoIsNew:
    """A catalogue has put a title into a photo that was painted before."""

    @staticmethod
    def titled(photo, title="Am See"):
        """The same with an XMP packet; of a JPEG not even a byte of its picture is touched."""
        packet = (
            b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description'
            b' xmlns:dc="http://purl.org/dc/elements/1.1/" dc:title="%s"/></rdf:RDF>'
        ) % title.encode()
        data = photo.read_bytes()
        if data.startswith(b"\xff\xd8"):
            block = b"http://ns.adobe.com/xap/1.0/\0" + packet
            photo.write_bytes(
                b"\xff\xd8\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]
            )
            return photo
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", packet.decode())
        with Image.open(io.BytesIO(data)) as image:
            image.save(photo, pnginfo=text)
        return photo

    def pixels(self, outcome):
        with Image.open(outcome.temporary) as image:
            return np.asarray(image.convert("RGB"), np.float32), image.info.get("xmp", b"")

    @pytest.mark.parametrize("form", ["jpeg", "png", "tiff", "heic"])
    @pytest.mark.parametrize("photo_form", ["JPEG", "PNG"])
    @pytest.mark.parametrize("profile", [True, False])
    def test_the_picture_stays(self, tmp_path, preset, form, photo_form, profile):
        icc = {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}
        photo = picture_file(
            tmp_path / f"a.{photo_form.lower()}",
            size=(640, 480),
            form=photo_form,
            **(icc if profile else {}),
        )
        wanted = replace(preset, output=OutputSettings(format=form))
        before = run(request_for(photo, wanted))
        was, _ = self.pixels(before)
        earlier = tmp_path / "out/kept"
        before.temporary.rename(earlier)
        after = run(replace(request_for(self.titled(photo), wanted), earlier=earlier))
        now, xmp = self.pixels(after)
        assert (after.evaluations, after.seconds, before.evaluations) == (0, 0.0, 3)
        assert "same picture" in after.note
        assert b"Am See" in xmp
        assert np.abs(now - was).mean() < (0.4 if form in {"jpeg", "heic"} else 1e-9)
        facts = read_facts(after.temporary.read_bytes())
        assert facts == before.facts | {"job_key": "k" * 64}

    def test_it_still_is_after_many_changes(self, tmp_path, preset):
        photo = picture_file(tmp_path / "a.jpg")
        first = run(request_for(photo, preset))
        was, _ = self.pixels(first)
        earlier = tmp_path / "out/kept"
        first.temporary.rename(earlier)
        plain = photo.read_bytes()
        for number in range(10):
            photo.write_bytes(plain)
            request = replace(
                request_for(self.titled(photo, f"No. {number}"), preset), earlier=earlier
            )
            outcome = run(request)
            assert outcome.evaluations == 0
            outcome.temporary.rename(earlier)
        now, xmp = self.pixels(replace(outcome, temporary=earlier))
        assert np.abs(now - was).mean() < 0.5
        assert b"No. 9" in xmp

    @pytest.mark.parametrize(
        "why",
        ["another preset", "another picture", "no result", "no picture", "another photo's", "WebP"],
    )
    def test_it_is_painted_anew_where_it_may_be_another(self, tmp_path, preset, why):
        if why == "WebP":
            preset = replace(preset, output=OutputSettings(format="webp"))
        photo = picture_file(tmp_path / "a.jpg")
        earlier = tmp_path / "out/kept"
        run(request_for(photo, preset)).temporary.rename(earlier)
        match why:
            case "another preset":
                preset = replace(preset, digest="e")
            case "another picture":
                picture_file(photo, 2)
            case "no result":
                earlier.unlink()
            case "no picture":
                earlier.write_bytes(b"no picture")
            case "another photo's":
                other = picture_file(tmp_path / "b.jpg", 3)
                run(request_for(other, preset)).temporary.rename(earlier)
        after = run(replace(request_for(self.titled(photo), preset), earlier=earlier))
        assert after.evaluations == 3
        assert after.seconds > 0

    def test_so_it_is_where_other_features_are_asked_for_by_now(self, tmp_path, preset):
        """The config's, of which a preset without any knows nothing."""
        preset = replace(preset, settings=replace(QUICK, features="auto"))
        photo = picture_file(tmp_path / "a.jpg")
        earlier = tmp_path / "out/kept"
        builtin = EngineSettings(features="builtin")
        run(request_for(photo, preset), builtin).temporary.rename(earlier)
        request = replace(request_for(self.titled(photo), preset), earlier=earlier)
        assert run(request, builtin).evaluations == 0
        vgg19 = EngineSettings(features="vgg19", weights=str(tmp_path / "away.h5"))
        assert run(request, vgg19).reason == "weights"

    def test_so_it_is_where_a_part_is_transparent_and_may_not_show(self, tmp_path, preset):
        photo = picture_file(tmp_path / "a.png", form="PNG")
        with Image.open(photo) as image:
            image.putalpha(100)
            image.save(photo)
        before = run(request_for(photo, preset))
        assert before.facts["picture_key"] == ""
        earlier = tmp_path / "out/kept"
        before.temporary.rename(earlier)
        after = run(replace(request_for(self.titled(photo), preset), earlier=earlier))
        assert after.evaluations == 3

    def test_an_alpha_that_hides_nothing_costs_no_painting(self, tmp_path, preset):
        photo = picture_file(tmp_path / "a.png", form="PNG")
        with Image.open(photo) as image:
            image.putalpha(255)
            image.save(photo)
        earlier = tmp_path / "out/kept"
        run(request_for(photo, preset)).temporary.rename(earlier)
        after = run(replace(request_for(self.titled(photo), preset), earlier=earlier))
        assert after.evaluations == 0
        assert "the same picture as before" in after.note
