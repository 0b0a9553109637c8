"""Optical flow: where each pixel of a frame was in an earlier one, which pixels that can be said of, warping.

A flow (H, W, 2) from picture a to picture b has for each pixel of a, in pixels, how far to the right and how
far down the same thing is in b. Backward flow goes from a frame to an earlier one, so that warping the
earlier one by it looks up each pixel of the frame; forward flow goes from the earlier to the later.

Ruder, Dosovitskiy, Brox, "Artistic Style Transfer for Videos", GCPR 2016; docs/video.md.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npstyle import images
from npstyle.errors import UserError
from npstyle.images.color import luma

Array = NDArray[Any]
Flow = NDArray[np.float32]

FLOW_METHODS = ("dis", "tvl1")
# Where forward and backward flow do not cancel, as parts of their squares and in squared pixels; and how much
# a flow may change from pixel to pixel, likewise.
OCCLUSION, MIN_OCCLUSION = 0.01, 0.5
MOTION_BORDER, MIN_MOTION_BORDER = 0.01, 0.002
MASK_SIGMA = 0.8  # pixels
FLO_MAGIC = 202021.25  # the first four bytes of a .flo file, as a float32


class FlowPair(NamedTuple):
    """The flows between a frame and an earlier one: backward (H, W, 2), and forward."""

    backward: Flow
    forward: Flow


# ------------------------------------------------------------------------------------------------
# Warping
# ------------------------------------------------------------------------------------------------


def warp(picture: Array, flow: Flow) -> Array:
    """Look up, for each pixel, the picture (H, W) or (H, W, C) where the flow (H, W, 2) points.

    Between pixels by cubic convolution (Keys 1981, a = -1/2), which blurs less than bilinear interpolation
    where frame after frame is warped; outside of the picture its border.

    Examples
    --------
    >>> picture = np.arange(12.0).reshape(3, 4)
    >>> flow = np.zeros((3, 4, 2)); flow[..., 0] = 1
    >>> warp(picture, flow)[0].tolist()
    [1.0, 2.0, 3.0, 3.0]
    """
    rows, columns = np.indices(flow.shape[:2], dtype=np.float64)
    x, y = columns + flow[..., 0], rows + flow[..., 1]
    H, W = picture.shape[:2]
    x, y = np.clip(x, 0, W - 1), np.clip(y, 0, H - 1)
    left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    across, down = _cubic_weights(x - left), _cubic_weights(y - top)
    extra = (None,) * (picture.ndim - 2)
    result = np.zeros(flow.shape[:2] + picture.shape[2:])
    for i, wy in enumerate(down):
        row = np.clip(top + i - 1, 0, H - 1)
        for j, wx in enumerate(across):
            column = np.clip(left + j - 1, 0, W - 1)
            result += (wy * wx)[(..., *extra)] * picture[row, column]
    return result.astype(picture.dtype if picture.dtype.kind == "f" else np.float32)


def _cubic_weights(t: Array) -> tuple[Array, ...]:
    """Weights of the four neighbors of a point that is t beyond the second of them."""
    return (
        ((-0.5 * t + 1) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1,
        ((-1.5 * t + 2) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    )


# ------------------------------------------------------------------------------------------------
# What can be relied on
# ------------------------------------------------------------------------------------------------


def reliability(pair: FlowPair) -> Array:
    """1 for each pixel whose place in the earlier frame is known, 0 for others; softened at their border.

    Not known is what the earlier frame does not show, which is where the two flows do not cancel or point out
    of the picture, and what lies at a border of motion, where flows are inexact.
    """
    forward = warp(pair.forward, pair.backward)  # as seen from the later frame
    known = ~(_occluded(pair.backward, forward) | _at_motion_border(pair.backward))
    return blurred((known & inside(pair.backward)).astype(np.float32), MASK_SIGMA)


def inside(flow: Flow) -> NDArray[np.bool_]:
    """Where the flow points into the picture."""
    H, W, _ = flow.shape
    rows, columns = np.indices((H, W))
    x, y = columns + flow[..., 0], rows + flow[..., 1]
    margin = 0.5  # half a pixel is rounding
    known = (x >= -margin) & (x <= W - 1 + margin) & (y >= -margin) & (y <= H - 1 + margin)
    return np.asarray(known)


def _occluded(backward: Flow, forward: Flow) -> NDArray[np.bool_]:
    sizes = _squares(backward) + _squares(forward)
    return _squares(backward + forward) >= OCCLUSION * sizes + MIN_OCCLUSION


def _at_motion_border(backward: Flow) -> NDArray[np.bool_]:
    changes = np.zeros(backward.shape[:2])
    for axis in (0, 1):
        if backward.shape[axis] > 1:
            changes += _squares(np.gradient(backward, axis=axis))
    return changes > MOTION_BORDER * _squares(backward) + MIN_MOTION_BORDER


def _squares(flow: Array) -> Array:
    return np.asarray(np.sum(np.square(flow, dtype=np.float64), axis=-1))


def blurred(mask: Array, sigma: float) -> Array:
    """A mask (H, W) convolved with a Gaussian, its border replicated."""
    reach = int(np.ceil(3 * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        padding = [(0, 0), (0, 0)]
        padding[axis] = (reach, reach)
        padded, length = np.pad(mask, padding, "edge"), mask.shape[axis]
        mask = sum(
            w * np.take(padded, range(i, i + length), axis=axis) for i, w in enumerate(weights.tolist())
        )
    return np.asarray(mask, np.float32)


def long_term_masks(masks: Sequence[Array]) -> list[Array]:
    """Masks of the frames 1, 2, 4, ... before, each without what nearer frames show already.

    m_long of a frame is max(m - sum of the nearer frames' m, 0).
    """
    nearer, result = np.zeros_like(masks[0]), []
    for mask in masks:
        result.append(np.maximum(mask - nearer, 0))
        nearer = nearer + mask
    return result


def joined_target(targets: Sequence[Array], masks: Sequence[Array]) -> tuple[Array, Array]:
    """One target and one mask for several: the sums of m (x - t)^2 differ by a constant only.

    sum_j m_j (x - t_j)^2 = m (x - t)^2 + constant, with m = sum_j m_j and t = sum_j m_j t_j / m. Where all
    masks are 0 the target is the first.
    """
    total = np.sum(masks, axis=0)
    weighted = np.sum([m[..., None] * t for m, t in zip(masks, targets, strict=True)], axis=0)
    known = total > 1e-3
    target = np.where(known[..., None], weighted / np.maximum(total, 1e-3)[..., None], targets[0])
    return target.astype(np.float32), np.where(known, total, 0).astype(np.float32)


# ------------------------------------------------------------------------------------------------
# Where flows come from
# ------------------------------------------------------------------------------------------------


def check_flow(flow: str) -> None:
    """Raise UserError, before anything takes time, where flows can't be had as named."""
    needed = {"dis": ("cv2", "opencv-python-headless"), "tvl1": ("skimage", "scikit-image")}.get(flow)
    if needed and find_spec(needed[0]) is None:
        found, expected = f"{flow}, but no {needed[0]}", f"the package {needed[1]}"
        cure = f"pip install {needed[1]}, name a folder of .flo files, or take --method difference"
        raise UserError("flow", found, expected, cure)
    if needed is None and not os.path.isdir(flow):
        expected = f"{', '.join(FLOW_METHODS)} or a folder of .flo files"
        raise UserError("flow", repr(flow), expected, "check the name")


def flow_version(flow: str) -> str:
    """A method and what computes it, on which the flow depends; nothing of a folder, whose files count."""
    module = {"dis": "cv2", "tvl1": "skimage"}.get(flow)
    return f"{flow} of {module} {import_module(module).__version__}" if module else ""


def flow_between(earlier: Array, later: Array, flow: str, numbers: tuple[int, int] = (0, 0)) -> FlowPair:
    """The flows between two frames (H, W, 3) uint8, by a method or from a folder of .flo files.

    `numbers` are those of the frames, from 1, which name the files: backward_2_1.flo and forward_1_2.flo.
    """
    if flow in FLOW_METHODS:
        estimate = _dis if flow == "dis" else _tvl1
        return FlowPair(estimate(later, earlier), estimate(earlier, later))
    i, j = numbers
    folder, (H, W) = Path(flow), later.shape[:2]
    names = flow_names(i, j)
    return FlowPair(*(_of_size(read_flo(folder / name), H, W) for name in names))


def flow_names(earlier: int, later: int) -> tuple[str, str]:
    """The files of the backward and the forward flow between two frames, by their numbers from 1."""
    return f"backward_{later}_{earlier}.flo", f"forward_{earlier}_{later}.flo"


def _dis(a: Array, b: Array) -> Flow:
    """Dense inverse search, Kroeger et al., ECCV 2016, by OpenCV."""
    cv2: Any = import_module("cv2")
    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    method.setFinestScale(0)  # down to single pixels: frames are small, and painting takes far longer
    H, W = a.shape[:2]
    # Its patches and its pyramid need some pixels; smaller frames are padded.
    padding = [(0, max(0, MIN_DIS_SIDE - side)) for side in (H, W)]
    grays = [np.pad(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), padding, "edge") for p in (a, b)]
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)  # so that no version of OpenCV can make the flow depend on them
        flow = method.calc(grays[0], grays[1], None)
    finally:
        cv2.setNumThreads(threads)
    return np.asarray(flow, np.float32)[:H, :W]


MIN_DIS_SIDE = 32


def _tvl1(a: Array, b: Array) -> Flow:
    """TV-L1, Zach, Pock, Bischof 2007, by scikit-image."""
    registration: Any = import_module("skimage.registration")
    down, right = registration.optical_flow_tvl1(luma(a) / 255, luma(b) / 255)
    return np.stack([right, down], axis=-1).astype(np.float32)


def _of_size(flow: Flow, H: int, W: int) -> Flow:
    """A flow for pictures of another size, whose steps are longer or shorter."""
    h, w, _ = flow.shape
    if (h, w) == (H, W):
        return flow
    right, down = (images.resize(np.ascontiguousarray(flow[..., n]), W, H) for n in (0, 1))
    return np.stack([right * (W / w), down * (H / h)], axis=-1).astype(np.float32)


def read_flo(path: str | os.PathLike[str]) -> Flow:
    """A flow (H, W, 2) from a file of the Middlebury benchmark's form.

    Raises
    ------
    UserError
        It is missing, damaged, or something else.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise missing_flow(path, str(error.strerror)) from error
    magic, W, H = struct.unpack("<fii", data[:12]) if len(data) >= 12 else (0.0, 0, 0)
    if magic != FLO_MAGIC or min(W, H) < 1 or len(data) != 12 + 8 * W * H:
        raise UserError(f"flow: {path}", "a damaged file, or something else", "a .flo file", "make it again")
    flow = np.frombuffer(data, "<f4", offset=12).reshape(H, W, 2).astype(np.float32)
    if not np.isfinite(flow).all():
        raise UserError(f"flow: {path}", "NaN or infinity", "finite numbers", "make it again")
    return flow


def missing_flow(path: str | os.PathLike[str], found: str) -> UserError:
    """The error about a .flo file that can't be read."""
    cure = "make it with the program that made the others"
    return UserError(f"flow: {path}", found, "a .flo file", cure)


def write_flo(path: str | os.PathLike[str], flow: Flow) -> None:
    """Write a flow in the form that `read_flo` reads."""
    H, W, _ = flow.shape
    Path(path).write_bytes(struct.pack("<fii", FLO_MAGIC, W, H) + flow.astype("<f4").tobytes())
