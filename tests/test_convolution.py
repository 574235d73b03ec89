"""Fewer multiplications, the same convolution: its values, its gradient, and where it is used."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from stylewatch.engine import backend, convolution
from stylewatch.engine.convolution import GRADIENTS, VALUES, fewer_products, transforms

ALGORITHMS = {*VALUES.values(), *GRADIENTS.values()}
by_outputs = pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda each: each.outputs)


def random(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def plain(kernel):
    return lambda x: ops.conv(x, ops.convert_to_tensor(kernel), padding="same")


def value_and_gradient(convolve, x, slope):
    """The convolution of x, and the gradient of its product with `slope`."""

    def objective(x, slope):
        y = convolve(x)
        return ops.sum(ops.cast(y, "float32") * slope), y

    arguments = ops.convert_to_tensor(x), ops.convert_to_tensor(slope)
    _, y, gradient = backend.value_and_gradient(objective)(*arguments)
    return backend.to_numpy(y), backend.to_numpy(gradient)


def error(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


@by_outputs
def test_the_transforms_are_a_correlation(algorithm):
    b, g, a = transforms(algorithm.points)
    inputs, weights = random(0, len(b)), random(1, 3)
    expected = np.correlate(inputs, weights, mode="valid")
    np.testing.assert_allclose(a @ ((g @ weights) * (b @ inputs)), expected, rtol=1e-5)


@by_outputs
@given(st.integers(1, 23), st.integers(1, 23), st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=25)
def test_it_is_the_plain_convolution_at_every_size(algorithm, height, width, channels, filters):
    kernel, x = random(0, 3, 3, channels, filters), random(1, 1, height, width, channels)
    ours = backend.to_numpy(fewer_products(kernel, "float32", algorithm)(ops.convert_to_tensor(x)))
    theirs = backend.to_numpy(plain(kernel)(ops.convert_to_tensor(x)))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("width", [3, 100], ids=["plain", "by fewer products"])
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 5]))
@settings(max_examples=12)
def test_its_gradient_is_the_plain_ones(width, rows, columns, side):
    kernel = random(0, side, side, width, width + 1) / width
    x, slope = random(1, 1, rows, columns, width), random(2, 1, rows, columns, width + 1)
    ours = value_and_gradient(convolution.convolution(kernel, "float32"), x, slope)
    for mine, expected in zip(ours, value_and_gradient(plain(kernel), x, slope), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("precision", "most"), [("float32", (2e-6, 2e-6)), ("bfloat16", (0.006, 0.02))]
)
def test_as_wide_as_it_is_used_its_rounding_is_small(precision, most, monkeypatch):
    """As a share of all values: bfloat16 itself has a step of 0.008."""
    if precision == "bfloat16" and not backend.device().fast_bfloat16:
        most = (0.012, 0.02)  # where no hardware multiplies it, sums are rounded, too
    monkeypatch.setattr(backend, "waits_for_products", lambda _: True)
    width = 2 * int(VALUES[precision].worthwhile)
    kernel = random(0, 3, 3, width, width) / (3 * width**0.5)
    x, slope = random(1, 1, 20, 28, width), random(2, 1, 20, 28, width)
    ours = convolution.convolution(kernel, precision)
    results = value_and_gradient(lambda x: ours(ops.cast(x, precision)), x, slope)
    theirs = value_and_gradient(plain(kernel), x, slope)
    for mine, expected, limit in zip(results, theirs, most, strict=True):
        assert error(mine, expected) < limit


def test_only_wide_3_by_3_kernels_are_worth_it(monkeypatch):
    built = []

    def noted(kernel, precision, algorithm):
        built.append((kernel.shape[2:], algorithm.outputs))
        return ops.identity

    monkeypatch.setattr(convolution, "fewer_products", noted)
    monkeypatch.setattr(backend, "waits_for_products", lambda precision: True)
    for shape in [(3, 3, 64, 64), (3, 3, 256, 32), (3, 3, 32, 256), (1, 1, 256, 256)]:
        convolution.convolution(random(0, *shape), "float32")
    convolution.convolution(random(0, 3, 3, 64, 128), "bfloat16")
    assert built == []
    convolution.convolution(random(0, 3, 3, 64, 128), "float32")
    convolution.convolution(random(0, 3, 3, 128, 128), "bfloat16")
    convolution.convolution(random(0, 3, 3, 256, 512), "bfloat16")
    assert built == [
        ((64, 128), 4), ((128, 64), 4), ((128, 128), 4), ((256, 512), 2), ((512, 256), 4)
    ]  # fmt: skip


def test_where_products_cost_little_there_are_plain_convolutions_alone(monkeypatch):
    monkeypatch.setattr(backend, "waits_for_products", lambda precision: precision == "float32")
    monkeypatch.setattr(convolution, "fewer_products", None)
    convolution.convolution(random(0, 3, 3, 256, 256), "bfloat16")
    assert convolution.outputs_at_once("float32") == 4
    assert convolution.outputs_at_once("bfloat16") == 1


@pytest.mark.parametrize(
    ("keras_backend", "gpu", "flags", "expected"),
    [
        ("tensorflow", "", {"avx2"}, (True, True)),
        ("tensorflow", "", {"avx512_bf16", "amx_bf16"}, (True, False)),
        ("tensorflow", "a GPU", {"avx512_bf16"}, (False, False)),
        ("jax", "", {"avx2"}, (False, False)),
    ],
)
def test_it_pays_where_products_are_what_takes_the_time(
    keras_backend, gpu, flags, expected, monkeypatch
):
    monkeypatch.setattr(backend.keras.backend, "backend", lambda: keras_backend)
    monkeypatch.setattr(backend, "_gpu", lambda: (gpu, None))
    monkeypatch.setattr(backend, "cpu_flags", lambda: flags)
    assert tuple(map(backend.waits_for_products, ("float32", "bfloat16"))) == expected
