"""Frames of films as jobs of workers: the bytes of one process, what is sent, what a failure costs."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers import SHALLOW as SHALLOW_WORDS
from helpers import error_line, structured_picture
from npstyle import Settings, images
from npstyle.cli import workers as cli_workers
from npstyle.cli.main import main
from npstyle.cli.video import balanced
from npstyle.film import flow as flows
from npstyle.film.frames import survey
from npstyle.film.painting import Film, FilmSettings, frames_needed, paint_shot, plan_shots
from npstyle.film.shots import Shot
from npstyle.images import FileContents
from npstyle.jobs import cluster, filters
from npstyle.jobs import frame as jobs
from npstyle.jobs.filters import Filters
from npstyle.jobs.frame import FrameJob, Painted, of_film, paint_frame, paint_shots
from npstyle.jobs.workers import Outcome, ThisProcess, attempt
from npstyle.weights import random_weights, read_weights, write_weights

SHALLOW = Settings(content_layers=("conv1_2",), style_layers=("conv1_1",), iterations=1, min_size=0)
DIFFERENCE = FilmSettings(method="difference", iterations=1)
COUNT = 3  # frames of each shot
Captured = pytest.CaptureFixture[str]


class Several:
    """Two workers in this process: the job that came last is done first, from its pickle."""

    number = 2

    def __init__(self) -> None:
        self.jobs: list[FrameJob] = []

    def send(self, paths: Iterable[str]) -> None:
        """Nothing."""

    def run(self, function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[Outcome]:
        remaining = iter(jobs)
        at_work: list[tuple[int, Any]] = []
        while True:
            while len(at_work) < 2 and (job := next(remaining, None)) is not None:
                at_work.append((len(self.jobs), job))
                self.jobs.append(job)
            if not at_work:
                return
            number, job = at_work.pop()
            yield Outcome(number, *attempt(function, pickle.loads(pickle.dumps(job))))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with frames of two shots, a painting, filters and flows."""
    monkeypatch.chdir(tmp_path)
    scene = structured_picture(40, 48)
    (tmp_path / "in").mkdir()
    for n in range(2 * COUNT):
        frame = scene[4:28, n : n + 24]
        images.write(tmp_path / f"in/{n + 1}.png", frame if n < COUNT else 255 - frame // 2)
    images.write(tmp_path / "painting.png", structured_picture(32, 32, 1))
    write_weights(tmp_path / "w.npz", random_weights(0, "conv1_2"))
    (tmp_path / "flo").mkdir()
    right: NDArray[np.float32] = np.tile(np.array([1, 0], np.float32), (24, 24, 1))
    for later in range(2, 2 * COUNT + 1):
        for step in range(1, min(later, 3)):
            backward, forward = flows.flow_names(later - step, later)
            flows.write_flo(tmp_path / "flo" / backward, step * right)
            flows.write_flo(tmp_path / "flo" / forward, -step * right)
    return tmp_path


def film(temporal: FilmSettings = DIFFERENCE) -> Film:
    return Film((images.read("painting.png"),), SHALLOW, temporal, 24, 24)


def shots_of(a_film: Film, out: str) -> list[Shot]:
    Path(out).mkdir(exist_ok=True)
    found = survey([Path(f"in/{n + 1}.png") for n in range(2 * COUNT)])
    outputs = [Path(out) / frame.path.name for frame in found.frames]
    return plan_shots(found.frames, outputs, a_film, read_weights("w.npz"))


def job_of(a_film: Film) -> FrameJob:
    weights = read_weights("w.npz")
    return replace(of_film(a_film, Filters.of(weights, "conv1_2", 0, None)), threads=1)


def painted_here(a_film: Film) -> dict[str, bytes]:
    for shot in shots_of(a_film, "here"):
        paint_shot(a_film, shot, read_weights("w.npz"), threads=1)
    return files_in("here")


def files_in(out: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(out).iterdir()}


def painted_by(workers: Any, a_film: Film, **options: Any) -> list[Painted]:
    return list(paint_shots(workers, job_of(a_film), shots_of(a_film, "out"), **options))


TEMPORAL = [
    DIFFERENCE,
    FilmSettings(method="none"),
    pytest.param("flo", id="flo"),
]


@pytest.mark.parametrize("temporal", TEMPORAL)
def test_workers_write_the_bytes_of_one_process(folder: Path, temporal: Any) -> None:
    if temporal == "flo":
        temporal = FilmSettings(flow="flo", iterations=1, long_term=(1, 2))
    a_film, workers = film(temporal), Several()
    whole = painted_here(a_film)
    painted = painted_by(workers, a_film)
    assert sorted(one.frame.number for one in painted) == list(range(1, 2 * COUNT + 1))
    assert files_in("out") == whole
    Path("out/2.png").unlink()
    Path("out/5.png").unlink()
    assert sorted(one.frame.number for one in painted_by(Several(), a_film)) == [2, 5]
    assert files_in("out") == whole
    # A job has the frames that it needs, and no others.
    assert all(sorted(job.frames or ()) == frames_needed(temporal, job.n) for job in workers.jobs)


def test_each_shot_is_painted_in_order_and_the_longest_is_begun_first(folder: Path) -> None:
    a_film = film()
    shots = [shot._replace(frames=shot.frames[:n]) for n, shot in enumerate(shots_of(a_film, "out"), 2)]
    workers = Several()
    order = [one.frame.number for one in paint_shots(workers, job_of(a_film), shots)]
    assert len(workers.jobs) == 5
    assert (workers.jobs[0].frames or {})[0].number == COUNT + 1
    for numbers in ([1, 2], [4, 5, 6]):
        assert [n for n in order if n in numbers] == numbers


def test_sent_jobs_need_no_files(folder: Path) -> None:
    a_film = film()
    whole = painted_here(a_film)

    class Elsewhere(Several):
        def run(self, function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[Outcome]:
            def away(job: Any) -> Any:
                """Where no file of the film is."""
                with pytest.MonkeyPatch.context() as patch:
                    patch.chdir(folder / "flo")
                    return function(job)

            yield from super().run(away, jobs)

    painted = painted_by(Elsewhere(), a_film, send_painted=True, send=True)
    assert [one.error for one in painted] == [""] * 2 * COUNT
    assert files_in("out") == whole
    Path("out/3.png").unlink()
    painted_by(workers := Several(), a_film, send_painted=True)
    [job] = workers.jobs
    earlier = (job.frames or {})[1]
    assert earlier.painted == FileContents("out/2.png", Path("out/2.png").read_bytes())
    assert earlier.content == Path("in/2.png")  # which all share


def test_a_frame_that_fails_costs_its_shot_only(folder: Path) -> None:
    a_film = film()
    shots = shots_of(a_film, "out")
    Path("in/2.png").unlink()
    painted = list(paint_shots(Several(), job_of(a_film), shots))
    assert [one.frame.number for one in painted if one.error] == [2]
    assert "in/2.png: found no such file" in next(one.error for one in painted if one.error)
    assert sorted(files_in("out")) == ["1.png", "4.png", "5.png", "6.png"]


def test_files_of_others_are_not_replaced(folder: Path) -> None:
    a_film = film()
    shots = shots_of(a_film, "out")
    Path("out/3.png").write_bytes(b"mine")
    error_line(lambda: list(paint_shots(Several(), job_of(a_film), shots)), "frame: out/3.png")
    assert files_in("out") == {"3.png": b"mine"}
    painted_by(Several(), a_film, overwrite=True)
    assert files_in("out") == painted_here(a_film)


def test_another_flow_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = replace(job_of(film()), flow="dis of cv2 4.1.0", frames={})
    monkeypatch.setattr(jobs, "flow_version", lambda flow: "dis of cv2 5.0.0")
    line = error_line(lambda: paint_frame(job), "worker")
    assert line == ("found dis of cv2 5.0.0; expected dis of cv2 4.1.0, as here; install the same version")

    def missing(flow: str) -> str:
        raise ModuleNotFoundError("No module named 'cv2'")

    monkeypatch.setattr(jobs, "flow_version", missing)
    assert error_line(lambda: paint_frame(job), "worker").startswith("found No module named 'cv2'; ")


def test_style_targets_are_computed_once_in_a_process(folder: Path) -> None:
    a_film = film(FilmSettings(method="none"))
    filters.keep(job_of(a_film).filters, read_weights("w.npz"))
    _, memo = filters.kept(job_of(a_film).filters)
    painting = paint_shots(ThisProcess(), job_of(a_film), shots_of(a_film, "out"))
    computed = [memo.computed for _ in painting]
    assert len(computed) == 2 * COUNT
    assert set(computed) == {computed[0]}
    assert computed[0] > 0


# ------------------------------------------------------------------------------------------------
# The command
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "number"),
    [([10], 1), ([10, 1000], 1), ([10, 10], 2), ([10, 10, 10], 3), ([30, 10, 10, 10], 2), ([1] * 24, 24)],
)
def test_workers_are_as_many_as_have_enough_to_do(lengths: list[int], number: int) -> None:
    assert balanced(lengths) == number


def video(*words: str) -> int:
    fast = ["--weights", "w.npz", *SHALLOW_WORDS[2:], "--frame-iterations", "1", "--method", "difference"]
    return main(["video", "in", "painting.png", "-o", "out", *fast, *words])


@pytest.fixture
def several(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Several]:
    """The workers that --workers starts, without processes."""
    made: list[Several] = []

    class Local(Several):
        dashboard = ""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

        def __enter__(self) -> Several:
            made.append(self)
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(cluster, "require_dask", lambda name: None)
    monkeypatch.setattr(cluster, "is_installed", lambda: True)
    monkeypatch.setattr(cluster, "local_cluster", Local)
    monkeypatch.setattr("npstyle._runtime.threads.available", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return made


def test_workers_paint_the_same_film(several: list[Several], capsys: Captured) -> None:
    assert video("--workers", "1") == 0
    whole = files_in("out")
    Path("out").rename("whole")
    capsys.readouterr()
    assert video("--workers", "2") == 0
    out, err = capsys.readouterr()
    assert out.startswith("out: 6 frames, in ")
    assert "2 workers, each with 1 thread and " in err
    assert files_in("out") == whole
    assert len(several[0].jobs) == 2 * COUNT
    assert video("--workers", "2", "--quiet") == 0  # nothing is left to paint
    assert len(several) == 1
    Path("out/6.png").unlink()
    capsys.readouterr()
    assert video("--workers", "2") == 0
    assert len(several) == 1  # of one shot
    err = capsys.readouterr().err
    assert "1 shot to paint, by one worker at a time: in a shot each frame follows from those before" in err
    assert files_in("out") == whole


def test_without_number_as_many_workers_as_shots(several: list[Several], capsys: Captured) -> None:
    assert video("--quiet") == 0
    assert several[0].number == 2


def test_failed_frame_is_said_and_the_film_not_written(several: list[Several], capsys: Captured) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "prepare", _broken(jobs.prepare, fails=3))
        assert video("--workers", "2", "--quiet") == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("npstyle: ValueError: broken")
    assert lines[1].endswith(" of 6 frames are finished; the same command continues")
    assert video("--quiet") == 0


def _broken(prepare: Any, fails: int) -> Any:
    calls: list[int] = []

    def broken(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == fails:
            raise ValueError("broken")
        return prepare(*arguments, **options)

    return broken


def test_without_dask_one_shot_at_a_time_which_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(cluster, "is_installed", lambda: False)
    monkeypatch.setattr("npstyle._runtime.threads.available", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert video() == 0
    lines = capsys.readouterr().err.splitlines()
    assert f"npstyle: one shot at a time: 2 workers would need {cluster.HOW_TO_INSTALL}" in lines


@pytest.mark.parametrize("words", [["--workers", "2"], ["--scheduler", "tcp://127.0.0.1:9"]])
def test_missing_dask_is_said_before_frames_are_read(
    folder: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(cluster, "is_installed", lambda: False)
    monkeypatch.setattr("npstyle.film.frames.survey", None)
    assert video(*words) == 1
    reason = f"found no package distributed; expected Dask; {cluster.HOW_TO_INSTALL}"
    assert capsys.readouterr().err == f"npstyle: {words[0]}: {reason}\n"


def test_workers_that_can_not_start_leave_no_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    before = sorted(folder.iterdir())
    monkeypatch.setattr("npstyle.run.memory.available_memory", lambda threads: 1e9)
    monkeypatch.setattr(cluster, "is_installed", lambda: True)
    assert video("--workers", "6", "--quiet") == 1
    assert "--workers: found 6, for which 1.0 GB are too little" in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before


def test_flows_are_not_sent(folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "is_installed", lambda: True)
    words = ["--method", "flow", "--flow", "flo", "--scheduler", "tcp://127.0.0.1:9", "--send"]
    assert video(*words) == 1
    assert capsys.readouterr().err.splitlines() == [
        "npstyle: --send: found --flow flo; expected dis or tvl1, as a folder is not sent; "
        "let the cluster share the files, and leave --send out"
    ]


@pytest.mark.parametrize("words", [["--send"], ["--workers", "2", "--scheduler", "tcp://127.0.0.1:9"]])
def test_options_that_contradict_each_other_are_wrong_usage(folder: Path, words: Sequence[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        video(*words)
    assert ended.value.code == 2


def test_threads_and_memory_are_divided_among_shots(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("npstyle._runtime.threads.available", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    options = argparse.Namespace(threads=None, memory=8e9, force=False)
    demand = cli_workers.Demand(6, "shot", 1e6, "each frame", most=4)
    number, share = cli_workers._shares(options, demand, None)
    assert (number, share.threads, share.memory) == (4, 2, 2e9 - cli_workers.WORKER_BYTES)
    assert cli_workers._shares(options, demand, 6)[0] == 6
