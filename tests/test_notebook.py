"""docs/backprop.ipynb runs, its checks find mistakes, and its stored outputs are current."""

from __future__ import annotations

import ast
import base64
import importlib.util
import io
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from test_docs import dead_links, missing_files, missing_names
from tolerances import ADJOINT, DIRECTIONAL, SAME

DOUBLE, SINGLE = np.dtype(np.float64), np.dtype(np.float32)


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = load(Path(__file__).parents[1] / "docs" / "make_backprop.py")
NOTEBOOK = make.read()
CODES = {cell["id"]: "".join(cell["source"]) for cell in make.code_cells(NOTEBOOK)}
TEXT = "\n\n".join("".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "markdown")


class Run(NamedTuple):
    """The notebook's variables after a run, and the outputs of each cell by its id."""

    variables: dict[str, Any]
    outputs: dict[str, list[Any]]


def run(replacement: tuple[str, str] | None = None, before: str | None = None) -> Run:
    """Run the notebook, optionally with a text replaced, or only the cells before one."""
    cells = make.code_cells(make.read())
    names = list(CODES)
    cells = cells[: names.index(before) if before else None]
    if replacement:
        old, new = replacement
        (cell,) = (cell for cell in cells if old in "".join(cell["source"]))
        cell["source"] = ["".join(cell["source"]).replace(old, new)]
    variables: dict[str, Any] = {}
    outputs = make.run({"cells": cells}, variables)
    return Run(variables, dict(zip(names, outputs, strict=False)))


@pytest.fixture(scope="module")
def notebook_run() -> Run:
    with pytest.MonkeyPatch.context() as patch:  # module fixtures come before the fixture `alone`
        patch.delenv("NPSTYLE_WEIGHTS", raising=False)
        return run()


def printed(outputs: list[Any]) -> str:
    return "".join(line for output in outputs for line in output.get("text", ()))


def pictures(outputs: list[Any]) -> list[NDArray[np.uint8]]:
    files = [base64.b64decode(output["data"]["image/png"]) for output in outputs if "data" in output]
    return [np.asarray(Image.open(io.BytesIO(file))) for file in files]


def errors_of(variables: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """The error of each check in the notebook that has to pass, and its bound."""
    errors = {
        name: (variables[name], SAME[DOUBLE]) for name in ("product_error", "npstyle_error", "flip_error")
    }
    errors |= {name: (variables[name].error, ADJOINT[DOUBLE]) for name in ("right", "also_right")}
    errors |= {name: (variables[name].error, DIRECTIONAL) for name in ("one_pixel", "every_pixel")}
    return errors


def test_checks_pass(notebook_run: Run) -> None:
    errors = errors_of(notebook_run.variables)
    errors["by_hand"] = notebook_run.variables["by_hand_error"], SAME[SINGLE]
    errors["whole"] = notebook_run.variables["whole"].error, DIRECTIONAL
    assert [name for name, (error, bound) in errors.items() if not error < bound] == []
    for name in ("right", "every_pixel", "whole"):  # two zeros would agree, too
        assert abs(notebook_run.variables[name].numeric) > 1e-3


def test_planted_mistakes_are_found(notebook_run: Run) -> None:
    assert notebook_run.variables["wrong"].error > 0.1
    forgotten = notebook_run.variables["forgotten"]
    assert forgotten.analytic / forgotten.numeric == pytest.approx(4, rel=1e-5)


def test_printed_verdicts(notebook_run: Run) -> None:
    text = "\n".join(map(printed, notebook_run.outputs.values()))
    assert re.findall(r"\b(right|WRONG)$", text, re.M) == ["right", "right", "WRONG"] * 2 + ["right"]
    assert re.findall(r"\b(True|False)$", text, re.M) == ["True"] * 4
    assert "random filters" in text


@pytest.mark.parametrize(
    ("old", "new", "finder"),
    [
        (
            "Q + bias).reshape(H, W, K)\nby_npstyle",
            "Q - bias - 1).reshape(H, W, K)\nby_npstyle",
            "product_error",
        ),
        ("flipped = kernel[::-1, ::-1].swapaxes(2, 3)", "flipped = kernel.swapaxes(2, 3)", "flip_error"),
        ("padded[i : i + H, j : j + W] += windows", "padded[i : i + H, j : j + W] = windows", "right"),
        ("self.kernel[::-1, ::-1].swap", "self.kernel.swap", "every_pixel"),
        ("return np.where(positive, dy, 0)", "return dy", "every_pixel"),
        (".repeat(2, axis=1) / 4", ".repeat(2, axis=1)", "every_pixel"),
        ("4 / len(f) * f @ D", "2 / len(f) * f @ D", "every_pixel"),
        ("cells.mean(", "cells.max(", "every_pixel"),
    ],
    ids=["bias", "unflipped", "col2im", "unflipped-layer", "mask", "quarter", "factor-2", "another-forward"],
)
def test_other_mistakes_would_be_found(old: str, new: str, finder: str) -> None:
    error, bound = errors_of(run((old, new), before="descend").variables)[finder]
    assert error > 100 * bound


def test_losses_fall(notebook_run: Run) -> None:
    by_gradient, by_lbfgs = notebook_run.variables["by_gradient"], notebook_run.variables["by_lbfgs"]
    assert len(by_gradient) == len(by_lbfgs) == len(notebook_run.variables["pictures"]) == 31
    assert by_gradient == sorted(by_gradient, reverse=True)
    assert by_lbfgs == sorted(by_lbfgs, reverse=True)
    assert by_lbfgs[30] < by_gradient[30] < 0.2
    losses = notebook_run.variables["result"].losses
    assert len(losses) == 61
    assert losses[60] < losses[10] < losses[0] / 5


def test_numbers_in_text(notebook_run: Run) -> None:
    assert notebook_run.variables["at_photo"] == 0
    assert notebook_run.variables["with_noise"] > 0.01
    assert notebook_run.variables["against_noise"] > 0.3
    assert "28224 activations" in TEXT
    H, W, _ = notebook_run.variables["start"].shape
    assert H * W * 64 == 28224
    lines = (CODES["layers"] + "\n" + CODES["loss"]).splitlines()
    assert 35 <= sum(1 for line in lines if line.strip()) <= 45  # "some 40 lines"


def test_notebook_with_trained_filters(real_weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPSTYLE_WEIGHTS", str(Path(real_weights).resolve()))
    notebook_run = run()
    assert "trained filters" in printed(notebook_run.outputs["load"])
    assert notebook_run.variables["whole"].error < DIRECTIONAL
    assert notebook_run.variables["by_hand_error"] < SAME[SINGLE]
    losses = notebook_run.variables["result"].losses
    assert losses[-1] < losses[0] / 5


def test_stored_outputs_are_current(notebook_run: Run) -> None:
    """Digits depend on the machine, and over 60 iterations a difference in rounding grows to some levels.

    With another convolution method, the last picture differs by 4 levels per pixel on average.
    """
    for number, cell in enumerate(make.code_cells(NOTEBOOK), 1):
        stored, current = cell["outputs"], notebook_run.outputs[cell["id"]]
        assert cell["execution_count"] == number
        assert [output["output_type"] for output in stored] == [output["output_type"] for output in current]
        assert without_numbers(printed(stored)) == without_numbers(printed(current))
        for old, new in zip(pictures(stored), pictures(current), strict=True):
            assert old.shape == new.shape
            assert np.abs(old.astype(float) - new).mean() < 16


def without_numbers(text: str) -> str:
    return re.sub(r" *-?\d+\.\d+", " #", text)


def test_file_has_layout_of_make_backprop() -> None:
    assert make.NOTEBOOK.read_text(encoding="utf-8") == make.as_text(make.read())


def test_stored_pictures_are_small() -> None:
    outputs = [output for cell in make.code_cells(NOTEBOOK) for output in cell["outputs"]]
    files = [base64.b64decode(output["data"]["image/png"]) for output in outputs if "data" in output]
    assert len(files) >= 10
    assert sum(map(len, files)) < 200_000


def test_no_picture_is_uniform(notebook_run: Run) -> None:
    images = [picture for outputs in notebook_run.outputs.values() for picture in pictures(outputs)]
    assert len(images) >= 10
    assert all(picture.std() > 10 for picture in images)


@pytest.mark.parametrize("name", CODES)
def test_no_cell_ends_in_a_value(name: str) -> None:
    """Jupyter would display it, and docs/make_backprop.py would not."""
    last = ast.parse(CODES[name]).body[-1]
    if isinstance(last, ast.Expr):
        assert isinstance(last.value, ast.Call)
        assert isinstance(last.value.func, ast.Name)
        assert last.value.func.id in ("print", "show")


def test_links_and_names_in_text_exist() -> None:
    assert dead_links(make.NOTEBOOK, TEXT) == []
    assert missing_files(TEXT) == []
    assert missing_names(TEXT) == []
    assert TEXT.count("](") > 5
