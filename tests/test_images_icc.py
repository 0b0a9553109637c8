"""Color profiles: every mode with every kind of profile, unusable ones, and the labels of written files."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, features

from icc_profiles import PROFILES, UNUSABLE, Array, srgb_encoded
from npstyle import images
from pictures import (
    PICTURE,
    SMOOTH,
    UPRIGHT,
    Patch,
    Pixels,
    orientation_exif,
    png_chunks,
    raises,
    write_png_chunks,
)


def random_picture(
    mode: str, rng: np.random.Generator
) -> tuple[Image.Image, NDArray[np.uint8], Pixels | None]:
    """A picture of a random size in a mode: the image, its values (H, W, 1, 3 or 4), and its alpha."""
    H, W = rng.integers(2, 9, 2)
    alpha = rng.choice(np.array([0, 255, 40, 200], np.uint8), (H, W))
    gray, rgb = (
        rng.integers(0, 256, (H, W, 1), dtype=np.uint8),
        rng.integers(0, 256, (H, W, 3), dtype=np.uint8),
    )
    if mode == "1":
        return Image.fromarray(gray[:, :, 0] > 127), (gray > 127) * np.uint8(255), None
    if mode == "L":
        return Image.fromarray(gray[:, :, 0]), gray, None
    if mode == "I;16":
        return Image.fromarray(gray[:, :, 0] * np.uint16(257)), gray, None
    if mode == "LA":
        return Image.fromarray(np.dstack([gray, alpha])), gray, alpha
    if mode == "RGB":
        return Image.fromarray(rgb), rgb, None
    if mode == "RGBA":
        return Image.fromarray(np.dstack([rgb, alpha])), rgb, alpha
    if mode == "CMYK":
        inks = 255 * np.eye(5, 4, dtype=np.uint8)[rng.integers(0, 5, (H, W))]
        return Image.frombytes("CMYK", (int(W), int(H)), inks.tobytes()), inks, None
    entries, indices = (
        rng.integers(0, 256, (7, 3), dtype=np.uint8),
        rng.integers(0, 7, (H, W), dtype=np.uint8),
    )
    image = Image.frombytes("P", (int(W), int(H)), indices.tobytes())
    image.putpalette(entries.tobytes())
    if mode == "P":
        return image, entries[indices], None
    opacities = np.array([255, 0, 100, 255, 7, 200, 255], np.uint8)
    image.info["transparency"] = opacities.tobytes()
    return image, entries[indices], opacities[indices]


def without_profile(values: NDArray[np.uint8]) -> Array:
    """RGB of values that have no profile."""
    rgb = values.astype(np.float64)
    if values.shape[2] == 4:
        return (255 - rgb[:, :, :3]) * (255 - rgb[:, :, 3:]) / 255
    return np.repeat(rgb, 3 // values.shape[2], axis=2)


def with_profile(values: NDArray[np.uint8], profile: str | None) -> tuple[Array, bool]:
    """sRGB of values that have a profile, by its model, and whether the profile is usable for them."""
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[values.shape[2]]
    profile_mode, _, model = PROFILES.get(str(profile), ("", b"", srgb_encoded))
    gray_in_rgb = (profile_mode, mode) == ("RGB", "L")
    if profile_mode != mode and not gray_in_rgb:
        return without_profile(values), profile is None
    return srgb_encoded(model(np.repeat(values, 3, axis=2) / 255 if gray_in_rgb else values / 255)), True


@contextlib.contextmanager
def warns_once(message: str | None) -> Iterator[None]:
    """A ProfileWarning that contains the message, exactly once, or no warning at all if it is None."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert [item.category for item in caught] == ([] if message is None else [images.ProfileWarning])
    assert all(str(message) in str(item.message) for item in caught)
    assert all(item.filename == __file__ for item in caught)  # where npstyle was called


@pytest.mark.parametrize("profile", [None, *PROFILES, *UNUSABLE])
@pytest.mark.parametrize("mode", ["1", "L", "I;16", "LA", "RGB", "RGBA", "P", "P, some transparent", "CMYK"])
def test_every_mode_with_every_profile_and_orientation(
    mode: str, profile: str | None, tmp_path: Path
) -> None:
    data = None if profile is None else PROFILES[profile][1] if profile in PROFILES else UNUSABLE[profile]
    for orientation, upright in UPRIGHT.items():
        image, values, alpha = random_picture(mode, np.random.default_rng(orientation))
        path = tmp_path / f"{orientation}.{'tif' if mode == 'CMYK' else 'png'}"
        image.save(path, exif=orientation_exif(orientation), icc_profile=data)
        rgb, usable = with_profile(values, profile)
        opacity = 1.0 if alpha is None else alpha[:, :, None] / 255
        expected = upright(opacity * rgb + (1 - opacity) * 255)
        with warns_once(None if usable else f"picture: {path}: its color profile is not used, its values"):
            picture = images.read(path)
        assert picture.shape == expected.shape
        assert np.abs(picture - expected).max() < 2
        read_alpha = images.read_alpha(path)
        if alpha is None:
            assert read_alpha is None
        else:
            np.testing.assert_array_equal(read_alpha, upright(alpha[:, :, None])[:, :, 0])
        # The profile has no influence on a mask, and no warning is given.
        luma = (opacity * without_profile(values)) @ np.array([[0.299], [0.587], [0.114]])
        assert np.abs(255 * images.read_mask(path) - upright(luma)[:, :, 0]).max() < 1.6
        # From an open file: by its name, Pillow confuses rows and columns of some TIFF files.
        with path.open("rb") as file, warns_once(None if usable else "Pillow image: its color profile"):
            opened = Image.open(file)
            np.testing.assert_array_equal(images.from_pillow(opened), picture)


def test_gray_profile_at_every_level(tmp_path: Path) -> None:
    """A conversion table with too few nodes is wrong in the shadows first."""
    ramp: Pixels = np.arange(256, dtype=np.uint8)[None, :, None]
    for name in ("gray 1.0", "gray 1.75"):
        _, data, model = PROFILES[name]
        Image.fromarray(ramp[:, :, 0]).save(tmp_path / "x.png", icc_profile=data)
        assert np.abs(images.read(tmp_path / "x.png") - srgb_encoded(model(ramp / 255))).max() < 0.6


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp"])
def test_profile_in_every_format(kind: str, tmp_path: Path) -> None:
    _, data, model = PROFILES["linear, channels permuted"]
    Image.fromarray(SMOOTH).save(tmp_path / f"x.{kind}", icc_profile=data, quality=100)
    with Image.open(tmp_path / f"x.{kind}") as image:
        stored = np.array(image)
    difference = np.abs(images.read(tmp_path / f"x.{kind}") - srgb_encoded(model(stored / 255)))
    assert difference.max() < 1
    assert np.abs(images.read(tmp_path / f"x.{kind}").astype(int) - stored).max() > 100  # it matters


def test_cmyk_jpeg_with_profile(tmp_path: Path) -> None:
    _, data, model = PROFILES["CMYK"]
    inks: Pixels = np.repeat(255 * np.eye(5, 4, dtype=np.uint8), 16, axis=0)[None].repeat(16, axis=0)
    Image.frombytes("CMYK", (80, 16), inks.tobytes()).save(tmp_path / "x.jpg", icc_profile=data, quality=100)
    with warns_once(None):
        difference = np.abs(images.read(tmp_path / "x.jpg") - srgb_encoded(model(inks / 255)))
    assert difference.mean() < 1.5


REASONS: list[tuple[str, str, bytes, str]] = [
    ("RGB", "png", PROFILES["CMYK"][1], "it is for CMYK, the picture is RGB"),
    ("RGB", "jpg", PROFILES["gray 1.0"][1], "it is for GRAY, the picture is RGB"),
    ("L", "png", PROFILES["CMYK"][1], "it is for CMYK, the picture is GRAY"),
    ("CMYK", "jpg", PROFILES["P3"][1], "it is for RGB, the picture is CMYK"),
    ("RGB", "tif", UNUSABLE["damaged"], "it is damaged"),
    (
        "RGB",
        "tif",
        PROFILES["P3"][1].replace(b"RGB XYZ", b"\x1b[2JXYZ"),
        "it is for \\x1b[2J, the picture is",
    ),
]


@pytest.mark.parametrize(("mode", "kind", "profile", "reason"), REASONS)
def test_reason_why_profile_is_not_used(
    mode: str, kind: str, profile: bytes, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / f"x.{kind}"
    image = Image.fromarray(SMOOTH).convert(mode)
    image.save(path)
    plain = images.read(path)
    image.save(path, icc_profile=profile)
    text = f"picture: {path}: its color profile is not used, its values are taken as they are: {reason}"
    with warns_once(text):
        np.testing.assert_array_equal(images.read(path), plain)
    assert images.describe(path).profile.startswith(f"not used: {reason}")


def break_profile(path: Path) -> None:
    """Replace the profile in a PNG file by one that can't be inflated."""
    write_png_chunks(path, {**dict(png_chunks(path)), b"iCCP": b"name\0\0" + b"nothing deflated"})


def test_profile_that_pillow_cannot_extract_is_damaged(tmp_path: Path) -> None:
    image = Image.fromarray(SMOOTH)
    image.save(tmp_path / "x.png", icc_profile=PROFILES["P3"][1])
    break_profile(tmp_path / "x.png")
    image.save(tmp_path / "x.jpg", icc_profile=PROFILES["P3"][1])
    written = (tmp_path / "x.jpg").read_bytes()
    assert b"ICC_PROFILE\0\1\1" in written
    (tmp_path / "x.jpg").write_bytes(written.replace(b"ICC_PROFILE\0\1\1", b"ICC_PROFILE\0\1\2"))
    for name in ("x.png", "x.jpg"):
        with warns_once("it is damaged"):
            images.read(tmp_path / name)
        assert images.describe(tmp_path / name).profile == "not used: it is damaged"


def test_profile_warning_as_error_is_not_a_damaged_file(tmp_path: Path) -> None:
    Image.fromarray(SMOOTH).save(tmp_path / "x.png", icc_profile=UNUSABLE["damaged"])
    with pytest.raises(images.ProfileWarning):  # as they are in all tests
        images.read(tmp_path / "x.png")


@pytest.fixture
def without_littlecms(monkeypatch: Patch) -> Iterator[None]:
    images.srgb_profile.cache_clear()
    monkeypatch.setattr(features, "check", lambda feature: False)
    yield
    images.srgb_profile.cache_clear()


@pytest.mark.usefixtures("without_littlecms")
def test_read_and_write_without_littlecms(tmp_path: Path) -> None:
    for extension in images.FORMATS:
        images.write(tmp_path / f"x{extension}", SMOOTH)
        images.read(tmp_path / f"x{extension}")
        with Image.open(tmp_path / f"x{extension}") as image:
            assert "icc_profile" not in image.info
    images.write(tmp_path / "deep.tif", SMOOTH, depth=16)
    np.testing.assert_array_equal(images.read(tmp_path / "deep.tif"), SMOOTH)
    Image.fromarray(SMOOTH).save(tmp_path / "x.png", icc_profile=PROFILES["P3"][1])
    with warns_once("Pillow was built without LittleCMS"):
        np.testing.assert_array_equal(images.read(tmp_path / "x.png"), SMOOTH)
    break_profile(tmp_path / "x.png")
    with warns_once("Pillow was built without LittleCMS"):
        np.testing.assert_array_equal(images.read(tmp_path / "x.png"), SMOOTH)


def test_own_srgb_profile_is_not_converted(tmp_path: Path, monkeypatch: Patch) -> None:
    images.write(tmp_path / "x.tif", PICTURE)
    monkeypatch.setattr(ImageCms, "profileToProfile", raises(RuntimeError("converted")))
    np.testing.assert_array_equal(images.read(tmp_path / "x.tif"), PICTURE)


@pytest.mark.parametrize("depth", [8, 16])
def test_png_has_srgb_chunk_before_pixels(depth: int, tmp_path: Path) -> None:
    images.write(tmp_path / "x.png", PICTURE, depth=depth, text={"a": "b"})
    kinds = [kind for kind, _ in png_chunks(tmp_path / "x.png")]
    assert kinds[0] == b"IHDR"
    assert kinds.index(b"sRGB") < kinds.index(b"IDAT")
    assert kinds.index(b"tEXt") < kinds.index(b"IDAT")
    assert dict(png_chunks(tmp_path / "x.png"))[b"sRGB"] == b"\0"
    assert b"iCCP" not in kinds
    assert kinds[-1] == b"IEND"


@pytest.mark.parametrize(("name", "depth"), [("x.jpg", 8), ("x.webp", 8), ("x.tif", 8), ("x.tif", 16)])
def test_other_formats_have_srgb_profile(name: str, depth: int, tmp_path: Path) -> None:
    images.write(tmp_path / name, SMOOTH, depth=depth)
    with Image.open(tmp_path / name) as image:
        profile = image.info["icc_profile"]
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    assert ImageCms.getProfileDescription(opened).startswith("sRGB")
    levels: Pixels = np.random.default_rng(5).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    linear = srgb_encoded(
        np.where(levels > 10, ((levels / 255 + 0.055) / 1.055) ** 2.4, levels / 255 / 12.92)
    )
    back = ImageCms.profileToProfile(Image.fromarray(levels), opened, ImageCms.createProfile("sRGB"))
    assert np.abs(np.asarray(back) - linear).max() < 2
    assert images.describe(tmp_path / name).profile == "sRGB"


def test_lab_tiff_with_its_profile_is_read_without_a_warning(tmp_path: Path) -> None:
    lab = ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(
        Image.fromarray(np.full((8, 8, 3), (200, 100, 50), np.uint8)),
        ImageCms.createProfile("sRGB"),
        lab,
        outputMode="LAB",
    )
    assert image is not None
    image.save(tmp_path / "x.tif", icc_profile=ImageCms.ImageCmsProfile(lab).tobytes())
    with Image.open(tmp_path / "x.tif") as stored:
        assert stored.mode == "LAB"
        np.testing.assert_allclose(images.from_pillow(stored)[0, 0], (200, 100, 50), atol=3)
    np.testing.assert_allclose(images.read(tmp_path / "x.tif")[0, 0], (200, 100, 50), atol=3)
    description = images.describe(tmp_path / "x.tif")
    assert (description.mode, description.profile) == ("LAB", "none")
