"""What 8-bit kernels cost: their distance from the exact ones, in every layer, the gradient and the picture.

    python benchmarks/eight_bits.py EXACT EIGHT_BIT --pair photo.jpg,painting.jpg --pair ... [--size 256]

EXACT and EIGHT_BIT are weights files; the layers that both have are compared. The loss has layers of blocks
1 - 3 only, so a file that ends at conv3_4 is enough for EXACT. EIGHT_BIT has to reach conv5_1, because it
judges the finished pictures of both (docs/judge.md). The tables of docs/numerics.md are printed in Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tables import heading

import npstyle
from npstyle import VGG19, Objective, images, preset
from npstyle._typing import AnyArray, Convolution
from npstyle.architecture import CONVOLUTIONS
from npstyle.study import Judge, Judgment
from npstyle.study.judging import trained_weights
from npstyle.weights import Weights

SETTINGS = replace(preset("gram"), content_layers="conv3_3", style_layers="conv1_1,conv2_1,conv3_1,conv3_4")


class Pair(NamedTuple):
    """A content and a style picture, of the size that is painted."""

    name: str
    content: AnyArray
    style: AnyArray


class Painted(NamedTuple):
    """The finished picture of the exact filters, others to compare it with, and the judge's figures."""

    exact: AnyArray
    others: dict[str, AnyArray]
    judgments: dict[str, Judgment]


class Comparison:
    """Two sets of filters, and the layers that both have."""

    def __init__(self, exact: Weights, eight_bit: Weights, size: int, threads: int | None) -> None:
        self.exact = exact
        self.eight_bit = eight_bit
        self.size = size
        self.threads = threads
        self.layers = [name for name in CONVOLUTIONS if name in exact and name in eight_bit]

    def kernels(self) -> Iterator[tuple[str, float]]:
        """Relative error of each kernel; the biases have to be equal."""
        for name in self.layers:
            assert np.array_equal(self.exact[name].bias, self.eight_bit[name].bias), f"{name}: other biases"
            yield name, relative_error(self.eight_bit[name].kernel, self.exact[name].kernel)

    def feature_maps(self, picture: AnyArray) -> list[float]:
        """Relative error of each layer's feature map of a picture."""
        exact, eight_bit = (
            VGG19.for_settings(weights, SETTINGS, threads=self.threads).forward(single(picture), self.layers)
            for weights in (self.exact, self.eight_bit)
        )
        return [relative_error(eight_bit[name], exact[name]) for name in self.layers]

    def gradient(self, pair: Pair, at: AnyArray) -> tuple[float, float, float]:
        """Relative errors of loss and gradient at a picture, and the cosine between the two gradients."""
        (loss, exact), (other, eight_bit) = (
            Objective(
                VGG19.for_settings(weights, SETTINGS, threads=self.threads),
                single(pair.content),
                [single(pair.style)],
                SETTINGS,
            )(single(at))
            for weights in (self.exact, self.eight_bit)
        )
        cosine = np.vdot(exact, eight_bit) / np.linalg.norm(exact) / np.linalg.norm(eight_bit)
        return abs(other / loss - 1), relative_error(eight_bit, exact), float(cosine)

    def paint(self, pair: Pair, weights: Weights, convolution: Convolution = "auto") -> AnyArray:
        return npstyle.stylize(
            pair.content,
            pair.style,
            settings=SETTINGS,
            weights=weights,
            size=self.size,
            convolution=convolution,
            threads=self.threads,
        ).image

    def painted(self, pair: Pair) -> Painted:
        """A run with each set of filters, and one with the exact ones that only rounds otherwise."""
        exact = self.paint(pair, self.exact)
        others = {
            "8 bits": self.paint(pair, self.eight_bit),
            "im2col": self.paint(pair, self.exact, "im2col"),
        }
        judge = Judge(pair.content, pair.style, trained_weights(self.eight_bit), self.threads)
        judgments = {name: judge(picture) for name, picture in {"exact": exact, **others}.items()}
        return Painted(exact, {**others, "content picture": pair.content}, judgments)


def relative_error(x: AnyArray, exact: AnyArray) -> float:
    """|x - exact| / |exact|, Euclidean norms."""
    return float(np.linalg.norm(np.float64(x) - exact) / np.linalg.norm(np.float64(exact)))


def single(picture: AnyArray) -> AnyArray:
    return np.asarray(picture, np.float32)


def table(columns: list[str], rows: Iterator[list[str]] | list[list[str]]) -> None:
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)
    print(flush=True)


def print_layers(comparison: Comparison, pairs: list[Pair]) -> None:
    """A row for each layer: kernel, then feature maps of every photograph and painting."""
    pictures = {}
    for pair in pairs:
        photo, painting = pair.name.split(" x ")
        pictures[photo], pictures[painting] = pair.content, pair.style
    by_picture = [comparison.feature_maps(picture) for picture in pictures.values()]
    rows = [
        [name, f"{kernel:.2%}", *(f"{errors[n]:.2%}" for errors in by_picture)]
        for n, (name, kernel) in enumerate(comparison.kernels())
    ]
    print("### Relative error of kernels, and of the feature maps of each picture\n")
    table(["layer", "kernel", *pictures], rows)


def print_gradients(comparison: Comparison, pairs: list[Pair], painted: list[Painted]) -> None:
    rows = []
    for pair, result in zip(pairs, painted, strict=True):
        for place, picture in (("content picture", pair.content), ("finished picture", result.exact)):
            loss, gradient, cosine = comparison.gradient(pair, picture)
            rows.append([pair.name, place, f"{loss:.2%}", f"{gradient:.1%}", f"{cosine:.4f}"])
    print("### Relative errors of loss and gradient\n")
    table(["pair", "at", "loss", "gradient", "cosine of the angle"], rows)


def print_pictures(pairs: list[Pair], painted: list[Painted]) -> None:
    """What 8 bits change in the finished picture, what rounding alone, and what painting has changed."""
    rows = []
    for pair, result in zip(pairs, painted, strict=True):
        cells = []
        for picture in result.others.values():
            difference = np.abs(picture.astype(int) - result.exact)
            cells.append(f"{difference.mean():.2f}, {difference.max()}")
        judged = [f"{j.missing_style:.4f}, {j.lost_content:.4f}" for j in result.judgments.values()]
        rows.append([pair.name, *cells, *judged])
    differences = [f"{name}: mean, maximum" for name in painted[0].others]
    print("### Finished pictures: difference of 255 from that of the exact filters, and the judge\n")
    table(["pair", *differences, *(f"E, C of {name}" for name in painted[0].judgments)], rows)


def pair_of(paths: str, size: int) -> Pair:
    content, style = paths.split(",")
    pictures = (images.fit(images.read(path), size) for path in (content, style))
    return Pair(f"{Path(content).stem} x {Path(style).stem}", *pictures)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("exact", metavar="EXACT")
    add("eight_bit", metavar="EIGHT_BIT")
    add("--pair", metavar="CONTENT,STYLE", action="append", required=True)
    add("--size", type=int, default=256)
    add("--threads", type=int)
    options = parser.parse_args()
    exact = npstyle.load_weights(options.exact, deepest="conv3_4")
    eight_bit = npstyle.load_weights(options.eight_bit)
    pairs = [pair_of(paths, options.size) for paths in options.pair]
    comparison = Comparison(exact, eight_bit, options.size, options.threads)
    heading()
    sizes = ", ".join(f"{p.name} {p.content.shape[1]} x {p.content.shape[0]}" for p in pairs)
    layers = f"content {','.join(SETTINGS.content_layers)}, style {','.join(SETTINGS.style_layers)}"
    print(f"float32; {sizes} pixels; {layers}, the rest as in the default recipe: {SETTINGS}\n")
    print_layers(comparison, pairs)
    painted = [comparison.painted(pair) for pair in pairs]
    print_gradients(comparison, pairs, painted)
    print_pictures(pairs, painted)


if __name__ == "__main__":
    main()
