"""Bad input: files of every kind and command lines, mutated at random, and what npstyle makes of them.

    python tests/fuzz/fuzz.py --count 10000 --seed 1 --keep findings

Whatever comes in, there is to be a result, or a UserError of one short line that no terminal obeys; never
another exception, another warning, a word on standard error from a library below, a hang, or more memory than
MEMORY. Of a command line: exit status 0, 1 or 2, and at most one line on standard error.

The inputs are made here, and given to a second process, which may come to any end. An input depends on seed,
kind and number alone: `--kind weights --first 1234 --count 1 --seed 1` makes one of them again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import traceback
import unicodedata
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

SECONDS = 10  # for each input
MEMORY = 2 << 30  # bytes beyond those at the start, in use; twice as many may be asked for
LONGEST_LINE = 2000
SEVERAL = 500  # inputs that are made at a time

Rng = np.random.Generator
Seeds = dict[str, list[bytes]]
OPTIMIZERS: tuple[Literal["lbfgs"], Literal["adam"]] = ("lbfgs", "adam")

# -- what mutations begin with ---------------------------------------------------------------------------


def seeds(folder: Path) -> Seeds:
    """Small good files of every kind."""
    return {
        "pictures": list(pictures(folder)),
        "weights": list(weights(folder)),
        "checkpoints": list(checkpoints(folder)),
        "resumed": list(resumed(folder)),
        "registries": list(registries()),
    }


def pictures(folder: Path) -> Iterator[bytes]:
    from PIL import Image

    from npstyle import images

    rng = np.random.default_rng(1)
    colors = rng.integers(0, 256, (9, 13, 3), dtype=np.uint8)
    alpha = rng.integers(0, 256, (9, 13), dtype=np.uint8)
    rgb, rgba = Image.fromarray(colors), Image.fromarray(np.dstack([colors, alpha]))
    exif = Image.Exif()
    exif[274], exif[270] = 6, json.dumps({"npstyle": {"size": "16"}})
    profile = images.srgb_profile()
    deep = Image.fromarray((rng.integers(0, 65536, (9, 13))).astype(np.uint16))
    floats = Image.fromarray(rng.random((9, 13), np.float32))

    def saved(image: Image.Image, form: str, **options: Any) -> bytes:
        file = io.BytesIO()
        image.save(file, form, **options)
        return file.getvalue()

    for form in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "TGA", "ICO", "PCX", "JPEG2000", "SGI"):
        yield saved(rgb, form)
    for form in ("PNG", "JPEG", "WEBP", "TIFF"):
        yield saved(rgb, form, icc_profile=profile, exif=exif)
    for form in ("PNG", "WEBP", "TIFF", "GIF"):
        yield saved(rgba, form)
    for mode in ("P", "1", "L", "LA", "CMYK"):
        for form in ("PNG", "TIFF", "JPEG", "GIF"):
            with contextlib.suppress(OSError, ValueError):  # not every format has every mode
                yield saved(rgb.convert(mode), form)
    yield saved(rgb.convert("P"), "PNG", transparency=3)
    yield saved(rgb, "PNG", icc_profile=b"no profile at all")
    yield saved(rgb, "GIF", save_all=True, append_images=[rgba], comment=b"two")
    for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg"):
        yield saved(rgb, "TIFF", compression=compression)
    for image in (deep, floats):
        yield saved(image, "TIFF")
    yield saved(deep, "PNG")
    for name in ("x.png", "x.jpg", "x.tif", "x.webp"):
        images.write(folder / name, colors, text={"content": "a.jpg", "style": "b.jpg", "size": "16"})
        yield (folder / name).read_bytes()
    for name in ("x.png", "x.tif"):
        images.write(folder / name, colors, depth=16, alpha=alpha, text={"note": "interrupted"})
        yield (folder / name).read_bytes()


def weights(folder: Path) -> Iterator[bytes]:
    """Files with conv1_1 alone, written by what the tests have for it."""
    from scipy.io import loadmat, savemat

    import test_statedict as torch
    import test_weights as others
    from npstyle.weights import Weights, random_weights, write_weights

    path = folder / "weights"
    one = others.filters("conv1_1")
    for write in others.WRITERS.values():
        write(path, one)
        yield path.read_bytes()
    others.mat(path, one)
    savemat(path, {"meta": {"a": [1.0, 2.0]}, "layers": loadmat(path)["layers"]}, do_compression=True)
    yield path.read_bytes()
    with path.open("wb") as file:
        np.savez_compressed(
            file, **{f"conv1_1/{name}": array for name, array in one["conv1_1"]._asdict().items()}
        )
    yield path.read_bytes()
    for name in ("x.npz", "x.h5"):
        good = Weights(random_weights(1, "conv1_1"), "", preprocessing="torchvision")
        yield write_weights(folder / name, good, overwrite=True).read_bytes()
    contents = torch.Contents().put(one)
    for protocol in (2, 4):
        torch.zipped(path, contents, protocol=protocol)
        yield path.read_bytes()
        torch.legacy(path, contents, protocol=protocol)
        yield path.read_bytes()
    torch.safetensors(path, torch.flat(one))
    yield path.read_bytes()


def checkpoints(folder: Path) -> Iterator[bytes]:
    from npstyle.run import LevelResult, checkpoint

    rng = np.random.default_rng(1)
    level = LevelResult(8, 6, 0.5, [2.0, 0.5], 1, 2, True, "did it")
    states: list[dict[str, Any]] = [
        {},
        {"x": rng.random(30), "t": np.array(3), "pixels": rng.random((4, 5, 3), np.float32)},
    ]
    for state in states:
        checkpoint.write(folder / "c.npz", checkpoint.Checkpoint({"size": "16", "é": "\n"}, (level,), state))
        yield (folder / "c.npz").read_bytes()


def run(path: Path, optimizer: Literal["lbfgs", "adam"], **options: Any) -> None:
    """A short run that keeps its state in a file."""
    import npstyle
    from npstyle.weights import random_weights

    picture = np.random.default_rng(2).integers(0, 256, (16, 17, 3), dtype=np.uint8)
    settings = npstyle.Settings(
        content_layers=("conv1_1",), style_layers=("conv1_1",), iterations=3, optimizer=optimizer
    )
    filters = random_weights(0, "conv1_1")
    npstyle.stylize(picture, picture[::-1], settings=settings, weights=filters, checkpoint=path, **options)


def resumed(folder: Path) -> Iterator[bytes]:
    """What a run goes on from, after each optimizer."""
    for optimizer in OPTIMIZERS:
        run(folder / "r.npz", optimizer, checkpoint_every=0.0)
        yield (folder / "r.npz").read_bytes()


def registries() -> Iterator[bytes]:
    entry = {"name": "a.h5", "checksum": "md5:" + 32 * "0", "addresses": [], "megabytes": 5}
    short = {"name": "b.pth", "checksum": "sha256-prefix:01234567", "addresses": []}
    yield json.dumps({"files": [entry, short]}).encode()
    yield b'{"files": []}'


# -- mutations --------------------------------------------------------------------------------------------

NUMBERS = [
    struct.pack(code, value)
    for code in ("<I", ">I", "<H", ">H", "<Q", ">Q", "<i", ">i")
    for value in (0, 1, 2, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF, 1 << 31, 1 << 16)
    if value < 1 << (8 * struct.calcsize(code) - (code[1] == "i"))
]
TOKENS = [
    *(b"null", b"[]", b"{}", b"-1", b"1e400", b"NaN", b'"\\u0000"', b'"\\ud800"', b"true", b"0.5", b'""'),
    *(b"9" * 30, b"[" * 3000, b"-" * 3000, b"'|O'", b"'<U99999999'", b"(1" + b"0" * 18 + b",)", b"\x1b[2J"),
    *(b"'<f8'", b"True", b"(-1,)", b"()", b"\n", b"\r\n", b"../", b"/dev/zero", b"%s", b"cos\nsystem\n"),
]


def mutated(rng: Rng, data: bytes, others: Sequence[bytes]) -> bytes:
    """One to six changes; inside zip files and PNG chunks often with their checksums made right again."""
    if rng.random() < 0.6:
        if data.startswith(b"{"):
            return _reworded(rng, data)
        if data[4:9] == b"\0\0\0\0{":  # safetensors
            (length,) = struct.unpack("<Q", data[:8])
            header = _reworded(rng, data[8 : 8 + length])
            return struct.pack("<Q", len(header)) + header + data[8 + length :]
        if data.startswith(b"PK\3\4"):
            return _rezipped(rng, data, others)
        if data.startswith(b"\x89PNG"):
            return _rechunked(rng, data)
    for _ in range(rng.integers(1, 7)):
        data = _changed(rng, data, others)
    return data


def _changed(rng: Rng, data: bytes, others: Sequence[bytes]) -> bytes:
    kind = rng.integers(9)
    # Headers stand at the beginning more often than not.
    reach = min(len(data), 1 << int(rng.integers(3, 18)))
    at = int(rng.integers(reach)) if reach else 0
    length = min(len(data) - at, int(2 ** (rng.random() * 10)))
    if kind == 0 and data:
        flipped = data[at] ^ (1 << int(rng.integers(8)))
        return data[:at] + bytes([flipped]) + data[at + 1 :]
    if kind == 1:
        return data[:at]
    if kind == 2:
        other = others[int(rng.integers(len(others)))]
        begin = int(rng.integers(len(other) + 1))
        return data[:at] + other[begin : begin + int(2 ** (rng.random() * 12))] + data[at:]
    if kind == 3:
        return data[: at + length] * 2 + data[at + length :]
    if kind in (4, 5):
        number = NUMBERS[rng.integers(len(NUMBERS))]
        return data[:at] + number + data[at + len(number) :]
    if kind == 6:
        return data[:at] + bytes(length) + data[at + length :]
    if kind == 7:
        token = TOKENS[rng.integers(len(TOKENS))]
        return data[:at] + token + data[at + (len(token) if rng.random() < 0.5 else 0) :]
    return data[:at] + rng.bytes(length) + data[at + length :]


ODD_VALUES: list[Any] = [
    *(None, True, 0, -1, 0.5, 1e308, 10**30, 1 << 63, "", "a" * 9999, "\0", "\ud800", "\x1b[2J", "../../x"),
    *([], [[]], {}, {"a": {}}, [0] * 9, [1 << 40, 1 << 40], "F64", "sha256:" + "0" * 64, float("nan")),
]


def _reworded(rng: Rng, text: bytes) -> bytes:
    """JSON with one value or key replaced, or left out."""
    whole = json.loads(text)
    places: list[tuple[Any, Any]] = []

    def look(into: Any) -> None:
        for key in into if isinstance(into, dict) else range(len(into)):
            places.append((into, key))
            if isinstance(into[key], (dict, list)):
                look(into[key])

    look(whole)
    into, key = places[rng.integers(len(places))]
    odd = ODD_VALUES[rng.integers(len(ODD_VALUES))]
    what = rng.random()
    if what < 0.1:
        del into[key]
    elif what < 0.2 and isinstance(into, dict):
        into[str(odd)] = into.pop(key)
    else:
        into[key] = odd
    return json.dumps(whole).encode()


def _rezipped(rng: Rng, data: bytes, others: Sequence[bytes]) -> bytes:
    """A member changed, left out, or named otherwise."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as before, zipfile.ZipFile(made, "w") as after:
        infos = before.infolist()
        chosen = int(rng.integers(len(infos)))
        what = rng.random()
        for index, info in enumerate(infos):
            name, content, method = info.filename, before.read(info), info.compress_type
            if index == chosen and what < 0.1:
                continue
            if index == chosen and what < 0.2:
                name = infos[rng.integers(len(infos))].filename + "\x1b"[: int(rng.integers(2))]
            elif index == chosen and what < 0.3:
                method = [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA][rng.integers(3)]
            elif index == chosen and what < 0.7 and content.startswith(b"{"):
                content = _reworded(rng, content)
            elif index == chosen:
                for _ in range(rng.integers(1, 4)):
                    content = _changed(rng, content, others)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # two members of one name
                after.writestr(name, content, method)
    return made.getvalue()


def _rechunked(rng: Rng, data: bytes) -> bytes:
    """Chunks changed, repeated, left out, each with its checksum."""
    at, parts = 8, []
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        parts.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    chosen = int(rng.integers(len(parts)))
    kind, content = parts[chosen]
    what = rng.random()
    if what < 0.1:
        del parts[chosen]
    elif what < 0.2:
        parts.insert(chosen, parts[rng.integers(len(parts))])
    elif what < 0.3 and kind in (b"zTXt", b"iTXt", b"tEXt"):
        parts[chosen] = (b"zTXt", b"npstyle\0\0" + zlib.compress(bytes(10**7)))
    else:
        parts[chosen] = (kind, _changed(rng, content, [content]))
    chunks = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in parts]
    return data[:8] + b"".join(chunks)


# -- command lines ----------------------------------------------------------------------------------------

ODD = [
    *("", " ", "nan", "inf", "-inf", "1e400", "-1", "0", "1e-400", "9" * 30, "9" * 5000, "0x10", "1_000"),
    *("é", "\u202e", "\n", "\x1b[2J", "\udcff", "a" * 5000, "/", ".", "..", "-", "--", "~", "\uff11", "None"),
    *("conv1_1", "conv1_1:nan", "conv1_1:", ":1", "conv1_1,conv1_1", "conv9_9", "conv1_1:1e400", ",", "1,,2"),
    *("1,2", "nan,1", "0,0", "-1,2", "PHOTO", "BAD", "WEIGHTS", "NEW.png", "NEW.gif", "NEW.npz", "FOLDER"),
    *("content", "noise", "random", "imagenet", "auto", "luma", "match", "paper", "1.5", "16", "17", "1"),
]
SWITCHES = (
    "--overwrite",
    "--force",
    "--alpha",
    "--no-normalize-layer-weights",
    "--style-as-content",
    "--resume",
)
WITH_VALUE = (
    *("--size", "--seed", "--weights", "--preprocessing", "--convolution", "--threads", "--save-every"),
    *("--depth", "--blend", "--style-scale", "--content-mask", "--style-mask", "--keep-mask", "--iterations"),
    *("--min-size", "--content-weight", "--style-weight", "--tv-weight", "--content-layers", "--init"),
    *(
        "--style-layers",
        "--content-layer-balance",
        "--style-layer-exponent",
        "--scaling",
        "--tv-form",
        "--mixture",
    ),
    *("--pooling", "--padding", "--init-noise", "--noise-std", "--optimizer", "--learning-rate", "--maxcor"),
    *("--color", "--preset", "--output", "--checkpoint", "--no-such-option"),
)
COMMANDS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("show", "PHOTO"), ("PHOTO", "BAD", "--version")),
    (("info",), ("--x",)),
    (("presets",), ("--x",)),
    (("weights", "list"), ("--x",)),
    (("weights", "fetch"), ("--x",)),
    (("weights", "verify", "WEIGHTS"), ("--preprocessing", "BAD")),
    (("weights", "convert", "WEIGHTS", "NEW.npz"), ("--preprocessing", "--overwrite", "NEW.h5")),
    (
        ("weights", "normalize", "WEIGHTS", "PHOTO", "-o", "NEW.npz"),
        ("--floor", "--size", "--pooling", "--preprocessing", "--overwrite", "-o"),
    ),
)


def words(rng: Rng) -> list[str]:
    """A command line; words in capitals stand for files."""

    def odd() -> str:
        return ODD[rng.integers(len(ODD))]

    if rng.random() < 0.25:
        first, options = COMMANDS[rng.integers(len(COMMANDS))]
        made = list(first)
        for _ in range(rng.integers(0, 4)):
            made.insert(int(rng.integers(1, len(made) + 1)), odd() if rng.random() < 0.5 else options[0])
            made += [options[rng.integers(len(options))], *([odd()] if rng.random() < 0.7 else [])]
        return made
    made = ["PHOTO", "PHOTO", "-o", "NEW.png", "--weights", "WEIGHTS", "--no-checkpoint"]
    made += ["--style-layers", "conv1_1", "--content-layers", "conv1_1"]
    if rng.random() < 0.1:
        made[rng.integers(len(made))] = odd()
    for _ in range(rng.integers(1, 5)):
        what = rng.random()
        if what < 0.15:
            made.append(SWITCHES[rng.integers(len(SWITCHES))])
        elif what < 0.2:
            made.append(odd())
        else:
            option = WITH_VALUE[rng.integers(len(WITH_VALUE))]
            made += [f"{option}={odd()}"] if rng.random() < 0.3 else [option, odd()]
    # What is asked for may be a day's work: the last one counts, after each was looked at.
    return [*made, "--quiet", "--iterations", str(rng.integers(0, 3))]


# -- what is done with them, in the second process -------------------------------------------------------


class FindingError(Exception):
    """What must not be."""


def read_picture(path: Path) -> bool:
    from PIL import Image

    from npstyle import images

    # How many pixels are believed is tested elsewhere; so many cost seconds and gigabytes, as they may.
    Image.MAX_IMAGE_PIXELS = 10**6
    readers = (images.read, images.read_alpha, images.read_mask, images.describe)
    tried = [_tried(partial(reader, path)) for reader in readers]
    return all(tried)


def read_weights_file(path: Path) -> bool:
    from npstyle import weights

    _tried(partial(weights.read_weights, path))
    return _tried(partial(weights.read_weights, path, "conv1_1", preprocessing="caffe"))


def read_checkpoint(path: Path) -> bool:
    from npstyle.run import checkpoint

    return _tried(partial(checkpoint.read, path))


def go_on(path: Path) -> bool:
    tried = [
        _tried(partial(run, path, optimizer, resume=True, checkpoint_every=1e9)) for optimizer in OPTIMIZERS
    ]
    return any(tried)


def read_registry(path: Path) -> bool:
    from npstyle import weights
    from npstyle.weights import download as _download

    os.environ["NPSTYLE_REGISTRY"] = str(path)
    return _tried(_download.registry) & _tried(weights.find)


def run_command(path: Path) -> bool:
    from npstyle.cli.main import main

    folder = path.parent / "at-work"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "FOLDER").mkdir(parents=True)
    for name in ("PHOTO", "BAD", "WEIGHTS"):
        shutil.copy(path.parent / name, folder / name)
    os.chdir(folder)
    os.environ["NPSTYLE_REGISTRY"] = str(path.parent / "empty.json")
    out, err = io.StringIO(), io.StringIO()
    arguments = json.loads(path.read_text())
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status: Any = main(arguments)
        except SystemExit as error:
            status = error.code
    os.chdir(path.parent)
    lines = [line for line in _without_frames(err.getvalue()) if ": its color profile" not in line]
    if status not in (0, 1, 2, None):
        raise FindingError(f"exit status {status}")
    # Of several files to look at, each may have a line.
    most = len(arguments) if arguments[:1] == ["show"] or arguments[:2] == ["weights", "verify"] else 1
    if len(lines) > most or (status in (1, 2) and not lines) or any("Traceback" in line for line in lines):
        raise FindingError(f"exit status {status} with {len(lines)} lines on standard error: {lines}")
    return bool(status == 0)


def _without_frames(text: str) -> Iterator[str]:
    """The lines outside of the warnings that are shown in a frame."""
    inside = False
    for line in text.split("\n"):
        if line.startswith("=" * 70):
            inside = not inside
        elif line and not inside:
            yield line


def _tried(call: Callable[[], object]) -> bool:
    """Whether there was a result, rather than an error in good form; beside it only documented warnings."""
    from npstyle.errors import UserError
    from npstyle.images import ProfileWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        good = True
        try:
            call()
        except UserError as error:
            good, line = False, str(error)
            if type(error.__cause__) in (NameError, AssertionError):  # taken for damage of the file
                raise FindingError(f"{error.__cause__!r}") from error
            if len(line.splitlines()) != 1 or len(line) > LONGEST_LINE:
                raise FindingError(f"not one short line: {line[:300]!r} ({len(line)} characters)") from error
            if any(unicodedata.category(letter) == "Cc" for letter in line):
                raise FindingError(f"a line that a terminal obeys: {line!r}") from error
    for warning in caught:
        if not issubclass(warning.category, (ProfileWarning, ResourceWarning)):
            raise FindingError(f"the warning {warning.category.__name__}: {warning.message}")
        if not str(warning.message).isprintable():
            raise FindingError(f"a warning that a terminal obeys: {str(warning.message)!r}")
    return good


# Each tells whether there was a result.
TARGETS: dict[str, Callable[[Path], bool]] = {
    "pictures": read_picture,
    "weights": read_weights_file,
    "checkpoints": read_checkpoint,
    "resumed": go_on,
    "registries": read_registry,
    "commands": run_command,
}
# Whoever forges a checkpoint to the last checksum may bring down SciPy's routine, which believes its state:
# no such run is promised anything.
USUAL = [kind for kind in TARGETS if kind != "resumed"]


def work(kind: str, folder: Path, first: int, last: int) -> None:
    """Try inputs one after the other and say of each how it went; the process may end at any of them."""
    target = TARGETS[kind]
    target(folder / "warm-up")  # what is imported only once does not count
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 2 * MEMORY, size + 2 * MEMORY))
    said = 0
    for number in range(first, last):
        signal.alarm(SECONDS)
        finding, good = "", False
        try:
            good = target(folder / str(number))
        except FindingError as error:
            finding = str(error)
        except BaseException:
            finding = traceback.format_exc(limit=-6)
        signal.alarm(0)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - peak
        if grown > MEMORY:
            finding, peak = finding + f"{grown / 2**30:.1f} GB of memory", peak + grown
        sys.stderr.flush()
        if os.fstat(2).st_size > said:  # a library wrote there
            text = os.pread(2, 300, said).decode(errors="replace")
            said = os.fstat(2).st_size
            if not _may_speak(folder / str(number)):
                finding += f"standard error: {text!r}"
        print(json.dumps([number, good, finding]), file=REPORT, flush=True)


def _may_speak(path: Path) -> bool:
    """Libtiff tells of damage on standard error, and Pillow has no way to keep it from that."""
    with path.open("rb") as file:
        return file.read(2) in (b"II", b"MM")


REPORT: Any = sys.stdout  # where a second process tells; the command line has standard output for itself


# -- both together -----------------------------------------------------------------------------------------


def inputs(kind: str, made: Seeds, seed: int, numbers: range) -> Iterator[tuple[int, bytes]]:
    """The inputs of that kind and those numbers."""
    for number in numbers:
        rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), number])
        if kind == "commands":
            yield number, json.dumps(words(rng)).encode()
        else:
            group = made[kind]
            yield number, mutated(rng, group[number % len(group)], group)


def outcomes(kind: str, folder: Path, numbers: range) -> Iterator[tuple[int, bool, str]]:
    """Number, whether there was a result, and what is to be told.

    A process that dies is followed by another.
    """
    at = numbers.start
    # One thread: the address space of many would count.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TMPDIR": str(folder)}
    environment |= {"NPSTYLE_CACHE": str(folder / "cache"), "HOME": str(folder)}
    environment.pop("NPSTYLE_WEIGHTS", None)
    while at < numbers.stop:
        command = [sys.executable, "-W", "default", __file__, "--work", kind, str(folder), str(at)]
        with (folder / "stderr").open("w+b") as errors:
            done = subprocess.run(
                [*command, str(numbers.stop)],
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                check=False,
                timeout=SECONDS * (numbers.stop - at) + 60,
            )
            errors.seek(0)
            last_words = errors.read()[-1000:].decode(errors="replace")
        for line in done.stdout.splitlines():
            number, good, finding = json.loads(line)
            yield number, good, finding
            at = number + 1
        if at < numbers.stop:
            end = (
                signal.Signals(-done.returncode).name if done.returncode < 0 else f"status {done.returncode}"
            )
            why = f" (it took more than {SECONDS} s)" if end == "SIGALRM" else ""
            yield at, False, f"the process ended by {end}{why}: {last_words}"
            at += 1


def fuzz(
    kinds: Sequence[str], count: int, seed: int, keep: Path | None = None, first: int = 0
) -> dict[str, Counter[str]]:
    """Try so many inputs of each kind; how many were results, refusals and findings, by kind."""
    results: dict[str, Counter[str]] = {kind: Counter(findings=0) for kind in kinds}
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        made = seeds(folder)
        (folder / "PHOTO").write_bytes(_photo())
        (folder / "BAD").write_bytes(made["pictures"][0][:60])
        (folder / "WEIGHTS").write_bytes(made["weights"][0])
        (folder / "empty.json").write_text('{"files": []}')
        for kind in kinds:
            warm_up = b'["show", "PHOTO"]' if kind == "commands" else made[kind][0]
            (folder / "warm-up").write_bytes(warm_up)
            for begin in range(first, first + count, SEVERAL):
                numbers = range(begin, min(begin + SEVERAL, first + count))
                for number, data in inputs(kind, made, seed, numbers):
                    (folder / str(number)).write_bytes(data)
                for number, good, finding in outcomes(kind, folder, numbers):
                    results[kind]["findings" if finding else "results" if good else "refusals"] += 1
                    if finding:
                        found[_gist(finding)] += 1
                        if found[_gist(finding)] <= 2:
                            _tell(kind, seed, number, finding, folder, keep)
                    (folder / str(number)).unlink()
    return results


def _photo() -> bytes:
    from PIL import Image

    file = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _gist(finding: str) -> str:
    """The last line, without what differs from one input to the next."""
    line = finding.strip().splitlines()[-1]
    return "".join("0" if letter.isdigit() else letter for letter in line)[:100]


def _shortened(text: str) -> str:
    return text if len(text) <= 2000 else f"{text[:500]} ... {text[-1500:]}"


def _tell(
    kind: str,
    seed: int,
    number: int,
    finding: str,
    folder: Path,
    keep: Path | None,
) -> None:
    """Show a finding, and keep what led to it."""
    print(f"-- {kind}, seed {seed}, number {number}:\n{_shortened(finding.strip())}", flush=True)
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / str(number), keep / f"{kind}-{seed}-{number}")


def main() -> int:
    if sys.argv[1:2] == ["--work"]:
        kind, folder, first, last = sys.argv[2:]
        work(kind, Path(folder), int(first), int(last))
        return 0
    parser = argparse.ArgumentParser(description="Mutated input for npstyle.", allow_abbrev=False)
    parser.add_argument("--count", type=int, default=1000, help="inputs of each kind (1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=list(TARGETS), action="append", help="(all but resumed)")
    parser.add_argument("--first", type=int, default=0, help="number of the first input (0)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="copy the first inputs of each finding")
    options = parser.parse_args()
    results = fuzz(options.kind or USUAL, options.count, options.seed, options.keep, options.first)
    for kind, counts in results.items():
        print(f"{kind}: " + ", ".join(f"{counts[what]} {what}" for what in sorted(counts)))
    return int(any(counts["findings"] for counts in results.values()))


if __name__ == "__main__":
    sys.exit(main())
