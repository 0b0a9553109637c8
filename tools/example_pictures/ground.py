"""The ground as the camera sees it: where each line of sight meets it, and the light it reflects."""

from __future__ import annotations

import numpy as np

from buildings import sunlit
from camera import ACROSS, COLS, FOCAL, RISE, ROWS, SKYLIGHT, SUN, SUNLIGHT
from land import SHORE, Land, on_map
from shared import Array, color, mix, sample, smoothstep


class Terrain:
    """The ground along every column's line of sight, which both the camera and its mirror image need."""

    def __init__(self, land: Land) -> None:
        near, far, count = 17.0, 14000.0, 3400
        self.distance = (near * (far / near) ** (np.arange(count) / (count - 1.0))).astype(np.float32)
        y, slope = np.meshgrid(self.distance, ACROSS, indexing="ij")
        self.height = land.height(slope * y, y)

    def first_hits(self, eye: float) -> Array:
        """Return the distance of the first ground on every line of sight.

        The lake counts as ground, but not when ``eye`` is below it.
        """
        floor = 0.0 if eye > 0 else -np.inf
        rise = (np.where(self.height > 0.0, self.height, floor) - eye) / self.distance[:, None]
        split = int(np.searchsorted(self.distance, SHORE))
        near, far = (np.maximum.accumulate(part, axis=0) for part in (rise[:split], rise[split:]))
        close, distant = (np.append(part, np.inf) for part in (self.distance[:split], self.distance[split:]))
        rises = RISE[::-1]
        hits = np.empty((ROWS, COLS), np.float32)
        for col in range(COLS):
            hit = close[np.searchsorted(near[:, col], rises)]
            # Seen from below, a line that is still under water at the near ground passes under it.
            passes = np.isinf(hit)
            if eye < 0:
                passes |= rises * np.minimum(hit, SHORE) < -eye
            hit[passes] = distant[np.searchsorted(far[:, col], rises[passes])]
            hits[::-1, col] = hit
        return hits


def shade_ground(land: Land, x: Array, y: Array) -> Array:
    """Return the light that points of the ground reflect to the camera, before haze."""
    here = land.height(x, y)
    grain = np.maximum(1.2 * y / FOCAL, 0.05)
    slope_x = (land.height(x + grain, y) - here) / grain
    slope_y = (land.height(x, y + grain) - here) / grain
    normal = np.stack([-slope_x, -slope_y, np.ones_like(x)], -1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    far = y > SHORE
    tree = land.trees(x, y)[1] * far
    woods = on_map(land.woods, x, y) * far
    albedo = far_ground(land, x, y, tree, woods)
    # Between the trees of a wood little light comes down.
    open_sky = 1.0 - 0.65 * woods * (1.0 - tree)
    sun = np.clip(normal @ SUN, 0.0, 1.0)
    sun *= on_map(land.lit, x, y) * (1.0 - 0.8 * woods * (1.0 - tree))
    close = ~far
    albedo[close] = near_ground(land, x[close], y[close], here[close], 1.0 - normal[close, 2])
    sun[close] *= sunlit(np.stack([x, y, here], -1)[close] + 0.06 * normal[close], land)
    # The sky behind the camera is the brighter half of what the shaded slopes see.
    ambient = (0.45 + 0.35 * normal[..., 2] + 0.35 * normal @ color(-0.3, -0.8, 0.5)) * open_sky
    light: Array = albedo * (sun[..., None] * SUNLIGHT + ambient[..., None] * SKYLIGHT)
    return light


def far_ground(land: Land, x: Array, y: Array, tree: Array, woods: Array) -> Array:
    """Return the colors of the far ground: grass, rock where it is steep, snow on high, and forest."""
    bare = land.height(x, y, trees=False)
    patch = sample(land.fine, x / 2100.0, y / 2100.0)
    fine = sample(land.rough, x / 300.0, y / 300.0)
    steep = on_map(land.steep, x, y)
    rock = mix(color(0.12, 0.106, 0.096), color(0.23, 0.195, 0.16), smoothstep(-1.5, 1.5, patch + fine))
    grass = mix(color(0.10, 0.12, 0.045), color(0.20, 0.17, 0.07), smoothstep(-1.0, 1.2, patch))
    albedo = mix(grass, rock, smoothstep(0.45, 0.75, steep + 0.00030 * (bare - 600.0) + 0.06 * fine))
    snow = smoothstep(900.0, 1300.0, bare + 150.0 * patch + 60.0 * fine)
    snow *= smoothstep(1.30, 0.90, steep + 0.07 * fine - 0.00025 * (bare - 1300.0))
    albedo = mix(albedo, color(0.82, 0.84, 0.88), snow)
    green = mix(color(0.030, 0.048, 0.024), color(0.060, 0.075, 0.030), smoothstep(-1.0, 1.0, patch + fine))
    return mix(albedo, green, np.maximum(smoothstep(0.0, 0.1, tree), 0.9 * woods))


def near_ground(land: Land, x: Array, y: Array, z: Array, steep: Array) -> Array:
    """Return the colors of the ground close by: granite, lichen, grass, and a wet line at the water."""
    coarse, fine = sample(land.fine, x / 23.0, y / 23.0), sample(land.rough, x / 9.0, y / 9.0)
    stone = mix(color(0.11, 0.10, 0.095), color(0.27, 0.24, 0.205), smoothstep(-1.8, 1.8, coarse + fine))
    grass = mix(color(0.085, 0.105, 0.030), color(0.19, 0.17, 0.06), smoothstep(-1.2, 1.2, coarse - fine))
    turf = smoothstep(2.2, 3.0, z + 0.4 * coarse) * smoothstep(0.30, 0.12, steep)
    wet = smoothstep(0.55, 0.15, z + 0.1 * fine)
    return mix(stone, grass, turf) * (1.0 - 0.62 * wet)[..., None]
