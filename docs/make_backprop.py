"""Runs docs/backprop.ipynb without Jupyter, and stores in it what its cells show.

    python docs/make_backprop.py    # after an edit of the notebook

The notebook is its own source; only outputs are written. They are made with random filters, whatever
NPSTYLE_WEIGHTS says, so that everybody's are the same up to rounding.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import TextIOBase
from pathlib import Path
from types import ModuleType
from typing import Any

NOTEBOOK = Path(__file__).with_name("backprop.ipynb")
Notebook = dict[str, Any]
Output = dict[str, Any]


class Image:
    """What the notebook needs of IPython.display: a PNG file, and how wide it is to be shown."""

    def __init__(self, data: bytes, width: int) -> None:
        self.data = data
        self.width = width


class Shown(TextIOBase):
    """Collects what is printed and displayed, in its order, as a notebook stores it."""

    def __init__(self) -> None:
        self.outputs: list[Output] = []

    def write(self, text: str) -> int:
        if not self.outputs or self.outputs[-1]["output_type"] != "stream":
            self.outputs.append({"name": "stdout", "output_type": "stream", "text": []})
        lines = "".join([*self.outputs[-1]["text"], text]).splitlines(keepends=True)
        self.outputs[-1]["text"] = lines
        return len(text)

    def display(self, *pictures: Image) -> None:
        for picture in pictures:
            data = {
                "image/png": base64.b64encode(picture.data).decode("ascii"),
                "text/plain": ["a picture"],
            }
            how = {"image/png": {"width": picture.width}}
            self.outputs.append({"data": data, "metadata": how, "output_type": "display_data"})


def read(path: Path = NOTEBOOK) -> Notebook:
    """The notebook as it is stored."""
    notebook: Notebook = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def as_text(notebook: Notebook) -> str:
    """The notebook as a file, in the layout that Jupyter gives it."""
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def run(notebook: Notebook, namespace: dict[str, Any]) -> list[list[Output]]:
    """Execute the code cells one after the other in one namespace; what each of them shows.

    The value of a cell's last line is not shown: cells print and display.
    """
    shown = Shown()
    with _at_home(), _displaying(shown), redirect_stdout(shown):
        return [_execute(cell, namespace, shown) for cell in code_cells(notebook)]


def code_cells(notebook: Notebook) -> list[dict[str, Any]]:
    """Those of the notebook's cells that are not text."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def _execute(cell: dict[str, Any], namespace: dict[str, Any], shown: Shown) -> list[Output]:
    shown.outputs = []
    exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}: {cell['id']}", "exec"), namespace)
    return shown.outputs


@contextmanager
def _at_home() -> Iterator[None]:
    """In the notebook's folder, as Jupyter runs it."""
    before = Path.cwd()
    os.chdir(NOTEBOOK.parent)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _displaying(shown: Shown) -> Iterator[None]:
    """IPython.display is ours meanwhile, whether there is another or not."""
    before = {name: sys.modules.get(name) for name in ("IPython", "IPython.display")}
    ours: Any = ModuleType("IPython.display")
    ours.Image, ours.display = Image, shown.display
    package: Any = ModuleType("IPython")
    package.display = ours
    sys.modules.update({"IPython": package, "IPython.display": ours})
    try:
        yield
    finally:
        for name, module in before.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module


def main() -> None:
    """Run all cells, and write the notebook with what they show."""
    os.environ.pop("NPSTYLE_WEIGHTS", None)
    began = time.monotonic()
    notebook = read()
    shown = run(notebook, {})
    for number, (cell, outputs) in enumerate(zip(code_cells(notebook), shown, strict=True), 1):
        cell["execution_count"] = number
        cell["outputs"] = outputs
    text = as_text(notebook)
    NOTEBOOK.write_text(text, encoding="utf-8")
    print(f"{NOTEBOOK}: {len(shown)} cells in {time.monotonic() - began:.0f} s, {len(text) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
