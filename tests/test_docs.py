"""The examples in docstrings run, and every public name has a docstring."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import npstyle

MODULES = sorted(
    f"npstyle.{path.stem}" for path in Path(npstyle.__file__).parent.glob("*.py") if path.stem[:2] != "__"
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", [name for name in npstyle.__all__ if name != "__version__"])
def test_public_names_are_documented(name: str) -> None:
    assert len((getattr(npstyle, name).__doc__ or "").splitlines()[0]) > 20


def test_unknown_public_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'stylise'"):
        npstyle.stylise  # noqa: B018
