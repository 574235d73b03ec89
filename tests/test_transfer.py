"""Style transfer end to end on small pictures: plan, progress, resume, budget, colours."""

import itertools
import weakref
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_network import noise, small_network

from stylewatch.domain import Checkpoint, StyleSettings
from stylewatch.engine import subject, transfer
from stylewatch.engine.curvature import Preconditioner
from stylewatch.engine.features import STRIDE, load_builtin
from stylewatch.engine.optimizers import Iterate
from stylewatch.engine.progress import Progress, Scale
from stylewatch.engine.sizes import resize
from stylewatch.engine.tiles import TiledObjective
from stylewatch.engine.transfer import Style, plan_scales, stylize
from stylewatch.errors import RenderError

SMALL = StyleSettings(max_side=48, coarsest_side=24, evaluations=(6, 4))


def picture(seed=0, height=40, width=56):
    """Soft blobs: something with shapes, unlike white noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    rgb = np.zeros((height, width, 3), np.float32)
    for channel in range(3):
        for _ in range(4):
            row, column = rng.uniform(0, height), rng.uniform(0, width)
            rgb[..., channel] += 90 * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 120)
    return np.clip(rgb, 0, 255)


def paint(network, settings=SMALL, **options):
    return stylize(picture(), [Style(noise())], settings, network, **options)


@given(
    st.integers(1, 9000),
    st.integers(1, 9000),
    st.integers(16, 4096) | st.just("photo"),
    st.integers(16, 512),
)
def test_scales_double_up_to_the_final_size_and_keep_the_shape(width, height, max_side, coarsest):
    settings = StyleSettings(max_side=max_side, coarsest_side=coarsest)
    scales = plan_scales(width, height, settings)
    limit = max(width, height) if max_side == "photo" else min(max_side, max(width, height))
    assert max(scales[-1].width, scales[-1].height) == limit
    assert [scale.number for scale in scales] == list(range(1, len(scales) + 1))
    for small, large in itertools.pairwise(scales):
        assert max(small.width, small.height) * 2 == pytest.approx(
            max(large.width, large.height), abs=1.5
        )
    if len(scales) > 1:
        assert max(scales[0].width, scales[0].height) >= coarsest - 1


def test_the_loss_falls_at_every_scale_and_the_result_has_the_planned_size(network):
    steps = []
    painting = paint(network, on_step=steps.append)
    assert painting.rgb.shape == (34, 48, 3)
    assert painting.rgb.min() >= 0
    assert painting.rgb.max() <= 255
    assert painting.complete
    assert painting.evaluations == 10
    for number in (1, 2):
        losses = [step.loss for step in steps if step.scale == number]
        assert min(losses) < losses[0]


def test_progress_is_told_once_per_evaluation_and_ends_at_one(network):
    steps = []
    ticks = itertools.count()
    paint(network, on_step=steps.append, clock=lambda: float(next(ticks)))
    assert [(step.scale, step.evaluation) for step in steps] == [
        *((1, n) for n in range(1, 7)),
        *((2, n) for n in range(1, 5)),
    ]
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    assert steps[-1].eta_seconds == pytest.approx(0.0)


def test_the_same_input_gives_the_same_bytes(network):
    settings = StyleSettings(max_side=32, coarsest_side=32, evaluations=(5,), init="noise", seed=3)
    first, second = (paint(network, settings).rgb for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_run_starts_from_the_image_it_is_given_stretched_over_the_photo(network):
    """The very first loss tells: a start equal to the photo is `content`, another is not."""

    def first_loss(**options):
        steps = []
        settings = StyleSettings(max_side=56, coarsest_side=56, evaluations=(1,))
        paint(network, settings, on_step=steps.append, **options)
        return steps[0].content

    assert first_loss() == first_loss(start=picture()) == pytest.approx(0.0)
    assert first_loss(start=picture(seed=9, height=20, width=20)) > 0.01


def test_large_forms_come_first_and_so_the_loss_falls_sooner(monkeypatch):
    """Against L-BFGS that begins with all frequencies alike."""
    photo, style = (picture(seed, 128, 128) for seed in (1, 2))
    alike = {f"block{block}_conv1": 0.2 for block in range(1, 6)}
    settings = StyleSettings(max_side=128, coarsest_side=128, evaluations=(12,), style_layers=alike)

    def loss():
        steps = []
        stylize(photo, [Style(style)], settings, load_builtin(), steps.append)
        return steps[-1].loss

    shipped = loss()
    monkeypatch.setattr(transfer, "ImagePreconditioner", lambda _: Preconditioner())
    assert shipped < 0.8 * loss()


@pytest.mark.parametrize("colour", ["style", "photo", "match"])
def test_an_image_to_start_from_suits_every_colour_mode(network, colour):
    settings = StyleSettings(max_side=48, coarsest_side=24, evaluations=(2,), colour=colour)
    assert paint(network, settings, start=noise(2, 8, 90)).rgb.shape == (34, 48, 3)


@pytest.mark.parametrize("colour", ["photo", "match"])
def test_styles_take_the_photo_s_colours_and_stay_styles(colour):
    settings = StyleSettings(colour=colour)
    photo, [style] = transfer._with_colours(picture(), [Style(noise(), 2.0)], settings)
    assert (style.rgb.shape, style.weight) == (noise().shape, 2.0)
    np.testing.assert_allclose(style.rgb.mean((0, 1)), photo.mean((0, 1)), atol=10)


@pytest.mark.parametrize("colour", ["photo", "match"])
def test_a_style_with_a_mask_takes_the_colours_that_lie_under_it(colour):
    """Else grass would turn as blue as the sky."""
    photo = noise(3, 40, 56) / 4
    photo[:, 28:] += 150
    left = np.zeros((4, 4), np.float32)
    left[:, :2] = 1.0
    styles = [Style(noise(), mask=mask) for mask in (left, 1 - left, 0 * left, None)]
    _, matched = transfer._with_colours(photo, styles, StyleSettings(colour=colour))
    expected = [photo[:, :28].mean(), photo[:, 28:].mean(), photo.mean(), photo.mean()]
    assert [style.rgb.mean() for style in matched] == pytest.approx(expected, abs=8)


@pytest.mark.parametrize("colour", ["photo", "match"])
def test_a_style_for_what_is_of_one_colour_takes_those_of_the_whole_photo(colour):
    """With the colours of a wall, or of a burnt-out sky, it would be as flat and paint nothing."""
    photo = noise(3, 40, 56)
    photo[:, 28:] = 250
    right = np.zeros((4, 4), np.float32)
    right[:, 2:] = 1.0
    _, [matched] = transfer._with_colours(
        photo, [Style(noise(), mask=right)], StyleSettings(colour=colour)
    )
    assert matched.rgb.std() > 20


@pytest.mark.parametrize("evaluation", [4, 15, 24])
def test_a_run_resumed_from_its_checkpoint_comes_to_the_same_loss(network, evaluation):
    """It goes on from the image, and learns again what L-BFGS knew of the loss around it."""
    settings = StyleSettings(max_side=48, coarsest_side=24, evaluations=(24, 24))
    kept = []
    whole = paint(network, settings, on_checkpoint=lambda make: kept.append(make()))
    middle = kept[24 + evaluation - 1]
    steps = []
    resumed = paint(network, settings, resume=middle, on_step=steps.append)
    assert (steps[0].scale, steps[0].evaluation) == (2, max(0, evaluation - 10) + 1)
    assert all(step.eta_seconds >= 0 and step.fraction <= 1 for step in steps)
    assert resumed.parts.loss <= whole.parts.loss * 1.1


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_a_run_killed_again_and_again_after_two_evaluations_ends_nevertheless(network, optimizer):
    """Each process comes one further, though L-BFGS would have ten to learn again."""
    settings = replace(SMALL, optimizer=optimizer)
    steps = []

    def process(resume):
        kept = []

        def killed_at_the_third(step):
            if len(kept) == 2:
                raise KeyboardInterrupt
            steps.append(step)

        def keep(make):
            kept.append(make())

        try:
            return paint(
                network, settings, on_step=killed_at_the_third, on_checkpoint=keep, resume=resume
            )
        except KeyboardInterrupt:
            return kept[-1]

    outcome = None
    for _ in range(sum(settings.evaluations)):
        outcome = process(outcome)
    assert outcome.complete
    assert all(step.evaluation <= step.evaluations for step in steps)


def test_a_run_resumed_in_its_first_stage_goes_through_all_that_follow(network):
    kept, steps = [], []
    settings = replace(SMALL, history=2)
    paint(network, settings, on_checkpoint=lambda make: kept.append(make()))
    resumed = paint(network, settings, resume=kept[4], on_step=steps.append)
    told = [(step.scale, step.evaluation) for step in steps]
    assert told == [(1, 4), (1, 5), (1, 6), (2, 1), (2, 2), (2, 3), (2, 4)]
    assert resumed.rgb.shape == (34, 48, 3)


def test_a_checkpoint_that_can_t_be_of_this_run_is_ignored(network):
    whole = paint(network)
    image = np.full((*transfer._Frame(Scale(2, 48, 34, 4), SMALL).size, 3), 90.0, np.float32)
    right = Checkpoint(2, 4, image, network.digest)
    assert paint(network, resume=right).evaluations < whole.evaluations
    wrong = [{"scale": scale} for scale in (0, 1, 3)]
    wrong += [{"image": each} for each in (image[1:], image * np.nan)]
    for each in (*wrong, {"network": "another's"}):
        painting = paint(network, resume=replace(right, **each))
        assert np.array_equal(painting.rgb, whole.rgb)


def test_a_checkpoint_s_image_is_let_go_of_before_the_first_evaluation(network):
    """It is as large as the picture: what goes on would take more memory than what was killed."""
    kept, there = [], []
    paint(network, on_checkpoint=lambda make: kept.append(make()))
    last = [kept.pop()]
    image = weakref.ref(last[0].image)
    stylize(
        picture(), [Style(noise())], SMALL, network, lambda _: there.append(image() is not None),
        resume=last.pop(),
    )  # fmt: skip
    assert there
    assert not any(there)


def test_the_loss_that_is_told_of_is_that_of_the_result_not_of_the_last_trial(network):
    steps = []
    settings = StyleSettings(max_side=32, coarsest_side=32, evaluations=(9,), optimizer="adam")
    painting = paint(network, settings, on_step=steps.append)
    assert painting.parts.loss == min(step.loss for step in steps)


def test_a_spent_time_budget_gives_the_best_so_far_at_full_size(network):
    """After a crash it starts over."""
    kept, ticks = [], itertools.count()
    settings = StyleSettings(max_side=48, coarsest_side=24, evaluations=(50, 50), time_budget=5)
    given = {"clock": lambda: float(next(ticks)), "on_checkpoint": lambda make: kept.append(make())}
    painting = paint(network, settings, **given)
    assert not painting.complete
    assert painting.evaluations < 50
    assert painting.rgb.shape == (34, 48, 3)
    again = paint(network, settings, resume=kept[-1], **given)
    assert again.evaluations == 2 * painting.evaluations


def test_a_budget_that_ends_with_the_last_evaluation_has_cut_nothing_short(network):
    steps = []
    settings = StyleSettings(max_side=32, coarsest_side=32, evaluations=(3,), time_budget=3)
    painting = paint(network, settings, on_step=steps.append, clock=lambda: float(len(steps)))
    assert (painting.complete, painting.evaluations) == (True, 3)


def test_a_style_image_that_is_too_large_is_described_in_tiles_and_the_photo_painted_whole(network):
    """It passes the network once, the photo at each evaluation."""
    settings = StyleSettings(max_side=512, precision="float32")
    scale = Scale(1, 512, 384, 1)
    rgb = np.zeros((2048, 2048, 3), np.float32)
    memory = int(2.2 * 512 * 384 * transfer.BYTES_PER_PIXEL["float32"])

    def tiled(*styles):
        arguments = scale, styles, settings, network, memory
        return [isinstance(each, TiledObjective) for each in transfer._planned(*arguments)[:2]]

    assert tiled(Style(rgb)) == [False, False]
    assert tiled(Style(rgb, scale=3.0)) == [False, True]
    assert tiled(*(Style(rgb, mask=np.ones((4, 4))) for _ in range(4))) == [False, False]
    assert tiled(*(Style(rgb, mask=np.ones((4, 4))) for _ in range(6))) == [True, False]


def test_the_picture_is_the_same_if_its_style_is_described_in_tiles(network, monkeypatch):
    settings = replace(SMALL, precision="float32")
    whole = paint(network, settings)
    layers = tuple(settings.content_layers), tuple(settings.style_layers)
    tiled, described = TiledObjective(network, *layers, settings.pooling, "float32"), []
    grams = tiled.grams_of_style
    tiled.grams_of_style = lambda image: described.append(image) or grams(image)
    real = transfer._planned

    def planned(*arguments):
        objective, _, history = real(*arguments)
        return objective, tiled, history

    monkeypatch.setattr(transfer, "_planned", planned)
    assert paint(network, settings).parts.loss == pytest.approx(whole.parts.loss, rel=1e-3)
    assert len(described) == 2  # one at each stage


@pytest.mark.parametrize("memory", [2 << 30, 4 << 30])
def test_a_tile_and_what_it_sees_around_it_take_the_memory_that_there_is(network, memory):
    settings = StyleSettings(precision="float32")
    objective = transfer._objective_for(3072 * 4096, 1.0, settings, network, memory)
    outers = [tile.outer for tile in objective._tiles(np.empty((1, 3072, 4096, 3), bool))]
    pixels = max((bottom - top) * (right - left) for top, bottom, left, right in outers)
    assert 0.7 * memory < pixels * transfer.BYTES_PER_PIXEL["float32"] <= memory


def test_however_much_memory_there_is_no_layer_has_more_values_than_a_gpu_s_library_counts(network):
    settings = StyleSettings(max_side="photo")
    objective, of_styles, _ = transfer._planned(
        Scale(1, 8192, 5464, 1), [Style(np.zeros((1, 1, 3)))], settings, network, 1 << 40
    )
    assert objective.pixels * 64 < 2**31
    assert not isinstance(of_styles, TiledObjective)


def test_tiles_of_another_size_need_no_other_graphs(network):
    """What is free changes from photo to photo, and they take seconds to make."""
    settings = StyleSettings(precision="float32")
    one, other = (
        transfer._objective_for(3072 * 4096, 1.0, settings, network, gigabytes << 30)
        for gigabytes in (2, 4)
    )
    assert one.pixels < other.pixels
    assert one._tile_gradient is other._tile_gradient
    assert one._styles is other._styles


@pytest.mark.parametrize(("memory", "in_tiles"), [(2_400_000_000, False), (2_300_000_000, True)])
def test_memory_is_handed_out_once_to_an_evaluation_and_to_what_lbfgs_remembers(
    network, memory, in_tiles
):
    """Both at once would be 1024 × 768 pixels' 2.12 and 0.26 GB."""
    scale = Scale(1, 1024, 768, 1)
    settings = StyleSettings(precision="float32")
    objective, _, history = transfer._planned(scale, [], settings, network, memory)
    assert isinstance(objective, TiledObjective) == in_tiles
    assert history == settings.history


@given(st.integers(1, 6000), st.integers(1, 6000), st.integers(2, 100), st.integers(30, 36))
def test_tiles_and_pairs_together_take_what_there_is(network, width, height, pairs, exponent):
    memory = 1 << exponent
    scale = Scale(1, width, height, 1)
    settings = StyleSettings(precision="float32", history=pairs)
    objective, _, history = transfer._planned(scale, [], settings, network, memory)
    rows, columns = transfer._Frame(scale, settings).size
    _, taken = transfer._for_lbfgs(scale, settings, memory, on_host=True)
    assert taken <= memory / 2 or history == 2
    most = rows * columns
    if isinstance(objective, TiledObjective):
        most = objective.pixels
    left = max(memory - taken, memory / 2)
    assert most * transfer.BYTES_PER_PIXEL["float32"] <= left * (1 + 1e-9)


@pytest.mark.parametrize(("objective", "beyond"), [("balanced", False), ("classic", True)])
def test_only_the_classic_objective_goes_beyond_black_and_white_on_its_way(
    network, objective, beyond
):
    kept = []
    paint(
        network, replace(SMALL, objective=objective), on_checkpoint=lambda make: kept.append(make())
    )
    assert (min(each.image.min() for each in kept) < -0.1) == beyond


def test_what_is_painted_around_a_thin_panorama_takes_memory_too(network):
    settings = StyleSettings(max_side="photo", precision="float32")
    for height, fits in [(4, False), (384, True)]:
        scale = Scale(1, 8000, height, 1)
        memory = int(1.5 * scale.width * height * transfer.BYTES_PER_PIXEL["float32"])
        objective, _, _ = transfer._planned(scale, [], settings, network, memory)
        assert isinstance(objective, TiledObjective) != fits
        memory = 2 * 27 * 12 * scale.width * height
        assert (transfer._for_lbfgs(scale, settings, memory, on_host=True)[0] > 5) == fits


@pytest.mark.parametrize(("tolerance", "evaluations"), [(0.19, 11), (0.18, 40), (0.0, 40)])
def test_a_scale_has_stalled_where_ten_evaluations_gain_less_than_the_tolerance(
    tolerance, evaluations
):
    """Here ten of them gain 18.3 %."""
    scale = Scale(1, 8, 8, 40)
    settings = StyleSettings(tolerance=tolerance)
    progress = Progress([scale], settings, "", None, None, lambda: 0.0, None)
    progress.begin(scale, 10)
    iterates = (Iterate(0.98**n, 0.98**n, None) for n in range(40))
    on = list(itertools.takewhile(lambda it: progress.step(it, lambda: None), iterates))
    assert min(40, len(on) + 1) == evaluations


def test_tolerance_ends_a_scale_that_has_stalled(network):
    settings = StyleSettings(max_side=32, coarsest_side=32, evaluations=(400,), tolerance=0.2)
    assert paint(network, settings).evaluations < 400


def test_a_callback_that_raises_ends_the_run(network):
    def stop(step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        paint(network, on_step=stop)


def test_a_loss_that_is_no_number_is_an_error(network):
    broken = picture()
    broken[3, 3] = np.nan
    with pytest.raises(RenderError, match="not a finite number"):
        stylize(broken, [Style(noise())], SMALL, network)


def test_colour_photo_keeps_the_photo_s_hues(network):
    photo = np.zeros((48, 48, 3), np.float32)
    photo[..., 0] = np.linspace(60, 220, 48)[None]
    settings = StyleSettings(max_side=48, coarsest_side=48, evaluations=(8,), colour="photo")
    painted = stylize(photo, [Style(noise())], settings, network).rgb
    assert painted[..., 0].mean() > 3 * painted[..., 2].mean()


@pytest.mark.parametrize("size", [(1, 1), (17, 3), (16, 400)])
def test_odd_and_tiny_sizes_work(network, size):
    photo = noise(5, *size)
    settings = StyleSettings(max_side=64, coarsest_side=32, evaluations=(2,))
    painting = stylize(photo, [Style(noise())], settings, network)
    assert max(painting.rgb.shape[:2]) == min(64, max(size))


def test_two_styles_with_masks_paint_two_halves():
    left = np.zeros((8, 8), np.float32)
    left[:, :4] = 1.0
    settings = StyleSettings(max_side=64, coarsest_side=64, evaluations=(30,), content_weight=0.01)
    photo = 90 + 0.3 * noise(9, 64, 64)
    rough, smooth = noise(7, 64, 64), np.full((64, 64, 3), 128, np.float32)
    styles = [Style(rough, mask=left), Style(smooth, mask=1 - left)]
    painted = stylize(photo, styles, settings, load_builtin()).rgb
    assert painted[:, :24].std() > 1.5 * painted[:, 40:].std()


def test_what_no_mask_covers_stays_the_photo(network):
    """A person who is to stay as they are should not be softened, either."""
    left, ramp = np.zeros((1, 8), np.float32), np.linspace(0, 1, 8, dtype=np.float32)[np.newaxis]
    left[:, :4] = 1.0
    photo = picture(seed=4, height=96, width=128)
    settings = StyleSettings(max_side=64, coarsest_side=32, evaluations=(3,))
    painted = stylize(photo, [Style(noise(), mask=left)], settings, network).rgb
    small = resize(photo, 64, 48)
    np.testing.assert_array_equal(painted[:, 48:], small[:, 48:])
    assert np.abs(painted[:, :24] - small[:, :24]).mean() > 1
    for styles in [Style(noise(), mask=ramp), Style(noise(), mask=1 - ramp)], [Style(noise())]:
        bare = transfer._bare(styles, Scale(1, 64, 48, 1))
        assert bare is None or bare.max() < 1e-6
    mixed = [Style(noise(number), mask=ramp) for number in range(3)]
    alone, together = (transfer._bare(each, Scale(1, 64, 48, 1)) for each in (mixed[:1], mixed))
    np.testing.assert_array_equal(together, alone)  # a soft edge stays as it was drawn


def test_styles_with_the_same_mask_are_mixed(network):
    """As without masks: each would pull with all its strength, otherwise."""
    half = np.zeros((4, 4), np.float32)
    half[:, :2] = 1.0
    styles = [Style(noise(number), 1.0 + number, mask=half) for number in range(2)]
    [region] = transfer._regions(styles, Scale(1, 48, 32, 1), SMALL, lambda array: array)
    assert [weight for _, weight in region.styles] == [1.0, 2.0]
    assert region.share == 1.0


@pytest.mark.parametrize("colour", ["style", "photo", "match"])
def test_a_large_photo_is_made_small_just_once(network, monkeypatch, colour):
    """One of 24 megapixels takes almost half a second each time."""
    asked = []

    def noted(rgb, width, height):
        asked.append(rgb.shape[:2])
        return resize(rgb, width, height)

    for module in transfer, subject:
        monkeypatch.setattr(module, "resize", noted)
    settings = StyleSettings(max_side=56, coarsest_side=28, evaluations=(2,), colour=colour)
    stylize(picture(height=400, width=300), [Style(noise(1, 500, 600))], settings, network)
    assert (asked.count((400, 300)), asked.count((500, 600))) == (1, 1)


def test_what_no_mask_covers_is_painted_in_the_styles_that_have_none():
    half = np.zeros((4, 4), np.float32)
    half[:, :2] = 1.0
    free = [Style(noise(2), 1.0), Style(noise(3), 2.0)]

    def regions(mask):
        styles = [Style(noise(1), 3.0, mask=mask), *free]
        return transfer._regions(styles, Scale(1, 48, 32, 1), SMALL, lambda array: array)

    here, there = regions(half)
    np.testing.assert_allclose(here.mask + there.mask, 1.0, atol=1e-6)
    assert here.mask[:, :16].min() > 0.9 > 0.1 > here.mask[:, 32:].max()
    assert [weight for _, weight in there.styles] == [1.0, 2.0]
    assert (here.share, there.share) == pytest.approx((3.0 / 2.25, 1.5 / 2.25))
    for even in np.zeros((4, 4), np.float32), np.ones((4, 4), np.float32):
        [everywhere] = regions(even)
        assert everywhere.share == 1.0  # beside a style that is nowhere


def test_a_picture_does_not_depend_on_what_was_painted_before():
    def painted(*pictures):
        transfer._open_objective.cache_clear()
        network = small_network()
        return [stylize(each, [Style(noise())], SMALL, network).rgb for each in pictures][-1]

    first, other = picture(), picture(seed=3, height=64, width=48)
    np.testing.assert_array_equal(painted(first), painted(other, first))


def test_a_style_with_a_mask_weighs_beside_the_others_what_its_weight_says(network):
    half = np.zeros((4, 4), np.float32)
    half[:, :2] = 1.0

    def painted(here, there):
        styles = [Style(noise(1), here, mask=half), Style(noise(2), there, mask=1 - half)]
        return stylize(picture(), styles, SMALL, network).rgb

    np.testing.assert_array_equal(painted(1.0, 1.0), painted(3.0, 3.0))
    assert np.abs(painted(1.0, 1.0) - painted(3.0, 1.0)).max() > 1


def test_the_time_left_goes_by_what_was_evaluated_and_not_by_what_was_skipped(network):
    """One pixel takes one second; the first stage stalls and is left early."""
    settings = StyleSettings(max_side=56, coarsest_side=28, evaluations=(400, 10), tolerance=0.99)
    seconds, steps, stages = [0.0], [], []

    def on_step(step):
        steps.append(step)
        seconds[0] += step.width * step.height

    paint(network, settings, on_step=on_step, clock=lambda: seconds[0])
    first = next(step for step in steps if step.scale == 2)
    stages = [step for step in steps if step.scale == 1]
    assert len(stages) < 400
    left = 9 * first.width * first.height  # told before the clock has counted its own evaluation
    assert first.eta_seconds == pytest.approx(left, rel=0.35)


def told_of(scales, seconds_of, settings=None, resume=None):
    """The steps of a run whose evaluations take `seconds_of(scale, number)`."""
    now, steps = [0.0], []
    clock, losses = (lambda: now[0]), itertools.count()
    settings = settings or StyleSettings()
    progress = Progress(scales, settings, "", steps.append, None, clock, resume)
    for scale in scales[resume.scale - 1 if resume else 0 :]:
        progress.begin(scale, 10)
        for number in range(progress.evaluation + 1, scale.evaluations + 1):
            now[0] += seconds_of(scale.number, number)
            loss = 0.9 ** next(losses)
            progress.step(Iterate(loss, loss, None), lambda: None)
    return {(step.scale, step.evaluation): step for step in steps}


def test_the_time_left_goes_by_evaluations_that_compile_nothing():
    """With what the first ones of each stage take, a minute looked like a quarter of an hour."""
    scales = [Scale(1, 8, 8, 100), Scale(2, 16, 16, 10)]
    steps = told_of(scales, lambda scale, number: 30.0 if number <= 3 else 4.0 ** (scale - 1))
    left = {key: step.left for key, step in steps.items()}
    assert left[1, 3] is None
    assert [left[1, 4], left[1, 100], left[2, 1], left[2, 9]] == [136.0, 40.0, 36.0, 4.0]
    assert left[2, 10] == 0.0
    resume = Checkpoint(2, 2, np.zeros((16, 16, 3), np.float32))
    resumed = told_of(scales, lambda *_: 4.0, resume=resume)
    assert [resumed[2, number].left for number in (3, 5, 6)] == [None, None, 16.0]


def test_the_time_left_is_no_longer_than_the_time_budget():
    settings = StyleSettings(time_budget=50.0)
    steps = told_of([Scale(1, 8, 8, 60)], lambda *_: 1.0, settings)
    told = [(steps[1, number].left, steps[1, number].fraction) for number in (10, 40, 60)]
    assert told == [(40.0, 0.2), (10.0, 0.8), (0.0, 1.0)]


def test_a_history_of_one_pair_is_one_pair():
    scale, settings = Scale(1, 100, 100, 1), StyleSettings(history=1)
    assert transfer._for_lbfgs(scale, settings, 1 << 30, on_host=True)[0] == 1
    assert transfer._for_lbfgs(scale, StyleSettings(history=50), 1, on_host=False)[0] == 2


@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from(["balanced", "classic"]))
def test_what_is_painted_around_a_picture_is_cut_off_again(height, width, objective):
    frame = transfer._Frame(Scale(1, width, height, 1), StyleSettings(objective=objective))
    rgb = np.random.default_rng(0).uniform(0, 255, (height, width, 3))
    framed = frame.add(rgb)
    np.testing.assert_array_equal(frame.remove(framed), rgb)
    if objective == "classic":
        assert framed.shape == (max(16, height), max(16, width), 3)
        return
    for before, after in zip(rgb.shape[:2], framed.shape[:2], strict=True):
        assert after % STRIDE == 0
        assert before + 2 * transfer.FRAME <= after < before + 2 * transfer.FRAME + STRIDE


def test_a_stage_begins_with_some_of_the_detail_that_the_one_before_could_not_hold():
    photo = noise(1, 32, 48)
    before = np.full((16, 24, 3), 100.0, np.float32)
    seen = resize(resize(photo, 24, 16), 48, 32)
    start = transfer._start(before, photo, StyleSettings())
    assert np.allclose(start, 100.0 + transfer.DETAIL * (photo - seen), atol=1e-3)
    assert np.all(before == 100.0)
    plain = transfer._start(before, photo, StyleSettings(init="noise"))  # it is to stay free of it
    assert np.allclose(plain, 100.0, atol=1e-3)
    assert transfer._start(photo, photo, StyleSettings()) is photo  # gone on with after a kill
