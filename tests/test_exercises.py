"""The exercises can be solved, wrong and missing answers are detected, and the docs name all exercises."""

from __future__ import annotations

import importlib.util
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
EXERCISES = ROOT / "docs" / "exercises"
SOLUTIONS = ROOT / "tests" / "solutions"


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check = load(EXERCISES / "check.py")
TOPICS = sorted(path.stem for path in EXERCISES.glob("*.py") if path.stem != "check")
SOLVED = {topic: load(SOLUTIONS / f"{topic}.py") for topic in TOPICS}
NAMES = sorted(check.CHECKS)


def functions_of(module: Any) -> dict[str, Any]:
    return {
        name: thing
        for name, thing in vars(module).items()
        if inspect.isfunction(thing) and thing.__module__ == module.__name__ and not name.startswith("_")
    }


def test_solutions_are_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["--answers", str(SOLUTIONS)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(check.CHECKS)
    assert all(line.endswith(" right") for line in lines)


def test_exercises_are_not_solved_yet(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(NAMES)
    assert all(line.endswith(" not yet") for line in lines)


@pytest.mark.parametrize("topic", TOPICS)
def test_exercises_solutions_checks_and_docs_agree(topic: str) -> None:
    asked = functions_of(load(EXERCISES / f"{topic}.py"))
    solved = functions_of(SOLVED[topic])
    assert 3 <= len(asked) <= 6
    assert {name: inspect.signature(f) for name, f in asked.items()} == {
        name: inspect.signature(f) for name, f in solved.items()
    }
    assert [f"{topic}.{name}" for name in asked] == [name for name in check.CHECKS if name.startswith(topic)]
    page = (ROOT / "docs" / f"{topic.replace('_', '-')}.md").read_text(encoding="utf-8")
    _, _, exercises = page.partition("## Exercises")
    assert [name for name in asked if f". `{name}`: " not in exercises] == []
    assert all(f.__doc__ for f in asked.values())


def test_the_two_loops_take_fifteen_lines() -> None:
    """As docs/lbfgs.md says."""
    body = inspect.getsource(SOLVED["lbfgs"].direction).split('"""')[2]
    assert len(body.strip().splitlines()) <= 15


def scaled(answer: Callable[..., Any], factor: float) -> Callable[..., Any]:
    return lambda *arguments: factor * answer(*arguments)


convolution, pooling, losses = SOLVED["convolution"], SOLVED["pooling_and_relu"], SOLVED["losses"]
lbfgs, numerics = SOLVED["lbfgs"], SOLVED["numerics"]
large_pictures = SOLVED["large_pictures"]
WOLFE = lbfgs.wolfe


def without_flipping_the_kernel(dy: Any, kernel: Any) -> Any:
    return convolution.convolve(dy, kernel.swapaxes(2, 3), np.zeros(kernel.shape[2]))


def with_circular_padding(x: Any, kernel: Any, bias: Any) -> Any:
    rolled = [np.roll(x, (1 - i, 1 - j), (0, 1)) @ kernel[i, j] for i in range(3) for j in range(3)]
    return sum(rolled) + bias


def channels_first(x: Any) -> Any:
    H, W, C = x.shape
    return convolution.patches(x).reshape(H * W, 9, C).swapaxes(1, 2).reshape(H * W, 9 * C)


def steepest(f: Any, x: Any, iterations: int, maxcor: int = 10) -> Any:
    for _ in range(iterations):
        x = x - 1e-3 * f(x)[1]
    return x


def without_stopping(f: Any, x: Any, iterations: int, maxcor: int = 10) -> Any:
    return lbfgs.minimize(f, x, 10 * iterations, maxcor)


def minimizing_with(function: str, answer: Any) -> Any:
    """The solution of `minimize`, with another answer to an exercise that it uses."""

    def minimize(*arguments: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lbfgs, function, answer)
            return lbfgs.minimize(*arguments)

    return minimize


def one_step_more(f: Any, x: Any, iterations: int, maxcor: int = 10) -> Any:
    return lbfgs.minimize(f, x, iterations + 1, maxcor)


def with_all_pairs(f: Any, x: Any, iterations: int, maxcor: int = 10) -> Any:
    return lbfgs.minimize(f, x, iterations, 10)


def into_its_argument(f: Any, x: Any, iterations: int, maxcor: int = 10) -> Any:
    x[:] = lbfgs.minimize(f, x, iterations, maxcor)
    return x


def in_float64(strips: Any, rows: int) -> Any:
    F = np.concatenate(strips).astype(np.float64)
    return F.T @ F


def clipped_in_the_end(layers: Any, row: int, H: int) -> tuple[int, int]:
    first = last = row
    for layer in reversed(layers):
        first, last = (2 * first, 2 * last + 1) if layer == "pool" else (first - 1, last + 1)
    return max(0, first), min(H - 1, last)


def newest_pair_only(g: Any, steps: Any, changes: Any) -> Any:
    return lbfgs.direction(g, steps[-1:], changes[-1:])


def twice_the_diagonal(F: Any, A: Any) -> Any:
    D = F.T @ F - A
    return F @ (D + np.diag(np.diag(D))) / 2 / F.size**2


# Mistakes that are easily made, for each exercise.
WRONG: dict[str, list[Callable[..., Any]]] = {
    "convolution.convolve": [
        with_circular_padding,
        lambda x, kernel, bias: convolution.convolve(x, kernel[::-1, ::-1], bias),
        lambda x, kernel, bias: convolution.convolve(x, kernel, 0 * bias),
        lambda x, kernel, bias: convolution.convolve(x, kernel, bias)[1:-1, 1:-1],
    ],
    "convolution.patches": [channels_first, lambda x: convolution.patches(x)[:, :9]],
    "convolution.back_from_patches": [
        lambda dP, H, W: dP.reshape(H, W, 9, -1).sum(axis=2),
        lambda dP, H, W: convolution.back_from_patches(dP, H, W)[::-1],
    ],
    "convolution.backward": [
        without_flipping_the_kernel,
        lambda dy, kernel: convolution.backward(dy, kernel.transpose(1, 0, 2, 3)),
        lambda dy, kernel: 1 / 0,
    ],
    "convolution.kernel_derivative": [
        lambda x, dy: convolution.kernel_derivative(x, dy)[::-1, ::-1],
        lambda x, dy: convolution.kernel_derivative(x, dy) / dy[..., 0].size,
    ],
    "pooling_and_relu.kinks": [
        lambda x, d, step: int(np.count_nonzero(np.abs(x) < step)),
        lambda x, d, step: 0,
    ],
    "pooling_and_relu.leaky_relu_backward": [
        lambda dy, x, slope: np.where(x > 0, dy, 0),
        lambda dy, x, slope: np.where(x > 0, dy, -slope * dy),
    ],
    "pooling_and_relu.average_pool_backward": [
        lambda dy, H, W: 4 * pooling.average_pool_backward(dy, H, W),
        lambda dy, H, W: pooling.average_pool_backward(dy, H // 2 * 2, W // 2 * 2),
    ],
    "pooling_and_relu.square_pool_backward": [
        scaled(pooling.square_pool_backward, 2),
        lambda dy, x: pooling.square_pool_backward(dy, np.abs(x)),
        lambda dy, x: pooling.square_pool_backward(dy, x) + np.where(x == 0, np.nan, 0),
    ],
    "pooling_and_relu.fair_max_pool_backward": [
        lambda dy, x: np.where(x == x.max(), 1.0, 0.0),
        lambda dy, x: np.where(pooling.fair_max_pool_backward(dy, x) != 0, dy.repeat(2, 0).repeat(2, 1), 0),
    ],
    "losses.style_derivative": [
        scaled(losses.style_derivative, 0.5),
        scaled(losses.style_derivative, -1),
        twice_the_diagonal,
        lambda F, A: losses.style_derivative(F, A) * (F > 0),
    ],
    "losses.which_are_right": [
        lambda loss, derivatives, F: [True] * 7,
        lambda loss, derivatives, F: [
            abs(np.sum(d(F)) / np.sum(derivatives[1](F)) - 1) < 1e-6 for d in derivatives
        ],
    ],
    "losses.guided_style_derivative": [
        lambda F, T, A: losses.guided_style_derivative(F, (T > 0) * 1.0, A),
        lambda F, T, A: losses.guided_style_derivative(F, T, A) / np.where(T > 0, T, 1)[:, None],
    ],
    "losses.moments_derivative": [
        lambda F, mean, std: losses.moments_derivative(F, F.mean(axis=0), std),
        lambda F, mean, std: losses.moments_derivative(F, mean, F.std(axis=0)),
        scaled(losses.moments_derivative, 0.5),
    ],
    "losses.transport_map": [
        lambda S, S_a: np.linalg.cholesky(S_a) @ np.linalg.inv(np.linalg.cholesky(S)),
        lambda S, S_a: -losses.transport_map(S, S_a),
        lambda S, S_a: losses.transport_map(S_a, S),
        lambda S, S_a: losses.transport_map(S, S_a) + 0.01,
    ],
    "losses.normalize": [
        lambda kernel, bias, following, a: (kernel / a, bias, following * a[:, None]),
        lambda kernel, bias, following, a: (kernel / a, bias / a, following),
        lambda kernel, bias, following, a: (kernel, bias, following),
    ],
    "lbfgs.direction": [
        lambda g, steps, changes: -g,
        newest_pair_only,
        scaled(lbfgs.direction, -1),
        lambda g, steps, changes: lbfgs.direction(g, steps[::-1], changes[::-1]),
    ],
    "lbfgs.wolfe": [
        lambda *arguments: (True, True),
        lambda value, slope, t, value_t, slope_t: (value_t < value, slope_t >= 0.9 * slope),
        lambda value, slope, t, value_t, slope_t: lbfgs.wolfe(value, slope, t, value_t, slope_t, 0.9, 0.9),
        lambda value, slope, t, value_t, slope_t, *c: lbfgs.wolfe(value, slope, t, value_t, slope_t),
        lambda value, slope, t, value_t, slope_t, c1=1e-3, c2=0.9: (
            value_t <= value + c1 * slope,
            abs(slope_t) <= c2 * abs(slope),
        ),
    ],
    "lbfgs.minimize": [
        steepest,
        without_stopping,
        one_step_more,
        with_all_pairs,
        into_its_argument,
        minimizing_with("wolfe", lambda *arguments: (WOLFE(*arguments)[0], True)),
    ],
    "numerics.sum_in_blocks": [
        lambda x, block: float(np.cumsum(x, dtype=np.float32)[-1]),
        lambda x, block: float(x.sum(dtype=np.float64)),
        lambda x, block: numerics.sum_in_blocks(x[: x.size // block * block], block),
    ],
    "numerics.sum_with_correction": [
        lambda x: np.cumsum(x, dtype=np.float32)[-1],
        lambda x: float(x.sum(dtype=np.float64)),
        np.sum,
    ],
    "numerics.central_errors": [
        lambda f, slope, x, steps: [abs((f(x + h) - f(x)) / h - slope) / slope for h in steps],
        lambda f, slope, x, steps: [abs((f(x + h) - f(x - h)) / h - slope) / slope for h in steps],
        lambda f, slope, x, steps: [h * h / slope for h in steps],
        lambda f, slope, x, steps: [abs((f(x + h) - f(x - h)) / (2 * h) - slope) / slope for h in steps],
    ],
    "numerics.gram_difference": [
        lambda F, F_a: (
            np.cumsum(np.einsum("ma,mb->mab", F, F) - np.einsum("ma,mb->mab", F_a, F_a), axis=0)[-1] * 1.001
        ),
        lambda F, F_a: (F - F_a).T @ (F + F_a),
        lambda F, F_a: F.T @ F - F_a.T @ F_a,
        lambda F, F_a: F.astype(np.float64).T @ F - F_a.astype(np.float64).T @ F_a,
    ],
    "large_pictures.pixel_rows": [
        lambda layers, row, H: (max(0, row - len(layers)), min(H - 1, row + len(layers))),
        lambda layers, row, H: large_pictures.pixel_rows(layers, row, H + 9),
        clipped_in_the_end,
    ],
    "large_pictures.convolve_in_strips": [
        lambda convolve, x, rows: convolve(x),
        lambda convolve, x, rows: np.concatenate(
            [convolve(x[first : first + rows]) for first in range(0, len(x), rows)]
        ),
    ],
    "large_pictures.gram_in_strips": [
        lambda strips, rows: sum((strip.T @ strip).astype(np.float64) for strip in strips),
        lambda strips, rows: large_pictures.gram_in_strips(strips, rows).astype(np.float32),
        lambda strips, rows: large_pictures.gram_in_strips(strips, 80),
        in_float64,
    ],
}


@pytest.mark.parametrize(("name", "wrong"), [(name, wrong) for name in WRONG for wrong in WRONG[name]])
def test_wrong_answer_is_detected(name: str, wrong: Callable[..., Any]) -> None:
    topic, function = name.split(".")
    answers = SimpleNamespace(**{**functions_of(SOLVED[topic]), function: wrong})
    assert check.verdict(name, answers).startswith("wrong: ")


def test_there_is_a_wrong_answer_to_each_exercise() -> None:
    assert sorted(WRONG) == NAMES


def test_verdict_is_one_line() -> None:
    def broken(x: Any) -> Any:
        return x[17]

    verdict = check.verdict("convolution.patches", SimpleNamespace(patches=broken))
    assert verdict.startswith("wrong: IndexError: ")
    assert f"(test_exercises.py, line {inspect.getsourcelines(broken)[1] + 1})" in verdict
    assert check.verdict("convolution.patches", SimpleNamespace()) == "wrong: no function of that name"
    assert check.verdict(
        "losses.style_derivative", SimpleNamespace(style_derivative=lambda F, A: -F)
    ).startswith("wrong: backward says")


def test_check_as_a_script(tmp_path: Path) -> None:
    """One answer right, the others of that file missing, in another folder."""
    text = (EXERCISES / "losses.py").read_text(encoding="utf-8")
    body = "    M, C = F.shape\n    return F @ (F.T @ F - A) / (C**2 * M**2)\n"
    start = text.index("    raise NotImplementedError")
    answer = text[:start] + body + text[start:].partition("\n")[2]
    (tmp_path / "losses.py").write_text(answer, encoding="utf-8")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(EXERCISES / "check.py"), *words, "--answers", str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    ended = run("losses")
    assert ended.returncode == 1
    assert [line.split(maxsplit=1)[1] for line in ended.stdout.splitlines()] == ["right"] + 5 * ["not yet"]
    assert run("losses.style_derivative").returncode == 0
    for words, complaint in ((["nothing"], "expected one of"), (["lbfgs"], "found no")):
        ended = run(*words)
        assert ended.returncode == 2
        assert complaint in ended.stderr
