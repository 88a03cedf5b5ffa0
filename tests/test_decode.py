"""From files to pixels: TIFF pages and channels, sound files that are not read, damage, what claims to be huge."""

import gzip
import io as streams
import struct
import threading
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, features

from retina_seg import decode_limits, decode_pillow, io
from retina_seg.decode import InMemory, decode, placement
from retina_seg.errors import UserError

Bytes = NDArray[np.uint8]


@pytest.fixture
def rgb() -> Bytes:
    """A picture that differs from each of its mirror images and turns, 80 high and 100 wide."""
    rows, columns = np.mgrid[:80, :100]
    picture = np.stack([2 * columns, 3 * rows, (rows + columns) % 256], axis=-1).astype(np.uint8)
    picture[:10, :20] = (250, 10, 30)
    picture[0, 0] = 255
    return picture


def refused(path: Path | InMemory, message: str) -> str:
    with pytest.raises(UserError, match=message) as error:
        io.read_image(path)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------- TIFF written by hand


def tiff(tags: dict[int, int | tuple[int, ...]], data: bytes) -> InMemory:
    """A TIFF of one page: each tag as numbers of 32 bits, `data` behind the directory; tag 273 counts from there."""
    values, start = b"", 8 + 2 + 12 * len(tags) + 4
    directory = struct.pack("<IH", 8, len(tags))
    long = sum(4 * len(value) for value in tags.values() if isinstance(value, tuple))
    for tag, value in sorted(tags.items()):
        numbers = value if isinstance(value, tuple) else (value,)
        if tag in (273, 324):
            numbers = tuple(number + start + long for number in numbers)
        if isinstance(value, tuple):
            directory += struct.pack("<HHII", tag, 4, len(numbers), start + len(values))
            values += struct.pack(f"<{len(numbers)}I", *numbers)
        else:
            directory += struct.pack("<HHII", tag, 4, 1, numbers[0])
    return InMemory("a.tif", b"II*\0" + directory + bytes(4) + values + data)


def one_strip(shape: tuple[int, int, int], bits: int, data: bytes, **more: int) -> InMemory:
    """All values in one strip: compression, sample_format, predictor, rows, photometric, below (a sub-directory)."""
    height, width, channels = shape
    tags: dict[int, int | tuple[int, ...]] = {
        256: width,
        257: height,
        258: bits,
        259: more.get("compression", 1),
        262: more.get("photometric", 2 if channels == 3 else 1),
        273: 0,
        277: channels,
        278: more.get("rows", height),
        279: len(data),
        284: 1,
        317: more.get("predictor", 1),
        339: more.get("sample_format", 1),
    }
    if "below" in more:
        tags[330] = more["below"]
    return tiff(tags, data)


def packed(data: bytes, compression: str) -> bytes:
    """Bytes as pillow's libtiff packs them."""
    stream = streams.BytesIO()
    grey = Image.frombytes("L", (len(data) // 80, 80), data)
    grey.save(stream, "TIFF", compression=compression, strip_size=2**26)
    with tifffile.TiffFile(streams.BytesIO(stream.getvalue())) as file:
        page = file.pages.first
        assert len(page.dataoffsets) == 1
        return stream.getvalue()[page.dataoffsets[0] :][: page.databytecounts[0]]


PACKED = {5: "tiff_lzw", 8: "tiff_adobe_deflate", 32773: "packbits", 34925: "lzma", 50000: "zstd"}


@pytest.mark.parametrize("compression", PACKED)
@pytest.mark.parametrize("predictor", [1, 2])
def test_deep_colours_of_all_packings(rgb: Bytes, compression: int, predictor: int) -> None:
    deep = rgb * np.uint16(257)
    stored = np.diff(deep, axis=1, prepend=np.zeros_like(deep[:, :1])) if predictor == 2 else deep
    try:
        data = packed(stored.tobytes(), PACKED[compression])
    except (OSError, RuntimeError):
        pytest.skip("pillow's libtiff does not know this compression")
    file = one_strip(rgb.shape, 16, data, compression=compression, predictor=predictor)
    np.testing.assert_array_equal(decode(file), deep)


@pytest.mark.parametrize("compression", PACKED)
def test_deep_planes_and_odd_rows(rgb: Bytes, compression: int) -> None:
    deep = (rgb * np.uint16(257))[:, :99]
    try:
        strips = [
            packed(np.ascontiguousarray(deep[..., channel]).tobytes(), PACKED[compression]) for channel in range(3)
        ]
    except (OSError, RuntimeError):
        pytest.skip("pillow's libtiff does not know this compression")
    sizes = tuple(map(len, strips))
    file = tiff(
        {
            **{256: 99, 257: 80, 258: (16, 16, 16), 259: compression, 262: 2, 277: 3, 278: 80, 284: 2},
            **{273: (0, sizes[0], sizes[0] + sizes[1]), 279: sizes},
        },
        b"".join(strips),
    )
    np.testing.assert_array_equal(decode(file), deep)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("tile", [None, (32, 48)])
def test_tiles_strips_and_byte_orders(tmp_path: Path, rgb: Bytes, order: str, tile: tuple[int, int] | None) -> None:
    for number, values in enumerate((rgb * np.uint16(257), rgb.astype(np.float32), rgb[..., 0].astype(np.int32))):
        for compression in (None, "zlib"):
            path = tmp_path / f"{number}{compression}.tif"
            photometric = "rgb" if values.ndim == 3 else "minisblack"
            tifffile.imwrite(path, values, photometric=photometric, tile=tile, compression=compression, byteorder=order)
            np.testing.assert_array_equal(decode(path), values, err_msg=path.name)


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_floats_stored_as_differences(rgb: Bytes, bits: int) -> None:
    values = (rgb / 255).astype(f"f{bits // 8}")
    planes = (
        values.astype(f">f{bits // 8}").view(np.uint8).reshape(80, 300, bits // 8).swapaxes(1, 2)
    )  # (H, bytes, W C)
    flat = np.ascontiguousarray(planes).reshape(80, -1, 3)
    stored = np.diff(flat, axis=1, prepend=np.zeros_like(flat[:, :1]))
    file = one_strip(rgb.shape, bits, zlib.compress(stored.tobytes()), compression=8, predictor=3, sample_format=3)
    np.testing.assert_array_equal(decode(file), values)


# ---------------------------------------------------------------- which page


def pages(path: Path, *written: tuple[NDArray[np.generic], int]) -> Path:
    with tifffile.TiffWriter(path) as file:
        for picture, subfile in written:
            file.write(picture, photometric="rgb", subfiletype=subfile)
    return path


@pytest.mark.parametrize("scale", [np.uint8(1), np.uint16(257)])
def test_the_photograph_among_previews(tmp_path: Path, rgb: Bytes, scale: np.unsignedinteger) -> None:
    big, small = np.kron(rgb, np.ones((2, 2, 1), np.uint8)) * scale, rgb * scale
    path = tmp_path / "a.tif"
    for written in (
        [(small, 1), (big, 0)],
        [(small, 0), (big, 0)],
        [(big, 0), (small, 0)],
        [(big, 0), (small, 1), (small[::2, ::2], 1)],
        [(small[::2, ::2], 0), (small, 0), (big, 0)],
        [(big, 1)],
    ):
        np.testing.assert_array_equal(decode(pages(path, *written)), big)


def test_pages_of_which_none_is_the_photograph(tmp_path: Path, rgb: Bytes) -> None:
    path = tmp_path / "a.tif"
    refused(pages(path, (rgb, 0), (rgb[::-1], 0)), "holds 2 pages")
    refused(pages(path, (rgb[:, ::2], 0), (rgb, 0)), "holds 2 pages")  # another proportion: another picture
    refused(pages(path, (rgb[::2, ::2], 1), (rgb, 0), (rgb[::-1], 0)), "holds 3 pages")
    with tifffile.TiffWriter(path) as file:
        file.write(rgb[::2, ::2], photometric="rgb", subfiletype=1, subifds=1)
        file.write(rgb, photometric="rgb")
    refused(path, "a preview, and its photograph where only raw converters look")


def hanging(path: Path, first: NDArray[np.generic], *below: NDArray[np.generic]) -> Path:
    with tifffile.TiffWriter(path) as file:
        for number, picture in enumerate((first, *below)):
            photometric = "rgb" if picture.ndim == 3 else "minisblack"
            file.write(picture, photometric=photometric, subifds=0 if number else len(below))
    return path


def test_what_hangs_on_a_page_is_read_where_it_is_larger(tmp_path: Path, rgb: Bytes) -> None:
    path, half = tmp_path / "a.tif", rgb[::2, ::2]
    for below in ([rgb], [half[::2, ::2], half[::4, ::4], rgb], [rgb, half]):
        np.testing.assert_array_equal(decode(hanging(path, half, *below)), rgb)
    np.testing.assert_array_equal(decode(hanging(path, half[..., 0], rgb)), rgb)
    np.testing.assert_array_equal(decode(hanging(path, rgb, half, half[::2, ::2], half[::4, ::4])), rgb)
    for below in ([rgb, rgb[::-1]], [rgb[:, :60]], [rgb[..., 0]]):
        refused(hanging(path, half, *below), "a preview, and its photograph where only raw converters look")


def test_a_damaged_directory_below_does_not_matter(rgb: Bytes) -> None:
    for offset in (0, 5, 2**31):
        np.testing.assert_array_equal(decode(one_strip(rgb.shape, 8, rgb.tobytes(), below=offset)), rgb)


def test_a_larger_grey_page_behind_colours_is_not_taken_for_the_photograph(tmp_path: Path, rgb: Bytes) -> None:
    path, half = tmp_path / "a.tif", rgb[::2, ::2]
    for first, second in ((half, rgb[..., 0]), (half[..., 0], rgb)):
        with tifffile.TiffWriter(path) as file:
            for picture in (first, second):
                file.write(picture, photometric="rgb" if picture.ndim == 3 else "minisblack")
        if second.ndim == 2:
            refused(path, "holds 2 pages")
        else:
            np.testing.assert_array_equal(decode(path), rgb)


def test_a_description_is_read_to_its_end(tmp_path: Path, rgb: Bytes) -> None:
    planes = np.ascontiguousarray(np.moveaxis(rgb, -1, 0))
    for spare in range(8):
        said = f"ImageJ=1.54f\nx={'0' * spare}\nimages=3\nchannels=3\nmode=composite"
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            for plane in planes:
                file.write(plane, photometric="minisblack", description=said, metadata=None)
        np.testing.assert_array_equal(decode(tmp_path / "a.tif"), rgb)


def test_many_pages_and_loops(tmp_path: Path, rgb: Bytes) -> None:
    path = pages(tmp_path / "a.tif", (rgb, 0), *[(rgb[:70, :70], 0)] * decode_limits.MAX_PAGES)
    refused(path, "holds more than 100 pages")
    content = bytearray(one_strip(rgb.shape, 8, rgb.tobytes()).data)
    struct.pack_into("<I", content, 8 + 2 + 12 * 12, 8)  # the directory follows itself
    np.testing.assert_array_equal(io.read_image(InMemory("a.tif", bytes(content))), rgb)


def test_channels_as_pages(tmp_path: Path, rgb: Bytes) -> None:
    planes = np.ascontiguousarray(np.moveaxis(rgb, -1, 0))
    path = tmp_path / "a.tif"
    for values in (planes, planes * np.uint16(257)):
        tifffile.imwrite(path, values, imagej=True, metadata={"axes": "CYX", "mode": "composite"})
        np.testing.assert_array_equal(io.read_image(path), rgb)
    tifffile.imwrite(path, planes, imagej=True, metadata={"axes": "CYX", "mode": "grayscale"})
    refused(path, "holds 3 channels of a picture as 3 pages")
    luts = [np.zeros((3, 256), np.uint8) for _ in range(3)]
    tifffile.imwrite(path, planes, imagej=True, metadata={"axes": "CYX", "mode": "composite", "LUTs": luts})
    refused(path, "holds 3 channels of a picture as 3 pages")
    tifffile.imwrite(path, planes[:2], imagej=True, metadata={"axes": "CYX", "mode": "composite"})
    refused(path, "holds 2 channels of a picture as 2 pages")
    tifffile.imwrite(path, planes, photometric="minisblack", metadata={"axes": "CYX"}, ome=True)
    refused(path, "holds 3 channels of a picture as 3 pages")
    tifffile.imwrite(path, planes, imagej=True, metadata={"axes": "ZYX"})
    refused(path, "holds 3 pages")


# ---------------------------------------------------------------- what values and channels mean


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_0_is_white(tmp_path: Path, rgb: Bytes, compression: str | None) -> None:
    grey = rgb[..., 0]
    for kind in (np.uint8, np.uint16, np.uint32):
        top = np.iinfo(kind).max
        values = grey.astype(kind) * kind(top // 255)
        path = tmp_path / f"{kind.__name__}.tif"
        tifffile.imwrite(path, top - values, photometric="miniswhite", compression=compression)
        np.testing.assert_array_equal(decode(path), values, err_msg=path.name)
    tifffile.imwrite(path, grey / np.float32(255), photometric="miniswhite")
    refused(path, "fractions of which 0 is white")


@pytest.mark.parametrize(("kind", "full"), [("u2", 1023), ("u2", 4095), ("u2", 16383), ("u4", 65535), ("i2", 32767)])
def test_0_is_white_at_the_depth_stored(tmp_path: Path, rgb: Bytes, kind: str, full: int) -> None:
    values = np.rint(rgb[..., 0] / 255 * full)
    tifffile.imwrite(tmp_path / "a.tif", (full - values).astype(kind), photometric="miniswhite")
    np.testing.assert_array_equal(decode(tmp_path / "a.tif"), values)
    assert abs(io.read_image(tmp_path / "a.tif")[..., 0].astype(int) - rgb[..., 0]).max() <= 1


@pytest.mark.parametrize(("kind", "full"), [("i1", 127), ("i2", 32767), ("i2", 4095), ("i4", 65535)])
def test_signed_numbers_are_read_at_full_brightness(rgb: Bytes, kind: str, full: int) -> None:
    values = np.rint(rgb / 255 * full).astype(kind)
    assert abs(io.as_photograph(values).astype(int) - rgb).max() <= (2 if kind == "i1" else 1)


@pytest.mark.parametrize("most", [1, 1.0001, 255, 255.01, 4095.2, 65535.4])
def test_floats_a_hair_beyond_full_scale(tmp_path: Path, rgb: Bytes, most: float) -> None:
    tifffile.imwrite(tmp_path / "a.tif", (rgb / 255 * most).astype(np.float32), photometric="rgb")
    assert abs(io.read_image(tmp_path / "a.tif").astype(int) - rgb).max() <= 1


def test_floats_beyond_full_scale_are_cut_off(rgb: Bytes) -> None:
    values = (rgb / 255).astype(np.float64)
    values[5, 5] = 1.04
    expected = rgb.copy()
    expected[5, 5] = 255
    np.testing.assert_array_equal(io.as_photograph(values), expected)
    with pytest.raises(UserError, match="expected 0 to 1, or 0 to at most 65535"):
        io.as_photograph(values * 65535)


@pytest.mark.parametrize(("kind", "full"), [(np.uint8, 255), (np.uint16, 4095)])
def test_nifti_scaled_to_1_by_a_rounded_factor(rgb: Bytes, kind: type[np.generic], full: int) -> None:
    values = np.rint(rgb / 255 * full).astype(kind)
    header = nibabel.Nifti1Header()
    header.set_data_dtype(kind)
    header.set_data_shape((100, 80, 1, 3))
    header["scl_slope"], header["vox_offset"], header["magic"] = 1 / full, 352, b"n+1"
    content = header.binaryblock + bytes(4) + values.swapaxes(0, 1).tobytes(order="F")
    assert decode(InMemory("a.nii", content)).max() > 1
    assert abs(io.read_image(InMemory("a.nii", content)).astype(int) - rgb).max() <= 1


EXTRAS: dict[str, tuple[list[str], int | None]] = {  # kinds of the extra channels, and which of them is alpha
    "nothing": ([], None),
    "alpha": (["unassalpha"], 0),
    "alpha and selection": (["unassalpha", "unspecified"], 0),
    "selection": (["unspecified"], None),
    "two selections": (["unspecified", "unspecified"], None),
    "selection and alpha": (["unspecified", "unassalpha"], 1),
    "four": (["unspecified"] * 4, None),
}


@pytest.mark.parametrize(("kinds", "alpha"), EXTRAS.values(), ids=EXTRAS.keys())
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("scale", [np.uint8(1), np.uint16(257)])
def test_channels_beyond_colours(
    tmp_path: Path, rgb: Bytes, kinds: list[str], alpha: int | None, planar: str, scale: np.unsignedinteger
) -> None:
    if planar == "separate" and not kinds:
        return
    extra = [np.roll(rgb[..., 2], 10 * number, axis=1) for number in range(len(kinds))]
    values = np.dstack([rgb, *extra]) * scale
    stored = np.moveaxis(values, -1, 0).copy() if planar == "separate" else values
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=kinds, planarconfig=planar)
    expected = rgb if alpha is None else np.rint(rgb * (extra[alpha][..., None] / extra[alpha].max())).astype(np.uint8)
    read = io.read_image(tmp_path / "a.tif")
    assert abs(read.astype(int) - expected).max() <= (scale > 1)


def test_grey_channels_that_may_be_any_colours(rgb: Bytes) -> None:
    four = np.dstack([rgb, rgb[..., 0]])
    refused(
        one_strip(four.shape, 16, (four * np.uint16(257)).tobytes(), photometric=1), "holds 4 channels of a picture"
    )


# ---------------------------------------------------------------- sound files that are not read


def with_compression(path: Path, rgb: Bytes, compression: int) -> None:
    tifffile.imwrite(path, rgb, photometric="rgb")
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages.first.tags["Compression"].overwrite(compression)


def without_adobe(path: Path, rgb: Bytes) -> None:
    Image.fromarray(rgb).convert("CMYK").save(path, "JPEG", quality=95)
    content = path.read_bytes()
    start = content.index(b"\xff\xee\x00\x0eAdobe")
    path.write_bytes(content[:start] + content[start + 16 :])


def jpeg_of(path: Path, rgb: Bytes, frame: int, bits: int = 8) -> None:
    Image.fromarray(rgb).save(path, "JPEG")
    content = bytearray(path.read_bytes())
    at = content.index(b"\xff\xc0")
    content[at + 1], content[at + 4] = frame, bits
    path.write_bytes(content)


UNREAD: dict[str, tuple[str, Callable[[Path, Bytes], object], str]] = {
    "JPEG 2000 in TIFF": ("a.tif", lambda p, a: with_compression(p, a, 34712), "compressed with JPEG 2000"),
    "LERC in TIFF": ("a.tif", lambda p, a: with_compression(p, a, 34887), "compressed with LERC"),
    "JPEG XL in TIFF": ("a.tif", lambda p, a: with_compression(p, a, 50002), "compressed with JPEG XL"),
    "a compression of tomorrow": ("a.tif", lambda p, a: with_compression(p, a, 60001), "compressed with method 60001"),
    "14 bits": ("a.tif", lambda p, a: p.write_bytes(one_strip((80, 100, 1), 14, bytes(14000)).data), "of 14 bits"),
    "raw colours": (
        "a.tif",
        lambda p, a: p.write_bytes(one_strip((80, 100, 1), 16, bytes(16000), photometric=32803).data),
        "raw values of a colour camera",
    ),
    "inks without marker": ("a.jpg", without_adobe, "four inks .* without Adobe's marker"),
    "12 bits": ("a.jpg", lambda p, a: jpeg_of(p, a, 0xC1, 12), "a JPEG of 12 bits and 3 channels"),
    "lossless": ("a.jpg", lambda p, a: jpeg_of(p, a, 0xC3), "a lossless JPEG"),
    "JPEG-LS": ("a.jpg", lambda p, a: jpeg_of(p, a, 0xF7), "a JPEG-LS image"),
    "JPEG XL": ("a.jxl", lambda p, a: p.write_bytes(b"\xff\x0a" + bytes(99)), "a JPEG XL image"),
    "JPEG XL in a box": (
        "a.jxl",
        lambda p, a: p.write_bytes(b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99)),
        "a JPEG XL image",
    ),
    "HEIC": ("a.heic", lambda p, a: p.write_bytes(b"\0\0\0\x18ftypheic" + bytes(99)), "a HEIC photograph"),
    "HEIF": ("a.jpg", lambda p, a: p.write_bytes(b"\0\0\0\x18ftypmif1" + bytes(99)), "a HEIC photograph"),
    "Photoshop": ("a.png", lambda p, a: p.write_bytes(b"8BPS\0\1" + bytes(99)), "a Photoshop document"),
    "NIfTI without suffix": (
        "a.img",
        lambda p, a: p.write_bytes(nibabel.Nifti1Image(a[..., 0], np.eye(4)).to_bytes()),
        "a NIfTI image without the suffix",
    ),
}


@pytest.mark.parametrize(("name", "make", "message"), UNREAD.values(), ids=UNREAD.keys())
def test_sound_files_are_not_called_damaged(
    tmp_path: Path, rgb: Bytes, name: str, make: Callable[[Path, Bytes], object], message: str
) -> None:
    make(tmp_path / name, rgb)
    said = refused(tmp_path / name, message)
    assert "damaged" not in said
    assert "black" not in said


@pytest.mark.parametrize(("name", "feature"), [("a.avif", "avif"), ("a.jp2", "jpg_2000"), ("a.j2k", "jpg_2000")])
def test_formats_that_pillow_reads_if_built_so(tmp_path: Path, rgb: Bytes, name: str, feature: str) -> None:
    if not features.check(feature):
        pytest.skip(f"pillow without {feature}")
    smooth = np.stack(np.broadcast_arrays(*np.ogrid[:80, :100], 90), axis=-1).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / name, quality=95)
    assert abs(io.read_image(tmp_path / name).astype(int) - smooth).mean() < 2
    assert name.endswith(io.IMAGE_SUFFIXES)


def test_inks_with_adobes_marker_are_read(tmp_path: Path, rgb: Bytes) -> None:
    Image.fromarray(rgb).convert("CMYK").save(tmp_path / "a.jpg", quality=98, subsampling=0)
    assert abs(io.read_image(tmp_path / "a.jpg").astype(int) - rgb).mean() < 4


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
def test_orientation_of_xmp_is_not_applied(tmp_path: Path, rgb: Bytes, name: str) -> None:
    packet = (
        b'<x:xmpmeta><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></x:xmpmeta>'
    )
    picture = Image.fromarray(rgb)
    if name == "a.png":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", packet.decode())
        picture.save(tmp_path / name, pnginfo=info)
    elif name == "a.tif":
        picture.save(tmp_path / name, tiffinfo={700: packet})
    else:
        picture.save(tmp_path / name, xmp=packet, **({"lossless": True} if name == "a.webp" else {"quality": 98}))
    read = io.read_image(tmp_path / name)
    assert read.shape == rgb.shape
    assert abs(read.astype(int) - rgb).mean() < 8


# ---------------------------------------------------------------- PNG


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(values: NDArray[np.uint16], colour_type: int, extra: bytes = b"") -> bytes:
    """A PNG of 16 bits; `extra` blocks stand before the pixels."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in values.astype(">u2"))
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra
    return head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_all_16_bits_of_png(colour_type: int, channels: int) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (70, 90, channels)).astype(np.uint16)
    read = decode(InMemory("a.png", png(values, colour_type)))
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read.reshape(values.shape), values)


def test_png_with_texts_that_inflate_is_read(rgb: Bytes) -> None:
    long = zlib.compress(bytes(2**24))
    extra = chunk(b"zTXt", b"Comment\0\0" + long) + chunk(b"iCCP", b"icc\0\0" + long) + chunk(b"prIv", bytes(999))
    broken = struct.pack(">I", 9) + b"tEXt" + bytes(9) + b"none"
    np.testing.assert_array_equal(io.read_image(InMemory("a.png", png(rgb * np.uint16(257), 2, extra + broken))), rgb)


def bmp(rgb: Bytes, *masks: int, bits: int = 32, header: int = 40, kind: int = 3, upright: bool = False) -> InMemory:
    """A BMP whose masks say which bits are red, green, blue and alpha (opaque)."""
    words = np.zeros(rgb.shape[:2], np.uint32)
    for mask, values in zip(masks, np.moveaxis(np.dstack([rgb, np.full_like(rgb, 255)]), -1, 0), strict=False):
        low = mask & -mask
        words |= np.rint(values / 255 * (mask // low)).astype(np.uint32) * np.uint32(low) if mask else np.uint32(0)
    height, width = words.shape
    stored = words if upright else words[::-1]
    lines = np.ascontiguousarray(stored.astype(f"<u{bits // 8}")).view(np.uint8).reshape(height, -1)
    data = np.pad(lines, ((0, 0), (0, -lines.shape[1] % 4))).tobytes()
    fields = (header, width, -height if upright else height, 1, bits, kind, len(data), 0, 0, 0, 0)
    head = (struct.pack("<IiiHHIIiiII", *fields) + struct.pack(f"<{len(masks)}I", *masks)).ljust(header, b"\0")
    return InMemory("a.bmp", b"BM" + struct.pack("<III", 14 + len(head) + len(data), 0, 14 + len(head)) + head + data)


@pytest.mark.parametrize("header", [40, 52, 56, 124])
@pytest.mark.parametrize("upright", [False, True])
def test_bmp_with_masks_of_any_order(rgb: Bytes, header: int, upright: bool) -> None:
    for masks in ((0xFF, 0xFF00, 0xFF0000), (0xFF00, 0xFF, 0xFF000000), (0x3FF00000, 0xFFC00, 0x3FF)):
        given = masks if header < 56 else (*masks, 0)
        np.testing.assert_array_equal(decode(bmp(rgb, *given, header=header, upright=upright)), rgb)


def test_bmp_with_masks_of_few_bits_and_of_alpha(rgb: Bytes) -> None:
    few = decode(bmp(rgb[:, :99], 0xF00, 0xF0, 0xF, bits=16))
    np.testing.assert_array_equal(few, np.rint(rgb[:, :99] / 17) * 17)
    opaque = decode(bmp(rgb, 0xFF, 0xFF00, 0xFF0000, 0xFF000000, kind=6))
    np.testing.assert_array_equal(opaque, np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)]))


def test_bmp_that_is_rare_or_cut_short(rgb: Bytes) -> None:
    assert "0xf0f00" in refused(bmp(rgb, 0xFF, 0xF0F00, 0xFF000000), "cannot be read here even if it is sound")
    assert "0x0" in refused(bmp(rgb, 0xFF, 0, 0xFF00), "cannot be read here even if it is sound")
    refused(bmp(rgb, 0xFF, 0xFF00, 0xFF0000, kind=5), "a BMP of a rare kind .* even if it is sound")
    refused(InMemory("a.bmp", bmp(rgb, 0xFF, 0xFF00, 0xFF0000).data[:-1]), "damaged or incomplete")


def test_damaged_png_is_told_by_its_checksums(rgb: Bytes) -> None:
    stream = streams.BytesIO()
    Image.fromarray(rgb).save(stream, "PNG")
    for content in (stream.getvalue(), png(rgb * np.uint16(257), 2)):
        start = content.index(b"IDAT")
        for at in range(start, len(content) - 16, max(1, (len(content) - start) // 40)):
            damaged = bytearray(content)
            damaged[at] ^= 0x10
            refused(InMemory("a.png", bytes(damaged)), "damaged")


def test_png_of_a_million_blocks(rgb: Bytes) -> None:
    refused(InMemory("a.png", png(rgb * np.uint16(257), 2, chunk(b"prIv", b"") * 600_000)), "more than 500,000 blocks")


# ---------------------------------------------------------------- NIfTI


def nifti(rgb: Bytes) -> bytes:
    return nibabel.Nifti1Image(rgb[..., 0].T, np.eye(4)).to_bytes()


def test_a_flipped_bit_in_compressed_nifti_is_never_read_as_other_pixels(rgb: Bytes) -> None:
    whole = gzip.compress(nifti(rgb), mtime=0)
    told = 0
    for at in range(3, len(whole), 7):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        try:
            read = io.read_image(InMemory("a.nii.gz", bytes(damaged)))
        except UserError as error:
            told += "damaged" in str(error)
        else:
            np.testing.assert_array_equal(read[..., 0], rgb[..., 0])
    assert told > len(range(3, len(whole), 7)) * 0.9


def test_compressed_nifti_in_pieces_and_misnamed(rgb: Bytes) -> None:
    volume = nifti(rgb)
    pieces = b"".join(gzip.compress(volume[at : at + 100]) for at in range(0, len(volume), 100))
    for name, content in {
        "a.nii.gz": pieces,
        "b.nii.gz": gzip.compress(volume) + bytes(512),
        "c.nii.gz": volume,
        "d.nii": gzip.compress(volume),
        "e.nii.gz": gzip.compress(volume + bytes(1000)),
    }.items():
        np.testing.assert_array_equal(io.read_image(InMemory(name, content))[..., 0], rgb[..., 0], err_msg=name)
    refused(InMemory("a.nii.gz", pieces[:-40]), "damaged")
    refused(InMemory("a.nii.gz", gzip.compress(b"") * 200_000 + pieces), "more than 100000 pieces")


AFFINE = np.array([[0.01, 0.003, 0, 5], [-0.002, 0.01, 0, -7], [0, 0, 1, 3], [0, 0, 0, 1]])
TURNED = np.array([[0, -0.01, 0, 1], [0.01, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1.0]])


def both(volume: nibabel.Nifti1Image) -> None:
    volume.header.set_qform(TURNED, 1)
    volume.header.set_sform(AFFINE, 4)


def only_qform(volume: nibabel.Nifti1Image) -> None:
    volume.header.set_qform(TURNED, 3)
    volume.header.set_sform(None, 0)


def only_sform(volume: nibabel.Nifti1Image) -> None:
    volume.header.set_qform(None, 0)
    volume.header.set_sform(AFFINE, 1)


def only_pixel_size(volume: nibabel.Nifti1Image) -> None:
    volume.header.set_zooms((0.01, 0.02))


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("place", [both, only_qform, only_sform, only_pixel_size])
@pytest.mark.parametrize("unit", ["mm", "micron", None])
def test_what_is_written_with_a_placement_lies_on_the_photograph(
    tmp_path: Path,
    rgb: Bytes,
    kind: type[nibabel.Nifti1Image],
    place: Callable[[nibabel.Nifti1Image], None],
    unit: str | None,
) -> None:
    photograph = kind(rgb[..., 0].T, None)
    place(photograph)
    photograph.header.set_xyzt_units(unit)
    nibabel.save(photograph, tmp_path / "eye.nii.gz")
    placed = placement(tmp_path / "eye.nii.gz")
    assert placed is not None
    photograph = nibabel.load(tmp_path / "eye.nii.gz")
    np.testing.assert_allclose(placed.affine, photograph.affine)
    assert placed.unit == (unit or "unknown")
    mask = io.read_image(tmp_path / "eye.nii.gz")[..., 0] > 99
    (tmp_path / "mask.nii.gz").write_bytes(io.nifti(mask, 0.5, placement=placed))
    written = nibabel.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), mask.T)
    np.testing.assert_allclose(written.affine, photograph.affine, rtol=1e-6, atol=1e-8)
    for name in ("qform_code", "sform_code", "xyzt_units"):
        assert written.header[name] == photograph.header[name]
    np.testing.assert_allclose(written.header.get_sform(), photograph.header.get_sform(), rtol=1e-6)
    np.testing.assert_allclose(written.header.get_qform(), photograph.header.get_qform(), rtol=1e-6, atol=1e-8)


def test_what_is_no_nifti_has_no_placement(tmp_path: Path, rgb: Bytes) -> None:
    io.write_rgb(tmp_path / "a.png", rgb)
    (tmp_path / "a.nii").write_bytes(b"no header")
    for name in ("a.png", "a.nii", "gone.nii.gz"):
        assert placement(tmp_path / name) is None


# ---------------------------------------------------------------- what claims to be huge


def nifti_of(kind: type[np.generic], shape: tuple[int, ...], behind: int = 0) -> bytes:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(kind)
    header.set_data_shape(shape)
    header["vox_offset"] = 352
    return gzip.compress(header.binaryblock + bytes(4) + bytes(behind))


def directories(count: int) -> bytes:
    """A TIFF of so many pages that share their pixels."""
    tags = {256: 100, 257: 100, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 100, 279: 10_000}
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    size = 2 + len(body) + 4
    chain = (struct.pack("<H", len(tags)) + body + struct.pack("<I", 8 + size * (n + 1)) for n in range(count))
    return b"II*\0" + struct.pack("<I", 8) + b"".join(chain) + bytes(10_000)


def animated_webp(side: int) -> bytes:
    """An animation of one frame of 10 x 10 pixels on a canvas of `side` x `side`."""
    stream = streams.BytesIO()
    Image.new("RGB", (10, 10)).save(stream, "WEBP", lossless=True)

    def block(kind: bytes, content: bytes) -> bytes:
        return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)

    edge = struct.pack("<I", side - 1)[:3]
    frame = bytes(6) + bytes([9, 0, 0, 9, 0, 0, 100, 0, 0, 0]) + stream.getvalue()[12:]
    body = b"WEBP" + block(b"VP8X", bytes([0x12, 0, 0, 0]) + edge + edge) + block(b"ANIM", bytes(6))
    return block(b"RIFF", body + block(b"ANMF", frame))


def runs(count: int) -> bytes:
    """A BMP of 10,000 x 10,000 pixels, packed in runs of one pixel."""
    header = struct.pack("<IiiHHIIiiII", 40, 10_000, 10_000, 1, 8, 1, 0, 0, 0, 256, 0)
    start = 14 + len(header) + 1024
    return b"BM" + struct.pack("<IHHI", start + 2 * count, 0, 0, start) + header + bytes(1024) + b"\1\7" * count


ZEROS = zlib.compress(bytes(2**26))  # 64 MB
HUGE: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "float64 NIfTI": ("a.nii.gz", lambda: nifti_of(np.float64, (10_000, 10_000, 3)), "too large, .*2.4 GB"),
    "scaled NIfTI": ("a.nii.gz", lambda: nifti_of(np.float64, (9_000, 9_000)), "too large"),
    "complex NIfTI": ("a.nii.gz", lambda: nifti_of(np.complex128, (100, 100)), "complex128"),
    "NIfTI that goes on": ("a.nii.gz", lambda: nifti_of(np.uint8, (99, 99), 3 * 2**26), "behind the pixels"),
    "float64 TIFF": (
        "a.tif",
        lambda: one_strip((10_000, 10_000, 3), 64, ZEROS, compression=8, sample_format=3).data,
        "too large, 10000 x 10000 pixels of 24 bytes",
    ),
    "strip that goes on": (
        "a.tif",
        lambda: one_strip((100, 100, 3), 16, zlib.compress(bytes(3 * 2**26)), compression=8).data,
        "inflates to more than 60000 bytes",
    ),
    "RGBA of 16 bits, TIFF": ("a.tif", lambda: one_strip((10_000, 10_000, 4), 16, ZEROS, compression=8).data, "0.8 GB"),
    "RGBA of 16 bits, PNG": (
        "a.png",
        lambda: png(np.zeros((1, 1, 4), np.uint16), 6).replace(
            chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 6, 0, 0, 0)),
            chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 10_000, 16, 6, 0, 0, 0)),
        ),
        "too large, 10000 x 10000 pixels of 8 bytes",
    ),
    "pages": ("a.tif", lambda: directories(100_000), "more than 100 pages"),
    "bits": ("a.tif", lambda: one_strip((1000, 1000, 3), 65_535, b"").data, "too large"),
    "channels": ("a.tif", lambda: one_strip((1000, 1000, 60_000), 8, b"").data, "too large"),
    "tags": (
        "a.tif",
        lambda: one_strip((100, 100, 3), 8, b"").data.replace(
            struct.pack("<HHI", 273, 4, 1), struct.pack("<HHI", 273, 4, 2**30)
        ),
        "1073741824 values of tag 273",
    ),
    "tile": (
        "a.tif",
        lambda: tiff({256: 99, 257: 99, 258: 8, 259: 8, 322: 2**30, 323: 2**30, 324: 0, 325: 9}, b"x" * 9).data,
        "too large",
    ),
    "tiles": (
        "a.tif",
        lambda: tiff({256: 999, 257: 999, 258: 8, 259: 8, 322: 1, 323: 1, 324: 0, 325: 9}, b"x" * 9).data,
        "998001 strips or tiles",
    ),
    "WebP": ("a.webp", lambda: animated_webp(10_000), "too large, 10000 x 10000"),
    "BMP of runs": ("a.bmp", lambda: runs(10_000_000), "far too many blocks"),
    "GIF": (
        "a.gif",
        lambda: b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"," + bytes(4) + b"\1\0\1\0\0\2\2\x44\1\0;",
        "too large, more than 100,000,000",
    ),
    "JPEG of comments": ("a.jpg", lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 4_000_000, "far too many blocks"),
    "GIF of extensions": (
        "a.gif",
        lambda: b"GIF89a" + struct.pack("<HHBBB", 100, 100, 0, 0, 0) + b"\x21\xf9\4\0\0\0\0\0" * 4_000_000,
        "far too many blocks",
    ),
}


def progressive(rgb: Bytes, more: int) -> bytes:
    """A JPEG whose last scan comes `more` times more."""
    stream = streams.BytesIO()
    Image.fromarray(rgb).save(stream, "JPEG", progressive=True)
    content = stream.getvalue()
    start = content.rindex(b"\xff\xda")
    return content[:start] + content[start:-2] * (more + 1) + content[-2:]


def test_jpeg_of_many_scans(monkeypatch: pytest.MonkeyPatch, rgb: Bytes) -> None:
    monkeypatch.setattr(decode_limits, "_MAX_SCANNED", 40 * rgb.shape[0] * rgb.shape[1])
    assert io.read_image(InMemory("a.jpg", progressive(rgb, 25))).shape == rgb.shape
    refused(InMemory("a.jpg", progressive(rgb, 40)), "in 50 scans, which takes too long")
    stream = streams.BytesIO()
    Image.fromarray(rgb).save(stream, "JPEG")  # what follows the picture of a telephone is no scan
    assert io.read_image(InMemory("a.jpg", stream.getvalue() + b"\xff\xda" * 99)).shape == rgb.shape


@pytest.mark.parametrize("largest", [1, 100, 255, 1023, 65535])
@pytest.mark.parametrize("channels", [1, 3])
def test_pnm_of_any_largest_value_in_text_and_binary(largest: int, channels: int) -> None:
    values = np.random.default_rng(0).integers(0, largest + 1, (70, 80, channels))
    values[0, 0] = largest
    top = 65535 if largest > 255 and channels == 1 else 255
    expected = np.rint(values / largest * top).reshape((70, 80, channels)[: 2 + (channels > 1)])
    kinds = (b"P5", b"P2") if channels == 1 else (b"P6", b"P3")
    rows = b" # 1 2 3\n".join(" ".join(map(str, row.ravel())).encode() for row in values)
    binary = values.astype("u1" if largest < 256 else ">u2").tobytes()
    for kind, content in zip(kinds, (binary, rows), strict=True):
        file = kind + f"\n# a comment\n80 70\n{largest}\n".encode() + content
        np.testing.assert_array_equal(decode(InMemory("a.pnm", file)), expected)
    for content in (rows[:-9], rows.replace(b"1", b"x", 1), rows.replace(b" ", b" 70000 ", 1)):
        refused(InMemory("a.pnm", kinds[1] + f" 80 70 {largest}\n".encode() + content), "damaged")
    refused(InMemory("a.pnm", kinds[1] + f" 9000 9000 {largest}\n".encode() + rows), "is text of")


def test_plain_bits_with_and_without_space() -> None:
    bits = np.random.default_rng(0).integers(0, 2, (70, 80))
    for space in (b"", b" "):
        text = b"\n".join(space.join(str(bit).encode() for bit in row) for row in bits)
        np.testing.assert_array_equal(decode(InMemory("a.pbm", b"P1 80 70\n" + text)), 255 * (1 - bits))


@pytest.mark.parametrize(("name", "make", "message"), HUGE.values(), ids=HUGE.keys())
def test_what_claims_to_be_huge_takes_little_memory(
    monkeypatch: pytest.MonkeyPatch, name: str, make: Callable[[], bytes], message: str
) -> None:
    monkeypatch.setattr(decode_limits, "_PARSING_SECONDS", 0.2)
    source = InMemory(name, make())
    tracemalloc.start()
    try:
        refused(source, message)
        assert tracemalloc.get_traced_memory()[1] < 40e6 + 3 * len(source.data)
    finally:
        tracemalloc.stop()


def test_large_files_are_not_opened(tmp_path: Path) -> None:
    with (tmp_path / "a.tif").open("wb") as file:
        file.write(b"II*\0")
        file.truncate(decode_limits.MAX_FILE + 1)  # takes no room on the disk
    refused(tmp_path / "a.tif", "too large, 750,000,001 bytes")


def test_values_in_blocks_are_the_values_at_once() -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (1030, 1100, 4)).astype(np.uint16)
    deep[0, 0] = 65535
    laid = io._on_black(deep)
    np.testing.assert_array_equal(laid, np.rint(deep[..., :3] * (deep[..., 3:] / np.float32(65535))).astype(np.uint16))
    scaled = io._to_uint8(laid, InMemory("a", b""))
    np.testing.assert_array_equal(scaled, np.rint(laid * np.float32(255 / 65535)).astype(np.uint8))


# ---------------------------------------------------------------- damage and noise


def test_damaged_tiff_is_refused_or_has_its_shape(rgb: Bytes) -> None:
    rng = np.random.default_rng(0)
    for compression, bits in ((1, 16), (8, 16), (1, 8), (8, 8)):
        data = (rgb * np.uint16(257) if bits == 16 else rgb).tobytes()
        file = one_strip(rgb.shape, bits, zlib.compress(data) if compression == 8 else data, compression=compression)
        for _ in range(150):
            damaged = bytearray(file.data)
            for at in rng.integers(4, 170, 2):
                damaged[at] ^= 1 << int(rng.integers(8))
            try:
                array = decode(InMemory("a.tif", bytes(damaged)))
            except UserError:
                continue
            assert array.ndim in (2, 3)
            assert array.ndim == 2 or array.shape[2] in (2, 3, 4)


def test_nothing_is_printed_of_damaged_files(capfd: pytest.CaptureFixture[str], rgb: Bytes) -> None:
    content = {"deep.png": png(rgb * np.uint16(257), 2)}
    for name, options in {
        "a.png": {},
        "a.jpg": {},
        "a.webp": {},
        "lzw.tif": {"compression": "tiff_lzw"},
        "deflate.tif": {"compression": "tiff_adobe_deflate"},
        "jpeg.tif": {"compression": "jpeg"},
    }.items():
        stream = streams.BytesIO()
        Image.fromarray(rgb).save(stream, {"jpg": "JPEG", "tif": "TIFF"}.get(name.split(".")[1], name[2:]), **options)
        content[name] = stream.getvalue()
    volume = nibabel.Nifti1Image(rgb[..., 0].T, np.eye(4))
    volume.header["pixdim"][1] = -1  # nibabel repairs it, and says so
    content["a.nii"] = volume.to_bytes()
    for name, whole in content.items():
        for step in (31, 97):
            damaged = bytearray(whole)
            for at in range(150, len(whole) - 150, step):
                damaged[at] ^= 0x5A
            for kept in (damaged, damaged[: len(damaged) // 2], whole):
                try:
                    io.read_image(InMemory(name, bytes(kept)))
                except UserError:
                    continue
    printed = capfd.readouterr()
    assert printed.err == ""
    assert printed.out == ""


def test_threads_leave_the_filters_of_warnings_as_they_were() -> None:
    before = list(warnings.filters)
    inside, leave = threading.Barrier(2), threading.Barrier(2)

    def first() -> None:
        with decode_pillow.no_warnings():
            inside.wait()
        leave.wait()

    thread = threading.Thread(target=first)
    thread.start()
    with decode_pillow.no_warnings():
        inside.wait()
        leave.wait()
        warnings.warn("not heard, though the first reader has left", stacklevel=1)
    thread.join()
    assert list(warnings.filters) == before
