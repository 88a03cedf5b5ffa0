"""TIFF and BigTIFF as files: the chain of directories, their tags, a file of one page made of a file of several.

Not here: which page is the photograph, and its values (decode_tiff).
"""

import struct
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

from retina_seg.decode_limits import MAX_PAGES, several_pages

_MAX_VALUES = 250_000  # of one tag: a palette of 16 bits has 196,608
_MAX_DESCRIPTION = 2**16
_MAX_SHORT = 2**12
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_LETTERS = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}

# TIFF 6.0 and its supplements
NEW_SUBFILE, SUBFILE, WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC = 254, 255, 256, 257, 258, 259, 262
FILL_ORDER, DESCRIPTION, STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS = 266, 270, 273, 274, 277, 278
STRIP_COUNTS, PLANAR, PREDICTOR, TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS = 279, 284, 317, 322, 323, 324
TILE_COUNTS, SUB_DIRECTORIES, EXTRA, FORMAT, IMAGEJ_DATA = 325, 330, 338, 339, 50839
_NEEDED = (
    *(WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, STRIP_OFFSETS, SAMPLES, ROWS, STRIP_COUNTS),
    *(PLANAR, PREDICTOR, TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_COUNTS, EXTRA, FORMAT),
    *(292, 293, 320, 332, 334, 347),  # options of fax codes, palette, inks, tables of JPEG
    *range(512, 522),  # JPEG before 1995
    *range(529, 533),  # YCbCr
)
_READ = (*_NEEDED, NEW_SUBFILE, SUBFILE, DESCRIPTION, ORIENTATION, SUB_DIRECTORIES, IMAGEJ_DATA)
WHITE_IS_0, BLACK_IS_0, RGB = 0, 1, 2


@dataclass(frozen=True)
class Tag:
    """A tag: the code of its number type, how many values, and these as bytes of the file's order."""

    kind: int
    count: int
    content: bytes


@dataclass(frozen=True)
class Page:
    """One directory: where it is, and its tags that matter here."""

    order: str
    offset: int
    tags: dict[int, Tag]

    def numbers(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """All values of a tag."""
        entry = self.tags.get(tag)
        if entry is None or entry.kind not in _LETTERS or not entry.content:
            return default
        count = len(entry.content) // _SIZES[entry.kind]
        content = entry.content[: count * _SIZES[entry.kind]]
        return struct.unpack(f"{self.order}{count}{_LETTERS[entry.kind]}", content)

    def number(self, tag: int, default: int = 0) -> int:
        """The first value of a tag."""
        return self.numbers(tag, (default,))[0]

    def content(self, tag: int) -> bytes:
        """Values of a tag as bytes."""
        return self.tags[tag].content if tag in self.tags else b""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as stored."""
        return self.number(WIDTH), self.number(LENGTH)

    @property
    def is_reduced(self) -> bool:
        """Whether it says to be a preview or a mask of another page."""
        return bool(self.number(NEW_SUBFILE) & 0b101) or self.number(SUBFILE) == 2

    @property
    def samples(self) -> int:
        """Channels of a pixel."""
        return self.number(SAMPLES, len(self.numbers(BITS, (1,))))

    @property
    def bits(self) -> int:
        """Bits of the channel that has most."""
        return max(self.numbers(BITS, (1,)))

    @property
    def photometric(self) -> int:
        """What the values mean; where the tag is missing, what is usual for this many channels."""
        return self.number(PHOTOMETRIC, RGB if self.samples >= 3 else BLACK_IS_0 if self.bits >= 8 else WHITE_IS_0)

    @property
    def is_grey(self) -> bool:
        """Whether it says to be of one channel without a palette."""
        return self.samples < 3 and self.photometric in (WHITE_IS_0, BLACK_IS_0)

    @property
    def bytes_per_pixel(self) -> float:
        """Bytes of a pixel in memory."""
        return max(1, self.samples * self.bits / 8)

    @property
    def description(self) -> str:
        """Its free text."""
        return self.content(DESCRIPTION).rstrip(b"\0").decode("utf-8", "replace")


@dataclass(frozen=True)
class File:
    """A TIFF file: its byte order as struct writes it, whether it is a BigTIFF, its chain of directories."""

    stream: BinaryIO
    order: str
    big: bool
    pages: tuple[Page, ...]


def is_tiff(head: bytes) -> bool:
    """Whether a file begins as TIFF or BigTIFF does."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read(stream: BinaryIO, name: object) -> File:
    """All directories of the chain; one that points back to an earlier one is the last."""
    head = stream.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    (offset,) = struct.unpack_from(f"{order}Q" if big else f"{order}I", head, 8 if big else 4)
    seen: set[int] = set()
    pages: list[Page] = []
    while offset and offset not in seen:
        if len(pages) == MAX_PAGES:
            raise several_pages(name, f"more than {MAX_PAGES}")
        seen.add(offset)
        try:
            page, offset = directory(stream, order, big, offset)
        except (ValueError, struct.error):
            if not pages:
                raise
            break  # what is damaged behind the first page does not matter to it
        pages.append(page)
    return File(stream, order, big, tuple(pages))


def directory(stream: BinaryIO, order: str, big: bool, offset: int, *, whole: bool = False) -> tuple[Page, int]:
    """One directory, and where the next one is; values of long tags only if it is read `whole`."""
    stream.seek(offset)
    (count,) = struct.unpack(f"{order}Q" if big else f"{order}H", stream.read(8 if big else 2))
    if not 0 < count < 2**16:
        raise ValueError(f"a directory of {count} tags")
    length = 20 if big else 12
    entries = stream.read(count * length)
    if len(entries) < count * length:
        raise ValueError("a directory ends too early")
    following = stream.read(8 if big else 4)
    tags: dict[int, Tag] = {}
    for at in range(0, len(entries), length):
        code, kind, values = struct.unpack_from(f"{order}HHQ" if big else f"{order}HHI", entries, at)
        if code in _READ and code not in tags and kind in _SIZES:
            inside = entries[at + (12 if big else 8) : at + length]
            tags[code] = Tag(kind, values, _values(stream, order, (code, kind, values), inside, whole))
    complete = len(following) == (8 if big else 4)
    return Page(order, offset, tags), struct.unpack(f"{order}Q" if big else f"{order}I", following)[
        0
    ] if complete else 0


def below(file: File, page: Page) -> list[Page]:
    """The directories that hang on a page (TIFF supplement 1): levels of a pyramid, or what raw converters take."""
    found: list[Page] = []
    for offset in page.numbers(SUB_DIRECTORIES)[:MAX_PAGES]:
        try:
            found.append(directory(file.stream, file.order, file.big, offset)[0])
        except (ValueError, struct.error, OverflowError):  # damaged: it does not matter to the page
            continue
    return found


def _values(stream: BinaryIO, order: str, entry: tuple[int, int, int], inside: bytes, whole: bool) -> bytes:
    """Values of a tag, which stand in the directory itself if they find room there."""
    code, kind, count = entry
    size = count * _SIZES[kind]
    if size <= len(inside):
        return inside[:size]
    if code in _NEEDED:
        if count > _MAX_VALUES:
            raise ValueError(f"{count} values of tag {code}")
        if size > _MAX_SHORT and not whole:
            return b""
    stream.seek(struct.unpack(f"{order}Q" if len(inside) == 8 else f"{order}I", inside)[0])
    content = stream.read(size if code in _NEEDED else min(size, _MAX_DESCRIPTION))
    if len(content) < size and code in _NEEDED:
        raise ValueError(f"tag {code} ends too early")
    return content


def alone(file: File, page: Page, content: BytesIO) -> BytesIO:
    """The file with this page as its only one; all pixels stay where they are. `content` is what it is made in."""
    if not content.getbuffer().nbytes:
        file.stream.seek(0)
        while piece := file.stream.read(2**24):
            content.write(piece)
    start = content.seek(0, 2)
    content.write(b"\0" * (start % 2))
    start += start % 2
    tags = {code: page.tags[code] for code in page.tags if code in _NEEDED}
    tags |= {PHOTOMETRIC: Tag(3, 1, struct.pack(f"{file.order}H", page.photometric))}
    tags = dict(sorted(tags.items()))
    words = ("Q", "Q", 8, 20) if file.big else ("H", "I", 4, 12)
    count, word, inside, length = words
    values_at = start + struct.calcsize(count) + length * len(tags) + inside
    directory, values = struct.pack(f"{file.order}{count}", len(tags)), b""
    for code, tag in tags.items():
        field = tag.content
        if len(field) > inside:
            field = struct.pack(f"{file.order}{word}", values_at + len(values))
            values += tag.content + b"\0" * (len(tag.content) % 2)
        directory += struct.pack(f"{file.order}HH{word}", code, tag.kind, tag.count) + field.ljust(inside, b"\0")
    content.write(directory + struct.pack(f"{file.order}{word}", 0) + values)
    content.seek(8 if file.big else 4)
    content.write(struct.pack(f"{file.order}{word}", start))
    content.seek(0)
    return content
