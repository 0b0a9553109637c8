"""Imports point down only; nothing below `run` knows files, SciPy's optimiser or the command line."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import npstyle

PACKAGE = Path(npstyle.__file__).parent

# Who may import whom, at run time. A module that is not named here fails the test: give it its place.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "_version": set(),
    "_threads": {"errors", "_cgroups"},
    "architecture": {"errors"},
    "images": {"_files", "errors"},
    "settings": {"errors", "architecture"},
    "_download": {"errors"},
    "_statedict": {"errors", "architecture"},
    "weights": {"errors", "architecture", "_download", "_files", "_matfile", "_npy", "_statedict"},
    "weights_command": {
        "_terminal",
        "errors",
        "_download",
        "architecture",
        "calibration",
        "images",
        "vgg",
        "weights",
    },
    "_buffers": set(),
    "_cgroups": set(),
    "_kernels": {"errors", "_buffers", "_threads"},
    "layers": {"_kernels", "_buffers"},
    "losses": {"_kernels", "_buffers"},
    "vgg": {"errors", "architecture", "layers", "_threads", "_buffers"},
    "regions": {"errors"},
    "color": {"errors"},
    "_lbfgsb": {"_threads"},
    "descent": {"errors", "settings", "_lbfgsb"},
    "objective": {"errors", "architecture", "losses", "regions", "settings", "vgg", "_buffers"},
    "calibration": {"errors", "architecture", "layers", "vgg", "weights"},
    "_files": set(),
    "_terminal": {"errors"},
    "_npy": set(),
    "_matfile": set(),
    "study": {
        "architecture",
        "calibration",
        "errors",
        "images",
        "losses",
        "objective",
        "pictures",
        "run",
        "settings",
        "vgg",
        "weights",
    },
    "study_command": {
        "_terminal",
        "architecture",
        "errors",
        "images",
        "settings",
        "study",
        "vgg",
        "weights",
    },
    "gradcheck": set(),
    "gradcheck_command": {
        "_terminal",
        "errors",
        "gradcheck",
        "layers",
        "losses",
        "objective",
        "settings",
        "vgg",
        "weights",
    },
    "checkpoint": {"errors", "_download", "_files", "_npy"},
    "show_command": {"_terminal", "_version", "errors", "images"},
    "pictures": {"descent", "errors", "images", "regions", "settings", "vgg"},
    "run": {
        "errors",
        "architecture",
        "calibration",
        "checkpoint",
        "color",
        "descent",
        "images",
        "layers",
        "objective",
        "pictures",
        "settings",
        "vgg",
        "weights",
    },
    "estimate": {"_cgroups", "_kernels", "_threads", "architecture", "descent", "settings", "vgg"},
    "_info": {"errors", "_download", "_kernels", "_threads", "_version", "weights"},
    "options": {"_terminal", "_version", "architecture", "errors", "settings"},
    "cli": {
        "checkpoint",
        "_terminal",
        "_threads",
        "options",
        "show_command",
        "errors",
        "_kernels",
        "architecture",
        "images",
        "settings",
        "weights",
        "run",
        "estimate",
        "pictures",
        "_info",
        "_version",
    },
    "__main__": {"cli"},
}
ONLY_THE_DESCENT_OPTIMISES = "scipy.optimize"
FILES = {"PIL": {"images", "study"}, "h5py": {"weights"}, "scipy.io": {"weights"}, "pooch": {"_download"}}


def imports(path: Path) -> set[str]:
    """Full names of the modules a file imports at run time (not those for type checkers alone)."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def modules() -> dict[str, Path]:
    files = {path.stem: path for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    return {**files, "_kernels": PACKAGE / "_kernels" / "__init__.py"}


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_point_down(name: str) -> None:
    assert name in MAY_IMPORT, f"{name}.py has no place in the table"
    inside = {module.split(".")[1] for module in imports(modules()[name]) if module.startswith("npstyle.")}
    inside = {module for module in inside if module in modules() and module != name}
    assert inside <= MAY_IMPORT[name]


def test_the_table_has_no_circle() -> None:
    settled: set[str] = set()
    while len(settled) < len(MAY_IMPORT):
        next_ones = {name for name, below in MAY_IMPORT.items() if below <= settled}
        assert next_ones > settled
        settled = next_ones


@pytest.mark.parametrize("name", sorted(modules()))
def test_files_and_optimisers_stay_in_their_rooms(name: str) -> None:
    found = imports(modules()[name])
    for library, rooms in {**FILES, ONLY_THE_DESCENT_OPTIMISES: {"_lbfgsb"}}.items():
        if any(module == library or module.startswith(library + ".") for module in found):
            assert name in rooms, f"{name} imports {library}"


def test_no_framework_anywhere() -> None:
    for path in PACKAGE.rglob("*.py"):
        roots = {module.split(".")[0] for module in imports(path)}
        assert not roots & {"torch", "tensorflow", "jax", "keras", "autograd"}, path
