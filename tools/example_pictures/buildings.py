"""The lighthouse and the keeper's cottage: solids given by signed distances, rendered by ray marching.

A white tower with a red lantern room stands at the origin of its own axes, the cottage beside it.
"""

from __future__ import annotations

import numpy as np

from camera import ACROSS, COLS, FOCAL, HORIZON, RISE, SKYLIGHT, SUN, SUNLIGHT, Frame
from land import Land
from shared import Array, color, mix, sample, smoothstep

TOWER = color(14.0, 84.0, 3.3)  # of the tower in the world
COTTAGE = color(9.6, -2.4, 0.0)  # from the tower
COTTAGE_ANGLE = 0.42  # radians, so that two of its walls are visible

# The materials, in the order in which ``part_distances`` returns the distances.
PLASTER, METAL, GLASS, STONE, ROOF, RAILS = range(6)
COLORS = np.stack(
    [
        color(0.80, 0.77, 0.71),
        color(0.34, 0.042, 0.034),
        color(0.05, 0.07, 0.09),
        color(0.36, 0.33, 0.30),
        color(0.21, 0.075, 0.050),
        color(0.10, 0.10, 0.11),
    ]
)


def box(p: Array, half: tuple[float, float, float]) -> Array:
    """Return the distance to a box around the origin."""
    q = np.abs(p) - color(*half)
    outside: Array = np.linalg.norm(np.maximum(q, 0.0), axis=-1)
    inside: Array = np.minimum(q.max(axis=-1), 0.0)
    return outside + inside


def drum(p: Array, bottom: float, top: float, radius: Array | float) -> Array:
    """Return the distance to an upright cylinder on the z axis (``radius`` may change slowly with height)."""
    side = np.hypot(p[..., 0], p[..., 1]) - radius
    ends = np.abs(p[..., 2] - (bottom + top) / 2) - (top - bottom) / 2
    outside = np.hypot(np.maximum(side, 0.0), np.maximum(ends, 0.0))
    return outside + np.minimum(np.maximum(side, ends), 0.0)


def cottage_frame(p: Array) -> Array:
    """Return points in the coordinate system of the cottage."""
    q = p - COTTAGE
    c, s = np.cos(COTTAGE_ANGLE), np.sin(COTTAGE_ANGLE)
    return np.stack([c * q[..., 0] + s * q[..., 1], c * q[..., 1] - s * q[..., 0], q[..., 2]], -1)


def part_distances(p: Array) -> list[Array]:
    """Return the distances to plaster, red metal, glass, stone, roof and rails."""
    z = p[..., 2]
    flare = 0.5 * np.exp(-np.maximum(z, 0.0) / 0.8)
    tower = drum(p, -2.0, 13.6, np.clip(2.75 - 0.085 * z + flare, 1.5, 3.5))
    gallery = np.minimum(drum(p, 13.5, 13.95, 2.55), drum(p, 13.05, 13.5, 2.05))
    glass = drum(p, 13.9, 16.3, 1.12)
    turn = np.arctan2(p[..., 1], p[..., 0])
    bars = np.maximum(np.abs(np.sin(4.0 * turn)) * 0.30 - 0.035, drum(p, 13.9, 16.3, 1.17))
    radius = np.hypot(p[..., 0], p[..., 1])
    dome = np.maximum(np.hypot(radius, (z - 16.3) * 1.15) - 1.5, 16.25 - z)
    knob = np.minimum(np.linalg.norm(p - color(0, 0, 17.8), axis=-1) - 0.24, drum(p, 17.7, 19.0, 0.05))
    red = np.minimum.reduce([dome, knob, bars, drum(p, 13.9, 14.45, 1.2)])
    rings = np.minimum.reduce([np.hypot(radius - 2.42, z - h) - 0.05 for h in (14.35, 14.75, 15.1)])
    posts = np.maximum(np.hypot(radius - 2.42, np.sin(8.0 * turn) * 0.28) - 0.05, np.abs(z - 14.5) - 0.6)
    q = cottage_frame(p)
    pitch = 0.62 * np.abs(q[..., 1]) + 0.785 * q[..., 2]
    walls = np.maximum(box(q - color(0, 0, 2.0), (3.9, 2.5, 3.2)), pitch - 3.925)
    slab = np.abs(pitch - 4.02) - 0.11
    roof = np.maximum.reduce([slab, np.abs(q[..., 0]) - 4.25, np.abs(q[..., 1]) - 2.95])
    chimney = box(q - color(2.3, 0.0, 5.1), (0.38, 0.38, 1.0))
    plinth = np.minimum(drum(p, -2.0, 0.5, 3.75), box(q - color(0, 0, -0.9), (4.1, 2.7, 1.2)))
    stone = np.minimum.reduce([plinth, chimney, gallery])
    return [np.minimum(tower, walls), red, glass, stone, roof, np.minimum(rings, posts)]


def distance(p: Array) -> Array:
    """Return the distance to the nearest part."""
    nearest: Array = np.minimum.reduce(part_distances(p))
    return nearest


def march_rays(origin: Array, ray: Array, far: float, steps: int) -> Array:
    """Follow unit rays to the first surface; return its distance, infinite where a ray meets none."""
    traveled = np.zeros(len(ray), np.float32)
    hit = np.full(len(ray), np.inf, np.float32)
    live = np.arange(len(ray))
    for _ in range(steps):
        gap = distance(origin[live] + ray[live] * traveled[live, None])
        done = gap < 0.012
        hit[live[done]] = traveled[live[done]]
        traveled[live] += 0.85 * gap
        live = live[~done & (traveled[live] < far)]
        if not len(live):
            break
    return hit


def sunlit(points: Array, land: Land) -> Array:
    """Return 0 for points of the world in the shadow of the buildings or of the near ground, else 1."""
    lit = np.ones(len(points), np.float32)
    for step in np.geomspace(0.25, 9.0, 12):
        at = points + SUN * np.float32(step)
        buried = land.near(at[:, 0], at[:, 1]) - at[:, 2]
        lit = np.minimum(lit, 1.0 - smoothstep(0.0, 0.12 * step, buried))
    local = points - TOWER
    # Only points near the vertical plane through the buildings and the sun can lie in their shadow.
    aside = np.abs(local[:, 0] * SUN[1] - local[:, 1] * SUN[0]) / np.hypot(SUN[0], SUN[1])
    near = (aside < 9.0) & (local[:, 0] > -4.0) & (lit > 0.0)
    rays = np.broadcast_to(SUN, (int(near.sum()), 3))
    lit[near] *= np.isinf(march_rays(local[near], rays, 60.0, 40))
    return lit


def paint(local: Array, land: Land) -> tuple[Array, Array]:
    """Return the colors of points on the buildings, and which of them are glass."""
    part = np.argmin(np.stack(part_distances(local)), axis=0)
    fine = sample(land.rough, (local[:, 0] + local[:, 1]) / 7.0, local[:, 2] / 11.0)
    stain = sample(land.fine, (local[:, 0] - local[:, 1]) / 9.0, local[:, 2] / 60.0)
    x, y, z = local.T
    q = cottage_frame(local)
    tower = (part == PLASTER) & (np.hypot(x, y) < 3.6)
    wall = (part == PLASTER) & ~tower
    albedo = COLORS[part]
    albedo[tower & (((z > 8.0) & (z < 10.6)) | ((z > 2.9) & (z < 5.5)))] = color(0.31, 0.045, 0.040)
    albedo *= np.clip(1.0 + 0.05 * fine + 0.16 * np.minimum(stain, 0.3), 0.3, 1.2)[:, None]
    # Rows of tiles.
    tiles = 0.82 + 0.18 * np.abs(np.sin(q[:, 2] * 9.5)) + 0.05 * fine
    albedo[part == ROOF] *= tiles[part == ROOF, None]
    # Windows and doors, first of the tower, then of the long walls of the cottage, then of its gables.
    dark = tower & (np.abs(x + 0.55) < 0.33) & (y < 0) & ((np.abs(z - 6.8) < 0.6) | (np.abs(z - 11.8) < 0.5))
    dark |= tower & (np.abs(x + 0.4) < 0.6) & (y < 0) & (z < 2.3)
    front = wall & (np.abs(q[:, 1]) > 2.4)
    dark |= front & (np.abs(np.abs(q[:, 0]) - 2.2) < 0.45) & (np.abs(z - 1.7) < 0.6)
    dark |= front & (np.abs(q[:, 0]) < 0.5) & (z < 2.2)
    dark |= wall & ~front & (np.abs(q[:, 1]) < 0.45) & (np.abs(z - 1.8) < 0.65)
    albedo[dark] = color(0.045, 0.05, 0.06)
    return albedo, (part == GLASS) | (dark & (z > 2.2))


def send_light(local: Array, ray: Array, land: Land) -> Array:
    """Return the light that points of the buildings reflect along ``ray``."""
    nudges = 0.02 * np.eye(3, dtype=np.float32)
    normal = np.stack([distance(local + nudge) - distance(local - nudge) for nudge in nudges], -1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-9
    albedo, shiny = paint(local, land)
    sun = np.clip(normal @ SUN, 0.0, 1.0)
    sun *= sunlit(local + TOWER + normal * 0.06, land)
    # Corners are darker: compare the free distance a step away with what open space would give.
    corner = np.clip(distance(local + normal * 0.7) / 0.7, 0.0, 1.0)
    ambient = (0.62 + 0.38 * normal[:, 2]) * (0.35 + 0.65 * corner)
    bounce = (0.5 - 0.5 * normal[:, 2, None]) * color(0.15, 0.12, 0.09)
    light: Array = albedo * (sun[:, None] * SUNLIGHT + ambient[:, None] * SKYLIGHT + bounce)
    mirror = ray - 2.0 * np.sum(ray * normal, -1, keepdims=True) * normal
    glare = mix(color(0.35, 0.45, 0.6), color(1.2, 0.95, 0.65), smoothstep(0.3, -0.8, mirror[:, 0]))
    light[shiny] += 0.55 * glare[shiny]
    return light


def draw_buildings(frame: Frame, eye: float, land: Land) -> None:
    """Render the buildings into a frame."""
    left, right = (int(COLS / 2 + FOCAL * (x / 84.0)) for x in (9.5, 29.0))
    top, low = (int(HORIZON - FOCAL * (z - eye) / 80.0) for z in (23.5, 0.5))
    rows, cols = (index.ravel() for index in np.mgrid[top:low, left:right])
    ray = np.stack([ACROSS[cols], np.ones(len(rows), np.float32), RISE[rows]], -1)
    length = np.linalg.norm(ray, axis=-1)
    ray /= length[:, None]
    start = 70.0  # meters; no part of the buildings is nearer
    origin = color(0.0, 0.0, eye) - TOWER + ray * start
    hit = march_rays(origin, ray, 45.0, 90)
    depth = (hit + start) / length
    seen = np.isfinite(hit) & (depth < frame.depth[rows, cols])
    rows, cols, ray = rows[seen], cols[seen], ray[seen]
    frame.light[rows, cols] = send_light(origin[seen] + ray * hit[seen, None], ray, land)
    frame.depth[rows, cols] = depth[seen]
