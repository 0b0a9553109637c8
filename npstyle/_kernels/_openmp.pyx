"""Whether the kernels were built with OpenMP."""
from npstyle._kernels._openmp cimport NPSTYLE_OPENMP


def has_openmp():
    """True where kernels can run on several threads."""
    return bool(NPSTYLE_OPENMP)
