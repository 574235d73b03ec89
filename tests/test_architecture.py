"""The structure that the project keeps: who may import whom, and what stays where.

The table is the documentation of the architecture: a package imports from itself and from those
that its row names. A new package gets a row here.
"""

import ast
import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "stylewatch"

WORDS = {"errors", "domain", "failpoints", "places"}
EDGES = {"settings", "folders", "state"}
MAY_SEE = {
    "words": set(),
    # arrays in, arrays out
    "engine": {"words"},
    # each between us and one thing outside: YAML; inotify and the disk; SQLite
    "settings": {"words"},
    "folders": {"words"},
    "state": {"words"},
    # one job, in its own process
    "effect": {"words", "state"},
    "jobs": {"words", "engine", "effect", *EDGES},
    # from folder to result
    "host": {"words", *EDGES},
    # what people, services and other programs see
    "faces": {"words"},
    # puts the parts together
    "app": {"words", "engine", *EDGES, "jobs", "host", "faces"},
    "commands": {"words", "settings", "state", "engine", "faces", "app"},
    "cli": {"words", "settings", "commands"},
}
ONLY_PLACE = {
    "PIL": {
        "engine.exif",
        "engine.headers",
        "engine.images",
        "engine.profiles",
        "engine.results",
        "engine.sheets",
        "engine.sizes",
        "faces.preview",
    },
    "tensorflow": {"engine.backend"},
    "keras": {
        *("engine.backend", "engine.convolution", "engine.curvature", "engine.features"),
        *("engine.losses", "engine.objective", "engine.optimizers", "engine.preconditioner"),
        *("engine.tiles", "engine.transfer", "app.trial"),
    },
    "scipy": {"engine.curvature", "engine.optimizers"},
    "yaml": {"settings.yamlfile"},
    "watchdog": {"folders.watches"},
    "sqlite3": {"state.ledger", "state.reader", "state.schema"},
    "pebble": {"jobs.executors"},
    "distributed": {"jobs.cluster"},
    "rich": {"faces.console", "faces.view", "faces.terminal", "app.overview"},
    "typer": {"cli", "commands"},
}


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Every module by its name within stylewatch."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(
            path.read_text(encoding="utf-8")
        )
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.stem not in {"__init__", "__main__"}
    }


def imports_of(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            if node.module.partition(".")[0] == "stylewatch":
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(tree: ast.Module) -> set[str]:
    """The modules of ours that a module imports."""
    found = {name.removeprefix("stylewatch.") for name in imports_of(tree)}
    return found & set(modules())


def row_of(name: str) -> str:
    row = "words" if name in WORDS else name.partition(".")[0]
    assert row in MAY_SEE, f"{name} has no row in the table above"
    return row


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_imports_only_what_its_package_may_see(name):
    row = row_of(name)
    for other in ours(modules()[name]):
        assert row_of(other) in MAY_SEE[row] | {row}, f"{name} imports {other}"


def test_every_package_says_what_it_is_for_and_does_nothing():
    for file in PACKAGE.glob("*/__init__.py"):
        [only] = ast.parse(file.read_text(encoding="utf-8")).body
        assert isinstance(only, ast.Expr), file


def test_every_package_says_what_each_of_its_modules_is_for():
    for file in PACKAGE.glob("*/__init__.py"):
        told = re.findall(r"^(\w+) {2,}\S", file.read_text(encoding="utf-8"), re.MULTILINE)
        assert sorted(told) == sorted(path.stem for path in file.parent.glob("[a-z]*.py")), file


@pytest.mark.parametrize(
    "name",
    sorted(
        name
        for name in modules()
        if name.startswith("engine.") and name not in {"engine.features", "engine.machine"}
    ),
)
def test_the_engine_touches_no_files_and_no_console(name):
    forbidden = {"os", "pathlib", "logging", "rich", "yaml", "sqlite3"}
    tree = modules()[name]
    assert not {module.partition(".")[0] for module in imports_of(tree)} & forbidden
    calls = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"open", "print", "input"}


def test_there_is_no_import_cycle():
    graph = {name: ours(tree) for name, tree in modules().items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in done:
            for other in graph.get(name, set()):
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_each_library_has_its_place():
    for library, places in ONLY_PLACE.items():
        users = {
            name
            for name, tree in modules().items()
            if library in {module.partition(".")[0] for module in imports_of(tree)}
        }
        assert {user for user in users if user.partition(".")[0] not in places} <= places, library


def test_there_is_no_general_drawer():
    names = {part for name in modules() for part in name.split(".")}
    assert not names & {"utils", "helpers", "common", "manager", "misc"}


@pytest.mark.parametrize(
    ("module", "function"),
    [
        ("engine.transfer", "stylize"),
        ("jobs.worker", "_render"),
        ("jobs.worker", "run_job"),
        ("host.daemon", "tick"),
    ],
)
def test_the_main_flows_are_short(module, function):
    tree = modules()[module]
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == function
    ]
    assert found
    body = found[0].body
    assert body[-1].end_lineno - body[0].lineno < 40


def test_the_daemon_and_the_command_line_start_without_the_network_s_libraries():
    check = (
        "import sys, stylewatch.cli, stylewatch.host.daemon;"
        "print(sorted({'tensorflow', 'keras', 'scipy', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_a_worker_with_another_effect_starts_without_tensorflow():
    check = (
        "import sys, stylewatch.jobs.worker;"
        "print(sorted({'tensorflow', 'keras', 'scipy'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "command",
    ["demo", "apply {photo} -p ink", "apply {photo} --style {photo}", "presets preview ink",
     "presets sheet", "presets sheet --style {photo}"],
)  # fmt: skip
def test_who_paints_sets_up_what_numpy_s_libraries_read_before_it_is_imported(command, tmp_path):
    """OpenBLAS's threads would wait awake, and take the cores from TensorFlow's."""
    check = (
        "import os, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'numpy':\n"
        "            os.write(1, os.environ.get('OPENBLAS_THREAD_TIMEOUT', 'none').encode())\n"
        "            os._exit(0)\n"
        "sys.meta_path.insert(0, Watch())\n"
        "from stylewatch import cli\n"
        "cli.main(sys.argv[1:])"
    )
    words = command.format(photo=PACKAGE / "data/demo.jpg").split()
    environ = {
        name: value for name, value in os.environ.items() if name != "OPENBLAS_THREAD_TIMEOUT"
    }
    result = subprocess.run(
        [sys.executable, "-c", check, *words], capture_output=True, text=True, check=True,
        cwd=tmp_path, env=environ | {"PYTHONPATH": str(PACKAGE.parent)},
    )  # fmt: skip
    assert result.stdout == "20"
