"""What a whole run spends its processor time on: kernels, the optimizer, statistics, color, resizing, files.

    python benchmarks/profile_run.py CONTENT STYLE [OPTIONS OF npstyle] [--above 1]

Runs the command line under cProfile, whose clock is the processor time of all threads together: other
programs do not lengthen it. Shown are the functions that take more than so many percent for themselves, and
all others of a package together. Compiled kernels are functions of npstyle._kernels.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
import time
from collections import defaultdict
from pathlib import Path

from npstyle.cli.main import main as npstyle


def share_of_each(profile: cProfile.Profile) -> tuple[dict[str, float], float]:
    """Processor seconds of each function for itself, and their sum."""
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    seconds: dict[str, float] = defaultdict(float)
    for (path, _, name), (_, _, own, _, _) in stats.items():
        seconds[f"{package_of(path, name)}: {name}"] += own
    return seconds, sum(seconds.values())


def package_of(path: str, name: str) -> str:
    """npstyle's module, or the package, or Python itself."""
    if path == "~":
        return "npstyle._kernels" if "npstyle._kernels" in name else "built in"
    parts = Path(path).with_suffix("").parts
    if "npstyle" in parts:
        names = parts[len(parts) - 1 - parts[::-1].index("npstyle") :]
        return ".".join(name for name in names if name != "__init__")
    return parts[parts.index("site-packages") + 1] if "site-packages" in parts else "Python"


def main() -> None:
    arguments, above = sys.argv[1:], 1.0
    if "--above" in arguments:
        at = arguments.index("--above")
        above = float(arguments[at + 1])
        del arguments[at : at + 2]
    profile = cProfile.Profile(time.process_time)
    began = time.perf_counter(), time.process_time()
    status = profile.runcall(npstyle, arguments)
    wall, processor = time.perf_counter() - began[0], time.process_time() - began[1]
    seconds, total = share_of_each(profile)
    print(f"{wall:.1f} s, {processor:.1f} s of all processors, of which {total:.1f} s are shown\n")
    print("| | seconds of all processors | share |\n|---|---|---|")
    rest: dict[str, float] = defaultdict(float)
    for name, own in sorted(seconds.items(), key=lambda item: -item[1]):
        if own / total * 100 >= above:
            print(f"| {name} | {own:.2f} | {own / total:.1%} |")
        else:
            rest[name.partition(":")[0].partition(".")[0]] += own
    for name, own in sorted(rest.items(), key=lambda item: -item[1]):
        print(f"| all others of {name} | {own:.2f} | {own / total:.1%} |")
    sys.exit(status)


if __name__ == "__main__":
    main()
