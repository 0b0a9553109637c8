"""Downloads from a local server that answers correctly, wrongly, or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pooch
import pytest

from npstyle.errors import UserError
from npstyle.weights import RandomFiltersWarning, WeightsWarning, load_weights
from npstyle.weights import download as _download
from npstyle.weights.registry import Entry, cache_folder, registry

Page = Callable[[BaseHTTPRequestHandler], None]
Register = Callable[..., None]
Patch = pytest.MonkeyPatch
Log = pytest.LogCaptureFixture
Output = pytest.CaptureFixture[str]

GOOD = bytes(range(256)) * 20
NAME = "filters.npz"


class Server(ThreadingHTTPServer):
    """Answers each path with the function in `pages`; records the requested paths."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages: dict[str, Page] = {}
        self.requested: list[str] = []
        self.closing = threading.Event()

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.requested.append(self.path)
        page = self.server.pages.get(self.path)
        if page is None:
            self.send_error(404)
        else:
            page(self)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def sends(body: bytes, missing: int = 0) -> Page:
    """A response whose Content-Length is `missing` bytes more than it has."""

    def page(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body) + missing))
        handler.end_headers()
        handler.wfile.write(body)

    return page


def fails(status: int) -> Page:
    return lambda handler: handler.send_error(status)


def stalls(handler: BaseHTTPRequestHandler) -> None:
    """Half of the file, then silence."""
    sends(GOOD[:2048], missing=2048)(handler)
    assert isinstance(handler.server, Server)
    handler.server.closing.wait(10)


@pytest.fixture
def server(monkeypatch: Patch) -> Iterator[Server]:
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    server = Server()
    server.pages["/good"] = sends(GOOD)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def silent(server: Server, monkeypatch: Patch) -> Iterator[str]:
    """Address that accepts connections and never answers, with a short timeout."""
    monkeypatch.setattr(_download, "TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/silent"


@pytest.fixture
def dead(server: Server) -> Iterator[str]:
    """Address that refuses connections."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{unused.getsockname()[1]}/dead"


def digits(algorithm: str, content: bytes) -> str:
    plain = algorithm.removesuffix("-prefix")
    return hashlib.new(plain, content).hexdigest()[: 8 if algorithm != plain else None]


every_algorithm = pytest.mark.parametrize("algorithm", ["md5", "sha256", "sha256-prefix"])


@pytest.fixture
def register(alone: Path) -> Register:
    """Function that writes a registry of one file, given its addresses and contents."""

    def write(*addresses: str, content: bytes = GOOD, algorithm: str = "sha256") -> None:
        checksum = f"{algorithm}:{digits(algorithm, content)}"
        entry = {"name": NAME, "checksum": checksum, "addresses": addresses}
        (alone.parent / "registry.json").write_text(json.dumps({"files": [entry]}))

    return write


def left_in(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir())


@every_algorithm
def test_download_is_verified_and_kept(
    algorithm: str, server: Server, register: Register, alone: Path
) -> None:
    register(server.address("/good"), algorithm=algorithm)
    assert _download.fetch_any() == (alone / NAME, [])
    assert left_in(alone) == [NAME]
    assert (alone / NAME).read_bytes() == GOOD
    assert server.requested == ["/good"]


def test_npstyle_cache_variable_expands_tilde(
    server: Server, register: Register, tmp_path: Path, monkeypatch: Patch
) -> None:
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv("NPSTYLE_CACHE", "~/kept")
    register(server.address("/good"))
    assert cache_folder() == tmp_path / "kept"
    assert _download.fetch_any() == (tmp_path / "kept" / NAME, [])


BAD_PAGES = {
    "other content": (sends(GOOD[::-1]), "wrong checksum"),
    "a page to sign in": (sends(b"<html>"), "wrong checksum"),
    "nothing": (sends(b""), "wrong checksum"),
    "cut short": (sends(GOOD[:-100], missing=100), "connection cut"),
    "cut at once": (sends(b"", missing=len(GOOD)), "connection cut"),
    "not found": (fails(404), "HTTP 404"),
    "forbidden": (fails(403), "HTTP 403"),
    "broken server": (fails(500), "HTTP 500"),
}


bad_pages = pytest.mark.parametrize(("page", "reason"), BAD_PAGES.values(), ids=BAD_PAGES.keys())


@bad_pages
@every_algorithm
def test_bad_download_is_refused(
    page: Page, reason: str, algorithm: str, server: Server, register: Register, alone: Path
) -> None:
    server.pages["/hash/refused/404"] = page
    bad = server.address("/hash/refused/404")
    register(bad, algorithm=algorithm)
    assert _download.fetch_any() == (None, [f"{bad} ({reason})"])
    assert left_in(alone) == []


@bad_pages
def test_next_address_is_tried(
    page: Page, reason: str, server: Server, register: Register, alone: Path
) -> None:
    server.pages["/bad"] = page
    register(server.address("/bad"), server.address("/good"), server.address("/never"))
    assert _download.fetch_any() == (alone / NAME, [f"{server.address('/bad')} ({reason})"])
    assert (alone / NAME).read_bytes() == GOOD
    assert left_in(alone) == [NAME]
    assert server.requested == ["/bad", "/good"]


@every_algorithm
def test_another_file_of_that_name_is_kept(
    algorithm: str, server: Server, register: Register, alone: Path
) -> None:
    """It may be damaged, or filters that a user has put there."""
    alone.mkdir()
    register(server.address("/good"), algorithm=algorithm)
    for number, name in enumerate([f"{NAME}.old", f"{NAME}.old-2"]):
        content = b"precious %d" % number
        (alone / NAME).write_bytes(content)
        with pytest.warns(WeightsWarning) as caught:
            assert _download.fetch_any() == (alone / NAME, [])
        assert str(caught[0].message).startswith(f"weights: {alone / NAME}: found another ")
        assert f"; that file is now {name}, and " in str(caught[0].message)
        assert (alone / NAME).read_bytes() == GOOD
        assert (alone / name).read_bytes() == content
    assert left_in(alone) == [NAME, f"{NAME}.old", f"{NAME}.old-2"]


@every_algorithm
def test_another_file_of_that_name_stays_if_the_download_fails(
    algorithm: str, server: Server, register: Register, alone: Path
) -> None:
    alone.mkdir()
    (alone / NAME).write_bytes(b"precious")
    server.pages["/other"] = sends(GOOD[::-1])
    register(server.address("/other"), server.address("/gone"), algorithm=algorithm)
    assert _download.fetch_any()[0] is None
    assert left_in(alone) == [NAME]
    assert (alone / NAME).read_bytes() == b"precious"


def test_what_killed_downloads_left_is_removed(server: Server, register: Register, alone: Path) -> None:
    alone.mkdir()
    for name in (".npstyle-0.tmp", ".npstyle-1.tmp", "mine.tmp"):
        (alone / name).write_bytes(b"half")
        if name != ".npstyle-1.tmp":
            os.utime(alone / name, (0, 0))
    register(server.address("/good"))
    assert _download.fetch_any() == (alone / NAME, [])
    assert left_in(alone) == [".npstyle-1.tmp", NAME, "mine.tmp"]  # the second is another download


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no symbolic links here")
def test_file_that_a_link_in_the_cache_leads_to_is_not_touched(
    server: Server, register: Register, alone: Path, tmp_path: Path
) -> None:
    alone.mkdir()
    (tmp_path / "mine.npz").write_bytes(b"precious")
    (alone / NAME).symlink_to(tmp_path / "mine.npz")
    register(server.address("/good"))
    with pytest.warns(WeightsWarning):
        assert _download.fetch_any() == (alone / NAME, [])
    assert (tmp_path / "mine.npz").read_bytes() == b"precious"
    assert (alone / f"{NAME}.old").resolve() == tmp_path / "mine.npz"
    assert not (alone / NAME).is_symlink()


@every_algorithm
def test_intact_cached_file_is_not_downloaded_again(
    algorithm: str, server: Server, register: Register, alone: Path
) -> None:
    alone.mkdir()
    (alone / NAME).write_bytes(GOOD)
    register(server.address("/good"), algorithm=algorithm)
    assert _download.fetch_any() == (alone / NAME, [])
    assert server.requested == []


def test_fetch_any_of_given_entries(server: Server, register: Register, alone: Path) -> None:
    register(server.address("/good"))
    (entry,) = registry()
    assert (entry.name, entry.megabytes) == (NAME, None)
    assert _download.fetch_any(entries=[]) == (None, [])
    assert _download.fetch_any(entries=[entry]) == (alone / NAME, [])


@pytest.mark.parametrize(
    "checksum", ["sha256-prefix:0123456", "sha256-prefix:012345678", "md5-prefix:01234567", "sha256:01234567"]
)
def test_checksum_length_is_validated(checksum: str) -> None:
    with pytest.raises(ValueError, match=f"checksum '{checksum}'"):
        Entry("x", checksum, ())


def test_dead_server_is_skipped(server: Server, dead: str, register: Register, alone: Path) -> None:
    register(dead, server.address("/good"))
    assert _download.fetch_any() == (alone / NAME, [f"{dead} (connection refused)"])


def test_silent_server_is_skipped(server: Server, silent: str, register: Register, alone: Path) -> None:
    server.pages["/stalls"] = stalls
    stalled = server.address("/stalls")
    register(silent, stalled, server.address("/good"))
    assert _download.fetch_any() == (alone / NAME, [f"{silent} (timed out)", f"{stalled} (timed out)"])
    assert left_in(alone) == [NAME]


def test_interrupted_download_leaves_nothing(server: Server, register: Register, alone: Path) -> None:
    def interrupts(handler: BaseHTTPRequestHandler) -> None:
        sends(GOOD[:2048], missing=2048)(handler)
        os.kill(os.getpid(), signal.SIGINT)
        server.closing.wait(10)

    server.pages["/interrupts"] = interrupts
    register(server.address("/interrupts"))
    with pytest.raises(KeyboardInterrupt):
        _download.fetch_any()
    assert left_in(alone) == []


def test_fetch_any_gives_up_after_max_wait(silent: str, register: Register, monkeypatch: Patch) -> None:
    monkeypatch.setattr(_download, "MAX_WAIT", 0.6)
    register(*(f"{silent}/{index}" for index in range(9)))  # a quarter of the time for each
    path, failures = _download.fetch_any()
    assert path is None
    assert failures[0] == f"{silent}/0 (timed out)"
    assert failures[-1] == "gave up after 1 s"
    assert len(failures) <= 6


@pytest.fixture
def clock(monkeypatch: Patch) -> SimpleNamespace:
    """The clock of the maximum wait, advanced by hand."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(_download, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.mark.parametrize(("named", "wait", "tries"), [(False, 9, 3), (True, 30, 10)])
def test_max_wait(
    named: bool,
    wait: int,
    tries: int,
    server: Server,
    register: Register,
    clock: SimpleNamespace,
    monkeypatch: Patch,
) -> None:
    """Whoever asks for a file by name waits longer than whoever can do without."""

    def look_up(*_: object) -> None:
        clock.now += 3
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    register(*(f"https://{index}.example/x" for index in range(19)))
    unknown = [f"https://{index}.example/x (no network, or the name is unknown)" for index in range(tries)]
    entries = registry() if named else None
    assert _download.fetch_any(entries=entries) == (None, [*unknown, f"gave up after {wait} s"])


def test_max_wait_does_not_count_downloads(
    server: Server, register: Register, clock: SimpleNamespace, alone: Path
) -> None:
    def slow(handler: BaseHTTPRequestHandler) -> None:
        clock.now += 60
        sends(b"wrong")(handler)

    server.pages["/slow"] = slow
    register(server.address("/slow"), server.address("/slow"), server.address("/good"))
    assert _download.fetch_any()[0] == alone / NAME


def test_unknown_host_is_skipped(server: Server, register: Register, alone: Path) -> None:
    register("http://npstyle.invalid/x", server.address("/good"))
    path, (failure,) = _download.fetch_any()
    assert path == alone / NAME
    reasons = r"no network, or the name is unknown|timed out"
    assert re.fullmatch(rf"http://npstyle\.invalid/x \(({reasons})\)", failure)


def test_hanging_name_lookup_times_out(register: Register, server: Server, monkeypatch: Patch) -> None:
    def look_up(*_: object) -> None:
        server.closing.wait(10)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(_download, "MAX_WAIT", 0.6)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    register("http://slow.example/x")
    assert _download.fetch_any() == (None, ["http://slow.example/x (timed out)"])
    assert server.requested == []


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://a..b/x", "label empty"),
        ("http://[::1/x", "Failed to parse"),
        ("gopher://127.0.0.1/x", "No connection adapters"),
        ("x", "Invalid URL"),
    ],
)
def test_invalid_address_is_skipped(
    address: str, reason: str, server: Server, register: Register, alone: Path
) -> None:
    register(address, server.address("/good"))
    path, (failure,) = _download.fetch_any()
    assert path == alone / NAME
    assert failure.startswith(f"{address} (")
    assert reason in failure


def test_unwritable_cache_is_reported(
    server: Server, register: Register, alone: Path, monkeypatch: Patch
) -> None:
    alone.write_text("a file in the place of the folder")
    register(server.address("/good"))
    path, (failure,) = _download.fetch_any()
    assert path is None
    expected = f"cache: {alone}: found a file; expected a folder to write to; set NPSTYLE_CACHE to another"
    assert failure == expected
    assert server.requested == []
    monkeypatch.setenv("NPSTYLE_CACHE", str(alone / "below"))
    assert _download.fetch_any()[1][0].startswith(f"cache: {alone / 'below'}: found Not a directory; ")


def test_downloads_are_silent(server: Server, register: Register, caplog: Log, capfd: Output) -> None:
    logger = pooch.get_logger()  # it does not propagate to the root logger
    level = logger.level
    register(server.address("/good"))
    logger.addHandler(caplog.handler)
    try:
        assert _download.fetch_any()[1] == []
    finally:
        logger.removeHandler(caplog.handler)
    assert caplog.messages == []
    assert capfd.readouterr() == ("", "")
    assert logger.level == level != logging.WARNING


def test_progress_bar_is_shown_if_asked(server: Server, register: Register, capfd: Output) -> None:
    register(server.address("/good"))
    assert _download.fetch_any(progress=True)[1] == []
    output, errors = capfd.readouterr()
    assert output == ""
    assert "5.12k/5.12k" in errors


BAD_REGISTRIES = {
    "empty": ("", "JSONDecodeError: Expecting value"),
    "a list": ("[]", "TypeError: "),
    "no files": ("{}", "KeyError: 'files'"),
    "no checksum": ('{"files": [{"name": "x"}]}', "KeyError: 'checksum'"),
    "odd checksum": (
        '{"files": [{"name": "x", "checksum": "md5:12", "addresses": []}]}',
        "checksum 'md5:12'",
    ),
    "missing": (None, "No such file or directory"),
}


@pytest.mark.parametrize(("text", "found"), BAD_REGISTRIES.values(), ids=BAD_REGISTRIES.keys())
def test_invalid_registry_is_reported(text: str | None, found: str, alone: Path) -> None:
    path = alone.parent / "registry.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_weights("auto")
    line = str(caught.value)
    assert line.startswith(f"registry: {path}: found no list of weights files (")
    assert found in line
    assert line.endswith(
        "expected a file such as weights/registry.json; correct it or unset NPSTYLE_REGISTRY"
    )


def npz() -> bytes:
    arrays: dict[str, Any] = {"conv1_1/kernel": np.ones((3, 3, 3, 64), np.float32)}
    arrays["conv1_1/bias"] = np.full(64, 3, np.float32)
    arrays["preprocessing"] = np.array("caffe")
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize("source", ["auto", "imagenet"])
def test_weights_are_downloaded_once(source: str, server: Server, register: Register, alone: Path) -> None:
    server.pages["/npz"] = sends(npz())
    register(server.address("/npz"), content=npz())
    for _ in range(2):
        weights = load_weights(source)
        assert (weights.source, weights.random) == (str(alone / NAME), False)
        assert weights["conv1_1"].bias.tolist() == [3.0] * 64
    assert server.requested == ["/npz"]


def test_warning_and_error_list_what_was_tried(
    server: Server, dead: str, register: Register, alone: Path
) -> None:
    gone = server.address("/gone")
    register(gone, dead)
    tried = [f"{alone} (no registered file)", f"{gone} (HTTP 404)", f"{dead} (connection refused)"]
    with pytest.warns(RandomFiltersWarning) as caught:
        assert load_weights("auto", deepest="conv1_1").random
    text = str(caught[0].message)
    assert ";\n       ".join(tried) + f".\nFor the ImageNet filters: fetch {NAME} on a machine with" in text
    with pytest.raises(UserError) as error:
        load_weights("imagenet")
    assert "; ".join(tried) + f"; expected a file or a network; fetch {NAME} on a" in str(error.value)
