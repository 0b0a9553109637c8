"""The reference implementations of the kernels: what each computes, in plain NumPy.

Names and arguments are those of the compiled kernels, which are tested against these; `threads` and
`workspace` are ignored. They are also what runs where nothing could be compiled
(``NPSTYLE_KERNELS=reference``), so what would take much memory, the patches of a convolution, is computed a
strip at a time. `convolution` and `convolution_backward` are the same as one formula each.
"""

from npstyle._kernels.reference.convolution import (
    col2im,
    conv3x3,
    conv3x3_backward,
    conv3x3_rows,
    conv3x3_workspace,
    convolution,
    convolution_backward,
    first_layer,
    first_layer_backward,
    first_layer_workspace,
    im2col,
)
from npstyle._kernels.reference.gram import gram, gram_backward, gram_rows_per_sum, gram_workspace
from npstyle._kernels.reference.lbfgs import dot_products, linear_combination
from npstyle._kernels.reference.packing import mark, pack, packing_parts, unpack
from npstyle._kernels.reference.pooling import (
    average_pool,
    average_pool_backward,
    max_pool,
    max_pool_backward,
    quarters,
    scatter_quarters,
)
from npstyle._kernels.reference.relu import relu, relu_backward
from npstyle._kernels.reference.winograd import (
    POINTS,
    winograd,
    winograd_backward,
    winograd_convolution,
    winograd_rows,
    winograd_tiles,
    winograd_transforms,
    winograd_workspace,
)

__all__ = [
    "POINTS",
    "average_pool",
    "average_pool_backward",
    "col2im",
    "conv3x3",
    "conv3x3_backward",
    "conv3x3_rows",
    "conv3x3_workspace",
    "convolution",
    "convolution_backward",
    "dot_products",
    "first_layer",
    "first_layer_backward",
    "first_layer_workspace",
    "gram",
    "gram_backward",
    "gram_rows_per_sum",
    "gram_workspace",
    "im2col",
    "linear_combination",
    "mark",
    "max_pool",
    "max_pool_backward",
    "pack",
    "packing_parts",
    "quarters",
    "relu",
    "relu_backward",
    "scatter_quarters",
    "unpack",
    "winograd",
    "winograd_backward",
    "winograd_convolution",
    "winograd_rows",
    "winograd_tiles",
    "winograd_transforms",
    "winograd_workspace",
]
