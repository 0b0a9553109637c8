"""What a run is said to take of memory, against what it takes, and what Linux says is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from npstyle import VGG19, Objective, Settings, load_weights, preset
from npstyle._typing import Convolution
from npstyle.run import memory as estimate

SETTINGS = {
    "paper": preset("paper"),
    "random": preset("random"),
    "neighbors": Settings(
        content_layers=("conv1_2",), style_layers=("conv1_1", "conv1_2", "pool2"), padding="zero"
    ),
}


@pytest.mark.parametrize("convolution", ["auto", "im2col"])
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(("H", "W"), [(256, 256), (200, 333)])
def test_an_evaluation_takes_what_is_estimated(name: str, convolution: Convolution, H: int, W: int) -> None:
    settings = SETTINGS[name]
    rng = np.random.default_rng(0)
    content, style = rng.uniform(0, 255, (2, H, W, 3)).astype(np.float32)
    network = VGG19.for_settings(load_weights("random", deepest="conv5_1"), settings, convolution, threads=2)
    Objective(network, content, [style], settings)(style)
    estimated = estimate.evaluation_memory(H, W, settings.layers, convolution, 2)
    # Besides what the network lends there are pixels and masks, and im2col's patches.
    assert 0.6 * estimated < network.arena.nbytes < 1.05 * estimated


def test_a_run_takes_more_with_every_pixel_and_every_style() -> None:
    settings = preset("paper")
    small = estimate.run_memory((256, 256), [(64, 64)], settings, "auto", 2)
    large = estimate.run_memory((512, 512), [(64, 64)], settings, "auto", 2)
    beside_a_large_style = estimate.run_memory((256, 256), [(64, 64), (2048, 2048)], settings, "auto", 2)
    assert large > small + (512**2 - 256**2) * 8 * 3 * 25  # what L-BFGS remembers
    assert beside_a_large_style > 2048**2 * 2 * 64 * 4  # conv1_2 and what it was made from


@pytest.mark.parametrize(("most", "found"), [(7, 7), (100, 37), (37, 37), (16, 16)])
def test_the_largest_that_fits(most: int, found: int) -> None:
    assert estimate.largest(lambda n: n <= 37, min(16, most), most) == found


def test_nothing_fits() -> None:
    assert estimate.largest(lambda n: False, 16, 100) == 0


MEMINFO = "MemTotal: 8000 kB\nMemFree: 10 kB\nMemAvailable:    4000 kB\n"


@pytest.mark.parametrize(
    ("files", "kilobytes"),
    [
        ({}, None),
        ({"proc/meminfo": MEMINFO}, 4000),
        ({"proc/meminfo": "MemTotal: 8000 kB\n"}, None),
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "0::/mine\n",
                "sys/fs/cgroup/mine/memory.max": f"{3000 * 1024}\n",
                "sys/fs/cgroup/mine/memory.current": f"{1000 * 1024}\n",
                "sys/fs/cgroup/mine/memory.stat": f"anon 7\ninactive_file {500 * 1024}\n",
            },
            2500,
        ),
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "0::/mine\n",
                "sys/fs/cgroup/mine/memory.max": "max\n",
                "sys/fs/cgroup/mine/memory.current": "5\n",
            },
            4000,
        ),
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "9:memory:/docker/1\n0::/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2000 * 1024}\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{2100 * 1024}\n",
            },
            0,
        ),
    ],
)
def test_available_memory(files: dict[str, str], kilobytes: int | None, tmp_path: Path) -> None:
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert estimate.available_memory(tmp_path) == (None if kilobytes is None else 1024 * kilobytes)
