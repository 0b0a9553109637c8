"""`npstyle gradcheck`: every derivative against its function, in numbers; and what a mistake looks like.

Exit status: 0 all gradients are right, 1 one is wrong, whether a mistake was planted (--break) or not,
2 wrong usage. Everything is computed in float64, with fixed seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npstyle import fused, layers, losses, objective
from npstyle._typing import Preprocessing
from npstyle.cli.terminal import DONE, FAILED, Parser, print_out
from npstyle.gradcheck import BOUNDS, Compared, adjoint, directional
from npstyle.layers import Array
from npstyle.settings import Settings
from npstyle.vgg import VGG19
from npstyle.weights import Weights, load_weights

Changed = Callable[[Any], Any]


class Check(NamedTuple):
    """A name, how it is checked, the check, and what is special about it."""

    name: str
    by: str  # a key of BOUNDS
    compare: Callable[[], Compared]
    about: str


class Mistake(NamedTuple):
    """What is planted, in words, and where: owner, attribute, and from the right one to the wrong one."""

    about: str
    changes: Sequence[tuple[Any, str, Changed]]


def _normal(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal(shape)


def _layer(compare: Callable[..., Compared], layer: layers.Layer, x: Array) -> Compared:
    """A layer that keeps what it remembers of x, forward and backward."""
    _, cache = layer.forward(x)
    return compare(lambda x: layer.forward(x)[0], lambda v: layer.backward(v, cache), x)


def _linear(make: Callable[[], layers.Layer]) -> Compared:
    return _layer(adjoint, make(), _normal(7, 9, 3))


def _conv2d() -> layers.Layer:
    return layers.Conv2D(_normal(3, 3, 3, 4, seed=1), _normal(4, seed=2))


def _fused(make: Any, C: int, compare: Callable[..., Compared], bias: Array) -> Compared:
    """A convolution with its ReLU; biases so large that no output is near the kink."""
    return _layer(compare, make(_normal(3, 3, C, 64, seed=1), bias), _normal(13, 11, C))


def _all_positive(make: Any, C: int) -> Compared:
    return _fused(make, C, adjoint, np.full(64, 1e3))


def _either_sign(make: Any, C: int) -> Compared:
    return _fused(make, C, directional, 1e3 * np.sign(_normal(64, seed=2)))


def _relu() -> Compared:
    x = _normal(7, 9, 3)
    return _layer(directional, layers.ReLU(), np.where(np.abs(x) < 0.01, 0.5, x))


def _max_pool() -> Compared:
    """All values a distance apart, so that no step changes a winner."""
    x = np.random.default_rng(0).permutation(7.0 * np.arange(7 * 9 * 3)).reshape(7, 9, 3)
    return _layer(directional, layers.MaxPool(), x)


def _loss(name: str, *arguments: Any) -> Compared:
    """A loss of a response of 6 channels; looked up by its name, so that a planted mistake is met."""
    loss, F = getattr(losses, name), _normal(5, 7, 6)
    return directional(lambda F: loss(F, *arguments)[0], lambda v: v * loss(F, *arguments)[1], F)


def _style() -> Compared:
    return _loss("style_loss", _a_mean(), 0.7)


def _guided_style() -> Compared:
    T = np.random.default_rng(4).uniform(0, 1, (5, 7)) * (np.arange(7) > 2)
    return _loss("guided_style_loss", T, _a_mean(), 0.7)


def _a_mean() -> NDArray[np.float64]:
    return losses.gram_matrix(_normal(9, 4, 6, seed=2)) / 36


def _picture(H: int, W: int, seed: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(0, 255, (H, W, 3))


# conv5_4 is the last of the 16 convolutions. By im2col, as Winograd's larger rounding would drown the
# difference of two losses. The weights are such that content, style and total variation weigh about the same:
# a mistake in any of them shows.
WHOLE = Settings(
    content_layers=("conv1_2", "conv4_2"),
    style_layers=("conv1_1", "conv1_2", "conv2_1", "conv3_1", "conv4_1", "conv5_4"),
    style_weight=1e4,
    tv_weight=1e4,
    scaling="paper",
    tv_form="mean-squares",
    pooling="average",
    padding="zero",
)
OTHERWISE = replace(
    WHOLE,
    scaling="relative",
    style_weight=2e-3,
    tv_weight=5e-9,
    tv_form="power-1.25",
    pooling="max",
    padding="replicate",
)


def _objective(settings: Settings, preprocessing: Preprocessing, regions: bool = False) -> Compared:
    drawn = load_weights("random", seed=1)
    weights = Weights(drawn, drawn.source, random=True, preprocessing=preprocessing)
    network = VGG19.for_settings(weights, settings, "im2col")
    content, style, x = _picture(32, 35, 0), _picture(20, 40, 1), _picture(32, 35, 2)
    masks: dict[str, Any] = {}
    if regions:
        left, upper = np.arange(35) < 17, np.arange(20) < 10
        inside, like = np.tile(left, (32, 1)), np.tile(upper[:, None], (1, 40))
        masks = {"content_masks": [inside, ~inside], "style_masks": [like, ~like]}
    loss = objective.Objective(network, content, [style], settings, **masks)
    gradient = loss(x)[1]
    return directional(lambda x: loss(x)[0], lambda v: v * gradient, x)


WINOGRAD, FIRST_LAYER = (fused.WinogradConvReLU, 32), (fused.FirstLayerConvReLU, 3)
KINK = "away from the kink"
CHECKS = [
    Check("Conv2D", "adjoint", lambda: _linear(_conv2d), "one matrix product, 3 to 4 channels"),
    Check("WinogradConvReLU", "adjoint", lambda: _all_positive(*WINOGRAD), "where all outputs are positive"),
    Check("WinogradConvReLU", "directional", lambda: _either_sign(*WINOGRAD), KINK),
    Check(
        "FirstLayerConvReLU", "adjoint", lambda: _all_positive(*FIRST_LAYER), "where all outputs are positive"
    ),
    Check("FirstLayerConvReLU", "directional", lambda: _either_sign(*FIRST_LAYER), KINK),
    Check("ReLU", "directional", _relu, KINK),
    Check("AveragePool", "adjoint", lambda: _linear(layers.AveragePool), "odd height and width"),
    Check("MaxPool", "directional", _max_pool, "odd height and width, away from ties"),
    Check("CaffeInput", "adjoint", lambda: _linear(layers.CaffeInput), "RGB to BGR, without the mean"),
    Check("TorchvisionInput", "adjoint", lambda: _linear(layers.TorchvisionInput), "shifted and scaled"),
    Check("ReplicatePad", "adjoint", lambda: _linear(layers.ReplicatePad), "the border, once more"),
    Check("Crop", "adjoint", lambda: _linear(layers.Crop), "without the border"),
    Check("content", "directional", lambda: _loss("content_loss", _normal(5, 7, 6, seed=1), 0.3), ""),
    Check("style", "directional", _style, ""),
    Check("guided-style", "directional", _guided_style, "of a region with soft edges"),
    Check("tv-mean-squares", "directional", lambda: _loss("total_variation", 1.7), ""),
    Check("tv-sum-squares", "directional", lambda: _loss("total_variation", 1.7, "sum-squares"), ""),
    Check("tv-power-1.25", "directional", lambda: _loss("total_variation", 1.7, "power-1.25"), ""),
    Check(
        "objective-paper",
        "directional",
        lambda: _objective(WHOLE, "caffe"),
        "all 16 convolutions, average pooling, zeros outside, the paper's scaling",
    ),
    Check(
        "objective-relative",
        "directional",
        lambda: _objective(OTHERWISE, "torchvision", regions=True),
        "the same with two regions, maximum pooling, a replicated border, relative scaling",
    ),
]


def _with_kernel(change: Callable[[Array], Array]) -> Changed:
    """Backward of a layer with another kernel (3, 3, C, K)."""

    def changed(right: Any) -> Any:
        def backward(layer: Any, dy: Array, cache: Any = None, accumulate_into: Array | None = None) -> Any:
            K = layer.bias.size
            kernel = layer.kernel if isinstance(layer, layers.Conv2D) else layer.matrix
            wrong = change(kernel.reshape(3, 3, -1, K))
            other = type(layer)(wrong, layer.bias, layer.threads, layer.arena)
            return right(other, dy, cache, accumulate_into)

        return backward

    return changed


def _with_arguments(change: Callable[[Array, Any], tuple[Array, Any]]) -> Changed:
    """Backward with another derivative or another cache."""

    def changed(right: Any) -> Any:
        def backward(layer: Any, dy: Array, cache: Any = None, accumulate_into: Array | None = None) -> Any:
            return right(layer, *change(dy, cache), accumulate_into)

        return backward

    return changed


def _instead(wrong: Callable[[Array], Array]) -> Changed:
    """Backward that is something else altogether."""

    def changed(right: Any) -> Any:
        def backward(layer: Any, dy: Array, cache: Any = None, accumulate_into: Array | None = None) -> Any:
            dx = np.ascontiguousarray(wrong(dy))
            return dx if accumulate_into is None else np.add(accumulate_into, dx, out=accumulate_into)

        return backward

    return changed


def _times(factor: float) -> Changed:
    """A loss whose derivative has another factor."""

    def changed(right: Any) -> Any:
        def loss(*arguments: Any, **named: Any) -> tuple[float, Array]:
            value, gradient = right(*arguments, **named)
            return value, np.multiply(gradient, factor, out=gradient)

        return loss

    return changed


def _whole_region(right: Any) -> Any:
    """The guided style loss, its derivative not restricted to the region."""

    def loss(F: Array, T: Array, A_mean: Any, scale: float = 1.0, *others: Any) -> tuple[float, Array]:
        M = losses.sum_of_squares(T)
        value, dF = losses.style_loss(F * T[:, :, None], A_mean, scale, positions=M)
        return value, dF

    return loss


def _everywhere(name: str, change: Changed) -> list[tuple[Any, str, Changed]]:
    """A loss where it is made, and where the objective takes it from."""
    return [(losses, name, change), (objective, name, change)]


def _backwards(change: Changed, *owners: Any) -> list[tuple[Any, str, Changed]]:
    return [(owner, "backward", change) for owner in owners]


CONVOLUTIONS = (layers.Conv2D, fused.WinogradConvReLU, fused.FirstLayerConvReLU)
RECTIFIERS = (layers.ReLU, fused.WinogradConvReLU, fused.FirstLayerConvReLU)
MISTAKES = {
    "unflipped-kernel": Mistake(
        "convolutions go backward with a kernel that is not turned by 180 degrees",
        _backwards(_with_kernel(lambda kernel: kernel[::-1, ::-1]), *CONVOLUTIONS),
    ),
    "transposed-channels": Mistake(
        "the channels of the kernel that goes backward are not exchanged, only its shape is changed",
        _backwards(
            _with_kernel(
                lambda kernel: kernel.reshape(3, 3, kernel.shape[3], kernel.shape[2]).swapaxes(2, 3)
            ),
            *CONVOLUTIONS,
        ),
    ),
    "forgotten-mask": Mistake(
        "ReLU lets every derivative through",
        _backwards(_with_arguments(lambda dy, bits: (dy, np.full_like(bits, 255))), *RECTIFIERS),
    ),
    "forgotten-quarter": Mistake(
        "average pooling gives each pixel of a cell all of dy",
        _backwards(_with_arguments(lambda dy, shape: (4 * dy, shape)), layers.AveragePool),
    ),
    "forgotten-winner": Mistake(
        "maximum pooling gives dy to the first pixel of a cell",
        _backwards(
            _with_arguments(lambda dy, cache: (dy, (np.zeros_like(cache[0]), cache[1]))), layers.MaxPool
        ),
    ),
    "channels-not-turned-back": Mistake(
        "the derivative reaches the pixels in the order blue, green, red",
        _backwards(_instead(lambda dy: dy), layers.CaffeInput),
    ),
    "forgotten-deviation": Mistake(
        "the derivative is divided by 255, but not by the standard deviation",
        _backwards(_instead(lambda dy: dy / 255), layers.TorchvisionInput),
    ),
    "forgotten-border": Mistake(
        "what the copies of the border contribute is not added to it",
        _backwards(_instead(lambda dy: dy[1:-1, 1:-1]), layers.ReplicatePad),
    ),
    "shifted-crop": Mistake(
        "what was cropped comes back one row too far down",
        _backwards(_with_arguments(lambda dy, shape: (np.roll(dy, 1, axis=0), shape)), layers.Crop),
    ),
    "content-sign": Mistake("P - F in place of F - P", _everywhere("content_loss", _times(-1))),
    "lost-factor-2": Mistake(
        "F dG in place of F (dG + dG'): as if F stood only once in G = F'F",
        _everywhere("style_loss", _times(0.5)),
    ),
    "forgotten-region": Mistake(
        "the derivative of the guided style loss is not multiplied by T again",
        _everywhere("guided_style_loss", _whole_region),
    ),
    "square-without-2": Mistake(
        "the derivative of total variation without the 2 of a square",
        _everywhere("total_variation", _times(0.5)),
    ),
}


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Put a mistake into the code, and take it out again; none for None."""
    changes = MISTAKES[name].changes if name else []
    right = [vars(owner)[attribute] for owner, attribute, _ in changes]
    try:
        for (owner, attribute, change), value in zip(changes, right, strict=True):
            setattr(owner, attribute, change(value))
        yield
    finally:
        for (owner, attribute, _), value in zip(changes, right, strict=True):
            setattr(owner, attribute, value)


def main(argv: list[str]) -> int:
    """Do what the words after `npstyle gradcheck` say, and return the exit status."""
    options = _parser().parse_args(argv)
    if options.list:
        _list()
        return DONE
    if options.mistake:
        print_out(f"planted: {options.mistake}: {MISTAKES[options.mistake].about}")
    wanted = [check for check in CHECKS if check.name in (options.names or NAMES)]
    print_out(f"{'check':20}{'by':13}{'analytic':>18}{'numeric':>18}{'error':>9}{'bound':>8}  verdict")
    with planted(options.mistake):
        wrong = sum(not _is_right(check) for check in wanted)
    count = f"{len(wanted)} check" + "s" * (len(wanted) != 1)
    print_out(f"{count}, {wrong} found something wrong" if wrong else f"{count}, all right")
    return FAILED if wrong else DONE


NAMES = list(dict.fromkeys(check.name for check in CHECKS))


def _parser() -> Parser:
    parser = Parser(
        prog="npstyle gradcheck",
        description="Compare every derivative with its function, in float64.",
        epilog="Exit status: 0 all gradients are right, 1 one is wrong (so with --break), 2 wrong usage.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("names", metavar="CHECK", nargs="*", type=_name, help="one of --list (all of them)")
    add(
        "--break", dest="mistake", metavar="MISTAKE", choices=MISTAKES, help="plant a mistake of --list first"
    )
    add("--list", action="store_true", help="the names of checks and mistakes")
    return parser


def _name(text: str) -> str:
    if text not in NAMES:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected one of {', '.join(NAMES)}")
    return text


def _list() -> None:
    print_out("checks:")
    for check in CHECKS:
        print_out(f"  {check.name:26}{check.by:13}{check.about}".rstrip())
    print_out("mistakes, for --break:")
    for name, mistake in MISTAKES.items():
        print_out(f"  {name:26}{mistake.about}")


def _is_right(check: Check) -> bool:
    """Compare, and print a line about it."""
    analytic, numeric = compared = check.compare()
    bound = BOUNDS[check.by]
    right = compared.error < bound  # not so of a NaN
    print_out(
        f"{check.name:20}{check.by:13}{analytic:18.10g}{numeric:18.10g}{compared.error:9.0e}{bound:8.0e}  "
        + ("right" if right else "WRONG")
    )
    return right
