"""Films through the ffmpeg and ffprobe that the user has: frames through pipes, one after the other."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from npstyle import images
from npstyle.errors import UserError
from npstyle.film.codecs import FORMATS, FilmInfo, Picture, film_info

QUIET = ("-hide_banner", "-nostdin", "-loglevel", "error")
LOCAL = ("-protocol_whitelist", "file")  # a playlist may name addresses; nothing is fetched
FLAGS = "flags=bicubic+accurate_rnd+full_chroma_int"


def probe(path: Path) -> FilmInfo:
    """See `npstyle.film.codecs.Codec`."""
    name = f"film: {path}"
    words = ("-v", "error", *LOCAL, "-show_streams", "-of", "json", _file(path))
    result = subprocess.run(["ffprobe", *words], capture_output=True, check=False)
    found = json.loads(result.stdout or b"{}")
    streams: list[dict[str, Any]] = found.get("streams", [])
    videos = [s for s in streams if s.get("codec_type") == "video" and not _is_cover(s)]
    if result.returncode or not videos:
        reason = _last_line(result.stderr.decode(errors="replace")) or "no pictures in it"
        raise UserError(name, f"no film that ffmpeg can read ({reason})", "a film", "check the file")
    video = videos[0]
    return film_info(
        name,
        int(video.get("height", 0)),
        video.get("color_space", ""),
        rate=_fraction(video.get("avg_frame_rate")) or _fraction(video.get("r_frame_rate")) or Fraction(25),
        full_range=video.get("color_range") == "pc" or str(video.get("pix_fmt")).startswith("yuvj"),
        primaries=_known(video.get("color_primaries")),
        transfer=_known(video.get("color_transfer")),
        audio=any(stream.get("codec_type") == "audio" for stream in streams),
    )


def decode(path: Path, info: FilmInfo, times: list[Fraction]) -> Iterator[Picture]:
    """See `npstyle.film.codecs.Codec`."""
    colors = "" if info.matrix == "gbr" else f"in_color_matrix={info.matrix}:"
    if info.matrix != "gbr":
        colors += f"in_range={'pc' if info.full_range else 'tv'}:"
    filters = f"scale=w=iw*sar:h=ih:{colors}out_range=pc:{FLAGS},format=rgb24"
    with tempfile.TemporaryDirectory() as folder:
        stamps = Path(folder) / "times.txt"
        command = ["ffmpeg", *QUIET, "-y", *LOCAL, "-i", _file(path)]
        command += ["-map", "0:V:0", *_passthrough(), "-vf", filters]
        command += ["-f", "image2pipe", "-c:v", "ppm", "pipe:1"]
        # The times of the same frames, as a file that says them exactly.
        command += ["-map", "0:V:0", *_passthrough(), "-enc_time_base", "-1", "-vf", "scale=16:16"]
        command += ["-f", "framecrc", str(stamps)]
        frames = 0
        try:
            with _process(command, f"film: {path}", "a film that ffmpeg can read", stdout=True) as process:
                assert process.stdout is not None
                while (frame := _read_ppm(process.stdout)) is not None:
                    frames += 1
                    yield frame
        except UserError as error:
            cure = error.cure if frames else "check the file"
            raise UserError(error.name, error.found, error.expected, cure) from error
        times += _read_times(stamps.read_text())


def encode(frames: Sequence[Path], output: Path, suffix: str, info: FilmInfo, audio: Path | None) -> str:
    """See `npstyle.film.codecs.Codec`."""
    try:
        _encode(frames, output, suffix, info, audio, ("-c:a", "copy"))
        return ""
    except UserError:
        if audio is None:
            raise
    _encode(frames, output, suffix, info, audio, ())
    return f"the sound is encoded again, as {suffix} does not take it as it is"


def _encode(
    frames: Sequence[Path],
    output: Path,
    suffix: str,
    info: FilmInfo,
    audio: Path | None,
    audio_codec: Sequence[str],
) -> None:
    muxer, video_codec, options = FORMATS[suffix]
    H, W, _ = images.read(frames[0]).shape
    with tempfile.TemporaryDirectory() as folder:
        command = ["ffmpeg", *QUIET, "-y"]
        if info.offset and audio is not None:
            command += ["-itsoffset", f"{float(info.offset):.6f}"]
        if info.constant:
            command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", f"{W}x{H}"]
            command += ["-framerate", str(info.rate), "-i", "pipe:0"]
        else:
            listed = Path(folder) / "frames.txt"
            listed.write_text(_concat(frames, info.durations))
            command += ["-f", "concat", "-safe", "0", "-i", str(listed)]
        if audio is not None:
            command += [*LOCAL, "-i", _file(audio), "-map", "0:v", "-map", "1:a", *audio_codec]
        command += [*_color_options(info), "-c:v", video_codec, "-fflags", "+bitexact"]
        command += [word for name, value in options.items() for word in (f"-{name}", value)]
        if not info.constant:
            command += [*_variable(), "-enc_time_base", "1/90000"]
        if muxer in ("mp4", "mov"):
            command += ["-movflags", "+faststart", "-video_track_timescale", "90000"]
        command += ["-f", muxer, str(output)]
        expected = "room, and an ffmpeg with this codec; the frames are finished"
        with _process(command, f"output: {output}", expected, stdin=info.constant) as process:
            if process.stdin is not None:
                with suppress(BrokenPipeError):  # ffmpeg's own message says why
                    for path in frames:
                        process.stdin.write(images.read(path).tobytes())
                    process.stdin.close()


def _color_options(info: FilmInfo) -> list[str]:
    """The film's matrix and range; RGB has none, and becomes BT.709."""
    matrix = "bt709" if info.matrix == "gbr" else info.matrix
    named = {"bt601": "smpte170m", "bt2020": "bt2020nc"}.get(matrix, matrix)
    color_range = "pc" if info.full_range and info.matrix != "gbr" else "tv"
    filters = f"scale=out_color_matrix={matrix}:in_range=pc:out_range={color_range}:{FLAGS},format=yuv420p"
    words = ["-vf", filters, "-colorspace", named, "-color_range", color_range]
    words += ["-color_primaries", info.primaries] if info.primaries else []
    return [*words, "-color_trc", info.transfer] if info.transfer else words


def _concat(frames: Sequence[Path], durations: Sequence[Fraction]) -> str:
    """A list for ffmpeg's concat demuxer, in microseconds that do not drift."""
    lines, time, written = ["ffconcat version 1.0"], Fraction(0), 0
    for path, duration in zip(frames, durations, strict=True):
        time += duration
        step = round(time * 10**6) - written
        written += step
        lines += [f"file '{_escaped(path)}'", f"duration {step / 10**6:.6f}"]
    return "\n".join(lines) + "\n"


def _escaped(path: Path) -> str:
    return str(path.absolute()).replace("'", "'\\''")


# ------------------------------------------------------------------------------------------------
# The program
# ------------------------------------------------------------------------------------------------


@contextmanager
def _process(
    command: Sequence[str], name: str, expected: str, stdin: bool = False, stdout: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """A running ffmpeg, which is ended with the context; a UserError with its last line if it fails."""
    with tempfile.TemporaryFile() as messages:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE if stdout else subprocess.DEVNULL,
            stderr=messages,
        )
        try:
            yield process
            if process.stdin is not None and not process.stdin.closed:
                with suppress(BrokenPipeError):
                    process.stdin.close()
            status = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with suppress(OSError):
                        stream.close()
            process.wait()
        messages.seek(0)
        text = messages.read().decode(errors="replace")
        if status:
            reason = _last_line(text) or f"exit status {status}"
            raise UserError(name, f"ffmpeg: {reason}", expected, "the same command tries again")
        if text.strip() and stdout:
            found = f"{name}: found damage ({_last_line(text)}); frames are as ffmpeg repairs them"
            warnings.warn(found, images.PictureWarning, stacklevel=4)


def _read_ppm(stream: IO[bytes]) -> Picture | None:
    """The next picture of a stream of PPM files; None at its end."""
    words: list[bytes] = []
    word = b""
    while len(words) < 4:
        byte = stream.read(1)
        if not byte:
            return None
        if byte.isspace():
            words += [word] if word else []
            word = b""
        else:
            word += byte
    W, H = int(words[1]), int(words[2])
    data = stream.read(3 * W * H)
    return np.frombuffer(data, np.uint8).reshape(H, W, 3) if len(data) == 3 * W * H else None


def _read_times(text: str) -> list[Fraction]:
    """The times in the output of ffmpeg's framecrc: stream, dts, pts, duration, size, checksum."""
    base = re.search(r"^#tb 0: (\d+)/(\d+)", text, re.MULTILINE)
    unit = Fraction(int(base[1]), int(base[2])) if base else Fraction(1)
    lines = [line.split(",") for line in text.splitlines() if line and not line.startswith("#")]
    return [int(fields[2]) * unit for fields in lines]


@cache
def _version() -> tuple[int, int]:
    """The version of ffmpeg; of one that is built from its sources in between, a new one."""
    line = subprocess.run(["ffmpeg", "-version"], capture_output=True, check=False, text=True).stdout
    numbers = re.match(r"ffmpeg version n?(\d+)\.(\d+)", line)
    return (int(numbers[1]), int(numbers[2])) if numbers else (99, 0)


def _passthrough() -> list[str]:
    return ["-fps_mode", "passthrough"] if _version() >= (5, 1) else ["-vsync", "passthrough"]


def _variable() -> list[str]:
    return ["-fps_mode", "vfr"] if _version() >= (5, 1) else ["-vsync", "vfr"]


def _file(path: Path) -> str:
    """A path that is no option and no address, whatever it is called."""
    return f"file:{path}"


def _is_cover(stream: dict[str, Any]) -> bool:
    return bool(stream.get("disposition", {}).get("attached_pic"))


def _known(value: Any) -> str:
    return "" if value in (None, "unknown", "unspecified", "reserved") else str(value)


def _fraction(text: Any) -> Fraction | None:
    """A fraction as ffprobe prints it; None for what it prints in place of one, such as 0/0."""
    try:
        return Fraction(str(text)) or None
    except (ValueError, ZeroDivisionError):
        return None


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
