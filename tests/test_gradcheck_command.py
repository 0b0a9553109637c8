"""npstyle gradcheck: right as it is, wrong with each mistake, and nothing left behind."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from npstyle import fused, layers, losses, objective
from npstyle.cli.gradcheck import CHECKS, MISTAKES, NAMES, main, planted
from npstyle.gradcheck import BOUNDS, Compared
from tolerances import ADJOINT, DIRECTIONAL

CONVOLUTIONS = {"Conv2D", "WinogradConvReLU", "FirstLayerConvReLU"}
VARIATION = {"tv-mean-squares", "tv-sum-squares", "tv-power-1.25"}
PAPER, RELATIVE = "objective-paper", "objective-relative"
# Which checks each mistake is found by. Only "objective-relative" has regions, maximum pooling, another input
# and a padded border.
FINDERS: dict[str, set[str]] = {
    "unflipped-kernel": {*CONVOLUTIONS, PAPER, RELATIVE},
    "transposed-channels": {*CONVOLUTIONS, PAPER, RELATIVE},
    "forgotten-mask": {"ReLU", "WinogradConvReLU", "FirstLayerConvReLU", PAPER, RELATIVE},
    "forgotten-quarter": {"AveragePool", PAPER},
    "forgotten-winner": {"MaxPool", RELATIVE},
    "channels-not-turned-back": {"CaffeInput", PAPER},
    "forgotten-deviation": {"TorchvisionInput", RELATIVE},
    "forgotten-border": {"ReplicatePad", RELATIVE},
    "shifted-crop": {"Crop", RELATIVE},
    "content-sign": {"content", PAPER, RELATIVE},
    "lost-factor-2": {"style", "guided-style", PAPER, RELATIVE},
    "forgotten-region": {"guided-style", RELATIVE},
    "square-without-2": {*VARIATION, PAPER, RELATIVE},
}


def lines_of(output: str) -> list[list[str]]:
    """The table's lines: check, by, analytic, numeric, error, bound, verdict."""
    return [line.split() for line in output.splitlines() if line.split()[0] in NAMES]


def test_every_gradient_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    output = capsys.readouterr().out
    lines = lines_of(output)
    assert [(line[0], line[1]) for line in lines] == [(check.name, check.by) for check in CHECKS]
    for _, by, analytic, numeric, error, bound, verdict in lines:
        assert verdict == "right"
        assert float(error) < float(bound) == BOUNDS[by]
        assert float(analytic) == pytest.approx(float(numeric), rel=1e-6)
        assert float(analytic) != 0
    assert output.splitlines()[-1] == f"{len(CHECKS)} checks, all right"


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_found_and_taken_back(mistake: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--break", mistake]) == 1
    output = capsys.readouterr().out
    assert output.startswith(f"planted: {mistake}: {MISTAKES[mistake].about}\n")
    wrong = [line for line in lines_of(output) if line[-1] == "WRONG"]
    assert {line[0] for line in wrong} == FINDERS[mistake]
    assert all(float(line[4]) > 100 * BOUNDS[line[1]] for line in wrong)
    assert output.splitlines()[-1] == f"{len(CHECKS)} checks, {len(wrong)} found something wrong"
    quick = sorted(FINDERS[mistake] - {PAPER, RELATIVE})
    assert main(quick) == 0


def test_every_check_finds_something() -> None:
    assert set.union(*FINDERS.values()) == set(NAMES)


def test_every_layer_and_loss_is_checked() -> None:
    """A new layer or loss has to be given a line."""
    made = {
        name
        for module in (layers, fused)
        for name, thing in vars(module).items()
        if isinstance(thing, type) and thing.__module__ == module.__name__ and hasattr(thing, "backward")
    }
    assert made > CONVOLUTIONS
    assert made - {"Layer"} <= set(NAMES)
    assert {name for name in vars(losses) if name.endswith("_loss") or name == "total_variation"} == {
        "content_loss",
        "style_loss",
        "guided_style_loss",
        "total_variation",
    }


def test_a_mistake_is_taken_back_after_an_error() -> None:
    before: dict[Any, Any] = {owner: dict(vars(owner)) for owner in (layers.Conv2D, layers.ReLU)}
    style = losses.style_loss
    for mistake in ("unflipped-kernel", "forgotten-mask", "lost-factor-2"):
        with suppress(ZeroDivisionError), planted(mistake):
            changed = any(dict(vars(owner)) != members for owner, members in before.items())
            assert changed or (losses.style_loss is not style and objective.style_loss is not style)
            raise ZeroDivisionError
        assert all(dict(vars(owner)) == members for owner, members in before.items())
        assert losses.style_loss is objective.style_loss is style


def test_only_the_checks_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ReLU", "Conv2D"]) == 0
    output = capsys.readouterr().out
    assert [line[0] for line in lines_of(output)] == ["Conv2D", "ReLU"]
    assert output.endswith("2 checks, all right\n")
    assert main(["Crop", "--break", "unflipped-kernel"]) == 0  # what it looks at is right
    assert capsys.readouterr().out.endswith("1 check, all right\n")


def test_a_nan_is_not_right(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(dy: Any) -> Any:
        return np.full_like(dy, np.nan)

    monkeypatch.setattr(layers.CaffeInput, "backward", lambda layer, dy, *_: nothing(dy))
    assert main(["CaffeInput"]) == 1
    assert "WRONG" in capsys.readouterr().out


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    output = capsys.readouterr().out
    for name in (*NAMES, *MISTAKES):
        assert f"\n  {name} " in output


@pytest.mark.parametrize("argv", [["--break", "nothing"], ["conv"], ["--break"], ["--lis"]])
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("npstyle: wrong usage: ")
    assert error.count("\n") == 1


def test_bounds_are_those_of_the_tests() -> None:
    assert BOUNDS["adjoint"] == ADJOINT[np.dtype(np.float64)]
    assert BOUNDS["directional"] == DIRECTIONAL


def test_the_error_of_two_numbers() -> None:
    assert Compared(1.0, 2.0).error == Compared(2.0, 1.0).error == 0.5
    assert Compared(1.0, -1.0).error == 2
    assert Compared(0.0, 0.0).error == 0
    assert not Compared(float("nan"), 1.0).error < 1
