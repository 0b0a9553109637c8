"""Neural style transfer from scratch: VGG19 forward and backward by hand, in NumPy and Cython.

The public names are listed below; each is imported on first use, so `import npstyle` takes no time.
"""

from __future__ import annotations

from importlib import import_module

from npstyle._version import __version__

TYPE_CHECKING = False  # type checkers take it for typing's, whose import would take half of the time
if TYPE_CHECKING:
    from typing import Any

    from npstyle.errors import UserError
    from npstyle.objective import Objective
    from npstyle.presets import preset
    from npstyle.run import Progress, StyleResult, stylize
    from npstyle.settings import Settings
    from npstyle.study.judging import Judgment, judge
    from npstyle.vgg import VGG19
    from npstyle.weights import RandomFiltersWarning, load_weights

_MODULES = {
    "Judgment": "study.judging",
    "Objective": "objective",
    "Progress": "run",
    "RandomFiltersWarning": "weights",
    "Settings": "settings",
    "StyleResult": "run",
    "UserError": "errors",
    "VGG19": "vgg",
    "judge": "study.judging",
    "load_weights": "weights",
    "preset": "presets",
    "stylize": "run",
}

__all__ = [
    "VGG19",
    "Judgment",
    "Objective",
    "Progress",
    "RandomFiltersWarning",
    "Settings",
    "StyleResult",
    "UserError",
    "__version__",
    "judge",
    "load_weights",
    "preset",
    "stylize",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'npstyle' has no attribute {name!r}")
    value = getattr(import_module(f"npstyle.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
