"""The errors: the tree is the one that is drawn, and each error is one line."""

import re
from pathlib import Path

import pytest

from stylewatch import errors
from stylewatch.errors import ConfigError, StylewatchError, ran_out_of_memory


def test_the_tree_is_the_one_that_is_drawn():
    above, drawn = [], {}
    for line in errors.__doc__.split("\n\n")[1].splitlines():
        branches, name = re.match(r"([│├└─ ]*)(\w+)", line).groups()
        above[len(branches) // 4 :] = [name]
        drawn[name] = above[-2] if above[1:] else "Exception"
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    grown = [kind for kind in kinds if issubclass(kind, StylewatchError)]
    assert drawn == {kind.__name__: kind.__base__.__name__ for kind in grown}


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ({}, "bad"),
        ({"expected": "good"}, "bad: expected good"),
        ({"expected": "good", "received": "ill"}, "bad: expected good, received ill"),
        ({"received": "ill"}, "bad: received ill"),
        ({"received": "No such thing.", "remedy": "Look"}, "bad: received No such thing. Look"),
        ({"remedy": "Look"}, "bad. Look"),
    ],
)
def test_a_line_says_what_is_wrong_what_was_expected_and_received_and_what_to_do(parts, line):
    assert str(StylewatchError("bad", **parts)) == line


def test_a_line_about_a_file_begins_with_the_place():
    place = {"file": Path("a.yaml"), "line": 3, "column": 1}
    error = ConfigError("bad", **place, key="workers", remedy="Look")
    error.others = (ConfigError("too"),)
    assert str(error) == "a.yaml:3:1: workers: bad. Look (and 1 more)"
    assert str(ConfigError("bad", key="workers")) == "workers: bad"


def test_a_job_s_failure_is_one_line_whatever_a_library_said():
    failure = StylewatchError("bad", received="one\n  two\r\n", reason="own").failure
    assert (failure.reason, failure.message) == ("own", "bad: received one two")


@pytest.mark.parametrize(
    ("error", "so"),
    [
        (MemoryError(), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), True),
        (type("ResourceExhaustedError", (Exception,), {})("OOM"), True),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), True),
        (RuntimeError("INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), True),
        (RuntimeError("Dst tensor is not initialized."), True),
        (RuntimeError("FAILED_PRECONDITION: DNN library initialization failed."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"), True),
        (RuntimeError("no memory of it"), False),
    ],
)
def test_running_out_of_memory_is_told_from_other_errors(error, so):
    assert ran_out_of_memory(error) is so
