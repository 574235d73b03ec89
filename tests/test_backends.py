"""The core on Keras's other backends (PyTorch where it is installed): the same as TensorFlow's."""

import functools
import importlib.util
import json
import os
import platform
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from stylewatch.domain import EngineSettings
from stylewatch.engine import backend, machine
from stylewatch.errors import ExitCode
from stylewatch.jobs import child
from stylewatch.jobs.child import set_environment

SCRIPT = """
import json
import keras
import numpy as np
from stylewatch.domain import StyleSettings
from stylewatch.engine import backend
from small_network import small_network
from stylewatch.engine.transfer import Style, stylize
if as_on_a_gpu:
    backend.has_gpu = lambda: True
    if keras.backend.backend() == "torch":  # what lies on a GPU can't be mixed with arrays
        import torch
        keras.ops.convert_to_numpy = lambda tensor: tensor.detach().numpy()
        del torch.Tensor.__array__
rng = np.random.default_rng(0)
photo, style = (rng.uniform(0, 255, (40, 56, 3)).astype(np.float32) for _ in range(2))
settings = StyleSettings(max_side=48, coarsest_side=24, evaluations=(14, 11), precision="float32")
losses = []
result = stylize(photo, [Style(style)], settings, small_network(), lambda s: losses.append(s.loss))
print(json.dumps([losses, float(result.rgb.mean())]))
"""


def last_line_of(script, **environment):
    """What a program says in the end."""
    env = {**os.environ, "PYTHONPATH": os.path.dirname(__file__), **environment}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1]


def run_on(backend, script):
    return json.loads(last_line_of(script, KERAS_BACKEND=backend))


@functools.cache
def painted_on(name, gpu=False):
    return run_on(name, f"as_on_a_gpu = {gpu}\n{SCRIPT}")


@pytest.mark.parametrize(
    ("backend", "gpu"),
    [("tensorflow", True), ("jax", False), ("jax", True), ("torch", False), ("torch", True)],
)
def test_another_backend_paints_the_same_and_so_does_the_way_that_a_gpu_takes(backend, gpu):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    (ours, mean), (theirs, their_mean) = painted_on("tensorflow"), painted_on(backend, gpu)
    assert len(ours) == len(theirs) == 25
    assert theirs[0] == pytest.approx(ours[0], rel=1e-3)
    assert theirs[-1] == pytest.approx(ours[-1], rel=0.05)
    assert their_mean == pytest.approx(mean, rel=0.02)


def test_on_jax_a_network_is_no_part_of_each_size_s_program():
    """In VGG19's case 0.4 GB would be kept for each size of photo, and it would take long."""
    pytest.importorskip("jax")
    environ = {
        "JAX_CAPTURED_CONSTANTS_WARN_BYTES": "2000",
        "PYTHONWARNINGS": "error:A large amount",
    }
    script = f"as_on_a_gpu = False\n{SCRIPT}"
    assert json.loads(last_line_of(script, KERAS_BACKEND="jax", **environ))


FORGETTING = """
import jax
from keras import ops
from stylewatch.engine import backend
backend._PROGRAMS = 3
make_jaxpr, made = jax.make_jaxpr, []
def noted(function, **options):
    return lambda x: made.append(x.shape[0]) or make_jaxpr(function, **options)(x)
jax.make_jaxpr = noted
doubled = backend.compiled(lambda x: 2 * x)
for size in (1, 2, 3, 4, 3, 2, 4, 1):
    doubled(ops.ones(size))
print(made)
"""


def test_on_jax_the_oldest_program_makes_room_and_the_others_stay():
    """Photos of more shapes than are remembered would each time be the first again."""
    pytest.importorskip("jax")
    assert run_on("jax", FORGETTING) == [1, 2, 3, 4, 1]


@pytest.fixture
def keras_json(tmp_path):
    """The variables of somebody whose networks are of a backend that is not here."""
    other = {"backend": "theano", "image_data_format": "channels_first", "floatx": "float16"}
    (tmp_path / "keras.json").write_text(json.dumps(other))
    return {"KERAS_HOME": str(tmp_path), "KERAS_BACKEND": ""}


def test_what_a_person_s_keras_json_says_of_their_own_networks_changes_nothing(keras_json):
    begin = (
        "from stylewatch.domain import EngineSettings\n"
        "from stylewatch.jobs.child import set_environment\n"
        "set_environment(EngineSettings())\n"
        "as_on_a_gpu = False\n"
    )
    losses, mean = json.loads(last_line_of(begin + SCRIPT, **keras_json))
    assert losses == pytest.approx(painted_on("tensorflow")[0], rel=1e-3)
    assert mean == pytest.approx(painted_on("tensorflow")[1], rel=1e-3)


def test_weights_are_fetched_whatever_a_person_s_keras_json_says(keras_json, tmp_path):
    environ = {"HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9"}  # no way out
    done = subprocess.run(
        [sys.executable, "-m", "stylewatch", "weights", "fetch"],
        env=os.environ | keras_json | environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == ExitCode.WEIGHTS, done.stderr


PARTS = """
import json
import numpy as np
from keras import ops
from stylewatch.engine import backend
rng = np.random.default_rng(0)
features = rng.normal(size=(1, 7, 10, 3)).astype(np.float32)
weights = ops.convert_to_tensor(rng.normal(size=(1, 3, 5, 3)).astype(np.float32))
loss = lambda x, _: (ops.sum(weights * backend.max_pool(x)), ())
value, _, slope = backend.value_and_gradient(loss)(ops.convert_to_tensor(features), ())
rows, columns = (
    [ops.convert_to_tensor(each, dtype="float32") for each in rng.normal(size=(n, 1, 4, 3, 3))]
    for n in (2, 3)
)
products = backend.compiled(backend.inner_products)(rows, columns)
print(json.dumps([float(value), *(np.asarray(each).tolist() for each in (slope, products))]))
"""


def test_what_each_backend_does_in_its_own_way_gives_the_same():
    (value, slope, products), theirs = (run_on(each, PARTS) for each in ("tensorflow", "jax"))
    assert theirs[0] == pytest.approx(value, rel=1e-5)
    assert np.asarray(theirs[1]) == pytest.approx(np.asarray(slope), rel=1e-6)
    assert np.asarray(theirs[2]) == pytest.approx(np.asarray(products), rel=1e-4, abs=1e-5)
    assert np.asarray(products).shape == (2, 3)


@pytest.mark.parametrize("instructions", ["AVX512_CORE", "AVX2"])
def test_a_cpu_that_only_says_it_has_bfloat16_paints_in_float32(instructions):
    """oneDNN is kept from the real instructions: it emulates them, or refuses the convolution."""
    if not machine.cpu_flags() & {"amx_bf16", "avx512_bf16"}:
        pytest.skip("this CPU does not even say so")
    script = (
        "from stylewatch.engine.transfer import choose_precision; print(choose_precision('auto'))"
    )
    environment = {"KERAS_BACKEND": "tensorflow", "ONEDNN_MAX_CPU_ISA": instructions}
    assert last_line_of(script, **environment) == "float32"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="oneDNN is asked for on x86")
@pytest.mark.parametrize(
    ("asked", "taken"), [({}, "True"), ({"TF_ENABLE_ONEDNN_OPTS": "0"}, "False")]
)
def test_onednn_multiplies_on_every_x86_unless_it_is_refused(asked, taken, monkeypatch):
    """By itself TensorFlow leaves it out on CPUs without AVX-512, where it takes half the time."""
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    script = (
        "from stylewatch.jobs.child import set_environment\n"
        "from stylewatch.domain import EngineSettings\n"
        "set_environment(EngineSettings())\n"
        "from tensorflow.python.util import _pywrap_util_port as tensorflow\n"
        "print(tensorflow.IsMklEnabled())"
    )
    assert last_line_of(script, KERAS_BACKEND="tensorflow", **asked) == taken


KERNELS = """
import json
import os
import numpy as np
from stylewatch.domain import EngineSettings, StyleSettings
from stylewatch.jobs.child import set_environment
set_environment(EngineSettings())
from stylewatch.engine import features
from stylewatch.engine.objective import Objective, Region
from small_network import in_tiles, small_network
rng = np.random.default_rng(0)
settings = StyleSettings()
layers = tuple(settings.content_layers), tuple(settings.style_layers)
numbers = []
for seed in (0, 1):  # one network after the other in one process, with kernels of the same shapes
    arguments = small_network(seed=seed), *layers, settings.pooling, "float32"
    for objective in (Objective(*arguments), in_tiles(64, *arguments)):
        for size in ((48, 64), (64, 32), (48, 64)):
            photo, style = (features.preprocess(rng.uniform(0, 255, (*size, 3))) for _ in range(2))
            targets = objective.targets(photo, [Region([(style, 1.0)], None)], settings)
            for share in (0.3, 0.6):
                parts, gradient = objective.evaluate(photo + share * style, targets)
                numbers += [parts.loss, float(np.abs(gradient).sum())]
print(json.dumps([os.environ["TF_ONEDNN_ASSUME_FROZEN_WEIGHTS"], numbers]))
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="oneDNN is asked for on x86")
def test_kernels_that_are_arranged_once_are_those_of_their_own_network(monkeypatch):
    """TensorFlow is told that no kernel changes: one that did would silently count as it was."""
    name = "TF_ONEDNN_ASSUME_FROZEN_WEIGHTS"
    monkeypatch.setenv(name, "0")
    told, expected = run_on("tensorflow", KERNELS)
    assert told == "0"
    monkeypatch.delenv(name)
    told, numbers = run_on("tensorflow", KERNELS)
    assert told == "1"
    assert numbers == pytest.approx(expected, rel=1e-4)
    assert len(set(numbers[::2])) == 24


def test_the_precision_is_the_same_each_time_it_is_chosen():
    assert len({backend._bfloat16_gains() for _ in range(5)}) == 1


def test_on_a_cpu_a_gradient_is_read_where_it_lies():
    gradient = ops.ones((1, 8, 8, 3))
    assert np.shares_memory(backend.place(gradient), np.asarray(gradient))


@pytest.mark.parametrize(
    ("capability", "fast"),
    [
        ((7, 5), False), ((8, 6), True), ((12, 0), True),  # TensorFlow, PyTorch
        ("7.5", False), ("9.0", True), ("12.0", True),  # JAX
        ("gfx90a", True), (None, True),  # another maker's
    ],
)  # fmt: skip
def test_a_gpu_that_is_too_old_for_bfloat16_paints_in_float32(capability, fast, monkeypatch):
    monkeypatch.setattr(backend, "_gpu", lambda: ("a GPU", capability))
    assert backend.device.__wrapped__() == backend.Device("a GPU", fast_bfloat16=fast)


def test_which_gpu_there_is_is_asked_once(monkeypatch):
    """Its driver takes a moment to tell, and each evaluation of a loss would ask."""
    import tensorflow as tf

    asked = []
    list_devices = tf.config.list_physical_devices
    monkeypatch.setattr(
        tf.config, "list_physical_devices", lambda kind: asked.append(kind) or list_devices(kind)
    )
    for _ in range(3):
        backend.has_gpu()
    assert len(asked) <= 1


@pytest.mark.parametrize(
    ("name", "ours", "users"),
    [("TF_FORCE_GPU_ALLOW_GROWTH", "true", "false"),
     ("XLA_PYTHON_CLIENT_PREALLOCATE", "false", "true")],
)  # fmt: skip
def test_a_worker_leaves_others_room_on_a_gpu(name, ours, users, monkeypatch):
    monkeypatch.delenv(name)
    set_environment(EngineSettings())
    assert os.environ[name] == ours
    monkeypatch.setenv(name, users)
    set_environment(EngineSettings())
    assert os.environ[name] == users


@pytest.mark.parametrize(
    ("worth", "engine", "threads"),
    [
        (8, EngineSettings(), None),  # as libraries do by themselves, to the last bit
        (2, EngineSettings(), "2"),  # by a quota
        (8, EngineSettings(workers=3), "2"),
        (2, EngineSettings(workers=3), "1"),
        (2, EngineSettings(workers=3, threads=5), "5"),
    ],
)
def test_a_worker_has_no_more_threads_than_its_share_of_the_cores(
    worth, engine, threads, monkeypatch
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    monkeypatch.setattr(child, "cores", lambda: worth)
    monkeypatch.setattr(os, "environ", {})
    set_environment(engine)
    assert {os.environ.get(name) for name in child.THREADS} == {threads}
    monkeypatch.setattr(os, "environ", {child.THREADS[0]: "9"})  # somebody wants it so
    set_environment(engine)
    assert os.environ[child.THREADS[0]] == (threads if engine.threads else "9")


def test_a_quota_is_worth_so_many_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "PROC", tmp_path)
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    (tmp_path / "self").mkdir()
    (tmp_path / "self/cgroup").write_text("0::/a/b\n")
    (tmp_path / "a/b").mkdir(parents=True)
    for group, quota, worth in (
        ("a/b", "max 100000", 8), ("a", "350000 100000", 4), ("a/b", "5000 100000", 1),
        ("a/b", "9900000 100000", 4), ("a", "9900000 100000", 8),
    ):  # fmt: skip
        (tmp_path / group / "cpu.max").write_text(f"{quota}\n")
        assert machine.cores() == worth


def test_one_graph_serves_all_sizes_and_each_form_of_arguments_has_its_own():
    traced = []

    def total(image, more):
        traced.append(more)
        return ops.sum(image) + sum(map(ops.sum, keras.tree.flatten(more)))

    call = backend.compiled(total)
    for side in range(1, backend._SIZES + 20):
        image = np.ones((1, side, 2, 3), np.float32)
        assert float(call(image, {"a": image, "b": [1.0]})) == 12 * side + 1
    assert len(traced) == 1
    one = np.float32(1.0)
    for number, (more, value) in enumerate(
        [({"a": one}, 7), ({"b": one}, 7), ([one, one], 8), ([one, (one,)], 8), ({}, 6)], start=2
    ):
        for _ in range(2):
            assert float(call(np.ones((1, 1, 2, 3), np.float32), more)) == value
        assert len(traced) == number
