"""Orders: what the page asks for, checked, and as a request, as text in the picture and as a command to copy.

No field of an order names a file of the machine: pictures are those that were uploaded, and filters those
that the server was started with, or random ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from npstyle import images
from npstyle.errors import UserError, check_choice, check_integer, check_nonnegative
from npstyle.images.metadata import as_text, command_line
from npstyle.presets import PRESETS, preset
from npstyle.run import Request
from npstyle.run.inputs import SIZE
from npstyle.settings import CHOICES, Settings, format_field

MAX_STYLES = 8
MAX_SIDE = 16384  # pixels
MAX_ITERATIONS = 10000
MAX_STRENGTH = 1000.0
MAX_SEED = 2**32 - 1
WEIGHTS = ("auto", "random")  # "auto": those that the server was started with


def _integer(minimum: int, maximum: int) -> Callable[[str, Any], Any]:
    def check(name: str, value: Any) -> int:
        number = check_integer(name, value, minimum)
        if number > maximum:
            raise UserError(name, str(number), f"at most {maximum}", "give less")
        return number

    return check


def _number(minimum: float, maximum: float) -> Callable[[str, Any], Any]:
    def check(name: str, value: Any) -> float:
        number = check_nonnegative(name, value if isinstance(value, (int, float)) else None)
        if not minimum <= number <= maximum:
            raise UserError(name, f"{number:g}", f"{minimum:g} to {maximum:g}", "give a number between them")
        return number

    return check


def _choice(choices: Sequence[Any]) -> Callable[[str, Any], Any]:
    def check(name: str, value: Any) -> Any:
        if not isinstance(value, (str, bool)):
            raise UserError(name, repr(value)[:50], " or ".join(map(repr, choices)), "take one of these")
        check_choice(name, value, choices)
        return value

    return check


# The fields of the request, of Settings, and those that are neither, each with its check.
REQUEST_FIELDS: dict[str, Callable[[str, Any], Any]] = {
    "size": _integer(16, MAX_SIDE),
    "style_scale": _number(0.05, 20.0),
    "seed": _integer(0, MAX_SEED),
    "enlarge": _choice((False, True)),
}
SETTINGS_FIELDS: dict[str, Callable[[str, Any], Any]] = {
    "iterations": _integer(1, MAX_ITERATIONS),
    "min_size": _integer(0, MAX_SIDE),
    "content_weight": _number(0, 1e9),
    "tv_weight": _number(0, 1e9),
    "keep_edges": _number(0, 1e9),
    "maxcor": _integer(1, 100),
    **{
        name: _choice(CHOICES[name])
        for name in ("statistics", "color", "init", "pooling", "padding", "optimizer", "mixture")
    },
}
OTHER_FIELDS: dict[str, Callable[[str, Any], Any]] = {
    "preset": _choice(tuple(PRESETS)),
    "strength": _number(1 / MAX_STRENGTH, MAX_STRENGTH),  # times the preset's style weight
    "weights": _choice(WEIGHTS),
}
FIELDS = {**REQUEST_FIELDS, **SETTINGS_FIELDS, **OTHER_FIELDS}


@dataclass(frozen=True)
class Order:
    """A picture that is asked for, beside the pictures it is made of.

    Attributes
    ----------
    options : dict
        Checked values of FIELDS; one that is left out is the preset's, or the default.
    """

    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, options: Any) -> Order:
        """Check what a page has sent; None is as good as left out.

        Raises
        ------
        UserError
            Named after the field that can't be used.
        """
        if not isinstance(options, dict):
            raise UserError("options", type(options).__name__, "an object", "reload the page")
        checked = {}
        for name, value in options.items():
            if name not in FIELDS:
                raise UserError("options", f"{name[:50]!r}", "an option of the page", "reload the page")
            if value is not None:
                checked[name] = FIELDS[name](name, value)
        order = cls(checked)
        order.settings(random="weights" in checked and checked["weights"] == "random")
        return order

    def settings(self, random: bool) -> Settings:
        """The recipe; without a preset that with random filters, if these are random."""
        basis = preset(self.options.get("preset") or ("random" if random else "default"))
        changes = {name: value for name, value in self.options.items() if name in SETTINGS_FIELDS}
        if "strength" in self.options:
            changes["style_weight"] = basis.style_weight * self.options["strength"]
        return replace(basis, **changes)

    def request(
        self, content: images.PictureFile, styles: Sequence[images.PictureFile], random: bool
    ) -> Request:
        """The request for pictures that are read now.

        Raises
        ------
        UserError
            As `Request.read`.
        """
        return Request.read(content, list(styles), settings=self.settings(random), **self._request_options)

    def blank_request(
        self, content: tuple[int, int], styles: Sequence[tuple[int, int]], random: bool
    ) -> Request:
        """The request for pictures of which only width and height are known, for estimates."""
        blank = [np.broadcast_to(np.uint8(0), (h, w, 3)) for w, h in (content, *styles)]
        options = {"size": SIZE, **self._request_options}
        request = Request(blank[0], tuple(blank[1:]), self.settings(random), **options)
        request.check()
        return request

    @property
    def _request_options(self) -> dict[str, Any]:
        return {name: value for name, value in self.options.items() if name in REQUEST_FIELDS}

    def recorded(
        self, content: str, styles: Sequence[str], settings: Settings, weights: str
    ) -> dict[str, Any]:
        """All options of the run, as they are kept in the picture's file for `npstyle show`."""
        values = {"content": content, "style": list(styles), "size": SIZE, **self._request_options}
        values |= {"seed": self.options.get("seed", 0), "weights": weights}
        for each in fields(Settings):
            if not each.name.endswith("_layer_weights"):  # they are written behind their layers
                value = getattr(settings, each.name)
                values[each.name] = value if isinstance(value, bool) else format_field(settings, each.name)
        return {name: value for name, value in values.items() if value is not False or name != "enlarge"}

    def command(self, content: str, styles: Sequence[str], weights: str = "auto") -> str:
        """The command that paints the same picture, with the options that were chosen only."""
        random = weights == "random"
        settings = self.settings(random)
        given = {name: value for name, value in self.options.items() if name in (*REQUEST_FIELDS, "preset")}
        changed = [name for name in self.options if name in SETTINGS_FIELDS]
        changed += ["style_weight"] if "strength" in self.options else []
        given |= {name: format_field(settings, name) for name in changed}
        given |= {"enlarge": given.get("enlarge") or None, "weights": None if weights == "auto" else weights}
        return command_line(as_text({"content": content, "style": list(styles), **given}))
