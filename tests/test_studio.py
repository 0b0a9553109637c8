"""`npstyle studio` without a browser: who is answered, what may be asked for, and that pictures are the same.

The server is a real one, on a port of this machine; its page is tested in `test_studio_browser.py`.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers import error_line, structured_picture
from npstyle import images
from npstyle.cli.main import main
from npstyle.errors import UserError
from npstyle.images.metadata import command_line
from npstyle.studio import estimates
from npstyle.studio import folder as studio_folder
from npstyle.studio.folder import DONE, FAILED, PAINTING, PAUSED, PICTURE, Folder, Job, clean_name
from npstyle.studio.inputs import Inputs
from npstyle.studio.orders import Order
from npstyle.studio.server import Server

OPTIONS = {"size": 32, "weights": "random", "iterations": 6, "min_size": 24, "seed": 3, "strength": 2}
COMMAND = "--size 32 --weights random --iterations 6 --min-size 24 --seed 3 --style-weight 120 --threads 1"


class Client:
    """Requests to a server, as the page makes them unless they are told otherwise."""

    def __init__(self, url: str) -> None:
        self.url = url
        address, _, self.token = url.removeprefix("http://").partition("/?token=")
        self.host, _, port = address.partition(":")
        self.port = int(port)
        self.headers = {"Origin": f"http://{address}", "Cookie": f"npstyle-studio-{port}={self.token}"}

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, host: str = ""
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        try:
            connection.putrequest(method, path, skip_host=bool(host))
            given = {**(self.headers if headers is None else headers), **({"Host": host} if host else {})}
            if data is not None:
                given["Content-Length"] = str(len(data))
            for name, value in given.items():
                connection.putheader(name, value)
            connection.endheaders(data)
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        found, _, data = self.ask(method, path, body)
        assert found == status, (found, data)
        return json.loads(data) if data else None

    def upload(self, path: Path) -> str:
        id: str = self.json("POST", f"/api/pictures?name={path.name}", path.read_bytes())["id"]
        return id

    def events(self) -> Iterator[tuple[str, Any]]:
        """Names and values of events, from a connection of its own."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            connection.request("GET", "/api/events", headers=self.headers)
            response = connection.getresponse()
            assert response.headers["content-type"].startswith("text/event-stream")
            name, end = "", time.monotonic() + 240
            for line in response:
                assert time.monotonic() < end, "found no such event"
                field, _, value = line.decode().rstrip("\n").partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    yield name, json.loads(value)
        finally:
            connection.close()

    def wait_for(self, id: str, *statuses: str) -> dict[str, Any]:
        """The painting, as soon as it has one of these statuses."""
        for name, value in self.events():
            if name == "jobs":
                job: dict[str, Any] = next(job for job in value if job["id"] == id)
                if job["status"] in statuses:
                    return job
        raise AssertionError("found the end of the events")


@contextmanager
def serving(folder: Path, port: int = 0, trial: bool = False) -> Iterator[Client]:
    server = Server(folder, port=port, threads=1, trial=trial)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield Client(server.url)
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with serving(tmp_path / "studio") as client:
        yield client


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, Path]:
    """A photograph and a painting."""
    paths = tmp_path / "photo.png", tmp_path / "painting.png"
    for seed, path in enumerate(paths):
        Image.fromarray(structured_picture(48, 40, seed)).save(path)
    return paths


def order(client: Client, pictures: tuple[Path, Path], **options: Any) -> dict[str, Any]:
    content, style = map(client.upload, pictures)
    return {"content": content, "styles": [style], "options": {**OPTIONS, **options}}


def pixels(data: bytes) -> bytes:
    return images.read(images.FileContents("picture", data)).tobytes()


# ------------------------------------------------------------------------------------------------
# Who is answered
# ------------------------------------------------------------------------------------------------

PATHS = [
    ("GET", "/"),
    ("GET", "/static/main.js"),
    ("GET", "/api/choices"),
    ("GET", "/api/events"),
    ("GET", "/api/pictures/x"),
    ("GET", "/api/jobs/x/picture"),
    ("GET", "/nothing"),
    ("POST", "/api/pictures?name=x"),
    ("POST", "/api/estimate"),
    ("POST", "/api/jobs"),
    ("GET", "/api/jobs/x/inputs/start"),
    ("POST", "/api/jobs/x/stop"),
    ("POST", "/api/jobs/x/first"),
    ("POST", "/api/jobs/x/next"),
    ("POST", "/api/jobs/x/go-on"),
    ("DELETE", "/api/jobs/x"),
    ("OPTIONS", "/api/jobs"),
]


def test_only_the_page_that_was_opened_with_the_token_is_answered(client: Client) -> None:
    own = f"127.0.0.1:{client.port}"
    without_cookie = {"Origin": client.headers["Origin"]}
    cookie = client.headers["Cookie"]
    for method, path in PATHS:
        for headers, host in (
            (without_cookie, ""),
            ({**client.headers, "Cookie": f"npstyle-studio-{client.port}=guess"}, ""),
            ({**client.headers, "Cookie": cookie.replace(str(client.port), "1")}, ""),
            ({**client.headers, "Origin": "http://example.org"}, ""),
            ({**client.headers, "Origin": "null"}, ""),
            ({**client.headers, "Origin": f"https://{own}"}, ""),
            ({**client.headers, "Origin": f"http://localhost:{client.port}"}, ""),
            ({**client.headers, "Sec-Fetch-Site": "cross-site"}, ""),
            ({**client.headers, "Sec-Fetch-Site": "same-site"}, ""),
            ({"Cookie": cookie}, "example.org"),
            ({"Cookie": cookie}, f"example.org:{client.port}"),
            ({"Cookie": cookie}, "127.0.0.1"),
            ({"Cookie": cookie}, f"127.0.0.1.example.org:{client.port}"),
            ({"Cookie": cookie}, f"10.0.0.1:{client.port}"),
        ):
            status, found, body = client.ask(method, path, headers=headers, host=host)
            assert status == 403, (method, path, headers, host)
            assert body.startswith(b"npstyle studio: refused: ") or method == "HEAD"
            assert "set-cookie" not in found
    assert client.ask("POST", "/api/estimate", {}, {"Cookie": cookie})[0] == 403  # without any Origin
    assert client.ask("GET", "/api/choices", headers={"Cookie": cookie})[0] == 200
    localhost = {"Cookie": cookie, "Origin": f"http://localhost:{client.port}"}
    assert client.ask("GET", "/api/choices", headers=localhost, host=f"localhost:{client.port}")[0] == 200


def test_token_becomes_a_cookie_and_leaves_the_address(client: Client) -> None:
    status, headers, _ = client.ask("GET", f"/?token={client.token}", headers={})
    assert (status, headers["location"]) == (303, "/")
    cookie = headers["set-cookie"]
    assert cookie.startswith(client.headers["Cookie"])
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    for query in ("token=guess", "token=", "token=%ff", f"token={client.token}x"):
        status, headers, _ = client.ask("GET", f"/?{query}", headers={})
        assert status == 403
        assert "set-cookie" not in headers
    assert client.ask("POST", f"/?token={client.token}", headers={})[0] == 403
    rebound = client.ask("GET", f"/?token={client.token}", headers={}, host=f"example.org:{client.port}")
    assert rebound[0] == 403


def test_every_answer_has_the_policy(client: Client) -> None:
    for path in ("/", "/static/main.js", "/api/choices", "/nothing"):
        _, headers, _ = client.ask("GET", path)
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] in ("no-store", "no-cache")
        for kind in ("opener", "resource"):
            assert headers[f"cross-origin-{kind}-policy"] == "same-origin"
        assert "server" not in headers


def test_page_loads_nothing_from_elsewhere_and_has_nothing_inline() -> None:
    static = Path(studio_folder.__file__).parent / "static"
    page = (static / "index.html").read_text(encoding="utf-8")
    assert "style=" not in page
    assert "onclick" not in page
    assert page.count("<script") == page.count('<script type="module" src="/static/')
    for path in static.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text
        assert "https://" not in text


# ------------------------------------------------------------------------------------------------
# What may be asked for
# ------------------------------------------------------------------------------------------------


def test_an_upload_that_is_no_picture_is_refused(client: Client, tmp_path: Path) -> None:
    for data, found in ((b"", "an empty file"), (b"x" * 100, "no picture"), (b"\x89PNG\r\n\x1a\n", "")):
        error = client.json("POST", "/api/pictures?name=../../etc/x.png", data, status=422)
        assert error["field"] == "picture"
        assert error["message"].startswith("picture: x.png: found ")
        assert found in error["found"] or found == "no picture"
    assert not list((tmp_path / "studio" / "uploads").iterdir())


def test_limits_of_uploads(client: Client, monkeypatch: pytest.MonkeyPatch, pictures: Any) -> None:
    monkeypatch.setattr("npstyle.studio.app.MAX_UPLOAD", 1000)
    error = client.json("POST", "/api/pictures?name=x", b"x" * 5000, status=422)
    assert error["found"] == "too many bytes"
    monkeypatch.setattr("npstyle.studio.app.MAX_UPLOAD", 10**6)
    monkeypatch.setattr("npstyle.studio.folder.MAX_PIXELS", 1000)
    error = client.json("POST", "/api/pictures?name=x", pictures[0].read_bytes(), status=422)
    assert error["found"] == "40 x 48 pixels"
    assert client.ask("POST", "/api/jobs", b" " * 70000)[0] == 422


def test_only_the_uploads_that_were_used_last_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studio_folder, "MAX_UPLOADS", 2)
    folder = Folder(tmp_path)
    uploads = []
    for seed in range(3):
        data = images.png(structured_picture(16, 16, seed))
        uploads.append(folder.add_upload("x.png", data))
        os.utime(folder.uploads / f"{uploads[-1].id}.json", (seed, seed))
    folder.upload(uploads[1].id, "content")  # in use
    folder.add_upload("x.png", images.png(structured_picture(16, 16, 9)))
    assert len(list(folder.uploads.iterdir())) == 6
    for gone in (0, 2):
        error_line(lambda n=gone: folder.upload(uploads[n].id, "content"), "content")  # type: ignore[misc]
    assert folder.upload(uploads[1].id, "content") == uploads[1]
    folder.close()


WRONG: dict[str, tuple[Any, ...]] = {
    "size": (8, 10**6, "512", 1.5, True, [], {}),
    "seed": (-1, 2**40, "x"),
    "strength": (0, -1, 1e9, "1", True),
    "iterations": (0, 10**9),
    "preset": ("none", 3),
    "color": ("red", ["luma"]),
    "weights": ("/etc/passwd", "imagenet", "../x.h5"),
    "init": ("/etc/passwd", 0),
    "enlarge": ("yes",),
    "output": ("/tmp/x.png",),
    "checkpoint": ("/tmp/x",),
    "content_masks": ([],),
    "masks": ({},),
}


def test_options_that_can_not_be_used_are_named_before_anything_is_painted(
    client: Client, pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    values = order(client, pictures)
    for name, wrong in WRONG.items():
        for value in wrong:
            body = {**values, "options": {name: value}}
            for path in ("/api/estimate", "/api/jobs"):
                error = client.json("POST", path, body, status=422)
                known = name not in ("output", "checkpoint", "content_masks", "masks")
                assert error["field"] == (name if known else "options"), (name, value)
                assert {"found", "expected", "cure", "message"} <= error.keys()
    bodies: list[tuple[Any, str]] = [
        ({**values, "content": "0" * 32}, "content"),
        ({**values, "content": "../../../etc/passwd"}, "content"),
        ({**values, "styles": []}, "styles"),
        ({**values, "styles": [values["styles"][0]] * 9}, "styles"),
        ({**values, "styles": [None]}, "styles"),
        ({**values, "options": {"size": 16, "preset": "paper"}}, "content"),
        ([], "options"),
        (b"{", "options"),
        (b"[" * 60000, "options"),
    ]
    for body, field in bodies:
        assert client.json("POST", "/api/jobs", body, status=422)["field"] == field
    assert not list((tmp_path / "studio" / "pictures").iterdir())


def test_estimate_says_size_memory_and_time(client: Client, pictures: tuple[Path, Path]) -> None:
    small = client.json("POST", "/api/estimate", order(client, pictures))
    assert (small["width"], small["height"], small["levels"], small["iterations"]) == (27, 32, 2, 12)
    large = client.json("POST", "/api/estimate", order(client, pictures, size=48))
    assert small["memory"] < large["memory"] < large["free"]
    assert 0 < small["seconds"] < large["seconds"]
    assert not small["measured"]
    assert not small["tried"]


def test_a_trial_says_how_fast_the_machine_is(
    monkeypatch: pytest.MonkeyPatch, pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    rate = estimates.measure_rate(threads=1)
    assert 1e-8 < rate < 1e-2
    monkeypatch.setattr("npstyle.studio.queue.measure_rate", lambda threads: 1.0)  # a second a pixel
    with serving(tmp_path / "studio", trial=True) as client:
        body = order(client, pictures)
        for _ in range(100):
            found = client.json("POST", "/api/estimate", body)
            if found["tried"]:
                break
            time.sleep(0.05)
        assert (found["tried"], found["measured"]) == (True, False)
        assert found["seconds"] > 6 * 32 * 27


def test_too_little_memory_is_said_with_a_size_that_fits(
    client: Client, pictures: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("npstyle.studio.estimates.available_memory", lambda threads: 2e8)
    values = order(client, pictures, size=2000, enlarge=True)
    error = client.json("POST", "/api/estimate", values, status=422)
    assert error["field"] == "size"
    fitting = int(error["cure"].removeprefix("try "))
    values["options"]["size"] = fitting
    assert client.json("POST", "/api/estimate", values)["memory"] <= 2e8
    values["options"]["size"] = 2 * fitting
    client.json("POST", "/api/estimate", values, status=422)


def test_command_has_what_was_chosen_only() -> None:
    chosen = Order.read({"size": 256, "strength": 2, "color": "luma", "seed": None})
    command = chosen.command(Inputs("my photo.jpg", ("a.jpg", "-b.jpg")))
    assert command == "npstyle 'my photo.jpg' a.jpg ./-b.jpg --size 256 --color luma --style-weight 48"
    assert Order.read({}).command(Inputs("a.jpg", ("b.jpg",))) == "npstyle a.jpg b.jpg"


PARTS = ["/", "..", "%2e%2e", "api", "jobs", "pictures", "static", "\\", "%00", "etc/passwd", "?"]
PARTS += ["inputs", "start", "next", "go-on", "first", "20260101-000000-00000000"]
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "get", "\x00", ""]
HEADERS = ["Content-Length: 5", "Content-Length: -1", "Content-Length: x", "Transfer-Encoding: chunked"]
HEADERS += ["X: " + "y" * 70000, "Cookie: =;=;\x01", "Expect: 100-continue", "Upgrade: websocket", ": x"]
NAMES = ["../../x.png", "%2e%2e%2fx", "a%00b.png", "/etc/passwd", "C:%5Cx.png", "%ff%fe", "", "x" * 5000]
IDS = ["0" * 32, "20260101-000000-00000000", "..", "%2e%2e%2f%2e%2e", "lock", "job.json", "x" * 3000, "%00"]


ACTIONS = ["stop", "pause", "continue", "inputs", "next", "go-on", "up", "x"]


def send_malformed(client: Client, draw: random.Random) -> bytes:
    """What is no request, on a connection that is closed at any time; the answer, if it is read."""
    path = "/".join(draw.choices(PARTS, k=draw.randrange(1, 7)))
    lines = [f"{draw.choice(METHODS)} /{path} HTTP/{draw.choice(['1.1', '1.0', '9', 'x'])}"]
    lines += [f"Host: {client.host}:{client.port}"] * draw.choice([0, 1, 1, 1, 2])
    lines += [f"{name}: {value}" for name, value in client.headers.items() if draw.random() < 0.8]
    lines += draw.choices(HEADERS, k=draw.randrange(3))
    data = "\r\n".join([*lines, "", ""]).encode("latin-1") + draw.randbytes(draw.randrange(40))
    with socket.create_connection((client.host, client.port), timeout=20) as connection:
        try:
            connection.sendall(data if draw.random() < 0.9 else draw.randbytes(100))
            if draw.random() < 0.3:
                connection.shutdown(socket.SHUT_WR)
                return connection.recv(1000)
        except OSError:
            pass  # the server has closed it already
    return b""


def send_wrong_upload(client: Client, draw: random.Random, whole: bytes) -> int:
    """A file that is no picture, or only a part of one, under any name."""
    cut = whole[: draw.randrange(len(whole) // 2)]
    data = draw.choice([cut, whole[:20] + draw.randbytes(200), draw.randbytes(draw.randrange(300)), b""])
    return client.ask("POST", f"/api/pictures?name={draw.choice(NAMES)}", data)[0]


def wrong_value(draw: random.Random, depth: int = 0) -> Any:
    """Any JSON, with names in it that mean something."""
    plain: list[Any] = [None, True, -1, 1e308, 2**70, "", "x" * 1000, "/etc/passwd", "../job.json", *IDS]
    kind = draw.randrange(3 if depth < 3 else 1)
    if kind == 0:
        return draw.choice(plain)
    inside = [wrong_value(draw, depth + 1) for _ in range(draw.randrange(5))]
    names = ["content", "styles", "options", "size", "weights", "seed", "output", "", "__proto__"]
    return inside if kind == 1 else {draw.choice(names): value for value in inside}


def send_wrong_body(client: Client, draw: random.Random) -> int:
    """A body that is no order, or one for a painting that there is not."""
    method, path = draw.choice(
        [
            ("POST", "/api/jobs"),
            ("POST", "/api/estimate"),
            ("POST", f"/api/jobs/{draw.choice(IDS)}/{draw.choice(ACTIONS)}"),
            ("DELETE", f"/api/jobs/{draw.choice(IDS)}"),
            ("GET", f"/api/jobs/{draw.choice(IDS)}/{draw.choice(['picture', 'job.json', '..%2f..%2flock'])}"),
            ("GET", f"/api/pictures/{draw.choice(IDS)}"),
        ]
    )
    text = json.dumps(wrong_value(draw)).encode()
    data = draw.choice([text, text[: len(text) // 2], draw.randbytes(50), b"\xff" + text])
    return client.ask(method, path, data)[0]


def test_malformed_requests_leave_the_server_alive_and_other_files_alone(
    client: Client, tmp_path: Path, pictures: tuple[Path, Path]
) -> None:
    """1,000 of them, most with the right token: methods, paths, headers, bodies and uploads."""
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    draw, whole = random.Random(18), pictures[0].read_bytes()
    for _ in range(400):
        answer = send_malformed(client, draw)
        assert not answer.startswith(b"HTTP/1.1 5"), answer
    statuses = [send_wrong_upload(client, draw, whole) for _ in range(300)]
    assert set(statuses) == {422}
    statuses = [send_wrong_body(client, draw) for _ in range(300)]
    assert set(statuses) <= {404, 405, 422}
    assert client.json("GET", "/api/choices")["presets"]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


# ------------------------------------------------------------------------------------------------
# The folder
# ------------------------------------------------------------------------------------------------


def test_one_server_at_a_time_has_a_folder(client: Client, tmp_path: Path) -> None:
    line = error_line(lambda: Server(tmp_path / "studio"), f"--folder: {tmp_path / 'studio'}")
    assert line.startswith("found another studio at work in it")


def test_a_port_that_is_taken_is_one_line(client: Client, tmp_path: Path) -> None:
    line = error_line(lambda: Server(tmp_path / "other", port=client.port), "--port")
    assert line.startswith(f"found {client.port} at 127.0.0.1")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--port", "99999"], "--port: found 99999; expected a port up to 65535; leave it out"),
        (["--host", "192.0.2.1"], "--host: found '192.0.2.1' ("),
        (["--weights", "nowhere.h5"], "weights: nowhere.h5: found no such file; expected a weights file, "),
    ],
)
def test_a_studio_that_can_not_be_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    assert main(["studio", "--no-browser", "--folder", str(tmp_path / "studio"), *words]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"npstyle: {line}")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "clean"),
    [("../../a.png", "a.png"), ("C:\\x\\b.png", "b.png"), ("\x1b[2J", "\\x1b[2J"), ("/", "picture")],
)
def test_names_of_files_lose_their_folders(name: str, clean: str) -> None:
    assert clean_name(name) == clean


def test_damaged_jobs_do_not_stop_the_server(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for number, text in enumerate(
        (
            b"",
            b"{",
            b"[]",
            b'{"content": 1}',
            b'{"content": "a", "styles": [], "options": {}}',
            b'{"content": "a", "styles": ["b"], "options": {}, "more": {"../../x": "c"}}',
            b'{"content": "a", "styles": ["b"], "options": {}, "more": {"start": 1}}',
            b'{"content": "a", "styles": ["b"], "options": {}, "then": {"output": "/tmp/x"}}',
        )
    ):
        path = folder.pictures / f"20260101-000000-0000000{number}"
        path.mkdir()
        (path / "job.json").write_bytes(text)
    (folder.pictures / "somebody's own").mkdir()
    assert folder.jobs() == {}
    folder.close()


def test_removing_a_painting_leaves_what_is_not_npstyles(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    job = Job("20260101-000000-00000000", "a", ("b",), {})
    (folder.pictures / job.id).mkdir()
    folder.save(job)
    own = folder.pictures / job.id / "notes.txt"
    own.write_text("mine")
    folder.remove(job)
    assert list((folder.pictures / job.id).iterdir()) == [own]
    folder.close()


# ------------------------------------------------------------------------------------------------
# Painting
# ------------------------------------------------------------------------------------------------


def painted_by_command(pictures: tuple[Path, Path], folder: Path) -> bytes:
    output = folder / "by-command.png"
    words = [*map(str, pictures), "-o", str(output), *COMMAND.split(), "--no-checkpoint", "--quiet"]
    assert main(words) == 0
    return output.read_bytes()


def test_picture_is_the_command_lines(client: Client, pictures: tuple[Path, Path], tmp_path: Path) -> None:
    """From the upload to the downloads, with what the page is told meanwhile; and again from its folder."""
    events = client.events()
    assert next(events) == ("jobs", [])
    id = client.json("POST", "/api/jobs", order(client, pictures), status=201)["id"]
    job, seen = None, []
    for name, value in events:
        seen.append((name, value))
        if name == "jobs" and value[0]["status"] in (DONE, FAILED):
            job = value[0]
            break
    assert job is not None
    assert job["status"] == DONE, job
    progress = [value for name, value in seen if name == "progress"]
    assert {"iteration", "iterations", "level", "levels", "loss", "terms", "seconds_left"} <= progress[
        -1
    ].keys()
    assert progress[-1]["iteration"] == progress[-1]["iterations"] == 12
    losses = [json.loads(line) for line in client.ask("GET", f"/api/jobs/{id}/losses")[2].splitlines()]
    assert [point["iteration"] for point in losses] == list(range(1, 13))
    assert losses[-1]["loss"] == pytest.approx(sum(losses[-1]["terms"].values()))

    expected = pixels(painted_by_command(pictures, tmp_path))
    _, headers, png = client.ask("GET", f"/api/jobs/{id}/download?format=png")
    assert pixels(png) == expected
    assert headers["content-disposition"] == 'attachment; filename="photo-painting.png"'
    text = images.read_text(images.FileContents("x", png))
    assert (text["content"], text["style"], text["style-weight"]) == ("photo.png", "painting.png", "120")
    tiff = images.FileContents("x.tif", client.ask("GET", f"/api/jobs/{id}/download?format=tiff")[2])
    assert images.describe(tiff).mode == "RGB, 16 bits"
    jpeg = client.ask("GET", f"/api/jobs/{id}/download?format=jpg")[2]
    assert images.describe(images.FileContents("x.jpg", jpeg)).format == "JPEG"
    assert client.ask("GET", f"/api/jobs/{id}/download?format=exe")[0] == 404
    assert images.read(images.FileContents("x", client.ask("GET", f"/api/jobs/{id}/before")[2])).shape == (
        32,
        27,
        3,
    )

    # What the copied command paints, and again with the same pictures.
    assert job["command"].split()[3:] == COMMAND.replace(" --threads 1", "").split() or job["command"]
    again = client.json("POST", f"/api/jobs/{id}/inputs")
    assert [each["name"] for each in (again["content"], *again["styles"])] == ["photo.png", "painting.png"]
    assert client.json("POST", "/api/estimate", order(client, pictures))["measured"]
    shown = command_line(text)
    job_file = tmp_path / "studio" / "pictures" / id / "job.json"
    job_file.unlink()  # the settings are in the picture, too
    found = Folder.__new__(Folder)
    found.pictures = tmp_path / "studio" / "pictures"
    assert found.jobs()[id].command == shown
    client.json("DELETE", f"/api/jobs/{id}", status=204)
    assert not (tmp_path / "studio" / "pictures" / id).exists()


def test_stop_keeps_and_pause_continues_to_the_same_picture(
    client: Client, pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    body = order(client, pictures)
    long = {**body, "options": {**body["options"], "iterations": 10000}}
    stopped = client.json("POST", "/api/jobs", long, status=201)["id"]
    waiting = client.json("POST", "/api/jobs", body, status=201)["id"]
    events = client.events()
    next(value for name, value in events if name == "progress")
    client.json("POST", f"/api/jobs/{waiting}/stop", status=422)
    client.json("POST", f"/api/jobs/{stopped}/pause", status=204)
    assert client.wait_for(stopped, PAUSED)
    assert client.wait_for(waiting, DONE)  # in its place
    first = client.ask("GET", f"/api/jobs/{stopped}/losses")[2].count(b"\n")
    client.json("POST", f"/api/jobs/{stopped}/continue", status=204)
    for name, value in client.events():
        if name == "progress" and value["id"] == stopped:
            assert value["iteration"] > first
            break
    removed = client.json("POST", "/api/jobs", long, status=201)["id"]
    client.json("POST", f"/api/jobs/{stopped}/stop", status=204)
    facts = client.wait_for(stopped, DONE)["facts"]
    assert facts["stopped"]
    assert first < facts["iterations"] < 20000
    assert client.ask("GET", f"/api/jobs/{stopped}/picture")[0] == 200
    client.wait_for(removed, PAINTING)
    client.json("DELETE", f"/api/jobs/{removed}", status=204)
    assert {path.name for path in (tmp_path / "studio" / "pictures").iterdir()} == {stopped, waiting}


def mask(path: Path, shape: tuple[int, int], rows: slice) -> Path:
    """A mask that is white in some rows, of one bit a pixel as the page sends it."""
    pixels = np.zeros(shape, bool)
    pixels[rows] = True
    Image.fromarray(pixels).save(path)
    return path


def with_masks(client: Client, pictures: tuple[Path, Path], folder: Path) -> tuple[dict[str, Any], list[str]]:
    """An order with two pairs of regions and one that is kept, and the same as options of the command."""
    rows = {
        "photo-content-mask-1": slice(0, 20),
        "photo-content-mask-2": slice(20, 40),
        "painting-style-mask-1": slice(0, 30),
        "painting-style-mask-2": slice(10, 48),
        "photo-keep-mask": slice(40, 48),
    }
    paths = [mask(folder / f"{name}.png", (48, 40), inside) for name, inside in rows.items()]
    ids = list(map(client.upload, paths))
    options = ["--content-mask"] * 2 + ["--style-mask"] * 2 + ["--keep-mask"]
    words = [word for pair in zip(options, map(str, paths), strict=True) for word in pair]
    masks = {"content": ids[:2], "styles": ids[2:4], "keep": ids[4]}
    return {**order(client, pictures), "masks": masks}, words


def test_masks_are_those_of_the_command(client: Client, pictures: tuple[Path, Path], tmp_path: Path) -> None:
    body, words = with_masks(client, pictures, tmp_path)
    without = client.json("POST", "/api/estimate", {**body, "masks": None})
    assert client.json("POST", "/api/estimate", body)["memory"] > without["memory"]
    id = client.json("POST", "/api/jobs", body, status=201)["id"]
    job = client.wait_for(id, DONE, FAILED)
    assert job["status"] == DONE, job
    _, _, png = client.ask("GET", f"/api/jobs/{id}/picture")
    output = tmp_path / "by-command.png"
    command = [*map(str, pictures), "-o", str(output), *COMMAND.split(), *words]
    assert main([*command, "--no-checkpoint", "--quiet"]) == 0
    assert pixels(png) == pixels(output.read_bytes())
    # The command that is shown names files that can be downloaded under these names.
    text = images.read_text(images.FileContents("x", png))
    names = [Path(word).name for word in words[1::2]]
    assert shlex.split(job["command"])[-10:] == [*zip_flat(words[::2], names)]
    assert command_line(text).endswith(shlex.join(zip_flat(words[::2], names)))
    for file, name in job["more"].items():
        status, headers, data = client.ask("GET", f"/api/jobs/{id}/inputs/{file}")
        assert (status, data) == (200, (tmp_path / name).read_bytes())
        assert headers["content-disposition"] == f'attachment; filename="{name}"'
    for file in ("content", "job.json", "..%2fjob.json", "start", "content-mask-3"):
        assert client.ask("GET", f"/api/jobs/{id}/inputs/{file}")[0] == 404
    # Again with the same: masks are among what the form gets.
    again = client.json("POST", f"/api/jobs/{id}/inputs")
    ids = {
        name: [each["id"] for each in again[f"{kind}_masks"]]
        for name, kind in (("content", "content"), ("styles", "style"))
    }
    assert {**ids, "keep": again["keep"]["id"]} == body["masks"]
    assert again["start"] is None


def zip_flat(*lists: list[str]) -> list[str]:
    return [word for words in zip(*lists, strict=True) for word in words]


def test_masks_are_there_for_the_next_server(pictures: tuple[Path, Path], tmp_path: Path) -> None:
    with serving(tmp_path / "studio") as client:
        body, words = with_masks(client, pictures, tmp_path)
        body["options"]["iterations"] = 25
        id = client.json("POST", "/api/jobs", body, status=201)["id"]
        first_progress(client, id)
    for upload in (tmp_path / "studio" / "uploads").iterdir():
        upload.unlink()  # the painting has copies
    with serving(tmp_path / "studio") as client:
        job = client.wait_for(id, DONE, FAILED)
        assert job["status"] == DONE, job
        png = client.ask("GET", f"/api/jobs/{id}/picture")[2]
        again = client.json("POST", f"/api/jobs/{id}/inputs")
        assert len(again["content_masks"]) == len(again["style_masks"]) == 2
    output = tmp_path / "by-command.png"
    command = [*map(str, pictures), "-o", str(output), *COMMAND.split(), *words, "--iterations", "25"]
    assert main([*command, "--no-checkpoint", "--quiet"]) == 0
    assert pixels(png) == pixels(output.read_bytes())


def test_masks_that_do_not_fit_are_refused(
    client: Client, pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    body, _ = with_masks(client, pictures, tmp_path)
    good = body["masks"]
    small = client.upload(mask(tmp_path / "small.png", (24, 20), slice(0, 10)))
    black = client.upload(mask(tmp_path / "black.png", (48, 40), slice(0, 0)))
    two = {**body, "styles": body["styles"] * 2}
    wrong: list[tuple[dict[str, Any], Any, str | None]] = [
        (body, {**good, "keep": small}, "a mask of 20 x 24 pixels"),
        (body, {**good, "content": good["content"][:1]}, "1 regions of the photograph and 2 of paintings"),
        (two, {"content": good["content"][:1], "styles": good["styles"][:1]}, "1 regions for 2 paintings"),
        (body, {**good, "keep": "/etc/passwd"}, "no picture"),
        (body, {**good, "content": "x"}, "no list"),
        (body, {**good, "content": good["content"] * 5}, "10 pictures"),
        (body, [], None),
        (body, "x", "no object"),
    ]
    for order, masks, found in wrong:
        status = 200 if found is None else 422
        error = client.json("POST", "/api/estimate", {**order, "masks": masks}, status=status)
        assert found is None or (error["field"], error["found"]) == ("masks", found)
    error = client.json("POST", "/api/jobs", {**body, "masks": {**good, "keep": black}}, status=422)
    assert (error["field"], error["found"]) == ("masks", "nothing painted in keep-mask")
    error = client.json("POST", "/api/estimate", {**body, "start": "../x"}, status=422)
    assert (error["field"], error["found"]) == ("start", "no picture")
    assert not list((tmp_path / "studio" / "pictures").iterdir())


def first_progress(client: Client, id: str, level: int = 1) -> dict[str, Any]:
    return next(
        value
        for name, value in client.events()
        if name == "progress" and value["id"] == id and value["level"] == level
    )


def test_next_level_is_recorded_so_that_the_command_paints_the_same(
    client: Client, pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    body = order(client, pictures, iterations=10000)
    id = client.json("POST", "/api/jobs", body, status=201)["id"]
    first_progress(client, id)
    client.json("POST", f"/api/jobs/{id}/next", {"level": 7}, status=204)  # not this one: nothing
    client.json("POST", f"/api/jobs/{id}/next", {"level": 1}, status=204)
    first_progress(client, id, 2)
    client.json("POST", f"/api/jobs/{id}/next", {"level": 2}, status=204)  # the last one goes on
    wrong: Any
    for wrong in ({}, {"level": 0}, {"level": "1"}, {"level": True}, [], b"{"):
        client.json("POST", f"/api/jobs/{id}/next", wrong, status=422)
    client.json("POST", f"/api/jobs/{id}/stop", status=204)
    job = client.wait_for(id, DONE, FAILED)
    levels = job["facts"]["levels"]
    assert [level["whole"] for level in levels] == [False, False]
    assert "the callback ended level 1 after" in job["facts"]["message"]
    done = ",".join(str(level["iterations"]) for level in levels)
    assert f"--iterations {done} " in f"{job['command']} "
    png = client.ask("GET", f"/api/jobs/{id}/picture")[2]
    text = images.read_text(images.FileContents("x", png))
    assert text["iterations"] == done
    assert "the callback ended level 1" in text["note"]
    output = tmp_path / "by-command.png"
    words = shlex.split(job["command"])[3:]
    assert main([*map(str, pictures), "-o", str(output), *words, "--no-checkpoint", "--quiet"]) == 0
    assert pixels(png) == pixels(output.read_bytes())
    client.json("POST", f"/api/jobs/{id}/next", {"level": 2}, status=422)
    assert not client.json("POST", "/api/estimate", order(client, pictures))["measured"]


def test_another_strength_goes_on_from_the_present_picture(
    client: Client, pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    body = order(client, pictures)
    long = {**body, "options": {**body["options"], "iterations": 10000, "init": "noise"}}
    id = client.json("POST", "/api/jobs", long, status=201)["id"]
    waiting = client.json("POST", "/api/jobs", body, status=201)["id"]
    first_progress(client, id)
    wrong: Any
    for wrong in ({}, {"strength": 0}, {"strength": "1"}, {"strength": None}, []):
        client.json("POST", f"/api/jobs/{id}/go-on", wrong, status=422)
    client.json("POST", f"/api/jobs/{waiting}/go-on", {"strength": 5}, status=422)
    client.json("POST", f"/api/jobs/{id}/go-on", {"strength": 5}, status=204)
    jobs = next(
        value for name, value in client.events() if name == "jobs" and any(job["origin"] for job in value)
    )
    second = next(job for job in jobs if job["origin"] == id)
    assert client.wait_for(id, DONE)["facts"]["stopped"]
    assert second["place"] < min(job["place"] for job in jobs if job["id"] == waiting)  # it is next
    assert second["options"]["min_size"] == 23  # from the size that the first had come to
    assert second["options"]["strength"] == 5
    assert shlex.split(second["command"])[-2:] == ["--init", "photo-painting.tiff"]
    first_progress(client, second["id"])
    client.json("POST", f"/api/jobs/{second['id']}/stop", status=204)
    client.wait_for(second["id"], DONE)

    # Of one that is done, at once, to the picture of the command that is shown.
    client.wait_for(waiting, DONE)
    client.json("POST", f"/api/jobs/{waiting}/go-on", {"strength": 0.5}, status=204)
    jobs = next(
        value
        for name, value in client.events()
        if name == "jobs" and any(job["origin"] == waiting and job["status"] == DONE for job in value)
    )
    third = next(job for job in jobs if job["origin"] == waiting)
    assert third["options"]["min_size"] == 0
    _, _, start = client.ask("GET", f"/api/jobs/{third['id']}/inputs/start")
    (tmp_path / "photo-painting.tiff").write_bytes(start)
    words = shlex.split(third["command"].replace("--init ", f"--init {tmp_path}/"))
    output = tmp_path / "by-command.png"
    assert main([*map(str, pictures), "-o", str(output), *words[3:], "--no-checkpoint", "--quiet"]) == 0
    assert pixels(client.ask("GET", f"/api/jobs/{third['id']}/picture")[2]) == pixels(output.read_bytes())
    again = client.json("POST", f"/api/jobs/{third['id']}/inputs")
    assert again["start"]["name"] == "photo-painting.tiff"


def test_next_server_begins_what_was_to_go_on(pictures: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "studio"
    with serving(folder) as client:
        id = client.json("POST", "/api/jobs", order(client, pictures, iterations=1), status=201)["id"]
        client.wait_for(id, DONE)
    path = folder / "pictures" / id / "job.json"
    job = json.loads(path.read_bytes())
    path.write_text(json.dumps({**job, "then": {**job["options"], "strength": 5}}))
    for _ in range(2):  # the second one begins nothing
        with serving(folder) as client:
            for name, jobs in client.events():
                if name == "jobs" and all(each["status"] == DONE for each in jobs) and len(jobs) == 2:
                    break
    first, second = jobs
    assert (first["id"], first["going_on"]) == (id, False)
    assert (second["origin"], second["options"]["strength"]) == (id, 5)


def test_order_of_the_queue(client: Client, pictures: tuple[Path, Path], tmp_path: Path) -> None:
    body = order(client, pictures)
    long = {**body, "options": {**body["options"], "iterations": 10000}}
    painted, *ids = (
        client.json("POST", "/api/jobs", each, status=201)["id"] for each in (long, body, body, body)
    )
    client.wait_for(painted, PAINTING)
    a, b, c = sorted(ids)

    def waiting() -> list[str]:
        _, jobs = next(client.events())
        queued = [job for job in jobs if job["status"] == "queued"]
        return [job["id"] for job in sorted(queued, key=lambda job: (job["place"], job["id"]))]

    assert waiting() == [a, b, c]
    for id, where, expected in (
        (c, "up", [a, c, b]),
        (a, "down", [c, a, b]),
        (b, "first", [b, c, a]),
        (b, "up", [b, c, a]),
        (a, "down", [b, c, a]),
    ):
        client.json("POST", f"/api/jobs/{id}/{where}", status=204)
        assert waiting() == expected
    client.json("POST", f"/api/jobs/{painted}/first", status=422)
    assert client.ask("POST", f"/api/jobs/{a}/last")[0] == 404
    order_of = {
        id: json.loads((tmp_path / "studio" / "pictures" / id / "job.json").read_bytes())["place"]
        for id in ids
    }
    assert sorted(ids, key=lambda id: order_of[id]) == [b, c, a]  # on the disk, for the next server
    client.json("POST", f"/api/jobs/{painted}/stop", status=204)
    client.wait_for(b, PAINTING)
    client.wait_for(a, DONE)


def test_a_queue_has_a_limit(client: Client, pictures: tuple[Path, Path], monkeypatch: Any) -> None:
    monkeypatch.setattr("npstyle.studio.queue.MAX_QUEUE", 0)
    error = client.json("POST", "/api/jobs", order(client, pictures), status=422)
    assert error["field"] == "queue"


@contextmanager
def studio_process(folder: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    """`npstyle studio` as a process."""
    words = ["studio", "--no-browser", "--folder", str(folder), "--threads", "1", "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", "npstyle", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        yield process, Client(process.stdout.readline().strip())
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


KILLS = int(os.environ.get("NPSTYLE_TEST_KILLS", "1"))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs signals")
def test_server_that_is_killed_continues_to_the_same_picture(
    pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    """NPSTYLE_TEST_KILLS=50 kills it so often, every other time with the process that paints."""
    folder, draw = tmp_path / "studio", random.Random(18)
    iterations = 20 if KILLS == 1 else 40 * KILLS
    id = ""
    for kill in range(KILLS):
        with studio_process(folder) as (process, client):
            if not id:
                body = order(client, pictures, iterations=iterations)
                id = client.json("POST", "/api/jobs", body, status=201)["id"]
            next(value for name, value in client.events() if name == "progress")  # it is being painted
            time.sleep(draw.uniform(0, 0.3) if KILLS > 1 else 0)
            if kill % 2:
                os.killpg(process.pid, signal.SIGKILL)  # its group: with the process that paints
            process.kill()
    with studio_process(folder) as (process, client):
        job = client.wait_for(id, DONE, FAILED)
        assert job["status"] == DONE, job
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    output = tmp_path / "by-command.png"
    command = COMMAND.replace("--iterations 6", f"--iterations {iterations}").split()
    assert main([*map(str, pictures), "-o", str(output), *command, "--no-checkpoint", "--quiet"]) == 0
    assert pixels((folder / "pictures" / id / PICTURE).read_bytes()) == pixels(output.read_bytes())
    lines = (folder / "pictures" / id / "losses.jsonl").read_text().splitlines()
    done = [json.loads(line)["iteration"] for line in lines if line.endswith("}")]
    painted = job["facts"]["iterations"]  # all, or up to where no step lowers the loss
    assert sorted(set(done)) == list(range(1, painted + 1))
    if KILLS == 1:
        assert len(done) == painted == 2 * iterations  # none was done again
    print(f"{KILLS} kills, {len(done) - painted} of {painted} iterations done again")


def test_a_worker_that_is_killed_is_said_and_can_be_continued(
    client: Client, pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("npstyle.studio.queue.sys.executable", "/bin/false")
        id = client.json("POST", "/api/jobs", order(client, pictures, iterations=1), status=201)["id"]
        job = client.wait_for(id, FAILED)
    assert "has ended (status 1)" in job["error"]
    client.json("POST", f"/api/jobs/{id}/continue", status=204)
    assert client.wait_for(id, DONE)["error"] == ""


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "starlette", None)
    assert main(["studio"]) == 1
    assert capsys.readouterr().err.startswith("npstyle: npstyle studio: found no starlette; expected")


def test_other_machines_are_mentioned_aloud(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(Server, "run", lambda self: (self.folder.close(), self.socket.close()))
    assert main(["studio", "--no-browser", "--folder", str(tmp_path), "--host", "0.0.0.0"]) == 0
    output = capsys.readouterr()
    assert "other machines can reach this page" in output.err
    assert output.out.startswith("http://127.0.0.1:")
    assert main(["studio", "--no-browser", "--folder", str(tmp_path)]) == 0
    assert "--host" not in capsys.readouterr().err


def test_host_of_all_addresses_takes_numbers_but_no_names() -> None:
    from npstyle.studio.guard import Guard

    guard = Guard(None, "token", ("*", "here"), 80)  # type: ignore[arg-type]
    for host, own in (
        ("192.168.0.7:80", True),
        ("[fe80::1]:80", True),
        ("here:80", True),
        ("example.org:80", False),
        ("192.168.0.7:81", False),
        ("192.168.0.7", False),
    ):
        assert guard._is_own(host) == own, host


def test_rounding_and_types_of_options() -> None:
    assert Order.read({"size": 64.0}).options["size"] == 64
    with pytest.raises(UserError, match="strength"):
        Order.read({"strength": float("nan")})
    assert np.isclose(Order.read({"strength": 0.5}).settings(False).style_weight, 12)
