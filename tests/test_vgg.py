"""The network as a whole: its table, its names, its sizes, and its derivative through all 16 layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gradcheck import directional_error
from npstyle import VGG19, UserError, load_weights
from npstyle.architecture import CONVOLUTIONS, LAYERS, POOLING_METHODS, canonical, convolutions_up_to, deepest
from npstyle.vgg import POOLINGS, Tape
from npstyle.weights import ConvWeights
from tolerances import DIRECTIONAL

Array = NDArray[Any]


@pytest.fixture(scope="module")
def weights() -> Mapping[str, ConvWeights]:
    return load_weights("random", seed=0)


def picture(H: int, W: int, dtype: Any = np.float64, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(0, 255, (H, W, 3)).astype(dtype)


def test_the_table_is_column_e() -> None:
    assert len(CONVOLUTIONS) == 16
    assert len(LAYERS) == 21
    assert list(CONVOLUTIONS.values()) == [
        *[(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256), (256, 256)],
        *[(256, 512), (512, 512), (512, 512), (512, 512), (512, 512), (512, 512), (512, 512), (512, 512)],
    ]
    assert LAYERS[-1] == "pool5"


@pytest.mark.parametrize("name", ["conv4_2", "relu4_2", "block4_conv2", " conv4_2 "])
def test_one_layer_has_several_names(name: str) -> None:
    assert canonical(name) == "conv4_2"


@pytest.mark.parametrize(
    ("name", "hint"), [("conv4_5", "conv4_"), ("cnv4_2", "did you mean conv4_2"), ("fc6", "such as conv4_2")]
)
def test_an_unknown_layer_is_named(name: str, hint: str) -> None:
    with pytest.raises(UserError, match=hint):
        canonical(name)


def test_every_pooling_method_that_is_named_can_be_made() -> None:
    assert tuple(POOLINGS) == POOLING_METHODS


def test_deepest_and_what_it_needs() -> None:
    assert deepest(["conv3_1", "relu4_2", "conv1_1"]) == "conv4_2"
    assert convolutions_up_to("pool1") == ("conv1_1", "conv1_2")


@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize("size", [(16, 16), (33, 20), (40, 64)])
def test_shapes_of_all_responses(weights: Any, size: tuple[int, int], pooling: str) -> None:
    names = [name for name in LAYERS if name != "pool5" or min(size) >= 32]
    responses = VGG19(weights, pooling=pooling).forward(picture(*size, np.float32), names)
    H, W = size
    for name in names:
        if name in CONVOLUTIONS:
            assert responses[name].shape == (H, W, CONVOLUTIONS[name][1])
        else:
            H, W = H // 2, W // 2
            assert responses[name].shape[:2] == (H, W)
        assert responses[name].dtype == np.float32
        assert responses[name].min() >= 0


def test_forward_answers_by_the_names_it_was_asked_with(weights: Any) -> None:
    responses = VGG19(weights).forward(picture(16, 16), ["relu2_1", "conv1_1", "block2_conv1"])
    assert list(responses) == ["relu2_1", "conv1_1", "block2_conv1"]
    np.testing.assert_array_equal(responses["relu2_1"], responses["block2_conv1"])


def test_responses_stay_as_they_are_when_the_network_goes_on(weights: Any) -> None:
    """The memory of a response is used again inside; what is handed out must be a copy."""
    network, x = VGG19(weights), picture(32, 32)
    first = network.forward(x, LAYERS[:8])
    kept = {name: response.copy() for name, response in first.items()}
    network.forward(picture(32, 32, seed=1), LAYERS[:8])
    for name, response in first.items():
        np.testing.assert_array_equal(response, kept[name])


def test_nothing_above_the_deepest_layer_is_looked_at(weights: Any) -> None:
    class Watched(dict[str, ConvWeights]):
        looked_at: set[str] = set()  # noqa: RUF012

        def __getitem__(self, name: str) -> ConvWeights:
            self.looked_at.add(name)
            return super().__getitem__(name)

    watched = Watched(weights)
    VGG19(watched).forward(picture(16, 16), ["conv2_1", "conv1_1"])
    assert Watched.looked_at == {"conv1_1", "conv1_2", "conv2_1"}


@pytest.mark.parametrize(
    ("size", "layer", "words"),
    [
        ((15, 40), "conv1_1", ["40 x 15", "16 x 16"]),
        ((40, 8), "conv5_1", ["8 x 40", "16 x 16"]),
        ((31, 31), "pool5", ["31 x 31", "32 x 32 for layer pool5", "a lower layer"]),
    ],
)
def test_a_picture_too_small_is_refused(
    weights: Any, size: tuple[int, int], layer: str, words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        VGG19(weights).forward(picture(*size), [layer])
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 4), (1, 32, 32, 3)])
def test_a_wrong_shape_is_refused(weights: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"\(H, W, 3\)"):
        VGG19(weights).forward(np.zeros(shape), ["conv1_1"])


def test_missing_filters_are_named() -> None:
    partial = load_weights("random", deepest="conv2_1")
    with pytest.raises(UserError, match=r"no conv2_2 \(there is conv1_1, conv1_2, conv2_1\)"):
        VGG19(partial).forward(picture(16, 16), ["conv3_1"])
    with pytest.raises(UserError, match="no conv1_1"):
        VGG19({}).forward(picture(16, 16), ["conv3_1"])
    wrong = {"conv1_1": ConvWeights(np.zeros((3, 3, 64, 3)), np.zeros(64))}
    with pytest.raises(UserError, match=r"\(3, 3, 3, 64\)"):
        VGG19(wrong).forward(picture(16, 16), ["conv1_1"])


@pytest.mark.parametrize("option", ["pooling", "convolution"])
def test_unknown_options_are_refused(weights: Any, option: str) -> None:
    with pytest.raises(UserError, match=option):
        VGG19(weights, **{option: "none"})  # type: ignore[arg-type]


def test_whole_numbers_are_computed_in_float32(weights: Any) -> None:
    x = np.rint(picture(16, 16)).astype(np.uint8)
    network = VGG19(weights)
    found = network.forward(x, ["conv1_1"])["conv1_1"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, network.forward(x.astype(np.float32), ["conv1_1"])["conv1_1"])


@pytest.mark.parametrize("pooling", ["average", "max"])
def test_the_derivative_through_all_16_layers(weights: Any, pooling: str) -> None:
    """Random cotangents enter at several depths at once; in float64, a step too small to cross kinks."""
    network, x = VGG19(weights, pooling=pooling), picture(33, 36)
    names = ["conv1_1", "pool2", "conv3_4", "conv5_4", "pool5"]
    _, tape = network.record(x, names)
    shapes = {name: response.shape for name, response in network.forward(x, names).items()}
    ends = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes.values())])

    def forward(x: Array) -> Array:
        return np.concatenate([response.ravel() for response in network.forward(x, names).values()])

    def backward(v: Array) -> Array:
        parts = zip(shapes.items(), ends[:-1], ends[1:], strict=True)
        return network.backward(tape, {name: v[a:b].reshape(shape) for (name, shape), a, b in parts})

    assert directional_error(forward, backward, x, step=1e-6) < DIRECTIONAL


def test_backward_leaves_the_gradients_and_the_tape_alone(weights: Any) -> None:
    network, x = VGG19(weights), picture(16, 16)
    responses, tape = network.record(x, ["conv1_2", "conv2_1"])
    gradients = {name: np.ones_like(response) for name, response in responses.items()}
    first = network.backward(tape, gradients)
    np.testing.assert_array_equal(first, network.backward(tape, gradients))
    assert all((gradient == 1).all() for gradient in gradients.values())


def test_backward_from_a_lower_layer_than_recorded(weights: Any) -> None:
    network, x = VGG19(weights), picture(16, 16)
    _, long = network.record(x, ["conv1_2", "conv3_1"])
    responses, short = network.record(x, ["conv1_2"])
    gradient = {"relu1_2": np.random.default_rng(1).standard_normal(responses["conv1_2"].shape)}
    np.testing.assert_array_equal(network.backward(long, gradient), network.backward(short, gradient))


def test_backward_needs_layers_of_the_tape(weights: Any) -> None:
    network = VGG19(weights)
    _, tape = network.record(picture(16, 16), ["conv1_1"])
    with pytest.raises(UserError, match="conv2_1"):
        network.backward(tape, {"conv2_1": np.zeros((8, 8, 128))})
    with pytest.raises(UserError, match="none"):
        network.backward(tape, {})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_do_not_change_a_bit(weights: Any, dtype: Any) -> None:
    x = picture(48, 33, dtype)
    runs = []
    for threads in (1, 2, 5):
        network = VGG19(weights, threads=threads)
        tape: Tape = []
        responses = {name: F.copy() for name, F in network.walk(x, ["conv2_2", "conv5_1"], tape)}
        runs.append((network.backward(tape, responses), responses["conv5_1"]))
    for run in runs[1:]:
        for one, other in zip(runs[0], run, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["conv1_1", "conv1_2"])
def test_a_gradient_of_another_shape_or_dtype_is_refused(weights: Any, name: str) -> None:
    network = VGG19(weights)
    responses, tape = network.record(picture(16, 16), ["conv1_1", "conv1_2"])
    for wrong in (np.zeros((1, 1, 64)), responses[name].astype(np.float32)):
        with pytest.raises(UserError, match=f"gradients: {name}"):
            network.backward(tape, {**responses, name: wrong})


def test_no_layers_no_responses_and_one_name_needs_no_list(weights: Any) -> None:
    network = VGG19(weights)
    assert network.forward(picture(16, 16), []) == {}
    assert list(network.record(picture(16, 16), "conv1_1")[0]) == ["conv1_1"]


@pytest.mark.parametrize("convolution", ["im2col", "winograd"])
def test_the_derivative_with_a_border_continued(weights: Any, convolution: str) -> None:
    network, x = VGG19(weights, convolution=convolution, padding="replicate"), picture(18, 21)
    responses, tape = network.record(x, ["conv1_1", "conv2_1"])
    assert responses["conv1_1"].shape == (18, 21, 64)
    cotangents = {
        name: np.random.default_rng(n).standard_normal(F.shape)
        for n, (name, F) in enumerate(responses.items())
    }
    gradient = network.backward(tape, cotangents)

    def product(x: Any) -> float:
        return sum(float(np.vdot(cotangents[name], F)) for name, F in network.forward(x, cotangents).items())

    assert directional_error(product, lambda v: v * gradient, x) < DIRECTIONAL


def test_a_flat_picture_has_no_border_where_it_is_continued(weights: Any) -> None:
    flat = np.full((16, 20, 3), 200.0)
    F = VGG19(weights, padding="replicate").forward(flat, ["conv1_1"])["conv1_1"]
    np.testing.assert_allclose(F, np.broadcast_to(F[8, 8], F.shape), atol=1e-9)
    assert np.ptp(VGG19(weights).forward(flat, ["conv1_1"])["conv1_1"], axis=(0, 1)).max() > 1


def test_filters_bring_the_preprocessing_of_their_pixels(weights: Any) -> None:
    class Others(dict):  # type: ignore[type-arg]
        preprocessing = "torchvision"

    x = picture(16, 16)
    shifted = (x / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    as_caffe = shifted[:, :, ::-1] + np.array((103.939, 116.779, 123.68))
    kernel, bias = weights["conv1_1"]
    turned = {"conv1_1": type(weights["conv1_1"])(kernel[:, :, ::-1], bias)}
    found = VGG19(Others(turned)).forward(x, ["conv1_1"])["conv1_1"]
    # The same numbers by the other preprocessing: its mean added, its order turned round.
    expected = VGG19({"conv1_1": weights["conv1_1"]}).forward(as_caffe[:, :, ::-1], ["conv1_1"])["conv1_1"]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    Others.preprocessing = "other"
    with pytest.raises(UserError, match="preprocessing: found 'other'"):
        VGG19(Others(turned))
