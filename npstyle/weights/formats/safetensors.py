"""The .safetensors format: the length of a header, the header in JSON, and the elements of all tensors."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from npstyle.weights.formats.common import Contents
from npstyle.weights.formats.naming import read_layers
from npstyle.weights.formats.tensors import Storage, Tensor, are_sizes

MAX_HEADER_BYTES = 4 << 20  # VGG19's header has about 3000
ELEMENT_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def read(path: Path, wanted_layers: Sequence[str]) -> Contents:
    """Read layers; the format does not state the preprocessing."""
    with open_tensors(path) as tensors:
        return Contents(read_layers(path, tensors, wanted_layers), None)


@contextmanager
def open_tensors(path: Path) -> Iterator[dict[str, Tensor]]:
    """Open a file and yield its tensors by name; they can be read until it is closed."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        data_start = 8 + length
        data_size = os.fstat(file.fileno()).st_size - data_start
        if length > MAX_HEADER_BYTES or data_size < 0:
            raise ValueError(f"a header of {length} bytes")
        header = json.loads(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("a header that is not a JSON object")

        def tensor(entry: Any) -> Tensor:
            (begin, end), shape = entry["data_offsets"], entry["shape"]
            if not (are_sizes([begin, end]) and begin <= end <= data_size and are_sizes(shape)):
                raise ValueError("a tensor that extends beyond the file or has no shape")

            def read(start: int, size: int) -> bytes:
                if start + size > end - begin:
                    raise ValueError("a tensor that extends beyond its elements")
                file.seek(data_start + begin + start)
                return file.read(size)

            element_type = ELEMENT_TYPES.get(entry["dtype"], entry["dtype"])
            strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
            return Tensor(Storage(element_type, math.prod(shape), "<", read), 0, shape, strides)

        yield {name: tensor(entry) for name, entry in header.items() if name != "__metadata__"}
