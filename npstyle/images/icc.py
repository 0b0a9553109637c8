"""Color profiles (ICC): conversion of what is read to sRGB, and the sRGB profile that is written."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from functools import cache
from typing import Any

from PIL import Image, ImageCms, features

from npstyle.images.arrays import PictureWarning

# LittleCMS replaces a conversion by an interpolated table. For gray it has a node for each level
# (cmsFLAGS_GRIDPOINTS): with the default, shadows are up to 10 levels off. For the others it is large
# (cmsFLAGS_HIGHRESPRECALC). ImageCms.Flags, which has these names, is missing in the oldest supported Pillow.
TABLE_SIZE_FLAGS: dict[str, Any] = {"L": 255 << 16, "RGB": 0x400, "CMYK": 0x400}


class ProfileWarning(PictureWarning):
    """The color profile of a picture is not usable, so the picture is read as if it had none."""


def to_srgb(colors: Image.Image, info: Mapping[Any, Any]) -> Image.Image:
    """Convert an image from the profile in Pillow's `info` to sRGB.

    Parameters
    ----------
    colors : Image
        Of mode L, RGB or CMYK.
    info : mapping
        Pillow's `Image.info` of the file. Without a profile, L and RGB are taken for sRGB, and CMYK is
        converted by Pillow's formula.

    Returns
    -------
    Image
        Of mode RGB. Colors outside sRGB become the nearest inside.

    Raises
    ------
    PyCMSError
        The profile is not usable: the reason.
    """
    if not _has_profile(info) or _is_srgb_profile(info["icc_profile"]):
        return colors.convert("RGB")
    profile, mode = _usable_profile(info["icc_profile"], colors.mode)
    converted = ImageCms.profileToProfile(
        colors.convert(mode),
        profile,
        ImageCms.createProfile("sRGB"),
        ImageCms.Intent.PERCEPTUAL,  # as viewers show photographs; the darkest ink becomes black
        "RGB",
        flags=TABLE_SIZE_FLAGS[mode],
    )
    assert converted is not None  # None is only returned for a conversion in place
    return converted


def profile_name(info: Mapping[Any, Any], mode: str) -> str:
    """Describe the profile in Pillow's `info` of an image whose colors have the mode L, RGB or CMYK.

    It may contain any characters that the file has in it.
    """
    if not _has_profile(info):
        return "sRGB" if "srgb" in info else "none"
    if _is_srgb_profile(info["icc_profile"]):
        return "sRGB"
    try:
        profile, _ = _usable_profile(info["icc_profile"], mode)
        return ImageCms.getProfileDescription(profile).strip() or "without a name"
    except ImageCms.PyCMSError as error:
        return f"not used: {error}"


@cache
def srgb_profile() -> bytes | None:
    """The sRGB profile that is written into files, always the same bytes; None if Pillow lacks LittleCMS.

    Without one, viewers take the colors for sRGB all the same; only the explicit statement is missing.
    """
    if not features.check("littlecms2"):
        return None
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # Bytes 24 to 35 are the time at which LittleCMS created it: year, month, day, hour, minute, second.
    return profile[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + profile[36:]


def _has_profile(info: Mapping[Any, Any]) -> bool:
    """Whether the file has a profile; Pillow sets it to None if it could not extract it."""
    return "icc_profile" in info and info["icc_profile"] != b""


def _is_srgb_profile(profile: object) -> bool:
    """Whether `write` put it there: such a picture is read back to the last bit, without a conversion."""
    return profile is not None and profile == srgb_profile()


def _usable_profile(profile: object, mode: str) -> tuple[ImageCms.ImageCmsProfile, str]:
    """The opened profile, and the mode that it is for: L, RGB or CMYK."""
    if not features.check("littlecms2"):
        raise ImageCms.PyCMSError("Pillow was built without LittleCMS")
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile if isinstance(profile, bytes) else b""))
    except OSError:
        raise ImageCms.PyCMSError("it is damaged") from None
    space = opened.profile.xcolor_space.strip()
    profile_mode = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}.get(space, "")
    if profile_mode != mode and (profile_mode, mode) != ("RGB", "L"):  # gray colors are colors of RGB, too
        picture_space = "GRAY" if mode == "L" else mode
        raise ImageCms.PyCMSError(f"it is for {space}, the picture is {picture_space}")
    return opened, profile_mode
