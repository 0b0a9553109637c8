"""Pictures: read from files as upright sRGB arrays, resized, and written completely or not at all."""

from __future__ import annotations

from npstyle.images.arrays import (
    Mask,
    Picture,
    PictureWarning,
    as_picture,
    crop,
    fit,
    fitted_size,
    resize,
    resize_wrapped,
    to_uint8,
)
from npstyle.images.icc import ProfileWarning, srgb_profile
from npstyle.images.metadata import printable
from npstyle.images.reading import (
    Description,
    FileContents,
    PictureFile,
    describe,
    from_pillow,
    mask_from_pillow,
    read,
    read_alpha,
    read_mask,
    read_size,
    read_text,
)
from npstyle.images.writing import (
    FORMATS,
    check_alpha,
    check_depth,
    check_dimensions,
    check_format,
    check_output,
    encode,
    png,
    write,
)

__all__ = [
    "FORMATS",
    "Description",
    "FileContents",
    "Mask",
    "Picture",
    "PictureFile",
    "PictureWarning",
    "ProfileWarning",
    "as_picture",
    "check_alpha",
    "check_depth",
    "check_dimensions",
    "check_format",
    "check_output",
    "crop",
    "describe",
    "encode",
    "fit",
    "fitted_size",
    "from_pillow",
    "mask_from_pillow",
    "png",
    "printable",
    "read",
    "read_alpha",
    "read_mask",
    "read_size",
    "read_text",
    "resize",
    "resize_wrapped",
    "srgb_profile",
    "to_uint8",
    "write",
]
