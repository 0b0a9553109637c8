"""The workers of `npstyle.divided` on Dask: each computes a band of a picture, with a network of its own."""

from __future__ import annotations

from asyncio import CancelledError
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

from distributed import Future, TimeoutError, WorkerPlugin, get_worker

from npstyle._runtime import threads
from npstyle.divided import Pixels, WorkerLostError
from npstyle.errors import UserError
from npstyle.jobs.cluster import Cluster
from npstyle.vgg import VGG19

LOST = (OSError, CancelledError, TimeoutError)  # what Dask raises where a worker is gone
TIMEOUT = 60.0  # seconds for a worker to come where there is none any more


class NetworkPlugin(WorkerPlugin):
    """Gives a network to all workers, now and later; it divides a machine's cores among its workers."""

    def __init__(self, network: VGG19, per_machine: int) -> None:
        self.name = f"npstyle-network-{uuid4().hex}"
        self.network, self._per_machine = network, per_machine

    def setup(self, worker: Any) -> None:
        self.network.threads = max(1, threads.available() // self._per_machine)


class BandWorkers:
    """See `npstyle.divided.Workers`; a band for each worker that there is now."""

    def __init__(self, cluster: Cluster, network: VGG19) -> None:
        self._client, self._name = cluster.client, cluster.name
        self._known = (
            self._addresses()
        )  # asked for again once a worker is lost, until there are as many again
        self.count = len(self._known)
        per_machine = Counter(address.rpartition(":")[0] for address in self._known)
        plugin = NetworkPlugin(network, max(per_machine.values()))
        self._plugin = plugin.name
        self._client.register_plugin(plugin, name=plugin.name)

    def send(self, band: int, pixels: Pixels) -> Future:
        where = self._worker(band)
        try:  # to that worker directly, and not through the scheduler
            return self._client.scatter(pixels, workers=where, hash=False)
        except (*LOST, KeyError) as error:  # KeyError: the scheduler knows no worker of this address any more
            raise self._lost(error) from error

    def submit(self, band: int, function: Callable[..., Any], *arguments: Any) -> Future:
        options = {"workers": self._worker(band), "allow_other_workers": True, "pure": False}
        return self._client.submit(_with_network, self._plugin, function, *arguments, **options)

    def results(self, handles: Sequence[Future]) -> list[Any]:
        try:
            results: list[Any] = self._client.gather(list(handles))
        except LOST as error:
            raise self._lost(error) from error
        except Exception as error:
            if any(handle.status == "error" for handle in handles) and type(error).__name__ != "KilledWorker":
                raise  # it is what was computed that failed
            raise self._lost(error) from error
        return results

    def _worker(self, band: int) -> list[str]:
        if len(self._known) < self.count:
            self._known = self._addresses()
        return [self._known[band % len(self._known)]]

    def _lost(self, error: BaseException) -> WorkerLostError:
        self._known = []
        return WorkerLostError(" ".join(f"{type(error).__name__}: {error}".split()))

    def _addresses(self) -> list[str]:
        try:
            self._client.wait_for_workers(1, timeout=TIMEOUT)
            return sorted(self._client.nthreads())
        except Exception as error:  # Dask's TimeoutError, or the scheduler is gone
            cure = "start some, or the scheduler again, and the same command with --resume"
            raise UserError(self._name, "no worker any more", "at least one", cure) from error


def _with_network(plugin: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """In the worker."""
    return function(get_worker().plugins[plugin].network, *arguments)
