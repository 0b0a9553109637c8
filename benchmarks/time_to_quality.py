"""Time to quality: loss, E and C over seconds and evaluations, of several optimizers and of pastiche.

    python benchmarks/time_to_quality.py --pair photo.jpg,painting.jpg --size 256 --weights FILE -o FOLDER \\
        [--recipe "new=--style-weight 60"] [--optimizers own,preconditioned] [--levels several] \\
        [--pastiche PYTHON] [--alternate]

E and C are the judge's (docs/judge.md); a recipe is a name and options of `npstyle`. Each recipe is painted
by each optimizer, at several levels as it says and at one. Pictures on the way are kept, and judged later:
the clock stands still meanwhile. What counts are the processor seconds of all threads, which other programs
on the machine lengthen least, with --threads 1 hardly at all; seconds that pass are beside them.

    own             the recipe's
    lbfgs           SciPy's L-BFGS over pixels
    preconditioned  the same, over a cosine transform in which low frequencies move more easily
    lbfgs32         L-BFGS in float32
    adam            rate 10
    adam-averaged   rate 5.1 with decay 0.9 and 0.99, pixels kept within 0..255, and a mean of the pictures
                    with decay 0.99, as in crowsonkb/style-transfer-pytorch; each level begins anew

PYTHON is an interpreter with pastiche 1.6.0, which paints each pair with its own defaults: 1000 steps of
PyTorch's L-BFGS. Give it the same filters: its own, in 8 bits. Its pictures are kept in FOLDER/pastiche, and
without --pastiche what is there takes part, also of an unfinished run. With --alternate, npstyle and pastiche
take turns for as long as npstyle paints, which makes a ratio of seconds out of a shared machine.

Tables are printed in Markdown. In FOLDER are all pictures, results.jsonl, and with matplotlib
(pip install -e '.[plots]') SIZE.png. What is there is not painted again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from quality import Results, Row, judge_of, parsed_recipe, title, unique
from scipy import fft

import npstyle
from npstyle import images, optimize
from npstyle.architecture import deepest
from npstyle.settings import Settings
from npstyle.study import Judge
from npstyle.study.judging import trained_weights
from npstyle.vgg import Filters

Array = NDArray[Any]

PASTICHE = "pastiche 1.6.0"
PASTICHE_STEPS = (0, 10, 20, 35, 50, 75, *range(100, 200, 50), *range(200, 1001, 100))
EXPONENT = 0.5  # of the preconditioner
LOSSES_AFTER = (10, 20, 50, 100, 150, 200, 250)  # evaluations at full size


# ------------------------------------------------------------------------------------------------
# Optimizers that npstyle does not have
# ------------------------------------------------------------------------------------------------


class Preconditioned:
    """SciPy's L-BFGS over z, x = start + D'(p . D z), with the cosine transform D of each channel.

    p = (f + 1/256)^-a for the frequency f in cycles per pixel, with a mean square of 1. The gradient with
    respect to z is D'(p . D dx), as D is orthogonal and the whole symmetric.
    """

    resumable, finished = False, None

    def __init__(self, start: Array, settings: Settings, threads: int | None) -> None:
        H, W, _ = start.shape
        f = np.hypot(np.arange(H)[:, None] / (2 * H), np.arange(W) / (2 * W))[:, :, None]
        factors = (f + 1 / 256) ** -EXPONENT
        self.factors = factors / np.sqrt(np.mean(factors**2))
        self.start = start.astype(np.float64)
        self.inner = optimize._Lbfgs(np.zeros_like(self.start), optimize.pairs_used(settings))

    def smooth(self, z: Array) -> Array:
        """D'(p . D z)."""
        coefficients = fft.dctn(z.reshape(self.start.shape), axes=(0, 1), norm="ortho")
        return np.asarray(fft.idctn(self.factors * coefficients, axes=(0, 1), norm="ortho"))

    def begin(self, loss: float, gradient: Array) -> None:
        self.inner.begin(loss, self.smooth(gradient))

    @property
    def loss(self) -> float:
        return self.inner.loss

    @property
    def nit(self) -> int:
        return self.inner.nit

    @property
    def nfev(self) -> int:
        return self.inner.nfev

    def run(
        self, function: optimize.Function, after_iteration: optimize.AfterIteration, iterations: int
    ) -> None:
        def of_z(z: Array) -> tuple[float, Array]:
            loss, gradient = function(self.start + self.smooth(z))
            return loss, self.smooth(gradient)

        self.inner.run(of_z, lambda z, loss: after_iteration(self.start + self.smooth(z), loss), iterations)


class AveragedAdam:
    """Adam with a faster decay of squares, pixels within 0..255, and a running mean of its pictures."""

    resumable, finished = False, None
    BETAS, AVERAGE = (0.9, 0.99), 0.99

    def __init__(self, start: Array, settings: Settings, threads: int | None) -> None:
        self.rate = settings.learning_rate
        self.x = start.astype(np.float32)
        self.gradient, self.mean, self.square, self.average = (np.zeros_like(self.x) for _ in range(4))
        self.loss, self.nit = math.nan, 0

    @property
    def nfev(self) -> int:
        return self.nit + 1

    def begin(self, loss: float, gradient: Array) -> None:
        self.loss, self.gradient = loss, gradient.reshape(self.x.shape)

    def run(
        self, function: optimize.Function, after_iteration: optimize.AfterIteration, iterations: int
    ) -> None:
        first, second = self.BETAS
        while self.nit < iterations:
            self.nit += 1
            self.mean += np.float32(1 - first) * (self.gradient - self.mean)
            self.square += np.float32(1 - second) * (self.gradient**2 - self.square)
            rate = np.float32(self.rate / (1 - first**self.nit))
            root = np.sqrt(self.square / np.float32(1 - second**self.nit)) + np.float32(optimize.EPSILON)
            self.x = np.clip(self.x - rate * self.mean / root, 0, 255)
            self.average += np.float32(1 - self.AVERAGE) * (self.x - self.average)
            loss, gradient = function(self.x)
            self.gradient = gradient.reshape(self.x.shape)
            after_iteration(self.average / np.float32(1 - self.AVERAGE**self.nit), loss)


class Kind(NamedTuple):
    """What an optimizer changes in the settings, and what replaces npstyle's own, if something does."""

    changes: dict[str, Any]
    make: Callable[[Array, Settings, int | None], Any] = optimize._optimizer


KINDS = {
    "own": Kind({}),
    "lbfgs": Kind({"optimizer": "lbfgs"}),
    "preconditioned": Kind({"optimizer": "lbfgs"}, Preconditioned),
    "lbfgs32": Kind({"optimizer": "lbfgs32"}),
    "adam": Kind({"optimizer": "adam", "learning_rate": 10.0}),
    "adam-averaged": Kind({"optimizer": "adam", "learning_rate": 5.1}, AveragedAdam),
}


@contextmanager
def optimizers_made(kind: Kind) -> Iterator[list[tuple[int, Any]]]:
    """Runs use this optimizer; listed are those that they make, one for each level, with its size."""
    made: list[tuple[int, Any]] = []

    def make(start: Array, settings: Settings, threads: int | None) -> Any:
        made.append((start.size, kind.make(start, settings, threads)))
        return made[-1][1]

    with mock.patch.object(optimize, "_optimizer", make):
        yield made


# ------------------------------------------------------------------------------------------------
# pastiche
# ------------------------------------------------------------------------------------------------


class Pastiche:
    """pastiche in a process of its own, which takes its steps when it is asked to."""

    def __init__(self, options: argparse.Namespace, pair: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        driver = Path(__file__).with_name("pastiche_steps.py")
        command = [options.pastiche, driver, *pair.split(","), str(options.size), folder]
        limit = {} if options.threads is None else {"OMP_NUM_THREADS": str(options.threads)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **limit}
        )
        self.record = self.go_to(0)

    def go_to(self, step: int) -> Row:
        """After so many steps in all: loss, picture, seconds and processor seconds."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{step}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"pastiche ended before step {step}; what it said is above")
        self.record = json.loads(line)
        return self.record

    def close(self) -> None:
        self.process.communicate()


@contextmanager
def beside(options: argparse.Namespace, pair: str) -> Iterator[Pastiche | None]:
    """A pastiche that takes turns with npstyle, if that is asked for; its pictures are not kept."""
    if not options.alternate:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        partner = Pastiche(options, pair, Path(folder))
        yield partner
        partner.close()


def pastiche_folder(options: argparse.Namespace, pair: str) -> Path:
    folder: Path = options.output / "pastiche" / f"{title(pair)} {options.size}".replace(" ", "-")
    return folder


def pastiche_records(options: argparse.Namespace, pair: str) -> list[Row]:
    """What pastiche's kept run recorded, which is made now if it is not there."""
    folder = pastiche_folder(options, pair)
    file = folder / "records.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    if options.pastiche and (not records or records[-1]["step"] < PASTICHE_STEPS[-1]):
        painter = Pastiche(options, pair, folder)
        with file.open("w") as out:
            for step in PASTICHE_STEPS:
                print(json.dumps(painter.go_to(step)), file=out, flush=True)
        painter.close()
        return pastiche_records(options, pair)
    return records


def judged_pastiche(options: argparse.Namespace, pair: str, judge: Judge, results: Results) -> Row | None:
    """pastiche's run as a row like those of npstyle."""
    points = []
    for record in pastiche_records(options, pair):
        key = {
            "pair": title(pair),
            "recipe": PASTICHE,
            "size": options.size,
            "threads": record["threads"],
            "evaluations": record["step"],
        }
        row = results.find(key)
        if row is None:
            picture = pastiche_folder(options, pair) / record.pop("picture")
            row = results.add(
                key
                | record
                | {"full_evaluations": record["step"], **figures(judge, images.read(picture))}
                | {"picture": str(picture.relative_to(options.output))}
            )
        points.append(row)
    return {"pair": title(pair), "curve": PASTICHE, "points": points, "losses": []} if points else None


# ------------------------------------------------------------------------------------------------
# npstyle
# ------------------------------------------------------------------------------------------------


def times() -> Array:
    """Seconds, and processor seconds of all threads of this process."""
    return np.array([time.perf_counter(), time.process_time()])


class Recorder:
    """Counts and clocks a run in its callback, keeps pictures now and then, and lets pastiche take turns."""

    def __init__(
        self, made: list[tuple[int, Any]], full: int, ratio: float, partner: Pastiche | None
    ) -> None:
        self.made, self.full, self.ratio, self.partner = made, full, ratio, partner
        self.losses: list[Row] = []  # at the last level, after each iteration
        self.points: list[tuple[Row, Array]] = []  # with their pictures
        self.spent, self.began = np.zeros(2), times()

    def __call__(self, progress: npstyle.Progress) -> None:
        point = self.point(progress.loss)
        if progress.level == progress.levels:
            self.losses.append(point)
        if (
            not self.points
            or point["processor_seconds"] >= self.ratio * self.points[-1][0]["processor_seconds"]
        ):
            self.points.append((point, progress.image))
        while self.partner and self.partner.record["seconds"] < point["seconds"]:
            self.partner.go_to(self.partner.record["step"] + 1)
        self.began = times()

    def point(self, loss: float) -> Row:
        """Time and evaluations so far; at full size, those of smaller levels count by their pixels."""
        self.spent += times() - self.began
        return {
            "evaluations": sum(optimizer.nfev for _, optimizer in self.made),
            "full_evaluations": sum(optimizer.nfev * size / self.full for size, optimizer in self.made),
            "seconds": self.spent[0],
            "processor_seconds": self.spent[1],
            "loss": loss,
        }


def painted(
    options: argparse.Namespace,
    judge: Judge,
    weights: Mapping[str, Filters],
    settings: Settings,
    kind: Kind,
    partner: Pastiche | None,
    name: str,
) -> Row:
    """Paint one picture; the figures of it and of those on the way."""
    with optimizers_made(kind) as made:
        full = images.fit(judge.content, options.size)
        recorder = Recorder(made, full.size, options.ratio, partner)
        result = npstyle.stylize(
            judge.content,
            judge.style,
            settings=settings,
            weights=weights,
            size=options.size,
            threads=options.threads,
            callback=recorder,
        )
        kept = [*recorder.points, (recorder.point(result.loss), result.image)]
    points = []
    for n, (point, image) in enumerate(kept):
        picture = f"{name} {n:02}.png".replace(",", "").replace(" ", "-")
        enlarged = images.to_uint8(images.resize(image, full.shape[1], full.shape[0]))
        images.write(options.output / picture, enlarged, overwrite=True)
        points.append({**point, **figures(judge, enlarged), "picture": picture})
    row: Row = {"points": points, "losses": recorder.losses}
    return row | ({"partner": partner.record} if partner else {})


def figures(judge: Judge, image: Array) -> Row:
    judgment = judge(image)
    return {"E": judgment.missing_style, "C": judgment.lost_content}


def curves(options: argparse.Namespace) -> Iterator[tuple[str, Kind, Settings, str]]:
    """Each recipe with each optimizer at several levels and at one: a name, settings, and filters."""
    for recipe in options.recipe or ["default="]:
        recipe_name, settings, filters = parsed_recipe(recipe, options.weights)
        for optimizer in options.optimizers.split(","):
            for levels in options.levels.split(","):
                kind = KINDS[optimizer]
                changes = kind.changes
                if levels == "one":
                    changes = {**changes, "min_size": 0, "iterations": options.iterations}
                name = ", ".join(
                    [recipe_name, *([] if optimizer == "own" else [optimizer]), f"{levels} level"]
                )
                name += "s" * (levels == "several")
                yield name, kind, replace(settings, **changes), filters


def measured(options: argparse.Namespace) -> Iterator[Row]:
    """For each pair pastiche's run, if there is one, and all curves: from an earlier command or made now."""
    results = Results(options.output / "results.jsonl")
    weights = trained_weights(options.weights)
    for pair in options.pair:
        judge = judge_of(pair, weights, options.threads)
        of_pastiche = judged_pastiche(options, pair, judge, results)
        if of_pastiche:
            yield of_pastiche
        for name, kind, settings, filters in curves(options):
            key = {
                "pair": title(pair),
                "curve": name,
                "settings": repr(settings),
                "filters": filters,
                "size": options.size,
                "threads": options.threads,
            }
            key |= {"alternate": True} if options.alternate else {}
            row = results.find(key)
            if row is None:
                loaded = npstyle.load_weights(filters, deepest=deepest(settings.layers))
                pictures = f"{title(pair)} {options.size} {name}{' in turns' * options.alternate}"
                with beside(options, pair) as partner:
                    made = painted(options, judge, loaded, settings, kind, partner, pictures)
                row = results.add(key | made)
            yield row


# ------------------------------------------------------------------------------------------------
# Tables and plots
# ------------------------------------------------------------------------------------------------


def reached(row: Row, E: float, C: float = math.inf) -> Row | None:
    """The first picture with no more style missing than E, and no more of the drawing lost than C."""
    return next((point for point in row["points"] if point["E"] <= E and point["C"] <= C), None)


def until_table(options: argparse.Namespace, rows: Sequence[Row]) -> Iterator[str]:
    """Processor seconds and evaluations of full size until E is so low, with the C that it had then."""
    targets = [float(target) for target in options.targets.split(",")]
    columns = ["pair", "curve", *(f"E at most {target:g}" for target in targets), "end: E / C"]
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    for row in rows:
        cells = []
        for target in targets:
            point = reached(row, target)
            cells.append("" if point is None else f"{spent(point)}, C {point['C']:.3f}")
        end = row["points"][-1]
        cells.append(f"{end['E']:.3f} / {end['C']:.3f}, {spent(end)}")
        yield f"| {row['pair']} | {row['curve']} | {' | '.join(cells)} |"


def spent(point: Row) -> str:
    return f"{point['processor_seconds']:.1f} s ({point['full_evaluations']:.0f})"


def losses_table(rows: Sequence[Row]) -> Iterator[str]:
    """The lowest loss within so many evaluations of full size, by curves that have as many."""
    yield f"| pair | curve | {' | '.join(str(n) for n in LOSSES_AFTER)} |"
    yield "|---" * (len(LOSSES_AFTER) + 2) + "|"
    for row in rows:
        cells = []
        for n in LOSSES_AFTER:
            losses = [point["loss"] for point in row["losses"] if point["full_evaluations"] <= n]
            within = losses and len(losses) < len(row["losses"])
            cells.append(f"{min(losses):.4g}" if within else "")
        if any(cells):
            yield f"| {row['pair']} | {row['curve']} | {' | '.join(cells)} |"


def pastiche_table(rows: Sequence[Row]) -> Iterator[str]:
    """When each curve has E and C of pastiche's last picture, and its share of pastiche's time."""
    columns = (
        "pair",
        "pastiche: steps, E / C",
        "curve",
        "as good after",
        "share",
        "share of seconds, in turns",
    )
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    shares: dict[str, list[float]] = {}
    for pastiche in (row for row in rows if row["curve"] == PASTICHE):
        end = pastiche["points"][-1]
        seconds = f"{end['processor_seconds']:.0f} s"
        target = f"{end['evaluations']}, {end['E']:.3f} / {end['C']:.3f}, {seconds}"
        for row in rows:
            if row["pair"] != pastiche["pair"] or row is pastiche:
                continue
            point = reached(row, end["E"], end["C"])
            if point is None:
                last = row["points"][-1]
                cells = [f"not by the end: {last['E']:.3f} / {last['C']:.3f}, {spent(last)}", "", ""]
            else:
                share = point["processor_seconds"] / end["processor_seconds"]
                shares.setdefault(row["curve"], []).append(share)
                cells = [f"{spent(point)}, {point['E']:.3f} / {point['C']:.3f}", f"1/{1 / share:.0f}"]
                cells.append(share_of_seconds(row, point, pastiche))
            yield f"| {pastiche['pair']} | {target} | {row['curve']} | {' | '.join(cells)} |"
    for curve, found in shares.items():
        yield f"| **median of {len(found)}** | | {curve} | | 1/{1 / statistics.median(found):.0f} | |"


def share_of_seconds(row: Row, point: Row, pastiche: Row) -> str:
    """The share of the seconds that passed while both took turns. pastiche's later steps take longer."""
    partner = row.get("partner")
    if not partner:
        return ""
    steps = [step["evaluations"] for step in pastiche["points"]]
    cost = [step["processor_seconds"] for step in pastiche["points"]]
    whole = partner["seconds"] * cost[-1] / np.interp(partner["step"], steps, cost)
    return f"1/{whole / point['seconds']:.0f} ({partner['step']} steps)"


def plot(path: Path, rows: Sequence[Row]) -> None:
    """For each pair: loss over evaluations, E and C over processor seconds, and E over C."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pairs, names = unique(rows, "pair"), unique(rows, "curve")
    figure, grid = pyplot.subplots(len(pairs), 4, figsize=(16, 4 * len(pairs)), squeeze=False)
    axes_of = {"loss": ("full_evaluations", "loss"), "E": ("processor_seconds", "E")}
    axes_of |= {"C": ("processor_seconds", "C"), "front": ("C", "E")}
    labels = {"full_evaluations": "evaluations, of full size", "processor_seconds": "processor seconds"}
    labels |= {"loss": "loss at full size", "E": "E, style missing", "C": "C, drawing lost"}
    for row in rows:
        color, dashes = f"C{names.index(row['curve']) % 10}", "-" if "several" in row["curve"] else "--"
        for axis, (what, (x, y)) in zip(grid[pairs.index(row["pair"])], axes_of.items(), strict=True):
            points = row["losses"] if what == "loss" else row["points"]
            points = [point for point in points if point[x] > 0]
            style = {"color": color, "linestyle": dashes, "label": row["curve"], "linewidth": 1}
            axis.plot([point[x] for point in points], [point[y] for point in points], **style)
            axis.set(xlabel=labels[x], ylabel=labels[y], xscale="linear" if x == "C" else "log")
            axis.set_yscale("log" if y == "loss" else "linear")
    for line, pair in zip(grid, pairs, strict=True):
        line[0].set_title(pair, fontsize=9)
        line[1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def checked(text: str, known: Sequence[str]) -> str:
    """A list with commas of known names."""
    unknown = [name for name in text.split(",") if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(known)}")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--pair", metavar="CONTENT,STYLE", action="append", required=True)
    add("--recipe", metavar="NAME=OPTIONS", action="append")
    kinds = "lbfgs,preconditioned,lbfgs32,adam,adam-averaged"
    add("--optimizers", default=kinds, type=lambda text: checked(text, list(KINDS)))
    add("--levels", default="several,one", type=lambda text: checked(text, ("several", "one")))
    add("--iterations", type=int, default=200, help="at one level")
    add("--size", type=int, default=256)
    add("--ratio", type=float, default=1.2, help="of the times of a picture that is kept and the one before")
    add("--targets", default="0.4,0.3,0.2,0.15", help="values of E that the time is asked for")
    add("--weights", default="auto", help="trained filters")
    add("--threads", type=int, help="of npstyle and of pastiche")
    add("--pastiche", metavar="PYTHON")
    add("--alternate", action="store_true")
    add("-o", "--output", type=Path, default=Path("time_to_quality"), metavar="FOLDER")
    options = parser.parse_args()
    if options.alternate and not options.pastiche:
        parser.error("--alternate: found no --pastiche to take turns with; name its interpreter")
    options.output.mkdir(exist_ok=True)
    rows = []
    for row in measured(options):
        rows.append(row)
        end = row["points"][-1]
        figures_of = f"E {end['E']:.3f}, C {end['C']:.3f}, {spent(end)}"
        print(f"{row['pair']}, {row['curve']}: {figures_of}", flush=True)
    for table in (until_table(options, rows), losses_table(rows), pastiche_table(rows)):
        print("\n" + "\n".join(table))
    try:
        plot(options.output / f"{options.size}.png", rows)
    except ImportError:
        print("\nno plots: pip install matplotlib")


if __name__ == "__main__":
    main()
