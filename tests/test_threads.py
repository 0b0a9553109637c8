"""The number of threads, and limits and settings for BLAS and OpenMP."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from threadpoolctl import threadpool_info

from npstyle import UserError, _kernels
from npstyle._runtime import threads as _threads


def blas_threads() -> set[int]:
    """Of NumPy's and SciPy's libraries: others, such as OpenCV's, may have been loaded since."""
    blas = (pool for pool in threadpool_info() if pool["user_api"] == "blas")
    return {pool["num_threads"] for pool in blas if re.search("numpy|scipy", pool["filepath"])}


def test_default_is_every_available_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert _threads.resolve(None) == _threads.available() >= 1
    monkeypatch.setattr(_threads, "cpu_limits", lambda _: frozenset())
    monkeypatch.setattr(os, "process_cpu_count", lambda: 7, raising=False)
    assert _threads.resolve(None) == 7
    monkeypatch.delattr(os, "process_cpu_count")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert _threads.resolve(None) == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 9)
    assert _threads.resolve(None) == 9
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert _threads.resolve(None) == 1


def control_groups(system: Path, own: str, files: dict[str, str]) -> Path:
    """Files as Linux has them: /proc/self/cgroup, and others below /sys/fs/cgroup."""
    texts = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in {"proc/self/cgroup": own, **texts}.items():
        (system / name).parent.mkdir(parents=True, exist_ok=True)
        (system / name).write_bytes(text.encode("latin-1"))
    return system


def version_1(folder: str, quota: int, period: int = 100000) -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": f"{period}\n"}


@pytest.mark.parametrize(
    ("own", "files", "limits"),
    [
        pytest.param("0::/a\n", {"a/cpu.max": "200000 100000\n"}, {2}, id="own group"),
        pytest.param("0::/\n", {"cpu.max": "150000 100000\n"}, {2}, id="rounded up, container's own view"),
        pytest.param("0::/\n", {"cpu.max": "1000 100000\n"}, {1}, id="at least one"),
        pytest.param("0::/\n", {"cpu.max": "150000 50000\n"}, {3}, id="another period"),
        pytest.param("0::/a\n", {"a/cpu.max": "max 100000\n"}, set(), id="max"),
        pytest.param(
            "0::/a/b/c\n",
            {"cpu.max": "700000 100000", "a/cpu.max": "500000 100000", "a/b/c/cpu.max": "max 100000"},
            {5, 7},
            id="groups above",
        ),
        pytest.param("0::/a\n", {"b/cpu.max": "200000 100000\n"}, set(), id="another's group"),
        pytest.param("0::/../a\n", {"cpu.max": "200000 100000\n"}, set(), id="out of sight"),
        pytest.param("4:cpu:/a\n", version_1("cpu/a", 250000), {3}, id="version 1"),
        pytest.param("4:cpu:/a/b\n", version_1("cpu/a", 200000, 50000), {4}, id="version 1, group above"),
        pytest.param(
            "4:cpu,cpuacct:/a\n", version_1("cpu,cpuacct/a", 200000), {2}, id="version 1, two names"
        ),
        pytest.param(
            "4:cpu:/docker/12ab\n", version_1("cpu", 200000), {2}, id="version 1, path from outside"
        ),
        pytest.param("4:cpu:/a\n", version_1("cpu/a", -1), set(), id="version 1, -1"),
        pytest.param("5:cpuset:/a\n", version_1("cpu/a", 200000), set(), id="version 1, other controllers"),
        pytest.param(
            "7:memory:/m\n4:cpu,cpuacct:/a\n0::/u\n",
            version_1("cpu/a", 300000) | {"unified/u/cgroup.procs": "1\n"},
            {3},
            id="both versions, limit in 1",
        ),
        pytest.param(
            "7:memory:/m\n0::/u\n", {"unified/u/cpu.max": "200000 100000\n"}, {2}, id="both, limit in 2"
        ),
        pytest.param("", {"cpu.max": "200000 100000\n"}, set(), id="in no group"),
        pytest.param("\xff\0\n::\n0:\n/\n", {"cpu.max": "200000 100000\n"}, set(), id="garbage for a group"),
        pytest.param("0::/\xff/\0\n", {"cpu.max": "200000 100000\n"}, {2}, id="garbage below a group"),
        *(
            pytest.param("0::/\n", {"cpu.max": text}, set(), id=f"garbage {text!r}")
            for text in (
                "",
                "\xff\xfe",
                "2",
                "0 100000",
                "200000 0",
                "-200000 100000",
                "-1 -1",
                "1 2 3",
                "1.5 1",
            )
        ),
        pytest.param("0::/\n", {"cpu.max/folder": ""}, set(), id="unreadable"),
        pytest.param("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "200000\n"}, set(), id="version 1, half of it"),
    ],
)
def test_limits_of_control_groups(tmp_path: Path, own: str, files: dict[str, str], limits: set[int]) -> None:
    assert _threads.cpu_limits(control_groups(tmp_path, own, files)) == limits


def test_no_control_groups(tmp_path: Path) -> None:
    assert _threads.cpu_limits(tmp_path) == set()


@pytest.mark.parametrize(("cores", "available"), [(8, 3), (2, 2)])
def test_lowest_limit_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, available: int
) -> None:
    monkeypatch.setattr(os, "process_cpu_count", lambda: cores, raising=False)
    files = {"cpu.max": "600000 100000", "a/cpu.max": "300000 100000", "a/b/cpu.max": "500000 100000"}
    assert _threads.available(control_groups(tmp_path, "0::/a/b\n", files)) == available


def test_number_of_threads_is_limited() -> None:
    assert _threads.resolve(3) == 3
    assert _threads.resolve(3_000_000_000) == _threads.MAX_THREADS


def test_default_is_limited_on_large_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_threads, "available", lambda: 384)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert _threads.resolve(None) == _threads.MAX_THREADS


@pytest.mark.parametrize(
    ("variable", "threads"),
    [
        ("1", 1),
        ("3", 3),
        ("100", 8),
        (" 2 ", 2),
        ("2,4", 2),
        ("99999999999999999999", 8),
        *((ignored, 8) for ignored in ("", "0", "9" * 5000, "-1", "1.5", "two", ",2")),
    ],
)
def test_omp_num_threads_limits_the_default(
    monkeypatch: pytest.MonkeyPatch, variable: str, threads: int
) -> None:
    monkeypatch.setattr(_threads, "available", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert _threads.resolve(None) == threads
    assert _threads.resolve(5) == 5


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2", float("nan")])
def test_invalid_number_of_threads(threads: Any) -> None:
    with pytest.raises(UserError, match=r"threads: found .*; expected an integer from 1"):
        _threads.resolve(threads)


def test_blas_has_one_thread_inside_and_its_own_number_afterwards() -> None:
    assert _kernels.IMPLEMENTATION == "compiled"  # BLAS is loaded
    before = blas_threads()
    with _threads.one_blas_thread():
        with _threads.one_blas_thread():
            assert blas_threads() == {1}
        assert blas_threads() == {1}
    assert blas_threads() == before


def test_blas_limit_lasts_until_last_thread_leaves() -> None:
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


def test_any_thread_can_limit_blas_after_another() -> None:
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


def test_blas_limit_ends_with_an_exception() -> None:
    before = blas_threads()
    with pytest.raises(KeyboardInterrupt), _threads.one_blas_thread():
        raise KeyboardInterrupt
    assert blas_threads() == before


def test_openmp_waiting_policy_is_set_only_during_import() -> None:
    code = (
        "import os, sys\n"
        "class Spy:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'npstyle._kernels._convolution':\n"
        "            print(os.environ.get('OMP_WAIT_POLICY'), os.environ.get('GOMP_SPINCOUNT'))\n"
        "sys.meta_path.insert(0, Spy())\n"
        "import npstyle._kernels\n"
        "print(os.environ.get('OMP_WAIT_POLICY'), os.environ.get('GOMP_SPINCOUNT'))"
    )
    names = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
    environment = {name: value for name, value in os.environ.items() if name not in names}
    for own, expected in (
        ({}, ["passive", _threads.SPIN_COUNT, "None", "None"]),
        ({"OMP_WAIT_POLICY": "active"}, ["active", "None"] * 2),
        ({"GOMP_SPINCOUNT": "7"}, ["None", "7"] * 2),
    ):
        printed = subprocess.run(
            [sys.executable, "-c", code],
            env={**environment, **own},
            capture_output=True,
            text=True,
            check=True,
        )
        assert printed.stdout.split() == expected
