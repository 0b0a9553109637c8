"""Films as files: what is known of one, which program reads and writes it, and the frames in between.

`ffmpeg` and `pyav` do the same in two ways. Frames lie as pictures in a folder in between, both before and
after they are painted: a film is read once, and written whole from finished frames.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, cast, get_args

import numpy as np
from numpy.typing import NDArray

from npstyle import images
from npstyle._runtime.atomic import open_replacing
from npstyle.errors import UserError
from npstyle.film.frames import file_checksum

Picture = NDArray[np.uint8]
Backend = Literal["auto", "ffmpeg", "pyav"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)

# Muxer, video codec and its options by extension. At a rate factor of 16, losses are hardly seen.
FORMATS: dict[str, tuple[str, str, dict[str, str]]] = {
    ".mp4": ("mp4", "libx264", {"crf": "16", "preset": "medium"}),
    ".m4v": ("mp4", "libx264", {"crf": "16", "preset": "medium"}),
    ".mov": ("mov", "libx264", {"crf": "16", "preset": "medium"}),
    ".mkv": ("matroska", "libx264", {"crf": "16", "preset": "medium"}),
    ".webm": ("webm", "libvpx-vp9", {"crf": "20", "b:v": "0", "row-mt": "1"}),
}
# Extensions of films that are not written; a folder of such a name would be made by mistake.
OTHER_FILMS = (".3gp", ".avi", ".flv", ".gif", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".wmv")
# The matrices between RGB and the luma and chroma of a film, by the names that files give them.
MATRICES = {
    "bt709": "bt709",
    "smpte170m": "bt601",
    "bt470bg": "bt601",
    "fcc": "bt601",
    "bt2020nc": "bt2020",
    "gbr": "gbr",
}
HD = 720  # lines, from which a film that does not say has the matrix of BT.709
HDR = ("smpte2084", "arib-std-b67")  # transfer functions whose values are no sRGB, not even nearly
MAX_JITTER = Fraction(3, 2000)  # seconds, by which the times of a constant rate may be rounded
RATE = Fraction(25)  # frames a second of a folder, if nothing else is said
RECORD = "film.json"
RECORD_VERSION = 1


@dataclass(frozen=True)
class FilmInfo:
    """What a film's file says of its pictures and its sound.

    Attributes
    ----------
    times : tuple of Fraction
        When each frame is shown, in seconds from the first one.
    rate : Fraction
        Frames a second, on average.
    offset : Fraction
        From the beginning of the file to the first frame.
    matrix : {"bt601", "bt709", "bt2020", "gbr"}
        As the file says, or as is usual for its size.
    full_range : bool
        Whether luma is from 0 to 255 rather than from 16 to 235.
    primaries, transfer : str
        As the file names them; empty if it does not.
    audio : bool
    """

    times: tuple[Fraction, ...] = ()
    rate: Fraction = RATE
    offset: Fraction = Fraction(0)
    matrix: str = "bt709"
    full_range: bool = False
    primaries: str = "bt709"
    transfer: str = "bt709"
    audio: bool = False

    @property
    def constant(self) -> bool:
        """Whether the frames follow each other at a constant rate."""
        return all(abs(time - n / self.rate) <= MAX_JITTER for n, time in enumerate(self.times))

    @property
    def durations(self) -> list[Fraction]:
        """How long each frame is shown; the last one as long as frames are on average."""
        steps = [b - a for a, b in zip(self.times, self.times[1:], strict=False)]
        return [*steps, 1 / self.rate]


class Codec(Protocol):
    """What `npstyle.film.ffmpeg` and `npstyle.film.pyav` have."""

    def probe(self, path: Path) -> FilmInfo:
        """What the file says, without its times."""

    def decode(self, path: Path, info: FilmInfo, times: list[Fraction]) -> Iterator[Picture]:
        """The frames, upright and with square pixels; their times in the file are appended to a list."""

    def encode(
        self, frames: Sequence[Path], output: Path, suffix: str, info: FilmInfo, audio: Path | None
    ) -> str:
        """Write a film of pictures of one size, with the sound of another; a remark, or nothing."""


def codec(backend: Backend) -> Codec:
    """The module that reads and writes films.

    Raises
    ------
    UserError
        Neither ffmpeg nor PyAV is there, or not the one that is asked for.
    """
    there = {
        "ffmpeg": bool(shutil.which("ffmpeg") and shutil.which("ffprobe")),
        "pyav": find_spec("av") is not None,
    }
    chosen = next((name for name, found in there.items() if found), None) if backend == "auto" else backend
    if chosen is None or not there[chosen]:
        missing = {"ffmpeg": "no ffmpeg and ffprobe on the PATH", "pyav": "no PyAV"}
        found = missing.get(backend, "neither ffmpeg nor PyAV")
        cure = "install ffmpeg, or pip install av; or give and write a folder of frames"
        raise UserError("backend", found, "one of them, for a film in a file", cure)
    module: Any = import_module(f"npstyle.film.{chosen}")
    return cast(Codec, module)


def is_film(path: Path) -> bool:
    """Whether a path is named as a film that can be written."""
    return path.suffix.lower() in FORMATS


def film_info(name: str, height: int, matrix: str, **facts: Any) -> FilmInfo:
    """A `FilmInfo` with the matrix that a file names, or the usual one.

    Raises
    ------
    UserError
        The film has a high dynamic range, or a matrix that is not known.
    """
    if facts.get("transfer") in HDR:
        found, cure = f"high dynamic range ({facts['transfer']})", "convert it to BT.709 first"
        raise UserError(name, found, "standard range", cure)
    if matrix in ("", "unknown", "unspecified", "reserved"):
        matrix = "bt709" if height >= HD else "smpte170m"
    if matrix not in MATRICES:
        cure = "convert it to BT.709 first"
        raise UserError(name, f"colors as {matrix}", " or ".join(MATRICES), cure)
    return FilmInfo(matrix=MATRICES[matrix], **facts)


# ------------------------------------------------------------------------------------------------
# A film's frames in a folder
# ------------------------------------------------------------------------------------------------


def check_folder(folder: Path) -> None:
    """Refuse a folder for a film's frames that is somebody else's.

    Raises
    ------
    UserError
        It has something in it, but no record of a film.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / RECORD).is_file():
        found, cure = "a folder with something in it", "choose another name, or move it away"
        raise UserError(f"output: {folder}", found, "a new folder for the frames", cure)


def extract(
    film: Path,
    folder: Path,
    reader: Codec,
    size_of: Callable[[int, int], tuple[int, int]],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Path], FilmInfo]:
    """The frames of a film as pictures in a folder, and what is known of it.

    They are not read again, if they are all there.

    Parameters
    ----------
    film, folder : Path
    reader : Codec
    size_of : callable
        The width and height of the pictures, of those of the film's.
    progress : callable
        Called with the number of frames so far, twice.

    Raises
    ------
    UserError
        The film can't be read, or a picture can't be written.
    """
    checksum = file_checksum(film)
    recorded = _recorded(folder, checksum, size_of)
    if recorded is not None:
        return recorded
    info, times, paths = reader.probe(film), list[Fraction](), list[Path]()
    first = (0, 0)
    for frame in reader.decode(film, info, times):
        H, W, _ = frame.shape
        first = first if paths else (W, H)
        if first != (W, H):
            found, expected = f"{W} x {H} pixels at frame {len(paths) + 1}", f"{first[0]} x {first[1]} in all"
            raise UserError(f"film: {film}", found, expected, "cut it there")
        if not paths:
            folder.mkdir(parents=True, exist_ok=True)
            _write_record(folder, {})  # whose folder it is, until the frames are all there
        paths.append(folder / f"frame_{len(paths) + 1:06d}.png")
        images.write(paths[-1], images.resize(frame, *size_of(W, H)), True)
        progress(len(paths), len(paths))
    if not paths:
        raise UserError(f"film: {film}", "no frames", "a film", "check the file")
    info = _with_times(info, times)
    facts = {**asdict(info), "times": list(map(str, info.times))}
    facts |= {"rate": str(info.rate), "offset": str(info.offset)}
    _write_record(folder, {"checksum": checksum, "size": first, "info": facts})
    return paths, info


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    try:
        with open_replacing(folder / RECORD) as file:
            file.write(json.dumps({"npstyle film": RECORD_VERSION, **record}).encode())
    except OSError as error:
        found, cure = f"{error.strerror} on writing", "free some, and give the same command again"
        raise UserError(f"output: {folder / RECORD}", found, "room to write to", cure) from error


def _with_times(info: FilmInfo, times: Sequence[Fraction]) -> FilmInfo:
    """The information with the frames' times, and with their average rate if the file's is not theirs."""
    values = {**asdict(info), "times": tuple(time - times[0] for time in times)}
    values["offset"] = max(Fraction(0), times[0])
    timed = FilmInfo(**values)
    if timed.constant or len(times) < 2 or timed.times[-1] <= 0:
        return timed
    return FilmInfo(**{**values, "rate": (len(times) - 1) / timed.times[-1]})


def _recorded(
    folder: Path, checksum: str, size_of: Callable[[int, int], tuple[int, int]]
) -> tuple[list[Path], FilmInfo] | None:
    """What an earlier run has put into the folder, if it is all there and of this film and size."""
    try:
        record = json.loads((folder / RECORD).read_bytes())
        if record["npstyle film"] != RECORD_VERSION or record["checksum"] != checksum:
            return None
        facts = record["info"]
        facts["times"] = tuple(map(Fraction, facts["times"]))
        facts |= {name: Fraction(facts[name]) for name in ("rate", "offset")}
        info = FilmInfo(**facts)
        width, height = size_of(*record["size"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    paths = [folder / f"frame_{n:06d}.png" for n in range(1, len(info.times) + 1)]
    try:
        sizes = {(found.width, found.height) for found in map(images.describe, paths)}
    except UserError:
        return None
    return (paths, info) if sizes == {(width, height)} else None
