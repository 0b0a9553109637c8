"""Shared by both example pictures: smooth steps, colors, noise and textures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[Any]


def smoothstep(low: float, high: float, x: Array) -> Array:
    """Rise smoothly from 0 at ``low`` to 1 at ``high``."""
    t: Array = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def color(red: float, green: float, blue: float) -> Array:
    """Return a color (or a point or direction in space) as an array."""
    return np.array([red, green, blue], np.float32)


def mix(a: Array, b: Array, t: Array) -> Array:
    """Blend the colors ``a`` into ``b`` by ``t``, which has no color axis."""
    blend: Array = a + (b - a) * t[..., None]
    return blend


def power_noise(size: int, slope: float, rng: np.random.Generator, lowest: float = 1.0) -> Array:
    """Return tileable noise, unit variance, whose amplitude falls as frequency ** -slope."""
    fy = np.fft.fftfreq(size, 1.0 / size)[:, None]
    fx = np.fft.rfftfreq(size, 1.0 / size)[None, :]
    radius = np.hypot(fx, fy)
    gain = np.where(radius >= lowest, np.maximum(radius, 1.0) ** -slope, 0.0)
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) * gain, s=(size, size))
    scaled: Array = (noise / noise.std()).astype(np.float32)
    return scaled


def sample(texture: Array, x: Array, y: Array) -> Array:
    """Read a tileable texture at ``x`` (columns) and ``y`` (rows), both in tiles."""
    rows, cols = texture.shape
    at = np.stack([y * rows, x * cols]).astype(np.float32)
    values: Array = ndimage.map_coordinates(texture, at, order=1, mode="grid-wrap")
    return values


def shrink(picture: Array, factor: int) -> Array:
    """Average blocks of ``factor`` by ``factor`` pixels."""
    height, width, channels = picture.shape
    blocks = picture.reshape(height // factor, factor, width // factor, factor, channels)
    means: Array = blocks.mean(axis=(1, 3))
    return means
