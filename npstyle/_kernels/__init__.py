"""The kernels: everything that takes time, below one line.

Each function checks its arguments and hands them to the compiled kernel or to its twin in
`npstyle._kernels.reference`. Which of the two is decided once, at import:
``NPSTYLE_KERNELS=compiled`` (default) or ``reference``. There is no silent fallback; without the
compiled modules the import fails and says how to build them.

Conventions: arrays are C-contiguous, all of one dtype, float32 or float64; the caller allocates the
outputs; dimensions are H (height), W (width), C (channels in), K (channels out), M = H W.
"""

from __future__ import annotations

import os
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npstyle._kernels import reference
from npstyle._runtime.threads import one_blas_thread, openmp_that_sleeps, resolve
from npstyle.errors import UserError

Array = NDArray[np.floating]
Bytes = NDArray[np.uint8]

PANEL = 32  # channels come in multiples of this, for the widest vectors there are
COMPILED = ("_convolution", "_winograd", "_first_layer", "_relu", "_pooling", "_gram", "_openmp")
NAMES = (
    "conv3x3",
    "winograd_work",
    "winograd",
    "winograd_backward",
    "first_layer",
    "first_layer_backward",
    "relu",
    "relu_backward",
    "average_pool",
    "average_pool_backward",
    "max_pool",
    "max_pool_backward",
    "gram_work",
    "gram",
    "gram_backward",
)


def _load(which: str) -> tuple[Any, bool]:
    """Functions of the kernels asked for, and whether they use OpenMP."""
    if which == "reference":
        return reference, False
    if which != "compiled":
        raise UserError(
            "NPSTYLE_KERNELS", repr(which), "'compiled' or 'reference'", "unset it for the compiled kernels"
        )
    try:
        with openmp_that_sleeps():
            modules = {name: import_module(f"npstyle._kernels.{name}") for name in COMPILED}
    except ImportError as error:
        raise ImportError(
            f"npstyle's kernels: found no compiled modules ({error}); expected them beside "
            f"{__file__}; build them with `pip install -e .`, or set NPSTYLE_KERNELS=reference to "
            "run on plain NumPy, many times slower"
        ) from error
    functions = {
        name: getattr(module, name) for module in modules.values() for name in NAMES if hasattr(module, name)
    }
    functions["use"] = [modules[name].use for name in ("_winograd", "_first_layer", "_gram")]
    return SimpleNamespace(**functions), modules["_openmp"].has_openmp()


IMPLEMENTATION = os.environ.get("NPSTYLE_KERNELS", "compiled")
_kernels, OPENMP = _load(IMPLEMENTATION)


def use(instructions: str | None) -> str:
    """Take an instruction set by name, the best with None, in all kernels that have several; which it is.

    The best is taken at import. The results differ in rounding.
    """
    try:
        names = [choose(instructions) for choose in getattr(_kernels, "use", [])]
    except ValueError:
        here = ", ".join(instruction_sets())
        raise UserError(
            "instructions",
            repr(instructions),
            f"one of {here}",
            "take one of them; there are no such instructions here",
        ) from None
    return names[0] if names else "NumPy's"


def instruction_sets() -> list[str]:
    """Those that this processor and this build have, the best first, by trial; the best is taken then."""
    found = []
    for name in ("avx512", "avx2", "plain"):
        try:
            for choose in getattr(_kernels, "use", []):
                choose(name)
            found.append(name)
        except ValueError:
            continue
    use(None)
    return found


def _check(kernel: str, like: Array, **arrays: tuple[NDArray[Any], tuple[int, ...]]) -> None:
    """Hold each array against its shape, and against the dtype of `like` where it holds numbers."""
    if like.dtype not in (np.float32, np.float64):
        raise UserError(kernel, f"{like.dtype} input", "float32 or float64", "convert it with astype")
    if min(like.shape, default=0) < 1:
        raise UserError(kernel, f"an input of shape {like.shape}", "no empty dimension", "give it data")
    for name, (array, shape) in arrays.items():
        if array.shape != shape:
            raise UserError(
                f"{kernel}: {name}", f"shape {array.shape}", f"{shape}", "check the layer's sizes"
            )
        dtype = {"mask": np.uint8, "argmax": np.uint8, "g": np.float64, "dg": np.float64}.get(
            name, like.dtype
        )
        if array.dtype != dtype:
            raise UserError(f"{kernel}: {name}", f"{array.dtype}", f"{dtype}", "convert it with astype")
        if not array.flags.c_contiguous:
            raise UserError(
                f"{kernel}: {name}", "an array with gaps", "C order", "use numpy.ascontiguousarray"
            )


def conv3x3(x: Array, w: Array, b: Array, y: Array, threads: int | None = None) -> None:
    """3x3 convolution with zero padding: x (H, W, C), w (9C, K), b (K,) to y (H, W, K)."""
    H, W, C = x.shape
    K = w.shape[1]
    _check("conv3x3", x, x=(x, (H, W, C)), w=(w, (9 * C, K)), b=(b, (K,)), y=(y, (H, W, K)))
    with one_blas_thread():
        _kernels.conv3x3(x, w, b, y, resolve(threads))


def winograd_work(H: int, W: int, C: int, K: int, itemsize: int, threads: int | None = None) -> int:
    """How many numbers of `itemsize` bytes the two functions below work in, from (H, W, C) to (H, W, K)."""
    number: int = _kernels.winograd_work(H, W, C, K, itemsize, resolve(threads))
    return number


def winograd(
    x: Array, w: Array, b: Array, y: Array, mask: Bytes, work: Array, threads: int | None = None
) -> None:
    """y = max(conv3x3(x), 0) and a bit per element, as `relu`; C and K are multiples of 32.

    x (H, W, C), w (9C, K), b (K,), y (H, W, K), mask (H W K / 8,), work (winograd_work(...),).
    """
    threads = resolve(threads)  # once: what is available may change, and `work` was made for so many
    H, W, C = x.shape
    K = w.shape[1]
    _check_channels("winograd", C, K)
    numbers = winograd_work(H, W, C, K, x.itemsize, threads)
    _check(
        "winograd",
        x,
        x=(x, (H, W, C)),
        w=(w, (9 * C, K)),
        b=(b, (K,)),
        y=(y, (H, W, K)),
        mask=(mask, (H * W * K // 8,)),
        work=(work, (numbers,)),
    )
    _kernels.winograd(x, w, b, y, mask, work, threads)


def winograd_backward(
    dy: Array, mask: Bytes, w: Array, dx: Array, add: bool, work: Array, threads: int | None = None
) -> None:
    """dx = derivative of `winograd`, or dx += with `add`: dy (H, W, K), w (9C, K), dx (H, W, C)."""
    threads = resolve(threads)
    H, W, K = dy.shape
    C = dx.shape[2]
    _check_channels("winograd_backward", C, K)
    numbers = winograd_work(H, W, K, C, dy.itemsize, threads)
    _check(
        "winograd_backward",
        dy,
        dy=(dy, (H, W, K)),
        mask=(mask, (H * W * K // 8,)),
        w=(w, (9 * C, K)),
        dx=(dx, (H, W, C)),
        work=(work, (numbers,)),
    )
    _kernels.winograd_backward(dy, mask, w, dx, add, work, threads)


def first_layer(x: Array, w: Array, b: Array, y: Array, mask: Bytes, threads: int | None = None) -> None:
    """y = max(conv3x3(x), 0) and a bit per element, as `relu`, for few channels C; K is a multiple of 32.

    x (H, W, C), w (9C, K), b (K,), y (H, W, K), mask (H W K / 8,).
    """
    H, W, C = x.shape
    K = w.shape[1]
    _check_channels("first_layer", 0, K)
    _check(
        "first_layer",
        x,
        x=(x, (H, W, C)),
        w=(w, (9 * C, K)),
        b=(b, (K,)),
        y=(y, (H, W, K)),
        mask=(mask, (H * W * K // 8,)),
    )
    _kernels.first_layer(x, w, b, y, mask, resolve(threads))


def first_layer_backward(dy: Array, mask: Bytes, w: Array, dx: Array, threads: int | None = None) -> None:
    """dx = derivative of `first_layer`: dy (H, W, K), mask (H W K / 8,), w (9C, K) to dx (H, W, C)."""
    H, W, K = dy.shape
    C = dx.shape[2]
    _check_channels("first_layer_backward", 0, K)
    _check(
        "first_layer_backward",
        dy,
        dy=(dy, (H, W, K)),
        mask=(mask, (H * W * K // 8,)),
        w=(w, (9 * C, K)),
        dx=(dx, (H, W, C)),
    )
    _kernels.first_layer_backward(dy, mask, w, dx, resolve(threads))


def _check_channels(kernel: str, C: int, K: int) -> None:
    if C % PANEL or K % PANEL:
        raise UserError(kernel, f"{C} to {K} channels", f"multiples of {PANEL}", "use conv3x3")


def relu(x: Array, y: Array, mask: Bytes, threads: int | None = None) -> None:
    """y = max(x, 0) and a bit per element, x > 0; y may be x. x, y any shape of N, mask (ceil(N / 8),)."""
    _check("relu", x, x=(x, x.shape), y=(y, x.shape), mask=(mask, ((x.size + 7) // 8,)))
    _kernels.relu(x.reshape(-1), y.reshape(-1), mask, resolve(threads))


def relu_backward(dy: Array, mask: Bytes, dx: Array, threads: int | None = None) -> None:
    """dx = dy where the bit is set, else 0; dx may be dy. dy, dx any shape of N, mask (ceil(N / 8),)."""
    _check("relu_backward", dy, dy=(dy, dy.shape), mask=(mask, ((dy.size + 7) // 8,)), dx=(dx, dy.shape))
    _kernels.relu_backward(dy.reshape(-1), mask, dx.reshape(-1), resolve(threads))


def average_pool(x: Array, y: Array, threads: int | None = None) -> None:
    """Mean of each 2x2 cell: x (H, W, C) to y (H // 2, W // 2, C)."""
    H, W, C = x.shape
    _check("average_pool", y, x=(x, (H, W, C)), y=(y, (H // 2, W // 2, C)))
    _kernels.average_pool(x, y, resolve(threads))


def average_pool_backward(dy: Array, dx: Array, threads: int | None = None) -> None:
    """A quarter of dy in each pixel of its cell: dy (H // 2, W // 2, C) to dx (H, W, C)."""
    H, W, C = dx.shape
    _check("average_pool_backward", dy, dy=(dy, (H // 2, W // 2, C)), dx=(dx, (H, W, C)))
    _kernels.average_pool_backward(dy, dx, resolve(threads))


def max_pool(x: Array, y: Array, argmax: Bytes, threads: int | None = None) -> None:
    """Largest of each 2x2 cell and which it was: x (H, W, C) to y, winner (H // 2, W // 2, C)."""
    H, W, C = x.shape
    small = (H // 2, W // 2, C)
    _check("max_pool", y, x=(x, (H, W, C)), y=(y, small), argmax=(argmax, small))
    _kernels.max_pool(x, y, argmax, resolve(threads))


def max_pool_backward(dy: Array, argmax: Bytes, dx: Array, threads: int | None = None) -> None:
    """dy at the winner of each cell: dy, winner (H // 2, W // 2, C) to dx (H, W, C)."""
    H, W, C = dx.shape
    small = (H // 2, W // 2, C)
    _check("max_pool_backward", dy, dy=(dy, small), argmax=(argmax, small), dx=(dx, (H, W, C)))
    _kernels.max_pool_backward(dy, argmax, dx, resolve(threads))


def gram_work(M: int, C: int, itemsize: int, threads: int | None = None) -> int:
    """How many numbers of `itemsize` bytes the two functions below work in, for f (M, C)."""
    number: int = _kernels.gram_work(M, C + -C % PANEL, itemsize, resolve(threads))
    return number


def gram(f: Array, g: NDArray[np.float64], work: Array, threads: int | None = None) -> None:
    """g = f'f, over blocks in the dtype of f, added up in double: f (M, C) to g (C, C).

    work (gram_work(...),).
    """
    threads = resolve(threads)  # once, as in `winograd`
    M, C = f.shape
    _check("gram", f, f=(f, (M, C)), g=(g, (C, C)), work=(work, (gram_work(M, C, f.itemsize, threads),)))
    if C % PANEL:
        padded = np.empty((C + -C % PANEL,) * 2)
        _kernels.gram(_padded(f, 0), padded, work, threads)
        g[...] = padded[:C, :C]
    else:
        _kernels.gram(f, g, work, threads)


def gram_backward(
    f: Array, dg: NDArray[np.float64], df: Array, work: Array, threads: int | None = None
) -> None:
    """df = f (dg + dg'): f (M, C), dg (C, C) to df (M, C), work (gram_work(...),)."""
    threads = resolve(threads)
    M, C = f.shape
    numbers = gram_work(M, C, f.itemsize, threads)
    _check("gram_backward", f, f=(f, (M, C)), dg=(dg, (C, C)), df=(df, (M, C)), work=(work, (numbers,)))
    if C % PANEL:
        padded = np.empty((M, C + -C % PANEL), f.dtype)
        _kernels.gram_backward(_padded(f, 0), _padded(dg, -C % PANEL), padded, work, threads)
        df[...] = padded[:, :C]
    else:
        _kernels.gram_backward(f, dg, df, work, threads)


def _padded(a: NDArray[Any], rows: int) -> NDArray[Any]:
    """A copy with zeros for further channels, and further rows, up to what the kernels multiply at a time."""
    return np.pad(a, ((0, rows), (0, -a.shape[1] % PANEL)))
