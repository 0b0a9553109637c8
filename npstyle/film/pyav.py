"""Films through PyAV, which has ffmpeg's libraries in it: no program is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from npstyle import images
from npstyle.errors import UserError
from npstyle.film.codecs import FORMATS, FilmInfo, Picture, film_info

# Numbers of ITU-T H.273, as frames have them.
MATRICES = {0: "gbr", 1: "bt709", 2: "", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 9: "bt2020nc"}
PRIMARIES = {1: "bt709", 5: "bt470bg", 6: "smpte170m", 9: "bt2020"}
TRANSFERS = {
    1: "bt709",
    4: "gamma22",
    5: "gamma28",
    6: "smpte170m",
    13: "iec61966-2-1",
    14: "bt2020-10",
    15: "bt2020-12",
    16: "smpte2084",
    18: "arib-std-b67",
}
# Numbers of the matrices in libswscale, and of the ranges in libavutil.
SWSCALE = {"bt709": 1, "bt601": 5, "bt2020": 9, "gbr": 1}
# Of RGB it does not matter which; but PyAV up to 16 sets no range where both are the same.
SWSCALE_RGB = {"bt709": 5, "bt601": 1, "bt2020": 1, "gbr": 5}
LIMITED, FULL = 1, 2
LOCAL = {"protocol_whitelist": "file"}  # a playlist may name addresses; nothing is fetched
UNSPECIFIED = 2


def probe(path: Path) -> FilmInfo:
    """See `npstyle.film.codecs.Codec`."""
    name = f"film: {path}"
    with _opened(path, name) as container:
        if not container.streams.video:
            raise UserError(name, "no pictures in it", "a film", "check the file")
        stream = container.streams.video[0]
        context = stream.codec_context
        matrix, transfer = int(context.colorspace), TRANSFERS.get(int(context.color_trc), "")
        return film_info(
            name,
            context.height,
            MATRICES.get(matrix, f"number {matrix}"),
            rate=Fraction(stream.average_rate or 25),
            full_range=int(context.color_range) == FULL or str(context.pix_fmt).startswith("yuvj"),
            primaries=PRIMARIES.get(int(context.color_primaries), ""),
            transfer=transfer,
            audio=bool(container.streams.audio),
        )


def decode(path: Path, info: FilmInfo, times: list[Fraction]) -> Iterator[Picture]:
    """See `npstyle.film.codecs.Codec`."""
    colors: dict[str, Any] = {"format": "rgb24", "interpolation": "BICUBIC"}
    if info.matrix != "gbr":
        colors |= {"src_colorspace": SWSCALE[info.matrix], "dst_colorspace": SWSCALE_RGB[info.matrix]}
        colors |= {"src_color_range": FULL if info.full_range else LIMITED, "dst_color_range": FULL}
    with _opened(path, f"film: {path}") as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        start = Fraction(container.start_time or 0, 10**6)
        aspect = Fraction(stream.sample_aspect_ratio or 1) or Fraction(1)
        for frame in container.decode(stream):
            if frame.pts is None:
                found, cure = "a frame without a time", "read it with ffmpeg"
                raise UserError(f"film: {path}", found, "a time for each", cure)
            times.append(frame.pts * frame.time_base - start)
            picture = frame.reformat(width=round(frame.width * aspect), **colors).to_ndarray()
            turns = round(getattr(frame, "rotation", 0) / 90)
            yield np.ascontiguousarray(np.rot90(picture, turns))


def encode(frames: Sequence[Path], output: Path, suffix: str, info: FilmInfo, audio: Path | None) -> str:
    """See `npstyle.film.codecs.Codec`."""
    av = import_module("av")
    muxer, video_codec, options = FORMATS[suffix]
    name = f"output: {output}"
    expected, cure = "room, and a codec that PyAV has", "the frames are finished; try again"
    H, W, _ = images.read(frames[0]).shape
    try:
        with av.open(str(output), "w", format=muxer, options=_muxer_options(muxer)) as container:
            stream = container.add_stream(video_codec, rate=info.rate)
            stream.width, stream.height, stream.pix_fmt = W, H, "yuv420p"
            stream.options = options
            _set_colors(stream.codec_context, info)
            unit = Fraction(1, 90000)
            stream.codec_context.time_base = unit
            with _audio_of(audio, container) as packets:
                for path, time in zip(frames, info.times or _times(info, len(frames)), strict=True):
                    frame = _frame(av, path, info)
                    frame.pts, frame.time_base = round((time + info.offset) / unit), unit
                    container.mux(stream.encode(frame))
                container.mux(stream.encode(None))
                for packet in packets:
                    container.mux(packet)
    except (av.FFmpegError, ValueError) as error:
        raise UserError(name, f"PyAV: {error}", expected, cure) from error
    return ""


def _times(info: FilmInfo, count: int) -> list[Fraction]:
    return [n / info.rate for n in range(count)]


def _muxer_options(muxer: str) -> dict[str, str]:
    return {"movflags": "+faststart"} if muxer in ("mp4", "mov") else {}


def _set_colors(context: Any, info: FilmInfo) -> None:
    numbers = {name: number for number, name in MATRICES.items()}
    matrix = {"bt601": "smpte170m", "bt2020": "bt2020nc", "gbr": "bt709"}.get(info.matrix, info.matrix)
    context.colorspace = numbers[matrix]
    context.color_range = FULL if _is_full(info) else LIMITED
    context.color_primaries = {name: n for n, name in PRIMARIES.items()}.get(info.primaries, UNSPECIFIED)
    context.color_trc = {name: n for n, name in TRANSFERS.items()}.get(info.transfer, UNSPECIFIED)


def _is_full(info: FilmInfo) -> bool:
    return info.full_range and info.matrix != "gbr"


def _frame(av: Any, path: Path, info: FilmInfo) -> Any:
    frame = av.VideoFrame.from_ndarray(images.read(path), format="rgb24")
    return frame.reformat(
        format="yuv420p",
        interpolation="BICUBIC",
        src_colorspace=SWSCALE_RGB[info.matrix],
        dst_colorspace=SWSCALE[info.matrix],
        src_color_range=FULL,
        dst_color_range=FULL if _is_full(info) else LIMITED,
    )


@contextmanager
def _audio_of(source: Path | None, container: Any) -> Iterator[Iterator[Any]]:
    """The packets of a film's sound, for a container that has got a stream for each of its streams."""
    if source is None:
        yield iter(())
        return
    with _opened(source, f"film: {source}") as original:
        streams = {stream: container.add_stream_from_template(stream) for stream in original.streams.audio}

        def packets() -> Iterator[Any]:
            start = Fraction(original.start_time or 0, 10**6)
            for packet in original.demux(*streams):
                if packet.dts is None:
                    continue  # the end of a stream
                shift = round(start / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = streams[packet.stream]
                yield packet

        yield packets()


@contextmanager
def _opened(path: Path, name: str) -> Iterator[Any]:
    """A film that is open; what goes wrong in reading it is a UserError."""
    av = import_module("av")
    try:
        with av.open(f"file:{path}", options=LOCAL) as container:
            yield container
    except av.FFmpegError as error:
        raise UserError(name, f"no film that PyAV can read ({error})", "a film", "check the file") from error
