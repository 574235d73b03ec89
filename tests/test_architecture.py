"""The structure that the project keeps: who may import whom, and what stays where.

A module imports only from the layers above its own (and from its own row where that is said).
The table is the documentation of the architecture; a new module gets its row here.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "stylewatch"

ROWS = {
    "words": {"errors", "domain", "failpoints"},
    # arrays in, arrays out
    "core": {
        *("backend", "images", "losses", "features", "optimizers", "objective", "tiles"),
        "transfer",
    },
    # each between us and one thing outside: YAML, inotify, SQLite, the disk, processes
    "edges": {
        *("yamlfile", "notations", "places", "rules", "presets", "config", "starter"),
        *("listing", "watches", "sources", "settle", "retries", "ledger", "schema"),
        *("outputs", "space", "locks", "fairness"),
        *("jobtable", "child", "cluster", "executors"),
    },
    # one job, in its own process
    "job": {"checkpoints", "effect", "styletransfer", "worker"},
    # from folder to result
    "host": {"intake", "flight", "mailbox", "publication", "pulse", "retention", "daemon"},
    # what people, services and other programs see
    "faces": {
        *("lines", "board", "view", "terminal", "preview", "console", "wire", "control"),
        *("service", "metrics", "notify"),
    },
    # puts the parts together
    "root": {
        *("serve", "paint", "remote", "overview", "doctor", "cli", "options", "answers"),
        *("commands_paint", "commands_watch", "commands_presets", "commands_setup"),
        "commands_steer",
    },
}
MAY_SEE = {
    "words": {"words"},
    "core": {"words", "core"},
    "edges": {"words", "edges"},
    "job": {"words", "core", "edges", "job"},
    "host": {"words", "edges", "host"},
    "faces": {"words", "faces"},
    "root": set(ROWS),
}
CORE = ROWS["core"]
ONLY_PLACE = {
    "PIL": {"images", "preview"},
    "tensorflow": {"backend"},
    "keras": {"backend", "features", "losses", "objective", "optimizers", "tiles", "transfer"},
    "scipy": {"optimizers"},
    "yaml": {"yamlfile"},
    "watchdog": {"watches"},
    "sqlite3": {"ledger", "schema"},
    "pebble": {"executors", "child"},
    "distributed": {"cluster"},
    "typer": {
        *("cli", "options", "answers", "commands_paint", "commands_watch", "commands_presets"),
        *("commands_setup", "commands_steer"),
    },
}


def modules() -> dict[str, ast.Module]:
    return {
        path.stem: ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.glob("*.py"))
        if path.stem not in {"__init__", "__main__"}
    }


def imports_of(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            if node.module == "stylewatch":
                found |= {f"stylewatch.{alias.name}" for alias in node.names}
    return found


def ours(tree: ast.Module) -> set[str]:
    names = {name.split(".")[1] for name in imports_of(tree) if name.startswith("stylewatch.")}
    return {name for name in names if not name.startswith("__")}


def row_of(name: str) -> str:
    rows = [row for row, names in ROWS.items() if name in names]
    assert rows, f"{name} has no row in the table above"
    return rows[0]


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_imports_only_from_the_rows_that_its_own_may_see(name):
    for other in ours(modules()[name]):
        assert row_of(other) in MAY_SEE[row_of(name)], f"{name} imports {other}"


@pytest.mark.parametrize("name", sorted(CORE - {"backend", "features"}))
def test_the_core_touches_no_files_and_no_console(name):
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
        assert users <= places, library


def test_there_is_no_general_drawer():
    assert not set(modules()) & {"utils", "helpers", "common", "manager", "misc"}


@pytest.mark.parametrize(
    ("module", "function"),
    [("transfer", "stylize"), ("worker", "_render"), ("worker", "run_job"), ("daemon", "tick")],
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
        "import sys, stylewatch.cli, stylewatch.daemon;"
        "print(sorted({'tensorflow', 'keras', 'scipy', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_a_worker_with_another_effect_starts_without_tensorflow():
    check = (
        "import sys, stylewatch.worker;"
        "print(sorted({'tensorflow', 'keras', 'scipy'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
