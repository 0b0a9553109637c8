"""Compute presets.npz: losses and gradients of every published system, differentiated by PyTorch.

    python tests/golden/make_presets.py

Run by hand, in an environment with PyTorch. Only the random filters come from npstyle. The formulas of the
systems are written out again, independently of npstyle's settings, losses and layers. Everything is float64.

Notation: F, P, F_a are one layer's feature maps of the generated, the content and a style picture as (M, C)
matrices, M = height x width; G = F'F, A = F_a'F_a.
"""

from __future__ import annotations

import json
import platform
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

import npstyle

Tensor = Any  # torch.Tensor; so that type checks do not need PyTorch
Features = dict[str, Tensor]
Terms = dict[str, Tensor]

FILTERS = npstyle.load_weights("random", seed=0, deepest="conv5_2")
BLOCKS = (2, 2, 4, 4, 2)  # convolutions; the fifth block ends with the last layer that any system uses
MEAN_BGR = (103.939, 116.779, 123.68)
FIVE = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
# Cases of these sizes have the gradient of the content loss, too: in the sum, some systems' style dwarfs it.
# In the first, conv5_1 has one position, and so no standard deviation that could be differentiated.
SIZES_WITH_CONTENT = ((17, 20), (32, 20))
# The tests also compare float32 with these values. Its rounding moves an activation by up to 1e-6 of its
# layer's largest. If that flips one ReLU of 280 000, the gradient changes: by 8e-4 for a picture of 24 x 41
# pixels from seed 10, whose conv3_1 goes up to 379 and is -2e-5 at row 5, column 5, channel 235. Such
# pictures are rejected.
MIN_MARGIN = 3e-6


class Case(NamedTuple):
    """One golden value: its formula, and the sizes and seed of its pictures."""

    formula: Callable[..., Terms]
    seed: int
    size: tuple[int, int]
    styles: Sequence[tuple[int, int]]
    blend: Sequence[float] = (1,)
    options: dict[str, float] | None = None


def convolutions(pixels: Tensor, pooling: str, border: str = "zeros") -> Iterator[tuple[str, Tensor]]:
    """Every convolution before its ReLU, as (1, C, height, width); pixels (H, W, 3), RGB, 0..255.

    `border` is what the first convolution sees beyond the picture: zeros, or a "replicate" of its border.
    """
    x = (pixels.flip(2) - torch.tensor(MEAN_BGR, dtype=torch.float64)).permute(2, 0, 1)[None]
    pool = {"average": functional.avg_pool2d, "max": functional.max_pool2d}[pooling]
    for block, count in enumerate(BLOCKS, start=1):
        if block > 1:
            x = pool(x, 2)
        for n in range(1, count + 1):
            kernel, bias = (torch.tensor(array, dtype=torch.float64) for array in FILTERS[f"conv{block}_{n}"])
            if border == "replicate" and (block, n) == (1, 1):
                y = functional.conv2d(
                    functional.pad(x, (1, 1, 1, 1), border), kernel.permute(3, 2, 0, 1), bias
                )
            else:
                y = functional.conv2d(x, kernel.permute(3, 2, 0, 1), bias, padding=1)
            yield f"conv{block}_{n}", y
            x = y.relu()


def feature_maps(pixels: Tensor, pooling: str, border: str = "zeros") -> Features:
    """Every layer's feature map, after its ReLU, as an (M, C) matrix."""
    return {name: y.relu()[0].flatten(1).T for name, y in convolutions(pixels, pooling, border)}


def margin(x: Tensor, pooling: str, border: str = "zeros") -> float:
    """Smallest change that flips a ReLU or an argmax, relative to the layer's largest activation."""
    margins = []
    for name, y in convolutions(x, pooling, border):
        margins.append(y.abs().min() / y.max())
        if pooling == "max" and name in ("conv1_2", "conv2_2", "conv3_4", "conv4_4"):
            four = functional.unfold(y.relu().transpose(0, 1), 2, stride=2)  # (C, 4, windows)
            first, second = four.topk(2, dim=1).values.unbind(1)
            margins.append((first - second)[first > 0].min() / y.max())
    return float(min(margins))


def gram(F: Tensor) -> Tensor:
    return F.T @ F


def mse(a: Tensor, b: Tensor) -> Tensor:
    return ((a - b) ** 2).mean()


def corner_differences(x: Tensor) -> tuple[Tensor, Tensor]:
    """To the neighbors below and to the right, for the (H - 1) x (W - 1) pixels that have both."""
    corner = x[:-1, :-1]
    return x[1:, :-1] - corner, x[:-1, 1:] - corner


def paper(x: Tensor, p: Tensor, styles: Sequence[Tensor], b: Sequence[float]) -> Terms:
    """Gatys, Ecker, Bethge 2016, equations 1, 4, 5, 7; each Gram matrix divided by its own M."""
    alpha, beta = 1e-3, 1.0
    F, P, Fa = (feature_maps(picture, "average") for picture in (x, p, styles[0]))
    terms = {"content/conv4_2": alpha * 0.5 * ((F["conv4_2"] - P["conv4_2"]) ** 2).sum()}
    for name in FIVE:
        M, C = F[name].shape
        M_a = len(Fa[name])
        E = 1 / (4 * C**2) * ((gram(F[name]) / M - gram(Fa[name]) / M_a) ** 2).sum()
        terms[f"style/{name}"] = beta * 1 / 5 * E
    return terms


def keras(x: Tensor, p: Tensor, styles: Sequence[Tensor], b: Sequence[float]) -> Terms:
    """The example of Keras: sums, undivided Gram matrices, 3 channels and N pixels in every layer."""
    F, P, Fa = (feature_maps(picture, "max") for picture in (x, p, styles[0]))
    N = x.shape[0] * x.shape[1]
    terms = {"content/conv5_2": 0.025 * ((F["conv5_2"] - P["conv5_2"]) ** 2).sum()}
    for name in FIVE:
        distance = ((gram(F[name]) - gram(Fa[name])) ** 2).sum()
        terms[f"style/{name}"] = 1 / 5 * distance / (4 * 3**2 * N**2)
    down, right = corner_differences(x)
    terms["total_variation"] = 1.0 * ((down**2 + right**2) ** 1.25).sum()
    return terms


def anishathalye(
    x: Tensor, p: Tensor, styles: Sequence[Tensor], b: Sequence[float], blend: float = 1.0, e: float = 1.0
) -> Terms:
    """anishathalye/neural-style: means; the loss of each style picture, then their mean."""
    F, P = feature_maps(x, "max"), feature_maps(p, "max")
    terms = {
        "content/conv4_2": 5 * blend * mse(F["conv4_2"], P["conv4_2"]),
        "content/conv5_2": 5 * (1 - blend) * mse(F["conv5_2"], P["conv5_2"]),
    }
    w = [e**i for i in range(5)]
    for style_weight, style in zip(b, styles, strict=True):
        Fa = feature_maps(style, "max")
        for name, weight in zip(FIVE, w, strict=True):
            M, C = F[name].shape
            M_a = len(Fa[name])
            distance = mse(gram(F[name]) / (C * M), gram(Fa[name]) / (C * M_a))
            loss = style_weight * 500 * weight / sum(w) * distance
            terms[f"style/{name}"] = terms.get(f"style/{name}", 0) + loss
    down, right = x[1:] - x[:-1], x[:, 1:] - x[:, :-1]
    terms["total_variation"] = 100 * ((down**2).mean() + (right**2).mean())
    return terms


def jcjohnson(x: Tensor, p: Tensor, styles: Sequence[Tensor], b: Sequence[float]) -> Terms:
    """jcjohnson/neural-style: means; one target, the weighted mean of Gram matrices."""
    F, P = feature_maps(x, "max"), feature_maps(p, "max")
    Fa = [feature_maps(style, "max") for style in styles]
    terms = {"content/conv4_2": 5 * mse(F["conv4_2"], P["conv4_2"])}
    for name in FIVE:
        M, C = F[name].shape
        target = sum(
            weight * gram(F_a[name]) / (C * len(F_a[name])) for weight, F_a in zip(b, Fa, strict=True)
        )
        terms[f"style/{name}"] = 100 * mse(gram(F[name]) / (C * M), target)
    down, right = corner_differences(x)
    terms["total_variation"] = 1e-3 * 0.5 * (down**2 + right**2).sum()
    return terms


def gatys_pytorch(x: Tensor, p: Tensor, styles: Sequence[Tensor], b: Sequence[float]) -> Terms:
    """The notebook of the paper's first author: 1e3 / C^2 times each layer's mean."""
    F, P, Fa = (feature_maps(picture, "max") for picture in (x, p, styles[0]))
    terms = {"content/conv4_2": 1 * mse(F["conv4_2"], P["conv4_2"])}
    for name in FIVE:
        M, C = F[name].shape
        M_a = len(Fa[name])
        terms[f"style/{name}"] = 1e3 / C**2 * mse(gram(F[name]) / M, gram(Fa[name]) / M_a)
    return terms


def udacity(x: Tensor, p: Tensor, styles: Sequence[Tensor], b: Sequence[float]) -> Terms:
    """Udacity's notebook: undivided Gram matrices, their mean distance divided by C M."""
    F, P, Fa = (feature_maps(picture, "max") for picture in (x, p, styles[0]))
    terms = {"content/conv4_2": 1 * mse(F["conv4_2"], P["conv4_2"])}
    for name, weight in zip(FIVE, (1, 0.75, 0.2, 0.2, 0.2), strict=True):
        M, C = F[name].shape
        terms[f"style/{name}"] = 1e6 * weight * mse(gram(F[name]), gram(Fa[name])) / (C * M)
    return terms


def spst(x: Tensor, p: Tensor, styles: Sequence[Tensor], b: Sequence[float]) -> Terms:
    """Galerne et al., "Scaling Painting Style Transfer": `gatys_pytorch`, means, standard deviations."""
    F, P, Fa = (feature_maps(picture, "max") for picture in (x, p, styles[0]))
    terms = {"content/conv4_2": 1 * mse(F["conv4_2"], P["conv4_2"])}
    for name in FIVE:
        C = F[name].shape[1]
        (G, mu, sigma), (A, mu_a, sigma_a) = (gram_mean_std(f[name]) for f in (F, Fa))
        terms[f"style/{name}"] = 1e3 / C**2 * mse(G, A) + 1e4 * mse(mu, mu_a) + 1e4 * mse(sigma, sigma_a)
    return terms


def gram_mean_std(F: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean Gram matrix, mean, and standard deviation, which is 0 without a derivative in silent channels."""
    G, mu = gram(F) / len(F), F.mean(0)
    fires = (F > 0).any(0)
    variance = torch.where(fires, G.diag() - mu**2, torch.ones_like(mu))
    return G, mu, torch.where(fires, variance.sqrt(), torch.zeros_like(mu))


def crowsonkb(x: Tensor, p: Tensor, styles: Sequence[Tensor], b: Sequence[float]) -> Terms:
    """crowsonkb/style-transfer-pytorch: Wasserstein-2 distance of Gaussians; one target, the mean moments."""
    F, P = (feature_maps(picture, "max", "replicate") for picture in (x, p))
    Fa = [feature_maps(style, "max", "replicate") for style in styles]
    terms = {"content/conv4_2": 0.015 * mse(F["conv4_2"], P["conv4_2"])}
    for name, weight in zip(FIVE, (256, 64, 16, 4, 1), strict=True):
        nu = sum(share * F_a[name].mean(0) for share, F_a in zip(b, Fa, strict=True))
        A = sum(share * gram(F_a[name]) / len(F_a[name]) for share, F_a in zip(b, Fa, strict=True))
        terms[f"style/{name}"] = weight / 341 * wasserstein(F[name], nu, A - torch.outer(nu, nu))
    terms["total_variation"] = 2 * nine_point(x / 255)
    return terms


def wasserstein(F: Tensor, nu: Tensor, target: Tensor) -> Tensor:
    """Distance of F from mean and covariance of the target, a mean over channels; 1e-4 is added to variances.

    With R the root of the target's covariance, and the other one X'X, the sum of the roots of the eigenvalues
    of R X'X R is that of the singular values of X R, whose rounding is not that of their squares.
    """
    M, C = F.shape
    mu, eye = F.mean(0), torch.eye(C, dtype=torch.float64)
    X = torch.cat([(F - mu) / M**0.5, 1e-2 * eye])
    values, vectors = torch.linalg.eigh(target + 1e-4 * eye)
    roots = torch.linalg.svdvals(X @ vectors * values.sqrt())
    return mse(mu, nu) + ((X**2).sum() + values.sum() - 2 * roots.sum()) / C


def nine_point(x: Tensor) -> Tensor:
    """Total variation with diagonal neighbors, of pixels from 0 to 1 with a replicated border."""
    x = functional.pad(x.permute(2, 0, 1)[None], (1, 1, 1, 1), "replicate")[0]
    here = x[:, 1:-1, 1:-1]
    straight = mse(x[:, 1:-1, 2:], here) + mse(x[:, 2:, 1:-1], here)
    diagonal = mse(x[:, 1:, 1:], x[:, :-1, :-1]) + mse(x[:, 1:, :-1], x[:, :-1, 1:])
    return 2 * (straight / 3 + diagonal / 12)


# A case is named by its preset, a comma, and what is special about it. The systems that compare undivided
# Gram matrices resize the style picture to the content's size; the formula is defined for others, too.
CASES = {
    "paper, equal sizes": Case(paper, 63, (32, 32), [(32, 32)]),
    "paper, odd sizes": Case(paper, 293, (24, 41), [(40, 33)]),
    "paper, small": Case(paper, 15, (17, 20), [(64, 16)]),
    "keras, equal sizes": Case(keras, 255, (32, 32), [(32, 32)]),
    "keras, odd sizes": Case(keras, 57, (17, 20), [(17, 20)]),
    "keras, other sizes": Case(keras, 69, (24, 41), [(40, 33)]),
    "anishathalye, odd sizes": Case(anishathalye, 295, (24, 41), [(40, 33)]),
    "anishathalye, two styles": Case(anishathalye, 98, (17, 20), [(64, 16), (24, 30)], (1, 3)),
    "anishathalye, other weights": Case(
        anishathalye, 12, (17, 20), [(32, 32)], options={"blend": 0.25, "e": 0.5}
    ),
    "jcjohnson, odd sizes": Case(jcjohnson, 3, (24, 41), [(40, 33)]),
    "jcjohnson, two styles": Case(jcjohnson, 75, (17, 20), [(64, 16), (24, 30)], (1, 3)),
    "gatys-pytorch, odd sizes": Case(gatys_pytorch, 220, (24, 41), [(40, 33)]),
    "gatys-pytorch, small": Case(gatys_pytorch, 1, (17, 20), [(64, 16)]),
    "udacity, equal sizes": Case(udacity, 160, (32, 32), [(32, 32)]),
    "udacity, odd sizes": Case(udacity, 9, (17, 20), [(17, 20)]),
    "udacity, other sizes": Case(udacity, 65, (24, 41), [(40, 33)]),
    "crowsonkb, odd sizes": Case(crowsonkb, 428, (24, 41), [(40, 33)]),
    "crowsonkb, two styles": Case(crowsonkb, 401, (17, 20), [(64, 16), (24, 30)], (1, 3)),
    "spst, odd sizes": Case(spst, 410, (24, 41), [(40, 33)]),
    "spst, small": Case(spst, 402, (32, 20), [(64, 16)]),
}


def picture(seed: int, n: int, size: Sequence[int], smoothed: int) -> Any:
    """Integers, 0..255: noise, each pixel then averaged with three neighbors, `smoothed` times."""
    x = np.random.default_rng([seed, n]).integers(0, 256, (*size, 3))
    for _ in range(smoothed):
        x = (x + np.roll(x, 1, 0) + np.roll(x, 1, 1) + np.roll(x, 1, (0, 1))) // 4
    return x


def pictures(case: Case) -> list[Any]:
    """The generated, the content and the style pictures, independent noise."""
    kinds = [(case.size, 1), (case.size, 2), *((size, 0) for size in case.styles)]
    return [picture(case.seed, n, size, smoothed) for n, (size, smoothed) in enumerate(kinds)]


def gradient_of(terms: Sequence[Tensor], x: Tensor) -> Any:
    return torch.autograd.grad(sum(terms), x, retain_graph=True)[0].numpy()


def golden(case: Case) -> tuple[dict[str, Any], Any, Any]:
    """Description of a case, the gradient of its loss, and that of its content terms alone."""
    arrays = pictures(case)
    x, p, *styles = (torch.tensor(array, dtype=torch.float64) for array in arrays)
    border = "replicate" if case.formula is crowsonkb else "zeros"
    smallest = margin(x, "average" if case.formula is paper else "max", border)
    if smallest < MIN_MARGIN:
        raise SystemExit(f"{case}: a margin of only {smallest:.1e}; take another seed")
    x.requires_grad_()
    b = [weight / sum(case.blend) for weight in case.blend]
    terms = case.formula(x, p, styles, b, **(case.options or {}))
    loss: Tensor = sum(terms.values())
    description = {
        "seed": case.seed,
        "size": case.size,
        "styles": case.styles,
        "blend": case.blend,
        "pictures": zlib.crc32(b"".join(array.astype(np.uint8).tobytes() for array in arrays)),
        "loss": loss.item(),
        "terms": {name: term.item() for name, term in terms.items()},
    }
    content = [term for name, term in terms.items() if name.startswith("content")]
    return description, gradient_of(list(terms.values()), x), gradient_of(content, x)


def main() -> None:
    torch.set_num_threads(1)
    arrays: dict[str, Any] = {}
    cases = {}
    for name, case in CASES.items():
        cases[name], arrays[name], content = golden(case)
        if case.size in SIZES_WITH_CONTENT:
            arrays[f"{name}: content"] = content
        print(f"{name}: {cases[name]['loss']:.15g}")
    path = Path(__file__).with_name("presets.npz")
    np.savez_compressed(
        path,
        made_by=f"make_presets.py with PyTorch {torch.__version__}, NumPy {np.__version__}, "
        f"Python {platform.python_version()}, npstyle {npstyle.__version__}; {FILTERS.source}",
        filters=[np.sum(np.square(FILTERS[name].kernel, dtype=np.float64)) for name in FILTERS],
        cases=json.dumps(cases),
        **arrays,
    )
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
