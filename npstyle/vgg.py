"""VGG19 as a differentiable function: forward to named feature maps, backward from their gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from npstyle import _kernels
from npstyle._runtime import threads as _threads
from npstyle._runtime.arena import Arena
from npstyle._runtime.memo import Memo
from npstyle._typing import Array, Convolution, Padding, Pooling, Preprocessing
from npstyle.architecture import (
    CONVOLUTION_METHODS,
    CONVOLUTIONS,
    LAYERS,
    PADDINGS,
    block_of,
    canonical,
    check_size,
    deepest,
)
from npstyle.errors import UserError, check_choice
from npstyle.filters import Filters, filters_of, preprocessing_of
from npstyle.fused import FirstLayerConvReLU, Step, WinogradConvReLU, method_of, with_poolings
from npstyle.layers import (
    AveragePool,
    CaffeInput,
    Conv2D,
    Given,
    Layer,
    MaxPool,
    ReLU,
    TorchvisionInput,
)
from npstyle.padding import padding_layers
from npstyle.rows import Packed

T = TypeVar("T")

POOLINGS: dict[Pooling, Callable[..., Layer]] = {"average": AveragePool, "max": MaxPool}
INPUTS: dict[Preprocessing, Callable[[], Layer]] = {"caffe": CaffeInput, "torchvision": TorchvisionInput}


class Recorded(NamedTuple):
    """A step of a forward pass: the layer, its cache, and the shape and dtype of its output."""

    step: Step
    cache: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


# What a forward pass saves for the backward pass: its steps, from the pixels up.
Tape = list[Recorded]


class NetworkSettings(Protocol):
    """The part of `npstyle.Settings` that concerns the network."""

    @property
    def pooling(self) -> Pooling: ...

    @property
    def padding(self) -> Padding: ...


class VGG19:
    """The convolutional part of VGG19 with frozen filters.

    The feature map `conv4_2` is that layer's output after its ReLU. Nothing above the deepest layer asked
    for is computed, nor are its filters read.

    A network may be used from several Python threads at once: what one call computes with is its own, and
    the arena has a lock. It can be copied and pickled, with its filters but without its arena.

    Parameters
    ----------
    weights : mapping of str to Filters
        By the paper's names; it may stop at any layer.
    pooling : {"average", "max"}
        The paper uses averages (section 2), the network was trained with maxima.
    padding : {"zero", "replicate", "wrap"}
        What conv1_1 sees beyond the border of the picture: zeros, which is the mean color and what the
        network was trained with, or copies of the outermost pixels; deeper layers see zeros. With "wrap"
        every layer sees the opposite border, as in a picture that is laid out in tiles.
    convolution : {"auto", "im2col", "winograd"}
        How convolutions are computed. "im2col" is the textbook method: one matrix product. "winograd" needs
        a fifth of the multiplications, in all layers but conv1_1, which has three channels. "auto" chooses
        what is faster for each layer and size.
    threads : int, optional
        All available cores if omitted, or as many as OMP_NUM_THREADS says if those are fewer. The result
        does not depend on it.
    preprocessing : {"caffe", "torchvision"}, optional
        What the filters were trained with. Required if the mapping has no attribute `preprocessing`.

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
        pooling: Pooling = "average",
        padding: Padding = "zero",
        convolution: Convolution = "auto",
        threads: int | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        check_choice("pooling", pooling, POOLINGS)
        check_choice("padding", padding, PADDINGS)
        check_choice("convolution", convolution, CONVOLUTION_METHODS)
        self.weights = weights
        self.pooling = pooling
        self.padding = padding
        self.convolution = convolution
        self.threads = _threads.resolve(threads)
        _kernels.warn_without_openmp(threads)
        self.preprocessing = preprocessing_of(weights, preprocessing)
        self.arena = Arena()
        # Where what is computed of style pictures is kept, for other networks with the same filters, too.
        self.memo: Memo | None = None
        self._steps: dict[tuple[Any, ...], list[Step]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Steps are built again when needed.
        return {**self.__dict__, "arena": Arena(), "memo": None, "_steps": {}}

    def keep(self, purpose: str, arguments: tuple[Any, ...], compute: Callable[[], T]) -> T:
        """The result of `compute`, from the memo if it was computed from the same arguments and filters.

        `purpose` tells functions apart. Without a memo it is computed each time.
        """
        if self.memo is None:
            return compute()
        network = (self.pooling, self.padding, self.convolution, self.preprocessing)
        return self.memo.get((purpose, network, *arguments), compute)

    @classmethod
    def for_settings(
        cls,
        weights: Mapping[str, Filters],
        settings: NetworkSettings,
        convolution: Convolution = "auto",
        threads: int | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> VGG19:
        """The network of these settings, which `Objective` needs: with their pooling and padding."""
        if not (hasattr(settings, "pooling") and hasattr(settings, "padding")):
            cure = "give npstyle.preset(...) or npstyle.Settings(...)"
            raise UserError("settings", f"a {type(settings).__name__}", "npstyle.Settings", cure)
        return cls(weights, settings.pooling, settings.padding, convolution, threads, preprocessing)

    def walk(
        self, pixels: ArrayLike, layers: Iterable[str], tape: Tape | None = None
    ) -> Iterator[tuple[str, Array]]:
        """Yield each feature map as soon as it is computed, from the pixels up.

        Parameters
        ----------
        pixels : (H, W, 3) array
            RGB, 0..255. float64 is computed in float64, everything else in float32.
        layers : iterable of str
            In any order.
        tape : list, optional
            Receives what `backward` needs.

        Yields
        ------
        name : str
        F : (h, w, K) array
            Read-only, and only valid until the next one is asked for: then its memory is reused.

        Raises
        ------
        UserError
            Unknown layer, no filters for it, or a picture too small for it; raised by the first `next`.
        """
        names = {canonical(name) for name in _as_list(layers)}
        x = _as_pixels(pixels)
        check_size(x.shape, names, "picture")
        if not names:
            return
        yield from self._run(self.steps(deepest(names), x.shape, x.dtype), x, names, tape)

    def walk_above(
        self, below: str, x: Array, shape: tuple[int, ...], layers: Iterable[str], tape: Tape
    ) -> Iterator[tuple[str, Array]]:
        """`walk` from the feature map x of the layer `below` on, for pixels of this shape.

        `backward` then returns the gradient with respect to x.
        """
        steps = self.steps(deepest(layers), shape, x.dtype, below)
        # Not a generator itself, which would hold x until the end.
        return self._run([Step(Given(), below), *steps], x, set(layers), tape)

    def _run(
        self, steps: Iterable[Step], x: Array, names: set[str], tape: Tape | None
    ) -> Iterator[tuple[str, Array]]:
        """Through the steps; each feature map of one of the names is yielded."""
        for step in with_poolings(steps, names):
            y, cache = step.layer.forward(x)
            if y is not x:
                self.arena.release(x)
            x = y
            if tape is not None:
                tape.append(Recorded(step, cache, y.shape, y.dtype))
            if step.feature_map in names:
                yield step.feature_map, x
        self.arena.release(x)

    def forward(self, pixels: ArrayLike, layers: Iterable[str]) -> dict[str, Array]:
        """Feature maps {name: (h, w, K)} of pixels (H, W, 3), RGB, 0..255; names as the caller gave them."""
        layers = _as_list(layers)
        features = {name: F.copy() for name, F in self.walk(pixels, layers)}
        return {name: features[canonical(name)] for name in layers}

    def record(self, pixels: ArrayLike, layers: Iterable[str]) -> tuple[dict[str, Array], Tape]:
        """Like `forward`, and the tape that `backward` needs; names are the paper's."""
        tape: Tape = []
        return {name: F.copy() for name, F in self.walk(pixels, layers, tape)}, tape

    def backward(self, tape: Tape, gradients: Mapping[str, Array | Packed], overwrite: bool = False) -> Array:
        """Gradient of a loss with respect to the pixels, from its gradients with respect to feature maps.

        This is the chain rule from the top down: at each feature map the gradient from above and the one
        given for it are added, and the layer's `backward` carries the sum one step further down.

        Parameters
        ----------
        tape : list
            From `record` or `walk`; it may be used again.
        gradients : {name: (h, w, K) array}
            dL/dF for some of the layers that were asked for. Packed ones are unpacked when they are needed.
        overwrite : bool
            The given gradients are not needed afterwards: accumulate in their memory, and release what
            comes from `arena`.

        Returns
        -------
        (H, W, 3) array
        """
        gradients = {canonical(name): gradient for name, gradient in gradients.items()}
        _check_gradients(gradients, tape)
        dx = self._given(gradients, tape[-1], overwrite)
        # What each step starts from; if a gradient with respect to it is given, dx is added to that.
        inputs = [None, *tape[:-1]]
        for (step, cache, _, _), below in zip(reversed(tape), reversed(inputs), strict=True):
            accumulate_into = None if below is None else self._given(gradients, below, overwrite)
            if dx is None:  # above the topmost gradient
                dx = accumulate_into
                continue
            dy, dx = dx, step.layer.backward(dx, cache, accumulate_into)
            if dy is not dx:
                self.arena.release(dy)
            del dy  # the arena can't free what is referred to
        assert dx is not None  # _check_gradients has seen one on the tape
        return dx

    def _given(
        self, gradients: Mapping[str, Array | Packed], recorded: Recorded, overwrite: bool
    ) -> Array | None:
        """The gradient with respect to a step's output, if that is given, in memory to accumulate in."""
        given = gradients.get(recorded.step.feature_map or "")
        if isinstance(given, Packed):
            return given.unpacked(recorded.shape, recorded.dtype, self.arena)
        return given if overwrite or given is None else given.copy()

    def steps(
        self, top: str, shape: tuple[int, ...], dtype: np.dtype[Any], below: str | None = None
    ) -> Iterator[Step]:
        """The steps from pixels of this shape, or from the feature map `below`, to that of `top`.

        They are built when first needed, and cached.
        """
        H, W = shape[:2]
        if below is None:
            yield Step(INPUTS[self.preprocessing](), None)
        first = 0 if below is None else LAYERS.index(below) + 1
        for name in LAYERS[first : LAYERS.index(top) + 1]:
            poolings = block_of(name) - 1
            key = (name, dtype, method_of(self.convolution, name, H >> poolings, W >> poolings))
            if key not in self._steps:
                self._steps[key] = list(self._build(*key))
            yield from self._steps[key]

    def _build(self, name: str, dtype: np.dtype[Any], method: str) -> Iterator[Step]:
        if name not in CONVOLUTIONS:
            yield Step(POOLINGS[self.pooling](self.threads, self.arena), name)
            return
        kernel, bias = filters_of(self.weights, name)
        kernel, bias = kernel.astype(dtype, copy=False), bias.astype(dtype, copy=False)
        around = padding_layers(name, self.padding, method, self.arena)
        if around:
            yield Step(around[0], None)
        feature_map = None if around else name
        if method == "first_layer":
            replicate = self.padding == "replicate"
            yield Step(FirstLayerConvReLU(kernel, bias, self.threads, self.arena, replicate), feature_map)
        elif method == "winograd":
            yield Step(WinogradConvReLU(kernel, bias, self.threads, self.arena), feature_map)
        else:
            yield Step(Conv2D(kernel, bias, self.threads, self.arena), None)
            yield Step(ReLU(in_place=True, threads=self.threads), feature_map)
        if around:
            yield Step(around[1], name)


def _as_list(layers: str | Iterable[str]) -> list[str]:
    if not isinstance(layers, Iterable):
        raise UserError("layers", repr(layers), "names of layers", 'give ["conv4_2"] for example')
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


def _check_gradients(gradients: Mapping[str, Array | Packed], tape: Tape) -> None:
    """Each must belong to a feature map on the tape, and have its shape and dtype."""
    recorded = {entry.step.feature_map: entry for entry in tape}
    missing = [name for name in gradients if name not in recorded]
    if missing or not gradients:
        raise UserError("gradients", ", ".join(missing) or "none", "layers on the tape", "record them")
    for name, gradient in gradients.items():
        expected = recorded[name]
        if isinstance(gradient, Packed):  # from rows of the feature map
            continue
        if gradient.shape != expected.shape or gradient.dtype != expected.dtype:
            raise UserError(
                f"gradients: {name}",
                f"{gradient.dtype} of shape {gradient.shape}",
                f"{expected.dtype} of shape {expected.shape}, like its feature map",
                "compute it from that feature map",
            )
