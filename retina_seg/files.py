"""Files of the user and of this program on disk: whole or not at all, never one in the place of the other.

What the program writes carries a seal, by which it knows its own files again: it replaces those and no others.
Not here: what is in the files (io, checkpoint), how image files are decoded (decode).
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import struct
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from retina_seg.errors import UserError

StrPath = str | os.PathLike[str]

PART = re.compile(r"\.retina_seg-[0-9a-f]{16}\.part(\.[^/]*)?")
"""Full names of the files of `atomic` that are not finished."""
RESULT, PICTURE = "result", "picture"
"""Kinds of a seal: what was found in a photograph or is drawn over it, and any other picture."""
MOST_TEXT = 64 * 2**20
"""Largest text file that is read, in bytes."""

_SEAL = re.compile(rb"retina_seg-(result|picture):([0-9a-f]{64})")
_BLANK = "0" * 64
_HEAD = 4096  # bytes at the beginning of a file among which its seal lies
_MOST_SEALED = 2**31  # bytes; larger files are nobody's results
_PNG, _GZIP = b"\x89PNG\r\n\x1a\n", b"\x1f\x8b"
_LOCK, _PATIENCE_S = ".retina_seg.lock", 60
_LISTED = 5


def blank_seal(kind: str = RESULT) -> str:
    """The text that `sealed` fills in; it must lie among the first bytes of a file, in a comment or a key."""
    return f"retina_seg-{kind}:{_BLANK}"


def sealed(content: bytes) -> bytes:
    """The content of a file with its blank seal filled in: a hash of everything else in it.

    The CRC of the PNG chunk that holds the seal is made to fit. ValueError without a blank seal.
    """
    place = _SEAL.search(content, 0, _HEAD)
    if place is None or place[2] != _BLANK.encode():
        raise ValueError("there is no blank seal among the first bytes")
    return _filled(content, place, hashlib.sha256(_filled(content, place, _BLANK)).hexdigest())


def sealed_json(text: str) -> bytes:
    """The JSON text of an object as UTF-8, with a seal as its first key."""
    before, _, rest = text.partition("{")
    comma = "" if rest.lstrip().startswith("}") else ","
    return sealed(f'{before}{{\n  "seal": "{blank_seal()}"{comma}{rest}'.encode())


def is_own(path: StrPath) -> bool:
    """Whether a file was written by this program and not changed since: its seal fits all the rest of it."""
    path = Path(path)
    try:
        content = path.read_bytes() if is_file(path) and path.stat().st_size <= _MOST_SEALED else b""
    except OSError:
        return False
    place = _SEAL.search(content, 0, _HEAD)
    if place is None:
        return False
    return hashlib.sha256(_filled(content, place, _BLANK)).hexdigest().encode() == place[2]


def is_result(path: StrPath) -> bool:
    """Whether a file carries the seal of a result, changed since or not: then it is no photograph."""
    path = Path(path)
    if not is_file(path):
        return False
    try:
        with path.open("rb") as stream:
            place = _SEAL.search(stream.read(_HEAD))
    except OSError:
        return False
    return place is not None and place[1] == RESULT.encode()


def _filled(content: bytes, place: re.Match[bytes], digest: str) -> bytes:
    """The content with another digest in its seal and, around it, the CRC of a PNG chunk or of a gzip header."""
    changed = bytearray(content)
    changed[place.start(2) : place.end(2)] = digest.encode()
    if content.startswith(_PNG):
        at = len(_PNG)
        while at + 8 <= place.start():
            length = struct.unpack(">I", content[at : at + 4])[0]
            end = at + 8 + length
            if at < place.start() < end <= len(content) - 4:
                changed[end : end + 4] = struct.pack(">I", zlib.crc32(changed[at + 4 : end]))
            at = end + 4
    return bytes(changed)


def gzip_comment(content: bytes, text: str) -> bytes:
    """A gzip file (RFC 1952) of one member, without flags of its own, with a comment in its header."""
    if content[:2] != _GZIP or content[3] != 0:
        raise ValueError("expected a gzip file without flags")
    return content[:3] + b"\x10" + content[4:10] + text.encode("latin-1") + b"\0" + content[10:]


def check_replaceable(
    paths: Iterable[StrPath], *, overwrite: bool = False, own: Callable[[Path], bool] = is_own
) -> None:
    """UserError where writing these files would destroy something, which is said before any work.

    A file that is there must be the program's `own`, or `overwrite` must be asked for; a folder is refused always, and
    what is no regular file, as a device, never: nothing of it can be lost.
    """
    foreign = []
    for path in map(Path, paths):
        if is_folder(path):
            raise UserError(f"{path} is a folder: a file is to be written there; choose another name or folder")
        if is_file(path) and not overwrite and not own(path):
            foreign.append(str(path))
    if foreign:
        more = f" and {len(foreign) - _LISTED} more" if len(foreign) > _LISTED else ""
        raise UserError(
            f"{', '.join(foreign[:_LISTED])}{more}: already there, and not written by this program or changed since; "
            "move it away, choose another name or folder for the results, or replace it with --overwrite"
        )


def prepare(path: StrPath, *, overwrite: bool = False, own: Callable[[Path], bool] = is_own) -> None:
    """Make the folder of a file that will be written after long work; UserError where it could not be.

    As `check_replaceable` raises, and where no file can be written in the folder.
    """
    path = Path(path)
    check_replaceable([path], overwrite=overwrite, own=own)
    if not _is_special(path):
        check_writable(make_folder(path.parent))


@contextmanager
def atomic(path: StrPath) -> Iterator[Path]:
    """Give a temporary path beside `path`; what is written there becomes `path` if the block ends well.

    The temporary file has the same suffixes, reaches the disk before it is renamed, and is removed on any
    error; a file that was there before stays until then. Where `path` is a link, the file it leads to is replaced;
    what is no regular file, as a device, is written to plainly. The folder must exist.

    Raises
    ------
    UserError
        if the file cannot be written (no such folder, no permission, disk full)
    """
    path = Path(path)
    if _is_special(path):
        with _for_special(path) as temporary:
            yield temporary
        return
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    temporary = _part(target)
    try:
        yield temporary
        _settle(temporary)
        temporary.replace(target)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: StrPath, content: bytes) -> None:
    """Write a file, whole or not at all; UserError where that is not possible."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: StrPath, text: str) -> None:
    r"""Write UTF-8 text with \n line ends on every system."""
    write_bytes(path, text.encode())


def write_all(folder: StrPath, contents: Mapping[str, bytes]) -> list[Path]:
    """Write several files into a folder, all of them or none; the paths, in the order given.

    Everything is on the disk under other names before the first file is replaced, the last one first: a record that
    comes last is there before what it lists. Where one cannot be replaced the others get their old content back. What
    is no regular file is written to plainly.

    Raises
    ------
    UserError
        if one of them cannot be written
    """
    folder = Path(folder)
    paths = {name: folder / name for name in contents}
    parts: dict[str, Path] = {}
    kept: dict[str, Path] = {}
    done: list[Path] = []
    name = ""
    try:
        for name, content in contents.items():
            target = paths[name]
            if _is_special(target):
                _write_special(target, content)
                continue
            parts[name] = _part(Path(os.path.realpath(target)) if target.is_symlink() else target)
            parts[name].write_bytes(content)
            _settle(parts[name])
        for name, part in reversed(parts.items()):
            target = part.with_name(Path(os.path.realpath(paths[name])).name)
            if target.exists():
                kept[name] = _copied(target)
            part.replace(target)
            done.append(target)
    except BaseException as error:
        for target, old in zip(done, (kept.pop(one, None) for one in reversed(parts)), strict=False):
            if old is None:
                target.unlink(missing_ok=True)
            else:
                old.replace(target)
        if isinstance(error, OSError):
            raise _unwritable(paths[name], error) from error
        raise
    finally:
        for left in (*parts.values(), *kept.values()):
            left.unlink(missing_ok=True)
    return list(paths.values())


def _copied(target: Path) -> Path:
    """Another name for a file, or a copy of it where the disk knows no second names."""
    copy = _part(target)
    try:
        os.link(target, copy)
    except OSError:
        shutil.copy2(target, copy)
    return copy


def _part(target: Path) -> Path:
    return target.with_name(f".retina_seg-{secrets.token_hex(8)}.part{''.join(target.suffixes[-2:])[-20:]}")


def _settle(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} cannot be written: {error.strerror or error}")


def _mode(path: Path) -> int | None:
    """What there is at `path`, of stat.S_IFREG and its like; None for nothing, and for what cannot be looked at."""
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except (OSError, ValueError):
        return None


def is_file(path: StrPath) -> bool:
    """Whether there is a regular file; False as well for names that no file can have."""
    return _mode(Path(path)) == stat.S_IFREG


def is_folder(path: StrPath) -> bool:
    """Whether there is a folder; False as well for names that no folder can have."""
    return _mode(Path(path)) == stat.S_IFDIR


def check_writable(folder: StrPath) -> None:
    """UserError where no file can be written in a folder, which is said before any work."""
    probe = _part(Path(folder) / "probe")
    try:
        probe.touch()
    except OSError as error:
        raise _unwritable(Path(folder), error) from error
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def _is_special(path: Path) -> bool:
    """Whether there is something at `path` that is neither a file nor a folder: a device, a pipe, this terminal."""
    # /dev/stdout leads to a regular file where it is redirected to one, which must not be replaced either.
    through = path.is_symlink() and str(path.readlink()).startswith(("/proc/", "/dev/"))
    return through or _mode(path) not in (None, stat.S_IFREG, stat.S_IFDIR)


@contextmanager
def _for_special(path: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / f"content{''.join(path.suffixes[-2:])}"
        yield temporary
        try:
            _write_special(path, temporary.read_bytes())
        except OSError as error:
            raise _unwritable(path, error) from error


def _write_special(path: Path, content: bytes) -> None:
    with path.open("ab") as stream:
        stream.write(content)


def remove_parts(folder: StrPath, *, older_than_s: float) -> None:
    """Remove what killed processes left of files they had not finished (`PART`), of so many seconds ago and more."""
    with suppress(OSError):
        for entry in os.scandir(folder):
            if PART.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError):
                    if time.time() - entry.stat().st_mtime >= older_than_s:
                        Path(entry.path).unlink()


@contextmanager
def locked(folder: StrPath) -> Iterator[None]:
    """One process at a time in a folder of results; nothing is left in it.

    UserError where another process does not let go, or no lock can be made there.
    """
    lock = FileLock(Path(folder) / _LOCK)
    try:
        lock.acquire(timeout=_PATIENCE_S)
    except Timeout:
        raise UserError(
            f"{folder} is in use by another process for more than {_PATIENCE_S} s: wait for it, or choose another "
            f"folder; where none runs, remove {lock.lock_file}"
        ) from None
    except OSError as error:
        raise _unwritable(Path(folder), error) from error
    try:
        yield
    finally:
        with suppress(OSError):  # where an open file cannot be removed it stays; who waits for it sees that it is gone
            Path(lock.lock_file).unlink()
        lock.release()


def make_folder(path: StrPath) -> Path:
    """Make a folder and those above it, where they are not there yet; UserError where that is not possible."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be made a folder: {error.strerror or error}; choose another") from error
    return Path(path)


def readable(text: str) -> str:
    r"""Text of a file name that can be encoded: bytes that are no UTF-8 as in \xe4."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_text(path: StrPath, *, most: int = MOST_TEXT) -> str:
    """A text file in UTF-8, with or without a byte order mark, of at most `most` bytes.

    Raises
    ------
    UserError
        if there is no such file, it is a folder, a pipe or a device, too large, or no text
    """
    path = Path(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise UserError(f"{path} is no regular file: give a text file")
            content = stream.read(most + 1)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(content) > most:
        raise UserError(f"{path} is larger than {most:,} bytes: that is no file of this program")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} cannot be read: it is no UTF-8 text ({error.reason} at byte {error.start})") from None


def read_json(path: StrPath, *, most: int = MOST_TEXT) -> Any:
    """What a JSON file holds; UserError as `read_text` raises, and where it is no JSON or nested too deeply."""
    text = read_text(path, most=most)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is no JSON that can be read ({said}): it is damaged or of something else") from None
