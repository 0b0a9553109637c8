"""The conifers on the near shore: each a cloud of needles, drawn one needle at a time."""

from __future__ import annotations

import numpy as np

from camera import COLS, FOCAL, HORIZON, ROWS, SKYLIGHT, SUN, SUNLIGHT, Frame
from land import Land
from shared import Array, color

# x, y, height (meters), from the farthest to the nearest.
CONIFERS = (
    (44.5, 100.0, 19.0),
    (35.5, 97.0, 17.0),
    (29.0, 96.0, 8.5),
    (48.0, 96.0, 15.0),
    (40.0, 94.0, 14.0),
    (31.0, 92.0, 13.0),
    (-28.0, 60.0, 22.0),
    (-18.6, 58.0, 11.0),
    (-23.5, 54.0, 25.0),
    (-19.3, 49.0, 19.0),
)


def grow(height: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return the needles of a conifer, as points around its foot, and how deep in the crown each lies."""
    boughs = int(17 * height)
    level = np.sort(rng.uniform(0.05, 1.0, boughs)) ** 0.9
    reach = (0.205 * height * (1.0 - level) ** 0.85 + 0.12) * rng.uniform(0.4, 1.2, boughs)
    turn = rng.uniform(0.0, 2.0 * np.pi, boughs)
    needles = np.maximum((reach * 380).astype(int), 60)
    bough = np.repeat(np.arange(boughs), needles)
    along = np.sqrt(rng.random(len(bough)))
    # Twigs: the needles on one side of an eighth of a bough hang together.
    side = rng.choice((-1.0, 1.0), len(bough))
    twig = (bough * 8 + (along * 8).astype(int)) * 2 + (side > 0)
    twig_sag, twig_tone = rng.uniform(0.0, 1.0, (2, boughs * 16 + 16))
    spread = side * (0.05 + 0.42 * reach[bough] * (1.0 - 0.8 * along)) * rng.random(len(bough))
    # A bough sags with its weight and turns up at its tip.
    lift = rng.normal(0.0, 0.14, boughs)
    sag = reach[bough] * ((lift[bough] - 0.55) * along + 0.32 * along**2.5) * (1.2 - level[bough])
    hang = -np.abs(spread) * (0.2 + 1.1 * twig_sag[twig]) - rng.exponential(0.10, len(bough))
    out = reach[bough] * along + 0.4 * np.abs(spread)
    c, s = np.cos(turn[bough]), np.sin(turn[bough])
    crown = np.stack([out * c - spread * s, out * s + spread * c, level[bough] * height + sag + hang], -1)
    depth = 1.0 - along * (0.55 + 0.45 * twig_tone[twig])
    trunk = grow_trunk(height, rng)
    points = np.concatenate([crown, trunk]).astype(np.float32)
    return points, np.concatenate([depth, np.full(len(trunk), 0.85)]).astype(np.float32)


def grow_trunk(height: float, rng: np.random.Generator) -> Array:
    """Return the points of a trunk, around its foot."""
    z = rng.uniform(0.0, height * 0.98, int(900 * height))
    girth = 0.020 * (height - z)
    around = rng.uniform(0.0, 2.0 * np.pi, len(z))
    return np.stack([girth * np.cos(around), girth * np.sin(around), z], -1)


def light_needles(points: Array, inside: Array, rng: np.random.Generator) -> Array:
    """Return the light that needles reflect to the camera: less, the deeper they are in the crown."""
    outward = points.copy()
    outward[:, 2] = 0.35 * np.hypot(points[:, 0], points[:, 1])
    outward /= np.linalg.norm(outward, axis=-1, keepdims=True) + 1e-6
    sun = np.clip(outward @ SUN * 0.8 + 0.15, 0.0, 1.0) * np.clip(1.15 - 1.3 * inside, 0.0, 1.0)
    tint = color(0.034, 0.042, 0.022) * rng.uniform(0.6, 1.4, (len(points), 1))
    ambient = 0.18 + 0.5 * (1.0 - inside) ** 2
    light: Array = tint * (sun[:, None] * SUNLIGHT + ambient[:, None] * SKYLIGHT)
    return light


def splat(frame: Frame, eye: float, points: Array, light: Array) -> None:
    """Draw points of the world into a frame, from the farthest to the nearest."""
    order = np.argsort(-points[:, 1])
    (x, y, z), light = points[order].T, light[order]
    cols = (COLS / 2 + FOCAL * x / y).astype(int)
    rows = (HORIZON - FOCAL * (z - eye) / y).astype(int)
    # A needle tuft covers three pixels of a square of two by two.
    for row, col in ((rows, cols), (rows + 1, cols), (rows, cols + 1)):
        seen = (row >= 0) & (row < ROWS) & (col >= 0) & (col < COLS)
        seen[seen] = y[seen] < frame.depth[row[seen], col[seen]] + 1.5
        frame.light[row[seen], col[seen]] = light[seen]
        frame.depth[row[seen], col[seen]] = y[seen]


def draw_conifers(frame: Frame, eye: float, land: Land) -> None:
    """Draw the conifers into a frame."""
    rng = np.random.default_rng(77)
    for x, y, height in CONIFERS:
        points, inside = grow(height, rng)
        light = light_needles(points, inside, rng)
        ground = land.near(np.array([x], np.float32), np.array([y], np.float32))
        splat(frame, eye, points + color(x, y, float(ground[0]) - 0.3), light)
