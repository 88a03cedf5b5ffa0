"""Fetches the sets whose owners allow a direct download; says where to register for the others.

No image is trusted before its pixels equal the manifest's, and no folder appears before it is whole. What is
already there is compared by audit.py, not here.
"""

import gzip
import logging
import shutil
import struct
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import IO, Any

import pooch
import urllib3

from retina_seg import audit, cards, datasets
from retina_seg.errors import UserError
from retina_seg.manifest import Row

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what is being done); bytes while downloading, images while comparing."""

_TIMEOUT_S = 60
# Bytes of one unpacked file, of all files and of all archives of a set, and members of an archive. The largest file of
# all sets has 12 MB, the largest archive 40 MB.
_MAX_FILE, _MAX_UNPACKED, _MAX_ARCHIVES, _MAX_MEMBERS = 1 << 28, 1 << 31, 1 << 30, 20_000
_CHUNK = 1 << 16
_MAX_DIRECTORY = 1 << 24  # bytes of a zip archive's list of members
_SLOWEST, _PATIENCE_S = 1000, 300  # bytes a second on an average, which is looked at after so many seconds
_ABANDONED_S = 24 * 3600
_BROKEN = (
    *(OSError, EOFError, ValueError, RuntimeError, NotImplementedError),
    *(zlib.error, tarfile.TarError, zipfile.BadZipFile),
)


@dataclass(frozen=True)
class Fetched:
    """What came of `fetch`.

    `state` is ``"downloaded"``, ``"present"`` (every file of the manifest was already there) or ``"register"``
    (nothing was fetched: the owners want users to register). `message` says it in words, with what to do next.
    """

    dataset: str
    state: str
    folder: Path
    message: str


def fetch(
    dataset: str,
    data_root: str | Path,
    *,
    downloads: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Fetched:
    """Get a set from its owners, whole and compared with the manifest, or say how to get it.

    Everything is downloaded into a hidden folder ``.<name>...part`` below the data root, unpacked there,
    compared pixel by pixel with the manifest and only then moved into place in one step.

    Parameters
    ----------
    data_root
        Made if it does not exist; the set becomes the folder `DATASETS[dataset].folder` in it.
    downloads
        Addresses of archives (tar, tar.gz, zip; members may be gzipped) in place of the card's, say of a
        mirror inside a hospital. Not used for sets that ask for registration.

    Raises
    ------
    UserError
        The folder exists but is not whole, the download broke off, or the files are not the release's.
        Nothing is left behind. Too large an archive, too slow a server and what unpacks to more than a set can be are
        broken off.
    """
    entry, card = datasets.spec(dataset), cards.card(dataset)
    rows, folder = datasets.rows(dataset), Path(data_root) / entry.folder
    names = [name for row in rows for name in row.files()]
    here = sum((folder / name).is_file() for name in names)
    if here == len(names):
        return Fetched(
            dataset, "present", folder, f"{folder} is already there; `retina-seg data check {dataset}` compares it"
        )
    addresses = card.downloads if downloads is None else tuple(downloads)
    if card.registration or not addresses:
        there = f" {here} of its {len(names)} files are in {folder} now." if here else ""
        text = f"{card.title} is handed out by its owners: {card.source}\n{card.obtain}\nTerms: {card.licence}"
        return Fetched(dataset, "register", folder, f"{text}\nUnpack it so that {folder} holds it.{there}")
    if folder.exists():
        raise UserError(f"{folder} exists and holds {here} of {len(names)} files; move it away, then fetch again")
    _fetch_into(folder, rows, addresses, card.obtain, progress)
    text = f"{len(names)} files of {card.title} in {folder}, equal to the manifest. Terms: {card.licence}"
    return Fetched(dataset, "downloaded", folder, text)


def _fetch_into(
    folder: Path, rows: Sequence[Row], addresses: Sequence[str], by_hand: str, progress: Progress | None
) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part"))
    except OSError as error:
        raise UserError(f"{folder.parent} cannot be written: {error.strerror or error}") from error
    try:
        unpacked = part / folder.name
        wanted = {PurePosixPath(name).name: unpacked / name for row in rows for name in row.files()}
        size, unpacked_size = _Limit(_MAX_ARCHIVES, "the archives of a set"), _Limit(_MAX_UNPACKED, "its files")
        for number, address in enumerate(addresses):
            try:
                archive = _download(address, part / f"archive{number}", size, progress)
                _unpack(archive, wanted, unpacked_size)
            except _BROKEN as error:
                raise UserError(
                    f"{address}: the download failed or broke off ({error}); nothing was kept. "
                    f"Run the same command again, or get it by hand: {by_hand}"
                ) from error
        findings = audit.compare(rows, unpacked, progress=progress)
        errors = [finding for finding in findings if finding.severity == "error"]
        if errors:
            raise UserError(
                f"{', '.join(addresses)}: not the release that the manifest describes, nothing was kept; "
                f"{len(errors)} problems, the first: {errors[0].message}"
            )
        unpacked.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    """Remove what a killed `fetch` of the same set has left, a day ago or earlier."""
    for left in folder.parent.glob(f".{folder.name}.????????.part"):
        with suppress(OSError):
            if left.is_dir() and not left.is_symlink() and time.time() - left.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(left, ignore_errors=True)


class _Limit:
    """Bytes that may still come; ValueError when they are used up."""

    def __init__(self, most: int, what: str) -> None:
        self._most, self._left, self._what = most, most, what

    def take(self, count: int) -> None:
        """Count bytes."""
        self._left -= count
        if self._left < 0:
            raise ValueError(f"{self._what} would have more than {self._most:,} bytes: no set is that large")


class _Sink:
    """A file that is written while it is downloaded: bounded in bytes and in patience."""

    def __init__(self, stream: IO[bytes], limit: _Limit) -> None:
        self._stream, self._limit, self._started, self._done = stream, limit, time.monotonic(), 0

    def write(self, chunk: bytes) -> None:
        """Write what has come."""
        self._limit.take(len(chunk))
        self._done += len(chunk)
        seconds = time.monotonic() - self._started
        if seconds > _PATIENCE_S and self._done < _SLOWEST * seconds:
            raise ValueError(f"{self._done:,} bytes in {seconds:.0f} seconds: the server is too slow")
        self._stream.write(chunk)

    def flush(self) -> None:
        """Pass on what was written."""
        self._stream.flush()


class _Bar:
    """What pooch expects of a progress bar, passed on as calls of (done, total, text)."""

    def __init__(self, progress: Progress, text: str) -> None:
        self.total, self._done, self._progress, self._text = 0, 0, progress, text

    def update(self, count: int) -> None:
        """Count bytes."""
        self._done = min(self._done + count, self.total or self._done + count)
        self._progress(self._done, self.total or self._done, self._text)

    def reset(self) -> None:
        """Start again at zero bytes."""
        self._done = 0

    def close(self) -> None:
        """Nothing to close."""


def _bounded_answer(response: Any, **_: Any) -> None:
    """Have the body of an answer (of requests) given as it comes, and that of a redirection not read at all.

    Waiting for a whole piece, a server that sends a byte a minute could hold us for weeks.
    """

    def as_it_comes(chunk_size: int) -> Iterator[bytes]:
        try:
            while chunk := b"" if response.is_redirect else response.raw.read1(chunk_size, decode_content=True):
                yield chunk
        except urllib3.exceptions.HTTPError as error:
            raise ConnectionError(str(error)) from error
        finally:
            response.close()

    if response.ok:
        response.iter_content = as_it_comes


def _download(address: str, target: Path, limit: _Limit, progress: Progress | None) -> Path:
    bar = _Bar(progress, f"downloading {address}") if progress else False
    fetch_to = pooch.HTTPDownloader(
        progressbar=bar, chunk_size=_CHUNK, timeout=_TIMEOUT_S, hooks={"response": _bounded_answer}
    )

    def downloader(url: str, output_file: str, asked: Any) -> None:
        with Path(output_file).open("wb") as stream:
            fetch_to(url, _Sink(stream, limit), asked)

    with _quiet(pooch.get_logger()):
        # The hash of the archive is not known; the pixels of every file in it are, and are compared.
        return Path(pooch.retrieve(address, None, fname=target.name, path=target.parent, downloader=downloader))


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _unpack(archive: Path, wanted: Mapping[str, Path], limit: _Limit) -> None:
    """Write the wanted members of a tar or zip archive, found by file name wherever they lie in it."""
    if zipfile.is_zipfile(archive):
        _unpack_zip(archive, wanted, limit)
        return
    with archive.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    # Other compressions of a tar need memory that the archive itself sets.
    with gzip.open(archive) if packed else archive.open("rb") as stream:
        bounded = _Bounded(stream, _Limit(_MAX_UNPACKED, "the archive"))
        with tarfile.open(fileobj=bounded, mode="r:") as tar:  # type: ignore[call-overload]
            for number, item in enumerate(tar, 1):
                _check_members(number)
                target = wanted.get(_plain_name(item.name))
                inside = tar.extractfile(item) if target is not None and item.isfile() else None
                if inside is not None and target is not None:
                    with closing(inside):
                        _write(inside, item.name, target, limit)


def _unpack_zip(archive: Path, wanted: Mapping[str, Path], limit: _Limit) -> None:
    if _zip_directory(archive) > _MAX_DIRECTORY:
        raise ValueError(f"its list of members has more than {_MAX_DIRECTORY:,} bytes")
    with zipfile.ZipFile(archive) as zipped:
        for number, info in enumerate(zipped.infolist(), 1):
            _check_members(number)
            target = wanted.get(_plain_name(info.filename))
            if target is None or info.is_dir():
                continue
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{info.filename} is compressed in another way than by deflate")
            with zipped.open(info) as member:
                _write(member, info.filename, target, limit)


def _zip_directory(archive: Path) -> int:
    """Bytes of a zip archive's list of members, as its last record says; zipfile reads all of it at once."""
    with archive.open("rb") as stream:
        stream.seek(max(0, archive.stat().st_size - (1 << 16) - 22))
        end = stream.read()
    size: int = struct.unpack("<I", end[(at := end.rindex(b"PK\x05\x06")) + 12 : at + 16])[0]
    return size


def _check_members(number: int) -> None:
    if number > _MAX_MEMBERS:
        raise ValueError(f"the archive has more than {_MAX_MEMBERS:,} members")


class _Bounded:
    """A file to read from, bounded in bytes: of one piece, as a header can ask for, and of all together."""

    def __init__(self, stream: "gzip.GzipFile | BufferedReader", limit: _Limit) -> None:
        self._stream, self._limit, self._furthest = stream, limit, 0

    def read(self, size: int = -1) -> bytes:
        """Read on."""
        if size < 0 or size > _MAX_FILE:
            raise ValueError(f"a piece of more than {_MAX_FILE:,} bytes")
        content = self._stream.read(size)
        self._advance()
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to another place, for which all before it is unpacked."""
        if whence == 0 and offset > self._furthest:
            self._limit.take(offset - self._furthest)
            self._furthest = offset
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """The place, in unpacked bytes."""
        return self._stream.tell()

    def _advance(self) -> None:
        if (place := self._stream.tell()) > self._furthest:
            self._limit.take(place - self._furthest)
            self._furthest = place


def _plain_name(member: str) -> str:
    return PurePosixPath(member).name.removesuffix(".gz")


def _write(stream: IO[bytes], name: str, target: Path, limit: _Limit) -> None:
    source = gzip.GzipFile(fileobj=stream) if name.endswith(".gz") else stream
    content = source.read(_MAX_FILE + 1)
    if len(content) > _MAX_FILE:
        raise ValueError(f"{name} unpacks to more than {_MAX_FILE} bytes")
    limit.take(len(content))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
