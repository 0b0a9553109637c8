"""The content picture: a photograph of a lighthouse on a mountain lake, with its sky, water and film."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from buildings import draw_buildings
from camera import ACROSS, COLS, EYE, FOCAL, HEIGHT, HORIZON, RISE, ROWS, SCALE, WIDTH, Frame, haze
from conifers import draw_conifers
from ground import Terrain, shade_ground
from land import Land
from shared import Array, color, mix, sample, shrink, smoothstep

EXPOSURE = 0.82
CLOUD_SLICES = 30  # horizontal, from the bottom of the clouds to the top
RIPPLE_TAKES = 6  # mirror images averaged


def cloud(land: Land, x: Array, y: Array, level: Array, lumpy: Array) -> Array:
    """Return how thick the clouds are at points in meters; ``level`` rises from 0 to 1 through them."""
    shape = sample(land.fine, x / 23000.0 + 0.10, y / 31000.0 + 0.483)
    lumps = sample(land.fine, x / 3900.0, y / 5700.0 + 0.5 * level)
    thick: Array = shape + lumpy * lumps - 0.17 - 1.2 * np.abs(level - 0.2)
    return np.clip(thick, 0.0, 1.0)


def sky(land: Land) -> Array:
    """Return the sky for all rows above the horizon: a gradient, and cumulus cut in level slices."""
    across, up = np.meshgrid(ACROSS[::SCALE], np.maximum(RISE[:HORIZON:SCALE], 0.002))
    warm = smoothstep(0.55, -0.75, across)
    low = mix(color(0.72, 0.80, 0.92), color(1.35, 1.06, 0.76), warm)
    high = mix(color(0.13, 0.27, 0.60), color(0.22, 0.38, 0.68), warm)
    clear = mix(high, low, np.exp(-up / 0.12))
    seen, glow = np.ones_like(up), np.zeros_like(clear)
    jitter = sample(land.random[..., 0], *np.meshgrid(np.arange(WIDTH) / 512, np.arange(len(up)) / 512))
    for k in range(CLOUD_SLICES):
        level = (k + jitter) / CLOUD_SLICES  # the jitter turns the edges of the slices into fine grain
        y = (1500.0 + 600.0 * level) / (up + 0.03)
        x = across * y
        # Far away the lumps are finer than the pixels, so they fade.
        lumpy = 0.42 * np.exp(-((y / 16000.0) ** 2))
        here = cloud(land, x, y, level, lumpy)
        blocked = cloud(land, x - 260.0, y - 60.0, level, lumpy)
        blocked += 0.8 * cloud(land, x - 700.0, y - 160.0, level, lumpy)
        lit = np.exp(-1.6 * blocked)[..., None]
        shade = mix(color(0.40, 0.46, 0.60), color(0.60, 0.54, 0.55), warm) * (0.7 + 0.3 * level)[..., None]
        puff = mix(low, shade + lit * color(1.10, 0.84, 0.60), np.exp(-y / 40000.0))
        cover = 1.0 - np.exp(-0.30 * here)
        glow += (seen * cover)[..., None] * puff
        seen = seen * (1.0 - cover)
    light: Array = glow + seen[..., None] * clear
    return light.repeat(SCALE, axis=0).repeat(SCALE, axis=1)


def render(eye: float, land: Land, terrain: Terrain, heaven: Array) -> Frame:
    """Render all but the water, as seen from height ``eye`` (below zero: the mirror image in the lake)."""
    frame = Frame(np.zeros((ROWS, COLS, 3), np.float32), terrain.first_hits(eye))
    frame.light[:HORIZON] = heaven
    rows, cols = np.nonzero(np.isfinite(frame.depth))
    y, across = frame.depth[rows, cols], ACROSS[cols]
    frame.light[rows, cols] = haze(shade_ground(land, across * y, y), y, across)
    draw_buildings(frame, eye, land)
    draw_conifers(frame, eye, land)
    return frame


def pour_water(frame: Frame, mirror: Frame, land: Land, rng: np.random.Generator) -> None:
    """Fill the lake with the mirror image, shaken by ripples, over the dark green of the deep."""
    surface = EYE / -RISE[HORIZON:, None]  # its distance
    rows, cols = np.nonzero(frame.depth[HORIZON:] > surface * 0.995)
    rows += HORIZON
    y = EYE / -RISE[rows]
    x = ACROSS[cols] * y
    breeze = sample(land.fine, x / 900.0, y / 2600.0) + 0.5 * sample(land.fine, x / 160.0, y / 420.0)
    calm = smoothstep(-0.9, 1.3, breeze)
    total = np.zeros((len(rows), 3), np.float32)
    choppy = 0.005 + 0.013 * (1.0 - calm)
    for _ in range(RIPPLE_TAKES):
        dx, dy = rng.normal(0.0, 0.25, (2, len(rows))).astype(np.float32) * (y / 60.0)
        swell = sample(land.fine, (x + dx) / 19.0, (y + dy) / 11.0 + 0.3)
        chop = sample(land.rough, (x + dx) / 9.0 + 0.5, (y + dy) / 5.0)
        tilt = choppy * (0.7 * swell + 0.8 * chop + 0.25 * rng.standard_normal(len(rows)))
        turned = 2 * HORIZON - rows - np.abs(FOCAL * 2.0 * tilt + 0.25 * FOCAL * choppy)
        aside = cols + 0.25 * FOCAL * choppy * sample(land.rough, (x + dx) / 15.0, (y + dy) / 15.0 + 0.2)
        at = (np.clip(turned, 0, HORIZON - 1).astype(int), np.clip(aside, 0, COLS - 1).astype(int))
        cosine = np.clip(-RISE[rows] + 1.6 * tilt, 0.0, 1.0)
        mirrored = (0.03 + 0.97 * (1.0 - cosine) ** 4.5)[:, None]
        total += mirror.light[at] * mirrored + color(0.035, 0.075, 0.085) * (1.0 - mirrored)
    frame.light[rows, cols] = haze(total / RIPPLE_TAKES, y, ACROSS[cols])


def develop(light: Array, rng: np.random.Generator) -> Array:
    """Turn linear light into a print: glow, film curve, vignette, grain."""
    light = shrink(light, SCALE)
    bright = np.maximum(light - 0.9, 0.0)
    light = light + 0.10 * ndimage.gaussian_filter(bright, (9, 9, 0))
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    light *= (1.0 - 0.16 * (x * x + y * y) ** 1.2)[..., None] * EXPOSURE
    curve = light * (2.51 * light + 0.03) / (light * (2.43 * light + 0.59) + 0.14)
    positive = np.clip(curve, 0.0, 1.0) ** (1 / 2.2)
    gray = positive.mean(axis=-1, keepdims=True)
    positive = gray + 1.12 * (positive - gray)
    positive += 0.30 * (positive - 0.5) * positive * (1.0 - positive)
    grain = ndimage.gaussian_filter(rng.standard_normal((HEIGHT, WIDTH, 1)), (0.6, 0.6, 0))
    finished: Array = positive + 0.012 * grain + 0.003 * rng.standard_normal(positive.shape)
    return finished


def paint_content() -> Array:
    """Photograph the lighthouse on the lake."""
    rng = np.random.default_rng(5)
    land = Land(rng)
    terrain = Terrain(land)
    heaven = sky(land)
    frame = render(EYE, land, terrain, heaven)
    mirror = render(-EYE, land, terrain, heaven)
    pour_water(frame, mirror, land, rng)
    return develop(frame.light, rng)
