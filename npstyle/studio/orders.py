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
from npstyle.studio.inputs import Inputs, check_masks

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

    def request(self, inputs: Inputs[images.PictureFile], random: bool) -> Request:
        """The request for pictures that are read now.

        Raises
        ------
        UserError
            As `Request.read`.
        """
        return Request.read(
            inputs.content,
            list(inputs.styles),
            settings=self.settings(random),
            content_masks=inputs.content_masks,
            style_masks=inputs.style_masks,
            keep=inputs.keep,
            init=inputs.start,
            **self._request_options,
        )

    def blank_request(self, sizes: Inputs[tuple[int, int]], random: bool) -> Request:
        """The request for pictures of which only width and height are known, for estimates.

        Raises
        ------
        UserError
            They do not go together.
        """
        check_masks(sizes)
        blank = sizes.map(lambda size: np.broadcast_to(np.uint8(0), (*size[::-1], 3)))
        options = {"size": SIZE, **self._request_options}
        request = Request(blank.content, blank.styles, self.settings(random), **options)
        request.check()  # without masks, which would be copied in float64
        masks = sizes.map(lambda size: np.broadcast_to(np.float32(1), size[::-1]))
        return replace(
            request,
            content_masks=masks.content_masks,
            style_masks=masks.style_masks,
            keep=masks.keep,
            init=blank.start,
        )

    @property
    def _request_options(self) -> dict[str, Any]:
        return {name: value for name, value in self.options.items() if name in REQUEST_FIELDS}

    def recorded(self, names: Inputs[str], settings: Settings, weights: str) -> dict[str, Any]:
        """All options of the run, as they are kept in the picture's file for `npstyle show`."""
        values = {"content": names.content, "style": list(names.styles), "size": SIZE}
        values |= self._request_options
        values |= {"seed": self.options.get("seed", 0), "weights": weights}
        for each in fields(Settings):
            if not each.name.endswith("_layer_weights"):  # they are written behind their layers
                value = getattr(settings, each.name)
                values[each.name] = value if isinstance(value, bool) else format_field(settings, each.name)
        values |= _of_inputs(names)
        return {name: value for name, value in values.items() if value is not False or name != "enlarge"}

    def command(
        self, names: Inputs[str], weights: str = "auto", iterations: Sequence[int] | None = None
    ) -> str:
        """The command that paints the same picture, with the options that were chosen only.

        `iterations` are those that were done at each level, where that is not what was asked for.
        """
        random = weights == "random"
        settings = self.settings(random)
        given = {name: value for name, value in self.options.items() if name in (*REQUEST_FIELDS, "preset")}
        changed = [name for name in self.options if name in SETTINGS_FIELDS]
        changed += ["style_weight"] if "strength" in self.options else []
        if iterations is not None:
            settings = replace(settings, iterations=tuple(iterations))
            changed += ["iterations"] if "iterations" not in changed else []
        given |= {name: format_field(settings, name) for name in changed}
        given |= {"enlarge": given.get("enlarge") or None, "weights": None if weights == "auto" else weights}
        given |= _of_inputs(names)
        return command_line(as_text({"content": names.content, "style": list(names.styles), **given}))


def _of_inputs(names: Inputs[str]) -> dict[str, Any]:
    """The options that name masks and the picture to start from, by their names on the command line."""
    masks = {"content_mask": list(names.content_masks), "style_mask": list(names.style_masks)}
    start = {} if names.start is None else {"init": names.start}  # in place of the recipe's
    return {**masks, "keep_mask": names.keep, **start}
