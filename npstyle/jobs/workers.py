"""Who does jobs: this process, one after the other. `npstyle.jobs.cluster` has workers on Dask.

A job is any picklable object, and a function of a module does it: nothing here knows pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol, TypeVar

from npstyle.errors import UserError

Job = TypeVar("Job")


class Outcome(NamedTuple):
    """What became of a job.

    Attributes
    ----------
    number : int
        The job's, from 0.
    value : object
        What the function returned; None if it failed.
    error : str
        Why it failed, in one line; empty if it did not.
    warnings : tuple of str
        What was warned of meanwhile, in another process.
    """

    number: int
    value: Any
    error: str = ""
    warnings: tuple[str, ...] = ()


class Workers(Protocol):
    """Whoever does jobs; `run` yields their outcomes as they come, in any order."""

    @property
    def number(self) -> int:
        """How many jobs are done at a time, as far as is known."""

    def send(self, paths: Iterable[str]) -> None:
        """Let files be found elsewhere, too, by jobs that name them by their paths here."""

    def run(self, function: Callable[[Job], Any], jobs: Iterable[Job | None]) -> Iterator[Outcome]:
        """Do every job; one that fails costs no other. What interrupts it ends the workers, too.

        None among the jobs, which has no number: there is none before the next outcome.
        """


class ThisProcess:
    """No other process: one job at a time, in the thread that asks for outcomes."""

    number = 1

    def send(self, paths: Iterable[str]) -> None:
        """Nothing: they are here."""

    def run(self, function: Callable[[Job], Any], jobs: Iterable[Job | None]) -> Iterator[Outcome]:
        for number, job in enumerate(job for job in jobs if job is not None):
            yield Outcome(number, *attempt(function, job))


def attempt(function: Callable[[Job], Any], job: Job) -> tuple[Any, str]:
    """What the function returns for a job, or in one line why it fails."""
    try:
        return function(job), ""
    except UserError as error:
        return None, str(error)
    except MemoryError as error:
        details = f" ({error})" if str(error) else ""
        return None, f"memory: found too little{details}; expected more; try a smaller --size"
    except Exception as error:
        return None, " ".join(f"{type(error).__name__}: {error}".split())
