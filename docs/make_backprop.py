"""Run docs/backprop.ipynb without Jupyter, and store the outputs of its cells in it.

    python docs/make_backprop.py    # after an edit of the notebook

The notebook is its own source; only outputs are written. They are made with random filters, whatever
NPSTYLE_WEIGHTS says, so that they are the same on every machine up to rounding.
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
    """The part of IPython.display.Image that the notebook uses: a PNG file and its width on the page."""

    def __init__(self, data: bytes, width: int) -> None:
        self.data = data
        self.width = width


class OutputCollector(TextIOBase):
    """Collects printed text and displayed pictures, in order and in the notebook's format."""

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
            metadata = {"image/png": {"width": picture.width}}
            self.outputs.append({"data": data, "metadata": metadata, "output_type": "display_data"})


def read(path: Path = NOTEBOOK) -> Notebook:
    """The notebook as it is stored in a file."""
    notebook: Notebook = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def as_text(notebook: Notebook) -> str:
    """The text of the notebook's file, in the layout that Jupyter writes."""
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def run(notebook: Notebook, namespace: dict[str, Any]) -> list[list[Output]]:
    """Execute the code cells in one namespace, and return the outputs of each.

    Unlike in Jupyter, the value of a cell's last line is no output: cells print and display.
    """
    collector = OutputCollector()
    with _in_folder_of_notebook(), _fake_ipython(collector), redirect_stdout(collector):
        return [_execute(cell, namespace, collector) for cell in code_cells(notebook)]


def code_cells(notebook: Notebook) -> list[dict[str, Any]]:
    """The code cells of the notebook, in order."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def _execute(cell: dict[str, Any], namespace: dict[str, Any], collector: OutputCollector) -> list[Output]:
    collector.outputs = []
    exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}: {cell['id']}", "exec"), namespace)
    return collector.outputs


@contextmanager
def _in_folder_of_notebook() -> Iterator[None]:
    """Change to the notebook's folder, where Jupyter runs it."""
    before = Path.cwd()
    os.chdir(NOTEBOOK.parent)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _fake_ipython(collector: OutputCollector) -> Iterator[None]:
    """Replace IPython.display, whether IPython is installed or not."""
    before = {name: sys.modules.get(name) for name in ("IPython", "IPython.display")}
    fake: Any = ModuleType("IPython.display")
    fake.Image, fake.display = Image, collector.display
    package: Any = ModuleType("IPython")
    package.display = fake
    sys.modules.update({"IPython": package, "IPython.display": fake})
    try:
        yield
    finally:
        for name, module in before.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module


def main() -> None:
    """Run all cells, and write the notebook with their outputs."""
    os.environ.pop("NPSTYLE_WEIGHTS", None)
    start = time.monotonic()
    notebook = read()
    outputs_of_cells = run(notebook, {})
    for number, (cell, outputs) in enumerate(zip(code_cells(notebook), outputs_of_cells, strict=True), 1):
        cell["execution_count"] = number
        cell["outputs"] = outputs
    text = as_text(notebook)
    NOTEBOOK.write_text(text, encoding="utf-8")
    seconds, kilobytes = time.monotonic() - start, len(text) / 1000
    print(f"{NOTEBOOK}: {len(outputs_of_cells)} cells in {seconds:.0f} s, {kilobytes:.0f} kB")


if __name__ == "__main__":
    main()
