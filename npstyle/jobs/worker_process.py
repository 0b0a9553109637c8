"""What Dask loads first in each worker process of this machine (its `preload`)."""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C, which a terminal sends to all processes, to the one that the workers belong to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
