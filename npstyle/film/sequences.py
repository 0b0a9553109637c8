"""Short films with known flow, made from a picture: what a method is judged by.

A pixel of a frame shows a point of the picture, in the background or on a disc before it; each moves by an
affine map. So where a pixel was in an earlier frame, and whether it was visible there, is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npstyle.film.flow import Flow, inside, warp

Array = NDArray[Any]
SUPERSAMPLING = 4  # points along each side of a pixel at the rim of the disc
MARGIN = 1.0  # pixels around the rim of the disc that are neither disc nor background


@dataclass(frozen=True)
class Motion:
    """Where a frame's points (x, y) are in the picture: rotated and scaled around a center, then moved.

    Attributes
    ----------
    center : (float, float)
        In the frame.
    moved : (float, float)
        From there to the same point of the picture.
    scale, angle : float
        Pixels of the picture to a pixel of the frame; in radians.
    """

    center: tuple[float, float]
    moved: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    angle: float = 0.0

    @property
    def _matrix(self) -> Array:
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return self.scale * np.array([[cos, -sin], [sin, cos]])

    def to_picture(self, points: Array) -> Array:
        return (points - self.center) @ self._matrix.T + np.add(self.center, self.moved)

    def to_frame(self, points: Array) -> Array:
        inverse = np.linalg.inv(self._matrix)
        return (points - np.add(self.center, self.moved)) @ inverse.T + self.center


@dataclass(frozen=True)
class Disc:
    """A disc before the background: its place and radius in the frame, and what it shows."""

    center: tuple[float, float]
    radius: float
    motion: Motion

    def distance(self, points: Array) -> Array:
        """From the rim, negative inside."""
        return np.asarray(np.linalg.norm(points - np.array(self.center), axis=-1) - self.radius)


@dataclass(frozen=True)
class Scene:
    """What one frame shows: a picture by its number, how it lies behind the frame, and perhaps a disc."""

    picture: int
    background: Motion
    disc: Disc | None = None


class KnownSequence:
    """A film with known flow.

    Parameters
    ----------
    name : str
    scenes : list of Scene
    pictures : list of (h, w, 3) arrays
    width, height : int
        Of the frames.
    """

    def __init__(
        self, name: str, scenes: list[Scene], pictures: list[Array], width: int, height: int
    ) -> None:
        self.name, self.scenes = name, scenes
        rows, columns = np.indices((height, width))
        self._points = np.stack([columns, rows], axis=-1).astype(np.float64)
        self.frames = [self._rendered(scene, pictures[scene.picture]) for scene in scenes]

    def _rendered(self, scene: Scene, picture: Array) -> NDArray[np.uint8]:
        frame = self._seen(scene.background, picture)
        if scene.disc is not None:
            alpha = np.zeros(frame.shape[:2])
            steps = (np.arange(SUPERSAMPLING) + 0.5) / SUPERSAMPLING - 0.5
            for dx in steps:
                for dy in steps:
                    alpha += scene.disc.distance(self._points + np.array([dx, dy])) < 0
            alpha = alpha[..., None] / SUPERSAMPLING**2
            frame = alpha * self._seen(scene.disc.motion, picture) + (1 - alpha) * frame
        return np.asarray(np.clip(np.rint(frame), 0, 255), np.uint8)

    def _seen(self, motion: Motion, picture: Array) -> Array:
        lookup = (motion.to_picture(self._points) - self._points).astype(np.float32)
        return warp(np.asarray(picture, np.float32), lookup)

    def backward(self, later: int, earlier: int) -> tuple[Flow, NDArray[np.bool_]]:
        """The flow from a frame to an earlier one, and which pixels are visible in both."""
        a, b = self.scenes[later], self.scenes[earlier]
        target = b.background.to_frame(a.background.to_picture(self._points))
        known = np.full(target.shape[:2], a.picture == b.picture)
        if a.disc is not None and b.disc is not None:
            on_disc = a.disc.distance(self._points) < -MARGIN
            turned = b.disc.motion.to_frame(a.disc.motion.to_picture(self._points))
            target = np.where(on_disc[..., None], turned, target)
            free = (a.disc.distance(self._points) > MARGIN) & (b.disc.distance(target) > MARGIN)
            known &= on_disc | free
        flow = (target - self._points).astype(np.float32)
        return flow, known & inside(flow)


def make_sequences(pictures: list[Array], width: int, height: int, frames: int) -> list[KnownSequence]:
    """Pan, zoom, a disc that turns and moves before a background, and a cut between two pans.

    Parameters
    ----------
    pictures : list of two (H, W, 3) arrays
        Larger than the frames by half at least.
    width, height, frames : int
    """
    center = (width - 1) / 2, (height - 1) / 2
    H, W = pictures[0].shape[:2]
    middle = (W - width) / 2, (H - height) / 2
    step = width / 64  # pixels a frame

    def pan(n: int, picture: int = 0, way: float = 1.0) -> Scene:
        t = way * step * (n - frames / 2)
        return Scene(picture, Motion(center, (middle[0] + 1.25 * t, middle[1] + 0.5 * t)))

    def zoom(n: int) -> Scene:
        return Scene(0, Motion(center, middle, scale=1.25 * 0.97**n, angle=0.01 * n))

    def disc(n: int) -> Scene:
        x, y = center[0] + step * 1.5 * (n - frames / 2), center[1]
        radius = 0.3 * min(width, height)
        shown = Motion((x, y), (W / 4 - x, H / 4 - y), angle=0.08 * n)
        background = Motion(center, (middle[0] - 0.5 * step * n, middle[1]))
        return Scene(0, background, Disc((x, y), radius, shown))

    def cut(n: int) -> Scene:
        return pan(n) if n < frames // 2 else pan(n, 1, -1.0)

    scenes = {"pan": pan, "zoom": zoom, "disc": disc, "cut": cut}
    made = {name: [scene(n) for n in range(frames)] for name, scene in scenes.items()}
    return [KnownSequence(name, shown, pictures, width, height) for name, shown in made.items()]
