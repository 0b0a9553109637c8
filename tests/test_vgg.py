"""The whole network: architecture, names, sizes, options, threads, and its derivative through all layers."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers import normal, picture
from npstyle import VGG19, Objective, Settings, UserError, _kernels, load_weights, preset
from npstyle._typing import Convolution, Padding, Pooling
from npstyle.architecture import (
    CONVOLUTIONS,
    LAYERS,
    POOLING_METHODS,
    PREPROCESSINGS,
    canonical,
    convolutions_up_to,
    deepest,
)
from npstyle.fused import method_of
from npstyle.gradcheck import directional
from npstyle.vgg import INPUTS, POOLINGS, Tape
from npstyle.weights import ConvWeights, Weights
from tolerances import DIRECTIONAL

Array = NDArray[Any]


@pytest.fixture(scope="module")
def weights() -> Mapping[str, ConvWeights]:
    return load_weights("random", seed=0)


def test_architecture_is_column_e() -> None:
    assert len(CONVOLUTIONS) == 16
    assert len(LAYERS) == 21
    assert list(CONVOLUTIONS.values()) == [
        *[(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256), (256, 256)],
        *[(256, 512), (512, 512), (512, 512), (512, 512), (512, 512), (512, 512), (512, 512), (512, 512)],
    ]
    assert LAYERS[-1] == "pool5"


@pytest.mark.parametrize("name", ["conv4_2", "relu4_2", "block4_conv2", " conv4_2 "])
def test_layer_synonyms(name: str) -> None:
    assert canonical(name) == "conv4_2"


@pytest.mark.parametrize(
    ("name", "hint"), [("conv4_5", "conv4_"), ("cnv4_2", "did you mean conv4_2"), ("fc6", "such as conv4_2")]
)
def test_unknown_layer_is_named(name: str, hint: str) -> None:
    with pytest.raises(UserError, match=hint):
        canonical(name)


def test_every_choice_can_be_made() -> None:
    assert tuple(POOLINGS) == POOLING_METHODS
    assert tuple(INPUTS) == PREPROCESSINGS


def test_deepest_layer_and_its_convolutions() -> None:
    assert deepest(["conv3_1", "relu4_2", "conv1_1"]) == "conv4_2"
    assert convolutions_up_to("pool1") == ("conv1_1", "conv1_2")


@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize("size", [(16, 16), (33, 20), (40, 64)])
def test_shapes_of_all_feature_maps(weights: Any, size: tuple[int, int], pooling: Pooling) -> None:
    names = [name for name in LAYERS if name != "pool5" or min(size) >= 32]
    features = VGG19(weights, pooling).forward(picture(*size, dtype=np.float32), names)
    H, W = size
    for name in names:
        if name in CONVOLUTIONS:
            assert features[name].shape == (H, W, CONVOLUTIONS[name][1])
        else:
            H, W = H // 2, W // 2
            assert features[name].shape[:2] == (H, W)
        assert features[name].dtype == np.float32
        assert features[name].min() >= 0


def test_forward_returns_the_names_given(weights: Any) -> None:
    features = VGG19(weights).forward(picture(16, 16), ["relu2_1", "conv1_1", "block2_conv1"])
    assert list(features) == ["relu2_1", "conv1_1", "block2_conv1"]
    np.testing.assert_array_equal(features["relu2_1"], features["block2_conv1"])


def test_feature_maps_are_copies(weights: Any) -> None:
    """The network reuses the memory of a feature map; what it returns must be a copy."""
    network, x = VGG19(weights), picture(32, 32)
    first = network.forward(x, LAYERS[:8])
    copies = {name: F.copy() for name, F in first.items()}
    network.forward(picture(32, 32, seed=1), LAYERS[:8])
    for name, F in first.items():
        np.testing.assert_array_equal(F, copies[name])


def test_filters_above_the_deepest_layer_are_not_read(weights: Any) -> None:
    names_read: set[str] = set()

    class Recording(dict[str, ConvWeights]):
        def __getitem__(self, name: str) -> ConvWeights:
            names_read.add(name)
            return super().__getitem__(name)

    network = VGG19(Recording(weights), preprocessing="caffe")
    network.forward(picture(16, 16), ["conv2_1", "conv1_1"])
    assert names_read == {"conv1_1", "conv1_2", "conv2_1"}


@pytest.mark.parametrize(
    ("size", "layer", "words"),
    [
        ((15, 40), "conv1_1", ["40 x 15", "16 x 16"]),
        ((40, 8), "conv5_1", ["8 x 40", "16 x 16"]),
        ((31, 31), "pool5", ["31 x 31", "32 x 32 for layer pool5", "a lower layer"]),
    ],
)
def test_too_small_picture_is_rejected(
    weights: Any, size: tuple[int, int], layer: str, words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        VGG19(weights).forward(picture(*size), [layer])
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 4), (1, 32, 32, 3)])
def test_wrong_shape_is_rejected(weights: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"\(H, W, 3\)"):
        VGG19(weights).forward(np.zeros(shape), ["conv1_1"])


def test_missing_filters_are_named() -> None:
    partial = load_weights("random", deepest="conv2_1")
    with pytest.raises(UserError, match=r"no conv2_2 \(there is conv1_1, conv1_2, conv2_1\)"):
        VGG19(partial).forward(picture(16, 16), ["conv3_1"])
    with pytest.raises(UserError, match="no conv1_1"):
        VGG19({}, preprocessing="caffe").forward(picture(16, 16), ["conv3_1"])
    wrong = {"conv1_1": ConvWeights(np.zeros((3, 3, 64, 3)), np.zeros(64))}
    with pytest.raises(UserError, match=r"\(3, 3, 3, 64\)"):
        VGG19(wrong, preprocessing="caffe").forward(picture(16, 16), ["conv1_1"])


@pytest.mark.parametrize("option", ["pooling", "padding", "convolution", "preprocessing"])
def test_unknown_options_are_rejected(weights: Any, option: str) -> None:
    options: dict[str, Any] = {option: "none"}
    with pytest.raises(UserError, match=f"{option}: found 'none'"):
        VGG19(weights, **options)


def test_network_for_settings(weights: Any) -> None:
    settings = Settings(pooling="max", padding="replicate")
    network = VGG19.for_settings(weights, settings, "im2col", 2)
    assert (network.pooling, network.padding) == ("max", "replicate")
    assert (network.convolution, network.threads, network.preprocessing) == ("im2col", 2, "caffe")


def test_integers_are_computed_in_float32(weights: Any) -> None:
    x = np.rint(picture(16, 16)).astype(np.uint8)
    network = VGG19(weights)
    F = network.forward(x, ["conv1_1"])["conv1_1"]
    assert F.dtype == np.float32
    np.testing.assert_array_equal(F, network.forward(x.astype(np.float32), ["conv1_1"])["conv1_1"])


@pytest.mark.parametrize("pooling", ["average", "max"])
def test_derivative_through_all_16_convolutions(weights: Any, pooling: Pooling) -> None:
    """Random cotangents at several depths at once; in float64, with a step too small to cross kinks."""
    network, x = VGG19(weights, pooling), picture(33, 36)
    names = ["conv1_1", "pool2", "conv3_4", "conv5_4", "pool5"]
    _, tape = network.record(x, names)
    shapes = {name: F.shape for name, F in network.forward(x, names).items()}
    ends = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes.values())])

    def forward(x: Array) -> Array:
        return np.concatenate([F.ravel() for F in network.forward(x, names).values()])

    def backward(v: Array) -> Array:
        parts = zip(shapes.items(), ends[:-1], ends[1:], strict=True)
        return network.backward(tape, {name: v[a:b].reshape(shape) for (name, shape), a, b in parts})

    assert directional(forward, backward, x, step=1e-6).error < DIRECTIONAL


def test_backward_does_not_modify_gradients_and_tape(weights: Any) -> None:
    network, x = VGG19(weights), picture(16, 16)
    features, tape = network.record(x, ["conv1_2", "conv2_1"])
    gradients = {name: np.ones_like(F) for name, F in features.items()}
    first = network.backward(tape, gradients)
    np.testing.assert_array_equal(first, network.backward(tape, gradients))
    assert all((gradient == 1).all() for gradient in gradients.values())


def test_backward_from_a_lower_layer_than_recorded(weights: Any) -> None:
    network, x = VGG19(weights), picture(16, 16)
    _, long = network.record(x, ["conv1_2", "conv3_1"])
    features, short = network.record(x, ["conv1_2"])
    gradient = {"relu1_2": normal(*features["conv1_2"].shape, seed=1)}
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
    x = picture(48, 33, dtype=dtype)
    runs = []
    for threads in (1, 2, 5):
        network = VGG19(weights, threads=threads)
        tape: Tape = []
        features = {name: F.copy() for name, F in network.walk(x, ["conv2_2", "conv5_1"], tape)}
        runs.append((network.backward(tape, features), features["conv5_1"]))
    for run in runs[1:]:
        for one, other in zip(runs[0], run, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["conv1_1", "conv1_2"])
def test_gradient_of_another_shape_or_dtype_is_rejected(weights: Any, name: str) -> None:
    network = VGG19(weights)
    features, tape = network.record(picture(16, 16), ["conv1_1", "conv1_2"])
    for wrong in (np.zeros((1, 1, 64)), features[name].astype(np.float32)):
        with pytest.raises(UserError, match=f"gradients: {name}"):
            network.backward(tape, {**features, name: wrong})


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_is_joined_to_a_convolution_that_nobody_asks_for(weights: Any, pooling: Pooling) -> None:
    network, x = VGG19(weights, pooling=pooling, convolution="winograd"), picture(17, 21)
    joined = pooling == "average"
    gradients, lower = [], normal(8, 10, 64)
    for names in (["pool1"], ["conv1_2", "pool1"]):
        _, tape = network.record(x, names)
        on_tape = "conv1_2" in [entry.step.feature_map for entry in tape]
        assert on_tape == ("conv1_2" in names or not joined)
        gradients.append(network.backward(tape, {"pool1": lower}))
    np.testing.assert_array_equal(gradients[0], gradients[1])


def test_no_layers_and_a_single_name(weights: Any) -> None:
    network = VGG19(weights)
    assert network.forward(picture(16, 16), []) == {}
    assert list(network.record(picture(16, 16), "conv1_1")[0]) == ["conv1_1"]


@pytest.mark.parametrize("convolution", ["im2col", "winograd"])
@pytest.mark.parametrize("padding", ["replicate", "wrap"])
def test_derivative_with_padding(weights: Any, convolution: Convolution, padding: Padding) -> None:
    network, x = VGG19(weights, convolution=convolution, padding=padding), picture(18, 21)
    features, tape = network.record(x, ["conv1_1", "conv2_1"])
    assert features["conv1_1"].shape == (18, 21, 64)
    cotangents = {name: normal(*F.shape, seed=n) for n, (name, F) in enumerate(features.items())}
    gradient = network.backward(tape, cotangents)

    def product(x: Any) -> float:
        return sum(float(np.vdot(cotangents[name], F)) for name, F in network.forward(x, cotangents).items())

    assert directional(product, lambda v: v * gradient, x).error < DIRECTIONAL


def test_replicate_padding_shows_no_border_in_a_flat_picture(weights: Any) -> None:
    flat = np.full((16, 20, 3), 200.0)
    F = VGG19(weights, padding="replicate").forward(flat, ["conv1_1"])["conv1_1"]
    np.testing.assert_allclose(F, np.broadcast_to(F[8, 8], F.shape), atol=1e-9)
    assert np.ptp(VGG19(weights).forward(flat, ["conv1_1"])["conv1_1"], axis=(0, 1)).max() > 1


@pytest.mark.parametrize("convolution", ["im2col", "winograd"])
def test_wrapped_feature_map_is_that_of_a_tile_among_tiles(weights: Any, convolution: Convolution) -> None:
    x = picture(16, 20)
    F = VGG19(weights, convolution=convolution, padding="wrap").forward(x, ["conv2_1"])["conv2_1"]
    among_others = VGG19(weights, convolution=convolution).forward(np.tile(x, (3, 3, 1)), ["conv2_1"])
    expected = among_others["conv2_1"][8:16, 10:20]
    np.testing.assert_allclose(F, expected, atol=1e-10 * np.abs(expected).max())


def test_preprocessing_is_what_the_weights_carry_or_the_argument(weights: Any) -> None:
    x = picture(16, 16)
    standardized = (x / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    as_caffe = standardized[:, :, ::-1] + np.array((103.939, 116.779, 123.68))
    kernel, bias = weights["conv1_1"]
    rgb = {"conv1_1": ConvWeights(kernel[:, :, ::-1], bias)}
    carried = VGG19(Weights(rgb, "test", preprocessing="torchvision"))
    given = VGG19(rgb, preprocessing="torchvision")
    F = carried.forward(x, ["conv1_1"])["conv1_1"]
    # The same numbers by the other preprocessing: its mean added, its channels reversed.
    caffe = VGG19({"conv1_1": weights["conv1_1"]}, preprocessing="caffe")
    np.testing.assert_allclose(F, caffe.forward(as_caffe[:, :, ::-1], ["conv1_1"])["conv1_1"], atol=1e-9)
    np.testing.assert_array_equal(F, given.forward(x, ["conv1_1"])["conv1_1"])


def test_preprocessing_is_not_guessed(weights: Any) -> None:
    with pytest.raises(UserError, match=r"preprocessing: found none .*dict.*; give preprocessing='caffe'"):
        VGG19(dict(weights))


def test_contradicting_preprocessing_is_rejected(weights: Any) -> None:
    assert VGG19(weights, preprocessing="caffe").preprocessing == "caffe"
    with pytest.raises(UserError, match="preprocessing: found 'torchvision'; expected 'caffe', which the we"):
        VGG19(weights, preprocessing="torchvision")


def test_unknown_preprocessing_of_weights_is_rejected(weights: Any) -> None:
    class Other(dict[str, ConvWeights]):
        preprocessing = "other"

    with pytest.raises(UserError, match="preprocessing: found 'other'"):
        VGG19(Other(weights))


def test_winograd_is_chosen_for_compiled_kernels_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert method_of("auto", "conv2_1", 64, 64) == "winograd"
    monkeypatch.setattr(_kernels, "IMPLEMENTATION", "reference")
    assert method_of("auto", "conv2_1", 64, 64) == "im2col"
    assert method_of("winograd", "conv2_1", 64, 64) == "winograd"


@pytest.mark.parametrize("convolution", ["im2col", "auto"])
def test_two_python_threads_on_one_network(weights: Any, convolution: Convolution) -> None:
    """They compute the same bits as alone, though they allocate from one arena and share lazy filters."""
    names, sizes = ["conv1_2", "conv3_1"], [(48, 33), (40, 56)]
    pictures = [picture(*size, seed=n, dtype=np.float32) for n, size in enumerate(sizes)]

    def evaluate(network: VGG19, x: Array) -> tuple[dict[str, Array], Array]:
        features, tape = network.record(x, names)
        return features, network.backward(tape, features).copy()

    expected = [evaluate(VGG19(weights, convolution=convolution), x) for x in pictures]
    network = VGG19(weights, convolution=convolution)
    barrier = threading.Barrier(2)

    def evaluate_often(x: Array) -> list[tuple[dict[str, Array], Array]]:
        barrier.wait()
        return [evaluate(network, x) for _ in range(20)]

    with ThreadPoolExecutor(2) as executor:
        results = list(executor.map(evaluate_often, pictures))
    for runs, (features, gradient) in zip(results, expected, strict=True):
        for features_of_run, gradient_of_run in runs:
            np.testing.assert_array_equal(gradient_of_run, gradient)
            for name in names:
                np.testing.assert_array_equal(features_of_run[name], features[name])


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))]
)
def test_networks_and_objectives_can_be_copied_and_pickled(
    copied: Callable[[Any], Any], weights: Mapping[str, ConvWeights]
) -> None:
    """Before and after they were used; a network shares no memory with its copy, which is used, too."""
    few = {name: weights[name] for name in convolutions_up_to("conv3_2")}
    network = VGG19(few, padding="zero", threads=1, preprocessing="caffe")
    content, pixels = picture(2 * 16, 32).reshape(2, 16, 32, 3).astype(np.float32)
    fresh = copied(network)
    objective = Objective(network, content, [content[::-1]], preset("random"))
    loss, gradient = objective(pixels)
    network.arena.release(gradient)
    for one in (Objective(fresh, content, [content[::-1]], preset("random")), copied(objective)):
        again = one(pixels)
        assert again[0] == loss
        np.testing.assert_array_equal(again[1], objective(pixels)[1])
    used = copied(network)
    assert used.arena is not network.arena
    assert used.arena.nbytes == 0 < network.arena.nbytes
    used.pooling = "max"
    assert not np.array_equal(
        used.forward(pixels, ["pool1"])["pool1"], network.forward(pixels, ["pool1"])["pool1"]
    )


@pytest.mark.parametrize("layers", [5, None])
def test_layers_that_are_no_names_are_refused(layers: Any, weights: Mapping[str, ConvWeights]) -> None:
    with pytest.raises(UserError, match="layers: found"):
        VGG19(weights).forward(picture(16, 16), layers)


@pytest.mark.parametrize("settings", [{}, None, "paper"])
def test_settings_that_are_none_are_refused(settings: Any, weights: Mapping[str, ConvWeights]) -> None:
    """By name they are those of `stylize` only."""
    with pytest.raises(UserError, match=r"settings: found a \w+; expected npstyle.Settings"):
        VGG19.for_settings(weights, settings)
    with pytest.raises(UserError, match=r"settings: found a \w+; expected npstyle.Settings"):
        Objective(VGG19(weights), picture(16, 16), [picture(16, 16)], settings)
