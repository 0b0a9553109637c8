"""`npstyle batch`: many pictures into a folder, by any number of workers; the same command continues.

Everything slow to import is imported where it is used, so that --help is instant.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from npstyle._runtime.paths import as_path
from npstyle.cli.arguments import add_overwrite, command_parser, input_file
from npstyle.cli.interrupts import Signals
from npstyle.cli.many import (
    BatchBar,
    Planned,
    add_pictures,
    add_shared,
    announce_batch,
    demand_of,
    find_all,
    paint_all,
    prepare,
)
from npstyle.cli.recipe import by_option, settings_from
from npstyle.cli.run_files import checkpoint_every, checkpoint_place
from npstyle.cli.session import count_of, session
from npstyle.cli.terminal import DONE, FAILED, Parser, print_err, print_out
from npstyle.cli.workers import add_workers, check_workers, workers_for
from npstyle.errors import UserError

if TYPE_CHECKING:
    from npstyle.jobs.manifest import Manifest
    from npstyle.jobs.picture import PictureJob
    from npstyle.jobs.workers import Outcome

NAMES = "{content}_{style}.png"
EPILOG = """\
examples:
  npstyle batch photos/ --styles wave.jpg night.jpg -o painted        every photograph with every painting
  npstyle batch a.jpg b.jpg --styles x.jpg y.jpg --pairs -o painted   a with x, and b with y
  npstyle batch 'photos/*.jpg' --styles wave.jpg -o painted --name '{style}/{content}.jpg' --size 800
  npstyle batch --jobs jobs.toml -o painted                           with options of their own: docs/batch.md

The same command again paints what is missing. FOLDER/manifest.jsonl says how each picture was made.
"""


def main(argv: list[str]) -> int:
    """Paint many pictures, and return the exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    if not options.jobs and not (options.contents and options.styles):
        parser.error("the following arguments are required: CONTENTS and --styles, or --jobs")
    if options.jobs and (options.contents or options.styles or options.pairs):
        parser.error("--jobs: found other pictures, too; expected the one or the other; leave one out")
    check_workers(parser, options)
    try:
        settings_from(options)
    except UserError as error:
        parser.error(str(by_option(error)))
    with session() as signals:
        return _batch(options, _given(argv), signals)


def _parser() -> Parser:
    text = "Paint many pictures: every photograph in the style of every painting, into a folder."
    parser = command_parser("batch", text)
    parser.epilog = EPILOG
    add_pictures(parser)
    add = parser.add_argument
    add("-o", "--output", metavar="FOLDER", type=as_path, required=True, help="folder for the pictures")
    add("--pairs", action="store_true", help="the n-th photograph with the n-th painting only")
    text = "pictures with options of their own, in TOML (docs/batch.md)"
    add("--jobs", metavar="FILE", type=input_file, help=text)
    text = f"names of the pictures, and so their format; also {{number}} and the folders ({NAMES})"
    add("--name", metavar="PATTERN", default=NAMES, help=text)
    add_overwrite(parser, "this batch's pictures of other settings or inputs; never another file")
    add("--judge", action="store_true", help="measure E and C of each picture: docs/judge.md")
    add("--json", action="store_true", help="print a JSON object for each picture, as in the manifest")
    add(
        "--no-checkpoint",
        action="store_true",
        help="do not save the state of pictures that are being painted",
    )
    add_workers(parser, "as many as cores, memory and pictures permit")
    add_shared(parser)
    parser.set_defaults(checkpoint=None, resume=True)
    return parser


def _given(argv: list[str]) -> dict[str, Any]:
    """The options that are on the command line, without defaults."""
    parser = _parser()
    parser._defaults.clear()
    for action in parser._actions:
        action.default = argparse.SUPPRESS
    return vars(parser.parse_args(argv))


# ------------------------------------------------------------------------------------------------
# What there is to do
# ------------------------------------------------------------------------------------------------


class Task(NamedTuple):
    """A picture of the batch: the job, its key in the manifest, and the checksums of its files."""

    job: PictureJob
    key: str
    inputs: dict[str, str]


def _batch(options: argparse.Namespace, given: dict[str, Any], signals: Signals) -> int:
    from npstyle.jobs.manifest import Manifest

    planned = _planned(options, given)
    checkpoint = None if options.scheduler else checkpoint_place(options, options.output)
    jobs, weights = prepare(planned, options.judge, checkpoint)
    every = checkpoint_every()
    tasks, broken = _tasks([replace(job, checkpoint_every=every) for job in jobs])
    _check_formats(jobs)
    announce_batch(options, weights)
    with Manifest(options.output) as manifest:
        work = Work(options, manifest, len(planned))
        remaining = list(work.skip_done(tasks))
        for job, error in broken:
            work.fail(job, error, {})
        try:
            work.run(remaining)
        except KeyboardInterrupt:
            work.interrupted()
            return signals.status
        return work.summary()


def _planned(options: argparse.Namespace, given: dict[str, Any]) -> list[Planned]:
    """The pictures of the command line, or of the file of --jobs.

    Raises
    ------
    UserError
        A file is missing, or two results would have one name.
    """
    from npstyle import images
    from npstyle.jobs import plan

    if options.output.suffix.lower() in images.FORMATS and not options.output.is_dir():
        found, cure = "a picture's name", "--name is for the pictures in it"
        raise UserError(f"output: {options.output}", found, "a folder", cure)
    plan.check_names(options.name)
    planned = list(_from_file(options, given) if options.jobs else _from_command_line(options))
    pairs = [plan.Pair(one.options.content, tuple(one.options.style), one.output) for one in planned]
    plan.check_collisions(pairs)
    return planned


def _from_command_line(options: argparse.Namespace) -> Iterator[Planned]:
    from npstyle.jobs import plan
    from npstyle.jobs.manifest import outputs_in

    contents, styles = find_all(options, outputs_in(options.output))
    for number, (content, style) in enumerate(plan.pair_up(contents, styles, options.pairs), 1):
        name = plan.name_of(options.name, content, style, number)
        of_picture = argparse.Namespace(**{**vars(options), "content": content, "style": [style]})
        yield Planned(of_picture, options.output / name)


def _from_file(options: argparse.Namespace, given: dict[str, Any]) -> Iterator[Planned]:
    from npstyle.cli.job_file import read_jobs
    from npstyle.jobs import plan

    for number, (of_picture, output) in enumerate(read_jobs(options.jobs, given), 1):
        if output is not None:
            plan.check_names(output)
        name = plan.name_of(output or options.name, of_picture.content, of_picture.style[0], number)
        yield Planned(of_picture, options.output / name)


def _tasks(jobs: Sequence[PictureJob]) -> tuple[list[Task], list[tuple[PictureJob, str]]]:
    """The jobs with the checksums of their files; and those of which a file can't be read, and why."""
    from npstyle.jobs.keys import Checksums, key_of

    checksums = Checksums()
    tasks, broken = [], []
    for job in jobs:
        try:
            inputs = checksums.of(job)
        except UserError as error:
            broken.append((job, str(error)))
        else:
            tasks.append(Task(job, key_of(job, inputs), inputs))
    return tasks, broken


def _check_formats(jobs: Sequence[PictureJob]) -> None:
    """Make sure, before anything is painted, that every name's format can hold its picture."""
    from npstyle import images

    for job in jobs:
        images.check_format(job.output)
        images.check_depth(job.output, job.depth)
        if job.alpha:
            images.check_alpha(job.output)


def _check_states(tasks: Sequence[Task], states: Sequence[str], overwrite: bool) -> None:
    """Make sure, before anything is painted, that nothing is replaced that may not be.

    Raises
    ------
    UserError
        About the first picture in whose place there is such a file, and how many there are.
    """
    from npstyle.jobs.manifest import FOREIGN, OUTDATED

    foreign = [task for task, state in zip(tasks, states, strict=True) if state == FOREIGN]
    if foreign:
        found = f"{_others(foreign)}that this batch did not paint, or that was changed since"
        cure = "move it, or choose another folder or --name"
        raise UserError(f"output: {foreign[0].job.output}", found, "a new name", cure)
    outdated = [task for task, state in zip(tasks, states, strict=True) if state == OUTDATED]
    if outdated and not overwrite:
        found = f"{_others(outdated)}painted with other settings or from other files"
        cure = "choose another folder, or add --overwrite to replace it"
        raise UserError(f"output: {outdated[0].job.output}", found, "the same, or a new name", cure)


def _others(tasks: Sequence[Task]) -> str:
    return "a file " if len(tasks) == 1 else f"a file (one of {len(tasks)}) "


# ------------------------------------------------------------------------------------------------
# Doing it
# ------------------------------------------------------------------------------------------------


class Work:
    """The pictures of a batch, as they come: what is written and printed of each, and how it ends."""

    def __init__(self, options: argparse.Namespace, manifest: Manifest, total: int) -> None:
        self.options = options
        self.manifest = manifest
        self.total = total
        self.painted = self.skipped = self.failed = 0
        self._began = time.monotonic()
        self._bar: BatchBar | None = None

    def skip_done(self, tasks: Sequence[Task]) -> Iterator[Task]:
        """The tasks whose pictures are not there yet; UserError where another file is in its place."""
        from npstyle.jobs.manifest import DONE as PAINTED

        states = [self.manifest.state(task.job.output, task.key) for task in tasks]
        _check_states(tasks, states, self.options.overwrite)
        for task, state in zip(tasks, states, strict=True):
            if state != PAINTED:
                yield task
                continue
            self.skipped += 1
            if self.options.json:
                print_out(json.dumps({**self.manifest.line(task.job.output), "skipped": True}))

    def run(self, tasks: Sequence[Task]) -> None:
        """Paint the pictures of the tasks."""
        if not tasks:
            return
        jobs = [task.job for task in tasks]
        with (
            workers_for(self.options, demand_of(jobs), self.options.workers) as (workers, share),
            BatchBar(len(tasks), self.options.quiet) as self._bar,
        ):
            for outcome in paint_all(workers, share, jobs, self._bar, self.options.send):
                self._take(tasks[outcome.number], outcome)
                self._bar.advance()
        self._bar = None

    def _take(self, task: Task, outcome: Outcome) -> None:
        """Write and print what became of a task; UserError where the folder takes no picture."""
        for warning in outcome.warnings:
            self._print(f"npstyle: {warning}", print_err)
        if outcome.error:
            self.fail(task.job, outcome.error, task.inputs)
            return
        painted = outcome.value
        facts = {**_named(task.job), "inputs": task.inputs, "settings": _as_text(task.job), **painted.facts}
        line = self.manifest.save(task.job.output, task.key, painted.file, facts)
        if painted.checkpoint is not None:
            painted.checkpoint.unlink(missing_ok=True)
        self.painted += 1
        if self.options.json:
            self._print(json.dumps(line, default=str))
        elif not self.options.quiet:
            self._print(f"{task.job.output}: {describe(painted.facts)}")

    def fail(self, job: PictureJob, error: str, inputs: dict[str, str]) -> None:
        """Write and print that a picture failed."""
        line = self.manifest.fail(job.output, error, {**_named(job), "inputs": inputs})
        self.failed += 1
        self._print(f"npstyle: {job.output}: {error}", print_err)
        if self.options.json:
            self._print(json.dumps(line, default=str))

    def interrupted(self) -> None:
        """Print how far the batch is."""
        there = self.painted + self.skipped
        print_err(
            f"\nnpstyle: interrupted; {there} of {count_of(self.total, 'picture')} "
            f"{'is' if there == 1 else 'are'} there, and the same command continues"
        )

    def summary(self) -> int:
        """Print how the batch ended, and return the exit status."""
        counts = [f"{self.painted} painted"]
        counts += [f"{self.skipped} there before"] if self.skipped else []
        counts += [f"{self.failed} failed"] if self.failed else []
        if self.failed or not self.options.quiet:
            seconds = time.monotonic() - self._began
            print_err(f"{count_of(self.total, 'picture')}: {', '.join(counts)}, in {seconds:.0f} s")
        return FAILED if self.failed else DONE

    def _print(self, text: str, print_line: Any = print_out) -> None:
        if self._bar is None:
            print_line(text)
        else:
            self._bar.line(text, print_line)


def _named(job: PictureJob) -> dict[str, Any]:
    return {"content": str(job.content), "styles": list(map(str, job.styles))}


def _as_text(job: PictureJob) -> dict[str, str]:
    from npstyle.images.metadata import as_text

    return as_text(job.recorded)


def describe(facts: dict[str, Any]) -> str:
    """A picture that was painted, in a line."""
    change = "" if facts["first_loss"] is None else f", loss {facts['first_loss']:.4g} -> {facts['loss']:.4g}"
    judged = f", E {facts['E']:.3f}, C {facts['C']:.3f}" if "E" in facts else ""
    size = f"{facts['width']} x {facts['height']} pixels"
    return f"{size}, {facts['message']} in {facts['seconds']:.0f} s{change}{judged}"
