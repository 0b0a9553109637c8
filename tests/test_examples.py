"""The scripts in examples/ run as they are, at a small size, and paint something."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from npstyle import images

EXAMPLES = Path(__file__).parents[1] / "examples"
PICTURES = {
    "first_picture": ["first_picture.png"],
    "two_styles_with_masks": ["two_styles_with_masks.png"],
    "own_optimizer": ["momentum.png", "lbfgs.png"],
}


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
def test_example(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = images.fit(images.read(EXAMPLES / "content.jpg"), 48)
    for _ in range(2):  # again over its own pictures
        runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](size=48, weights="random", iterations=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(PICTURES[name])
    for file in PICTURES[name]:
        picture = images.read(tmp_path / file)
        assert picture.shape == content.shape
        assert 0.3 < np.abs(picture.astype(float) - content).mean() < 60  # painted, and still the photograph
