"""`--report`, `--watch` and `--judge`: what shows a run of the command line beside the terminal.

How a report and the page look in a browser is tested in `test_studio_browser.py`.
"""

from __future__ import annotations

import base64
import json
import signal
import sys
import threading
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers import SHALLOW, refusal, structured_picture
from npstyle import images
from npstyle.cli.main import main
from npstyle.cli.progress import ProgressBar
from npstyle.run import Progress
from npstyle.studio.report import bundled, thinned
from npstyle.studio.static_files import read_static
from test_studio import Client

Patch = pytest.MonkeyPatch
Captured = pytest.CaptureFixture[str]
COMMAND = ["photo.png", "painting.png", *SHALLOW, "--iterations", "3", "--quiet", "--no-checkpoint"]
LEVELS = ["--min-size", "32", "-o", "out.png"]  # two of them


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: Patch) -> Path:
    """The current folder, with a photograph, a painting and a page."""
    for seed, name in enumerate(("photo.png", "painting.png")):
        Image.fromarray(structured_picture(40, 48, seed)).save(tmp_path / name)
    (tmp_path / "precious.html").write_text("<p>precious</p>")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Report(HTMLParser):
    """What a report has in it."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.loaded: list[str] = []  # whatever an attribute or a style could load
        self.pictures: dict[str, Image.Image] = {}
        self.values: dict[str, str] = {}  # of fields and lists
        self.tags: list[str] = []
        self._at = self._term = ""
        self.text = Path(path).read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self._at = values.get("id") or tag
        self.loaded += [str(value) for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag == "img":
            kind, _, data = str(values["src"]).partition(",")
            assert kind == "data:image/jpeg;base64"
            file = images.FileContents("x.jpg", base64.b64decode(data))
            self.pictures[self._at] = Image.fromarray(images.read(file))
        if tag == "input" and "value" in values:
            self.values[self._at] = str(values["value"])

    def handle_data(self, data: str) -> None:
        if self._at == "dt" and data.strip():
            self._term = data
        elif data.strip():
            key = self._term if self._at == "dd" else self._at
            self.values[key] = self.values.get(key, "") + data.strip()

    @property
    def points(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.values["points"])
        return found


# ------------------------------------------------------------------------------------------------
# The report
# ------------------------------------------------------------------------------------------------


def test_report_has_the_picture_its_settings_and_curves_and_loads_nothing() -> None:
    assert main([*COMMAND, *LEVELS, "--report", "run.html", "--log", "run.jsonl"]) == 0
    report = Report("run.html")
    assert all(address.startswith("data:") for address in report.loaded)
    assert "http://" not in report.text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in report.text
    assert "default-src 'none'; img-src data:;" in report.text
    for name, path in (("after", "out.png"), ("before", "photo.png")):
        shown = np.asarray(report.pictures[name], np.float64)
        assert abs(shown - images.read(path)).mean() < 4, name
    entries = [json.loads(line) for line in Path("run.jsonl").read_text().splitlines()]
    iterations = [entry for entry in entries if entry["event"] == "iteration"]
    assert [point["iteration"] for point in report.points] == [1, 2, 3, 4, 5, 6]
    assert [point["level"] for point in report.points] == [1, 1, 1, 2, 2, 2]
    for point, entry in zip(report.points, iterations, strict=True):
        assert point["loss"] == pytest.approx(entry["loss"], rel=1e-5)
        assert set(point["terms"]) == {"content", "style", "total_variation"}
        assert sum(point["terms"].values()) == pytest.approx(point["loss"], rel=1e-4)
    command = images.metadata.command_line(images.read_text("out.png"))
    assert report.values["command"] == command
    assert "--style-layers conv1_1" in command
    assert report.values["style-layers"] == "conv1_1"
    assert report.values["style-as-content"] == "no"
    assert report.values["file"] == "out.png"
    assert "6, with" in report.values["iterations"]
    assert report.values["time"].endswith(" s")
    assert "MB" in report.values["memory"]
    assert "E" not in report.values


def test_pictures_in_a_report_are_reduced(monkeypatch: Patch) -> None:
    monkeypatch.setattr("npstyle.studio.report.PREVIEW_SIDE", 24)
    monkeypatch.setattr("npstyle.studio.follower.PREVIEW_SIDE", 24)
    assert main([*COMMAND, *LEVELS, "--report", "run.html"]) == 0
    report = Report("run.html")
    assert [report.pictures[name].size for name in ("after", "before")] == [(24, 20), (24, 20)]
    assert "48 × 40 pixels" in report.values["state"]
    assert "Shown here as a JPEG of 24 × 20 pixels." in report.values["state"]


def test_names_are_text_in_a_report() -> None:
    name = "<img src=x onerror=alert(1)>&\"'<!-- script -->.png"
    Path("photo.png").rename(name)
    assert main([name, *COMMAND[1:], "-o", "out.png", "--report", "run.html"]) == 0
    report = Report("run.html")
    assert report.tags.count("img") == 2
    assert name in report.values["title"]
    assert report.values["title"].endswith("painting.png")


@pytest.mark.parametrize("log", [False, True])
def test_report_of_a_continued_run_has_its_whole_curve(log: bool, monkeypatch: Patch) -> None:
    words = [*COMMAND[:-1], *LEVELS, "--checkpoint", "kept.npz", "--report", "run.html"]
    words += ["--log", "run.jsonl"] if log else []
    with monkeypatch.context() as patch:
        patch.setattr(ProgressBar, "update", _interrupt_at(4))
        assert main(words) == 130
    assert len(Report("run.html").points) == 4
    assert main([*words, "--resume", "--overwrite"]) == 0
    report = Report("run.html")
    assert [point["iteration"] for point in report.points] == [1, 2, 3, 4, 5, 6]
    assert [bool(point["terms"]) for point in report.points] == [log] * 4 + [True] * 2
    assert ("The parts are known from iteration 5 on" in report.text) != log
    assert report.values["time"].endswith("since it was continued")
    assert main([*COMMAND, *LEVELS, "--overwrite", "--report", "whole.html"]) == 0
    losses = [point["loss"] for point in Report("whole.html").points]
    assert [point["loss"] for point in report.points] == losses


def _interrupt_at(iteration: int) -> Callable[[ProgressBar, Any], None]:
    def update(_: ProgressBar, progress: Any) -> None:
        if progress.iteration == iteration:
            signal.raise_signal(signal.SIGINT)

    return update


def test_report_replaces_nothing_but_a_report_with_overwrite(capsys: Captured) -> None:
    for name, found in (
        ("precious.html", "found a file of that name"),
        ("photo.png", "found .png; expected the name of a page"),
        ("run", "found no extension"),
        ("missing/run.html", "found No such file or directory"),
    ):
        line = refusal(capsys, *COMMAND, "-o", "out.png", "--report", name)
        assert line.startswith(f"npstyle: --report: {name}: {found}")
    line = refusal(capsys, *COMMAND, "-o", "out.png", "--report", "precious.html", "--overwrite")
    assert "found a file that is no report of npstyle" in line
    assert Path("precious.html").read_text() == "<p>precious</p>"
    same = ["--report", "x.html", "--log", "x.html"]
    assert "found a file that this run reads, writes" in refusal(capsys, *COMMAND, "-o", "out.png", *same)
    for more in ([], ["--overwrite"]):
        assert main([*COMMAND, *LEVELS, "--report", "run.html", *more]) == 0
    assert sorted(path.name for path in Path().iterdir()) == [
        "out.png",
        "painting.png",
        "photo.png",
        "precious.html",
        "run.html",
    ]


def test_report_that_can_not_be_written_is_kept_elsewhere(
    monkeypatch: Patch, capsys: Captured, tmp_path: Path
) -> None:
    (tmp_path / "temporary").mkdir()
    (tmp_path / "gone").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    update = ProgressBar.update

    def remove(self: ProgressBar, progress: Any) -> None:
        update(self, progress)
        if progress.iteration == 1:
            (tmp_path / "gone").rmdir()

    monkeypatch.setattr(ProgressBar, "update", remove)
    assert main([*COMMAND, "-o", "out.png", "--report", "gone/run.html"]) == 1
    (refuge,) = (tmp_path / "temporary").iterdir()
    assert f"the report is in {refuge}" in capsys.readouterr().err
    assert Report(str(refuge)).points
    assert Path("out.png").exists()


def test_script_of_a_report_is_the_pages_in_one_piece() -> None:
    script = bundled(read_static(), "report.js")
    assert "function draw(" in script
    assert script.count("function preparePicture(") == 1
    assert not [line for line in script.splitlines() if line.startswith(("import", "export"))]


def test_long_curves_are_thinned_but_keep_their_levels() -> None:
    points = [
        {"iteration": n, "level": 1 + n // 7001, "loss": 1 / n, "terms": {"style/a": 1.0, "style/b": 2.0}}
        for n in range(1, 10001)
    ]
    kept = thinned(points)
    assert len(kept) < 1010
    assert {1, 7001, 10000} <= {point["iteration"] for point in kept}
    assert kept[0]["terms"] == {"style": 3.0}


# ------------------------------------------------------------------------------------------------
# E and C
# ------------------------------------------------------------------------------------------------


def test_judge_refuses_what_it_can_not_judge_before_the_run(capsys: Captured) -> None:
    line = refusal(capsys, *COMMAND, "-o", "out.png", "--judge")
    assert line.startswith("npstyle: weights: found random filters; expected trained ones")
    with pytest.raises(SystemExit):
        main([*COMMAND, "--style", "photo.png", "--judge"])
    assert "--judge: found 2 paintings; expected one" in capsys.readouterr().err


def test_judge_says_what_npstyle_judge_says(eight_bit_weights: Path, capsys: Captured) -> None:
    for seed, name in enumerate(("photo.png", "painting.png")):
        Image.fromarray(structured_picture(64, 72, seed)).save(name)
    weights = ["--weights", str(eight_bit_weights), "--threads", "1", "--quiet"]
    words = ["photo.png", "painting.png", *weights, "--iterations", "1", "--min-size", "0", "-o", "out.png"]
    assert main([*words, "--judge", "--json", "--report", "run.html"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(["judge", "photo.png", "painting.png", "out.png", *weights, "--json"]) == 0
    judgment = json.loads(capsys.readouterr().out)
    assert (found["E"], found["C"]) == (judgment["missing_style"], judgment["lost_content"])
    assert Report("run.html").values["E"].startswith(f"{found['E']:.3f}, style that is missing")


# ------------------------------------------------------------------------------------------------
# The page of a run
# ------------------------------------------------------------------------------------------------


class Looking:
    """A browser that is opened by --watch: a client in a thread, which sees all events."""

    def __init__(self, monkeypatch: Patch, act: Callable[[Client], None] = lambda client: None) -> None:
        self.seen: list[tuple[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.url = ""
        self.error: BaseException | None = None
        self.act = act
        self.thread: threading.Thread | None = None
        self._connected = threading.Event()
        monkeypatch.setattr("npstyle.studio.watch.webbrowser.open", self.open)
        update = ProgressBar.update

        def wait(bar: ProgressBar, progress: Any) -> None:
            self._connected.wait(20)  # a run that takes a moment would be over before anyone looks
            update(bar, progress)

        monkeypatch.setattr(ProgressBar, "update", wait)

    def open(self, url: str) -> bool:
        self.url = url
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        return True

    def look(self) -> None:
        client = Client(self.url)
        try:
            for name, value in client.events():
                self.seen.append((name, value))
                if len(self.seen) == 1:
                    self.act(client)
                    self._connected.set()
                if name == "jobs" and value[0]["status"] != "painting":
                    for file in ("picture", "before", "losses"):
                        status, _, data = client.ask("GET", f"/api/jobs/run/{file}")
                        self.files[file] = data if status == 200 else b""
                    return
        except BaseException as error:
            self.error = error
        finally:
            self._connected.set()

    def join(self) -> None:
        assert self.thread is not None
        self.thread.join(20)
        assert self.error is None, self.error


def test_watched_run_paints_the_same_and_is_seen_to_its_end(monkeypatch: Patch, capsys: Captured) -> None:
    assert main([*COMMAND, *LEVELS, "--log", "alone.jsonl"]) == 0
    expected = Path("out.png").read_bytes()
    looking = Looking(monkeypatch)
    capsys.readouterr()
    words = [*COMMAND, *LEVELS, "--log", "watched.jsonl", "--overwrite", "--watch"]
    assert main(words) == 0
    looking.join()
    assert capsys.readouterr().err == f"watch it at {looking.url}\n"
    assert Path("out.png").read_bytes() == expected
    names = {path.name for path in Path().iterdir()}
    assert names == {"photo.png", "painting.png", "precious.html", "out.png", "alone.jsonl", "watched.jsonl"}
    progress = [value for name, value in looking.seen if name == "progress"]
    assert progress[-1]["iteration"] == progress[-1]["iterations"] == 6
    assert progress[-1]["preview"] > 0  # it was looked at
    job = looking.seen[-1][1][0]
    assert (job["status"], job["content"], job["styles"]) == ("done", "photo.png", ["painting.png"])
    assert job["facts"]["output"] == "out.png"
    assert not job["facts"]["stopped"]
    assert job["command"].startswith("npstyle photo.png painting.png --size 512")
    points = [json.loads(line) for line in looking.files["losses"].splitlines()]
    assert [point["iteration"] for point in points] == [1, 2, 3, 4, 5, 6]
    shown = images.read(images.FileContents("x.jpg", looking.files["picture"])).astype(float)
    assert abs(shown - images.read("out.png")).mean() < 4
    with pytest.raises(OSError, match="refused"):
        Client(looking.url).ask("GET", "/")


def test_watched_run_is_stopped_and_kept_by_the_page(monkeypatch: Patch) -> None:
    def stop(client: Client) -> None:
        client.json("POST", "/api/jobs/run/stop", status=204)

    looking = Looking(monkeypatch, stop)
    assert main([*COMMAND, *LEVELS, "--iterations", "1000", "--log", "run.jsonl", "--watch"]) == 0
    looking.join()
    end = json.loads(Path("run.jsonl").read_text().splitlines()[-1])
    assert end["iterations"] < 1000
    assert looking.seen[-1][1][0]["facts"]["stopped"]
    assert images.read("out.png").shape == (40, 48, 3)


def test_level_of_a_watched_run_is_ended_by_the_page(monkeypatch: Patch) -> None:
    def end_level(client: Client) -> None:
        client.json("POST", "/api/jobs/run/next", {"level": "one"}, status=422)
        client.json("POST", "/api/jobs/run/next", {"level": 1}, status=204)

    looking = Looking(monkeypatch, end_level)
    assert main([*COMMAND, *LEVELS, "--iterations", "1000,3", "--watch"]) == 0
    looking.join()
    facts = looking.seen[-1][1][0]["facts"]
    assert [level["whole"] for level in facts["levels"]] == [False, True]
    assert facts["levels"][0]["iterations"] < 1000
    assert not facts["stopped"]


def test_page_of_a_run_is_guarded_and_can_do_nothing_else(monkeypatch: Patch) -> None:
    def ask(client: Client) -> None:
        for method, path in (("GET", "/"), ("GET", "/api/events"), ("POST", "/api/jobs/run/stop")):
            assert client.ask(method, path, headers={"Origin": client.headers["Origin"]})[0] == 403
            foreign = {**client.headers, "Origin": "http://example.org"}
            assert client.ask(method, path, headers=foreign)[0] == 403
        page = client.ask("GET", "/")[2].decode()
        assert '<body class="watched">' in page
        for method, path in (
            ("POST", "/api/pictures?name=x"),
            ("POST", "/api/jobs"),
            ("POST", "/api/estimate"),
            ("DELETE", "/api/jobs/run"),
            ("POST", "/api/jobs/run/pause"),
            ("GET", "/api/jobs/other/picture"),
            ("GET", "/api/jobs/run/..%2f..%2fphoto.png"),
        ):
            assert client.ask(method, path, b"{}" if method == "POST" else None)[0] in (404, 405), path

    looking = Looking(monkeypatch, ask)
    assert main([*COMMAND, *LEVELS, "--watch"]) == 0
    looking.join()


def test_page_says_that_a_run_has_failed(monkeypatch: Patch, capsys: Captured) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError("of the test")

    looking = Looking(monkeypatch)
    monkeypatch.setattr("npstyle.images.encode", fail)
    monkeypatch.setattr("npstyle.studio.follower.Follower.after_iteration", fail)
    assert main([*COMMAND, *LEVELS, "--watch"]) == 1
    looking.join()
    job = looking.seen[-1][1][0]
    assert (job["status"], job["error"]) == ("failed", "of the test")


def test_run_does_not_end_for_a_preview(monkeypatch: Patch) -> None:
    def fail(_: Progress) -> None:
        raise MemoryError

    assert main([*COMMAND, *LEVELS]) == 0
    expected = Path("out.png").read_bytes()
    looking = Looking(monkeypatch)
    monkeypatch.setattr(Progress, "image", property(fail))
    assert main([*COMMAND, *LEVELS, "--overwrite", "--watch"]) == 0
    looking.join()
    assert [value["preview"] for name, value in looking.seen if name == "progress"][-1] == 0
    assert Path("out.png").read_bytes() == expected


def test_nobody_has_to_look(monkeypatch: Patch, capsys: Captured) -> None:
    """No preview was made, and the program ends at once."""
    opened: list[str] = []
    monkeypatch.setattr("npstyle.studio.watch.webbrowser.open", opened.append)
    monkeypatch.setattr("npstyle.studio.watch.time.sleep", None)  # the program does not wait
    monkeypatch.setattr("npstyle.studio.follower.Follower._preview", None)
    assert main([*COMMAND, *LEVELS, "--watch", "--no-browser"]) == 0
    assert opened == []
    assert "watch it at http://127.0.0.1:" in capsys.readouterr().err


def test_watch_without_the_extra_is_one_line(monkeypatch: Patch, capsys: Captured) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    line = refusal(capsys, *COMMAND, *LEVELS, "--watch")
    assert line.startswith("npstyle: --watch: found no uvicorn; expected starlette and uvicorn; pip install")
    assert main([*COMMAND, *LEVELS, "--report", "run.html"]) == 0  # which needs neither
    with pytest.raises(SystemExit):
        main([*COMMAND, "--no-browser"])
    assert "--no-browser: found no --watch" in capsys.readouterr().err
