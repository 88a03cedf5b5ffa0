"""Files in and out: every format in, every kind of bad file, round trips, names, nothing half-written."""

import csv
import gzip
import json
import math
import os
import struct
import zlib
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from retina_seg import io
from retina_seg.decode import InMemory, decode
from retina_seg.errors import UserError

Bytes = NDArray[np.uint8]
Given = Callable[[Path], Path | InMemory]


def in_memory(path: Path) -> InMemory:
    return InMemory(path.name, path.read_bytes())


@pytest.fixture(params=[Path, in_memory], ids=["path", "memory"])
def given(request: pytest.FixtureRequest) -> Given:
    """How a file is handed over: what is read by its path is read from memory just as well."""
    return request.param


@pytest.fixture
def rgb() -> Bytes:
    """A picture that differs from each of its mirror images and turns, 80 high and 100 wide."""
    rows, columns = np.mgrid[:80, :100]
    picture = np.stack([2 * columns, 3 * rows, (rows + columns) % 256], axis=-1).astype(np.uint8)
    picture[:10, :20] = (250, 10, 30)
    return picture


def luma(rgb: Bytes) -> Bytes:
    return np.asarray(Image.fromarray(rgb).convert("L"))


# ---------------------------------------------------------------- formats


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.TIFF", "a.ppm", "a.bmp", "A.PNG", "ein Bild é 眼.png"])
def test_lossless_formats(tmp_path: Path, given: Given, rgb: Bytes, name: str) -> None:
    Image.fromarray(rgb).save(tmp_path / name)
    read = io.read_image(given(tmp_path / name))
    np.testing.assert_array_equal(read, rgb)
    assert read.dtype == np.uint8
    assert read.flags.writeable
    assert read.flags.c_contiguous


def test_lossless_variants(tmp_path: Path, given: Given, rgb: Bytes) -> None:
    picture = Image.fromarray(rgb)
    picture.save(tmp_path / "a.webp", lossless=True)
    picture.save(tmp_path / "lzw.tif", compression="tiff_lzw")
    picture.save(tmp_path / "deflate.tif", compression="tiff_adobe_deflate")
    tifffile.imwrite(tmp_path / "planes.tif", rgb.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    tifffile.imwrite(tmp_path / "big.tif", rgb, photometric="rgb", bigtiff=True)
    picture.save(tmp_path / "png named.jpg", format="PNG")
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(io.read_image(given(path)), rgb, err_msg=path.name)


def test_jpeg_and_cmyk_jpeg_are_near(tmp_path: Path, given: Given) -> None:
    smooth = np.stack(np.broadcast_arrays(*np.ogrid[:80, :100], 90), axis=-1).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    Image.fromarray(smooth).convert("CMYK").save(tmp_path / "cmyk.JPEG", quality=95)
    for name in ("a.jpg", "cmyk.JPEG"):
        assert abs(io.read_image(given(tmp_path / name)).astype(int) - smooth).mean() < 2, name


def test_grey_becomes_three_channels(tmp_path: Path, given: Given, rgb: Bytes) -> None:
    grey = luma(rgb)
    for name in ("a.png", "a.pgm", "a.tif", "a.gif"):
        Image.fromarray(grey).save(tmp_path / name)
        np.testing.assert_array_equal(io.read_image(given(tmp_path / name)), np.dstack([grey] * 3), err_msg=name)


def test_one_bit(tmp_path: Path, given: Given, rgb: Bytes) -> None:
    bits = rgb[..., 0] > 90
    for name in ("a.png", "a.tif", "a.pbm"):
        Image.fromarray(bits).save(tmp_path / name)
        np.testing.assert_array_equal(io.read_image(given(tmp_path / name))[..., 1], bits * np.uint8(255), err_msg=name)


def test_palette(tmp_path: Path, given: Given, rgb: Bytes) -> None:
    indexed = Image.fromarray(rgb).quantize(16)
    expected = np.asarray(indexed.convert("RGB"))
    for name in ("a.png", "a.gif", "a.tif"):
        indexed.save(tmp_path / name)
        np.testing.assert_array_equal(io.read_image(given(tmp_path / name)), expected, err_msg=name)
    indexed.save(tmp_path / "clear.png", transparency=0)
    read = io.read_image(given(tmp_path / "clear.png"))
    clear = np.asarray(indexed) == 0
    assert clear.any()
    assert not read[clear].any()
    np.testing.assert_array_equal(read[~clear], expected[~clear])


def test_alpha_is_laid_on_black(tmp_path: Path, given: Given, rgb: Bytes) -> None:
    alpha = np.zeros(rgb.shape[:2], np.uint8)
    alpha[:, 50:], alpha[:, 25:50] = 255, 128
    expected = np.rint(rgb * (alpha[..., None] / 255)).astype(np.uint8)
    Image.fromarray(np.dstack([rgb, alpha])).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(io.read_image(given(tmp_path / "rgba.png")), expected)
    Image.fromarray(np.dstack([rgb, alpha])).save(tmp_path / "rgba.tif")
    np.testing.assert_array_equal(io.read_image(given(tmp_path / "rgba.tif")), expected)
    grey = np.dstack([rgb[..., 0], alpha])
    Image.fromarray(grey).save(tmp_path / "la.png")
    np.testing.assert_array_equal(io.read_image(given(tmp_path / "la.png"))[..., 2], expected[..., 0])


@pytest.mark.parametrize("everywhere", [0, 77, 255])
def test_alpha_of_one_value_is_ignored(tmp_path: Path, given: Given, rgb: Bytes, everywhere: int) -> None:
    alpha = np.full(rgb.shape[:2], everywhere, np.uint8)
    Image.fromarray(np.dstack([rgb, alpha])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(io.read_image(given(tmp_path / "a.png")), rgb)


# ---------------------------------------------------------------- more than 8 bits


def deep(rgb: Bytes, bits: int) -> NDArray[np.uint16]:
    full = 2**bits - 1
    values = np.rint(rgb * (full / 255)).astype(np.uint16)
    values[0, 0, 0] = full
    return values


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_deep_colour_keeps_all_bits_of_depth(tmp_path: Path, given: Given, rgb: Bytes, bits: int) -> None:
    values = deep(rgb, bits)
    cv2.imwrite(str(tmp_path / "a.png"), values[..., ::-1])
    cv2.imwrite(str(tmp_path / "lzw.tif"), values[..., ::-1])
    tifffile.imwrite(tmp_path / "plain.tif", values, photometric="rgb")
    tifffile.imwrite(tmp_path / "deflate.tif", values, photometric="rgb", compression="zlib")
    tifffile.imwrite(tmp_path / "planes.tif", values.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    expected = rgb.copy()
    expected[0, 0, 0] = 255
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(io.read_image(given(path)), expected, err_msg=path.name)


@pytest.mark.parametrize("bits", [12, 16])
def test_deep_grey(tmp_path: Path, given: Given, rgb: Bytes, bits: int) -> None:
    values = deep(rgb, bits)[..., 0]
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray(values).save(tmp_path / "a.tif")
    Image.fromarray(values).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    tifffile.imwrite(tmp_path / "big endian.tif", values, byteorder=">")
    expected = rgb[..., 0].copy()
    expected[0, 0] = 255
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(io.read_image(given(path))[..., 0], expected, err_msg=path.name)


def test_deep_rgba(tmp_path: Path, given: Given, rgb: Bytes) -> None:
    values = deep(rgb, 16)
    alpha = np.full(rgb.shape[:2], 65535, np.uint16)
    alpha[:, :30] = 0
    tifffile.imwrite(tmp_path / "a.tif", np.dstack([values, alpha]), photometric="rgb", extrasamples=["unassalpha"])
    cv2.imwrite(str(tmp_path / "a.png"), np.dstack([values[..., ::-1], alpha]))
    for name in ("a.tif", "a.png"):
        read = io.read_image(given(tmp_path / name))
        assert not read[:, :30].any(), name
        np.testing.assert_array_equal(read[:, 30:], rgb[:, 30:], err_msg=name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_tiff(tmp_path: Path, given: Given, rgb: Bytes, dtype: type[np.floating]) -> None:
    for top in (1.0, 255.0, 4095.0):
        values = (rgb / 255 * top).astype(dtype)
        values[0, 0, 0] = top
        tifffile.imwrite(tmp_path / "rgb.tif", values, photometric="rgb")
        tifffile.imwrite(tmp_path / "grey.tif", values[..., 0])
        expected = rgb.copy()
        expected[0, 0, 0] = 255
        np.testing.assert_array_equal(io.read_image(given(tmp_path / "rgb.tif")), expected)
        np.testing.assert_array_equal(io.read_image(given(tmp_path / "grey.tif"))[..., 1], expected[..., 0])


# ---------------------------------------------------------------- orientation, pages


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_everywhere(tmp_path: Path, given: Given, rgb: Bytes, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(rgb).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    tag = [(274, 3, 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb", extratags=tag)
    tifffile.imwrite(tmp_path / "deep.tif", rgb * np.uint16(257), photometric="rgb", extratags=tag)
    tifffile.imwrite(tmp_path / "float64.tif", rgb / 255.0, photometric="rgb", extratags=tag)
    tifffile.imwrite(tmp_path / "float32.tif", (rgb / 255.0).astype(np.float32), extratags=tag, photometric="rgb")
    Image.fromarray(rgb).save(tmp_path / "a.webp", lossless=True, exif=exif)
    Image.fromarray(rgb).save(tmp_path / "lzw.tif", compression="tiff_lzw", tiffinfo={274: orientation})
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(io.read_image(given(path)), expected, err_msg=path.name)
    Image.fromarray(rgb).save(tmp_path / "a.jpg", quality=98, subsampling=0, exif=exif)
    read = io.read_image(given(tmp_path / "a.jpg"))
    assert read.shape == expected.shape
    assert abs(read.astype(int) - expected).mean() < 4


def test_broken_exif_does_no_harm(tmp_path: Path, given: Given, rgb: Bytes) -> None:
    Image.fromarray(rgb).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xffnonsense")
    assert io.read_image(given(tmp_path / "a.jpg")).shape == rgb.shape


def test_pages(tmp_path: Path, given: Given, rgb: Bytes) -> None:
    thumbnail = rgb[::2, ::2].copy()
    for name, scale in (("a.tif", np.uint8(1)), ("deep.tif", np.uint16(257))):
        with tifffile.TiffWriter(tmp_path / name) as file:
            file.write(rgb * scale, photometric="rgb")
            file.write(thumbnail * scale, photometric="rgb", subfiletype=1)
        np.testing.assert_array_equal(io.read_image(given(tmp_path / name)), rgb)
        tifffile.imwrite(tmp_path / name, np.stack([rgb, 255 - rgb]) * scale, photometric="rgb")
        with pytest.raises(UserError, match="holds 2 pages"):
            io.read_image(given(tmp_path / name))
    frames = [Image.fromarray(rgb), Image.fromarray(255 - rgb)]
    frames[0].save(tmp_path / "camera.jpg", format="MPO", save_all=True, append_images=frames[1:])
    assert abs(io.read_image(given(tmp_path / "camera.jpg")).astype(int) - rgb).mean() < 10
    for name, pages in {"a.gif": "several", "a.png": "2", "a.webp": "2"}.items():
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(UserError, match=f"holds {pages} pages"):
            io.read_image(given(tmp_path / name))


# ---------------------------------------------------------------- NIfTI


def save_nifti(path: Path, array: NDArray[np.generic]) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ"])
def test_nifti_grey_and_colour(tmp_path: Path, given: Given, rgb: Bytes, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    across = np.ascontiguousarray(rgb.swapaxes(0, 1))  # (W, H, 3)
    for stored in (across, across[:, :, None]):
        volume = nibabel.Nifti1Image(stored, np.eye(4)).to_bytes()
        path.write_bytes(gzip.compress(volume) if suffix.lower().endswith("gz") else volume)
        np.testing.assert_array_equal(io.read_image(given(path)), rgb)
    for grey in (across[..., 0], across[..., :1], across[..., 0].astype(np.int16), across[..., 0] / 255.0):
        volume = nibabel.Nifti1Image(grey, np.eye(4)).to_bytes()
        path.write_bytes(gzip.compress(volume) if suffix.lower().endswith("gz") else volume)
        read = io.read_image(given(path))
        assert read.shape == rgb.shape
        expected = np.rint(rgb[..., 0] * (255 / rgb[..., 0].max())) if grey.dtype == float else rgb[..., 0]
        tolerance = 5 if grey.dtype == float else 0
        assert abs(read[..., 0].astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("order", "<>")
def test_nifti_headers(
    tmp_path: Path, given: Given, rgb: Bytes, suffix: str, kind: type[nibabel.Nifti1Image], order: str
) -> None:
    """Both versions, both byte orders, scaled values, an extension."""
    volume = kind(rgb[..., 0].T // 2, np.eye(4), kind.header_class(endianness=order))
    volume.header.set_data_dtype(np.int16)
    volume.header.set_slope_inter(2, 1)
    volume.header.extensions.append(nibabel.nifti1.Nifti1Extension(6, b"a comment"))
    nibabel.save(volume, tmp_path / f"a{suffix}")
    expected = np.asarray(nibabel.load(tmp_path / f"a{suffix}").dataobj).T
    np.testing.assert_array_equal(io.read_image(given(tmp_path / f"a{suffix}"))[..., 1], expected)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_round_trips(tmp_path: Path, given: Given, rgb: Bytes, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    io.write_nifti(path, rgb)
    np.testing.assert_array_equal(io.read_image(given(path)), rgb)
    mask = rgb[..., 0] > 60
    io.write_nifti(path, mask)
    np.testing.assert_array_equal(io.read_mask(given(path)), mask)
    prob = (rgb[..., 1] / 255).astype(np.float32)
    io.write_nifti(path, prob, 0.0075)
    volume = nibabel.load(path)
    assert volume.shape == (100, 80)
    np.testing.assert_array_equal(np.asarray(volume.dataobj), prob.T)
    assert volume.header.get_zooms() == pytest.approx((0.0075, 0.0075))
    assert volume.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(np.diag(volume.affine), [-0.0075, -0.0075, 1, 1])


def test_nifti_is_the_same_bytes_each_time(tmp_path: Path, rgb: Bytes) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        io.write_nifti(tmp_path / name, rgb)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_wrong_nifti_arguments(tmp_path: Path, rgb: Bytes) -> None:
    for bad in (rgb.astype(np.int64), rgb[..., :2], rgb[..., None]):
        with pytest.raises(ValueError, match="expected"):
            io.write_nifti(tmp_path / "a.nii", bad)
    with pytest.raises(ValueError, match="pixel size"):
        io.write_nifti(tmp_path / "a.nii", rgb, 0.0)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- what is no photograph


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def tiff_header(width: int, height: int, path: Path) -> None:
    """A TIFF that claims a size and holds next to nothing."""
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.float32), photometric="rgb")
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages.first.tags["ImageWidth"].overwrite(width)
        file.pages.first.tags["ImageLength"].overwrite(height)


def nan_nifti(path: Path) -> None:
    array = np.full((80, 90), np.nan, np.float32)
    save_nifti(path, array)


def nifti_header(kind: type[nibabel.Nifti1Header], width: int, height: int, offset: int) -> bytes:
    """The head of a compressed NIfTI file that claims a size; what comes behind it cannot be inflated."""
    header = kind()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((width, height))
    header["vox_offset"] = offset
    whole = gzip.compress(header.binaryblock + bytes(2**20), mtime=0)
    return whole[: len(whole) // 2]


def long_extension(path: Path) -> None:
    """A NIfTI file of 80 x 90 pixels whose extension claims 2 GB."""
    volume = bytearray(nibabel.Nifti1Image(np.arange(7200, dtype=np.uint16).reshape(80, 90), np.eye(4)).to_bytes())
    volume[348:352] = b"\1\0\0\0"
    volume[352:352] = struct.pack("<ii", 2**31 - 16, 6) + bytes(8)
    volume[108:112] = struct.pack("<f", 368)  # vox_offset
    path.write_bytes(gzip.compress(bytes(volume)))


Maker = Callable[[Path], object]
BAD: dict[str, tuple[str, Maker, str]] = {
    "empty": ("a.png", lambda p: p.write_bytes(b""), "empty file"),
    "empty nifti": ("a.nii", lambda p: p.write_bytes(b""), "empty file"),
    "text": ("a.png", lambda p: p.write_text("patient notes"), "is a text file: expected PNG"),
    "pdf": ("a.jpg", lambda p: p.write_bytes(b"%PDF-1.7 \x00\xff"), "PDF"),
    "dicom": ("a.dcm", lambda p: p.write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 99), "DICOM"),
    "binary": ("a.tif", lambda p: p.write_bytes(bytes(range(256))), "no image"),
    "text nifti": ("a.nii.gz", lambda p: p.write_text("hello"), "damaged"),
    "tiny": ("a.png", lambda p: Image.new("RGB", (1, 1)).save(p), "too small, 1 x 1"),
    "narrow": ("a.png", lambda p: Image.new("RGB", (63, 900)).save(p), "too small, 63 x 900"),
    "black": ("a.png", lambda p: Image.new("RGB", (99, 99)).save(p), "black everywhere"),
    "constant": ("a.png", lambda p: Image.new("RGB", (99, 99), (9, 8, 7)).save(p), r"one colour \(9, 8, 7\)"),
    "bomb": ("a.png", lambda p: p.write_bytes(png_header(30_000, 30_000)), "too large"),
    "large": ("a.png", lambda p: p.write_bytes(png_header(10_001, 10_000)), "too large, 10001 x 10000"),
    "bomb tiff": ("a.tif", lambda p: tiff_header(30_000, 30_000, p), "too large, 30000 x 30000"),
    "bomb ppm": ("a.ppm", lambda p: p.write_bytes(b"P6 30000 30000 255\n"), "too large"),
    "bomb nifti": (
        "a.nii.gz",
        lambda p: p.write_bytes(nifti_header(nibabel.Nifti1Header, 30_000, 30_000, 352)),
        "too large, 30000 x 30000",
    ),
    "bomb nifti-2": (
        "a.nii.gz",
        lambda p: p.write_bytes(nifti_header(nibabel.Nifti2Header, 10_001, 10_000, 544)),
        "too large, 10001 x 10000",
    ),
    "far pixels": (
        "a.nii.gz",
        lambda p: p.write_bytes(nifti_header(nibabel.Nifti1Header, 90, 90, 2**40)),
        "damaged .*1099511627776 bytes before the pixels",
    ),
    "nan": ("a.nii.gz", nan_nifti, "NaN"),
    "3-D": ("a.nii", lambda p: save_nifti(p, np.zeros((70, 70, 5), np.uint8)), r"shape \(70, 70, 5\)"),
    "4-D": ("a.nii", lambda p: save_nifti(p, np.zeros((70, 70, 3, 2), np.uint8)), "expected"),
    "complex": ("a.nii", lambda p: save_nifti(p, np.zeros((70, 70), np.complex64)), "complex64"),
    "negative": ("a.tif", lambda p: tifffile.imwrite(p, np.full((70, 70), -2, np.float32)), "from -2 to -2"),
    "huge values": ("a.tif", lambda p: tifffile.imwrite(p, np.full((70, 70), 9e9, np.float32)), "from 9e"),
    "infinite": ("a.tif", lambda p: tifffile.imwrite(p, np.full((70, 70), np.inf, np.float32)), "infinite"),
    "Lab": ("a.tif", lambda p: Image.new("LAB", (99, 99)).save(p), "L[*]a[*]b"),
}


@pytest.mark.parametrize(("name", "make", "message"), BAD.values(), ids=BAD.keys())
def test_what_is_no_photograph(tmp_path: Path, given: Given, name: str, make: Maker, message: str) -> None:
    path = tmp_path / name
    make(path)
    source = given(path)
    with pytest.raises(UserError, match=message) as error:
        io.read_image(source)
    assert str(error.value).startswith(f"{source} ")
    assert "\n" not in str(error.value)


def test_no_file_at_the_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path} is a folder"):
        io.read_image(tmp_path)
    with pytest.raises(UserError, match=r"a\.png: no such file"):
        io.read_image(tmp_path / "a.png")


def test_extensions_of_nifti_are_not_read(tmp_path: Path, given: Given) -> None:
    long_extension(tmp_path / "a.nii.gz")
    assert io.read_image(given(tmp_path / "a.nii.gz")).shape == (90, 80, 3)


def test_in_memory_shows_its_content_to_nobody() -> None:
    source = InMemory("eye.png", b"SECRET")
    assert repr(source) == "InMemory('eye.png', 6 bytes)"
    assert str(source) == "eye.png"
    with pytest.raises(UserError, match=r"eye\.png is a text file") as error:
        decode(source)
    assert "SECRET" not in str(error.value)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".gif", ".bmp", ".webp", ".ppm", ".nii", ".nii.gz"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9])
def test_truncated_files(tmp_path: Path, given: Given, suffix: str, kept: float) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (70, 80, 3)).astype(np.uint8)
    path = tmp_path / f"a{suffix}"
    if ".nii" in suffix:
        io.write_nifti(path, picture)
    else:
        Image.fromarray(picture).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    source = given(path)
    with pytest.raises(UserError) as error:
        io.read_image(source)
    assert str(source) in str(error.value)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_truncated_deep_tiff(tmp_path: Path, given: Given, rgb: Bytes, compression: str | None, kept: float) -> None:
    path = tmp_path / "a.tif"
    if compression == "lzw":
        cv2.imwrite(str(path), rgb * np.uint16(257))
    else:
        tifffile.imwrite(path, rgb * np.uint16(257), photometric="rgb", compression=compression, rowsperstrip=8)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(UserError):
        io.read_image(given(path))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path: Path, rgb: Bytes) -> None:
    path = tmp_path / "a.png"
    io.write_rgb(path, rgb)
    path.chmod(0)
    with pytest.raises(UserError, match="may not be read"):
        io.read_image(path)


# ---------------------------------------------------------------- labels


@pytest.fixture
def mask() -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:50, :70]
    return (rows - 20) ** 2 + (columns - 30) ** 2 < 200


def test_mask_encodings(tmp_path: Path, given: Given, mask: NDArray[np.bool_]) -> None:
    Image.fromarray(mask).save(tmp_path / "1bit.png")
    Image.fromarray(mask).save(tmp_path / "1bit.tif", compression="group4")
    Image.fromarray(mask * np.uint8(255)).save(tmp_path / "255.png")
    Image.fromarray(mask.astype(np.uint8)).save(tmp_path / "1.png")
    Image.fromarray(mask * np.uint8(255)).save(tmp_path / "a.pgm")
    Image.fromarray(mask * np.uint16(65535)).save(tmp_path / "16bit.png")
    tifffile.imwrite(tmp_path / "float.tif", mask.astype(np.float32))
    Image.fromarray(np.where(mask[..., None], (200, 0, 0), (0, 0, 0)).astype(np.uint8)).save(tmp_path / "red.png")
    Image.fromarray(mask[..., None] * np.array([255, 0, 0, 255], np.uint8)).save(tmp_path / "rgba.png")
    Image.fromarray(np.where(mask, 90, 20).astype(np.uint8)).save(tmp_path / "two greys.bmp")
    io.write_nifti(tmp_path / "a.nii.gz", mask)
    indexed = Image.fromarray(mask.astype(np.uint8))
    for name, palette in {"near.gif": [4, 2, 4, 252, 254, 252], "red.gif": [0, 0, 0, 255, 0, 0]}.items():
        indexed.putpalette(palette)
        indexed.save(tmp_path / name)
    indexed.putpalette([0] * 6)
    indexed.save(tmp_path / "black palette.png")
    for path in sorted(tmp_path.iterdir()):
        read = io.read_mask(given(path))
        assert read.dtype == bool
        np.testing.assert_array_equal(read, mask, err_msg=path.name)


def test_masks_of_one_value(tmp_path: Path, given: Given) -> None:
    for value in (0, 1, 255):
        Image.fromarray(np.full((20, 30), value, np.uint8)).save(tmp_path / "a.png")
        assert (io.read_mask(given(tmp_path / "a.png")) == (value > 0)).all()


def test_masks_with_more_values(tmp_path: Path, given: Given, mask: NDArray[np.bool_]) -> None:
    three = mask * np.uint8(255)
    three[0, 0] = 7
    Image.fromarray(three).save(tmp_path / "three.png")
    Image.fromarray(mask * np.uint8(255)).save(tmp_path / "a.jpg")
    colours = np.zeros((*mask.shape, 3), np.uint8)
    colours[:5, :5, 0] = colours[10:20, 10:20, 1] = 255
    Image.fromarray(colours).save(tmp_path / "colours.png")
    for path in tmp_path.iterdir():
        with pytest.raises(UserError, match="more than two values"):
            io.read_mask(given(path))


# ---------------------------------------------------------------- names


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_find_images(tmp_path: Path) -> None:
    touch(tmp_path, "b.PNG", "a.jpg", "c.nii.gz", "notes.txt", "._a.jpg", ".hidden.png", "table.csv")
    touch(tmp_path, "sub/d.tif", ".git/e.png", "empty/readme.md")

    def names(*paths: Path, recursive: bool = False) -> list[str]:
        return [p.relative_to(tmp_path).as_posix() for p in io.find_images(paths, recursive=recursive)]

    assert names(tmp_path) == ["a.jpg", "b.PNG", "c.nii.gz"]
    assert names(tmp_path, recursive=True) == ["a.jpg", "b.PNG", "c.nii.gz", "sub/d.tif"]
    assert names(tmp_path / "sub", tmp_path / "b.PNG", tmp_path) == ["sub/d.tif", "b.PNG", "a.jpg", "c.nii.gz"]
    assert names(tmp_path / "notes.txt", tmp_path / "gone.png") == ["notes.txt", "gone.png"]
    with pytest.raises(UserError, match=r"no images in the folder .*empty; there: 1 \.md"):
        io.find_images([tmp_path / "empty"])
    with pytest.raises(UserError, match="no input"):
        io.find_images([])


@pytest.mark.parametrize(
    ("paths", "stems"),
    [
        (["x/eye.png", "x/other.nii.gz", "x/a.b.TIF"], ["eye", "other", "a.b"]),
        (["a/1.png", "b/1.png"], ["a_1", "b_1"]),
        (["a/1.png", "a/1.jpg", "a/2.png"], ["1_png", "1_jpg", "2"]),
        (["p/a/1.png", "q/a/1.png"], ["p_a_1", "q_a_1"]),
        (["x/Eye.png", "x/eye.jpg"], ["Eye_png", "eye_jpg"]),
        (["x/1.png", "x/1.png"], ["1", "1_2"]),
        (["x/1.png", "x/1.png", "x/1_2.png"], ["1", "1_3", "1_2"]),
        ([], []),
    ],
)
def test_output_stems(paths: list[str], stems: list[str]) -> None:
    assert io.output_stems(paths) == stems


def test_output_stems_always_differ() -> None:
    rng = np.random.default_rng(0)
    parts = ["a", "A", "b", "1", "a_1", "é", "e\u0301"]
    suffixes = [".png", ".PNG", ".jpg", ".nii.gz", ""]
    for _ in range(30):
        paths = ["/".join(rng.choice(parts, 3)) + str(rng.choice(suffixes)) for _ in range(12)]
        stems = io.output_stems(paths)
        assert len({io.on_disk(stem) for stem in stems}) == len(paths)
        assert stems == io.output_stems(paths)
        assert not any("/" in stem or not stem for stem in stems)


# ---------------------------------------------------------------- writing


def test_write_mask_round_trip(tmp_path: Path, mask: NDArray[np.bool_]) -> None:
    path = tmp_path / "m ä.png"
    io.write_mask(path, mask)
    with Image.open(path) as picture:
        assert picture.mode == "L"
        assert list(picture.info) == ["Software"]
        assert picture.info["Software"].startswith("retina_seg-result:")
        np.testing.assert_array_equal(np.asarray(picture), mask * np.uint8(255))
    np.testing.assert_array_equal(io.read_mask(path), mask)
    with pytest.raises(ValueError, match="two-valued"):
        io.write_mask(path, np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(io.read_mask(path), mask)


def test_write_probability_round_trip(tmp_path: Path) -> None:
    prob = np.random.default_rng(0).random((70, 90)).astype(np.float32)
    prob[:5] = 0
    io.write_probability(tmp_path / "p.tif", prob)
    with tifffile.TiffFile(tmp_path / "p.tif") as file:
        assert len(file.pages) == 1
        page = file.pages.first
        assert page.dtype == np.float32
        assert page.compression in (8, 32946)
        np.testing.assert_array_equal(page.asarray(), prob)
        assert not {"ImageDescription", "DateTime", "Artist", "DocumentName"} & {tag.name for tag in page.tags}
        assert page.tags["Software"].value.startswith("retina_seg-result:")
    with Image.open(tmp_path / "p.tif") as picture:
        np.testing.assert_array_equal(np.asarray(picture), prob)
    for bad in (prob * 2, prob - 0.5, np.full_like(prob, np.nan), prob[0]):
        with pytest.raises(ValueError, match="from 0 to 1"):
            io.write_probability(tmp_path / "q.tif", bad)
    assert not (tmp_path / "q.tif").exists()


def test_write_rgb_round_trip_without_metadata(tmp_path: Path, rgb: Bytes) -> None:
    io.write_rgb(tmp_path / "a.png", rgb)
    np.testing.assert_array_equal(io.read_image(tmp_path / "a.png"), rgb)
    with Image.open(tmp_path / "a.png") as picture:
        assert list(picture.info) == ["Software"]
        assert picture.info["Software"].startswith("retina_seg-picture:")
    with pytest.raises(ValueError, match="uint8"):
        io.write_rgb(tmp_path / "b.png", rgb[..., 0])


def test_write_json(tmp_path: Path) -> None:
    io.write_json(
        tmp_path / "a.json",
        {
            "z": np.float32(0.5),
            "nan": math.nan,
            "more": [np.nan, np.inf, np.int64(3), np.bool_(True)],
            "array": np.array([[1.0, np.nan]]),
            "path": Path("a") / "b",
            "name": "Auge é",
            3: (1, None),
        },
    )
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "é" in text
    assert text.endswith("}\n")
    read = json.loads(text)
    assert list(read) == ["z", "nan", "more", "array", "path", "name", "3"]
    assert read["more"] == [None, None, 3, True]
    assert read["array"] == [[1.0, None]]
    assert (read["z"], read["nan"], read["3"]) == (0.5, None, [1, None])
    with pytest.raises(TypeError):
        io.write_json(tmp_path / "b.json", {"a": {1, 2}})
    assert not (tmp_path / "b.json").exists()


def test_files_hold_what_is_encoded(tmp_path: Path, rgb: Bytes, mask: NDArray[np.bool_]) -> None:
    prob = rgb[..., 0] / np.float32(255)
    record = {"name": "Auge é", "values": np.arange(3)}
    io.write_mask(tmp_path / "mask.png", mask)
    io.write_probability(tmp_path / "prob.tif", prob)
    io.write_rgb(tmp_path / "rgb.png", rgb)
    io.write_nifti(tmp_path / "a.nii", prob, 0.0075)
    io.write_nifti(tmp_path / "A.NII.GZ", mask)
    io.write_json(tmp_path / "a.json", record)
    encoded = {
        "mask.png": io.mask_png(mask),
        "prob.tif": io.probability_tiff(prob),
        "rgb.png": io.rgb_png(rgb),
        "a.nii": io.nifti(prob, 0.0075, compressed=False),
        "A.NII.GZ": io.nifti(mask),
        "a.json": io.json_text(record).encode(),
    }
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == encoded


def test_text_has_the_same_bytes_everywhere(tmp_path: Path) -> None:
    io.write_text(tmp_path / "a.csv", "µ\nb\n")
    assert (tmp_path / "a.csv").read_bytes() == "µ\nb\n".encode()


def write_half(path: Path, error: type[BaseException]) -> None:
    with io.atomic(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == path.suffix
        temporary.write_text("half")
        raise error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    io.write_text(path, "old")
    with pytest.raises(error):
        write_half(path, error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_a_user_error(tmp_path: Path, mask: NDArray[np.bool_]) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        io.write_mask(tmp_path / "no such folder" / "a.png", mask)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=r"folder\.png cannot be written"):
        io.write_mask(tmp_path / "folder.png", mask)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.png"]


def test_written_files_can_be_read_by_others(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        io.write_text(tmp_path / "a", "x")
    finally:
        os.umask(old)
    if os.name == "posix":
        assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_real_images(data_root: Path) -> None:
    image = io.read_image(data_root / "DRIVE" / "training" / "images" / "21_training.tif")
    assert image.shape == (584, 565, 3)
    image = io.read_image(data_root / "STARE" / "stare-images" / "im0001.ppm")
    with Image.open(data_root / "STARE" / "stare-images" / "im0001.ppm") as picture:
        np.testing.assert_array_equal(image, np.asarray(picture))
    second = io.read_mask(data_root / "DRIVE" / "test" / "2nd_manual" / "01_manual2.gif")
    first = io.read_mask(data_root / "DRIVE" / "test" / "1st_manual" / "01_manual1.gif")
    assert 2 * (first & second).sum() / (first.sum() + second.sum()) > 0.75


# ---------------------------------------------------------------- tables and names


def test_a_table_has_no_formulas_and_keeps_numbers() -> None:
    cells = [
        "=1+1",
        "+cmd",
        "-cmd",
        "@a",
        "\ta",
        "\ra",
        "\na",
        "＝1",
        "-0.31",
        "+2",
        "1e-3",
        "plain",
        "a=b",
        "'x",
        "",
        "'=x",
    ]
    text = io.comma_separated([{"cell": cell, "number": -1.5} for cell in cells])
    rows = list(csv.DictReader(StringIO(text, newline="")))
    assert [row["cell"] for row in rows] == [*(f"'{cell}" for cell in cells[:8]), *cells[8:-1], "''=x"]
    assert {row["number"] for row in rows} == {"-1.5"}
    assert [io.without_guard(row["cell"]) for row in rows] == cells


def test_names_of_columns_are_no_formulas_either() -> None:
    assert io.comma_separated([], ["=a", "b"]) == "'=a,b\r\n"


def test_columns_of_a_table_are_those_that_are_named() -> None:
    assert io.comma_separated([{"b": 1}, {"a": 2}], ["a", "b"]) == "a,b\r\n,1\r\n2,\r\n"
    with pytest.raises(ValueError, match="no column for c"):
        io.comma_separated([{"c": 1}], ["a", "b"])


def test_what_folders_hold_besides_images_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.HEIC", "c.heic", "d", ".hidden.heic", "in/e.txt", "in/f.jpg", ".git/g.dcm")
    (tmp_path / "broken.png").symlink_to(tmp_path / "gone")
    flat, deep = io.list_images([tmp_path]), io.list_images([tmp_path], recursive=True)
    assert [path.name for path in flat.images] == ["a.png"]
    assert flat.left_out == {".heic": 2, "no regular file": 1, "without suffix": 1}
    assert (flat.unsearched, deep.unsearched) == (1, 0)
    assert [path.name for path in deep.images] == ["a.png", "f.jpg"]
    assert deep.left_out == {**flat.left_out, ".txt": 1}
    assert io.told(flat.left_out) == "2 .heic, 1 no regular file, 1 without suffix"
    assert io.told({}) == ""


def test_json_holds_names_that_are_no_utf8() -> None:
    name = os.fsdecode(b"\xe4uge")
    assert json.loads(io.json_text({name: [name, Path(name)]})) == {r"\xe4uge": [r"\xe4uge", r"\xe4uge"]}
