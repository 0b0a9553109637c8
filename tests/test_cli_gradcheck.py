"""npstyle gradcheck: all gradients are right, each mistake is found by the checks of what it corrupts."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from npstyle import fused, layers, losses, pixel_losses, statistics, temporal
from npstyle.cli.gradcheck import main
from npstyle.gradcheck import BOUNDS, Compared
from npstyle.study.checks import CHECK_NAMES, CHECKS
from npstyle.study.mistakes import MISTAKES, planted
from tolerances import ADJOINT, DIRECTIONAL

CONVOLUTIONS = {"Conv2D", "WinogradConvReLU", "WinogradConvReLUPool", "FirstLayerConvReLU"}
TOTAL_VARIATION = {"tv-mean-squares", "tv-sum-squares", "tv-power-1.25", "tv-nine-point", "tv-wrap"}
PAPER, RELATIVE, FILM = "objective-paper", "objective-relative", "objective-film"
# Which checks of a layer or a loss find each mistake; all others must pass.
FINDERS: dict[str, set[str]] = {
    "unflipped-kernel": CONVOLUTIONS,
    "untransposed-channels": CONVOLUTIONS,
    "forgotten-mask": {"ReLU", "WinogradConvReLU", "WinogradConvReLUPool", "FirstLayerConvReLU"},
    "forgotten-quarter": {"AveragePool", "WinogradConvReLUPool"},
    "forgotten-argmax": {"MaxPool"},
    "channels-not-reversed": {"CaffeInput"},
    "forgotten-std": {"TorchvisionInput"},
    "forgotten-border": {"ReplicatePad", "FirstLayerConvReLU"},
    "same-border": {"WrapPad"},
    "shifted-crop": {"Crop"},
    "content-sign": {"content", "joined-content"},
    "lost-factor-2": {"style", "guided-style"},
    "forgotten-mean": {
        "moments",
        "guided-moments",
        "wasserstein",
        "wasserstein-few",
        "wasserstein-reduced",
        "wasserstein-isotropic",
        "guided-wasserstein",
    },
    "forgotten-half": {
        "wasserstein",
        "wasserstein-few",
        "wasserstein-reduced",
        "wasserstein-isotropic",
        "guided-wasserstein",
    },
    "forgotten-region": {"guided-style"},
    "tv-lost-factor-2": TOTAL_VARIATION,
    "forgotten-reliability": {"temporal"},
    "lost-target": {"joined-content"},
    "forgotten-laplacian": {"edges-map", "edges"},
}
# The objectives run through all 16 convolutions in float64 and take a second each. So each is tried with a
# mistake in a layer and one in a loss, and that of the paper with two that are in none of its own as well.
OBJECTIVES_TRIED: dict[str, set[str]] = {
    "forgotten-mask": {PAPER, FILM},
    "lost-factor-2": {PAPER, RELATIVE},
    "forgotten-argmax": {PAPER, RELATIVE},
    "forgotten-reliability": {PAPER, FILM},
}
OBJECTIVE_FINDERS = {
    **OBJECTIVES_TRIED,
    "forgotten-argmax": {RELATIVE},
    "forgotten-reliability": {FILM},
}
OBJECTIVES = (PAPER, RELATIVE, FILM)
QUICK_CHECKS = [name for name in CHECK_NAMES if name not in OBJECTIVES]


def table_of(output: str) -> list[list[str]]:
    """The lines of the table: check, method, analytic, numeric, error, bound, verdict."""
    return [line.split() for line in output.splitlines() if line.split()[0] in CHECK_NAMES]


def test_every_gradient_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    output = capsys.readouterr().out
    table = table_of(output)
    assert [(line[0], line[1]) for line in table] == [(check.name, check.method) for check in CHECKS]
    for _, method, analytic, numeric, error, bound, verdict in table:
        assert verdict == "right"
        assert float(error) < float(bound) == BOUNDS[method]
        assert float(analytic) == pytest.approx(float(numeric), rel=1e-6)
        assert float(analytic) != 0
    assert output.splitlines()[-1] == f"{len(CHECKS)} checks, all right"


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_fails_checks_of_what_it_corrupts(mistake: str, capsys: pytest.CaptureFixture[str]) -> None:
    checks = [*QUICK_CHECKS, *OBJECTIVES_TRIED.get(mistake, set())]
    assert main([*checks, "--break", mistake]) == 1
    output = capsys.readouterr().out
    assert output.startswith(f"planted: {mistake}: {MISTAKES[mistake].about}\n")
    table = table_of(output)
    assert {line[0] for line in table} == set(checks)
    wrong = [line for line in table if line[-1] == "WRONG"]
    assert {line[0] for line in wrong} == FINDERS[mistake] | OBJECTIVE_FINDERS.get(mistake, set())
    assert all(float(line[4]) > 100 * BOUNDS[line[1]] for line in wrong)
    assert output.splitlines()[-1] == f"{len(table)} checks, {len(wrong)} failed"
    assert main(sorted(FINDERS[mistake])) == 0  # the mistake is removed again


def test_every_check_finds_a_mistake() -> None:
    assert set.union(*FINDERS.values(), *OBJECTIVE_FINDERS.values()) == set(CHECK_NAMES)


def test_every_layer_and_loss_has_a_check() -> None:
    layer_types = {
        name
        for module in (layers, fused)
        for name, thing in vars(module).items()
        if isinstance(thing, type) and thing.__module__ == module.__name__ and hasattr(thing, "backward")
    }
    assert layer_types > CONVOLUTIONS
    # Given is the identity, where a network begins in the middle: tests/test_plans.py compares all of it.
    assert layer_types - {"Layer", "Given"} <= set(CHECK_NAMES)
    defined = {**vars(losses), **vars(pixel_losses), **vars(statistics), **vars(temporal)}
    assert {name for name in defined if name.endswith("_loss") or name == "total_variation"} == {
        "content_loss",
        "style_loss",
        "guided_style_loss",
        "moments_loss",
        "wasserstein_loss",
        "edges_loss",
        "temporal_loss",
        "total_variation",
    }


@pytest.mark.parametrize("mistake", ["unflipped-kernel", "forgotten-mask", "lost-factor-2"])
def test_mistake_is_removed_after_an_error(mistake: str) -> None:
    layer_types = (layers.Conv2D, layers.ReLU)
    before: dict[Any, Any] = {layer_type: dict(vars(layer_type)) for layer_type in layer_types}
    style_loss = losses.style_loss
    with suppress(ZeroDivisionError), planted(mistake):
        layers_changed = any(dict(vars(layer_type)) != members for layer_type, members in before.items())
        loss_changed = losses.style_loss is not style_loss and statistics.style_loss is not style_loss
        assert layers_changed or loss_changed
        raise ZeroDivisionError
    assert all(dict(vars(layer_type)) == members for layer_type, members in before.items())
    assert losses.style_loss is statistics.style_loss is style_loss


def test_only_named_checks_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ReLU", "Conv2D"]) == 0
    output = capsys.readouterr().out
    assert [line[0] for line in table_of(output)] == ["Conv2D", "ReLU"]
    assert output.endswith("2 checks, all right\n")
    assert main(["Crop", "--break", "unflipped-kernel"]) == 0  # the mistake is in another layer
    assert capsys.readouterr().out.endswith("1 check, all right\n")


def test_nan_fails(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def backward(layer: Any, dy: Any, *_: Any) -> Any:
        return np.full_like(dy, np.nan)

    monkeypatch.setattr(layers.CaffeInput, "backward", backward)
    assert main(["CaffeInput"]) == 1
    assert "WRONG" in capsys.readouterr().out


def test_list_has_all_checks_and_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    output = capsys.readouterr().out
    for name in (*CHECK_NAMES, *MISTAKES):
        assert f"\n  {name} " in output


@pytest.mark.parametrize("argv", [["--break", "nothing"], ["conv"], ["--break"], ["--lis"]])
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("npstyle: wrong usage: ")
    assert error.count("\n") == 1


def test_bounds_are_those_of_the_tests() -> None:
    assert BOUNDS["adjoint"] == ADJOINT[np.dtype(np.float64)]
    assert BOUNDS["directional"] == DIRECTIONAL


def test_error_is_relative_to_larger_value() -> None:
    assert Compared(1.0, 2.0).error == Compared(2.0, 1.0).error == 0.5
    assert Compared(1.0, -1.0).error == 2
    assert Compared(0.0, 0.0).error == 0
    assert not Compared(float("nan"), 1.0).error < 1
