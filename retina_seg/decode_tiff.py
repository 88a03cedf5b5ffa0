"""TIFF and BigTIFF: the page that is the photograph, its values at their depth, what its channels are.

Not here: other formats, and the 8-bit layouts that pillow converts (inks, YCbCr, palettes, bilevel), read by decode.

A photograph is read from a file of one page made for it, which has the tags its pixels need and no others: no
reader goes through previews, private tags or further directories.
"""

import re
import struct
import zlib
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from retina_seg import decode_pillow
from retina_seg import decode_tags as tags
from retina_seg.decode_limits import check_bytes, check_size, several_pages
from retina_seg.errors import UserError

_MAX_SEGMENTS = 200_000  # strips and tiles: three planes with one row in each have 30,000
_MAX_BEYOND = 2**26  # bytes that a strip may hold beyond its rows
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))

_COLOURS = {
    8: "CIE L*a*b* colours",
    9: "CIE L*a*b* colours",
    10: "CIE L*a*b* colours",
    32803: "the raw values of a colour camera",
    34892: "the raw values of a camera",
    32844: "logarithmic luminance",
    32845: "logarithmic colours",
}
_DEFLATE = (8, 32946)
_BYTEWISE = (5, 32773, 34925, 50000)  # LZW, PackBits, LZMA, Zstandard
_BY_PILLOW = (1, 2, 3, 4, 6, 7, 32771, 32809, *_DEFLATE, *_BYTEWISE)
_CODES = {
    7: "JPEG",
    22610: "JPEG XR",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    33007: "JPEG",
    34661: "JBIG",
    34676: "SGI LogLuv",
    34677: "SGI LogLuv",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "JPEG",
    34933: "PNG",
    34934: "JPEG XR",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_MERGE = "merge them into one colour picture (in ImageJ: Image > Type > RGB Color) and save that"


def pixels(stream: BinaryIO, name: object, min_side: int) -> tuple[NDArray[Any], int]:
    """Pixels of the photograph that a TIFF file holds, and how it is to be turned.

    Which page: pages that say they are previews or masks are passed over; of the others the first, or the
    largest where the first is a smaller version of it (of its proportions, and not in colours where the larger is
    grey); in place of that, what hangs on it as a sub-directory if it is larger. Three pages that ImageJ calls the
    channels of one composite picture are its red, green and blue.

    Values where 0 is white are inverted. Channels beyond grey or RGB: alpha if the file says so (or says
    nothing of a fourth beside RGB), all others are left out.

    Parameters
    ----------
    stream : the file
    name : what errors call it
    min_side : a smaller width or height is an error

    Returns
    -------
    (H, W) or (H, W, C), C = 2 (grey, alpha), 3 or 4 (RGB, alpha), as stored; orientation 1 to 8 (tag 274)

    Raises
    ------
    UserError
        for several pages or channels as pages, unknown compressions, depths and colours, what is too large
    Exception
        of nearly every kind for damaged files
    """
    file = tags.read(stream, name)
    pages = _photograph(file, name)
    whole = [tags.directory(stream, file.order, file.big, page.offset, whole=True)[0] for page in pages]
    content = BytesIO()
    arrays = [_decoded(tags.alone(file, page, content), page, name, min_side) for page in whole]
    stacked = arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=-1)  # (H, W[, C])
    return stacked, pages[0].number(tags.ORIENTATION, 1)


# ---------------------------------------------------------------- which page


def _photograph(file: tags.File, name: object) -> tuple[tags.Page, ...]:
    """The page that is the photograph, or three pages that are its channels."""
    pages = file.pages
    if not pages:
        raise ValueError("no page")
    full = [page for page in pages if not page.is_reduced] or list(pages)
    first = full[0]
    if first.is_reduced and tags.SUB_DIRECTORIES in first.tags:
        raise _only_a_preview(name)
    stated = _stated_images(first.description)
    same = [page for page in full if page.size == first.size]
    if len(same) > 1 or stated > len(full):
        return _channels(first.description, same, name, max(len(pages), stated))
    largest = max(full, key=lambda page: page.size[0] * page.size[1])
    if largest is first or _inside(largest, first):
        return (_or_larger(file, first, name),)
    if sum(page.size == largest.size for page in full) == 1 and _smaller_version(first, largest):
        return (_or_larger(file, largest, name),)
    raise several_pages(name, len(pages))


def _or_larger(file: tags.File, page: tags.Page, name: object) -> tags.Page:
    """The page, or the one larger version of it among its sub-directories; those of a pyramid are smaller."""
    larger = [p for p in tags.below(file, page) if not p.is_reduced and min(p.size) > 0 and not _inside(p, page)]
    if not larger:
        return page
    largest = max(larger, key=lambda p: p.size[0] * p.size[1])
    if sum(p.size == largest.size for p in larger) == 1 and _smaller_version(page, largest):
        return largest
    raise _only_a_preview(name)


def _only_a_preview(name: object) -> UserError:
    return UserError(
        f"{name} holds a preview, and its photograph where only raw converters look (a camera's raw file?): "
        "export it as PNG, TIFF or JPEG"
    )


def _inside(page: tags.Page, larger: tags.Page) -> bool:
    return page.size[0] <= larger.size[0] and page.size[1] <= larger.size[1]


def _smaller_version(small: tags.Page, large: tags.Page) -> bool:
    """Whether sizes have one proportion, up to the rounding of the smaller, and no colours are lost."""
    (w, h), (width, height) = small.size, large.size
    scale = min(w, h) / max(1, min(width, height))
    lost = large.is_grey and not small.is_grey  # a mask of the smaller, it may be
    return abs(w - scale * width) <= 2 and abs(h - scale * height) <= 2 and not lost


def _stated_images(description: str) -> int:
    """How many images ImageJ says follow each other, also where only the first has a directory."""
    found = re.search(r"^images=(\d{1,9})$", description, re.MULTILINE) if description.startswith("ImageJ=") else None
    return int(found[1]) if found else 1


def _channels(description: str, same: list[tags.Page], name: object, pages: int) -> tuple[tags.Page, ...]:
    """Pages that are the channels of one picture: red, green and blue if it is sure that they are these."""
    imagej = dict(re.findall(r"^(\w+)=(.*)$", description, re.MULTILINE)) if description.startswith("ImageJ=") else {}
    of_imagej = imagej.get("channels", "1").strip()
    in_ome = re.search(r'\bSizeC="(\d{1,9})"', description) if "<OME" in description else None
    stated = of_imagej if imagej else in_ome[1] if in_ome else "1"
    if stated in ("0", "1") or int(stated) != pages:
        raise several_pages(name, pages)
    own_colours = any(word in same[0].content(tags.IMAGEJ_DATA) for word in (b"luts", b"stul"))
    grey = all(page.samples == 1 and page.photometric in (tags.WHITE_IS_0, tags.BLACK_IS_0) for page in same)
    if imagej.get("mode", "").strip() == "composite" and stated == "3" == str(len(same)) and grey and not own_colours:
        return tuple(same)
    raise UserError(
        f"{name} holds {stated} channels of a picture as {pages} pages, which may be any colours: expected one "
        f"colour photograph, {_MERGE}"
    )


# ---------------------------------------------------------------- values


def _decoded(file: BytesIO, page: tags.Page, name: object, min_side: int) -> NDArray[Any]:
    """(H, W) or (H, W, C) of a file of one page."""
    check_size(name, *page.size, min_side)
    if not (0 < page.samples < 2**16 and min(page.numbers(tags.BITS, (1,))) > 0):
        raise ValueError(f"{page.samples} channels of {page.bits} bits")
    check_bytes(name, *page.size, page.bytes_per_pixel)
    _check_segments(page, name)
    if page.photometric in _COLOURS:
        raise UserError(f"{name} stores {_COLOURS[page.photometric]}: export it as RGB")
    compression, kind = page.number(tags.COMPRESSION, 1), _number_type(page)
    if compression not in _BY_PILLOW:
        raise _not_read(name, page, f"compressed with {_CODES.get(compression, f'method {compression}')}")
    plain = kind is not None and page.photometric in (tags.WHITE_IS_0, tags.BLACK_IS_0, tags.RGB)
    # Pillow would cut some deep values to 8 bits, leave others negative, and fails at planes with alpha and more.
    own = plain and (page.bits > 8 or (_planes(page) > 4 and compression in (1, *_DEFLATE, *_BYTEWISE)))
    if not own and (array := _by_pillow(file)) is not None:
        return array
    if not plain or kind is None:
        raise _not_read(name, page, f"of {page.bits} bits in each channel, photometric {page.photometric}")
    if compression not in (1, *_DEFLATE, *_BYTEWISE):
        raise _not_read(name, page, f"of {page.bits} bits in {page.samples} channels, compressed with JPEG")
    return _meaning(_samples(file, page, kind), page, name)


def _not_read(name: object, page: tags.Page, what: str) -> UserError:
    return UserError(
        f"{name} is a TIFF {what}, which cannot be read here even if it is sound: export it as PNG, or as TIFF of "
        "8 or 16 bits, without compression or with LZW or Deflate"
    )


def _check_segments(page: tags.Page, name: object) -> None:
    """Strips and tiles as they lie in memory: no more of them, and none larger, than a photograph needs."""
    rows, columns, down, across = _grid(page)
    if min(rows, columns) < 1:
        raise ValueError(f"strips or tiles of {columns} x {rows} pixels")
    check_bytes(name, columns, rows, page.bytes_per_pixel)
    if down * across * _planes(page) > _MAX_SEGMENTS:
        raise ValueError(f"{down * across * _planes(page)} strips or tiles")


def _grid(page: tags.Page) -> tuple[int, int, int, int]:
    """Height and width of a strip or tile, and how many lie below and beside each other."""
    width, height = page.size
    if tags.TILE_WIDTH in page.tags:
        rows, columns = page.number(tags.TILE_LENGTH), page.number(tags.TILE_WIDTH)
    else:
        rows, columns = min(page.number(tags.ROWS, height), height), width
    return rows, columns, -(-height // max(1, rows)), -(-width // max(1, columns))


def _planes(page: tags.Page) -> int:
    """How many planes are stored one after the other: all channels, or one with all channels in each pixel."""
    return page.samples if page.number(tags.PLANAR, 1) == 2 else 1


def _by_pillow(file: BytesIO) -> NDArray[Any] | None:
    """What pillow makes of it; None for a layout it does not know."""
    try:
        picture = Image.open(file, formats=("TIFF",))
    except UnidentifiedImageError:
        return None
    return decode_pillow.array(picture)


def _number_type(page: tags.Page) -> np.dtype[Any] | None:
    """Type of the values, in the file's byte order; None where it is none of numpy's, or channels differ."""
    bits, formats = page.numbers(tags.BITS, (1,)), page.numbers(tags.FORMAT, (1,))
    letter = {1: "u", 2: "i", 3: "f", 4: "u"}.get(formats[0])
    possible = (16, 32, 64) if letter == "f" else (8, 16, 32, 64)
    if letter is None or {*bits} > {bits[0]} or {*formats} > {formats[0]} or bits[0] not in possible:
        return None
    return np.dtype(f"{page.order}{letter}{bits[0] // 8}")


def _samples(file: BytesIO, page: tags.Page, kind: np.dtype[Any]) -> NDArray[Any]:
    """All values, (H, W, channels)."""
    (width, height), (rows, columns, down, across) = page.size, _grid(page)
    planes = _planes(page)
    depth = page.samples // planes
    tiled = tags.TILE_WIDTH in page.tags
    offsets = page.numbers(tags.TILE_OFFSETS) or page.numbers(tags.STRIP_OFFSETS)
    counts = page.numbers(tags.TILE_COUNTS) or page.numbers(tags.STRIP_COUNTS)
    if page.number(tags.COMPRESSION, 1) == 1 and not counts:
        counts = (rows * columns * depth * kind.itemsize,) * len(offsets)
    if min(len(offsets), len(counts)) < down * across * planes:
        raise ValueError(f"{len(offsets)} of {down * across * planes} strips or tiles")
    out = np.zeros((planes, height, width, depth), kind.newbyteorder("="))
    for index in range(down * across * planes):
        plane, place = divmod(index, down * across)
        top, left = place // across * rows, place % across * columns
        here = rows if tiled else min(rows, height - top)
        if counts[index] == 0:  # left out by the writer: zeros
            continue
        packed = file.getbuffer()[offsets[index] : offsets[index] + counts[index]]
        stored = _unpacked(packed, page, (here, columns * depth * kind.itemsize))
        block = _unpredicted(np.frombuffer(stored, kind).reshape(here, columns, depth), page)
        out[plane, top : top + here, left : left + columns] = block[: height - top, : width - left]
    return np.ascontiguousarray(np.moveaxis(out, 0, -1)[..., 0, :] if planes > 1 else out[0])


def _unpacked(packed: memoryview | bytes, page: tags.Page, size: tuple[int, int]) -> memoryview | bytes:
    """Bytes of a strip or tile of so many rows and bytes in each row; ValueError and others if they are fewer."""
    compression, wanted = page.number(tags.COMPRESSION, 1), size[0] * size[1]
    if page.number(tags.FILL_ORDER, 1) == 2:
        packed = bytes(packed).translate(_REVERSED)
    if compression in _BYTEWISE:
        packed = _by_libtiff(packed, compression, size)
    elif compression in _DEFLATE:
        inflater = zlib.decompressobj()
        packed = inflater.decompress(packed, wanted)
        for _ in range(_MAX_BEYOND // 2**16):  # the checksum stands at the end; the last strip may be a full one
            if inflater.eof or not inflater.decompress(inflater.unconsumed_tail, 2**16):
                break
        if inflater.unconsumed_tail:
            raise ValueError(f"a strip or tile that inflates to more than {wanted} bytes")
    if len(packed) < wanted:
        raise ValueError(f"a strip or tile of {len(packed)} instead of {wanted} bytes")
    return packed[:wanted]


def _by_libtiff(packed: memoryview | bytes, compression: int, size: tuple[int, int]) -> bytes:
    """Have pillow's libtiff unpack bytes, whatever they mean, as a grey picture or one of four inks."""
    rows, length = size
    channels = 4 if length % 4 == 0 else 1
    written = (
        *((tags.WIDTH, length // channels), (tags.LENGTH, rows), (tags.BITS, 8), (tags.COMPRESSION, compression)),
        *((tags.PHOTOMETRIC, 5 if channels == 4 else tags.BLACK_IS_0), (tags.STRIP_OFFSETS, 10 + 9 * 12 + 4)),
        *((tags.SAMPLES, channels), (tags.ROWS, rows), (tags.STRIP_COUNTS, len(packed))),
    )
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in written)
    file = b"II*\0" + struct.pack("<IH", 8, len(written)) + directory + bytes(4) + packed
    return Image.open(BytesIO(file), formats=("TIFF",)).tobytes()


def _unpredicted(block: NDArray[Any], page: tags.Page) -> NDArray[Any]:
    """Values from their differences along each row (TIFF 6.0, section 14; Adobe Technical Note 3 for floats)."""
    predictor = page.number(tags.PREDICTOR, 1)
    if predictor == 1 or page.number(tags.COMPRESSION, 1) == 1:
        return block
    if predictor == 2 and block.dtype.kind in "ui":
        return np.cumsum(block, axis=1, dtype=block.dtype.newbyteorder("="))
    if predictor == 3 and block.dtype.kind == "f":
        rows, columns, depth = block.shape
        differences = np.ascontiguousarray(block).view(np.uint8).reshape(rows, -1, depth)
        ordered = np.cumsum(differences, axis=1, dtype=np.uint8)  # most significant bytes of a row first
        planes = ordered.reshape(rows, block.itemsize, columns * depth).swapaxes(1, 2)
        return np.ascontiguousarray(planes).view(block.dtype.newbyteorder(">")).reshape(block.shape)
    raise ValueError(f"the unknown predictor {predictor}")


def _meaning(values: NDArray[Any], page: tags.Page, name: object) -> NDArray[Any]:
    """Grey or RGB and alpha of (H, W, channels), black at 0."""
    extras = page.numbers(tags.EXTRA)
    alphas = [number for number, extra in enumerate(extras) if extra in (1, 2)]
    colours = 3 if page.photometric == tags.RGB or (page.samples == 3 and not alphas) else 1
    beyond = page.samples - colours
    if beyond < 0 or (colours == 1 and beyond > 1):
        raise UserError(
            f"{name} holds {page.samples} channels of a picture, which may be any colours: expected one colour "
            f"photograph, {_MERGE}"
        )
    picture = values[..., :colours]
    if page.photometric == tags.WHITE_IS_0:
        if values.dtype.kind == "f":
            raise UserError(f"{name} stores fractions of which 0 is white: export it with 0 as black")
        picture = _inverted(picture)
    first = page.samples - len(extras) + alphas[0] if alphas else colours
    with_alpha = extras[alphas[0]] == 2 if alphas else beyond == 1 and not extras  # 1: colours lie on black already
    if with_alpha and colours <= first < page.samples:
        return np.concatenate([picture, values[..., first : first + 1]], axis=-1)  # (H, W, 2 or 4)
    return np.ascontiguousarray(picture if colours == 3 else picture[..., 0])  # (H, W[, 3])


def _inverted(values: NDArray[Any]) -> NDArray[Any]:
    """Integers with 0 as white to 0 as black, by the depth that holds the largest: cameras store 12 bits in 16."""
    most = np.iinfo(values.dtype).max
    full = next((2**bits - 1 for bits in (8, 10, 12, 14, 16) if values.max() < 2**bits <= most), most)
    return np.asarray(values.dtype.type(full) - values)
