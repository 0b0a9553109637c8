"""VGG19's convolutions among the named tensors of a state dict, and the recognition of other networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from npstyle.architecture import BLOCKS, CONVOLUTIONS, canonical
from npstyle.errors import UserError
from npstyle.weights.formats.common import check_layer
from npstyle.weights.formats.tensors import Tensor
from npstyle.weights.types import ConvWeights


def _convolution_indices(blocks: tuple[int, ...], modules: int) -> tuple[int, ...]:
    """Indices of the convolutions in torchvision's `features`, a sequence of modules.

    Each convolution is the first of `modules` modules, and a pooling ends each block.

    Parameters
    ----------
    blocks : tuple of int
        Convolutions in each block.
    modules : int
        2: convolution and ReLU. 3: convolution, batch normalization and ReLU.
    """
    indices: list[int] = []
    start = 0
    for count in blocks:
        indices += range(start, start + modules * count, modules)
        start += modules * count + 1
    return tuple(indices)


VGG19_INDICES = _convolution_indices(tuple(count for count, _ in BLOCKS), modules=2)
NETWORKS = {
    _convolution_indices(blocks, modules): name + suffix
    for name, blocks in {
        "VGG11": (1, 1, 2, 2, 2),
        "VGG13": (2, 2, 2, 2, 2),
        "VGG16": (2, 2, 3, 3, 3),
        "VGG19": (2, 2, 4, 4, 4),
    }.items()
    for modules, suffix in ((2, ""), (3, " with batch normalization"))
}

Module = dict[str, Tensor]  # "weight", "bias", and whatever else a module has


def read_layers(
    path: Path, tensors: Mapping[str, Tensor], wanted_layers: Sequence[str]
) -> dict[str, ConvWeights]:
    """Read layers of the VGG19 among the tensors.

    A module is named by its index, as in torchvision (`features.0.weight`), or by its layer's name
    (`conv1_1.weight`), after any prefix (`module.`, `vgg.features.`).

    Raises
    ------
    UserError
        There is another network, or more than one, or a layer is not as in VGG19.
    """
    pairs = _convolutions(path, tensors)
    return {name: check_layer(path, name, *pairs[name]) for name in wanted_layers if name in pairs}


def _convolutions(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Kernel (3, 3, C, K) and bias (K,) of each convolution, by canonical name."""
    networks = _networks(tensors)
    if len(networks) > 1:
        prefixes = ", ".join(repr(prefix) for prefix in networks)
        raise UserError(f"weights: {path}", f"several networks ({prefixes})", "one", "save VGG19's alone")
    convolutions: dict[str, tuple[Tensor, Tensor]] = {}
    for modules in networks.values():
        labels = {label for label, module in modules.items() if _is_convolution(module)}
        _check_network(path, labels, any("running_mean" in module for module in modules.values()))
        for label in labels:
            if "bias" not in modules[label]:
                raise UserError(
                    f"weights: {path}", f"{label} without a bias", "kernel and bias", "take another file"
                )
            kernel, bias = modules[label]["weight"], modules[label]["bias"]
            convolutions[_layer_name(label)] = kernel.transpose(2, 3, 1, 0), bias
    return convolutions


def _networks(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Module]]:
    """Modules by label, grouped by the prefix before it; groups without a conv1_1 are left out."""
    networks: dict[str, dict[str, Module]] = {}
    for key, tensor in tensors.items():
        module, _, parameter = key.rpartition(".")
        prefix, _, label = module.rpartition(".")
        networks.setdefault(prefix, {}).setdefault(label, {})[parameter] = tensor
    return {
        prefix: modules
        for prefix, modules in networks.items()
        if any(
            _is_convolution(module) and _layer_name(label) == "conv1_1" for label, module in modules.items()
        )
    }


def _is_convolution(module: Module) -> bool:
    return "weight" in module and len(module["weight"].shape) == 4


def _layer_name(label: str) -> str:
    """conv1_2 for "2", "conv1_2" and "block1_conv2"; empty for a label that VGG19 does not have."""
    if label.isascii() and label.isdigit() and len(label) < 4:
        index = int(label)
        return list(CONVOLUTIONS)[VGG19_INDICES.index(index)] if index in VGG19_INDICES else ""
    try:
        return canonical(label)
    except UserError:
        return ""


def _check_network(path: Path, labels: set[str], batch_normalization: bool) -> None:
    """Refuse convolutions that are not VGG19's: all of them, or the lower ones without a gap."""
    lowest = set(list(CONVOLUTIONS)[: len(labels)])
    if {_layer_name(label) for label in labels} == lowest and not batch_normalization:
        return
    in_order = sorted(labels, key=lambda label: (len(label), label))
    indices = tuple(int(label) for label in in_order if label.isascii() and label.isdigit())
    convolutions = "the convolutions " + ", ".join(in_order[:20])
    raise UserError(
        f"weights: {path}",
        NETWORKS.get(indices, "batch normalization" if batch_normalization else convolutions),
        "VGG19 without batch normalization, or its lower layers",
        "take a state dict of torchvision's vgg19",
    )
