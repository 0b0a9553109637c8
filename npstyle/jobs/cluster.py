"""Workers on Dask: processes on this machine, or a cluster that is there (extra `dask`).

`local_cluster` and `connected_cluster` are contexts of a `Cluster`, whose `run` does jobs, and whose `client`
is Dask's own, for whoever wants more than that. Dask starts the processes, replaces killed ones and gives
their jobs to others.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from asyncio import CancelledError
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from npstyle.errors import UserError
from npstyle.jobs.workers import Outcome, attempt

if TYPE_CHECKING:
    from distributed import Client, Future

Job = TypeVar("Job")

MAX_FAILURES = 3  # of workers with the same job, before it is taken for their death
TIMEOUT = 10.0  # seconds for a scheduler to answer, and for its first worker to come
# What has to be the same everywhere, so that results are.
PACKAGES = ("npstyle", "numpy", "scipy", "pillow")
HOW_TO_INSTALL = "pip install distributed cryptography (npstyle's extra dask)"


def is_installed() -> bool:
    """Whether Dask is."""
    return find_spec("distributed") is not None


def require_dask(name: str) -> None:
    """Raise UserError about an option unless Dask is installed."""
    if not is_installed():
        raise UserError(name, "no package distributed", "Dask", HOW_TO_INSTALL)


class Cluster:
    """Workers that a client of Dask reaches; see `npstyle.jobs.workers.Workers`.

    Parameters
    ----------
    client : distributed.Client
    name : str
        What it is called in errors.
    """

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.name = name

    @property
    def number(self) -> int:
        """How many jobs are done at a time; changes where workers come and go."""
        return sum(self.client.nthreads().values())

    @property
    def per_machine(self) -> int:
        """How many jobs are done at a time on one machine, at most."""
        machines: dict[str, int] = {}
        for address, threads in self.client.nthreads().items():
            machine = address.rpartition(":")[0]
            machines[machine] = machines.get(machine, 0) + threads
        return max(machines.values(), default=1)

    @property
    def dashboard(self) -> str:
        """The address of Dask's dashboard; empty without one."""
        return self.client.dashboard_link if find_spec("bokeh") else ""

    def send(self, paths: Iterable[str]) -> None:
        """Send files to all workers, now and later, for jobs that name them by their paths here."""
        from npstyle.jobs.sent_file import SentFile

        for path in paths:
            if os.path.isfile(path):
                self.client.register_plugin(SentFile(Path(path)))

    def run(self, function: Callable[[Job], Any], jobs: Iterable[Job | None]) -> Iterator[Outcome]:
        """Do every job, one at a time for each worker at hand, and yield their outcomes as they come.

        Raises
        ------
        UserError
            The scheduler is gone.
        """
        from distributed import as_completed

        remaining, count = iter(jobs), 0
        numbers: dict[str, int] = {}
        futures: set[Future] = set()
        completed = as_completed(loop=self.client.loop)

        def submit() -> bool:
            nonlocal count
            job = next(remaining, None)
            if job is None:
                return False
            future = self.client.submit(_attempt, function, job, VERSIONS, pure=False, priority=-count)
            numbers[future.key] = count
            count += 1
            futures.add(future)
            completed.add(future)
            return True

        try:
            while True:
                # Not more: a worker that is killed would take those that wait for it with it.
                while len(futures) < max(1, self.number) and submit():
                    pass
                if not futures:
                    return
                future = next(completed)
                futures.discard(future)
                yield self._outcome(numbers.pop(future.key), future)
                future.release()
        except (OSError, CancelledError) as error:  # a connection that is closed, too
            cause = UserError(self.name, "no connection any more", "a scheduler that runs", "start it again")
            raise cause from error
        finally:
            with suppress(Exception):  # it may be gone
                self.client.cancel(list(futures), force=True)

    def _outcome(self, number: int, future: Future) -> Outcome:
        try:
            value, failure, warned = future.result()
        except (OSError, CancelledError):
            raise
        except Exception as error:
            if future.status != "error":  # it is not the job that failed
                raise OSError(str(error)) from error
            if type(error).__name__ == "KilledWorker":
                text = f"workers: found {MAX_FAILURES + 1} killed while they painted it"
                return Outcome(number, None, f"{text}; expected one that lives; is there enough memory?")
            return Outcome(number, None, " ".join(f"{type(error).__name__}: {error}".split()))
        return Outcome(number, value, failure, warned)


@contextmanager
def local_cluster(number: int) -> Iterator[Cluster]:
    """So many worker processes on this machine, which end with this one, however it ends.

    The scheduler is in this process, listens on 127.0.0.1 only, and talks to those alone that have the
    certificate that was made for it.
    """
    from distributed import Client, LocalCluster

    with ExitStack() as stack, _configured(), _silent():
        with _undisturbed():  # a cluster that has started in part can't be closed
            cluster = LocalCluster(
                n_workers=number,
                threads_per_worker=1,
                host="127.0.0.1",
                security=True,
                dashboard_address="127.0.0.1:0",
                memory_limit=0,  # it is divided beforehand
                silence_logs=logging.CRITICAL,
                preload="npstyle.jobs.worker_process",
                scheduler_kwargs={"allowed_failures": MAX_FAILURES},
            )
            stack.callback(_close, cluster)
            client = Client(cluster, set_as_default=False)
            stack.callback(client.close, timeout=2)
        yield Cluster(client, "workers")


@contextmanager
def connected_cluster(address: str) -> Iterator[Cluster]:
    """The workers of a scheduler that runs, such as tcp://host:8786, which stay there.

    Raises
    ------
    UserError
        There is none, it has no worker, or a worker lacks npstyle or has other versions than this process.
    """
    from distributed import Client

    name = f"--scheduler: {address}"
    with ExitStack() as stack, _configured(), _silent():
        try:
            client = Client(address, timeout=TIMEOUT, set_as_default=False)
        except (OSError, ValueError) as error:
            found = f"no answer ({' '.join(str(error).split()) or type(error).__name__})"
            cure = "start one with dask scheduler, and name it as tcp://HOST:8786"
            raise UserError(name, found, "the address of a Dask scheduler", cure) from error
        stack.callback(client.close, timeout=2)
        check_workers(client, name)
        yield Cluster(client, name)


def check_workers(client: Client, name: str) -> None:
    """Wait for the first worker, and raise UserError unless all that are there have the same versions."""
    try:
        client.wait_for_workers(1, timeout=TIMEOUT)
    except Exception as error:  # Dask's TimeoutError, or the scheduler is gone
        cure = f"start some with dask worker {name.partition(': ')[2]}"
        raise UserError(name, "no worker", "at least one", cure) from error
    found = client.run(_versions, on_error="return")
    for worker, versions in found.items():
        if isinstance(versions, BaseException):
            raise UserError(f"{name}, worker {worker}", f"{versions}", "npstyle there, too", "install it")
        if versions != VERSIONS:
            raise _other_versions(versions, VERSIONS, f"{name}, worker {worker}")


def _versions() -> dict[str, str]:
    found = {name: version(name) for name in PACKAGES}
    return {**found, "python": f"{sys.version_info[0]}.{sys.version_info[1]}"}


VERSIONS = _versions()


def _other_versions(found: dict[str, str], expected: dict[str, str], name: str) -> UserError:
    differing = [package for package in expected if found.get(package) != expected[package]]
    there, here = (
        ", ".join(f"{package} {of.get(package)}" for package in differing) for of in (found, expected)
    )
    return UserError(name, there, f"{here}, as here", "install the same versions, or results would differ")


@contextmanager
def _configured() -> Iterator[None]:
    import dask

    settings = {
        "distributed.comm.timeouts.connect": TIMEOUT,
        "distributed.admin.large-graph-warning-threshold": "10GB",  # of pictures that are sent
        # What Dask measures all the time takes processors from those that paint on this machine.
        "distributed.worker.profile.enabled": False,
        "distributed.admin.tick.interval": "500ms",
        "distributed.admin.system-monitor.interval": "2s",
        "distributed.admin.system-monitor.gil.enabled": False,
    }
    with dask.config.set(settings):
        yield


@contextmanager
def _silent() -> Iterator[None]:
    """Let Dask's loggers print nothing of workers that are replaced, and of connections that end.

    They stay silent: connections end after the context has.
    """
    for name in logging.root.manager.loggerDict:
        if name.partition(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL)
    yield


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let signals that end the program wait for the end of the block."""
    came: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def _close(cluster: Any) -> None:
    """End the workers, also those in the middle of a job, which Python can't interrupt."""
    with _undisturbed():
        for nanny in list(cluster.workers.values()):
            process = getattr(nanny.process, "process", None)
            nanny.auto_restart = False
            if process is not None and process.pid:
                with suppress(OSError):
                    os.kill(process.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        cluster.close(timeout=5)


# ------------------------------------------------------------------------------------------------
# In the worker
# ------------------------------------------------------------------------------------------------

_warned = threading.local()


def _attempt(
    function: Callable[[Job], Any], job: Job, versions: dict[str, str]
) -> tuple[Any, str, tuple[str, ...]]:
    """`attempt` in a worker; and what was warned of meanwhile."""
    if versions != VERSIONS:
        return None, str(_other_versions(VERSIONS, versions, "worker")), ()
    _collect_warnings()
    _warned.texts = []
    value, error = attempt(function, job)
    return value, error, tuple(dict.fromkeys(_warned.texts))


def _collect_warnings() -> None:
    """Collect npstyle's warnings by thread: a worker has several, which share Python's filters."""
    if getattr(warnings.showwarning, "is_npstyles", False):
        return
    from npstyle.images import PictureWarning
    from npstyle.weights import WeightsWarning

    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *others: Any, **more: Any) -> None:
        texts = getattr(_warned, "texts", None)
        if texts is None:
            before(message, category, *others, **more)
        else:
            texts.append(str(message))

    show.is_npstyles = True  # type: ignore[attr-defined]
    for known in (PictureWarning, WeightsWarning):
        warnings.simplefilter("always", known)
    warnings.showwarning = show
