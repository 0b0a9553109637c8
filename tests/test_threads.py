"""How many threads, and what the libraries below are told about theirs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import pytest
from threadpoolctl import threadpool_info

from npstyle import UserError, _kernels, _threads


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_by_default_every_core_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _threads.resolve(None) == _threads.available() >= 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert _threads.resolve(None) == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert _threads.resolve(None) == (os.cpu_count() or 1)


def test_more_threads_than_anyone_has_are_cut_off() -> None:
    assert _threads.resolve(3) == 3
    assert _threads.resolve(3_000_000_000) == _threads.MOST


def test_not_even_a_larger_machine_gets_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_threads, "available", lambda: 384)
    assert _threads.resolve(None) == _threads.MOST


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2", float("nan")])
def test_what_is_no_number_of_threads(threads: Any) -> None:
    with pytest.raises(UserError, match=r"threads: found .*; expected a whole number from 1"):
        _threads.resolve(threads)


def test_blas_has_one_thread_inside_and_its_own_number_after() -> None:
    assert _kernels.IMPLEMENTATION == "compiled"  # BLAS is loaded
    before = blas_threads()
    with _threads.one_blas_thread():
        with _threads.one_blas_thread():
            assert blas_threads() == {1}
        assert blas_threads() == {1}
    assert blas_threads() == before


def test_the_limit_holds_until_the_last_of_several_threads_is_through() -> None:
    before, inside, leave = blas_threads(), threading.Event(), threading.Event()

    def other() -> None:
        with _threads.one_blas_thread():
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(30)
    with _threads.one_blas_thread():
        pass
    limited = blas_threads()
    leave.set()
    thread.join()
    assert limited == {1}
    assert blas_threads() == before


def test_any_thread_can_set_the_limit_after_another_has() -> None:
    with _threads.one_blas_thread():
        pass
    seen: list[set[int]] = []

    def other() -> None:
        with _threads.one_blas_thread():
            seen.append(blas_threads())

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [{1}]


def test_the_limit_is_taken_back_after_an_exception() -> None:
    before = blas_threads()
    with pytest.raises(KeyboardInterrupt), _threads.one_blas_thread():
        raise KeyboardInterrupt
    assert blas_threads() == before


def test_openmp_is_told_to_sleep_and_the_environment_is_left_as_it_was() -> None:
    code = (
        "import os, sys\n"
        "class Spy:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'npstyle._kernels._convolution':\n"
        "            print(os.environ.get('OMP_WAIT_POLICY'))\n"
        "sys.meta_path.insert(0, Spy())\n"
        "import npstyle._kernels\n"
        "print(os.environ.get('OMP_WAIT_POLICY'))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    for own, seen in (({}, ["passive", "None"]), ({"OMP_WAIT_POLICY": "active"}, ["active", "active"])):
        told = subprocess.run(
            [sys.executable, "-c", code],
            env={**environment, **own},
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout.split() == seen
