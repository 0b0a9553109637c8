"""Whole runs whose pictures must not change: every preset, masks, colors, all optimizers, resuming, study.

A refactoring changes no picture. These runs are small, and cover what a run can be asked for. runs.npz has
their pictures and, for each environment, the SHA-256 of the unrounded ones. Write it again only where a
picture is meant to change, and say in the commit which and why:

    python tests/golden/make_runs.py                                              # this environment
    OPENBLAS_CORETYPE=Zen python tests/golden/make_runs.py --instructions avx2    # and another processor's

With --new, only runs that are not on file are made, and added to it; the others stay as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable, Container, Iterator
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import npstyle
from npstyle import _kernels, images, study
from npstyle._typing import Optimizer
from npstyle.weights import Weights

GOLDEN = Path(__file__).with_name("runs.npz")
EXAMPLES = Path(__file__).parents[2] / "examples"
SIZE = 48

Array = NDArray[Any]
Outcome = dict[str, Array]  # pictures by name, float32 as the run ended with them or uint8


def environment() -> dict[str, str]:
    """What the last bits of a picture depend on besides npstyle."""
    from threadpoolctl import threadpool_info

    blas = sorted(
        f"{pool['internal_api']} {pool['version']} {pool.get('architecture')}"
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    )
    packages = {name: version(name) for name in ("numpy", "scipy", "pillow")}
    return {**packages, "blas": "; ".join(blas), "instructions": _kernels.current_isa()}


def checksum(picture: Array) -> str:
    """SHA-256 of a picture's bytes, shape and dtype."""
    array = np.ascontiguousarray(picture)
    return hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode() + array.tobytes()).hexdigest()


class Pictures:
    """What the runs look at: the example pictures, made small, and masks for them."""

    def __init__(self) -> None:
        self.content = images.fit(images.read(EXAMPLES / "content.jpg"), SIZE)
        self.style = images.fit(images.read(EXAMPLES / "style.jpg"), SIZE - 4)
        self.other = np.ascontiguousarray(self.style[::-1, :32])
        H, W, _ = self.content.shape
        h, w, _ = self.style.shape
        self.left = np.tile(np.arange(W) < W // 2, (H, 1)).astype(np.float32)
        self.upper = np.tile((np.arange(h) < h // 2)[:, None], (1, w)).astype(np.float32)
        self.whole = np.ones(self.other.shape[:2], np.float32)


class Runs:
    """All runs by name; each is made when it is called."""

    def __init__(self) -> None:
        self.pictures = Pictures()
        self.weights = npstyle.load_weights("random", seed=0)
        self.torchvision = Weights(self.weights, "random filters", preprocessing="torchvision")
        self.default = replace(npstyle.preset("default"), iterations=3, min_size=34)

    def __iter__(self) -> Iterator[tuple[str, Callable[[], Outcome]]]:
        for options in (self.presets(), self.options(), self.several_styles()):
            for name, arguments in options.items():
                yield name, partial(self.painted, arguments)
        yield "resumed-lbfgs", lambda: self.resumed("lbfgs")
        yield "resumed-adam", lambda: self.resumed("adam")
        yield "reconstruct", self.reconstruct
        yield "texture", self.texture
        yield "figure", self.figure

    def painted(self, arguments: dict[str, Any]) -> Outcome:
        return {"": self.paint(**arguments).pixels}

    def paint(self, styles: Any = None, **options: Any) -> npstyle.StyleResult:
        arguments = {"weights": self.weights, "size": SIZE, "settings": self.default, **options}
        return npstyle.stylize(
            self.pictures.content, self.pictures.style if styles is None else styles, **arguments
        )

    def presets(self) -> dict[str, dict[str, Any]]:
        names = "default paper keras anishathalye jcjohnson gatys-pytorch udacity random"
        return {
            f"preset-{name}": {"settings": npstyle.preset(name), "iterations": 3} for name in names.split()
        }

    def options(self) -> dict[str, dict[str, Any]]:
        p = self.pictures

        def changed(**fields: Any) -> dict[str, Any]:
            return {"settings": replace(self.default, **fields)}

        return {
            "levels": {},
            "im2col": {"convolution": "im2col"},
            "winograd": {"convolution": "winograd"},
            "torchvision": {"weights": self.torchvision},
            "adam": changed(optimizer="adam"),
            "lbfgs32": changed(optimizer="lbfgs32"),
            "wasserstein": changed(statistics="wasserstein"),
            "wrap": {"size": None, "width": 48, "height": 32, **changed(padding="wrap")},
            "luma": changed(color="luma"),
            "match": changed(color="match"),
            "luminance": changed(color="luminance"),
            "keep": {"keep": p.left},
            "keep-luma": {"keep": p.left, **changed(color="luma")},
            "masks": {"content_masks": [p.left, 1 - p.left], "style_masks": [p.upper, 1 - p.upper]},
            "style-scale": {"style_scale": 0.7},
            "noise": {"seed": 5, **changed(init="noise")},
            "noisy-content": {"seed": 6, **changed(init="noisy-content", init_noise=0.3)},
            "init": {"init": np.ascontiguousarray(p.content[:, ::-1])},
            "tv": changed(tv_weight=1e-2),
            "tv-sum-squares": changed(tv_weight=1e-7, tv_form="sum-squares"),
            "layers": changed(content_layers="conv3_3:1,conv2_2:2", style_layers="conv1_1:3,conv2_1:1"),
            "exponent": changed(style_layer_exponent=1.5, style_as_content=True),
            "max-zero": changed(pooling="max", padding="zero", maxcor=4),
        }

    def several_styles(self) -> dict[str, dict[str, Any]]:
        p = self.pictures
        both = [p.style, p.other]
        masks = {"content_masks": [p.left, 1 - p.left], "style_masks": [p.upper, p.whole]}
        return {
            "blend": {"styles": both, "blend": [3, 1]},
            "losses": {"styles": both, "blend": [3, 1], "settings": replace(self.default, mixture="losses")},
            "masks-two-styles": {"styles": both, **masks},
        }

    def resumed(self, optimizer: Optimizer) -> Outcome:
        """A run to its end, one that is interrupted in its second level, and what resuming makes of that."""
        settings = replace(self.default, optimizer=optimizer)

        def interrupt(progress: npstyle.Progress) -> None:
            if progress.iteration == 5:
                raise KeyboardInterrupt

        with tempfile.TemporaryDirectory() as folder:
            whole = self.paint(settings=settings)
            first = self.paint(settings=settings, callback=interrupt, checkpoint=folder)
            second = self.paint(settings=settings, checkpoint=folder, resume=True)
        assert first.interrupted
        assert np.array_equal(whole.pixels, second.pixels)
        return {"interrupted": first.pixels, "resumed": second.pixels}

    def reconstruct(self) -> Outcome:
        options: dict[str, Any] = {"weights": self.weights, "size": SIZE, "iterations": 4, "tv_weight": 1e-3}
        return {"": study.reconstruct(self.pictures.content, "conv3_1", **options).pixels}

    def texture(self) -> Outcome:
        options: dict[str, Any] = {"weights": self.weights, "size": 40, "width": 60, "iterations": 4}
        return {"": study.texture(self.pictures.style, "conv1_1,conv2_1", **options).pixels}

    def figure(self) -> Outcome:
        rows, _ = study.plan("layers", self.weights, iterations=2)
        return {"": study.draw(rows, self.pictures.content, self.pictures.style, self.weights).image}


def all_pictures(without: Container[str] = ()) -> dict[str, Array]:
    """Every picture of every run, by name; without those of some runs."""
    runs = ((name, run) for name, run in Runs() if name not in without)
    return {f"{name} {part}".strip(): picture for name, run in runs for part, picture in run().items()}


def main() -> None:
    """Write the golden file: pictures, and checksums of this environment, beside those of others if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--instructions", metavar="NAME", help="add an environment with these: avx512, avx2, plain"
    )
    parser.add_argument("--new", action="store_true", help="add only runs that are not on file")
    options = parser.parse_args()
    warnings.simplefilter("ignore", npstyle.RandomFiltersWarning)
    _kernels.set_isa(options.instructions)
    here = environment()
    images_of: dict[str, Array] = {}
    entries: list[dict[str, Any]] = []
    if options.instructions or options.new:
        with np.load(GOLDEN) as golden:
            images_of = {name: golden[name] for name in golden.files if name != "entries"}
            entries = json.loads(str(golden["entries"]))
    checksums: dict[str, str] = {}
    if options.new:
        checksums = next((entry["checksums"] for entry in entries if entry["environment"] == here), {})
    runs = all_pictures(without={name.split()[0] for name in checksums})
    checksums |= {name: checksum(picture) for name, picture in runs.items()}
    images_of = {name: images.to_uint8(picture) for name, picture in runs.items()} | images_of
    others = [entry for entry in entries if entry["environment"] != here]
    entries = [*others, {"environment": here, "checksums": checksums}]
    arrays: dict[str, Any] = {"entries": np.array(json.dumps(entries)), **images_of}
    np.savez_compressed(GOLDEN, **arrays)
    kilobytes = GOLDEN.stat().st_size / 1000
    print(f"{GOLDEN.name}: {len(runs)} pictures, {len(entries)} environments, {kilobytes:.0f} kB")


if __name__ == "__main__":
    main()
