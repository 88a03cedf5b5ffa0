"""Fetches the sets whose owners allow a direct download; says where to register for the others.

No image is trusted before its pixels equal the manifest's, and no folder appears before it is whole. What is
already there is compared by audit.py, not here.
"""

import gzip
import logging
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import pooch

from retina_seg import audit, cards, datasets
from retina_seg.errors import UserError
from retina_seg.manifest import Row

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what is being done); bytes while downloading, images while comparing."""

_TIMEOUT_S = 60
_MAX_FILE = 1 << 28  # bytes of one unpacked file; the largest of all sets has 12 MB
_BROKEN = (OSError, EOFError, ValueError, zlib.error, tarfile.TarError, zipfile.BadZipFile)


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
        Nothing is left behind.
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
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part"))
    except OSError as error:
        raise UserError(f"{folder.parent} cannot be written: {error.strerror or error}") from error
    try:
        unpacked = part / folder.name
        wanted = {PurePosixPath(name).name: unpacked / name for row in rows for name in row.files()}
        for number, address in enumerate(addresses):
            try:
                archive = _download(address, part / f"archive{number}", progress)
                _unpack(archive, wanted)
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


def _download(address: str, target: Path, progress: Progress | None) -> Path:
    bar = _Bar(progress, f"downloading {address}") if progress else False
    downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16, timeout=_TIMEOUT_S)
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


def _unpack(archive: Path, wanted: Mapping[str, Path]) -> None:
    """Write the wanted members of a tar or zip archive, found by file name wherever they lie in it."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                target = wanted.get(_plain_name(info.filename))
                if target is not None and not info.is_dir():
                    with zipped.open(info) as member:
                        _write(member, info.filename, target)
        return
    with tarfile.open(archive) as tar:
        for item in tar:
            target = wanted.get(_plain_name(item.name))
            stream = tar.extractfile(item) if target is not None and item.isfile() else None
            if stream is not None and target is not None:
                with closing(stream):
                    _write(stream, item.name, target)


def _plain_name(member: str) -> str:
    return PurePosixPath(member).name.removesuffix(".gz")


def _write(stream: IO[bytes], name: str, target: Path) -> None:
    source = gzip.GzipFile(fileobj=stream) if name.endswith(".gz") else stream
    content = source.read(_MAX_FILE + 1)
    if len(content) > _MAX_FILE:
        raise ValueError(f"{name} unpacks to more than {_MAX_FILE} bytes")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
