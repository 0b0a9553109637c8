"""Fuzzing: randomly mutated files of every kind and random command lines.

    python tests/fuzz/fuzz.py --count 10000 --seed 1 --keep findings

Every input must end in a result, or in a UserError whose message is one short line without control
characters. Findings are any other exception or warning, output of a library on standard error, a hang, and
more memory than MAX_MEMORY. A command line must end with exit status 0, 1 or 2 and at most one line on
standard error.

Inputs are made in this process and tried in a second one, which may crash. An input depends on seed, kind and
number alone: `--kind weights --first 1234 --count 1 --seed 1` repeats one. It needs Linux, as it limits and
measures memory.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from command_lines import command_line
from mutations import mutate
from seeds import Seeds, checkpoints, pictures, registries, resumed, weights
from targets import DEFAULT_KINDS, TARGETS, FindingError

MAX_SECONDS = 10  # for each input
MAX_MEMORY = 2 << 30  # bytes in use beyond those at the start; twice as many may be reserved
BATCH = 500  # inputs that are made before they are tried

# Where the second process reports; commands have standard output for themselves.
REPORT: Any = sys.stdout


def seeds(folder: Path) -> Seeds:
    """Small valid files of every kind."""
    return {
        "pictures": list(pictures(folder)),
        "weights": list(weights(folder)),
        "checkpoints": list(checkpoints(folder)),
        "resumed": list(resumed(folder)),
        "registries": list(registries()),
    }


# -- the second process ------------------------------------------------------------------------------------


def work(kind: str, folder: Path, first: int, last: int) -> None:
    """Try inputs one after the other and report on each; any of them may crash the process."""
    import resource

    target = TARGETS[kind]
    target(folder / "warm-up")  # imports are not counted
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 2 * MAX_MEMORY, size + 2 * MAX_MEMORY))
    stderr_size = 0
    for number in range(first, last):
        signal.alarm(MAX_SECONDS)
        finding, success = "", False
        try:
            success = target(folder / str(number))
        except FindingError as error:
            finding = str(error)
        except BaseException:
            finding = traceback.format_exc(limit=-6)
        signal.alarm(0)
        growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - peak
        if growth > MAX_MEMORY:
            finding, peak = finding + f"{growth / 2**30:.1f} GB of memory", peak + growth
        sys.stderr.flush()
        if os.fstat(2).st_size > stderr_size:  # a library wrote to standard error
            text = os.pread(2, 300, stderr_size).decode(errors="replace")
            stderr_size = os.fstat(2).st_size
            if not _is_tiff(folder / str(number)):
                finding += f"standard error: {text!r}"
        print(json.dumps([number, success, finding]), file=REPORT, flush=True)


def _is_tiff(path: Path) -> bool:
    """Libtiff reports damage on standard error, and Pillow has no way to prevent it."""
    with path.open("rb") as file:
        return file.read(2) in (b"II", b"MM")


# -- the first process -------------------------------------------------------------------------------------


def inputs(kind: str, valid: Seeds, seed: int, numbers: range) -> Iterator[tuple[int, bytes]]:
    """The inputs of that kind and those numbers."""
    for number in numbers:
        rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), number])
        if kind == "commands":
            yield number, json.dumps(command_line(rng)).encode()
        else:
            group = valid[kind]
            yield number, mutate(rng, group[number % len(group)], group)


def outcomes(kind: str, folder: Path, numbers: range) -> Iterator[tuple[int, bool, str]]:
    """Number, whether there was a result, and the finding; after a crash a new process continues."""
    number = numbers.start
    # One thread: the address space of many would count.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TMPDIR": str(folder)}
    environment |= {"NPSTYLE_CACHE": str(folder / "cache"), "HOME": str(folder)}
    environment.pop("NPSTYLE_WEIGHTS", None)
    while number < numbers.stop:
        command = [sys.executable, "-W", "default", __file__, "--work", kind, str(folder), str(number)]
        with (folder / "stderr").open("w+b") as errors:
            process = subprocess.run(
                [*command, str(numbers.stop)],
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                check=False,
                timeout=MAX_SECONDS * (numbers.stop - number) + 60,
            )
            errors.seek(0)
            last_output = errors.read()[-1000:].decode(errors="replace")
        for line in process.stdout.splitlines():
            reported, success, finding = json.loads(line)
            yield reported, success, finding
            number = reported + 1
        if number < numbers.stop:
            yield number, False, f"{_crash(process.returncode)}: {last_output}"
            number += 1


def _crash(status: int) -> str:
    if status == -signal.SIGALRM:
        return f"the process took more than {MAX_SECONDS} s"
    ending = signal.Signals(-status).name if status < 0 else f"status {status}"
    return f"the process ended with {ending}"


def fuzz(
    kinds: Sequence[str], count: int, seed: int, keep: Path | None = None, first: int = 0
) -> dict[str, Counter[str]]:
    """Try so many inputs of each kind; how many were results, refusals and findings, by kind."""
    totals: dict[str, Counter[str]] = {kind: Counter(findings=0) for kind in kinds}
    similar: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        valid = seeds(folder)
        (folder / "PHOTO").write_bytes(_photo())
        (folder / "BAD").write_bytes(valid["pictures"][0][:60])
        (folder / "WEIGHTS").write_bytes(valid["weights"][0])
        (folder / "empty.json").write_text('{"files": []}')
        for kind in kinds:
            warm_up = b'["show", "PHOTO"]' if kind == "commands" else valid[kind][0]
            (folder / "warm-up").write_bytes(warm_up)
            for start in range(first, first + count, BATCH):
                numbers = range(start, min(start + BATCH, first + count))
                for number, data in inputs(kind, valid, seed, numbers):
                    (folder / str(number)).write_bytes(data)
                for number, success, finding in outcomes(kind, folder, numbers):
                    totals[kind]["findings" if finding else "results" if success else "refusals"] += 1
                    if finding:
                        similar[_summary(finding)] += 1
                        if similar[_summary(finding)] <= 2:
                            print(
                                f"-- {kind}, seed {seed}, number {number}:\n{_shorten(finding)}", flush=True
                            )
                            _keep(folder / str(number), keep, f"{kind}-{seed}-{number}")
                    (folder / str(number)).unlink()
    return totals


def _photo() -> bytes:
    from PIL import Image

    file = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _summary(finding: str) -> str:
    """The last line, without digits, which differ between similar findings."""
    line = finding.strip().splitlines()[-1]
    return "".join("0" if letter.isdigit() else letter for letter in line)[:100]


def _shorten(text: str) -> str:
    text = text.strip()
    return text if len(text) <= 2000 else f"{text[:500]} ... {text[-1500:]}"


def _keep(path: Path, folder: Path | None, name: str) -> None:
    """Copy the input of a finding."""
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / name)


def main() -> int:
    if sys.argv[1:2] == ["--work"]:
        kind, folder, first, last = sys.argv[2:]
        work(kind, Path(folder), int(first), int(last))
        return 0
    parser = argparse.ArgumentParser(description="Mutated input for npstyle.", allow_abbrev=False)
    parser.add_argument("--count", type=int, default=1000, help="inputs of each kind (1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=list(TARGETS), action="append", help="(all but resumed)")
    parser.add_argument("--first", type=int, default=0, help="number of the first input (0)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="copy the first inputs of each finding")
    options = parser.parse_args()
    if sys.platform != "linux":
        parser.exit(2, "fuzz.py needs Linux, as it limits and measures the memory of a process\n")
    totals = fuzz(options.kind or DEFAULT_KINDS, options.count, options.seed, options.keep, options.first)
    for kind, counts in totals.items():
        print(f"{kind}: " + ", ".join(f"{counts[outcome]} {outcome}" for outcome in sorted(counts)))
    return int(any(counts["findings"] for counts in totals.values()))


if __name__ == "__main__":
    sys.exit(main())
