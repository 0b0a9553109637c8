"""Style that is missing (E) and drawing that is lost (C), by pair of pictures, recipe and style weight.

    python benchmarks/quality.py --pair photo.jpg,painting.jpg --pair other.jpg,painting.jpg \\
        --recipe default= --recipe "paper=--preset paper --iterations 500" \\
        --style-weights 5,15,50 --size 384 --weights FILE -o FOLDER

A recipe is a name and options of `npstyle`; `--style-weights`, if given, are tried with each recipe. Filters
that a recipe names with `--weights` paint its pictures; those named outside of recipes paint the others, and
judge all. E and C are explained in docs/judge.md. A table is printed in Markdown; in FOLDER are every
picture, results.jsonl, sheet.png (pairs by recipes) and, with matplotlib (pip install -e '.[plots]'),
fronts.png. What is in results.jsonl already is not painted again, so the same command continues after an
interruption.
"""

from __future__ import annotations

import argparse
import json
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import npstyle
from npstyle import images
from npstyle.architecture import deepest
from npstyle.cli.paint import painting_parser
from npstyle.cli.recipe import settings_from
from npstyle.run.inputs import as_array
from npstyle.settings import Settings
from npstyle.study import Judge, Tile, compose, in_rows
from npstyle.study.judging import trained_weights
from npstyle.vgg import Filters

TILE = 256  # longer side of a picture on the sheet, in pixels

Row = dict[str, Any]


class Results:
    """Rows of figures in a file of JSON lines, found again by their key: what is there is not made again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = (
            [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        )

    def find(self, key: Row) -> Row | None:
        return next((row for row in self.rows if key.items() <= row.items()), None)

    def add(self, row: Row) -> Row:
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        return row


def parsed_recipe(recipe: str, weights: str, *added: str) -> tuple[str, Settings, str]:
    """Name, settings and filters of NAME=OPTIONS, with further options."""
    name, _, words = recipe.partition("=")
    parsed = painting_parser().parse_args(["photo", "painting", *shlex.split(words), *added])
    return name, settings_from(parsed), weights if parsed.weights == "auto" else parsed.weights


def title(pair: str) -> str:
    """What CONTENT,STYLE is called."""
    return " x ".join(Path(path).stem for path in pair.split(","))


def judge_of(pair: str, weights: Mapping[str, Filters], threads: int | None) -> Judge:
    """The judge of CONTENT,STYLE, which also has the pictures."""
    content, style = pair.split(",")
    return Judge(as_array(content, "content"), as_array(style, "style"), weights, threads)


def recipes(options: argparse.Namespace) -> Iterator[tuple[str, Settings, str]]:
    """Name, settings and filters of each recipe, with each style weight."""
    for recipe in options.recipe or ["default="]:
        for weight in options.style_weights.split(",") if options.style_weights else [None]:
            added = [] if weight is None else ["--style-weight", weight]
            name, settings, filters = parsed_recipe(recipe, options.weights, *added)
            yield f"{name} {settings.style_weight:g}" if added else name, settings, filters


def measured(options: argparse.Namespace) -> Iterator[Row]:
    """A row of figures for each pair, recipe and seed, from an earlier run or painted now."""
    results = Results(options.output / "results.jsonl")
    weights = trained_weights(options.weights)
    for pair in options.pair:
        judge = judge_of(pair, weights, options.threads)
        for name, settings, filters in recipes(options):
            for seed in range(options.seeds):
                key = {
                    "pair": title(pair),
                    "recipe": name,
                    "settings": repr(settings),
                    "size": options.size,
                    "seed": seed,
                }
                if filters != options.weights:
                    key["filters"] = filters
                row = results.find(key)
                if row is None:
                    picture = f"{len(results.rows):04}.png"
                    row = results.add(key | painted(options, judge, settings, filters, seed, picture))
                yield row


def painted(
    options: argparse.Namespace, judge: Judge, settings: Settings, filters: str, seed: int, name: str
) -> Row:
    """Paint one picture, and the figures of it."""
    weights = npstyle.load_weights(
        "imagenet" if filters == "auto" else filters, deepest=deepest(settings.layers)
    )
    start, processor_start = time.perf_counter(), time.process_time()
    result = npstyle.stylize(
        judge.content,
        judge.style,
        settings=settings,
        weights=weights,
        size=options.size,
        seed=seed,
        threads=options.threads,
    )
    seconds, processor_seconds = time.perf_counter() - start, time.process_time() - processor_start
    judgment = judge(result.image)
    images.write(options.output / name, result.image)
    return {
        "picture": name,
        "E": judgment.missing_style,
        "C": judgment.lost_content,
        "correlation": judgment.content_correlation,
        "seconds": seconds,
        "processor_seconds": processor_seconds,  # of all threads: comparable on a machine that is shared
        "evaluations": result.nfev,
    }


def table(rows: Sequence[Row]) -> Iterator[str]:
    """In Markdown: a row for each pair, a column for each recipe with E and C; below, their means."""
    names, pairs = unique(rows, "recipe"), unique(rows, "pair")
    yield f"| E / C | {' | '.join(names)} |"
    yield "|---" * (len(names) + 1) + "|"
    for title, members in [*((pair, [pair]) for pair in pairs), ("**mean**", pairs)]:
        cells = []
        for name in names:
            chosen = [row for row in rows if row["recipe"] == name and row["pair"] in members]
            E, C, seconds = np.mean([(row["E"], row["C"], row["seconds"]) for row in chosen], axis=0)
            cells.append(f"{E:.3f} / {C:.3f}, {seconds:.0f} s")
        yield f"| {title} | {' | '.join(cells)} |"


def sheet(options: argparse.Namespace, rows: Sequence[Row]) -> None:
    """sheet.png: rows of pictures for each pair, first the photograph and the painting."""
    lines: list[list[Tile]] = []
    for pair in options.pair:
        inputs = [as_array(path, "picture") for path in pair.split(",")]
        tiles = [Tile(title(pair), images.fit(picture, TILE)) for picture in inputs]
        tiles = [] if options.results_only else tiles
        for row in rows:
            if row["pair"] == title(pair) and row["seed"] == 0:
                picture = images.read(options.output / row["picture"])
                caption = f"{row['recipe']}: E {row['E']:.3f}, C {row['C']:.3f}"
                tiles.append(Tile(caption, images.fit(picture, TILE)))
        lines += in_rows(tiles, options.columns or len(tiles))
    images.write(options.output / "sheet.png", compose(lines, f"{options.size} pixels"), overwrite=True)


def fronts(path: Path, rows: Sequence[Row]) -> None:
    """fronts.png: E over C for each pair, a line through the style weights of each recipe; the mean last."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pairs = unique(rows, "pair")
    columns = min(4, len(pairs) + 1)
    lines = -(-(len(pairs) + 1) // columns)
    figure, grid = pyplot.subplots(lines, columns, figsize=(3 * columns, 3 * lines), squeeze=False)
    by_label: dict[str, list[str]] = {}
    for name in unique(rows, "recipe"):
        by_label.setdefault(name.rsplit(" ", 1)[0], []).append(name)
    for axis, members in zip(grid.flat, [*([pair] for pair in pairs), pairs], strict=False):
        for label, names in by_label.items():
            chosen = [[r for r in rows if r["recipe"] == name and r["pair"] in members] for name in names]
            points = sorted(
                tuple(float(np.mean([r[key] for r in group])) for key in "CE") for group in chosen
            )
            axis.plot(*zip(*points, strict=True), "o-", markersize=3, linewidth=1, label=label)
        axis.set_title(members[0] if len(members) == 1 else "mean", fontsize=8)
        axis.set(xlabel="C, drawing lost", ylabel="E, style missing", ylim=(0, None))
        axis.legend(fontsize=7)
    for axis in grid.flat[len(pairs) + 1 :]:
        axis.remove()
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def unique(rows: Sequence[Row], key: str) -> list[str]:
    return list(dict.fromkeys(row[key] for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--pair", metavar="CONTENT,STYLE", action="append", required=True)
    add("--recipe", metavar="NAME=OPTIONS", action="append")
    add("--style-weights", metavar="X,X", help="each recipe's own, if left out")
    add("--size", type=int, default=384)
    add("--seeds", type=int, default=1, help="how many, where the start has noise")
    add("--weights", default="auto", help="trained filters")
    add("--threads", type=int)
    add("--columns", type=int, help="of sheet.png; all of a pair in one row, if left out")
    add("--results-only", action="store_true", help="leave photographs and paintings out of sheet.png")
    add("-o", "--output", type=Path, default=Path("quality"), metavar="FOLDER")
    options = parser.parse_args()
    options.output.mkdir(exist_ok=True)
    rows = []
    for row in measured(options):
        rows.append(row)
        print(f"{row['pair']}, {row['recipe']}: E {row['E']:.3f}, C {row['C']:.3f}", flush=True)
    print("\n" + "\n".join(table(rows)))
    sheet(options, rows)
    try:
        fronts(options.output / "fronts.png", rows)
    except ImportError:
        print("\nno fronts.png: pip install matplotlib")


if __name__ == "__main__":
    main()
