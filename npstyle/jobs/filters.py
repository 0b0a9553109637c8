"""Filters as a job names them, and what a process keeps of them from one job to the next."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from npstyle._runtime.memo import Memo
from npstyle._typing import Preprocessing
from npstyle.errors import UserError
from npstyle.weights import Weights, load_weights


@dataclass(frozen=True)
class Filters:
    """The filters of a job, by what `load_weights` loads them from.

    Attributes
    ----------
    source : str
        A path, or "random", "imagenet", "8bit".
    label : str
        `Weights.label` of what is to be found there: another file would paint another picture.
    deepest : str
        The deepest layer needed.
    seed : int
        Of random ones.
    preprocessing : {"caffe", "torchvision"}, optional
        What a file does not say.
    """

    source: str
    label: str
    deepest: str
    seed: int = 0
    preprocessing: Preprocessing | None = None

    @classmethod
    def of(cls, weights: Weights, deepest: str, seed: int, preprocessing: Preprocessing | None) -> Filters:
        """Of weights that were loaded with these arguments."""
        source = "random" if weights.path is None else str(weights.path.absolute())
        return cls(source, weights.label, deepest, seed if weights.random else 0, preprocessing)


_last: tuple[Filters, Weights, Memo] | None = None
_lock = threading.Lock()
# Files that were sent to this process, by their paths where they come from.
received: dict[str, Path] = {}


def keep(filters: Filters, weights: Weights) -> None:
    """Keep filters that were loaded for the next job in this process."""
    global _last
    with _lock:
        _last = filters, weights, Memo()


def kept(filters: Filters) -> tuple[Weights, Memo]:
    """The filters, loaded where the last job had others, and what was computed with them of styles.

    Raises
    ------
    UserError
        They can't be loaded, or are others than those that are named.
    """
    global _last
    with _lock:
        if _last is None or _last[0] != filters:
            source = received.get(filters.source, filters.source)
            weights = load_weights(source, filters.seed, filters.deepest, preprocessing=filters.preprocessing)
            if weights.label != filters.label:
                cure = "put the same file there, or have it sent (--send)"
                raise UserError(f"weights: {filters.source}", weights.label, filters.label, cure)
            _last = filters, weights, Memo()
        return _last[1:]
