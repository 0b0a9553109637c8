"""Peak memory of each stage of a run besides the network, in bytes a pixel (Linux).

    python benchmarks/run_stages.py [--size 2880] [--stages read,write]

Each stage runs in a process of its own, on a picture of size x size pixels. "inputs" is what it is given,
such as the photograph; "peak" is by how much the resident memory grows beyond that meanwhile.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from npstyle import images
from npstyle._typing import Optimizer
from npstyle.objective import edge_scales
from npstyle.optimize import Minimizer
from npstyle.pixel_losses import edges_loss, total_variation
from npstyle.run.checkpoint import Checkpoint, fingerprint, read, write
from npstyle.run.finish import Finish
from npstyle.run.inputs import Request
from npstyle.run.level import Level, resampled
from npstyle.settings import Settings

Array = NDArray[Any]
Stage = Callable[[int, Path], tuple[Any, Callable[[], Any]]]
STAGES: dict[str, Stage] = {}


def stage(name: str) -> Callable[[Stage], Stage]:
    """A function of a size and a folder, which returns the inputs of a stage, and the stage."""

    def register(function: Stage) -> Stage:
        STAGES[name] = function
        return function

    return register


def photo(size: int) -> NDArray[np.uint8]:
    """Smooth, with some noise, made in rows."""
    picture = np.empty((size, size, 3), np.uint8)
    rng, x = np.random.default_rng(0), np.linspace(0, 255, size, dtype=np.float32)
    for row in range(size):
        values = np.stack([x, x[::-1], np.full(size, x[row])], axis=1)
        picture[row] = np.clip(values + rng.normal(0, 4, (size, 3)), 0, 255)
    return picture


def painted(size: int) -> NDArray[np.float32]:
    return photo(size).astype(np.float32)


def request(size: int, color: str = "style", masks: bool = False, **changes: Any) -> Request:
    settings = Settings(color=color, **changes)  # type: ignore[arg-type]
    mask = np.zeros((size, size), np.float32)
    mask[: size // 2] = 1
    given: dict[str, Any] = {"content_masks": (mask,), "style_masks": (np.ones((64, 64), np.float32),)}
    picture, style = photo(size), photo(64)
    return Request(picture, (style,), settings, size, **(given | {"keep": mask} if masks else {}))


# ------------------------------------------------------------------------------------------------
# Reading
# ------------------------------------------------------------------------------------------------


def _file(kind: str) -> Stage:
    def prepare(size: int, folder: Path) -> tuple[Any, Callable[[], Any]]:
        path = folder / kind
        picture = photo(size)
        if kind == "16.tif":
            images.write(path, picture, depth=16)
        elif kind == "gray16.png":
            Image.fromarray(picture[:, :, 0].astype(np.uint16) * 257).save(path)
        elif kind == "profile.jpg":
            profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
            other = profile[:24] + bytes(12) + profile[36:]
            Image.fromarray(picture).save(path, icc_profile=other)
        elif kind == "rotated.jpg":
            exif = Image.Exif()
            exif[0x0112] = 6
            Image.fromarray(picture).save(path, exif=exif)
        elif kind == "alpha.png":
            images.write(path, picture, alpha=picture[:, :, 0])
        else:
            images.write(path, picture)
        del picture
        return None, lambda: images.read(path)

    return prepare


for _kind in (
    "rgb.jpg",
    "rgb.png",
    "rgb.tif",
    "16.tif",
    "gray16.png",
    "profile.jpg",
    "rotated.jpg",
    "alpha.png",
):
    STAGES[f"read {_kind}"] = _file(_kind)


@stage("Request.read, of arrays")
def _request(size: int, folder: Path) -> tuple[Any, Callable[[], Any]]:
    picture = photo(size)
    return picture, lambda: Request.read(picture, picture[:64], settings="default", size=size)


@stage("Request.read, masks")
def _request_masks(size: int, folder: Path) -> tuple[Any, Callable[[], Any]]:
    given = request(size, masks=True)
    masks = given.content_masks, given.style_masks
    return given, lambda: Request.read(
        given.content,
        given.styles,
        settings="default",
        size=size,
        keep=given.keep,
        content_masks=masks[0],
        style_masks=masks[1],
    )


@stage("fingerprint")
def _fingerprint(size: int, folder: Path) -> tuple[Any, Callable[[], Any]]:
    given = request(size)
    return given, lambda: fingerprint(given, {})


# ------------------------------------------------------------------------------------------------
# Levels
# ------------------------------------------------------------------------------------------------


@stage("content to the level below")
def _resize(size: int, folder: Path) -> tuple[Any, Callable[[], Any]]:
    picture, below = photo(size), round(size / 2**0.5)
    return picture, lambda: images.resize(picture, below, below)


@stage("result of the level below to this one")
def _resample(size: int, folder: Path) -> tuple[Any, Callable[[], Any]]:
    picture = painted(round(size / 2**0.5))
    return picture, lambda: resampled(picture, size, size, Settings())


@stage("the same, wrap")
def _resample_wrapped(size: int, folder: Path) -> tuple[Any, Callable[[], Any]]:
    picture = painted(round(size / 2**0.5))
    return picture, lambda: resampled(picture, size, size, Settings(padding="wrap"))


def _level(color: str, masks: bool = False) -> Stage:
    def prepare(size: int, folder: Path) -> tuple[Any, Callable[[], Any]]:
        given = request(size, color, masks)
        return given, lambda: Level(given, size, size)

    return prepare


def _start(masks: bool, **settings: Any) -> Stage:
    def prepare(size: int, folder: Path) -> tuple[Any, Callable[[], Any]]:
        level = Level(request(size, masks=masks, **settings), size, size)
        return level, lambda: level.start(None, "caffe")

    return prepare


def _finish(color: str, masks: bool = False) -> Stage:
    def prepare(size: int, folder: Path) -> tuple[Any, Callable[[], Any]]:
        finish, pixels = Finish(request(size, color, masks), size, size), painted(size)
        return (finish, pixels), lambda: images.to_uint8(finish(pixels))

    return prepare


for _color in ("style", "luma", "match", "luminance"):
    STAGES[f"level, --color {_color}"] = _level(_color)
STAGES["level, two masks and keep"] = _level("style", masks=True)
STAGES["start, content"] = _start(masks=False)
STAGES["start, noise"] = _start(masks=False, init="noise")
STAGES["start, keep"] = _start(masks=True)
for _color in ("style", "luma", "luminance"):
    STAGES[f"finish, --color {_color}"] = _finish(_color)
STAGES["finish, keep"] = _finish("style", masks=True)


# ------------------------------------------------------------------------------------------------
# Losses of pixels
# ------------------------------------------------------------------------------------------------


def _variation(form: Any) -> Stage:
    def prepare(size: int, folder: Path) -> tuple[Any, Callable[[], Any]]:
        pixels = painted(size)
        return pixels, lambda: total_variation(pixels, 1.0, form)

    return prepare


for _form in ("mean-squares", "sum-squares", "power-1.25", "nine-point"):
    STAGES[f"total variation, {_form}"] = _variation(_form)


@stage("scales of edges")
def _scales(size: int, folder: Path) -> tuple[Any, Callable[[], Any]]:
    picture = photo(size)
    return picture, lambda: edge_scales(picture, Settings(keep_edges=0.2))


@stage("edges")
def _edges(size: int, folder: Path) -> tuple[Any, Callable[[], Any]]:
    picture, pixels = photo(size), painted(size)
    return (picture, pixels), lambda: edges_loss(pixels, picture, {4: 1.0, 16: 1.0})


# ------------------------------------------------------------------------------------------------
# Optimizer, checkpoints
# ------------------------------------------------------------------------------------------------


class Parabola:
    """1/2 sum (x - 100)^2, in rows."""

    terms: Mapping[str, float] = MappingProxyType({})

    def __call__(self, pixels: Any) -> tuple[float, Array]:
        gradient = np.subtract(pixels, np.float32(100), dtype=np.float32)
        scales = np.linspace(0.1, 2, len(gradient), dtype=np.float32)
        value = 0.0
        for row, scale in zip(gradient, scales, strict=True):
            value += float(scale / 2 * np.sum(row * row, dtype=np.float64))
            row *= scale
        return value, gradient


def minimized(size: int, optimizer: Optimizer, maxcor: int, iterations: int = 12) -> Minimizer:
    settings = Settings(optimizer=optimizer, maxcor=maxcor, iterations=iterations)
    minimizer = Minimizer(Parabola(), painted(size), settings, lambda *_: None)
    minimizer.run()
    return minimizer


def _optimizer(optimizer: Optimizer, maxcor: int) -> Stage:
    return lambda size, folder: (None, lambda: minimized(size, optimizer, maxcor))


def _checkpoint(optimizer: Optimizer, maxcor: int) -> Stage:
    def prepare(size: int, folder: Path) -> tuple[Any, Callable[[], Any]]:
        minimizer = minimized(size, optimizer, maxcor)
        path = folder / "run.npz"

        def run() -> str:
            write(path, Checkpoint({}, (), minimizer.state))
            return f"{path.stat().st_size / size**2:.1f} bytes a pixel on disk"

        return minimizer, run

    return prepare


def _resumed(optimizer: Optimizer, maxcor: int) -> Stage:
    def prepare(size: int, folder: Path) -> tuple[Any, Callable[[], Any]]:
        path = folder / "run.npz"
        write(path, Checkpoint({}, (), minimized(size, optimizer, maxcor).state))
        settings = Settings(optimizer=optimizer, maxcor=maxcor)
        start = painted(size)

        def run() -> Minimizer:
            return Minimizer(Parabola(), start, settings, None, read(path).state)

        return start, run

    return prepare


OPTIMIZERS: list[tuple[Optimizer, int]] = [("lbfgs", 10), ("lbfgs32", 10), ("lbfgs32", 3), ("adam", 10)]
for _name, _maxcor in OPTIMIZERS:
    _title = _name if _name == "adam" else f"{_name}, {_maxcor} pairs"
    STAGES[f"optimizer, {_title}"] = _optimizer(_name, _maxcor)
    STAGES[f"checkpoint, {_title}"] = _checkpoint(_name, _maxcor)
    STAGES[f"resume, {_title}"] = _resumed(_name, _maxcor)


# ------------------------------------------------------------------------------------------------
# Writing
# ------------------------------------------------------------------------------------------------


def _written(name: str, depth: int) -> Stage:
    def prepare(size: int, folder: Path) -> tuple[Any, Callable[[], Any]]:
        picture: Array = photo(size) if depth == 8 else painted(size)
        path = folder / name

        def run() -> str:
            images.write(path, picture, depth=depth)
            return f"{path.stat().st_size / size**2:.1f} bytes a pixel on disk"

        return picture, run

    return prepare


for _kind, _depth in (("a.png", 8), ("a.jpg", 8), ("a.webp", 8), ("a.tif", 8), ("a.png", 16), ("a.tif", 16)):
    STAGES[f"write {_kind}, {_depth} bits"] = _written(_kind, _depth)


# ------------------------------------------------------------------------------------------------
# Measuring
# ------------------------------------------------------------------------------------------------


def resident() -> int:
    """Bytes of this process that are in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def highest() -> int:
    """The most there has been since `measure` began."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def measure(name: str, size: int) -> str:
    """A row of the table, of the stage in this process."""
    with tempfile.TemporaryDirectory() as folder:
        STAGES[name](64, Path(folder))[1]()  # libraries are loaded
        for file in Path(folder).iterdir():
            file.unlink()
        before = resident()
        inputs, run = STAGES[name](size, Path(folder))
        given = resident()
        Path("/proc/self/clear_refs").write_text("5")  # the highest so far is now that of this moment
        began = time.perf_counter()
        result = run()
        seconds, peak = time.perf_counter() - began, highest() - given
    note = result if isinstance(result, str) else ""
    del inputs
    pixels = size**2
    return f"{name} | {(given - before) / pixels:.0f} | {peak / pixels:.0f} | {seconds:.1f} | {note}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=2880)
    parser.add_argument("--stages", default="", help="words that are in their names (all)")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        print(measure(options.stage, options.size))
        return
    words = options.stages.split(",")
    print("| stage | inputs | peak | seconds | |\n|---|---|---|---|---|")
    for name in STAGES:
        if not any(word in name for word in words):
            continue
        arguments = [sys.executable, __file__, "--size", str(options.size), "--stage", name]
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads or 2)}
        ended = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
        print(f"| {ended.stdout.strip() or name + ' | failed: ' + ended.stderr.strip()[-150:]} |", flush=True)


if __name__ == "__main__":
    main()
