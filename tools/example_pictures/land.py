"""The shape of the land: mountains on a height map, forests on them, and a rocky shore in the foreground."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from camera import SUN
from shared import Array, power_noise, sample, smoothstep

MAP_SIZE, MAP_SPAN = 2048, 14400.0  # cells, and meters, along a side of the height map
CELL = MAP_SPAN / MAP_SIZE
SHORE = 250.0  # meters; nearer than this the ground is the rocky shore, beyond it the height map
TREE_CELL = 6.5  # meters; the far forests grow on two grids of such squares, at most one tree in each

# Mountains: x, y, height, half-width (meters).
MASSIFS = (
    (-900.0, 9000.0, 2250.0, 1900.0),
    (1500.0, 11500.0, 2300.0, 2300.0),
    (3300.0, 7000.0, 1750.0, 1500.0),
    (-3700.0, 6300.0, 1650.0, 1500.0),
    (-5200.0, 11000.0, 2300.0, 2500.0),
    (1050.0, 4300.0, 520.0, 700.0),
    (-1350.0, 3000.0, 520.0, 620.0),
    (2050.0, 3000.0, 560.0, 700.0),
)

# The near shore: x, y, half-width, half-depth, height of the lighthouse's point, a spit, the left bank.
ROCKS = (
    (17.0, 86.0, 21.0, 13.0, 3.6),
    (54.0, 100.0, 36.0, 14.0, 3.4),
    (-33.0, 50.0, 19.0, 17.0, 2.6),
)


def mountains(fine: Array, rng: np.random.Generator) -> Array:
    """Raise the mountains around the lake, and carve them."""
    size = MAP_SIZE // 2  # the broad shapes need no more
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) * (MAP_SPAN / size)
    x -= MAP_SPAN / 2
    bend_x, bend_y = (power_noise(size, 2.0, rng, 2.0) * 170.0 for _ in range(2))
    crests = ridges(x + bend_x, y + bend_y, rng)
    land = np.zeros_like(x)
    for cx, cy, height, reach in MASSIFS:
        square = ((x + 0.8 * bend_x - cx) ** 2 + (y + 0.8 * bend_y - cy) ** 2) / reach**2
        land = np.maximum(land, height * np.exp(-0.75 * square**0.8)) + 0.08 * height * np.exp(-square)
    land = land * (0.42 + 0.62 * crests) + 70.0 * crests
    # The lake: a long basin, its banks swinging in and out.
    center = 130.0 * np.sin(y / 700.0)
    half = 430.0 + 0.12 * y + 0.9 * bend_x
    shore = np.maximum(np.abs(x - center) - half, y - 2500.0 + bend_y)
    land = land * smoothstep(-40.0, 900.0, shore) + np.clip(shore, -60.0, 400.0) * 0.10
    return carve(ndimage.zoom(ndimage.median_filter(land, 3), MAP_SIZE / size, order=3), fine)


def ridges(x: Array, y: Array, rng: np.random.Generator) -> Array:
    """Return a net of sharp crests: octaves of folded noise, each strongest on the crests of the last."""
    total, weight = np.zeros_like(x), np.ones_like(x)
    for octave, gain in enumerate((1.0, 0.55, 0.30, 0.16, 0.09)):
        noise = power_noise(512, 2.1, rng, 2.0)
        repeat = 2.0 ** (octave - 0.3) / MAP_SPAN * 1.3
        swing = sample(noise, x * repeat, y * repeat)
        crest = 1.0 - np.tanh(0.9 * np.sqrt(swing * swing + 0.004))
        total += gain * weight * crest**1.2
        weight = np.clip(crest * 1.3, 0.15, 1.0)
    total /= np.percentile(total, 99)
    return total


def carve(land: Array, fine: Array) -> Array:
    """Cut gullies and ribs that grow with height, then let needles and walls crumble."""
    y, x = np.mgrid[0:MAP_SIZE, 0:MAP_SIZE].astype(np.float32) * CELL
    y += 0.25 * land  # the gullies run down the slopes rather than along a grid
    ribs = 150.0 * (0.6 - np.abs(sample(fine, x / 3600.0, y / 4800.0)))
    ribs += 75.0 * (0.6 - np.abs(sample(fine, x / 1500.0 + 0.3, y / 2100.0)))
    land = land + ribs * smoothstep(60.0, 1300.0, land)
    for _ in range(3):
        steep = np.hypot(*np.gradient(land)) / CELL
        land += (ndimage.gaussian_filter(land, 1.3) - land) * smoothstep(1.1, 1.9, steep)
    return land


def cast_shadows(land: Array) -> Array:
    """Sweep the height of the shadow over the map, column by column away from the sun; 1 is full sun."""
    drop = CELL * float(SUN[2] / abs(SUN[0]))
    slide = float(SUN[1] / SUN[0])  # cells moved along y for a cell moved along x
    rows = np.arange(MAP_SIZE)
    top = land[:, 0]
    lit = np.ones_like(land)
    for col in range(1, MAP_SIZE):
        top = np.interp(rows - slide, rows, top).astype(np.float32) - drop
        lit[:, col] = 1.0 - np.clip((top - land[:, col]) / 14.0, 0.0, 1.0)
        top = np.maximum(top, land[:, col])
    return lit


def on_map(texture: Array, x: Array, y: Array) -> Array:
    """Read a map of the land at points in meters."""
    return sample(texture, x / MAP_SPAN + 0.5, y / MAP_SPAN)


class Land:
    """The ground: a height map in the distance, and rocks at the water's edge in the foreground."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.fine = power_noise(1024, 1.55, rng)
        self.rough = power_noise(1024, 1.05, rng, lowest=6.0)
        self.random = rng.random((512, 512, 4)).astype(np.float32)
        self.map = mountains(self.fine, rng)
        self.steep = ndimage.gaussian_filter(np.hypot(*np.gradient(self.map, CELL)), 1.2)
        patches = ndimage.zoom(self.fine[:512, :512], MAP_SIZE / 512, order=1)
        self.woods = smoothstep(-0.3, 0.3, 0.55 - self.steep + 0.25 * patches - 0.0011 * (self.map - 420.0))
        self.woods *= smoothstep(1.0, 6.0, self.map)
        self.lit = cast_shadows(self.map)

    def scatter(self, x: Array, y: Array, cell: float, angle: float) -> tuple[Array, Array]:
        """Scatter one object per cell of a rotated grid; return its distance in cells, and its random values.

        Of the four random values, the first two have already moved the object within its cell.
        """
        u = (np.cos(angle) * x + np.sin(angle) * y).astype(np.float32) / cell
        v = (np.cos(angle) * y - np.sin(angle) * x).astype(np.float32) / cell
        col, row = np.floor(u), np.floor(v)
        chance = self.random[row.astype(int) % 512, col.astype(int) % 512]
        dx = u - col - 0.5 - (chance[..., 0] - 0.5) * 0.45
        dy = v - row - 0.5 - (chance[..., 1] - 0.5) * 0.45
        return np.hypot(dx, dy), chance

    def near(self, x: Array, y: Array) -> Array:
        """Return the height of the rocky shore."""
        wobble = sample(self.fine, x / 150.0, y / 150.0 + 0.2) + 0.25 * sample(self.fine, x / 40.0, y / 40.0)
        height = np.full_like(wobble, -3.0)
        for cx, cy, wide, deep, tall in ROCKS:
            inside = 1.0 - np.hypot((x - cx) / wide, (y - cy) / deep) + 0.16 * wobble
            height = np.maximum(height, tall * np.tanh(2.0 * inside))
        # Boulders lie along the shore; farther from the water the ground is smoother.
        shore = smoothstep(3.3, 1.2, np.abs(height - 0.3))
        ground: Array = height + 0.10 * sample(self.fine, x / 13.0, y / 13.0) * (0.3 + shore)
        for cell, angle in ((6.5, 0.7), (3.6, 0.3), (2.2, 1.2)):
            away, chance = self.scatter(x, y, cell, angle)
            dome = np.sqrt(np.clip(1.0 - (away / (0.30 + 0.18 * chance[..., 3])) ** 2, 0.0, 1.0))
            rock = height - 0.25 * cell + (0.30 + 0.22 * chance[..., 2]) * cell * dome
            ground = np.maximum(ground, rock - 2.0 * (1.0 - shore))
        return ground

    def trees(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Return the height the far forest adds to the ground, and how far up a tree (0 to 1) that is."""
        tall, up = np.zeros_like(x), np.zeros_like(x)
        dense = on_map(self.woods, x, y)
        for angle in (0.5, 1.9):  # two grids at odd angles, so that no rows show
            away, chance = self.scatter(x, y, TREE_CELL, angle)
            cone = np.clip(1.0 - away / (0.26 + 0.10 * chance[..., 3]), 0.0, 1.0)
            cone = cone * (dense > chance[..., 3] * 0.9 + 0.05)
            top = cone * (9.0 + 12.0 * chance[..., 2] ** 2)
            up = np.where(top > tall, cone, up)
            tall = np.maximum(tall, top)
        return tall, up

    def height(self, x: Array, y: Array, trees: bool = True) -> Array:
        """Return the height of the ground, forest included."""
        ground = on_map(self.map, x, y)
        far = y > SHORE
        if trees:
            ground[far] += self.trees(x[far], y[far])[0] * (ground[far] > 0.6)
        ground[~far] = self.near(x[~far], y[~far])
        return ground
