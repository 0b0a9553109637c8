"""What `npstyle info` prints."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import version

from threadpoolctl import threadpool_info

from npstyle import _kernels
from npstyle._runtime import threads as _threads
from npstyle._version import __version__
from npstyle.errors import UserError
from npstyle.weights import find_weights
from npstyle.weights import registry as _registry


def lines() -> Iterator[tuple[str, str]]:
    """Name and value of each line."""
    yield "npstyle", __version__
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    for package in ("numpy", "scipy", "pillow", "h5py"):
        yield package, version(package)
    slow = ", plain NumPy and slow (NPSTYLE_KERNELS)" if _kernels.IMPLEMENTATION == "reference" else ""
    yield "kernels", _kernels.IMPLEMENTATION + slow
    without = "not used by these kernels" if slow else "no: one thread, whatever --threads says"
    yield "vectors", _kernels.use(None)
    yield "OpenMP", "yes" if _kernels.OPENMP else without
    yield "threads", f"{_threads.available()} available"
    for pool in threadpool_info():
        if pool["user_api"] == "blas":
            kind = f"{pool['internal_api']} {pool.get('version')} for {pool.get('architecture')}"
            yield "BLAS", f"{kind}, {pool['filepath']}"
    yield "weights", _weights()
    yield "cache", str(_registry.cache_folder())


def _weights() -> str:
    """Where the next run would get its filters from, or what is in the way."""
    named = os.environ.get("NPSTYLE_WEIGHTS")
    if named:
        missing = "" if os.path.isfile(os.path.expanduser(named)) else ": no file of that name"
        return f"{named} (NPSTYLE_WEIGHTS){missing}"
    try:
        found, tried = find_weights()
    except UserError as error:
        return str(error)
    return str(found or "none here: " + "; ".join(tried))
