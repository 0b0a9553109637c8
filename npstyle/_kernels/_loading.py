"""Which kernels run: the compiled ones, or their reference implementations."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

from npstyle._kernels import reference
from npstyle._runtime.threads import passive_openmp_waiting
from npstyle.errors import UserError

MODULES = (
    "_convolution",
    "_winograd",
    "_first_layer",
    "_relu",
    "_pooling",
    "_packing",
    "_gram",
    "_lbfgs",
    "_openmp",
    "_cpu",
)
NAMES = (
    "conv3x3_rows",
    "conv3x3_workspace",
    "conv3x3",
    "winograd_rows",
    "winograd_workspace",
    "winograd",
    "winograd_backward",
    "first_layer_workspace",
    "first_layer",
    "first_layer_backward",
    "relu",
    "relu_backward",
    "average_pool",
    "average_pool_backward",
    "max_pool",
    "max_pool_backward",
    "packing_parts",
    "mark",
    "pack",
    "unpack",
    "gram_rows_per_sum",
    "gram_workspace",
    "gram",
    "gram_backward",
    "dot_products",
    "linear_combination",
)


def load(implementation: str) -> tuple[Any, Any, bool]:
    """Import the kernels, "compiled" or "reference".

    Returns
    -------
    kernels : namespace
        The functions of NAMES.
    cpu : module or None
        Of the instruction sets that compiled kernels choose from.
    openmp : bool
        Whether they run on several threads.
    """
    if implementation == "reference":
        return reference, None, False
    if implementation != "compiled":
        raise UserError(
            "NPSTYLE_KERNELS",
            repr(implementation),
            "'compiled' or 'reference'",
            "unset it for the compiled kernels",
        )
    try:
        with passive_openmp_waiting():
            modules = {name: import_module(f"npstyle._kernels.{name}") for name in MODULES}
    except ImportError as error:
        raise ImportError(
            f"npstyle's kernels: found no compiled modules ({error}); expected them beside "
            f"{__file__}; build them with `pip install -e .`, or set NPSTYLE_KERNELS=reference to "
            "run on plain NumPy, many times slower"
        ) from error
    functions = {
        name: getattr(module, name) for module in modules.values() for name in NAMES if hasattr(module, name)
    }
    return SimpleNamespace(**functions), modules["_cpu"], modules["_openmp"].has_openmp()
