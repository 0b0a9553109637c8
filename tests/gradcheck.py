"""The two checkers of `npstyle.gradcheck`, for the tests; tested themselves in test_gradcheck.py."""

from __future__ import annotations

from npstyle.gradcheck import adjoint_error, directional_error

__all__ = ["adjoint_error", "directional_error"]
