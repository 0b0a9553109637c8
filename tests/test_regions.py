"""Style targets: weights of style pictures, regions, guidance masks in each layer, and invalid masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers import picture
from npstyle import VGG19, Objective, Settings, UserError, load_weights
from npstyle.regions import downsample_mask, normalized_blend, style_targets

SETTINGS = Settings(content_layers=(), style_layers=("conv1_1", "conv2_1", "conv3_1"), statistics="gram")
CONTENT, STYLE, OTHER = np.zeros((16, 24, 3)), np.zeros((20, 30, 3)), np.zeros((32, 16, 3))


def left_half(pixels: Any) -> Any:
    mask = np.zeros(pixels.shape[:2])
    mask[:, : mask.shape[1] // 2] = 1
    return mask


def test_styles_share_one_target_or_have_one_each() -> None:
    (mixed,) = style_targets(CONTENT, [STYLE, OTHER], [3, 1], separate=False)
    assert (mixed.mask, mixed.weight) == (None, 1)
    assert [(region.style, region.weight) for region in mixed.regions] == [(0, 0.75), (1, 0.25)]
    targets = style_targets(CONTENT, [STYLE, OTHER], [3, 1], separate=True)
    assert [target.weight for target in targets] == [0.75, 0.25]
    regions = [[(region.style, region.weight) for region in target.regions] for target in targets]
    assert regions == [[(0, 1)], [(1, 1)]]


def test_a_style_of_weight_zero_is_left_out() -> None:
    (mixed,) = style_targets(CONTENT, [STYLE, OTHER], [0, 2], separate=False)
    assert [region.style for region in mixed.regions] == [1]


def test_a_region_counts_by_its_area() -> None:
    small = left_half(CONTENT)
    small[8:] = 0
    targets = style_targets(
        CONTENT, [STYLE], None, False, [left_half(CONTENT), small], [left_half(STYLE)] * 2
    )
    assert [target.weight for target in targets] == pytest.approx([2 / 3, 1 / 3])
    assert [target.regions[0].style for target in targets] == [0, 0]


def test_of_several_styles_each_has_its_mask() -> None:
    masks = [left_half(CONTENT), 1 - left_half(CONTENT)]
    style_masks = [left_half(STYLE), left_half(OTHER)]
    targets = style_targets(CONTENT, [STYLE, OTHER], [1, 3], False, masks, style_masks)
    assert [target.regions[0].style for target in targets] == [0, 1]
    assert [target.weight for target in targets] == pytest.approx([0.25, 0.75])


def test_blend_is_normalized() -> None:
    assert normalized_blend(None, 4) == [0.25] * 4
    assert normalized_blend([1, 3], 2) == [0.25, 0.75]
    assert normalized_blend(None, 0) == []


def test_downsampled_mask_is_the_mean_of_cells() -> None:
    mask = np.arange(35.0).reshape(5, 7) / 35
    (row,) = downsample_mask(mask, 2, np.float32)
    assert row.dtype == np.float32
    assert row == pytest.approx([mask[:4, :4].mean()])
    np.testing.assert_array_equal(downsample_mask(mask, 0, np.float64), mask)


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        (
            ([np.ones((24, 16))], [np.ones((20, 30))]),
            "content mask 1: found 16 x 24 pixels; expected 24 x 16",
        ),
        (([np.ones((16, 24))], [np.ones((16, 24))]), "style mask 1: found 24 x 16 pixels; expected 30 x 20"),
        (([np.ones((16, 24))], []), "masks: found 1 for the content and 0 for the style; expected pairs"),
        (([np.zeros((16, 24))], [np.ones((20, 30))]), "content mask 1: found nothing inside"),
        (([np.full((16, 24), 2)], [np.ones((20, 30))]), "content mask 1: found values up to 2"),
        (([np.full((16, 24), np.nan)], [np.ones((20, 30))]), "content mask 1: found values up to nan"),
        (([np.ones((16, 24, 3))], [np.ones((20, 30))]), "content mask 1: found float64 of shape (16, 24, 3)"),
    ],
)
def test_invalid_masks_are_rejected(masks: Any, words: str) -> None:
    with pytest.raises(UserError) as caught:
        style_targets(CONTENT, [STYLE], None, False, *masks)
    assert words in str(caught.value)


def test_several_styles_need_as_many_masks() -> None:
    with pytest.raises(UserError, match="masks: found 1 for 2 style pictures"):
        style_targets(CONTENT, [STYLE, OTHER], None, False, [np.ones((16, 24))], [np.ones((20, 30))])


@pytest.mark.parametrize(
    ("blend", "words"),
    [([1], "blend: found 1; expected 2"), ([0, 0], "blend: found zeros"), ([1, -1], "blend: found -1")],
)
def test_invalid_blends_are_rejected(blend: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        normalized_blend(blend, 2)


@pytest.fixture(scope="module")
def network() -> VGG19:
    return VGG19.for_settings(load_weights("random", seed=0, deepest="conv3_1"), SETTINGS)


def test_masks_of_the_whole_picture_change_nothing(network: VGG19) -> None:
    content, style, x = picture(24, 32, 0), picture(20, 40, 1), picture(24, 32, 2)
    plain = Objective(network, content, [style], SETTINGS)(x)
    guided = Objective(
        network,
        content,
        [style],
        SETTINGS,
        content_masks=[np.ones((24, 32))],
        style_masks=[np.ones((20, 40))],
    )(x)
    assert guided[0] == pytest.approx(plain[0], rel=1e-12)
    np.testing.assert_allclose(guided[1], plain[1], rtol=1e-9, atol=1e-20)


def test_region_equal_to_its_style_has_no_loss(network: VGG19) -> None:
    """The left half of the picture is the left half of the style; what the right half is does not matter."""
    style = picture(32, 64, 1)
    x = style.copy()
    x[:, 40:] = picture(32, 24, 2)
    mask = np.zeros((32, 64))
    mask[:, :24] = 1  # so far from the difference that it is outside the receptive fields of conv3_1
    objective = Objective(network, x, [style], SETTINGS, content_masks=[mask], style_masks=[mask])
    loss, gradient = objective(x)
    # Not exactly 0, as a tile of Winograd's convolution rounds pixels inside with pixels outside.
    whole_loss, whole_gradient = Objective(network, x, [style], SETTINGS)(x)
    assert loss < 1e-20 * whole_loss
    assert np.abs(gradient).max() < 1e-10 * np.abs(whole_gradient).max()


def test_a_region_too_small_for_a_layer_is_left_out_there(network: VGG19) -> None:
    mask = np.zeros((17, 17))
    mask[16, 16] = 1  # the odd last pixel, which no pooling takes
    objective = Objective(
        network,
        picture(17, 17, 0),
        [picture(32, 32, 1)],
        SETTINGS,
        content_masks=[mask],
        style_masks=[np.ones((32, 32))],
    )
    assert objective(picture(17, 17, 2))[0] > 0
    assert set(objective.terms) == {"style/conv1_1", "total_variation"}
