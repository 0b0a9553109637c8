"""The kernels: everything that takes time, behind one interface.

Each function checks its arguments and calls the compiled kernel or its reference implementation in
`npstyle._kernels.reference`. Which of the two is decided once, at import:
``NPSTYLE_KERNELS=compiled`` (default) or ``reference``. There is no silent fallback: without the
compiled modules the import fails and says how to build them.

Conventions, for all functions: arrays are C-contiguous and of one dtype, float32 or float64, unless said
otherwise. Dimensions are H (height), W (width), C (channels in), K (channels out), M = H W. The caller
allocates outputs and workspace; ``..._workspace`` is how many elements a kernel needs, of the dtype of its
input, uninitialized. `threads` is every available core if left out, or OMP_NUM_THREADS if that is less;
results do not depend on it. Arrays that do not fit raise UserError.
"""

from __future__ import annotations

import os
import warnings
from math import prod
from typing import NamedTuple

import numpy as np

from npstyle._kernels._checks import CHANNELS, check_arrays, check_channels
from npstyle._kernels._loading import load
from npstyle._runtime.threads import (
    OpenMPWarning,
    available,
    one_blas_thread,
    resolve,
    resolve_to_run,
)
from npstyle._typing import AnyArray, Array, Bytes, Double
from npstyle.errors import UserError

IMPLEMENTATION = os.environ.get("NPSTYLE_KERNELS", "compiled")
_kernels, _cpu, OPENMP = load(IMPLEMENTATION)
# How many threads a kernel that is about to run gets. Only OpenMP's have to be remembered, for forks.
_team_size = resolve_to_run if OPENMP else resolve


def instruction_sets() -> list[str]:
    """Instruction sets that this processor and this build have, the best first; none for plain NumPy."""
    return list(_cpu.instruction_sets()) if _cpu else []


def current_isa() -> str:
    """Name of the instruction set that kernels use."""
    return str(_cpu.current_isa()) if _cpu else "NumPy's"


def set_isa(name: str | None) -> None:
    """Choose the instruction set of all kernels, for tests and benchmarks; the best is chosen at import.

    It is global, so no kernel may be running and workspaces have to be allocated afterwards. Results differ
    in rounding between instruction sets.

    Parameters
    ----------
    name : str or None
        One of `instruction_sets`; None for the best.

    Raises
    ------
    UserError
        It is not available. The choice stays as it was.
    """
    if name is not None and name not in instruction_sets():
        names = ", ".join(instruction_sets()) or "none, as NumPy computes"
        raise UserError(
            "instructions", repr(name), f"one of {names}", "choose an instruction set this processor has"
        )
    if _cpu:
        _cpu.set_isa(name)


_warned_without_openmp = False


def warn_without_openmp(threads: int | None) -> None:
    """Warn, once in a process, that compiled kernels have no OpenMP where more than one thread was meant.

    Parameters
    ----------
    threads : int or None
        As the caller asked for them; None means every available core.
    """
    global _warned_without_openmp
    if OPENMP or IMPLEMENTATION == "reference" or _warned_without_openmp or resolve(threads) == 1:
        return
    _warned_without_openmp = True
    warnings.warn(
        f"threads: found kernels built without OpenMP, which run on one of {available()} cores; expected a "
        "build with OpenMP; build npstyle with a compiler that has it (NPSTYLE_OPENMP=1 pip install ...), or "
        "choose threads=1",
        OpenMPWarning,
        stacklevel=3,
    )


class Strip(NamedTuple):
    """Rows of a picture that is `height` rows high, from row `first` on: what a kernel computes of it.

    Its input then has one row more above, and one below, unless there the picture ends.
    """

    first: int
    height: int


def _heights(y: Array, strip: Strip | None) -> tuple[int, int]:
    """Rows of an output, and those of the input that it needs."""
    H = y.shape[0]
    return H, _inputs(H, strip)


def _inputs(H: int, strip: Strip | None) -> int:
    """Rows of the input that H rows of the output need."""
    return H if strip is None else H + (strip.first > 0) + (strip.first + H < strip.height)


def _cells(H: int, strip: Strip | None) -> int:
    """Rows of 2 x 2 cells that those rows of the input belong to; an odd last row of the picture has none."""
    if strip is None:
        return H // 2
    return min(strip.height // 2, (strip.first + H) // 2 + 1) - max(0, strip.first // 2 - 1)


def conv3x3_workspace(H: int, W: int, C: int, K: int, itemsize: int, threads: int | None = None) -> int:
    """Elements of `itemsize` bytes that `conv3x3` itself allocates, for x (H, W, C) and y (H, W, K)."""
    return int(_kernels.conv3x3_workspace(H, W, C, K, itemsize, resolve(threads)))


def conv3x3_rows(W: int) -> int:
    """Rows that `conv3x3` computes together in a picture of this width: strips begin at multiples of it."""
    return int(_kernels.conv3x3_rows(W))


def conv3x3(
    x: Array, w: Array, b: Array, y: Array, threads: int | None = None, strip: Strip | None = None
) -> None:
    """3x3 convolution, stride 1, zero padding, as one matrix product.

    y[h, w, k] = b[k] + sum over i, j, c of x[h + i - 1, w + j - 1, c] kernel[i, j, c, k]

    which is y = P Q + b with the patches of x in the rows of P and Q = w: docs/convolution.md.

    Parameters
    ----------
    x : (H, W, C) array
    w : (9C, K) array
        The kernel (3, 3, C, K) as a matrix.
    b : (K,) array
    y : (H, W, K) array
        Output.
    strip : Strip, optional
        What y is a part of.
    """
    _, W, C = x.shape
    (H, rows), K = _heights(y, strip), w.shape[1]
    check_arrays("conv3x3", x, x=(x, (rows, W, C)), w=(w, (9 * C, K)), b=(b, (K,)), y=(y, (H, W, K)))
    with one_blas_thread():
        _kernels.conv3x3(x, w, b, y, _team_size(threads), strip)


def winograd_rows(H: int, W: int, C: int, K: int, itemsize: int) -> int:
    """Rows of y (H, W, K) that a tile has, for x (H, W, C): strips of it begin at multiples of them."""
    return int(_kernels.winograd_rows(H, W, C, K, itemsize))


def winograd_workspace(
    H: int, W: int, C: int, K: int, itemsize: int, threads: int | None = None, height: int | None = None
) -> int:
    """Elements of workspace for `winograd` from x (H, W, C) to y (H, W, K), or `winograd_backward` so.

    In a strip, H are its rows, and `height` are the picture's.
    """
    return int(_kernels.winograd_workspace(H, W, C, K, itemsize, resolve(threads), height or H))


def winograd(
    x: Array,
    w: Array,
    b: Array,
    y: Array,
    mask: Bytes,
    workspace: Array,
    threads: int | None = None,
    strip: Strip | None = None,
    pooled: bool = False,
) -> None:
    """3x3 convolution and ReLU, y = max(x * w + b, 0), by Winograd's minimal filtering: docs/winograd.md.

    Parameters
    ----------
    x : (H, W, C) array
        C is a multiple of 32, and so is K.
    w : (9C, K) array
    b : (K,) array
    y : (H, W, K) array
        Output.
    mask : (H W K / 8,) array of uint8
        Output, one bit per element as in `relu`.
    workspace : array
        winograd_workspace(H, W, C, K, ...) elements.
    strip : Strip, optional
        What y is a part of.
    pooled : bool
        y is what `average_pool` makes of it, (H // 2, W // 2, K) with the same bits. The mask, which has all
        rows, then says how many rows a strip has.
    """
    threads = _team_size(threads)  # once: what is available may change, and the workspace is for so many
    (H, W, C), K = x.shape, w.shape[1]
    if not pooled:
        H = y.shape[0]
    elif strip is not None:
        H = 8 * mask.size // max(1, W * K)
    rows, shape = _inputs(H, strip), (H // 2, W // 2, K) if pooled else (H, W, K)
    height = H if strip is None else strip.height
    check_channels("winograd", C, K)
    check_arrays(
        "winograd",
        x,
        x=(x, (rows, W, C)),
        w=(w, (9 * C, K)),
        b=(b, (K,)),
        y=(y, shape),
        mask=(mask, (H * W * K // 8,)),
        workspace=(workspace, (winograd_workspace(H, W, C, K, x.itemsize, threads, height),)),
    )
    _kernels.winograd(x, w, b, y, mask, workspace, threads, strip, pooled)


def winograd_backward(
    dy: Array,
    mask: Bytes,
    w: Array,
    dx: Array,
    accumulate: bool,
    workspace: Array,
    threads: int | None = None,
    strip: Strip | None = None,
    pooled: bool = False,
) -> None:
    """Gradient of `winograd` with respect to x: dy where y > 0, convolved with the rotated kernel.

    Parameters
    ----------
    dy : (H, W, K) array
    mask : (H W K / 8,) array of uint8
        From `winograd`.
    w : (9C, K) array
    dx : (H, W, C) array
        Output.
    accumulate : bool
        Add to what dx holds.
    workspace : array
        winograd_workspace(H, W, K, C, ...) elements: dy is the input here.
    strip : Strip, optional
        What dx is a part of.
    pooled : bool
        dy is the gradient of the pooled y, (H // 2, W // 2, K). For a strip it has the cells that the strip's
        rows and the ones above and below belong to, while the mask has these rows.
    """
    threads = _team_size(threads)
    (H, rows), (_, W, C), K = _heights(dx, strip), dx.shape, dy.shape[2]
    height = H if strip is None else strip.height
    shape = (_cells(H, strip), W // 2, K) if pooled else (rows, W, K)
    check_channels("winograd_backward", C, K)
    check_arrays(
        "winograd_backward",
        dy,
        dy=(dy, shape),
        mask=(mask, (rows * W * K // 8,)),
        w=(w, (9 * C, K)),
        dx=(dx, (H, W, C)),
        workspace=(workspace, (winograd_workspace(H, W, K, C, dy.itemsize, threads, height),)),
    )
    _kernels.winograd_backward(dy, mask, w, dx, accumulate, workspace, threads, strip, pooled)


def first_layer_rows(W: int) -> int:
    """As `conv3x3_rows`, of `first_layer`: the compiled one computes each row by itself."""
    return conv3x3_rows(W) if IMPLEMENTATION == "reference" else 1


def first_layer_workspace(H: int, W: int, C: int, K: int, itemsize: int, threads: int | None = None) -> int:
    """Elements of workspace for `first_layer` and `first_layer_backward`, x (H, W, C) and y (H, W, K)."""
    return int(_kernels.first_layer_workspace(H, W, C, K, itemsize, resolve(threads)))


def first_layer(
    x: Array,
    w: Array,
    b: Array,
    y: Array,
    mask: Bytes,
    workspace: Array,
    threads: int | None = None,
    strip: Strip | None = None,
    replicate: bool = False,
) -> None:
    """3x3 convolution and ReLU, y = max(x * w + b, 0), for few channels C.

    Parameters
    ----------
    x : (H, W, C) array
    w : (9C, K) array
        K is a multiple of 32.
    b : (K,) array
    y : (H, W, K) array
        Output.
    mask : (H W K / 8,) array of uint8
        Output, one bit per element as in `relu`.
    workspace : array
        first_layer_workspace(...) elements.
    strip : Strip, optional
        What y is a part of.
    replicate : bool
        What is beyond the border of x are copies of its outermost pixels, not zeros.
    """
    threads = _team_size(threads)
    _, W, C = x.shape
    (H, rows), K = _heights(y, strip), w.shape[1]
    check_channels("first_layer", 0, K)
    check_arrays(
        "first_layer",
        x,
        x=(x, (rows, W, C)),
        w=(w, (9 * C, K)),
        b=(b, (K,)),
        y=(y, (H, W, K)),
        mask=(mask, (H * W * K // 8,)),
        workspace=(workspace, (first_layer_workspace(H, W, C, K, x.itemsize, threads),)),
    )
    _kernels.first_layer(x, w, b, y, mask, workspace, threads, strip, replicate)


def first_layer_backward(
    dy: Array,
    mask: Bytes,
    w: Array,
    dx: Array,
    workspace: Array,
    threads: int | None = None,
    strip: Strip | None = None,
    replicate: bool = False,
) -> None:
    """Gradient of `first_layer` with respect to x: dx = col2im(dP), dP = dy Q' where y > 0.

    Parameters
    ----------
    dy : (H, W, K) array
    mask : (H W K / 8,) array of uint8
        From `first_layer`.
    w : (9C, K) array
    dx : (H, W, C) array
        Output.
    workspace : array
        first_layer_workspace(...) elements.
    strip : Strip, optional
        What dx is a part of.
    replicate : bool
        As in `first_layer`: pixels at the border get the gradients of their copies, too.
    """
    threads = _team_size(threads)
    _, W, K = dy.shape
    (H, rows), C = _heights(dx, strip), dx.shape[2]
    check_channels("first_layer_backward", 0, K)
    check_arrays(
        "first_layer_backward",
        dy,
        dy=(dy, (rows, W, K)),
        mask=(mask, (rows * W * K // 8,)),
        w=(w, (9 * C, K)),
        dx=(dx, (H, W, C)),
        workspace=(workspace, (first_layer_workspace(H, W, C, K, dy.itemsize, threads),)),
    )
    _kernels.first_layer_backward(dy, mask, w, dx, workspace, threads, strip, replicate)


def relu(x: Array, y: Array, mask: Bytes, threads: int | None = None) -> None:
    """y = max(x, 0), and a bit per element; a NaN stays a NaN.

    Parameters
    ----------
    x, y : arrays of one shape, N elements
        y is the output; it may be x.
    mask : (ceil(N / 8),) array of uint8
        Output: bit j of byte i is x > 0 of element 8i + j in C order.
    """
    check_arrays("relu", x, x=(x, x.shape), y=(y, x.shape), mask=(mask, ((x.size + 7) // 8,)))
    _kernels.relu(x.reshape(-1), y.reshape(-1), mask, _team_size(threads))


def relu_backward(dy: Array, mask: Bytes, dx: Array, threads: int | None = None) -> None:
    """dx = dy where the bit of `mask` is set, else 0; dx, the output, may be dy. Shapes as in `relu`."""
    check_arrays(
        "relu_backward", dy, dy=(dy, dy.shape), mask=(mask, ((dy.size + 7) // 8,)), dx=(dx, dy.shape)
    )
    _kernels.relu_backward(dy.reshape(-1), mask, dx.reshape(-1), _team_size(threads))


def average_pool(x: Array, y: Array, threads: int | None = None) -> None:
    """y[h, w] = mean of the 2x2 cell x[2h : 2h + 2, 2w : 2w + 2]; x (H, W, C), y (H // 2, W // 2, C)."""
    H, W, C = x.shape
    check_arrays("average_pool", y, x=(x, (H, W, C)), y=(y, (H // 2, W // 2, C)))
    _kernels.average_pool(x, y, _team_size(threads))


def average_pool_backward(dy: Array, dx: Array, threads: int | None = None) -> None:
    """dx = dy / 4 in each pixel of a cell, 0 in an odd last row or column; shapes as in `average_pool`."""
    H, W, C = dx.shape
    check_arrays("average_pool_backward", dy, dy=(dy, (H // 2, W // 2, C)), dx=(dx, (H, W, C)))
    _kernels.average_pool_backward(dy, dx, _team_size(threads))


def max_pool(x: Array, y: Array, argmax: Bytes, threads: int | None = None) -> None:
    """Maximum of each 2x2 cell, as in `average_pool`, and its place; a NaN is the maximum of its cell.

    Parameters
    ----------
    x : (H, W, C) array
    y : (H // 2, W // 2, C) array
        Output.
    argmax : (H // 2, W // 2, C) array of uint8
        Output: 2i + j, where y[h, w] is x[2h + i, 2w + j], the first of equals.
    """
    H, W, C = x.shape
    cells = (H // 2, W // 2, C)
    check_arrays("max_pool", y, x=(x, (H, W, C)), y=(y, cells), argmax=(argmax, cells))
    _kernels.max_pool(x, y, argmax, _team_size(threads))


def max_pool_backward(dy: Array, argmax: Bytes, dx: Array, threads: int | None = None) -> None:
    """dx = dy at the argmax of each cell, 0 elsewhere; dx (H, W, C), dy and argmax (H // 2, W // 2, C)."""
    H, W, C = dx.shape
    cells = (H // 2, W // 2, C)
    check_arrays("max_pool_backward", dy, dy=(dy, cells), argmax=(argmax, cells), dx=(dx, (H, W, C)))
    _kernels.max_pool_backward(dy, argmax, dx, _team_size(threads))


def packing_parts(N: int) -> int:
    """Parts of a row of N elements that `mark` counts in: threads pack them side by side."""
    return int(_kernels.packing_parts(N))


def mark(x: Array, bits: Bytes, starts: AnyArray, positive: bool = True, threads: int | None = None) -> None:
    """Which elements of x are going to be packed: those above 0.

    Parameters
    ----------
    x : (rows, ...) array
        N elements in a row. In a feature map N is a multiple of 32, and bits are those of `relu`; where it is
        no multiple of 8, the bits of each row begin with a new byte.
    bits : (rows, ceil(N / 8)) array of uint8
        Output: bit j of byte i in a row is x > 0 of element 8i + j.
    starts : (rows * packing_parts(N) + 1,) array of int64
        Output: where the elements of each part begin among all that are packed, and how many these are.
    positive : bool
        If not, all elements but those without any bit set, +0.
    """
    check_arrays("mark", x, x=(x, x.shape), **_packed_arrays(x, bits, starts))
    _kernels.mark(_by_rows(x), bits, starts, positive, _team_size(threads))


def pack(x: Array, bits: Bytes, starts: AnyArray, values: Array, threads: int | None = None) -> None:
    """Elements of x whose bit is set, one after the other, as they are.

    Parameters
    ----------
    x : (rows, ...) array
    bits, starts : arrays
        From `mark`, of another array maybe.
    values : (starts[-1],) array
        Output.
    """
    arrays = _packed_arrays(x, bits, starts)
    check_arrays("pack", x, x=(x, x.shape), **arrays, values=(values, (int(starts[-1]),)))
    _kernels.pack(_by_rows(_words(x)), bits, starts, _words(values), _team_size(threads))


def unpack(values: Array, bits: Bytes, starts: AnyArray, y: Array, threads: int | None = None) -> None:
    """y = what was packed where a bit is set, 0 elsewhere.

    Parameters
    ----------
    values : array
        From `pack`.
    bits : (rows, ceil(N / 8)) array of uint8
    starts : (rows * packing_parts(N) + 1,) array of int64
        Of some of the rows that were packed, or of all.
    y : (rows, ...) array
        Output.
    """
    arrays = _packed_arrays(y, bits, starts)
    check_arrays("unpack", y, y=(y, y.shape), **arrays, values=(values, values.shape))
    if not 0 <= starts[0] <= starts[-1] <= values.size:
        expected = f"the {starts[-1]} that were packed"
        raise UserError("unpack: values", f"{values.size} elements", expected, "give those from pack")
    _kernels.unpack(_words(values), bits, starts, _by_rows(_words(y)), _team_size(threads))


def _packed_arrays(x: Array, bits: Bytes, starts: AnyArray) -> dict[str, tuple[AnyArray, tuple[int, ...]]]:
    """What `check_arrays` needs for rows x."""
    rows, N = len(x), prod(x.shape[1:])
    return {"bits": (bits, (rows, (N + 7) // 8)), "starts": (starts, (rows * packing_parts(N) + 1,))}


def _by_rows(x: AnyArray) -> AnyArray:
    return x.reshape(len(x), -1)


def _words(x: Array) -> AnyArray:
    """The same elements as unsigned integers."""
    return x.view(f"u{x.itemsize}")


def gram_workspace(M: int, C: int, itemsize: int, threads: int | None = None) -> int:
    """Elements of workspace for `gram` and `gram_backward`, f (M, C)."""
    return int(_kernels.gram_workspace(M, C + -C % CHANNELS, itemsize, resolve(threads)))


def gram_rows_per_sum(M: int) -> int:
    """Rows of f (M, C) that `gram` sums in its dtype: its parts begin at multiples of them."""
    return int(_kernels.gram_rows_per_sum(M))


def gram(
    f: Array,
    g: Double,
    workspace: Array,
    threads: int | None = None,
    total: Double | None = None,
    start: int = 0,
    whole: int | None = None,
) -> None:
    """Gram matrix g = f'f: blocks of rows in the dtype of f, accumulated in float64 (docs/numerics.md).

    Parameters
    ----------
    f : (M, C) array
    g : (C, C) array of float64
        Output.
    workspace : array
        gram_workspace(...) elements.
    total : (C,) array of float64, optional
        Output: the sum of f's rows, accumulated in the same way.
    start, whole : int, optional
        f are the rows from `start` on of `whole` ones, whose parts are given one after the other; from the
        second on, what they add is added to g and total.
    """
    if whole is not None and f.shape[1] % CHANNELS:
        raise UserError("gram", f"{f.shape[1]} channels", f"multiples of {CHANNELS}", "give all of f")
    threads = _team_size(threads)  # once, as in `winograd`
    M, C = f.shape
    size = gram_workspace(M, C, f.itemsize, threads)
    arrays = {"f": (f, (M, C)), "g": (g, (C, C)), "workspace": (workspace, (size,))}
    arrays |= {} if total is None else {"total": (total, (C,))}
    check_arrays("gram", f, **arrays)
    if C % CHANNELS:
        padded = np.empty((C + -C % CHANNELS,) * 2)
        padded_total = None if total is None else np.empty(len(padded))
        _kernels.gram(_padded(f, 0), padded, workspace, threads, padded_total)
        g[...] = padded[:C, :C]
        if total is not None and padded_total is not None:
            total[...] = padded_total[:C]
    else:
        _kernels.gram(f, g, workspace, threads, total, start, whole)


def gram_backward(
    f: Array,
    dg: Double,
    df: Array,
    workspace: Array,
    threads: int | None = None,
    row: Double | None = None,
) -> None:
    """Gradient of a loss with respect to f from dg, that with respect to g: df = f (dg + dg').

    Parameters
    ----------
    f : (M, C) array
    dg : (C, C) array of float64
    df : (M, C) array
        Output.
    workspace : array
        gram_workspace(...) elements.
    row : (C,) array of float64, optional
        The gradient with respect to the total of `gram`, which is added to each row of df.
    """
    threads = _team_size(threads)
    M, C = f.shape
    size = gram_workspace(M, C, f.itemsize, threads)
    arrays = {"f": (f, (M, C)), "dg": (dg, (C, C)), "df": (df, (M, C)), "workspace": (workspace, (size,))}
    arrays |= {} if row is None else {"row": (row, (C,))}
    check_arrays("gram_backward", f, **arrays)
    if C % CHANNELS:
        padded = np.empty((M, C + -C % CHANNELS), f.dtype)
        padded_row = None if row is None else np.pad(row, (0, -C % CHANNELS))
        _kernels.gram_backward(
            _padded(f, 0), _padded(dg, -C % CHANNELS), padded, workspace, threads, padded_row
        )
        df[...] = padded[:, :C]
    else:
        _kernels.gram_backward(f, dg, df, workspace, threads, row)


def dot_products(a: Array, b: Array, c: Array, products: Double, threads: int | None = None) -> None:
    """products[i] = a[i] . b, a[i] . c, accumulated in float64.

    Parameters
    ----------
    a : (rows, N) array
    b, c : (N,) arrays
    products : (rows, 2) array of float64
        Output.
    """
    rows, N = a.shape
    check_arrays("dot_products", a, a=(a, a.shape), b=(b, (N,)), c=(c, (N,)), products=(products, (rows, 2)))
    _kernels.dot_products(a, b, c, products, _team_size(threads))


def linear_combination(a: Array, b: Array, weights: Double, y: Array, threads: int | None = None) -> None:
    """y = sum of weights[i] a[i] + weights[rows] b, accumulated in float64 and rounded once.

    Parameters
    ----------
    a : (rows, N) array
    b : (N,) array
    weights : (rows + 1,) array of float64
    y : (N,) array
        Output; it may be b, but nothing of a.
    """
    rows, N = a.shape
    arrays = {"a": (a, a.shape), "b": (b, (N,)), "weights": (weights, (rows + 1,)), "y": (y, (N,))}
    check_arrays("linear_combination", a, **arrays)
    _kernels.linear_combination(a, b, weights, y, _team_size(threads))


def _padded(a: AnyArray, rows: int) -> AnyArray:
    """A copy with so many further rows, and columns up to a multiple of CHANNELS, of zeros."""
    return np.pad(a, ((0, rows), (0, -a.shape[1] % CHANNELS)))
