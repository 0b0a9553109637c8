"""Color profiles built byte by byte, each with a model of its colors: an independent check of LittleCMS.

A matrix and a gamma for RGB, a gamma for gray, a table for CMYK.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


Model = Callable[[Array], Array]  # from values (..., C), 0 to 1, to linear sRGB (..., 3)


D50 = (0.9642, 1.0, 0.8249)


# Columns: red, green and blue of sRGB as XYZ under D50, from the standard.
SRGB: Array = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)


P3: Array = np.array(
    [[0.515121, 0.291977, 0.157104], [0.241196, 0.692245, 0.066574], [-0.001053, 0.041886, 0.784073]]
)


def fixed_point(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def xyz(values: Any) -> bytes:
    return b"XYZ \0\0\0\0" + fixed_point(*values)


def gamma_curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH2x", 1, round(gamma * 256))


def icc_profile(space: bytes, pcs: bytes, tags: dict[bytes, bytes], name: str = "made for a test") -> bytes:
    """An ICC profile, version 2.4."""
    text = name.encode("ascii") + b"\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)
    tags = {b"desc": description, b"cprt": b"text\0\0\0\0none\0", b"wtpt": xyz(D50), **tags}
    start, table, body = 132 + 12 * len(tags), b"", b""
    for tag, data in tags.items():
        table += tag + struct.pack(">2I", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    device = b"prtr" if space == b"CMYK" else b"mntr"
    date = struct.pack(">6H", 2001, 2, 3, 4, 5, 6)
    header = (
        struct.pack(">2I", 0, 0x02400000)
        + device
        + space
        + pcs
        + date
        + b"acsp"
        + bytes(28)
        + fixed_point(*D50)
    )
    header = struct.pack(">I", start + len(body)) + header + bytes(48)
    return header + struct.pack(">I", len(tags)) + table + body


def rgb_profile(primaries: Array, gamma: float, name: str = "made for a test") -> tuple[bytes, Model]:
    tags = {letter + b"XYZ": xyz(primaries[:, c]) for c, letter in enumerate((b"r", b"g", b"b"))}
    tags |= {letter + b"TRC": gamma_curve(gamma) for letter in (b"r", b"g", b"b")}
    to_srgb = np.linalg.inv(SRGB) @ primaries
    return icc_profile(b"RGB ", b"XYZ ", tags, name), lambda rgb: rgb**gamma @ to_srgb.T


def gray_profile(gamma: float) -> tuple[bytes, Model]:
    data = icc_profile(b"GRAY", b"XYZ ", {b"kTRC": gamma_curve(gamma)})
    return data, lambda gray: np.repeat(gray[..., :1] ** gamma, 3, axis=-1)


# Inks printed alone, as Lab; printed over one another they are black.
PAPER, CYAN, MAGENTA, YELLOW, KEY = (100, 0, 0), (60, -20, -30), (50, 50, -10), (85, 0, 60), (0, 0, 0)


PRINTS: dict[tuple[int, ...], tuple[int, int, int]] = {
    (0, 0, 0, 0): PAPER,
    (1, 0, 0, 0): CYAN,
    (0, 1, 0, 0): MAGENTA,
    (0, 0, 1, 0): YELLOW,
}


def cmyk_profile() -> tuple[bytes, Model]:
    """A table with nodes at 0 and 1 of each ink; the model is valid at the nodes."""
    identity = bytes(range(256))
    colors = [PRINTS.get(inks, KEY) for inks in itertools.product((0, 1), repeat=4)]
    nodes = b"".join(bytes([round(L * 2.55), a + 128, b + 128]) for L, a, b in colors)
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + fixed_point(1, 0, 0, 0, 1, 0, 0, 0, 1)

    def model(inks: Array) -> Array:
        lab = np.array([PRINTS.get(tuple(row), KEY) for row in inks.reshape(-1, 4).astype(int).tolist()])
        y = (lab[:, 0] + 16) / 116
        f = np.stack([y + lab[:, 1] / 500, y, y - lab[:, 2] / 200], axis=1)
        linear = np.where(f > 6 / 29, f**3, (f - 4 / 29) * 3 * (6 / 29) ** 2) * D50 @ np.linalg.inv(SRGB).T
        return linear.reshape(*inks.shape[:-1], 3)

    return icc_profile(b"CMYK", b"Lab ", {b"A2B0": table + identity * 4 + nodes + identity * 3}), model


def srgb_encoded(linear: Array) -> Array:
    """Linear light, 0 to 1, as values of sRGB, 0 to 255."""
    linear = np.clip(linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


# The mode that each is for, its bytes, and its model.
PROFILES: dict[str, tuple[str, bytes, Model]] = {
    "sRGB with a gamma": ("RGB", *rgb_profile(SRGB, 2.19921875)),
    "P3": ("RGB", *rgb_profile(P3, 2.19921875)),
    "linear, channels permuted": ("RGB", *rgb_profile(SRGB[:, [1, 2, 0]], 1.0)),
    "gray 1.0": ("L", *gray_profile(1.0)),
    "gray 1.75": ("L", *gray_profile(1.75)),
    "CMYK": ("CMYK", *cmyk_profile()),
}


UNUSABLE = {"damaged": b"profile" * 40, "cut off": PROFILES["P3"][1][:200]}
