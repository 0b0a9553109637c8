"""VGG19 as a function with a derivative: forward to named layers, backward from named gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npstyle import _kernels
from npstyle._runtime import threads as _threads
from npstyle._runtime.arena import Arena
from npstyle.architecture import (
    CONVOLUTION_METHODS,
    CONVOLUTIONS,
    LAYERS,
    PADDINGS,
    block_of,
    canonical,
    deepest,
    log2_stride,
)
from npstyle.errors import UserError, check_choice
from npstyle.layers import (
    AveragePool,
    CaffeInput,
    Conv2D,
    Crop,
    FirstLayerConvReLU,
    Layer,
    MaxPool,
    ReLU,
    ReplicatePad,
    TorchvisionInput,
    WinogradConvReLU,
)

Array = NDArray[np.floating]

MIN_SIZE = 16  # pixels on a side: below, block 5 would have nothing left to look at
MIN_PIXELS_FOR_WINOGRAD = 60  # pixels of a layer: below, im2col is faster (docs/performance.md)
FUSED: dict[str, Callable[..., Layer]] = {"winograd": WinogradConvReLU, "first_layer": FirstLayerConvReLU}
POOLINGS: dict[str, Callable[..., Layer]] = {"average": AveragePool, "max": MaxPool}
# What the filters were trained on: see weights/README.md.
INPUTS: dict[str, Callable[[], Layer]] = {"caffe": CaffeInput, "torchvision": TorchvisionInput}


class Filters(Protocol):
    """Filters of one convolution: kernel (3, 3, C, K) in the order height, width, in, out; bias (K,)."""

    @property
    def kernel(self) -> Array: ...

    @property
    def bias(self) -> Array: ...


class Step(NamedTuple):
    """One layer in the chain, and the name of the response it completes, if it completes one."""

    layer: Layer
    response: str | None


class Recorded(NamedTuple):
    """A step taken, what its layer remembers of it, and what came out."""

    step: Step
    cache: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


# What a forward pass leaves for the backward pass.
Tape = list[Recorded]


class VGG19:
    """The convolutional part of VGG19 with frozen filters.

    A response named `conv4_2` is that layer's output after its ReLU. Nothing above the deepest layer
    asked for is computed, nor are its filters looked at.

    Parameters
    ----------
    weights : mapping of str to Filters
        By the paper's names; it may stop anywhere. An attribute `preprocessing`, "caffe" or "torchvision",
        tells what pixels its filters were trained on; "caffe" if there is none.
    pooling : {"average", "max"}
        The paper takes averages (section 2), the network was trained with maxima.
    convolution : {"auto", "im2col", "winograd"}
        How convolutions are computed. "im2col" is the textbook's way: one matrix product. "winograd" needs
        a fifth of the multiplications, in all layers but conv1_1, which has three channels. "auto" takes
        for each layer and size what is faster.
    threads : int, optional
        Every available core, if left out. The result does not depend on it.
    padding : {"zero", "replicate"}
        What conv1_1 sees beyond the picture's border: the mean color, as the network was trained, or the
        outermost pixels again. Deeper layers see zeros.

    Examples
    --------
    >>> import npstyle
    >>> network = npstyle.VGG19(npstyle.load_weights("random", seed=0))
    >>> network.forward(np.zeros((32, 48, 3)), layers=["conv2_1"])["conv2_1"].shape
    (16, 24, 128)
    """

    def __init__(
        self,
        weights: Mapping[str, Filters],
        pooling: str = "average",
        convolution: str = "auto",
        threads: int | None = None,
        padding: str = "zero",
    ) -> None:
        check_choice("pooling", pooling, POOLINGS)
        check_choice("padding", padding, PADDINGS)
        check_choice("convolution", convolution, CONVOLUTION_METHODS)
        self.weights = weights
        self.pooling = pooling
        self.padding = padding
        self.preprocessing = preprocessing_of(weights)
        self.convolution = convolution
        self.threads = _threads.resolve(threads)
        _kernels.warn_without_openmp(threads)
        self.arena = Arena()
        self._steps: dict[tuple[Any, ...], list[Step]] = {}

    def walk(
        self, pixels: ArrayLike, layers: Iterable[str], tape: Tape | None = None
    ) -> Iterator[tuple[str, Array]]:
        """Yield each response asked for as soon as it is there, from the pixels up.

        Parameters
        ----------
        pixels : (H, W, 3) array
            RGB, 0..255. float64 is computed in float64, everything else in float32.
        layers : iterable of str
            Their order does not matter.
        tape : list, optional
            Filled with what `backward` needs.

        Yields
        ------
        name : str
        response : (h, w, K) array
            To be read, and only until the next one is asked for: then its memory is used again.

        Raises
        ------
        UserError
            Unknown layer, no filters for it, or a picture too small for it.
        """
        wanted = {canonical(name) for name in _names(layers)}
        x = _as_pixels(pixels)
        check_size(x.shape, wanted, "picture")
        if not wanted:
            return
        for step in self._chain(deepest(wanted), x):
            y, cache = step.layer.forward(x)
            if y is not x:
                self.arena.release(x)
            x = y
            if tape is not None:
                tape.append(Recorded(step, cache, y.shape, y.dtype))
            if step.response in wanted:
                yield step.response, x
        self.arena.release(x)

    def forward(self, pixels: ArrayLike, layers: Iterable[str]) -> dict[str, Array]:
        """Responses {name: (h, w, K)} to pixels (H, W, 3), RGB, 0..255; names as they were asked for."""
        layers = _names(layers)
        responses = {name: F.copy() for name, F in self.walk(pixels, layers)}
        return {name: responses[canonical(name)] for name in layers}

    def record(self, pixels: ArrayLike, layers: Iterable[str]) -> tuple[dict[str, Array], Tape]:
        """As `forward`, and the tape that `backward` needs; names are the paper's."""
        tape: Tape = []
        return {name: F.copy() for name, F in self.walk(pixels, layers, tape)}, tape

    def backward(self, tape: Tape, gradients: Mapping[str, Array], overwrite: bool = False) -> Array:
        """Derivative of a loss with respect to the pixels, from those with respect to responses.

        The chain rule from the top down: what comes from above and what is named here add up, and
        each layer carries the sum one step further.

        Parameters
        ----------
        tape : list
            From `record` or `walk`. It can be used again.
        gradients : {name: (h, w, K) array}
            dLoss / dresponse for some of the layers recorded.
        overwrite : bool
            The gradients given are not needed any more: add up in their memory, and give back what is from
            `arena`.

        Returns
        -------
        (H, W, 3) array
        """
        named_gradients = {canonical(name): gradient for name, gradient in gradients.items()}
        _check_gradients(named_gradients, tape)
        sums: dict[str | None, Array] = {
            name: gradient if overwrite else gradient.copy() for name, gradient in named_gradients.items()
        }
        # What each layer's input is called: where a gradient for it is named, dx is added to that.
        inputs = [None, *(recorded.step.response for recorded in tape[:-1])]
        dx = sums.get(tape[-1].step.response)
        for (step, cache, _, _), below in zip(reversed(tape), reversed(inputs), strict=True):
            accumulate_into = sums.get(below)
            if dx is None:
                dx = accumulate_into
                continue
            dy, dx = dx, step.layer.backward(dx, cache, accumulate_into)
            if dy is not dx:
                self.arena.release(dy)
        assert dx is not None  # _check_gradients has seen one on the tape
        return dx

    def _chain(self, top: str, x: Array) -> Iterator[Step]:
        """The layers from the pixels x to a response, made when first asked for and kept."""
        H, W, _ = x.shape
        yield Step(INPUTS[self.preprocessing](), None)
        for name in LAYERS[: LAYERS.index(top) + 1]:
            halved = block_of(name) - 1
            key = (name, x.dtype, method_of(self.convolution, name, H >> halved, W >> halved))
            if key not in self._steps:
                self._steps[key] = list(self._make(*key))
            yield from self._steps[key]

    def _make(self, name: str, dtype: np.dtype[Any], method: str) -> Iterator[Step]:
        if name not in CONVOLUTIONS:
            yield Step(POOLINGS[self.pooling](self.threads, self.arena), name)
            return
        kernel, bias = filters_of(self.weights, name)
        kernel, bias = kernel.astype(dtype, copy=False), bias.astype(dtype, copy=False)
        padded = name == "conv1_1" and self.padding == "replicate"
        if padded:
            yield Step(ReplicatePad(), None)
        response = None if padded else name
        if method in FUSED:
            yield Step(FUSED[method](kernel, bias, self.threads, self.arena), response)
        else:
            yield Step(Conv2D(kernel, bias, self.threads, self.arena), None)
            yield Step(ReLU(in_place=True, threads=self.threads), response)
        if padded:
            yield Step(Crop(self.arena), name)


def method_of(convolution: str, name: str, H: int, W: int) -> str:
    """How a layer of H x W pixels is computed: "im2col", "winograd", or "first_layer" (three channels)."""
    if name not in CONVOLUTIONS or convolution == "im2col":
        return "im2col"
    if CONVOLUTIONS[name][0] == 3:
        return "first_layer"
    if convolution == "auto":
        return "winograd" if H * W >= MIN_PIXELS_FOR_WINOGRAD else "im2col"
    return convolution


def preprocessing_of(weights: Mapping[str, Filters]) -> str:
    """What pixels the filters were trained on, "caffe" or "torchvision"."""
    preprocessing = getattr(weights, "preprocessing", "caffe")
    check_choice("preprocessing", preprocessing, INPUTS)
    return str(preprocessing)


def filters_of(weights: Mapping[str, Filters], name: str) -> tuple[Array, Array]:
    """Kernel and bias of a layer, or a UserError if they are not there or not VGG19's."""
    if name not in weights:
        held = ", ".join(layer for layer in CONVOLUTIONS if layer in weights)
        raise UserError(
            "weights",
            f"no {name} (there is {held or 'nothing'})",
            "filters for every layer up to the deepest one asked for",
            "choose lower content and style layers, or weights that have it",
        )
    kernel, bias = weights[name].kernel, weights[name].bias
    C, K = CONVOLUTIONS[name]
    if kernel.shape != (3, 3, C, K) or bias.shape != (K,):
        raise UserError(
            f"weights: {name}",
            f"kernel {kernel.shape} and bias {bias.shape}",
            f"(3, 3, {C}, {K}) and ({K},)",
            "order a kernel as height, width, in, out",
        )
    return kernel, bias


def check_size(shape: tuple[int, ...], layers: Iterable[str], name: str, cure: str = "") -> None:
    """Hold a picture's height and width against what its deepest layer needs; `name` is what it is called."""
    H, W = shape[:2]
    if min(H, W) < MIN_SIZE:
        found, expected = f"{W} x {H} pixels", f"at least {MIN_SIZE} x {MIN_SIZE}"
        raise UserError(name, found, expected, cure or "take a larger picture")
    for layer in sorted(layers, key=LAYERS.index):
        min_size = 2 ** log2_stride(layer)
        if min(H, W) < min_size:
            raise UserError(
                name,
                f"{W} x {H} pixels",
                f"at least {min_size} x {min_size} for layer {layer}",
                cure or "take a larger picture or a lower layer",
            )


def _names(layers: str | Iterable[str]) -> list[str]:
    return [layers] if isinstance(layers, str) else list(layers)


def _as_pixels(pixels: ArrayLike) -> Array:
    x = np.asarray(pixels)
    if x.ndim != 3 or x.shape[2] != 3 or x.dtype.kind not in "uif":
        raise UserError(
            "pixels",
            f"{x.dtype} array of shape {x.shape}",
            "numbers of shape (H, W, 3)",
            "give RGB, 0..255",
        )
    return np.ascontiguousarray(x, np.float64 if x.dtype == np.float64 else np.float32)


def _check_gradients(gradients: Mapping[str, Array], tape: Tape) -> None:
    """Each must belong to a response on the tape, in its shape and dtype."""
    responses = {recorded.step.response: recorded for recorded in tape}
    missing = [name for name in gradients if name not in responses]
    if missing or not gradients:
        raise UserError("gradients", ", ".join(missing) or "none", "layers on the tape", "record them")
    for name, gradient in gradients.items():
        expected = responses[name]
        if gradient.shape != expected.shape or gradient.dtype != expected.dtype:
            raise UserError(
                f"gradients: {name}",
                f"{gradient.dtype} of shape {gradient.shape}",
                f"{expected.dtype} of shape {expected.shape}, as its response",
                "derive it from that response",
            )
