"""docs/backprop.ipynb runs from top to bottom, finds what it says, and stores what it shows."""

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


class Ran(NamedTuple):
    """What the notebook's variables are at the end, and what each cell has shown."""

    variables: dict[str, Any]
    outputs: dict[str, list[Any]]


def run(changes: tuple[str, str] | None = None, before: str | None = None) -> Ran:
    """Run the notebook, perhaps with a change, perhaps only what stands before a cell."""
    cells = make.code_cells(make.read())
    names = list(CODES)
    cells = cells[: names.index(before) if before else None]
    if changes:
        old, new = changes
        found = [cell for cell in cells if old in "".join(cell["source"])]
        assert len(found) == 1
        found[0]["source"] = ["".join(found[0]["source"]).replace(old, new)]
    variables: dict[str, Any] = {}
    outputs = make.run({"cells": cells}, variables)
    return Ran(variables, dict(zip(names, outputs, strict=False)))


@pytest.fixture(scope="module")
def ran() -> Ran:
    with pytest.MonkeyPatch.context() as patch:  # this comes before the fixture `alone`
        patch.delenv("NPSTYLE_WEIGHTS", raising=False)
        return run()


def printed(outputs: list[Any]) -> str:
    return "".join(line for output in outputs for line in output.get("text", ()))


def pictures(outputs: list[Any]) -> list[NDArray[np.uint8]]:
    files = [base64.b64decode(output["data"]["image/png"]) for output in outputs if "data" in output]
    return [np.asarray(Image.open(io.BytesIO(file))) for file in files]


def errors_of(variables: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """What the notebook has found of each thing that is to be right, and the bound."""
    found = {
        name: (variables[name], SAME[DOUBLE]) for name in ("product_error", "npstyle_error", "flip_error")
    }
    found |= {name: (variables[name].error, ADJOINT[DOUBLE]) for name in ("right", "also_right")}
    found |= {name: (variables[name].error, DIRECTIONAL) for name in ("one_pixel", "every_pixel")}
    return found


def test_what_is_to_be_right_is_right(ran: Ran) -> None:
    found = errors_of(ran.variables)
    found["by_hand"] = ran.variables["by_hand_error"], SAME[SINGLE]
    found["whole"] = ran.variables["whole"].error, DIRECTIONAL
    assert [name for name, (error, bound) in found.items() if not error < bound] == []
    for name in ("right", "every_pixel", "whole"):  # two zeros would agree, too
        assert abs(ran.variables[name].numeric) > 1e-3


def test_its_mistakes_are_found(ran: Ran) -> None:
    assert ran.variables["wrong"].error > 0.1
    forgotten = ran.variables["forgotten"]
    assert forgotten.analytic / forgotten.numeric == pytest.approx(4, rel=1e-5)


def test_it_says_so(ran: Ran) -> None:
    said = "\n".join(map(printed, ran.outputs.values()))
    assert re.findall(r"\b(right|WRONG)$", said, re.M) == ["right", "right", "WRONG"] * 2 + ["right"]
    assert re.findall(r"\b(True|False)$", said, re.M) == ["True"] * 4
    assert "random filters" in said


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
    ids=["bias", "unturned", "col2im", "unturned-layer", "mask", "quarter", "factor-2", "another-forward"],
)
def test_a_mistake_in_it_would_be_found(old: str, new: str, finder: str) -> None:
    error, bound = errors_of(run((old, new), before="descend").variables)[finder]
    assert error > 100 * bound


def test_losses_fall(ran: Ran) -> None:
    by_gradient, by_lbfgs = ran.variables["by_gradient"], ran.variables["by_lbfgs"]
    assert len(by_gradient) == len(by_lbfgs) == len(ran.variables["pictures"]) == 31
    assert by_gradient == sorted(by_gradient, reverse=True)
    assert by_lbfgs == sorted(by_lbfgs, reverse=True)
    assert by_lbfgs[30] < by_gradient[30] < 0.2
    history = ran.variables["result"].losses
    assert len(history) == 61
    assert history[60] < history[10] < history[0] / 5


def test_what_the_text_says_of_gradients(ran: Ran) -> None:
    assert ran.variables["at_photo"] == 0
    assert ran.variables["with_noise"] > 0.01
    assert ran.variables["against_noise"] > 0.3
    assert "28224 responses" in TEXT
    H, W, _ = ran.variables["start"].shape
    assert H * W * 64 == 28224
    lines = (CODES["layers"] + "\n" + CODES["loss"]).splitlines()
    assert 35 <= sum(1 for line in lines if line.strip()) <= 45  # some 40


def test_trained_filters_do_as_well(real_weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPSTYLE_WEIGHTS", str(Path(real_weights).resolve()))
    ran = run()
    assert "trained filters" in printed(ran.outputs["load"])
    assert ran.variables["whole"].error < DIRECTIONAL
    assert ran.variables["by_hand_error"] < SAME[SINGLE]
    history = ran.variables["result"].losses
    assert history[-1] < history[0] / 5


def test_stored_outputs_are_those_of_its_cells(ran: Ran) -> None:
    """Digits may differ with the machine; and 60 iterations make of another rounding some levels a pixel.

    Computed with another convolution method, the last picture differs by 4 levels.
    """
    for number, cell in enumerate(make.code_cells(NOTEBOOK), 1):
        stored, shown = cell["outputs"], ran.outputs[cell["id"]]
        assert cell["execution_count"] == number
        assert [output["output_type"] for output in stored] == [output["output_type"] for output in shown]
        assert without_numbers(printed(stored)) == without_numbers(printed(shown))
        for old, new in zip(pictures(stored), pictures(shown), strict=True):
            assert old.shape == new.shape
            assert np.abs(old.astype(float) - new).mean() < 16


def without_numbers(text: str) -> str:
    return re.sub(r" *-?\d+\.\d+", " #", text)


def test_it_is_stored_as_the_command_stores_it() -> None:
    assert make.NOTEBOOK.read_text(encoding="utf-8") == make.as_text(make.read())


def test_it_stays_small() -> None:
    outputs = [output for cell in make.code_cells(NOTEBOOK) for output in cell["outputs"]]
    files = [base64.b64decode(output["data"]["image/png"]) for output in outputs if "data" in output]
    assert len(files) >= 10
    assert sum(map(len, files)) < 200_000


def test_every_picture_shows_something(ran: Ran) -> None:
    shown = [picture for outputs in ran.outputs.values() for picture in pictures(outputs)]
    assert len(shown) >= 10
    assert all(picture.std() > 10 for picture in shown)


@pytest.mark.parametrize("name", CODES)
def test_no_cell_ends_in_a_value(name: str) -> None:
    """Jupyter would show it, and the command would not."""
    last = ast.parse(CODES[name]).body[-1]
    if isinstance(last, ast.Expr):
        assert isinstance(last.value, ast.Call)
        assert isinstance(last.value.func, ast.Name)
        assert last.value.func.id in ("print", "show")


def test_its_text_names_what_is_there() -> None:
    assert dead_links(make.NOTEBOOK, TEXT) == []
    assert missing_files(TEXT) == []
    assert missing_names(TEXT) == []
    assert TEXT.count("](") > 5
