"""A report on a run: one file that any browser opens, without a network and without npstyle.

It is the studio's page with everything inside: style and script, and two pictures of at most 1024 pixels, as
JPEG. Its content security policy forbids it to load anything.
"""

from __future__ import annotations

import base64
import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from npstyle import images
from npstyle.images.metadata import FACTS, command_line, picture_names
from npstyle.run import Request, StyleResult
from npstyle.studio.follower import PREVIEW_SIDE, before
from npstyle.studio.static_files import read_static

GENERATOR = b'<meta name="generator" content="npstyle report">'  # by which a report is known
MAX_POINTS = 1000  # of the curves, which show fewer

Point = dict[str, Any]


def report(
    request: Request,
    result: StyleResult,
    text: Mapping[str, str],
    points: Sequence[Point],
    facts: Mapping[str, str],
) -> bytes:
    """The report as a file.

    Parameters
    ----------
    request : Request
    result : StyleResult
    text : mapping of str to str
        The settings, as the picture's file has them: `npstyle.images.metadata.as_text`.
    points : sequence of dict
        The iterations: `completed`.
    facts : mapping of str to str
        What else there is to say, by what it is called.
    """
    static = read_static()
    content, *styles = picture_names(text)
    shown = images.fit(result.image, PREVIEW_SIDE)
    height, width, _ = result.image.shape
    h, w, _ = shown.shape
    known = [point["iteration"] for point in points if point["terms"]]
    continued = bool(known) and known[0] > 1
    note = (
        f"The parts are known from iteration {known[0]} on, where the run was continued." if continued else ""
    )
    shown_as = f"Shown here as a JPEG of {w} × {h} pixels." if (w, h) != (width, height) else ""
    parts = {
        "title": _escaped(f"{content} in the manner of {', '.join(styles)}"),
        "style": static["studio.css"].decode(),
        "script": bundled(static, "report.js"),
        "ratio": f"{width / height:.6g}",
        "after": _data(images.encode("x.jpg", shown)),
        "before": _data(before(request)),
        "state": _escaped(f"{width} × {height} pixels, {result.message}. {shown_as}"),
        "facts": _rows({**facts, "filters": result.weights, "npstyle": text.get("version", "")}),
        "command": _escaped(command_line(text)),
        "note": note,
        "settings": _rows(dict(_setting(*item) for item in text.items() if item[0] not in FACTS)),
        "points": json.dumps(thinned(points)).replace("<", "\\u003c"),  # so that it can't end the script
    }
    page = static["report.html"].decode()
    return re.sub(r"<!-- (\w+) -->", lambda place: parts[place[1]], page).encode()


def completed(points: Sequence[Point], result: StyleResult) -> list[Point]:
    """All iterations of a run; of those before it was continued, losses without terms."""
    found = {point["iteration"]: point for point in points}
    done = 0
    for number, level in enumerate(result.levels, 1):
        for loss in level.losses[1:]:
            done += 1
            found.setdefault(done, {"iteration": done, "level": number, "loss": loss, "terms": {}})
    return [found[iteration] for iteration in sorted(found) if math.isfinite(found[iteration]["loss"])]


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most about MAX_POINTS of them, with the first and the last of each level."""
    step = math.ceil(len(points) / MAX_POINTS) or 1
    levels = [point["level"] for point in points]
    kept = [
        point
        for index, point in enumerate(points)
        if index % step == 0 or levels[index] not in levels[index - 1 : index] or index + 1 == len(points)
    ]
    return [{**point, "loss": _rounded(point["loss"]), "terms": _sums(point["terms"])} for point in kept]


def _sums(terms: Mapping[str, float]) -> dict[str, float]:
    """The terms of all layers added up, as the curves show them."""
    sums: dict[str, float] = {}
    for name, value in terms.items():
        kind = name.partition("/")[0]
        sums[kind] = sums.get(kind, 0.0) + value
    return {kind: _rounded(value) for kind, value in sums.items() if math.isfinite(value)}


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def bundled(static: Mapping[str, bytes], name: str) -> str:
    """A script with all that it imports as one: a page that is a file can't import others.

    Each module once, behind those that it imports. Their names have to differ.
    """
    modules: dict[str, str] = {}

    def add(name: str) -> None:
        source = static[name].decode()
        for imported in re.findall(r'^import .*? from "\./(.*?)";$', source, re.MULTILINE | re.DOTALL):
            if imported not in modules:
                add(imported)
        source = re.sub(r"^import .*?;\n", "", source, flags=re.MULTILINE | re.DOTALL)
        modules[name] = re.sub(r"^export ", "", source, flags=re.MULTILINE)

    add(name)
    return "\n".join(modules.values())


def _setting(name: str, value: str) -> tuple[str, str]:
    """An option and its value; of one without a value, whether it is set."""
    return (name, value) if value else (name.removeprefix("no-"), "no" if name.startswith("no-") else "yes")


def _rows(values: Mapping[str, str]) -> str:
    """Terms and descriptions of a list, without those that are empty."""
    rows = (f"<dt>{_escaped(name)}</dt><dd>{_escaped(value)}</dd>" for name, value in values.items() if value)
    return "\n".join(rows)


def _escaped(text: str) -> str:
    return html.escape(images.printable(text))


def _data(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
