"""The style picture: an abstract in oil, painted stroke by stroke along a whirling flow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from shared import Array, color, mix, shrink, smoothstep

WIDTH, HEIGHT = 900, 720
SCALE = 2  # painted at twice the size, so that averaging smooths the edges of the strokes
STEP = 0.7  # pixels of the canvas between consecutive points of a stroke
HAIRS = (1200, 1600)  # the size of the noise that hair marks are cut out of

# Center (in picture heights), spin (positive: clockwise), core radius, inward pull, warmth.
WHIRLS = (
    (0.36, 0.58, 1.00, 0.16, 0.30, 1.0),
    (0.93, 0.30, -0.80, 0.12, 0.22, 0.2),
    (1.10, 0.84, 0.45, 0.08, 0.25, 0.3),
    (0.55, 0.10, -0.35, 0.06, 0.15, 0.0),
    (0.06, 0.12, 0.40, 0.08, 0.20, 0.4),
)

ULTRAMARINE = color(0.10, 0.14, 0.42)
MIDNIGHT = color(0.05, 0.07, 0.20)
TEAL = color(0.07, 0.42, 0.47)
AQUA = color(0.36, 0.66, 0.64)
CREAM = color(0.96, 0.90, 0.74)
OCHRE = color(0.86, 0.61, 0.18)
SIENNA = color(0.55, 0.24, 0.10)
VERMILION = color(0.87, 0.26, 0.12)
PALETTE = np.stack([ULTRAMARINE, MIDNIGHT, TEAL, AQUA, CREAM, OCHRE, SIENNA, VERMILION])

# Two ribbons of paint that the stream function winds around the whirls, one cool and one warm.
COOL_RIBBON = (
    *(ULTRAMARINE, MIDNIGHT, ULTRAMARINE, TEAL, AQUA, CREAM),
    *(AQUA, TEAL, TEAL, ULTRAMARINE, OCHRE, TEAL),
)
WARM_RIBBON = (
    *(VERMILION, SIENNA, OCHRE, CREAM, OCHRE, VERMILION),
    *(VERMILION, MIDNIGHT, TEAL, OCHRE, CREAM, OCHRE),
)


@dataclass
class Layer:
    """One pass over the canvas with one size of brush (sizes in pixels of the finished picture)."""

    strokes: int
    width: float
    length: float
    jitter: float  # how much the colors vary
    detail: float  # 0: anywhere; 1: only where the color field is lively


LAYERS = (
    Layer(1100, 40.0, 190.0, 0.05, 0.0),
    Layer(1700, 27.0, 130.0, 0.06, 0.0),
    Layer(2200, 15.0, 80.0, 0.07, 0.65),
    Layer(2200, 7.0, 45.0, 0.09, 0.9),
)


@dataclass
class Plan:
    """What the strokes follow, at every pixel of the finished picture."""

    flow: tuple[Array, Array]  # the direction of the brush, x and y
    colors: Array
    lively: Array  # how fast the colors change


def plan_picture(rng: np.random.Generator) -> Plan:
    """Stir the whirls into a flow, and lay ribbons of color along it."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32) / HEIGHT
    wander = ndimage.gaussian_filter(rng.standard_normal((HEIGHT, WIDTH)), 70).astype(np.float32)
    wander /= wander.std()
    stream = 0.55 * (y + 0.35 * np.sin(2.6 * x + 0.4)) + 0.035 * wander
    pull_x, pull_y = np.zeros_like(x), np.zeros_like(x)
    warmth = np.full_like(x, 0.12)
    for cx, cy, spin, core, pull, warm in WHIRLS:
        dx, dy = x - cx, y - cy
        square = dx * dx + dy * dy + core * core * 0.25
        reach = np.exp(-square / (2.0 * (2.3 * core) ** 2))
        stream += 0.16 * spin * np.log(square) * 0.5
        pull_x -= pull * reach * dx / square * 0.16 * abs(spin)
        pull_y -= pull * reach * dy / square * 0.16 * abs(spin)
        warmth += (warm - 0.12) * reach
    gy, gx = np.gradient(stream, 1.0 / HEIGHT)
    flow_x, flow_y = gy + pull_x, -gx + pull_y
    speed = np.hypot(flow_x, flow_y) + 1e-6
    phase = stream * 1.45 + 0.30 + 0.02 * wander
    colors = mix(ribbon(COOL_RIBBON, phase), ribbon(WARM_RIBBON, phase), smoothstep(0.42, 0.62, warmth))
    edges = sum(ndimage.gaussian_gradient_magnitude(colors[..., c], 4) for c in range(3))
    return Plan((flow_x / speed, flow_y / speed), colors, edges / np.percentile(edges, 95))


def ribbon(colors: tuple[Array, ...], phase: Array) -> Array:
    """Read an endless ribbon of colors at ``phase`` (in ribbons), stepping softly from one to the next."""
    table = np.stack(colors)
    place = np.mod(phase, 1.0) * len(table)
    index = place.astype(int)
    blend = smoothstep(0.3, 0.7, (place - index).astype(np.float32))
    return mix(table[index % len(table)], table[(index + 1) % len(table)], blend)


def trace(flow: tuple[Array, Array], start: Array, steps: int) -> Array:
    """Follow the flow from every start point; return the paths, shape (strokes, steps, 2)."""
    paths = np.empty((len(start), steps, 2), np.float32)
    point = start
    for k in range(steps):
        paths[:, k] = point
        at = point[:, ::-1].T / SCALE
        ways = [ndimage.map_coordinates(way, at, order=1, mode="nearest") for way in flow]
        direction = np.stack(ways, axis=1)
        point = point + STEP * direction / (np.linalg.norm(direction, axis=1, keepdims=True) + 1e-6)
    return paths


def hair_marks(across: float, along: float, rng: np.random.Generator) -> Array:
    """Return noise drawn out along the rows, unit variance.  A stroke cuts a random window out of it."""
    noise = ndimage.gaussian_filter(rng.standard_normal(HAIRS), (across, along), mode="wrap")
    marks: Array = (noise / noise.std()).astype(np.float32)
    return marks


class Canvas:
    """Wet paint: a color and a thickness at every pixel."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.paint = np.full((HEIGHT * SCALE, WIDTH * SCALE, 3), 0.8 * SIENNA)
        self.relief = np.zeros((HEIGHT * SCALE, WIDTH * SCALE), np.float32)
        self.rng = rng
        self.hairs = hair_marks(1.3, 55.0, rng)
        self.smears = hair_marks(4.0, 70.0, rng)

    def stroke(self, path: Array, width: float, main: Array, second: Array, load: float) -> None:
        """Drag a brush loaded with ``main``, and a little of ``second``, along ``path``."""
        steps = len(path)
        across = max(5, int(width / 0.7))
        top, left = self.rng.integers(0, HAIRS[0] - across), self.rng.integers(0, HAIRS[1] - steps)
        hairs = self.hairs[top : top + across, left : left + steps].T
        smears = self.smears[top : top + across, left : left + steps].T
        s = np.linspace(0.0, 1.0, steps, dtype=np.float32)[:, None]
        t = np.linspace(-1.0, 1.0, across, dtype=np.float32)[None, :]
        tangent = np.gradient(path, axis=0)
        tangent /= np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-6
        # A brush lands round and blunt, and lifts off in a taper.
        spread = np.sqrt(np.clip(1.0 - ((0.10 - s) / 0.10).clip(0.0) ** 2, 0.0, 1.0)) * (1.0 - 0.45 * s**3)
        offset = t * spread * (width / 2)
        px = (path[:, :1] - tangent[:, 1:] * offset + 0.5).astype(np.int32)
        py = (path[:, 1:] + tangent[:, :1] * offset + 0.5).astype(np.int32)
        # Hairs run dry towards the end and at the sides, and let the paint below show through.
        dryness = -2.6 + 2.3 * s**2 + 1.5 * np.abs(t) ** 4 + (1.0 - load) * 1.2
        wet = hairs + 0.5 * smears > dryness
        wet &= (px >= 0) & (py >= 0) & (px < WIDTH * SCALE) & (py < HEIGHT * SCALE)
        where = py[wet], px[wet]
        ridge = np.exp(-(((np.abs(t) - 0.86) / 0.12) ** 2)) + 0.8 * np.exp(-(((s - 0.97) / 0.03) ** 2))
        thick = (0.55 + 0.24 * hairs + 0.25 * smears + 0.75 * ridge) * (1.0 - 0.35 * s) * load
        self.relief[where] = 0.35 * self.relief[where] + (thick * np.sqrt(width))[wet]
        fraction = np.clip(0.25 + 0.33 * smears + 0.14 * hairs, 0.0, 0.9)[wet][:, None]
        shade = (1.0 + 0.05 * hairs)[wet][:, None]
        self.paint[where] = (main + (second - main) * fraction) * shade

    def photograph(self) -> Array:
        """Light the relief from the upper left and return the picture at its final size."""
        relief = ndimage.gaussian_filter(self.relief, 0.8)
        gy, gx = np.gradient(relief)
        normal = np.stack([-gx, -gy, np.full_like(gx, 1.1)], -1)
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        light = color(-0.5, -0.55, 0.67)
        half = light + color(0, 0, 1)
        half /= np.linalg.norm(half)
        diffuse = normal @ light / light[2]
        gloss = np.clip(normal @ half, 0.0, 1.0) ** 40
        # Hollows between thick strokes get less light than ridges.
        hollow = np.clip((relief - ndimage.gaussian_filter(relief, 7.0)) * 0.05, -0.2, 0.12)
        shade = 0.45 + 0.55 * np.clip(diffuse, 0.0, 1.7) + hollow
        return shrink(self.paint * shade[..., None] + 0.10 * (gloss[..., None] - 0.45), SCALE)


def paint_layer(canvas: Canvas, layer: Layer, plan: Plan) -> None:
    """Lay one pass of strokes in random order."""
    rng = canvas.rng
    start = rng.uniform((-30.0, -30.0), (WIDTH + 30.0, HEIGHT + 30.0), (layer.strokes, 2))
    rows = np.clip(start[:, 1], 0, HEIGHT - 1).astype(int)
    cols = np.clip(start[:, 0], 0, WIDTH - 1).astype(int)
    keep = rng.random(layer.strokes) > layer.detail * (1.0 - plan.lively[rows, cols])
    max_steps = int(layer.length * 1.3 * SCALE / STEP)
    paths = trace(plan.flow, start[keep].astype(np.float32) * SCALE, max_steps)
    for path, base in zip(paths, plan.colors[rows[keep], cols[keep]], strict=True):
        steps = int(max_steps * rng.uniform(0.5, 1.0))
        width = layer.width * SCALE * rng.uniform(0.65, 1.25)
        main = base * (1.0 + rng.normal(0.0, layer.jitter * 1.3)) + rng.normal(0.0, layer.jitter * 0.35, 3)
        near = PALETTE[np.argsort(np.sum((PALETTE - base) ** 2, axis=1))[rng.integers(1, 4)]]
        canvas.stroke(path[:steps], width, main.astype(np.float32), near, rng.uniform(0.6, 1.0))


def paint_style() -> Array:
    """Paint the style picture: from broad strokes to small ones, all along the flow."""
    rng = np.random.default_rng(20)
    plan = plan_picture(rng)
    canvas = Canvas(rng)
    for layer in LAYERS:
        paint_layer(canvas, layer, plan)
    return canvas.photograph()
