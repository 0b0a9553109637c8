"""The studio's server."""

from __future__ import annotations

import socket
from pathlib import Path

from npstyle.errors import UserError
from npstyle.studio.app import Studio
from npstyle.studio.folder import Folder
from npstyle.studio.guarded_server import GuardedServer, listen
from npstyle.studio.queue import Queue


class Server(GuardedServer):
    """The studio; see `GuardedServer`.

    Parameters
    ----------
    folder : Path
        Where uploads and pictures are kept; free again when `run` has ended.
    host, port
    weights : str
        What `load_weights` is to load.
    threads : int, optional
    trial : bool
        See `Queue`.

    Raises
    ------
    UserError
        The port is taken, or the folder can't be used.
    """

    def __init__(
        self,
        folder: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        weights: str = "auto",
        threads: int | None = None,
        trial: bool = False,
    ) -> None:
        listening = listen(host, port)  # first: where it fails, no folder is made
        try:
            self.folder = Folder(folder)
        except UserError:
            listening.close()
            raise
        self.queue = Queue(self.folder, weights, threads, trial)
        super().__init__(Studio(self.queue).application(), self.queue.listeners, listening, host)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            super().run(sockets)
        finally:
            self.folder.close()
