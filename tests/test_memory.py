"""The memory that a run is estimated to need, against what it allocates, and what is available."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers import only_thoroughly
from npstyle import VGG19, Objective, Settings, _kernels, load_weights, preset
from npstyle._runtime.arena import Arena
from npstyle._typing import Convolution, Statistics
from npstyle.run import Request, memory
from npstyle.statistics import (
    Gaussian,
    GramTerm,
    MomentsTerm,
    StyleTerm,
    Transport,
    WassersteinTerm,
    moments,
)

WEIGHTS = load_weights("random", deepest="conv5_1")
SETTINGS = {
    "paper": preset("paper"),
    "random": preset("random"),
    "wrap": replace(preset("paper"), padding="wrap"),
    "neighbors": Settings(
        content_layers=("conv1_2",), style_layers=("conv1_1", "conv1_2", "pool2"), padding="zero"
    ),
}


@pytest.mark.parametrize(
    ("name", "convolution", "H", "W"),
    [
        ("paper", "auto", 256, 256),
        ("paper", "im2col", 200, 333),
        ("random", "auto", 200, 333),
        ("random", "im2col", 256, 256),
        ("wrap", "auto", 200, 333),
        ("neighbors", "auto", 256, 256),
        ("neighbors", "im2col", 200, 333),
    ],
)
def test_evaluation_allocates_what_is_estimated(name: str, convolution: Convolution, H: int, W: int) -> None:
    settings = SETTINGS[name]
    rng = np.random.default_rng(0)
    content, style = rng.uniform(0, 255, (2, H, W, 3)).astype(np.float32)
    network = VGG19.for_settings(WEIGHTS, settings, convolution, threads=2)
    Objective(network, content, [style], settings)(style)
    estimated = memory.evaluation_memory(H, W, settings.layers, convolution, 2, network=settings)
    # Outside the arena there are pixels and bits of ReLU, and im2col's patches.
    assert 0.6 * estimated < network.arena.nbytes < 1.05 * estimated


def test_memory_grows_with_pixels_and_styles() -> None:
    settings = preset("paper")
    small = memory.run_memory_of_sizes((256, 256), [(64, 64)], settings, "auto", 2)
    large = memory.run_memory_of_sizes((512, 512), [(64, 64)], settings, "auto", 2)
    large_style = memory.run_memory_of_sizes((256, 256), [(64, 64), (2048, 2048)], settings, "auto", 2)
    assert large > small + (512**2 - 256**2) * 8 * 3 * 27  # vectors of L-BFGS
    assert large_style > 2048**2 * 1.25 * 64 * 4  # input of conv1_2 and its pooled output


def picture(H: int, W: int) -> NDArray[np.uint8]:
    return np.zeros((H, W, 3), np.uint8)


def test_memory_of_a_request_is_that_of_its_sizes() -> None:
    mask = np.tile(np.arange(200) < 100, (100, 1)).astype(float)
    request = Request.read(
        picture(100, 200),
        picture(300, 150),
        settings="default",
        size=120,
        content_masks=[mask],
        style_masks=[np.ones((300, 150))],
    )
    sizes = (120, 60), [(60, 120)]
    expected = memory.run_memory_of_sizes(*sizes, preset("default"), "im2col", 1, masks=True)
    assert memory.run_memory(request, "im2col", 1) > expected  # by the pictures and masks themselves
    assert memory.run_memory(request, "im2col", 1) < expected + 1.1 * 120 * 60 * (6 + 16 + 6 + 6)
    assert expected > memory.run_memory_of_sizes(*sizes, preset("default"), "im2col", 1)


def test_style_scale_counts_in_memory() -> None:
    requests = [
        Request.read(picture(64, 64), picture(900, 900), settings="paper", size=64, style_scale=scale)
        for scale in (1, 10)
    ]
    needed = [memory.run_memory(request) for request in requests]
    assert needed[1] > needed[0] + 640**2 * 1.25 * 64 * 4 - 64**2 * 1000


def test_products_of_pairs_of_steps_count_in_memory() -> None:
    settings = replace(preset("paper"), iterations=20_000)
    few, many = (
        memory.run_memory_of_sizes((64, 64), [(64, 64)], replace(settings, maxcor=maxcor))
        for maxcor in (10, 10_000)
    )
    assert many - few > 8 * (2 * 9990 * 64 * 64 * 3 + 11 * 10_000**2)


def test_matrices_of_the_statistics_count_in_memory() -> None:
    """As an evaluation allocates them, LAPACK's copies included."""
    needed = {}
    for statistics in get_args(Statistics):
        settings = Settings(content_layers=(), style_layers="conv4_1,conv5_1", statistics=statistics)
        needed[statistics] = memory.run_memory_of_sizes((64, 64), [(64, 64)], settings)
        F = np.maximum(np.random.default_rng(0).standard_normal((30, 30, 512)), 0).astype(np.float32)
        term = style_term(statistics, F)
        tracemalloc.start()
        try:
            term(F, 1, np.empty_like(F), Arena())
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        workspace = 4 * (_kernels.gram_workspace(900, 512, 4, 1) + F.size)
        assert peak - workspace < memory.statistics_bytes(settings, 1)
    assert needed["gram"] < needed["gram+moments"] < needed["wasserstein"]


def style_term(statistics: Statistics, F: NDArray[np.float32]) -> StyleTerm:
    target = moments(F[:20])
    if statistics == "gram":
        return GramTerm(target.second, 1.0)
    if statistics == "gram+moments":
        return MomentsTerm(target.second, target, 1.0, 1.0)
    return WassersteinTerm(Transport(Gaussian(target.mean, target.covariance)), 1.0)


def test_memory_without_a_style_loss() -> None:
    settings = Settings(content_layers=("conv1_1",), style_layers=())
    assert memory.run_memory(Request.read(picture(64, 64), [], settings=settings)) > 0


def test_largest_size_just_fits() -> None:
    request = Request.read(picture(300, 600), picture(50, 50), settings="paper", size=600)
    available = memory.least_memory(replace(request, size=256))
    size = memory.largest_size(request, available)
    assert 256 <= size < 300
    assert memory.least_memory(replace(request, size=size)) <= available
    assert memory.least_memory(replace(request, size=size + 1)) > available
    assert memory.largest_size(request, 1e6) == 0
    assert memory.largest_size(request, 1e15) == 600


RUN = """
import json, resource, sys
import numpy as np
import npstyle
from npstyle.run import Request, memory, paint
options, available = json.loads(sys.argv[1]), float(sys.argv[2])
masked = options.pop("masked", False)
fields = {"content_layers": "conv1_1", "style_layers": "conv1_1", "min_size": 0, "iterations": 4, **options}
content = np.random.default_rng(0).integers(0, 255, (800, 600, 3), np.uint8)
mask = np.tile(np.arange(600) < 300, (800, 1)).astype(np.float32)
masks = {"keep": mask, "content_masks": [mask], "style_masks": [mask[:64, :64]]} if masked else {}
settings = npstyle.Settings(**fields)
request = Request.read(content, content[:64, :64], settings=settings, size=800, **masks)
weights = dict(npstyle.load_weights("random", deepest="conv1_1"))
start = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
bytes_with = {plan: memory.run_memory(request, threads=1, plan=plan) for plan in (0, 5)}
plan = memory.choose_plan(bytes_with.__getitem__, available, settings.layers)
paint(request, weights, threads=1, preprocessing="caffe", memory=available)
with open("/proc/self/status") as file:
    found = next(line for line in file if line.startswith("VmHWM"))
print(bytes_with[plan] / (1024 * int(found.split()[1]) - start))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is in /proc on Linux only")
@pytest.mark.parametrize(
    ("options", "available"),
    [
        ({"optimizer": "lbfgs"}, 1.0),
        only_thoroughly({"optimizer": "lbfgs32"}, 1.0),
        only_thoroughly({"optimizer": "adam"}, 1.0),
        ({"optimizer": "lbfgs32", "color": "luminance", "masked": True}, 1.0),
        ({"min_size": 200, "tv_weight": 1.0, "keep_edges": 0.2}, 1e12),
    ],
)
def test_memory_of_a_run_is_what_is_estimated(options: dict[str, Any], available: float) -> None:
    """A shallow network, all in strips or not: so the optimizer and the pictures count, as in large ones."""
    arguments = [sys.executable, "-c", RUN, json.dumps(options), str(available)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NPSTYLE_KERNELS": "compiled"}
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
    assert ended.stderr == ""
    assert float(ended.stdout) == pytest.approx(1, abs=0.15)


def test_fewer_iterations_at_the_full_size_take_less_memory() -> None:
    """L-BFGS stores fewer pairs there."""
    request = Request.read(picture(64, 64), picture(64, 64), settings="default", size=64)

    def needed(*iterations: int) -> float:
        settings = replace(request.settings, iterations=iterations, min_size=32)
        return memory.run_memory(replace(request, settings=settings))

    assert needed(1, 1, 2) < needed(1, 1, 5) < needed(1, 1, 11) == needed(11, 11, 11)


def test_optimizers_take_less_and_less_memory() -> None:
    request = Request.read(picture(64, 64), picture(64, 64), settings="gram", size=64)
    possible = [request, *memory.with_less_memory(request)]
    assert [(one.settings.optimizer, one.settings.maxcor) for one in possible] == [
        ("lbfgs", 10),
        ("lbfgs32", 10),
        ("lbfgs32", 5),
        ("lbfgs32", 3),
    ]
    needed = [memory.least_memory(one) for one in possible]
    assert needed == sorted(needed, reverse=True)
    adam = replace(request, settings=replace(request.settings, optimizer="adam"))
    assert not list(memory.with_less_memory(adam))


@pytest.mark.parametrize(("highest", "expected"), [(7, 7), (100, 37), (37, 37), (16, 16)])
def test_largest_number_that_fits(highest: int, expected: int) -> None:
    assert memory.largest(lambda n: n <= 37, min(16, highest), highest) == expected


def test_no_number_fits() -> None:
    assert memory.largest(lambda n: False, 16, 100) == 0


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
    assert memory.available_memory(system=tmp_path) == (None if kilobytes is None else 1024 * kilobytes)


def test_available_memory_is_what_an_address_space_limit_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `ulimit -v` sets one."""
    resource = pytest.importorskip("resource")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemAvailable: 5000000 kB\n")
    (tmp_path / "proc/self/statm").write_text("1000 1 1 1 0 1 0\n")

    def available(limit: int, threads: int = 1) -> float | None:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
        return memory.available_memory(threads, tmp_path)

    pages = 1000 * resource.getpagesize()
    assert available(resource.RLIM_INFINITY) == available(10**14) == 5_000_000 * 1024
    assert available(10**9) == 10**9 - pages - 2 * memory.BLAS_BUFFER
    assert available(10**9, threads=3) == 10**9 - pages - 4 * memory.BLAS_BUFFER
    assert available(10**6) == 0
    (tmp_path / "proc/meminfo").unlink()
    assert available(10**9) == 10**9 - pages - 2 * memory.BLAS_BUFFER
    assert available(resource.RLIM_INFINITY) is None
