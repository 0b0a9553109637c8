"""Small valid files of every kind, which mutations start from."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from npstyle._typing import Optimizer

Seeds = dict[str, list[bytes]]
OPTIMIZERS: tuple[Optimizer, ...] = ("lbfgs", "lbfgs32", "adam")


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
        images.write(
            folder / name, colors, overwrite=True, depth=16, alpha=alpha, text={"note": "interrupted"}
        )
        yield (folder / name).read_bytes()


def weights(folder: Path) -> Iterator[bytes]:
    """Files with conv1_1 alone, written by the functions of the tests."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
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
    contents = torch.Contents().add_layers(one)
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


def run(path: Path, optimizer: Optimizer, **options: Any) -> None:
    """A short run that writes checkpoints."""
    import npstyle
    from npstyle.weights import random_weights

    picture = np.random.default_rng(2).integers(0, 256, (16, 17, 3), dtype=np.uint8)
    settings = npstyle.Settings(
        content_layers=("conv1_1",), style_layers=("conv1_1",), iterations=3, optimizer=optimizer
    )
    filters = random_weights(0, "conv1_1")
    npstyle.stylize(picture, picture[::-1], settings=settings, weights=filters, checkpoint=path, **options)


def resumed(folder: Path) -> Iterator[bytes]:
    """Checkpoints that a run resumes from, one of each optimizer."""
    for optimizer in OPTIMIZERS:
        path = folder / f"{optimizer}.npz"
        run(path, optimizer, checkpoint_every=0.0)
        yield path.read_bytes()


def registries() -> Iterator[bytes]:
    entry = {"name": "a.h5", "checksum": "md5:" + 32 * "0", "addresses": [], "megabytes": 5}
    short = {"name": "b.pth", "checksum": "sha256-prefix:01234567", "addresses": []}
    yield json.dumps({"files": [entry, short]}).encode()
    yield b'{"files": []}'
