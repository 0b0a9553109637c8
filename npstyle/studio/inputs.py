"""What a picture is painted from: photograph, paintings, masks, and the picture to start from.

Of whatever is known of them: uploads when they are chosen, sizes for an estimate, names for a command,
contents to paint from. Their names in the folder of a painting are fixed; none comes from the browser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from npstyle.errors import UserError

MAX_STYLES = 8  # paintings, and pairs of regions, as there may be one for each painting

CONTENT, STYLE = "content", "style-{}"
CONTENT_MASK, STYLE_MASK, KEEP_MASK = "content-mask-{}", "style-mask-{}", "keep-mask"
START = "start"
NUMBERS = range(1, MAX_STYLES + 1)
# Those beside photograph and paintings.
MASKS = (*map(CONTENT_MASK.format, NUMBERS), *map(STYLE_MASK.format, NUMBERS), KEEP_MASK)
MORE = (*MASKS, START)
FILES = (CONTENT, *map(STYLE.format, NUMBERS), *MORE)

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class InputFile:
    """A picture or mask on the disk."""

    name: str
    path: Path
    width: int
    height: int

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height


@dataclass(frozen=True)
class Inputs(Generic[T]):
    """All inputs of a painting.

    Attributes
    ----------
    content : T
        The photograph.
    styles : tuple of T
        The paintings.
    content_masks, style_masks : tuples of T
        Pairs of regions: see `npstyle.stylize`.
    keep : T, optional
        The mask of what stays as it is.
    start : T, optional
        The picture to start from.
    """

    content: T
    styles: tuple[T, ...]
    content_masks: tuple[T, ...] = ()
    style_masks: tuple[T, ...] = ()
    keep: T | None = None
    start: T | None = None

    @classmethod
    def of(cls, values: Mapping[str, T]) -> Inputs[T]:
        """The inverse of `items`."""

        def numbered(name: str) -> tuple[T, ...]:
            return tuple(values[name.format(n)] for n in NUMBERS if name.format(n) in values)

        regions = numbered(CONTENT_MASK), numbered(STYLE_MASK)
        return cls(values[CONTENT], numbered(STYLE), *regions, values.get(KEEP_MASK), values.get(START))

    def items(self) -> Iterator[tuple[str, T]]:
        """All of them by the names of their files in the folder of a painting."""
        yield CONTENT, self.content
        numbered = {STYLE: self.styles, CONTENT_MASK: self.content_masks, STYLE_MASK: self.style_masks}
        for name, values in numbered.items():
            yield from ((name.format(n), value) for n, value in enumerate(values, 1))
        for name, one in ((KEEP_MASK, self.keep), (START, self.start)):
            if one is not None:
                yield name, one

    def map(self, function: Callable[[T], U]) -> Inputs[U]:
        """The same of another kind."""
        return Inputs.of({name: function(value) for name, value in self.items()})


def check_masks(sizes: Inputs[tuple[int, int]]) -> None:
    """Raise UserError unless each mask has its picture's size, and regions come in pairs."""
    content, style = len(sizes.content_masks), len(sizes.style_masks)
    if content != style:
        found = f"{content} regions of the photograph and {style} of paintings"
        raise UserError("masks", found, "pairs", "paint as many of each")
    if style and len(sizes.styles) > 1 and style != len(sizes.styles):
        found = f"{style} regions for {len(sizes.styles)} paintings"
        raise UserError(
            "masks", found, "one for each painting", "paint a region for each over the photograph"
        )
    owners = sizes.styles if len(sizes.styles) > 1 else sizes.styles * style
    pairs = [(mask, sizes.content) for mask in sizes.content_masks]
    pairs += zip(sizes.style_masks, owners, strict=True)
    pairs += [] if sizes.keep is None else [(sizes.keep, sizes.content)]
    for (w, h), (width, height) in pairs:
        if (w, h) != (width, height):
            found, expected = f"a mask of {w} x {h} pixels", f"{width} x {height}, the size of its picture"
            raise UserError("masks", found, expected, "paint it again")
