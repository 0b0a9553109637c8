"""Checks your answers to the exercises.

    python docs/exercises/check.py                           # the files beside this one
    python docs/exercises/check.py convolution losses.style_derivative
    python docs/exercises/check.py --answers FOLDER          # files of the same names in another folder

Nothing is compared with a stored answer: a layer is checked against npstyle's, a backward pass against the
forward pass, a direction against SciPy's. Exit status: 0 all are right, 1 some are wrong or missing,
2 wrong usage.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npstyle import gradcheck, layers
from npstyle import losses as npstyle_losses

Array = NDArray[Any]
Answers = Any  # a module of functions
HERE = Path(__file__).parent
RIGHT, NOT_YET = "right", "not yet"


class WrongAnswer(Exception):  # noqa: N818 - not an error of this program
    """What is wrong with an answer, in one line."""


CHECKS: dict[str, Callable[[Answers], None]] = {}


def exercise(check: Callable[[Answers], None]) -> Callable[[Answers], None]:
    """Register a check: `convolution__patches` checks the function `patches` in convolution.py."""
    CHECKS[check.__name__.replace("__", ".")] = check
    return check


def read_only(x: Array) -> Array:
    """The same array: an answer that changes what it is given is told so, at its own line."""
    x.flags.writeable = False
    return x


def normal(*shape: int, seed: int = 0) -> Array:
    """Standard normal numbers, read-only."""
    return read_only(np.random.default_rng(seed).standard_normal(shape))


def check_same(answer: Any, expected: Any, tolerance: float = 1e-10) -> None:
    """Reject another shape, and differences above `tolerance`, relative to the largest element."""
    answer, expected = np.asarray(answer), np.asarray(expected)
    if answer.shape != expected.shape:
        raise WrongAnswer(f"found shape {answer.shape}; expected {expected.shape}")
    size = max(float(np.abs(expected).max()), 1e-300)
    error = np.abs(answer.astype(np.float64) - expected)
    if not error.max() <= tolerance * size:
        index = np.unravel_index(int(np.argmax(np.nan_to_num(error, nan=np.inf))), error.shape)
        at = f" at {tuple(map(int, index))}" if index else ""
        digits = 8 if tolerance > 1e-11 else 15
        raise WrongAnswer(f"found {answer[index]:.{digits}g}{at}; expected {expected[index]:.{digits}g}")


def check_gradient(compared: gradcheck.Compared, by: str) -> None:
    """Reject a gradient that fails its check."""
    if not compared.error < gradcheck.BOUNDS[by]:
        raise WrongAnswer(
            f"backward says {compared.analytic:.8g}, forward {compared.numeric:.8g} ({by} check, random v)"
        )


def require(condition: bool, message: str) -> None:
    """Reject an answer unless the condition is true."""
    if not condition:
        raise WrongAnswer(message)


# --- docs/convolution.md ---


def some_convolution() -> layers.Conv2D:
    return layers.Conv2D(normal(3, 3, 2, 4, seed=1), normal(4, seed=2))


@exercise
def convolution__convolve(answers: Answers) -> None:
    layer, x = some_convolution(), normal(5, 7, 2)
    check_same(answers.convolve(x, layer.kernel, layer.bias), layer.forward(x)[0])


@exercise
def convolution__patches(answers: Answers) -> None:
    layer, x = some_convolution(), normal(5, 7, 2)
    P = np.asarray(answers.patches(x))
    require(P.shape == (35, 18), f"found shape {P.shape}; expected (35, 18)")
    check_same((P @ layer.kernel.reshape(18, 4) + layer.bias).reshape(5, 7, 4), layer.forward(x)[0])


@exercise
def convolution__back_from_patches(answers: Answers) -> None:
    """Convolving with a unit vector computes one column of im2col; its backward pass, one of col2im."""
    dP = normal(35, 18)
    expected = np.zeros((5, 7, 2))
    for column in range(18):
        unit = np.zeros((18, 1))
        unit[column] = 1
        layer = layers.Conv2D(unit.reshape(3, 3, 2, 1), np.zeros(1))
        expected += layer.backward(np.ascontiguousarray(dP[:, column].reshape(5, 7, 1)))
    check_same(answers.back_from_patches(dP, 5, 7), expected)


@exercise
def convolution__backward(answers: Answers) -> None:
    layer, x = some_convolution(), normal(5, 7, 2)
    kernel = layer.kernel
    answer = np.shape(answers.backward(normal(5, 7, 4), kernel))
    require(answer == x.shape, f"found shape {answer}; expected {x.shape}")
    check_gradient(
        gradcheck.adjoint(lambda x: layer.forward(x)[0], lambda v: answers.backward(v, kernel), x), "adjoint"
    )


@exercise
def convolution__kernel_derivative(answers: Answers) -> None:
    x, kernel, bias = normal(5, 7, 2), normal(3, 3, 2, 4, seed=1), np.zeros(4)
    answer = np.shape(answers.kernel_derivative(x, normal(5, 7, 4)))
    require(answer == kernel.shape, f"found shape {answer}; expected {kernel.shape}")

    def forward(kernel: Array) -> Array:
        return layers.Conv2D(kernel, bias).forward(x)[0]

    check_gradient(gradcheck.adjoint(forward, lambda v: answers.kernel_derivative(x, v), kernel), "adjoint")


# --- docs/pooling-and-relu.md ---


@exercise
def pooling_and_relu__kinks(answers: Answers) -> None:
    x, d = np.array([-1.0, -0.1, 0.1, 1.0, 0.1]), np.array([1.0, 1.0, 1.0, 1.0, 0.0])
    for step, expected in ((0.01, 0), (0.2, 2), (2.0, 4)):
        answer = answers.kinks(x, d, step)
        require(answer == expected, f"found {answer} for steps of {step}; expected {expected}")


@exercise
def pooling_and_relu__leaky_relu_backward(answers: Answers) -> None:
    x = np.where(np.abs(normal(5, 7, 2)) < 0.01, 0.5, normal(5, 7, 2))

    def forward(x: Array) -> Array:
        return np.maximum(x, 0) + 0.3 * np.minimum(x, 0)

    check_gradient(
        gradcheck.directional(forward, lambda v: answers.leaky_relu_backward(v, x, 0.3), x), "directional"
    )


@exercise
def pooling_and_relu__average_pool_backward(answers: Answers) -> None:
    pool = layers.AveragePool()
    for H, W in ((4, 6), (5, 6), (4, 7), (5, 7)):
        dy = normal(H // 2, W // 2, 2)
        check_same(answers.average_pool_backward(dy, H, W), pool.backward(dy, (H, W, 2)))


def cells_of(x: Array) -> Array:
    """Cells (h, w, 2, 2, C) of x (2 h, 2 w, C)."""
    H, W, C = x.shape
    return x.reshape(H // 2, 2, W // 2, 2, C).swapaxes(1, 2)


@exercise
def pooling_and_relu__square_pool_backward(answers: Answers) -> None:
    x = normal(4, 6, 2)

    def forward(x: Array) -> Array:
        return np.asarray(np.sqrt(np.square(cells_of(x)).mean(axis=(2, 3))))

    check_gradient(
        gradcheck.directional(forward, lambda v: answers.square_pool_backward(v, x), x), "directional"
    )
    check_same(answers.square_pool_backward(normal(1, 1, 2), np.zeros((2, 2, 2))), np.zeros((2, 2, 2)))


@exercise
def pooling_and_relu__fair_max_pool_backward(answers: Answers) -> None:
    x, dy, pool = normal(4, 6, 2), normal(2, 3, 2, seed=1), layers.MaxPool()
    check_same(answers.fair_max_pool_backward(dy, x), pool.backward(dy, pool.forward(x)[1]))
    flat = np.array([[1.0, 3, 2, 2], [3, 3, 2, 2]]).reshape(2, 4, 1)
    expected = np.array([[0, 2, 3, 3], [2, 2, 3, 3]]).reshape(2, 4, 1)
    check_same(answers.fair_max_pool_backward(np.array([[[6.0], [12.0]]]), flat), expected)


# --- docs/losses.md ---


def paper_loss(F: Array, A: Array) -> float:
    M, C = F.shape
    return float(np.square(F.T @ F - A).sum() / (4 * C**2 * M**2))


@exercise
def losses__style_derivative(answers: Answers) -> None:
    F, F_a = normal(20, 4), normal(20, 4, seed=1)
    A = F_a.T @ F_a
    check_gradient(
        gradcheck.directional(lambda F: paper_loss(F, A), lambda v: v * answers.style_derivative(F, A), F),
        "directional",
    )


@exercise
def losses__which_are_right(answers: Answers) -> None:
    F, F_a = normal(20, 4), normal(20, 4, seed=1)
    A = F_a.T @ F_a
    unit = 1 / (4**2 * 20**2)
    derivatives = [
        lambda F: unit * F @ (F.T @ F - A) / 2,
        lambda F: unit * F @ (F.T @ F - A),
        lambda F: unit * F @ (A - F.T @ F),
        lambda F: unit * F @ ((F.T @ F - A) + np.diag(np.diag(F.T @ F - A))) / 2,
        lambda F: unit * F @ (F.T @ F - A) * (1 + 1e-4),
        lambda F: unit * (F @ (F.T @ F - A))[::-1],
        lambda F: unit * ((F.T @ F - A) @ F.T).T,
    ]
    expected = [False, True, False, False, False, False, True]
    answer = list(answers.which_are_right(lambda F: paper_loss(F, A), derivatives, F))
    require(answer == expected, f"found {answer}; expected {expected}")


@exercise
def losses__guided_style_derivative(answers: Answers) -> None:
    F, T = normal(20, 4), np.random.default_rng(1).uniform(0, 1, 20) * (np.arange(20) > 7)
    F_a = normal(30, 4, seed=2)
    A_mean = F_a.T @ F_a / 30
    _, expected = npstyle_losses.guided_style_loss(F.reshape(4, 5, 4), T.reshape(4, 5), A_mean)
    check_same(answers.guided_style_derivative(F, T, A_mean), expected.reshape(20, 4))


@exercise
def losses__moments_derivative(answers: Answers) -> None:
    F, mean, std = normal(20, 4), normal(4, seed=1), np.array([0.5, 1.0, 2.0, 0.1])

    def loss(F: Array) -> float:
        return float(np.square(F.mean(axis=0) - mean).sum() + np.square(F.std(axis=0) - std).sum())

    check_gradient(
        gradcheck.directional(loss, lambda v: v * answers.moments_derivative(F, mean, std), F),
        "directional",
    )


@exercise
def losses__transport_map(answers: Answers) -> None:
    """By its definition: covariance, symmetry and sign tell it apart from all others."""
    f, f_a = normal(40, 5), normal(40, 5, seed=1) @ normal(5, 5, seed=2)
    Sigma, Sigma_a = np.cov(f.T, bias=True), np.cov(f_a.T, bias=True)
    T = np.asarray(answers.transport_map(Sigma, Sigma_a))
    require(T.shape == (5, 5), f"found shape {T.shape}; expected (5, 5)")
    check_same(T @ Sigma @ T.T, Sigma_a, 1e-9)
    check_same(T, T.T, 1e-9)
    least = np.linalg.eigvalsh(T).min()
    require(least > 0, f"found an eigenvalue of {least:.3g}; expected positive ones only")


@exercise
def losses__normalize(answers: Answers) -> None:
    kernel, bias, next_kernel = normal(3, 3, 2, 4), normal(4, seed=1), normal(3, 3, 4, 3, seed=2)
    activation, x = np.array([0.5, 2.0, 10.0, 1.0]), normal(6, 5, 2, seed=3)

    def feature_maps(kernel: Array, bias: Array, next_kernel: Array) -> tuple[Array, Array]:
        F = np.maximum(layers.Conv2D(kernel, bias).forward(x)[0], 0)
        return F, layers.Conv2D(next_kernel, np.ones(3)).forward(F)[0]

    first, second = feature_maps(kernel, bias, next_kernel)
    first_answer, second_answer = feature_maps(*answers.normalize(kernel, bias, next_kernel, activation))
    check_same(first_answer, first / activation)
    check_same(second_answer, second)


# --- docs/lbfgs.md ---


def rosenbrock(x: Array) -> tuple[float, Array]:
    """A long, curved valley with its minimum at (1, ..., 1)."""
    from scipy.optimize import rosen, rosen_der

    return float(rosen(x)), rosen_der(x)


@exercise
def lbfgs__direction(answers: Answers) -> None:
    """Without pairs, the secant equation, and the directions of SciPy's L-BFGS-B."""
    from scipy.optimize import minimize

    g = normal(8)
    check_same(answers.direction(g, [], []), -g)
    s, y = normal(8, seed=1), read_only(normal(8, seed=1) + 0.1 * normal(8, seed=2))
    check_same(answers.direction(y, [s], [y]), -s)
    points: list[Array] = [np.linspace(-1, 2, 12)]
    minimize(
        rosenbrock,
        points[0],
        jac=True,
        method="L-BFGS-B",
        callback=lambda x: points.append(x.copy()),
        options={"maxcor": 3, "maxiter": 12},
    )
    gradients = [read_only(rosenbrock(x)[1]) for x in points]
    for k in range(len(points) - 1):
        pairs = range(max(0, k - 3), k)
        steps = [points[i + 1] - points[i] for i in pairs]
        changes = [gradients[i + 1] - gradients[i] for i in pairs]
        answer, step = np.asarray(answers.direction(gradients[k], steps, changes)), points[k + 1] - points[k]
        require(answer.shape == step.shape, f"found shape {answer.shape}; expected {step.shape}")
        cosine = float(np.vdot(answer, step) / (np.linalg.norm(answer) * np.linalg.norm(step)))
        require(
            cosine > 1 - 1e-6, f"found a direction with cosine {cosine:.3f} to SciPy's in iteration {k + 1}"
        )


@exercise
def lbfgs__wolfe(answers: Answers) -> None:
    """Along f(t) = (t - 1)^2 from t = 0, and along straight lines."""
    for t, expected in (
        (1e-4, (True, False)),
        (0.01, (True, False)),
        (0.2, (True, True)),
        (1.0, (True, True)),
        (2.0, (False, False)),
    ):
        answer = tuple(answers.wolfe(1.0, -2.0, t, (t - 1) ** 2, 2 * (t - 1)))
        require(answer == expected, f"found {answer} for (t - 1)^2 at t = {t}; expected {expected}")
    for value_t, slope_t, expected in ((1.0, 0.0, (False, True)), (0.0, -1.0, (True, False))):
        answer = tuple(answers.wolfe(1.0, -1.0, 1.0, value_t, slope_t))
        require(
            answer == expected, f"found {answer} for value {value_t}, slope {slope_t}; expected {expected}"
        )
    answer = tuple(answers.wolfe(1.0, -2.0, 0.2, 0.64, -1.6, 0.95, 0.7))
    require(
        answer == (False, False),
        f"found {answer} for c1 = 0.95 and c2 = 0.7, with which neither holds; expected (False, False)",
    )


@exercise
def lbfgs__minimize(answers: Answers) -> None:
    """One step in a bowl, whose minimum is the second one's; and Rosenbrock's valley."""
    far = read_only(np.array([60.0, 80.0]))
    one = np.asarray(answers.minimize(lambda x: (float(x @ x) / 2, x.copy()), far, 1))
    size = float(np.linalg.norm(one))
    found = f"found |g| = {size:.3g} after one step from (60, 80) in |x|^2 / 2"
    require(size <= 90, f"{found}, where it is 100; expected at most 90, by (5)")
    require(size > 10, f"{found}; expected one step only, of a length found by doubling t = 1/|g|")
    check_same(one / size, far / 100)
    evaluations = 0

    def counted(x: Array) -> tuple[float, Array]:
        nonlocal evaluations
        evaluations += 1
        return rosenbrock(x)

    start = read_only(np.linspace(-1, 2, 12))
    x = answers.minimize(counted, start, 200)
    require(rosenbrock(x)[0] < 1e-8, f"found {rosenbrock(x)[0]:.3g} after 200 steps; expected below 1e-8")
    require(evaluations < 1000, f"found {evaluations} evaluations; expected below 1000")
    same = np.array_equal(answers.minimize(rosenbrock, start, 20, 1), answers.minimize(rosenbrock, start, 20))
    require(
        not same, "found the same with maxcor = 1 as with 10; expected another direction with fewer pairs"
    )


# --- docs/numerics.md ---


def uniform(count: int) -> Array:
    return np.random.default_rng(0).uniform(0, 1, count).astype(np.float32)


@exercise
def numerics__sum_in_blocks(answers: Answers) -> None:
    x = uniform(300_001)
    exact = math.fsum(x)
    for block in (1, 512, 10**6):
        parts = [np.cumsum(x[i : i + block])[-1] for i in range(0, x.size, block)]
        check_same(answers.sum_in_blocks(x, block), math.fsum(parts), 1e-13)
    error = abs(answers.sum_in_blocks(x, 512) - exact) / exact
    require(error < 1e-7, f"found an error of {error:.1g} with blocks of 512; expected less than 1e-7")


@exercise
def numerics__sum_with_correction(answers: Answers) -> None:
    x = uniform(30_001)
    total = answers.sum_with_correction(x)
    kind = type(total).__name__
    require(isinstance(total, np.float32), f"found a number of type {kind}; expected numpy.float32")
    check_same(total, math.fsum(x), 2e-7)
    lost = np.full((100, 128), 2.0**-24, np.float32)  # each, where it is added to 1
    lost[:, :8] = 1
    x = lost.ravel()
    check_same(answers.sum_with_correction(x), math.fsum(x), 2e-7)


@exercise
def numerics__central_errors(answers: Answers) -> None:
    steps = [1e-1, 1e-2, 1e-5, 1e-13]
    answer = list(answers.central_errors(lambda x: x * x * x, 3.0, 1.0, steps))
    require(len(answer) == 4, f"found {len(answer)} errors; expected 4")
    check_same(answer[:2], [0.01 / 3, 0.0001 / 3], 1e-6)
    require(0 <= answer[2] < 1e-9, f"found {answer[2]:.1g} for a step of 1e-5; expected below 1e-9")
    require(answer[3] > 1e-6, f"found {answer[3]:.1g} for a step of 1e-13; expected above 1e-6")
    for sign, name in ((1, "2x - x^3"), (-1, "x^3 - 2x")):
        error = answers.central_errors(lambda x, sign=sign: sign * (2 * x - x**3), 2.0 * sign, 0.0, [0.1])[0]
        require(
            abs(error - 0.005) < 1e-9, f"found {error:.3g} for {name} at 0, a step of 0.1; expected 0.005"
        )


@exercise
def numerics__gram_difference(answers: Answers) -> None:
    rng = np.random.default_rng(0)
    F_a = np.maximum(rng.standard_normal((10_000, 8)), 0).astype(np.float32)
    F = (F_a * (1 + 1e-4 * rng.standard_normal(F_a.shape))).astype(np.float32)
    F64, F_a64 = F.astype(np.float64), F_a.astype(np.float64)
    D = np.asarray(answers.gram_difference(F, F_a))
    require(D.dtype == np.float32, f"found {D.dtype}; expected float32")
    check_same(D, F64.T @ F64 - F_a64.T @ F_a64, 1e-4)


# --- docs/large-pictures.md ---


@exercise
def large_pictures__pixel_rows(answers: Answers) -> None:
    """As a change of a pixel spreads."""
    for layers_up, H in (
        (["conv"], 5),
        (["conv", "pool", "conv"], 11),
        (["pool", "conv"], 11),
        (["conv", "conv", "pool"] * 2, 40),
    ):
        reached: Array = np.eye(H, dtype=bool)  # by row of the output and pixel
        for layer in layers_up:
            if layer == "pool":
                reached = reached[: len(reached) // 2 * 2].reshape(-1, 2, H).max(axis=1)
            else:
                padded = np.pad(reached, ((1, 1), (0, 0)))
                reached = padded[:-2] | padded[1:-1] | padded[2:]
        for row, pixels in enumerate(reached):
            expected = int(np.flatnonzero(pixels)[0]), int(np.flatnonzero(pixels)[-1])
            found = tuple(answers.pixel_rows(layers_up, row, H))
            require(
                found == expected, f"found {found} for row {row} of {H}, {layers_up}; expected {expected}"
            )


@exercise
def large_pictures__convolve_in_strips(answers: Answers) -> None:
    layer, x = some_convolution(), normal(11, 7, 2)
    for rows in (1, 4, 11, 20):

        def convolve(strip: Array, rows: int = rows) -> Array:
            require(len(strip) <= rows + 2, f"found {len(strip)} rows; expected at most {rows + 2}")
            return layer.forward(np.ascontiguousarray(strip))[0]

        check_same(answers.convolve_in_strips(convolve, x, rows), layer.forward(x)[0])


@exercise
def large_pictures__gram_in_strips(answers: Answers) -> None:
    """The same to the last bit whatever the strips, and products in float32: exact ones if of single rows."""
    F = normal(500, 6).astype(np.float32)
    parts = [F[first : first + 80].T @ F[first : first + 80] for first in range(0, 500, 80)]
    expected = sum(part.astype(np.float64) for part in parts)
    whole = np.asarray(answers.gram_in_strips([F], 80))
    check_same(whole, expected, 1e-6)
    require(not np.array_equal(whole, whole.astype(np.float32)), "found sums in float32; expected float64")
    for heights in ([80] * 6 + [20], [30, 10, 200, 260], [499, 1]):
        G = np.asarray(answers.gram_in_strips(np.split(F, np.cumsum(heights)[:-1]), 80))
        require(np.array_equal(G, whole), f"found other bits in strips of {heights} rows; expected the same")
    of_rows = np.einsum("ma,mb->mab", F, F).astype(np.float64).sum(axis=0)
    error = np.abs(np.asarray(answers.gram_in_strips([F], 1)) - of_rows).max() / np.abs(of_rows).max()
    require(error < 1e-12, f"found an error of {error:.1g} for products of 1 row, in float32; expected 1e-12")


# --- the program ---


def load(path: Path) -> ModuleType:
    """Import a Python file as a module."""
    spec = importlib.util.spec_from_file_location(f"answers_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def verdict(name: str, answers: Answers) -> str:
    """RIGHT, NOT_YET, or what is wrong."""
    if not hasattr(answers, name.split(".")[1]):
        return "wrong: no function of that name"
    try:
        CHECKS[name](answers)
    except NotImplementedError:
        return NOT_YET
    except WrongAnswer as error:
        return f"wrong: {error}"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"wrong: {type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"
    return RIGHT


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="check.py", description="Checks your answers to the exercises.")
    parser.add_argument("names", metavar="NAME", nargs="*", help="as convolution or losses.normalize (all)")
    parser.add_argument("--answers", metavar="FOLDER", type=Path, default=HERE, help="where your files are")
    options = parser.parse_args(argv)
    unknown = [name for name in options.names if not any(_asked(name, check) for check in CHECKS)]
    if unknown:
        parser.error(f"found {', '.join(unknown)}; expected one of {', '.join(CHECKS)}")
    names = [check for check in CHECKS if not options.names or any(_asked(n, check) for n in options.names)]
    modules: dict[str, ModuleType] = {}
    all_right = True
    for name in names:
        topic = name.split(".")[0]
        path = options.answers / f"{topic}.py"
        if not path.is_file():
            parser.error(f"found no {path}; expected your answers in it")
        if topic not in modules:
            modules[topic] = load(path)
        result = verdict(name, modules[topic])
        all_right = all_right and result == RIGHT
        print(f"{name:42}{result}")
    return 0 if all_right else 1


def _asked(name: str, check: str) -> bool:
    return name in (check, check.split(".")[0])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
