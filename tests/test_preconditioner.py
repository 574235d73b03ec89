"""The preconditioner against its formula in float64, and as the inverse Hessian that it stands for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from scipy.fft import dctn, idctn
from scipy.linalg import sqrtm

from stylewatch.engine.preconditioner import ImagePreconditioner

shapes = st.tuples(st.just(1), st.integers(1, 40), st.integers(1, 40), st.integers(1, 4))
SHAPE = (1, 64, 48, 3)


def noise(shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def random_pairs(shape, seed, count=12):
    """Steps, and changes that are larger to the right and in the first channel."""
    steps, changes = (noise((count, *shape), seed + n) for n in (0, 1000))
    changes *= np.linspace(1, 4, shape[2])[:, None] * np.geomspace(1, 3, shape[3])[::-1]
    return list(zip(steps, steps + changes, strict=True))


def learnt(shape, pairs, placed=lambda array: array):
    """After enough steps to have learnt from these pairs, once."""
    preconditioner = ImagePreconditioner(placed(np.zeros(shape, np.float32)))
    placed_pairs = [(placed(s), placed(y)) for s, y in pairs]
    while not preconditioner.learn(placed_pairs):
        pass
    return preconditioner


def cosines(image):
    return dctn(image[0].astype(np.float64), axes=(0, 1), norm="ortho")


def picture(waves):
    return idctn(waves, axes=(0, 1), norm="ortho")[None]


def frequencies(shape):
    """Of each wave, in waves per pixel, and whether it is told apart."""
    _, height, width, _ = shape
    down, across = np.arange(height)[:, None], np.arange(width)
    coarse = (8 * down < height) & (8 * across < width)
    return np.hypot(down / (2 * height), across / (2 * width)), coarse


def reference(shape, pairs=()):
    """As the module's words have it: v ↦ P v, by SciPy's cosine transform, in float64."""
    frequency, coarse = frequencies(shape)
    passed = coarse / (1 + (frequency / 0.03) ** 2)
    fine, bands, place = np.eye(shape[-1]), 10 * passed[..., None, None] * np.eye(shape[-1]), 1.0
    if pairs:
        near = coarse * np.exp(-2 * (np.pi * 9 * frequency) ** 2)
        octave = np.clip(np.log2(np.maximum(frequency, 1e-9) * 128), 0, 3)
        shares = np.stack([coarse * np.maximum(0, 1 - np.abs(octave - band)) for band in range(4)])

        def about(images):
            squares = sum(
                np.sum(np.square(v, dtype=np.float64), -1) / np.sum(v * v) for v in images
            )
            seen = picture(near[..., None] * cosines(squares[..., None]))
            return np.maximum(seen, 0.1 * np.mean(seen))

        def covariances(images):
            found = 0
            for image in images:
                waves = cosines(image)
                products = waves[..., :, None] * waves[..., None, :]
                each = [np.sum(share[..., None, None] * products, (0, 1)) for share in shares]
                each.append(np.sum(products[~coarse], 0))
                found += np.array(each) / np.trace(np.sum(each, 0))
            traces = np.trace(found, axis1=1, axis2=2)
            least = 1e-3 * traces / shape[-1] + 1e-12
            least[-1] += 3e-4 * np.sum(traces)
            return found + least[:, None, None] * np.eye(shape[-1])

        newest = pairs[-10:]
        steps, changes = ([pair[n] for pair in newest] for n in (0, 1))
        place = (about(steps) / about(changes)) ** 0.25
        mixtures = []
        of_steps, of_changes = (
            covariances(s / place for s in steps),
            covariances(y * place for y in changes),
        )
        for s, y in zip(of_steps, of_changes, strict=True):
            root = sqrtm(y)
            inverse = np.linalg.inv(root)
            mixtures.append(inverse @ sqrtm(root @ s @ root) @ inverse)
        fine = mixtures[-1]
        bands = np.tensordot(shares, np.array(mixtures[:-1]) - fine, (0, 0))

    def times(image):
        waves = cosines(place * image)
        mixed = waves @ fine + np.einsum("hwij,hwj->hwi", bands, waves)
        return place * picture(mixed)

    return times


@settings(max_examples=15)
@given(shape=shapes, seed=st.integers(0, 99))
def test_at_first_it_adds_what_is_coarse_to_all_of_an_image(shape, seed):
    image = noise(shape, seed)
    before = image.copy()
    expected = pytest.approx(reference(shape)(image), abs=1e-4)
    assert ImagePreconditioner(image)(image) == expected
    tensor = ops.convert_to_tensor(image)
    assert np.asarray(ImagePreconditioner(tensor)(tensor)) == expected
    assert np.array_equal(image, before)


@settings(max_examples=15)
@given(shape=shapes, seed=st.integers(0, 99))
def test_what_it_learns_is_as_its_formula_says(shape, seed):
    image, pairs = noise(shape, seed), random_pairs(shape, seed)
    expected = pytest.approx(reference(shape, pairs)(image), rel=1e-3, abs=1e-3)
    assert learnt(shape, pairs)(image) == expected
    on_device = learnt(shape, pairs, ops.convert_to_tensor)(ops.convert_to_tensor(image))
    assert np.asarray(on_device) == expected


@settings(max_examples=15)
@given(shape=shapes, seed=st.integers(0, 99))
def test_it_is_symmetric_and_makes_no_vector_turn_back(shape, seed):
    a, b = noise((2, *shape), seed)
    first, later = ImagePreconditioner(a), learnt(shape, random_pairs(shape, seed))
    for matrix in (first, later):
        assert np.sum(a * matrix(b)) == pytest.approx(np.sum(b * matrix(a)), rel=1e-3, abs=1e-2)
    assert np.sum(a * first(a)) >= 0.999 * np.sum(a * a)
    assert np.sum(a * later(a)) > 0


def test_at_first_what_is_the_same_everywhere_counts_eleven_times_and_grain_once():
    flat = np.full(SHAPE, 2.0, np.float32)
    grain = np.indices(SHAPE[1:3]).sum(axis=0)[None, :, :, None] % 2 * np.float32(2) - np.float32(1)
    grain = np.repeat(grain, 3, axis=3)
    matrix = ImagePreconditioner(flat)
    assert matrix(flat) == pytest.approx(11 * flat, rel=1e-4)
    assert matrix(grain) == pytest.approx(grain, abs=0.06)


def alike(a, b):
    return np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b)


def by_place(image):
    """Curved four times as much in one half as in the other."""
    return image * np.where(np.arange(SHAPE[2]) < SHAPE[2] // 2, 2, 0.5)[:, None]


def by_colour(image):
    return image @ np.array([[2, 1, 0.5], [1, 3, 0.2], [0.5, 0.2, 0.6]])


def by_wave(image):
    """What is coarse is curved 100 times less."""
    frequency, coarse = frequencies(SHAPE)
    return picture((1 - 0.99 * coarse / (1 + (frequency / 0.02) ** 2))[..., None] * cosines(image))


@pytest.mark.parametrize("hessian", [by_place, by_colour, by_wave])
def test_it_learns_the_inverse_of_a_hessian_of_places_or_colours_or_waves(hessian):
    steps = noise((10, *SHAPE), 3)
    if hessian is by_wave:  # as L-BFGS goes: farther where it is flat
        steps = np.float32(
            [picture(cosines(s) / np.sqrt(0.01 + frequencies(SHAPE)[0][..., None])) for s in steps]
        )
    pairs = [(s, hessian(s).astype(np.float32)) for s in steps]
    matrix = learnt(SHAPE, pairs)
    unseen = noise(SHAPE, 4)
    change = hessian(unseen).astype(np.float32)
    assert alike(matrix(change), unseen) > 0.95
    assert alike(matrix(change), unseen) > alike(ImagePreconditioner(change)(change), unseen) + 0.01


def test_beside_a_place_where_a_loss_is_strongly_curved_steps_are_as_long_as_far_from_it():
    """A filter that rings would see next to no curvature there, and values would leap to white."""
    shape, spot = (1, 96, 128, 3), np.s_[:, 44:52, 30:38]
    steps = noise((10, *shape), 5)
    changes = steps.copy()
    changes[:, *spot] *= 30
    matrix = learnt(shape, list(zip(steps, changes, strict=True)))

    def by_itself(column):
        one = np.zeros(shape, np.float32)
        one[0, 48, column, 1] = 1
        return matrix(one)[0, 48, column, 1]

    far = by_itself(100)
    assert by_itself(34) < 0.5 * far
    assert max(by_itself(column) for column in range(128)) < 1.1 * far


def test_it_learns_less_and_less_often():
    preconditioner = ImagePreconditioner(np.zeros(SHAPE, np.float32))
    pairs = random_pairs(SHAPE, 0)
    assert [n for n in range(1, 65) if preconditioner.learn(pairs)] == [8, 12, 18, 27, 41, 62]


def test_it_learns_nothing_where_no_pair_is_remembered():
    image = noise(SHAPE, 6)
    preconditioner = ImagePreconditioner(image)
    assert not any(preconditioner.learn([]) for _ in range(20))
    assert np.array_equal(preconditioner(image), ImagePreconditioner(image)(image))


@pytest.mark.parametrize("power", [-40, 0, 40])
def test_the_unit_of_the_loss_makes_no_difference_to_what_it_learns(power):
    pairs = [(s, y * np.float32(2.0**power)) for s, y in random_pairs(SHAPE, 0)]
    image = noise(SHAPE, 7)
    expected = learnt(SHAPE, random_pairs(SHAPE, 0))(image)
    assert learnt(SHAPE, pairs)(image) == pytest.approx(expected, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("left", ["half", "one colour", "one pixel", "grey", "one value"])
def test_steps_that_changed_only_some_of_the_image_teach_no_nonsense(left):
    changed = np.zeros(SHAPE, np.float32)
    match left:
        case "half":
            changed[:, :, :24] = 1
        case "one colour":
            changed[..., 1] = 1
        case "one pixel":
            changed[0, 20, 20] = 1
        case "grey":
            changed[:] = noise((*SHAPE[:3], 1), 1)
        case "one value":
            changed[:] = 3
    factors = noise((3, 1, 1, 1, 1), 2)
    matrix = learnt(SHAPE, [(s, y) for s in changed * factors for y in (s, 2 * s)])
    image = noise(SHAPE, 5)
    assert np.isfinite(matrix(image)).all()
    assert np.sum(image * matrix(image)) > 0
