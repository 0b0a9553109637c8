"""The camera that looks at the landscape, and the light and the air it looks through.

World coordinates are meters: x to the right, y away from the camera, z up; the lake lies at z = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shared import Array, color, mix, smoothstep

WIDTH, HEIGHT = 960, 720
SCALE = 2  # rendered at twice the size, so that averaging smooths every edge
ROWS, COLS = HEIGHT * SCALE, WIDTH * SCALE
FOCAL = 1000.0 * SCALE  # pixels
HORIZON = 425 * SCALE  # the row of the horizon
EYE = 5.5  # height of the camera above the lake

# The slopes of the line of sight: sideways for every column, upward for every row.
ACROSS: Array = ((np.arange(COLS) + 0.5 - COLS / 2) / FOCAL).astype(np.float32)
RISE: Array = ((HORIZON - 0.5 - np.arange(ROWS)) / FOCAL).astype(np.float32)

SUN = color(-0.84, -0.40, 0.366)  # the direction to it: low, at the left, a little behind the camera
SUNLIGHT = color(1.00, 0.68, 0.37) * 3.3
SKYLIGHT = color(0.34, 0.46, 0.66) * 0.7


@dataclass
class Frame:
    """A picture in linear light, with the distance of what is seen (infinite for sky)."""

    light: Array
    depth: Array


def haze(light: Array, depth: Array, across: Array) -> Array:
    """Lay the air between the eye and things: it dims blue first, and adds the glow of the sky."""
    reach = color(52000.0, 36000.0, 23000.0)
    clear = np.exp(-(depth[..., None] / reach))
    warm = smoothstep(0.5, -0.6, across)
    glow = mix(color(0.50, 0.64, 0.86), color(1.00, 0.84, 0.66), warm * 0.75)
    return light * clear + glow * (1.0 - clear)
