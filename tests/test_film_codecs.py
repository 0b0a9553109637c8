"""Films as files: through ffmpeg and through PyAV, each skipped where it is not installed."""

from __future__ import annotations

import io
import re
import shutil
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers import error_line, structured_picture
from npstyle import images
from npstyle.cli.main import main
from npstyle.errors import UserError
from npstyle.film import codecs, ffmpeg
from npstyle.film.codecs import Backend, FilmInfo, codec, extract

FFMPEG = shutil.which("ffmpeg") is not None and shutil.which("ffprobe") is not None
PYAV = find_spec("av") is not None
needs_ffmpeg = pytest.mark.skipif(not FFMPEG, reason="no ffmpeg")
needs_pyav = pytest.mark.skipif(not PYAV, reason="no PyAV")
BOTH = [pytest.param("ffmpeg", marks=needs_ffmpeg), pytest.param("pyav", marks=needs_pyav)]
Captured = pytest.CaptureFixture[str]
FAST = ["--weights", "random", "--iterations", "1", "--frame-iterations", "1", "--threads", "1"]
FAST += ["--style-layers", "conv1_1", "--content-layers", "conv1_2", "--method", "difference"]
CFR = FilmInfo(rate=Fraction(30000, 1001))
VFR = FilmInfo(times=tuple(Fraction(n, 25) for n in (0, 1, 2, 5, 6)), rate=Fraction(20))


def gradients(count: int = 5) -> list[NDArray[np.uint8]]:
    """Frames of smooth colors, which survive that chroma is kept at half the resolution."""
    y, x = np.mgrid[0:48, 0:64]
    pictures = [np.stack([60 + 2 * x, 80 + 2 * y, 200 - x - y + 4 * n], axis=-1) for n in range(count)]
    return [np.asarray(picture, np.uint8) for picture in pictures]


def written(folder: Path, frames: Sequence[NDArray[Any]]) -> list[Path]:
    paths = [folder / f"f_{n}.png" for n in range(len(frames))]
    for path, frame in zip(paths, frames, strict=True):
        images.write(path, frame, True)
    return paths


def film(
    folder: Path,
    info: FilmInfo = CFR,
    name: str = "film.mkv",
    backend: Backend = "auto",
    audio: Path | None = None,
) -> Path:
    """A film of the gradients."""
    path = folder / name
    codec(backend).encode(written(folder, gradients()), path, path.suffix, info, audio)
    return path


def decoded(path: Path, backend: Backend = "auto") -> tuple[FilmInfo, list[Any], list[Fraction]]:
    reader, times = codec(backend), list[Fraction]()
    info = reader.probe(path)
    return info, list(reader.decode(path, info, times)), times


def sound(folder: Path) -> Path:
    """A film with a second of a tone, made by what there is."""
    path = folder / "tone.mkv"
    if FFMPEG:
        tone = ["-f", "lavfi", "-i", "sine=d=0.3", "-f", "lavfi", "-i", "color=gray:s=64x48:r=25:d=0.2"]
        subprocess.run(["ffmpeg", "-loglevel", "error", *tone, "-c:a", "aac", str(path)], check=True)
        return path
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=44100)
        samples = np.sin(np.arange(13230)[None] / 16).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 44100, 0
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return path


# ------------------------------------------------------------------------------------------------
# Reading and writing
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["film.mp4", "film.mov", "film.mkv"])
@pytest.mark.parametrize("backend", BOTH)
def test_frames_and_their_constant_rate_survive(tmp_path: Path, backend: Backend, name: str) -> None:
    info, frames, times = decoded(film(tmp_path, CFR, name, backend), backend)
    assert len(frames) == 5
    for frame, original in zip(frames, gradients(), strict=True):
        assert np.abs(frame.astype(int) - original).mean() < 2.5
    assert not info.audio
    known = replace(info, times=tuple(times))
    assert known.constant
    assert float(info.rate) == pytest.approx(30000 / 1001, rel=1e-3)


@pytest.mark.parametrize("backend", BOTH)
def test_times_of_a_variable_rate_survive(tmp_path: Path, backend: Backend) -> None:
    _, frames, times = decoded(film(tmp_path, VFR, backend=backend), backend)
    assert len(frames) == 5
    steps = [float(time - times[0]) for time in times]
    assert steps == pytest.approx([0, 0.04, 0.08, 0.2, 0.24], abs=1.1e-3)


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("reader", BOTH)
@pytest.mark.parametrize("writer", BOTH)
def test_colors_survive(
    tmp_path: Path, writer: Backend, reader: Backend, matrix: str, full_range: bool
) -> None:
    """Whoever writes and reads: a wrong matrix changes saturated colors by 10 and more, a range by 16."""
    frame = np.full((32, 32, 3), (200, 60, 40), np.uint8)
    path = tmp_path / "film.mkv"
    info = FilmInfo(matrix=matrix, full_range=full_range)
    codec(writer).encode(written(tmp_path, [frame] * 2), path, ".mkv", info, None)
    found, frames, _ = decoded(path, reader)
    assert (found.matrix, found.full_range) == (matrix, full_range)
    assert (found.primaries, found.transfer) == ("bt709", "bt709")
    assert np.abs(frames[0].astype(int) - frame).max() <= 3


@pytest.mark.parametrize("backend", BOTH)
def test_sound_is_kept(tmp_path: Path, backend: Backend) -> None:
    tone = sound(tmp_path)
    path = film(tmp_path, name="film.mp4", backend=backend, audio=tone)
    assert codec(backend).probe(path).audio
    if FFMPEG:
        streams = [
            subprocess.run(
                [
                    "ffmpeg",
                    "-loglevel",
                    "error",
                    "-i",
                    str(file),
                    "-map",
                    "a",
                    "-c",
                    "copy",
                    "-f",
                    "md5",
                    "-",
                ],
                capture_output=True,
                check=True,
            ).stdout
            for file in (tone, path)
        ]
        assert streams[0] == streams[1]


@needs_ffmpeg
def test_sound_that_a_form_does_not_take_is_encoded_again(tmp_path: Path) -> None:
    path = tmp_path / "film.webm"
    frames = written(tmp_path, gradients())
    remark = codec("ffmpeg").encode(frames, path, ".webm", CFR, sound(tmp_path))
    assert remark == "the sound is encoded again, as .webm does not take it as it is"
    assert codec("ffmpeg").probe(path).audio


@pytest.mark.parametrize("backend", BOTH)
def test_what_is_no_film_is_one_line(tmp_path: Path, backend: Backend) -> None:
    reader, path = codec(backend), tmp_path / "film.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(100))
    line = error_line(lambda: reader.probe(path), f"film: {path}")
    assert line.startswith("found no film that ")
    path.write_bytes(film(tmp_path, name="whole.mkv", backend=backend).read_bytes()[:400])
    with pytest.raises(UserError, match=re.escape(f"film: {path}: found no f")):  # film, or frames
        extract(path, tmp_path / "content", reader, half)


@pytest.mark.parametrize("backend", BOTH)
def test_text_that_is_named_as_a_picture_leaves_nothing(tmp_path: Path, backend: Backend) -> None:
    path, folder = tmp_path / "x.png", tmp_path / "frames"
    path.write_text("no picture")
    line = error_line(lambda: extract(path, folder, codec(backend), half), f"film: {path}")
    assert line.endswith("; check the file")
    assert not folder.exists()


@pytest.mark.parametrize("backend", BOTH)
def test_nothing_is_fetched(tmp_path: Path, backend: Backend) -> None:
    """A playlist is a film to ffmpeg, and may name any address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        path = tmp_path / "film.m3u8"
        address = f"http://127.0.0.1:{server.getsockname()[1]}/film.ts"
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n")
        with pytest.raises(UserError):
            extract(path, tmp_path / "content", codec(backend), half)
        with pytest.raises(TimeoutError):
            server.accept()


@needs_ffmpeg
def test_damage_that_ffmpeg_repairs_is_told(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    frames = written(tmp_path, [structured_picture(48, 64, seed) for seed in range(4)])
    codec("ffmpeg").encode(frames, path, ".mkv", CFR, None)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    path.write_bytes(data)
    with pytest.warns(images.PictureWarning, match="found damage .*; frames are as ffmpeg repairs them"):
        decoded(path, "ffmpeg")


def test_high_dynamic_range_and_unknown_colors_are_refused() -> None:
    line = error_line(lambda: codecs.film_info("film: a", 720, "bt2020nc", transfer="smpte2084"), "film: a")
    assert line.startswith("found high dynamic range (smpte2084); expected standard range")
    line = error_line(lambda: codecs.film_info("film: a", 720, "ictcp"), "film: a")
    assert line.startswith("found colors as ictcp; expected bt709 or ")


def test_colors_that_a_film_does_not_name_are_those_of_its_size() -> None:
    assert [codecs.film_info("film", h, "unknown").matrix for h in (576, 720)] == ["bt601", "bt709"]


def test_codec_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs.shutil, "which", lambda name: None)
    monkeypatch.setattr(codecs, "find_spec", lambda name: None)
    for backend, found in (
        ("auto", "neither ffmpeg nor PyAV"),
        ("ffmpeg", "no ffmpeg and"),
        ("pyav", "no PyAV"),
    ):
        line = error_line(lambda backend=backend: codec(backend), "backend")  # type: ignore[misc]
        assert line.startswith(f"found {found}")
        assert line.endswith("or give and write a folder of frames")


def test_durations_do_not_drift() -> None:
    durations = [Fraction(1001, 30000)] * 1000
    text = ffmpeg._concat([Path("/a'b.png")] * 1000, durations)
    assert text.splitlines()[1] == "file '/a'\\''b.png'"
    total = sum(Fraction(line.split()[1]) for line in text.splitlines() if line.startswith("duration"))
    assert float(total) == pytest.approx(float(sum(durations)), abs=1e-6)


def test_pictures_and_times_are_read_from_ffmpegs_output() -> None:
    pictures = [structured_picture(4, 6, seed) for seed in range(2)]
    stream = io.BytesIO(b"".join(b"P6\n6 4\n255\n" + picture.tobytes() for picture in pictures))
    for picture in pictures:
        np.testing.assert_array_equal(ffmpeg._read_ppm(stream), picture)
    assert ffmpeg._read_ppm(stream) is None
    assert ffmpeg._read_ppm(io.BytesIO(b"P6\n6 4\n255\nabc")) is None  # cut off
    text = "#software: Lavf\n#tb 0: 1/1000\n0, 0, 0, 40, 768, 0x1\n0, 40, 40, 1, 768, 0x2\n"
    assert ffmpeg._read_times(text) == [0, Fraction(1, 25)]


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("ffmpeg version 4.4.2-0ubuntu0.22.04.1 Copyright", "-vsync"),
        ("ffmpeg version 5.1.9-0+deb12u1 Copyright", "-fps_mode"),
        ("ffmpeg version n7.1 Copyright", "-fps_mode"),
        ("ffmpeg version N-1234-g5678 Copyright", "-fps_mode"),
    ],
)
def test_option_is_that_of_the_version(monkeypatch: pytest.MonkeyPatch, line: str, option: str) -> None:
    result = subprocess.CompletedProcess([], 0, line)
    monkeypatch.setattr(ffmpeg.subprocess, "run", lambda *_, **__: result)
    monkeypatch.setattr(ffmpeg, "_version", ffmpeg._version.__wrapped__)
    assert ffmpeg._passthrough() == [option, "passthrough"]


# ------------------------------------------------------------------------------------------------
# A film's frames in a folder
# ------------------------------------------------------------------------------------------------


def half(width: int, height: int) -> tuple[int, int]:
    return width // 2, height // 2


@pytest.mark.parametrize("backend", BOTH)
def test_frames_are_extracted_once(tmp_path: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    path, folder, reader = film(tmp_path, VFR, backend=backend), tmp_path / "x" / "content", codec(backend)
    paths, info = extract(path, folder, reader, half)
    assert [p.name for p in paths] == [f"frame_{n:06d}.png" for n in range(1, 6)]
    assert images.read(paths[0]).shape == (24, 32, 3)
    assert not info.constant
    assert float(info.rate) == pytest.approx(float(4 / info.times[-1]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "decode", None)
        assert extract(path, folder, reader, half) == (paths, info)
    paths[2].unlink()
    extract(path, folder, reader, half)
    assert paths[2].exists()
    extract(path, folder, reader, lambda w, h: (w, h))
    assert images.read(paths[0]).shape == (48, 64, 3)


def test_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    codecs.check_folder(tmp_path / "new")
    codecs.check_folder(tmp_path)
    (tmp_path / "mine.txt").touch()
    line = error_line(lambda: codecs.check_folder(tmp_path), f"output: {tmp_path}")
    assert line.startswith("found a folder with something in it")
    (tmp_path / codecs.RECORD).write_text("{}")
    codecs.check_folder(tmp_path)


def test_damaged_record_is_as_none(tmp_path: Path) -> None:
    for text in ("", "[]", '{"npstyle film": 1}', '{"npstyle film": 1, "checksum": "a", "info": 3}'):
        (tmp_path / codecs.RECORD).write_text(text)
        assert codecs._recorded(tmp_path, "a", half) is None


# ------------------------------------------------------------------------------------------------
# The command
# ------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    images.write(tmp_path / "painting.png", structured_picture(32, 32, 1))
    return tmp_path


def video(*words: str, film: str = "film.mkv") -> int:
    return main(["video", film, "painting.png", *FAST, "--size", "33", *words])


@pytest.mark.parametrize("backend", BOTH)
def test_film_becomes_a_film(here: Path, capsys: Captured, backend: Backend) -> None:
    film(here, CFR, backend=backend, audio=sound(here))
    assert video("-o", "out.mp4", "--backend", backend) == 0
    output = capsys.readouterr()
    assert output.out.endswith("the frames are in out.mp4.frames\n")
    assert "film: 29.97 frames a second, BT.709, with sound" in output.err
    info, frames, times = decoded(here / "out.mp4", backend)
    assert info.audio
    assert len(frames) == 5
    assert frames[0].shape == (24, 32, 3)  # even sides
    assert float(times[-1]) == pytest.approx(4 * 1001 / 30000, abs=2e-3)
    assert len(list((here / "out.mp4.frames").glob("frame_*.png"))) == 5


@pytest.mark.parametrize("backend", BOTH)
def test_folder_becomes_a_film_and_a_film_a_folder(here: Path, backend: Backend) -> None:
    (here / "frames").mkdir()
    written(here / "frames", gradients(3))
    assert video("-o", "out.mov", "--rate", "24", "--backend", backend, "--quiet", film="frames") == 0
    info, frames, _ = decoded(here / "out.mov", backend)
    assert info.rate == 24
    assert len(frames) == 3
    assert video("-o", "painted", "--backend", backend, "--quiet", film="out.mov") == 0
    names = sorted(path.name for path in (here / "painted").iterdir())
    assert names == ["content", *(f"frame_00000{n}.png" for n in (1, 2, 3))]


@pytest.mark.parametrize("backend", BOTH)
def test_film_that_can_not_be_written_costs_no_frame(here: Path, capsys: Captured, backend: Backend) -> None:
    film(here, backend=backend)
    module: Any = codec(backend)

    def full(*_: Any) -> str:
        raise UserError("output: x.tmp", "No space left on device", "room", "free some")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "encode", full)
        assert video("-o", "out.mkv", "--quiet", "--backend", backend) == 1
    [line] = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith(
        "npstyle: output: out.mkv: found No space left on device; expected room; the frames are in"
    )
    assert not list(here.glob("*.tmp"))
    assert not (here / "out.mkv").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("npstyle.optimize.Minimizer.run", None)  # nothing is painted again
        assert video("-o", "out.mkv", "--quiet", "--backend", backend) == 0
    assert (here / "out.mkv").exists()


@needs_ffmpeg
def test_error_of_ffmpeg_is_its_last_line(tmp_path: Path) -> None:
    frames = written(tmp_path, [structured_picture(33, 31)])  # no film has odd sides
    line = error_line(
        lambda: codec("ffmpeg").encode(frames, tmp_path / "o.mp4", ".mp4", CFR, None),
        f"output: {tmp_path / 'o.mp4'}",
    )
    assert line.startswith("found ffmpeg: ")


@pytest.mark.skipif(not (FFMPEG or PYAV), reason="neither ffmpeg nor PyAV")
@pytest.mark.parametrize(
    ("words", "start"),
    [
        (("-o", "film.mkv", "--overwrite"), "output: film.mkv: found the film that is read"),
        (("-o", "out.png"), "output: out.png: found a picture (.png); expected a folder, or a film: .mp4"),
        (("-o", "taken.mp4"), "output: taken.mp4: found a file of that name"),
        (("-o", "out.mp4", "--rate", "24"), "--rate: found a film, which has one of its own"),
        (("-o", "strange"), "output: strange/content: found a folder with something in it"),
    ],
)
def test_refused_in_one_line(here: Path, capsys: Captured, words: tuple[str, ...], start: str) -> None:
    film(here)
    (here / "taken.mp4").write_bytes(b"mine")
    (here / "strange/content").mkdir(parents=True)
    (here / "strange/content/mine.txt").touch()
    assert video(*words) == 1
    assert capsys.readouterr().err.startswith(f"npstyle: {start}")
    assert (here / "taken.mp4").read_bytes() == b"mine"


def test_no_codec_is_one_line(here: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs.shutil, "which", lambda name: None)
    monkeypatch.setattr(codecs, "find_spec", lambda name: None)
    (here / "film.mkv").write_bytes(b"film")
    assert video("-o", "out.mp4") == 1
    assert capsys.readouterr().err.startswith("npstyle: --backend: found neither ffmpeg nor PyAV")


def test_rate_that_is_none_is_wrong_usage(here: Path, capsys: Captured) -> None:
    for rate in ("0", "x", "1/0", "-3"):
        with pytest.raises(SystemExit):
            video("-o", "out.mp4", f"--rate={rate}")
        assert "expected frames a second" in capsys.readouterr().err
