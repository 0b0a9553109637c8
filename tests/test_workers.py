"""Workers on Dask: the same bytes by whoever paints, killed workers and schedulers, signals, other versions.

NPSTYLE_TEST_KILLS is the number of kills of the longest test: 2 if it is not set, or 20 with all tests.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers import THOROUGH, error_line, structured_picture
from npstyle import images
from npstyle.cli import main as cli
from npstyle.divided import Pixels, WorkerLostError
from npstyle.errors import UserError
from npstyle.images import PictureWarning
from npstyle.jobs import cluster, frame, manifest
from npstyle.run import Request, paint
from npstyle.settings import Settings
from npstyle.vgg import VGG19
from npstyle.weights import random_weights, write_weights

pytest.importorskip("distributed")
from npstyle.jobs.band_workers import BandWorkers

psutil = pytest.importorskip("psutil")
pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="kill -9 is something else there"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Dask's own affair
]

KILLS = int(os.environ.get("NPSTYLE_TEST_KILLS", 20 if THOROUGH else 2))
PAINT = ["--style-layers", "conv1_1", "--content-layers", "conv1_2", "--min-size", "0"]
FAST = [*PAINT, "--iterations", "1", "--weights", "w.npz"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with three photographs in a folder, two paintings and filters."""
    (tmp_path / "photos").mkdir()
    for n, name in enumerate(("photos/a", "photos/b", "photos/c", "x", "y")):
        Image.fromarray(structured_picture(32, 48, n)).save(tmp_path / f"{name}.png")
    write_weights(tmp_path / "w.npz", random_weights(0, "conv1_2"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pictures_in(place: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(place).glob("[!.]*.png")}


def painted_alone(place: str, *options: str) -> dict[str, bytes]:
    """The pictures of a batch that one process has painted without interruption."""
    command = ["batch", "photos", "--styles", "x.png", "y.png", "-o", place, "--workers", "1", "--quiet"]
    assert cli.main([*command, *FAST, *options]) == 0
    pictures = pictures_in(place)
    assert len(pictures) == 6
    return pictures


# ------------------------------------------------------------------------------------------------
# On this machine
# ------------------------------------------------------------------------------------------------


def work(job: Any) -> Any:
    """What the workers of these tests do."""
    kind, value = job
    if kind == "fail":
        raise UserError("job", value, "another", "give one")
    if kind == "warn":
        warnings.warn(value, PictureWarning, stacklevel=1)
    if kind == "die" or (kind == "die once" and not os.path.exists(value)):
        Path(value).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def test_jobs_of_killed_workers_are_given_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "MAX_FAILURES", 1)
    once, always = str(tmp_path / "once"), str(tmp_path / "always")
    jobs = [("die once", once), ("die", always), ("fail", "this"), ("warn", "careful"), ("", 5)]
    with cluster.local_cluster(1) as workers:
        assert workers.number == 1
        outcomes = {outcome.number: outcome for outcome in workers.run(work, jobs)}
        addresses = [connection.laddr.ip for connection in psutil.Process().net_connections("tcp")]
        assert set(addresses) == {"127.0.0.1"}
    assert (outcomes[0].value, outcomes[0].error) == (once, "")
    assert outcomes[1].error == (
        "workers: found 2 killed while they painted it; expected one that lives; is there enough memory?"
    )
    assert outcomes[2].error == "job: found this; expected another; give one"
    assert (outcomes[3].value, outcomes[3].warnings) == ("careful", ("careful",))
    assert (outcomes[4].value, outcomes[4].warnings) == (5, ())
    assert workers_left(os.getpid()) == []


def workers_left(process: int) -> list[Any]:
    """The children of a process that compute, once those that are about to end have had some time."""
    for _ in range(100):
        left = [child for child in psutil.Process(process).children() if is_worker(child)]
        if not left:
            break
        time.sleep(0.1)
    return left


def is_worker(process: Any) -> bool:
    with suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE and "spawn_main" in " ".join(process.cmdline())
    return False


def test_workers_paint_the_same_bytes_as_one_process(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = painted_alone("alone")
    Path("photos/broken.png").write_bytes(Path("photos/a.png").read_bytes()[:200])
    command = ["batch", "photos", "--styles", "x.png", "y.png", "-o", "out", "--workers", "2", "--json"]
    capsys.readouterr()
    assert cli.main([*command, *FAST]) == 1
    out, err = capsys.readouterr()
    assert pictures_in("out") == alone
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == 8
    assert sum("found a damaged file" in line.get("error", "") for line in lines) == 2
    assert "2 workers, each with 1 thread and " in err
    assert err.splitlines()[-1].startswith("8 pictures: 6 painted, 2 failed, in ")


# ------------------------------------------------------------------------------------------------
# Kills and signals
# ------------------------------------------------------------------------------------------------


class Running:
    """`npstyle batch` with two workers as a process."""

    def __init__(self, *options: str) -> None:
        command = ["batch", "photos", "--styles", "x.png", "y.png", "-o", "out", "--workers", "2", "--quiet"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "npstyle", *command, *FAST, *options], stderr=subprocess.PIPE, text=True
        )

    def workers(self) -> list[Any]:
        with suppress(psutil.Error):
            return [child for child in psutil.Process(self.process.pid).children() if is_worker(child)]
        return []

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Until something has happened, or the batch has ended."""
        while self.process.poll() is None and not condition():
            time.sleep(0.02)

    def pause(self, seconds: float) -> None:
        """So long, or until the batch has ended."""
        end = time.monotonic() + seconds
        self.wait_for(lambda: time.monotonic() > end)

    def end(self) -> tuple[int, str]:
        """Exit status, and what it said."""
        _, err = self.process.communicate(timeout=300)
        return self.process.returncode, err


def test_batch_with_kills_ends_with_all_pictures_once(folder: Path) -> None:
    """Workers, and the process with their scheduler in it, killed at random until it was often enough."""
    options = ("--iterations", "150")
    whole = painted_alone("alone", *options)
    rng = random.Random(7)
    kills = interruptions = 0
    while kills < KILLS:
        running = Running(*options)
        running.wait_for(running.workers)
        running.pause(rng.uniform(0, 4))
        workers = running.workers()
        if running.process.poll() is None and workers:
            kills += 1
            rng.choice(workers).kill()
        if kills < KILLS and running.process.poll() is None:
            running.pause(rng.uniform(0, 2))
            workers = running.workers()
            running.process.kill()
            kills += 1
            interruptions += 1
            assert psutil.wait_procs(workers, timeout=20)[1] == []  # they end with it
        running.end()
        if len(pictures_in("out")) == len(whole):  # begin again, for more kills
            check(whole, interruptions)
            Path("out").rename(f"out-{kills}")
    assert Running(*options).end() == (0, "")
    check(whole, interruptions)


def check(whole: dict[str, bytes], interruptions: int) -> None:
    """All pictures are there, whole, and none was painted again after it had been there."""
    assert pictures_in("out") == whole
    lines = list(manifest.lines_of(Path("out") / manifest.NAME))
    painted = [line["output"] for line in lines if "sha256" in line]
    assert set(painted) == set(whole)
    # A line comes before its picture: one may be there twice after each kill in between.
    assert len(painted) <= len(whole) + interruptions


def test_sigterm_ends_workers_in_the_middle_of_a_picture(folder: Path) -> None:
    running = Running("--iterations", "100000", "--optimizer", "adam")  # L-BFGS ends where no step helps
    running.wait_for(lambda: len(running.workers()) == 2)
    workers = running.workers()
    running.wait_for(lambda: all(sum(one.cpu_times()[:2]) > 2 for one in workers))
    running.process.send_signal(signal.SIGTERM)
    status, err = running.end()
    assert status == 143
    assert re.fullmatch(r"\nnpstyle: interrupted; 0 of 6 pictures are there, .* continues\n", err)
    assert psutil.wait_procs(workers, timeout=20)[1] == []


# ------------------------------------------------------------------------------------------------
# A cluster that is there
# ------------------------------------------------------------------------------------------------

CLUSTER = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    options = {"dashboard_address": "127.0.0.1:0", "memory_limit": 0}
    with LocalCluster(n_workers=1, threads_per_worker=2, **options) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


@contextmanager
def running_cluster(place: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a LocalCluster in another process, which works in another folder, and the process."""
    (place / "cluster.py").write_text(CLUSTER)
    process = subprocess.Popen(
        [sys.executable, "cluster.py"],
        cwd=place,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    with process:
        yield process.stdout.readline().strip(), process
        process.kill()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """That of a cluster which stays."""
    with running_cluster(tmp_path_factory.mktemp("elsewhere")) as (address, _):
        yield address


def test_batch_on_a_cluster_that_is_there(
    folder: Path, address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files shared by their paths, and sent; and other versions."""
    alone = painted_alone("alone")
    capsys.readouterr()
    # The workers are in another folder: relative paths lead nowhere there, unless files are sent.
    relative = ["batch", "photos", "--styles", "x.png", "y.png", *FAST, "--scheduler", address]
    absolute = ["batch", str(folder / "photos"), "--styles", str(folder / "x.png"), str(folder / "y.png")]
    absolute += [*FAST, "--scheduler", address]
    assert cli.main([*absolute, "-o", "shared"]) == 0
    assert pictures_in("shared") == alone
    assert f"2 workers at {address}" in capsys.readouterr().err
    assert cli.main([*relative, "-o", "sent", "--send", "--quiet"]) == 0
    assert pictures_in("sent") == alone
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "VERSIONS", {**cluster.VERSIONS, "numpy": "0.1"})
        assert cli.main([*relative, "-o", "other"]) == 1
    assert "expected numpy 0.1, as here; install the same versions" in capsys.readouterr().err


def test_batch_whose_scheduler_is_killed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save = manifest.Manifest.save
    alone = painted_alone("alone")
    (tmp_path / "elsewhere").mkdir()
    with running_cluster(tmp_path / "elsewhere") as (address, process), pytest.MonkeyPatch.context() as patch:

        def kill_scheduler(*arguments: Any) -> Any:
            process.kill()
            return save(*arguments)

        patch.setattr(manifest.Manifest, "save", kill_scheduler)
        command = ["batch", "photos", "--styles", "x.png", "y.png", *FAST, "--scheduler", address, "--send"]
        assert cli.main([*command, "-o", "killed", "--quiet"]) == 1
    err = capsys.readouterr().err
    assert err.splitlines()[-1] == (
        f"npstyle: --scheduler: {address}: found no connection any more; expected a scheduler that runs; "
        "start it again"
    )
    assert len(pictures_in("killed")) < 6
    assert painted_alone("killed") == alone


def test_a_scheduler_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "TIMEOUT", 0.3)

    def connect(address: str) -> None:
        with cluster.connected_cluster(address):
            pass

    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        line = error_line(lambda address=address: connect(address), f"--scheduler: {address}")  # type: ignore[misc]
        assert "expected the address of a Dask scheduler; start one with dask scheduler" in line


# ------------------------------------------------------------------------------------------------
# One large picture
# ------------------------------------------------------------------------------------------------

# Three sections of rows, for two workers, and a smaller level that this process computes.
TALL = 2000, 32


def tall_request() -> Request:
    settings = Settings(
        content_layers=("conv2_2",), style_layers=("conv1_1", "conv3_1"), iterations=2, min_size=512
    )
    content, style = structured_picture(*TALL), structured_picture(40, 48, 1)
    return Request.read(content, style, settings=settings, size=max(TALL))


def test_bands_have_the_bits_of_one_process_though_a_worker_is_killed() -> None:
    request, weights = tall_request(), random_weights(0, "conv3_1")
    alone = paint(request, weights, threads=1)
    with cluster.local_cluster(2) as workers:
        killed: list[int] = []
        in_bands: list[bool] = []

        def kill(progress: Any) -> None:
            in_bands.append(progress.schedule[progress.level - 1].height > 960)
            if in_bands[-1] and not killed:
                killed.extend(workers.client.run(os.getpid).values())
                os.kill(killed[0], signal.SIGKILL)

        made: list[BandWorkers] = []

        def of_cluster(network: Any) -> BandWorkers:
            made.append(BandWorkers(workers, network))
            return made[-1]

        result = paint(request, weights, threads=1, callback=kill, workers=of_cluster)
        assert made[0].count == 2
    assert killed
    assert in_bands[-1]
    assert result.losses == alone.losses
    np.testing.assert_array_equal(result.pixels, alone.pixels)


class FakeClient:
    """Of a scheduler that knows these workers; `requests` counts how often it was asked for them."""

    def __init__(self, *workers: str) -> None:
        self.workers, self.requests, self.error = list(workers), 0, OSError("gone")

    def wait_for_workers(self, count: int, timeout: float) -> None:
        assert len(self.workers) >= count

    def nthreads(self) -> dict[str, int]:
        self.requests += 1
        return dict.fromkeys(self.workers, 1)

    def register_plugin(self, plugin: Any, name: str) -> None: ...

    def scatter(self, pixels: Pixels, workers: list[str], hash: bool) -> str:
        if workers[0] not in self.workers:
            raise KeyError(workers[0])  # as Dask's does
        return workers[0]

    def submit(self, *arguments: Any, workers: list[str], **options: Any) -> str:
        return workers[0]

    def gather(self, handles: list[Any]) -> list[Any]:
        if not {*handles} <= {*self.workers}:
            raise self.error
        return handles


def test_scheduler_is_asked_for_workers_again_only_after_a_loss() -> None:
    client, pixels = FakeClient("tcp://a:1", "tcp://a:2"), Pixels(0, np.zeros((1, 1, 3)))
    workers = BandWorkers(cluster.Cluster(client, "tcp://scheduler"), VGG19(random_weights(0, "conv1_1")))
    handles = [workers.submit(band, len) for band in (0, 1, 0, 1)]
    assert handles == workers.results(handles) == [*client.workers] * 2
    assert workers.send(1, pixels) == "tcp://a:2"
    assert client.requests == 1

    client.workers = ["tcp://a:1"]  # the other one is lost, and noticed by its result
    with pytest.raises(WorkerLostError, match="gone"):
        workers.results(handles)
    assert [workers.submit(band, len) for band in (0, 1)] == ["tcp://a:1"] * 2
    client.workers.append("tcp://a:3")  # and replaced
    assert [workers.submit(band, len) for band in (0, 1, 0, 1)] == ["tcp://a:1", "tcp://a:3"] * 2
    assert client.requests == 4

    client.workers = ["tcp://a:4", "tcp://a:5"]  # noticed when pixels are sent
    with pytest.raises(WorkerLostError, match="KeyError: 'tcp://a:3'"):
        workers.send(1, pixels)
    assert workers.send(1, pixels) == "tcp://a:5"
    assert client.requests == 5


def test_a_picture_by_the_workers_of_a_scheduler(
    folder: Path, address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(structured_picture(1000, 32)).save("tall.png")  # two sections
    command = ["tall.png", "x.png", *FAST, "--size", "1000", "--no-checkpoint"]
    assert cli.main([*command, "-o", "alone.png", "--quiet"]) == 0
    assert cli.main([*command, "-o", "by_workers.png", "--scheduler", address]) == 0
    assert "1 worker at" in capsys.readouterr().err
    assert Path("alone.png").read_bytes() == Path("by_workers.png").read_bytes()
    monkeypatch.setattr(cluster, "TIMEOUT", 0.3)
    assert cli.main([*command, "-o", "no.png", "--scheduler", "tcp://127.0.0.1:9"]) == 1
    assert "expected the address of a Dask scheduler" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------
# Films
# ------------------------------------------------------------------------------------------------


@pytest.fixture
def film(folder: Path) -> dict[str, bytes]:
    """Frames of two shots in a folder "frames", and what one process paints of them to a folder "out"."""
    (folder / "frames").mkdir()
    for n in range(4):
        picture = structured_picture(32, 48)[:, n : n + 40]
        Image.fromarray(picture if n < 2 else 255 - picture // 2).save(folder / f"frames/{n}.png")
    assert cli.main([*video("out"), "--workers", "1"]) == 0
    (folder / "out").rename("alone")
    return pictures_in("alone")


def video(output: str, frames: str = "frames", style: str = "x.png") -> list[str]:
    command = ["video", frames, style, "-o", output, "--method", "difference", "--frame-iterations", "1"]
    return [*command, *FAST, "--quiet"]


def test_film_by_workers_one_of_which_is_killed(
    film: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[Any] = []
    write = frame.write_frame

    def kill_one(*arguments: Any) -> None:
        if not killed:
            killed.extend(child for child in psutil.Process().children() if is_worker(child))
            killed[0].kill()
        write(*arguments)

    monkeypatch.setattr(frame, "write_frame", kill_one)
    assert cli.main([*video("out"), "--workers", "2"]) == 0
    assert len(killed) == 2
    assert pictures_in("out") == film


def test_film_on_a_cluster_that_is_there(film: dict[str, bytes], folder: Path, address: str) -> None:
    absolute = video("shared", str(folder / "frames"), str(folder / "x.png"))
    assert cli.main([*absolute, "--scheduler", address]) == 0
    for name in film:  # what the command was is stored in the files
        np.testing.assert_array_equal(images.read(Path("shared", name)), images.read(Path("alone", name)))
    assert cli.main([*video("out"), "--scheduler", address, "--send"]) == 0
    assert pictures_in("out") == film
