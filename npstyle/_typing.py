"""Type aliases that several modules share, and the choices of options as Literals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# As strings, so that settings and the help of the command line do not import NumPy.
Array: TypeAlias = "NDArray[np.floating]"  # float32 or float64
AnyArray: TypeAlias = "NDArray[Any]"
Double: TypeAlias = "NDArray[np.float64]"
Single: TypeAlias = "NDArray[np.float32]"
Bytes: TypeAlias = "NDArray[np.uint8]"

Preprocessing = Literal["caffe", "torchvision"]
Pooling = Literal["average", "max"]
Padding = Literal["zero", "replicate", "wrap"]
Convolution = Literal["auto", "im2col", "winograd"]
Scaling = Literal["relative", "paper", "mean", "keras", "udacity"]
Statistics = Literal["gram", "gram+moments", "wasserstein"]
TotalVariationForm = Literal["mean-squares", "sum-squares", "power-1.25", "nine-point"]
Mixture = Literal["targets", "losses"]
Init = Literal["content", "noise", "noisy-content"]
Optimizer = Literal["lbfgs", "lbfgs32", "adam"]
Color = Literal["style", "luma", "match", "luminance"]
