"""A file that Dask sends to every worker, also to those that come later (only imported where Dask is)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distributed import WorkerPlugin

from npstyle.jobs.filters import received


class SentFile(WorkerPlugin):
    """Puts a file into a folder of each worker, where jobs find it by the path that it has here.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.name = f"npstyle: {path}"
        self._data = path.read_bytes()

    def setup(self, worker: Any) -> None:
        folder = Path(worker.local_directory) / "npstyle"
        folder.mkdir(exist_ok=True)
        file = folder / Path(self.path).name
        file.write_bytes(self._data)
        received[self.path] = file

    def teardown(self, worker: Any) -> None:
        file = received.pop(self.path, None)
        if file is not None:
            file.unlink(missing_ok=True)
