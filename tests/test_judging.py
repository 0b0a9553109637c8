"""npstyle.judge and `npstyle judge`: E and C, their definitions and limits, and what users see of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

from helpers import error_line, normal, picture, structured_picture
from npstyle import UserError, images, judge, load_weights
from npstyle.cli.main import main
from npstyle.study.judging import (
    Gaussian,
    Judge,
    Judgment,
    averages,
    gaussian,
    self_similarity,
    wasserstein_distance,
)
from npstyle.weights import Weights, write_weights

Capture = pytest.CaptureFixture[str]

CONTENT, STYLE = structured_picture(48, 64), structured_picture(40, 56, seed=1)
TRAINED = Weights(load_weights("random", deepest="conv5_1"), "as if trained")


def judged(result: np.ndarray) -> Judgment:
    return judge(CONTENT, STYLE, result, weights=TRAINED, threads=1)


# The Wasserstein distance


def gaussians(C: int = 5) -> tuple[Gaussian, Gaussian]:
    samples = normal(2, 40, C)
    return gaussian(samples[0].reshape(8, 5, C)), gaussian(samples[1].reshape(8, 5, C) @ normal(C, C, seed=2))


def test_wasserstein_distance_by_definition() -> None:
    a, b = gaussians()
    S, T = (g.covariance + 1e-4 * np.eye(5) for g in (a, b))
    R = scipy.linalg.sqrtm(T)
    expected = np.sum((a.mean - b.mean) ** 2) + np.trace(S + T - 2 * scipy.linalg.sqrtm(R @ S @ R))
    assert wasserstein_distance(a, b) == pytest.approx(expected.real / 5, rel=1e-6)


def test_wasserstein_distance_is_the_cost_of_the_optimal_map() -> None:
    """T x, for the map T between two centered Gaussians, is how far each feature vector moves on average."""
    a, b = gaussians()
    S, T = (g.covariance + 1e-4 * np.eye(5) for g in (a, b))
    root = scipy.linalg.sqrtm(S).real
    inverse = np.linalg.inv(root)
    transport = inverse @ scipy.linalg.sqrtm(root @ T @ root).real @ inverse
    np.testing.assert_allclose(transport @ S @ transport.T, T, rtol=1e-8)  # it does lead to the other one
    moved = np.eye(5) - transport
    cost = np.trace(moved @ S @ moved.T) + np.sum((a.mean - b.mean) ** 2)
    assert wasserstein_distance(a, b) == pytest.approx(cost / 5, rel=1e-6)


def test_wasserstein_distance_is_symmetric_and_zero_for_equals() -> None:
    a, b = gaussians()
    assert wasserstein_distance(a, b) == pytest.approx(wasserstein_distance(b, a), rel=1e-9)
    assert wasserstein_distance(a, a) == pytest.approx(0, abs=1e-12)


def test_wasserstein_distance_of_silent_channels_is_finite() -> None:
    silent = Gaussian(np.zeros(3), np.zeros((3, 3)))
    assert wasserstein_distance(silent, silent) == pytest.approx(0, abs=1e-12)
    assert wasserstein_distance(silent, Gaussian(np.ones(3), np.zeros((3, 3)))) == pytest.approx(1)


def test_gaussian_is_mean_and_covariance_over_positions() -> None:
    F = normal(6, 7, 4, dtype=np.float32)
    found = gaussian(F)
    np.testing.assert_allclose(found.mean, F.reshape(-1, 4).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.covariance, np.cov(F.reshape(-1, 4).T, bias=True), rtol=1e-4, atol=1e-6)


# Self-similarity


def test_self_similarity_by_definition() -> None:
    F = normal(6, 9, 4)
    found = self_similarity(F, 3)
    cells = [F[2 * i : 2 * i + 2, 3 * j : 3 * j + 3].mean(axis=(0, 1)) for i in range(3) for j in range(3)]
    centered = np.array(cells) - np.mean(cells, axis=0)
    for m, f in enumerate(centered):
        for n, g in enumerate(centered):
            assert found[m, n] == pytest.approx(f @ g / np.linalg.norm(f) / np.linalg.norm(g))


def test_self_similarity_ignores_shift_and_scale_of_features() -> None:
    F = normal(10, 10, 4)
    np.testing.assert_allclose(self_similarity(3 * F + normal(4)), self_similarity(F), atol=1e-12)


def test_self_similarity_of_a_constant_is_zero() -> None:
    assert not self_similarity(np.ones((5, 5, 3))).any()


@pytest.mark.parametrize(("H", "n"), [(28, 28), (30, 28), (5, 28), (64, 28), (1, 3)])
def test_averages_keep_constants_and_use_every_position(H: int, n: int) -> None:
    matrix = averages(H, n)
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    assert (matrix.sum(axis=0) > 0).all()


# The judgment


def test_content_picture_lacks_all_of_the_style_and_no_drawing() -> None:
    found = judged(CONTENT)
    assert (found.missing_style, found.lost_content) == (1, 0)
    assert found.content_correlation == pytest.approx(1)
    assert min(found.style_distances.values()) > 0


def test_style_picture_lacks_no_style_and_all_of_the_drawing() -> None:
    found = judge(CONTENT, CONTENT[::-1], CONTENT[::-1], weights=TRAINED, threads=1)
    assert found.missing_style == pytest.approx(0, abs=1e-9)
    assert found.lost_content == pytest.approx(1)
    assert max(found.style_distances.values()) == pytest.approx(0, abs=1e-12)


def test_mixture_lies_between() -> None:
    mixture = (0.5 * CONTENT + 0.5 * images.resize(STYLE, 64, 48)).astype(np.uint8)
    found = judged(mixture)
    assert 0 < found.missing_style < 1
    assert 0 < found.lost_content < 1


def test_same_picture_as_content_and_style() -> None:
    line = error_line(lambda: judge(CONTENT, CONTENT, CONTENT, weights=TRAINED), "style")
    assert line.startswith("found the content picture; expected another")


def test_larger_content_and_style_pictures_are_reduced_to_the_result() -> None:
    large = [images.resize(p, 128, 96) for p in (CONTENT, STYLE)]
    found = judge(large[0], large[1], images.resize(large[0], 64, 48), weights=TRAINED)
    assert (found.missing_style, found.lost_content) == (1, 0)


def test_judge_of_several_results_gives_what_judge_gives() -> None:
    both = Judge(CONTENT, STYLE, TRAINED, threads=1)
    assert [both(result) for result in (CONTENT, CONTENT[:, ::-1])] == [
        judged(CONTENT),
        judged(CONTENT[:, ::-1]),
    ]


def test_files_and_pictures_are_judged_alike(tmp_path: Path) -> None:
    for name, image in (("content", CONTENT), ("style", STYLE), ("result", CONTENT[::-1])):
        images.write(tmp_path / f"{name}.png", image)
    write_weights(tmp_path / "vgg.npz", TRAINED)
    content, style, result = (tmp_path / f"{name}.png" for name in ("content", "style", "result"))
    assert judge(content, style, result, weights=tmp_path / "vgg.npz", threads=1) == judged(CONTENT[::-1])


def test_published_result_is_judged_as_it_was_measured(eight_bit_weights: Path, outside_images: Path) -> None:
    """By another program: E 0.141 and C 0.687, of 512 pixels."""
    content, style = outside_images / "golden_gate.jpg", outside_images / "the_scream.jpg"
    result = outside_images / "published" / "golden_gate_scream.png"
    found = judge(content, style, result, weights=eight_bit_weights)
    assert found.missing_style == pytest.approx(0.141, abs=0.0005)
    assert found.lost_content == pytest.approx(0.687, abs=0.0005)


# What can't be judged


def test_random_filters_do_not_judge() -> None:
    line = error_line(lambda: judge(CONTENT, STYLE, CONTENT, weights="random"), "weights")
    assert line.startswith("found random filters; expected trained ones")


def test_filters_of_the_lower_layers_alone_do_not_judge() -> None:
    few = Weights(load_weights("random", deepest="conv3_4"), "few")
    assert "no conv4_1" in error_line(lambda: judge(CONTENT, STYLE, CONTENT, weights=few), "weights")


def test_auto_does_not_fall_back_to_random_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no ImageNet filters"):
        judge(CONTENT, STYLE, CONTENT)


def test_result_of_another_photograph() -> None:
    line = error_line(lambda: judged(picture(48, 90)), "result")
    assert line.startswith("found 90 x 48 pixels; expected the proportions of the content picture (64 x 48)")


@pytest.mark.parametrize("which", [0, 1, 2])
def test_picture_too_small(which: int) -> None:
    small = structured_picture(8, 8)
    pictures = [small if n == which else p for n, p in enumerate((CONTENT, STYLE, CONTENT))]
    with pytest.raises(UserError, match=r"8 x 8|proportions"):
        judge(pictures[0], pictures[1], pictures[2], weights=TRAINED)


# The command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, image in (("photo", CONTENT), ("painting", STYLE), ("a", CONTENT), ("b", CONTENT[::-1])):
        images.write(f"{name}.png", image)
    write_weights("vgg.npz", TRAINED)
    return tmp_path


def test_command_prints_a_line_for_each_result(folder: Path, capsys: Capture) -> None:
    words = ["judge", "photo.png", "painting.png", "a.png", "b.png", "--weights", "vgg.npz"]
    assert main(words) == 0
    legend, table = capsys.readouterr().out.split("\n\n")
    assert legend.startswith("E: ")
    heading, a, b = table.splitlines()
    assert heading.split() == ["E", "C", *(f"conv{n}_1" for n in range(1, 6)), "correlation"]
    assert a.split()[:3] == ["a.png", "1.000", "0.000"]
    assert a.split()[-1] == "1.000"
    expected = judged(CONTENT[::-1])
    assert b.split()[1:3] == [f"{expected.missing_style:.3f}", f"{expected.lost_content:.3f}"]
    assert len(heading) == len(a) == len(b)


def test_command_prints_json(folder: Path, capsys: Capture) -> None:
    assert main(["judge", "photo.png", "painting.png", "b.png", "--weights", "vgg.npz", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.pop("result") == "b.png"
    assert Judgment(**found) == judged(CONTENT[::-1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photo.png", "painting.png", "none.png"], "none.png: found no such file"),
        (["photo.png", "painting.png", "painting.png"], "painting.png: found 56 x 40 pixels"),
        (["photo.png", "painting.png", "a.png", "--weights", "random"], "weights: found random filters"),
        (["photo.png", "painting.png", "a.png", "--weights", "auto"], "no ImageNet filters"),
    ],
)
def test_command_refuses_in_one_line(folder: Path, capsys: Capture, words: list[str], message: str) -> None:
    assert main(["judge", *words]) == 1
    captured = capsys.readouterr()
    assert not captured.out
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


def test_command_expands_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert main(["judge", "~/photo.png", "~/painting.png", "~/b.png", "--weights", "~/vgg.npz"]) == 0


def test_command_says_how_to_get_a_picture_from_an_address(folder: Path, capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["judge", "photo.png", "painting.png", "https://example.org/out.png"])
    assert "curl -LO https://example.org/out.png" in capsys.readouterr().err
