"""Masks of a run: those of another size, and those that would do nothing."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers import error_line, picture
from npstyle import preset
from npstyle.images import PictureWarning
from npstyle.run.inputs import Request

CONTENT, STYLE = picture(200, 300), picture(100, 100, 1)


def half(H: int, W: int, low: float = 0, high: float = 1) -> Any:
    mask = np.full((H, W), low, np.float32)
    mask[:, : W // 2] = high
    return mask


def request(**options: Any) -> Request:
    return Request.read(CONTENT, STYLE, settings=preset("default"), **options)


@pytest.mark.parametrize("size", [(100, 150), (400, 600), (199, 300), (100, 151)])
def test_mask_of_the_same_proportions_is_resized_with_a_word(size: tuple[int, int]) -> None:
    H, W = size
    with pytest.warns(PictureWarning, match=f"keep: resized from {W} x {H} to 300 x 200 pixels"):
        keep = request(keep=half(H, W)).keep
    assert keep is not None
    assert keep.shape == (200, 300)
    assert (keep.min(), keep.max()) == (0, 1)
    assert np.abs(keep - half(200, 300)).mean() < 0.02


def test_masks_of_regions_are_resized_each_to_its_picture() -> None:
    with pytest.warns(PictureWarning, match="mask 1: resized from") as caught:
        masked = request(content_masks=[half(100, 150) > 0], style_masks=[half(50, 50)])
    assert [str(one.message).split()[0] for one in caught] == ["content", "style"]
    assert masked.content_masks[0].shape == (200, 300)
    assert masked.style_masks[0].shape == (100, 100)


def test_mask_of_other_proportions_is_an_error() -> None:
    line = error_line(lambda: request(keep=half(100, 154)), "keep")
    assert line.startswith("found 154 x 100 pixels; expected 300 x 200, the size of the content picture;")


@pytest.mark.parametrize("name", ["content_masks", "style_masks", "keep"])
def test_mask_of_zeros_and_ones_of_255_is_refused(name: str, tmp_path: Path) -> None:
    masks: dict[str, Any] = {"content_masks": [half(200, 300)], "style_masks": [half(100, 100)]}
    masks["keep"] = half(200, 300)
    shape = np.shape(masks[name])[-2:]
    Image.fromarray(half(*shape).astype(np.uint8)).save(tmp_path / "mask.png")
    masks[name] = tmp_path / "mask.png" if name == "keep" else [tmp_path / "mask.png"]
    line = error_line(lambda: request(**masks), name.replace("_masks", " mask 1"))
    assert line.startswith("found values up to 0.0039 of 1 (it is nearly black); expected white inside")


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.5), (0.48, 0.52), (1, 1)])
def test_nearly_uniform_mask_gives_a_warning(low: float, high: float) -> None:
    with pytest.warns(PictureWarning, match="keep: it has nearly the same value everywhere"):
        request(keep=half(200, 300, low, high))


def test_white_mask_of_a_style_and_a_faint_region_give_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        request(content_masks=[half(200, 300, 0, 0.2)], style_masks=[np.ones((100, 100))])
