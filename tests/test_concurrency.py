"""Many Python threads at once, in builds of Python with and without a GIL: the same bits as alone."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers import picture
from npstyle import VGG19, Objective, Settings, load_weights
from npstyle._runtime.arena import Arena
from npstyle._typing import Convolution, Pooling

THREADS, ROUNDS = 8, 4
Array = NDArray[Any]


@pytest.fixture(autouse=True)
def frequent_switches() -> Iterator[None]:
    """Where there is a GIL, it changes hands after microseconds, not milliseconds."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def in_threads(work: Callable[[int], None]) -> None:
    """Call work(0), work(1), ... in so many threads, which begin at the same time."""
    barrier = threading.Barrier(THREADS)

    def begin(number: int) -> None:
        barrier.wait()
        work(number)

    with ThreadPoolExecutor(THREADS) as executor:
        list(executor.map(begin, range(THREADS)))


@pytest.mark.parametrize(("convolution", "pooling"), [("auto", "max"), ("im2col", "average")])
def test_threads_on_one_network_and_one_objective(convolution: Convolution, pooling: Pooling) -> None:
    """Pictures of several sizes through a network that all threads share, and losses that two share."""
    settings = Settings(pooling=pooling, content_layers=["conv2_2"], style_layers=["conv1_1", "conv3_1"])
    weights = load_weights("random", deepest="conv3_1")
    sizes = [(24 + 5 * n, 40 - 3 * n) for n in range(THREADS // 2)]
    pictures = [picture(*size, seed=n, dtype=np.float32) for n, size in enumerate(sizes)]

    def objective(network: VGG19, x: Array) -> Objective:
        return Objective(network, x[::-1].copy(), [picture(30, 30, seed=9)], settings)

    def new_network() -> VGG19:
        return VGG19.for_settings(weights, settings, convolution, threads=2)

    expected = [objective(new_network(), x)(x) for x in pictures]
    network = new_network()
    objectives = [objective(network, x) for x in pictures]

    def evaluate(number: int) -> None:
        index = number // 2
        for _ in range(ROUNDS):
            loss, gradient = objectives[index](pictures[index])
            assert loss == expected[index][0]
            np.testing.assert_array_equal(gradient, expected[index][1])

    in_threads(evaluate)


def test_threads_on_one_arena() -> None:
    """No part of its memory is handed to two of them, be it released or collected as garbage."""
    arena = Arena()

    def borrow(number: int) -> None:
        rng = np.random.default_rng(number)
        held: list[tuple[Array, int]] = []
        for round_ in range(300):
            mark = 1000 * number + round_
            array = arena.borrow((int(rng.integers(1, 2000)),), np.int64)
            array[:] = mark
            held.append((array, mark))
            if len(held) > 4:
                array, mark = held.pop(int(rng.integers(len(held))))
                assert (array == mark).all()
                if mark % 2:
                    arena.release(array)
            del array

    in_threads(borrow)


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has a GIL")
def test_import_does_not_enable_the_gil() -> None:
    """A free-threaded Python does so for any extension module that does not declare itself safe."""
    code = "import sys, npstyle._kernels; sys.exit(sys._is_gil_enabled())"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
