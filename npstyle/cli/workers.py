"""Who does the jobs of a command: this process, processes on this machine, or a Dask cluster that is there.

Everything slow to import is imported where it is used, so that --help is instant.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from npstyle.cli.arguments import integer
from npstyle.cli.session import count_of, format_bytes
from npstyle.cli.terminal import print_err
from npstyle.errors import UserError

if TYPE_CHECKING:
    from npstyle.jobs.workers import Workers

WORKER_BYTES = 280e6  # of a worker process: Python, NumPy and Dask, and what it keeps of styles (`Memo`)


def add_workers(parser: argparse.ArgumentParser, default: str, what: str = "pictures") -> None:
    """Add --workers, --scheduler and --send; `default` and `what` is sent are said in the help."""
    group = parser.add_argument_group("workers (with npstyle's extra dask)")
    text = f"processes on this machine; they share its threads and memory ({default})"
    group.add_argument("--workers", type=integer(1), metavar="N", help=text)
    text = "a Dask cluster that is there, such as tcp://host:8786"
    group.add_argument("--scheduler", metavar="ADDRESS", help=text)
    text = f"send {what} and filters to the cluster, which does not share the files"
    group.add_argument("--send", action="store_true", help=text)


def check_workers(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Wrong usage where the options of workers contradict each other; a UserError where they need Dask."""
    if options.workers and options.scheduler:
        parser.error("--workers: found --scheduler, too; expected the one or the other; leave it out")
    if options.send and not options.scheduler:
        parser.error("--send: found no --scheduler; expected one to send to; leave it out")
    if options.scheduler or (options.workers or 1) > 1:
        from npstyle.jobs import cluster

        cluster.require_dask("--scheduler" if options.scheduler else "--workers")


@dataclass(frozen=True)
class Demand:
    """What there is to do, as far as it decides on the number of workers.

    Attributes
    ----------
    jobs : int
        How many there are.
    noun : str
        What a job makes, as "picture".
    memory : float
        Bytes that the largest needs at least.
    largest : str
        What that one is called in errors; empty if no job's memory is known.
    most : int, optional
        Workers of which each has enough to do, for the number that is chosen here.
    """

    jobs: int
    noun: str
    memory: float
    largest: str
    most: int | None = None


class Share(NamedTuple):
    """What each job may take, with the names that `PictureJob` and `FrameJob` have for it."""

    threads: int | None
    memory: float | None
    at_a_time: int = 1


@contextmanager
def workers_for(
    options: argparse.Namespace, demand: Demand, number: int | None
) -> Iterator[tuple[Workers, Share]]:
    """Who does the jobs, and what each of them may take of threads and memory.

    `number` is that of worker processes; None: as many as cores, memory and jobs permit.
    """
    from npstyle.jobs import cluster
    from npstyle.jobs.workers import ThisProcess

    if options.scheduler:
        with cluster.connected_cluster(options.scheduler) as workers:
            _say_dashboard(options, workers, f"{count_of(workers.number, 'worker')} at {options.scheduler}")
            yield workers, Share(options.threads, options.memory, workers.per_machine)
        return
    number, share = _shares(options, demand, number)
    if number == 1:
        yield ThisProcess(), share
        return
    with cluster.local_cluster(number) as workers:
        each = count_of(share.threads or 1, "thread")
        room = "" if share.memory is None else f" and {format_bytes(share.memory)}"
        _say_dashboard(options, workers, f"{number} workers, each with {each}{room}")
        yield workers, share


def _shares(options: argparse.Namespace, demand: Demand, number: int | None) -> tuple[int, Share]:
    """How many workers there are, and the threads and bytes of each; None for what is not divided."""
    from npstyle._runtime.threads import resolve
    from npstyle.jobs import cluster
    from npstyle.run.memory import available_memory

    free = available_memory(options.threads) if options.memory is None else options.memory
    needed = demand.memory
    if demand.largest and free is not None and needed > free and not options.force:
        whose = "free" if options.memory is None else "allowed by --memory"
        cure = "try a smaller --size, or --optimizer lbfgs32, or --force to run all the same"
        name = f"memory for {demand.largest}"
        raise UserError(name, f"{format_bytes(free)} {whose}", f"about {format_bytes(needed)}", cure)
    cores = resolve(None)
    fitting = demand.jobs if free is None else max(1, int(free // (needed + WORKER_BYTES)))
    possible = max(1, min(cores, demand.jobs, fitting, demand.most or demand.jobs))
    if number is not None and 1 < number > fitting and not options.force:
        found = f"{number}, for which {format_bytes(free or 0)} are too little"
        raise UserError("--workers", found, f"at most {fitting}", "give fewer, or add --force")
    if number is None and possible > 1 and not cluster.is_installed():
        how = f"{possible} workers would need {cluster.HOW_TO_INSTALL}"
        print_err(f"npstyle: one {demand.noun} at a time: {how}")
        possible = 1
    number = min(number or possible, demand.jobs)
    if number == 1:
        return 1, Share(options.threads, options.memory)
    memory = None if free is None else max(needed, free / number - WORKER_BYTES)
    return number, Share(options.threads or max(1, cores // number), memory)


def _say_dashboard(options: argparse.Namespace, workers: Any, line: str) -> None:
    if not options.quiet:
        print_err(f"{line}; dashboard: {workers.dashboard}" if workers.dashboard else line)
