"""Tolerances of the tests, in one place.

The rounding error of a sum of n terms grows like sqrt(n) machine epsilons: 1.2e-7 for float32, 2.2e-16 for
float64. The longest sums here have 9 x 512 terms and several layers follow each other, so a thousand epsilons
are enough without hiding a mistake: a wrong factor or index is an error of order 1.
"""

from __future__ import annotations

import numpy as np

# Relative to the largest element: two ways to compute the same array.
SAME = {np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-12}
# Relative: both sides of <A x, v> = <x, A' v>. Each is one long sum of terms of either sign.
ADJOINT = {np.dtype(np.float32): 1e-3, np.dtype(np.float64): 1e-11}
# Relative: a central difference in float64. Its own error is about step^2 + epsilon / step.
DIRECTIONAL = 1e-6
