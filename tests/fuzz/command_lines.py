"""Random command lines."""

from __future__ import annotations

import numpy as np

Rng = np.random.Generator

ODD_WORDS = [
    *("", " ", "nan", "inf", "-inf", "1e400", "-1", "0", "1e-400", "9" * 30, "9" * 5000, "0x10", "1_000"),
    *("é", "\u202e", "\n", "\x1b[2J", "\udcff", "a" * 5000, "/", ".", "..", "-", "--", "~", "\uff11", "None"),
    *("conv1_1", "conv1_1:nan", "conv1_1:", ":1", "conv1_1,conv1_1", "conv9_9", "conv1_1:1e400", ",", "1,,2"),
    *("1,2", "nan,1", "0,0", "-1,2", "PHOTO", "BAD", "WEIGHTS", "NEW.png", "NEW.gif", "NEW.npz", "FOLDER"),
    *("content", "noise", "random", "imagenet", "auto", "luma", "match", "paper", "1.5", "16", "17", "1"),
]
FLAGS = (
    "--overwrite",
    "--force",
    "--alpha",
    "--no-normalize-layer-weights",
    "--style-as-content",
    "--resume",
    "--enlarge",
)
OPTIONS = (
    *("--size", "--seed", "--weights", "--preprocessing", "--convolution", "--threads", "--save-every"),
    *("--depth", "--blend", "--style-scale", "--content-mask", "--style-mask", "--keep-mask", "--iterations"),
    *("--min-size", "--content-weight", "--style-weight", "--tv-weight", "--content-layers", "--init"),
    *(
        "--style-layers",
        "--content-layer-balance",
        "--style-layer-exponent",
        "--scaling",
        "--statistics",
        "--moments-weight",
        "--tv-form",
        "--mixture",
    ),
    *("--pooling", "--padding", "--init-noise", "--noise-std", "--optimizer", "--learning-rate", "--maxcor"),
    *("--color", "--preset", "--output", "--checkpoint", "--no-such-option"),
    *("--width", "--height", "--log", "--log-every"),
)
COMMANDS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("show", "PHOTO"), ("PHOTO", "BAD", "--version")),
    (("info",), ("--x",)),
    (("presets",), ("--x",)),
    (("weights", "list"), ("--x",)),
    (("weights", "fetch"), ("--x",)),
    (("weights", "verify", "WEIGHTS"), ("--preprocessing", "BAD")),
    (("weights", "convert", "WEIGHTS", "NEW.npz"), ("--preprocessing", "--overwrite", "NEW.h5")),
    (
        ("weights", "normalize", "WEIGHTS", "PHOTO", "-o", "NEW.npz"),
        ("--floor", "--size", "--pooling", "--preprocessing", "--overwrite", "-o"),
    ),
)


def command_line(rng: Rng) -> list[str]:
    """A command line; words in capitals are names of files that exist."""

    def odd() -> str:
        return ODD_WORDS[rng.integers(len(ODD_WORDS))]

    if rng.random() < 0.25:
        first, options = COMMANDS[rng.integers(len(COMMANDS))]
        words = list(first)
        for _ in range(rng.integers(0, 4)):
            words.insert(int(rng.integers(1, len(words) + 1)), odd() if rng.random() < 0.5 else options[0])
            words += [options[rng.integers(len(options))], *([odd()] if rng.random() < 0.7 else [])]
        return words
    words = ["PHOTO", "PHOTO", "-o", "NEW.png", "--weights", "WEIGHTS", "--no-checkpoint"]
    words += ["--style-layers", "conv1_1", "--content-layers", "conv1_1"]
    if rng.random() < 0.1:
        words[rng.integers(len(words))] = odd()
    for _ in range(rng.integers(1, 5)):
        choice = rng.random()
        if choice < 0.15:
            words.append(FLAGS[rng.integers(len(FLAGS))])
        elif choice < 0.2:
            words.append(odd())
        else:
            option = OPTIONS[rng.integers(len(OPTIONS))]
            words += [f"{option}={odd()}"] if rng.random() < 0.3 else [option, odd()]
    # A random number of iterations could take days. The last one counts; all are checked.
    return [*words, "--quiet", "--iterations", str(rng.integers(0, 3))]
