"""Parts of the content picture that the result takes over: its colors, and the region of the keep mask.

While the optimizer runs they restrict what it may change; afterwards they are put into the picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npstyle import images
from npstyle._runtime.chunks import in_chunks
from npstyle.images.color import transfer_luma
from npstyle.objective import Objective
from npstyle.run.inputs import Request

Array = NDArray[Any]


class RestrictedObjective:
    """An objective whose gradient is projected on what the optimizer may change.

    Parameters
    ----------
    objective : Objective
    gray : bool
        Only brightness may change: the pixels are Y (1, 1, 1).
    keep : (H, W) array from 0 to 1, optional
        Where it is 1 nothing may change.
    """

    def __init__(self, objective: Objective, gray: bool, keep: Array | None) -> None:
        self.objective = objective
        self.gray = gray
        self.free = None if keep is None else (1 - keep[:, :, None]).astype(np.float32)

    @property
    def terms(self) -> Mapping[str, float]:
        return self.objective.terms

    def __call__(self, pixels: ArrayLike) -> tuple[float, Array]:
        """Loss, and the projected gradient."""
        loss, gradient = self.objective(pixels)
        if self.gray:  # the projection on the direction (1, 1, 1)
            gradient = in_chunks(
                lambda rows: np.repeat(rows.mean(axis=2, keepdims=True), 3, axis=2), gradient
            )
        return loss, gradient if self.free is None else np.multiply(gradient, self.free, out=gradient)


class Finish:
    """Turn the picture that the network sees, (height, width, 3), into the one that is shown."""

    def __init__(self, request: Request, width: int, height: int) -> None:
        self.request = request
        self.size = width, height

    def __call__(self, pixels: Array) -> Array:
        request = self.request
        take_color = request.settings.color in ("luma", "luminance")
        if not take_color and request.keep is None:
            return pixels
        content = images.resize(request.content, *self.size)
        if take_color:
            pixels = transfer_luma(pixels, content)
        if request.keep is not None:
            pixels = mixed(resized_mask(request.keep, *self.size), content, pixels)
        return pixels


def mixed(keep: Array, content: Array, pixels: Array) -> Array:
    """The content picture where the mask is 1, the other one where it is 0."""

    def of_rows(keep: Array, content: Array, pixels: Array) -> Array:
        mixture: Array = keep * content + (1 - keep) * pixels
        return mixture

    return in_chunks(of_rows, keep[:, :, None], content, pixels)


def resized_mask(mask: Array, width: int, height: int) -> Array:
    """A mask (H, W), from 0 to 1, at another size."""
    resized: Array = images.resize(np.asarray(mask, np.float32), width, height)
    return np.clip(resized, 0, 1, out=None if resized is mask else resized)
