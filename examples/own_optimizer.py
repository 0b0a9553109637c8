"""An optimizer of your own: gradient descent with momentum on the loss, and one of SciPy's beside it.

python examples/own_optimizer.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.optimize import minimize

import npstyle
from npstyle import images
from npstyle.initialize import data_dependent_init

HERE = Path(__file__).parent


def main(size: int = 256, weights: str = "auto", iterations: int = 50) -> None:
    """Write momentum.png and lbfgs.png, with a longer side of `size` pixels."""
    content, style = (images.fit(images.read(HERE / name), size) for name in ("content.jpg", "style.jpg"))
    filters = npstyle.load_weights(weights)
    settings = npstyle.preset("random" if filters.random else "default")
    if filters.random:  # scaled so that each fires on about half of what it sees
        filters = data_dependent_init(filters, [content, style], settings.layers, settings.pooling)
    network = npstyle.VGG19.for_settings(filters, settings)
    objective = npstyle.Objective(network, content, [style], settings)

    x, velocity = content.astype(np.float32), np.zeros(content.shape, np.float32)
    print(f"loss at the start: {objective(x)[0]:.3f}")
    for _ in range(iterations):
        _, gradient = objective(x)
        velocity = 0.9 * velocity - gradient / np.abs(gradient).max()  # which adds at most one gray level
        x += velocity
    print(f"after {iterations} steps with momentum: {objective(x)[0]:.3f}")
    images.write("momentum.png", images.to_uint8(x), overwrite=True)

    start = content.astype(np.float64).ravel()
    options = {"maxiter": iterations, "ftol": 0, "gtol": 0}  # no tests for convergence: docs/lbfgs.md
    result = minimize(objective.flat, start, jac=True, method="L-BFGS-B", options=options)
    print(f"after {result.nit} iterations of SciPy's L-BFGS: {result.fun:.3f} ({result.nfev} evaluations)")
    images.write("lbfgs.png", images.to_uint8(result.x.reshape(content.shape)), overwrite=True)


if __name__ == "__main__":
    main()
