"""What is compared with what: shares of style pictures, regions, masks as layers see them, and bad masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from npstyle import VGG19, Objective, Settings, UserError, load_weights
from npstyle.regions import downsample_mask, normalized_blend, style_targets

CONTENT, STYLE, OTHER = np.zeros((16, 24, 3)), np.zeros((20, 30, 3)), np.zeros((32, 16, 3))


def left_half(picture: Any) -> Any:
    mask = np.zeros(picture.shape[:2])
    mask[:, : mask.shape[1] // 2] = 1
    return mask


def test_styles_are_mixed_or_compared_one_by_one() -> None:
    (mixed,) = style_targets(CONTENT, [STYLE, OTHER], [3, 1], each=False)
    assert (mixed.mask, mixed.weight) == (None, 1)
    assert [(part.style, part.weight) for part in mixed.parts] == [(0, 0.75), (1, 0.25)]
    each = style_targets(CONTENT, [STYLE, OTHER], [3, 1], each=True)
    assert [one.weight for one in each] == [0.75, 0.25]
    assert [[(part.style, part.weight) for part in one.parts] for one in each] == [[(0, 1)], [(1, 1)]]


def test_a_style_of_weight_zero_is_left_out() -> None:
    (mixed,) = style_targets(CONTENT, [STYLE, OTHER], [0, 2], each=False)
    assert [part.style for part in mixed.parts] == [1]


def test_a_region_counts_by_its_area() -> None:
    small = left_half(CONTENT)
    small[8:] = 0
    found = style_targets(CONTENT, [STYLE], None, False, [left_half(CONTENT), small], [left_half(STYLE)] * 2)
    assert [region.weight for region in found] == pytest.approx([2 / 3, 1 / 3])
    assert [region.parts[0].style for region in found] == [0, 0]


def test_of_several_styles_each_has_its_mask() -> None:
    masks = [left_half(CONTENT), 1 - left_half(CONTENT)]
    found = style_targets(CONTENT, [STYLE, OTHER], [1, 3], False, masks, [left_half(STYLE), left_half(OTHER)])
    assert [region.parts[0].style for region in found] == [0, 1]
    assert [region.weight for region in found] == pytest.approx([0.25, 0.75])


def test_shares_add_up() -> None:
    assert normalized_blend(None, 4) == [0.25] * 4
    assert normalized_blend([1, 3], 2) == [0.25, 0.75]
    assert normalized_blend(None, 0) == []


def test_a_layer_sees_means_of_cells() -> None:
    mask = np.arange(35.0).reshape(5, 7) / 35
    (found,) = downsample_mask(mask, 2, np.float32)
    assert found.dtype == np.float32
    assert found == pytest.approx([mask[:4, :4].mean()])
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
        (([np.full((16, 24), 2)], [np.ones((20, 30))]), "content mask 1: found numbers up to 2"),
        (([np.full((16, 24), np.nan)], [np.ones((20, 30))]), "content mask 1: found numbers up to nan"),
        (([np.ones((16, 24, 3))], [np.ones((20, 30))]), "content mask 1: found float64 of shape (16, 24, 3)"),
    ],
)
def test_bad_masks_are_refused(masks: Any, words: str) -> None:
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
def test_bad_blends_are_refused(blend: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        normalized_blend(blend, 2)


@pytest.fixture(scope="module")
def network() -> VGG19:
    return VGG19(load_weights("random", seed=0, deepest="conv3_1"))


SETTINGS = Settings(content_layers=(), style_layers=("conv1_1", "conv2_1", "conv3_1"))


def picture(H: int, W: int, seed: int) -> Any:
    return np.random.default_rng(seed).uniform(0, 255, (H, W, 3))


def test_masks_of_everything_change_nothing(network: VGG19) -> None:
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


def test_a_region_like_its_style_has_no_loss(network: VGG19) -> None:
    """The left half of the picture is the left half of the style; what the right half is does not matter."""
    style = picture(32, 64, 1)
    x = style.copy()
    x[:, 40:] = picture(32, 24, 2)
    mask = np.zeros((32, 64))
    mask[:, :24] = 1  # so far from the difference that conv3_1 does not see it from there
    objective = Objective(network, x, [style], SETTINGS, content_masks=[mask], style_masks=[mask])
    loss, gradient = objective(x)
    # Winograd's tiles round what is inside with what is outside.
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
