"""Fewer multiplications, the same convolution: its values, its gradient, and where it is used."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from stylewatch.engine import backend, convolution
from stylewatch.engine.convolution import POINTS, WORTHWHILE, both_ways, transforms, winograd


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


@pytest.mark.parametrize("points", POINTS.values(), ids=POINTS)
def test_the_transforms_are_a_correlation(points):
    b, g, a = transforms(points)
    inputs, weights = random(0, len(b)), random(1, 3)
    expected = np.correlate(inputs, weights, mode="valid")
    np.testing.assert_allclose(a @ ((g @ weights) * (b @ inputs)), expected, rtol=1e-5)


@given(
    st.integers(1, 23),
    st.integers(1, 23),
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from(sorted(POINTS)),
)
@settings(max_examples=25)
def test_it_is_the_plain_convolution_at_every_size(height, width, channels, filters, points):
    kernel = random(0, 3, 3, channels, filters)
    x, slope = random(1, 1, height, width, channels), random(2, 1, height, width, filters)
    ours = value_and_gradient(winograd(kernel, "float32", POINTS[points]), x, slope)
    theirs = value_and_gradient(plain(kernel), x, slope)
    for mine, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-4)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.sampled_from([1, 3, 5]))
@settings(max_examples=25)
def test_both_ways_it_is_the_plain_convolution(height, width, channels, side):
    kernel = random(0, side, side, channels, 4)
    x, slope = random(1, 1, height, width, channels), random(2, 1, height, width, 4)
    ours = value_and_gradient(both_ways(kernel, "float32"), x, slope)
    theirs = value_and_gradient(plain(kernel), x, slope)
    for mine, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-5), ("bfloat16", 1e-2)])
def test_as_wide_as_it_is_used_its_rounding_is_small(precision, most):
    """As a share of all values: bfloat16 itself has a step of 0.008."""
    width = 2 * int(WORTHWHILE[precision])
    kernel = random(0, 3, 3, width, width) / (3 * width**0.5)
    x, slope = random(1, 1, 20, 28, width), random(2, 1, 20, 28, width)
    ours = winograd(kernel, precision, POINTS[precision])
    results = value_and_gradient(lambda x: ours(ops.cast(x, precision)), x, slope)
    for mine, expected in zip(results, value_and_gradient(plain(kernel), x, slope), strict=True):
        assert error(mine, expected) < most


def test_only_wide_3_by_3_kernels_are_worth_it(monkeypatch):
    built = []
    monkeypatch.setattr(convolution, "winograd", lambda *arguments: built.append(arguments))
    monkeypatch.setattr(backend, "waits_for_products", lambda precision: precision == "float32")
    for shape in [(3, 3, 64, 64), (3, 3, 256, 32), (3, 3, 32, 256), (1, 1, 256, 256)]:
        convolution.convolution(random(0, *shape), "float32")
    convolution.convolution(random(0, 3, 3, 256, 256), "bfloat16")
    assert built == []
    for shape in [(3, 3, 64, 128), (3, 3, 512, 64)]:
        convolution.convolution(random(0, *shape), "float32")
    assert len(built) == 2
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
    monkeypatch.setattr(backend, "_gpu_name", lambda _: gpu)
    monkeypatch.setattr(backend, "_cpu_flags", lambda: flags)
    assert tuple(map(backend.waits_for_products, ("float32", "bfloat16"))) == expected
