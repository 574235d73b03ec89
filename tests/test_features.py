"""Feature networks: VGG19's shapes, exactness against Keras's own model, and bad weights."""

import gc

import keras
import numpy as np
import pytest
from keras import ops
from small_network import noise, small_network

from stylewatch.domain import VGG19_LAYERS
from stylewatch.engine import features
from stylewatch.errors import DeviceError, WeightsError


def picture(height=48, width=32):
    return noise(0, height, width)


def test_preprocessing_is_keras_s_own_and_leaves_its_argument_alone():
    rgb = picture()
    kept = rgb.copy()
    expected = keras.applications.vgg19.preprocess_input(rgb.copy()[np.newaxis])
    np.testing.assert_allclose(features.preprocess(rgb), expected, atol=1e-4)
    np.testing.assert_array_equal(rgb, kept)


def test_deprocessing_undoes_preprocessing():
    rgb = picture()
    np.testing.assert_allclose(features.deprocess(features.preprocess(rgb)), rgb, atol=1e-4)


def test_layers_have_vgg19_s_strides_and_only_what_is_asked_for(network):
    extract = network.extractor(["block1_conv1", "block3_conv1", "block5_conv2"])
    taps = extract(ops.convert_to_tensor(features.preprocess(picture())))
    assert {name: tuple(tap.shape[1:3]) for name, tap in taps.items()} == {
        "block1_conv1": (48, 32),
        "block3_conv1": (12, 8),
        "block5_conv2": (3, 2),
    }


def test_features_equal_those_of_the_keras_model():
    model = keras.applications.VGG19(include_top=False, weights=None)
    convolutions = tuple(
        features.Convolution(name, (kernel,), bias)
        for name in VGG19_LAYERS
        for kernel, bias in [model.get_layer(name).get_weights()]
    )
    network = features.FeatureNetwork("VGG19", "", convolutions)
    layers = ["block1_conv1", "block4_conv2", "block5_conv2"]
    image = features.preprocess(picture(32, 32))
    ours = network.extractor(layers)(ops.convert_to_tensor(image))
    theirs = keras.Model(model.input, [model.get_layer(name).output for name in layers])(image)
    for name, expected in zip(layers, theirs, strict=True):
        np.testing.assert_allclose(
            np.asarray(ours[name]), np.asarray(expected), rtol=1e-3, atol=1e-4
        )


def test_all_who_ask_for_features_share_one_copy_of_the_weights(monkeypatch):
    """Each size of tiles has an objective of its own: VGG19 would take 0.4 GB more for each."""
    made = []
    convolution = features.convolution
    monkeypatch.setattr(
        features, "convolution", lambda *kernel: made.append(kernel) or convolution(*kernel)
    )
    network = small_network()
    network.extractor(["block2_conv2"])
    network.extractor(["block2_conv1", "block3_conv1"], pooling="average")
    assert len(made) == 5
    network.extractor(["block1_conv1"], precision="bfloat16")
    assert len(made) == 6


def test_bfloat16_sees_less_than_half_a_grey_level(network):
    """100 and 100.2 are the same number in bfloat16."""
    extract = network.extractor(["block1_conv1"], precision="bfloat16")
    here, there = (
        np.asarray(ops.cast(extract(ops.full((1, 16, 16, 3), level))["block1_conv1"], "float32"))
        for level in (100.0, 100.2)
    )
    assert (here != there).any()


def test_an_image_in_two_pieces_is_the_image():
    image = np.linspace(-124, 152, 6000, dtype=np.float32).reshape(1, 20, 100, 3)
    pieces = np.asarray(
        ops.cast(features._in_two(ops.convert_to_tensor(image), "bfloat16"), "float32")
    )
    assert np.abs(pieces[..., :3] + pieces[..., 3:] - image).max() <= 2**-10


def test_a_missing_weights_file_is_one_clear_line(tmp_path):
    with pytest.raises(WeightsError) as caught:
        features.load_vgg19(str(tmp_path / "nowhere.h5"))
    assert str(caught.value).startswith(f"There is no weights file {tmp_path}/nowhere.h5. ")
    assert "\n" not in str(caught.value)


def test_weights_that_were_not_downloaded_have_a_reason_of_their_own(monkeypatch):
    """When they are there, what failed of it is tried again."""

    def without_network(**_):
        raise Exception("URL fetch failure on https://example.org: None")  # as Keras does

    monkeypatch.setattr(keras.applications, "VGG19", without_network)
    with pytest.raises(WeightsError, match=r"could not be downloaded.* URL fetch") as caught:
        features.load_vgg19()
    assert caught.value.reason == WeightsError.not_downloaded


def test_a_network_with_certificates_of_its_own_is_told_of_with_what_takes_them(monkeypatch):
    """`weights fetch` told to run itself where there is a network."""

    def behind_a_proxy(**_):
        raise Exception("URL fetch failure: None -- [SSL: CERTIFICATE_VERIFY_FAILED] unable to")

    monkeypatch.setattr(keras.applications, "VGG19", behind_a_proxy)
    with pytest.raises(WeightsError) as caught:
        features.load_vgg19()
    assert "SSL_CERT_FILE" in caught.value.remedy
    assert "weights fetch" not in caught.value.remedy


@pytest.mark.parametrize("weights", ["imagenet", "own.h5"])
@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("cudaSetDevice() on GPU:0 failed: out of memory")]
)
def test_a_gpu_that_is_full_is_not_told_of_as_weights_that_are_missing(monkeypatch, weights, error):
    """The built-in features would paint instead, or all photos wait for another file."""

    def on_a_full_gpu(**_):
        raise error

    monkeypatch.setattr(keras.applications, "VGG19", on_a_full_gpu)
    with pytest.raises(DeviceError, match=r"No memory is left for VGG19.* Close other programs"):
        features.load_vgg19(weights)


@pytest.mark.parametrize("progress", [True, False])
def test_a_download_shows_how_far_it_is_where_that_is_asked(monkeypatch, capsys, progress):
    def download(**_):
        keras.utils.Progbar(80).update(40)
        raise OSError("no network")

    monkeypatch.setattr(keras.applications, "VGG19", download)
    with pytest.raises(WeightsError):
        features.load_vgg19(progress=progress)
    assert ("40/80" in capsys.readouterr().out) is progress


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "other.weights.h5"
    path.write_bytes(b"not an HDF5 file")
    with pytest.raises(WeightsError, match="VGG19's weights without the top"):
        features.load_vgg19(str(path))


def test_keras_s_own_network_is_let_go_of(tmp_path):
    """A try without a network, each five minutes, built one; and one stayed beside ours."""

    def layers():
        return sum(isinstance(each, keras.layers.Conv2D) for each in gc.get_objects())

    path = tmp_path / "damaged.h5"
    path.write_bytes(b"not an HDF5 file")
    before = layers()
    with pytest.raises(WeightsError):
        features.load_vgg19(str(path))
    assert layers() == before


def test_average_pooling_differs_from_max_pooling(network):
    image = ops.convert_to_tensor(features.preprocess(picture()))
    by_max, by_mean = (
        np.asarray(network.extractor(["block2_conv1"], pooling=pooling)(image)["block2_conv1"])
        for pooling in ("max", "average")
    )
    assert by_max.mean() > by_mean.mean()


@pytest.mark.assets
def test_real_weights_load(vgg19_file):
    network = features.load_vgg19(str(vgg19_file))
    assert len(network.convolutions) == 16
    assert network.convolutions[0].kernels[0].shape == (3, 3, 3, 64)
