"""What all tests share: where real filters come from, and that no test reaches the network by accident."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REAL_WEIGHTS = os.environ.get("NPSTYLE_WEIGHTS")


@pytest.fixture(autouse=True)
def alone(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No weights but those a test makes: an empty registry and empty caches. Returns the cache folder."""
    folder = tmp_path_factory.mktemp("alone")
    registry = folder / "registry.json"
    registry.write_text('{"files": []}')
    monkeypatch.delenv("NPSTYLE_WEIGHTS", raising=False)
    monkeypatch.setenv("NPSTYLE_REGISTRY", str(registry))
    monkeypatch.setenv("NPSTYLE_CACHE", str(folder / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(folder / "keras"))
    monkeypatch.setenv("TORCH_HOME", str(folder / "torch"))
    return folder / "cache"


@pytest.fixture(scope="session")
def real_weights() -> str:
    """Path of a file with the real filters, at least up to conv3_4; the test is skipped without one."""
    if not REAL_WEIGHTS:
        pytest.skip("NPSTYLE_WEIGHTS names no file with the real filters")
    return REAL_WEIGHTS
