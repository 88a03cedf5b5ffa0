"""Fetching from a local server: whole or not at all."""

import gzip
import io
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from drawn_set import NAME, card, make, photograph, row, save, write_files

from retina_seg import audit, datasets, download
from retina_seg.errors import UserError


class Server:
    """Serves `bodies`; a path in `cut` promises more bytes than it sends."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.cut: set[str] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = outer.bodies.get(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                if body is not None:
                    self.wfile.write(body[: len(body) // 2] if self.path in outer.cut else body)

            def log_message(self, *args: object) -> None:
                """Quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.thread.start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http.server_port}{path}"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()
    made.thread.join()


@pytest.fixture
def nothing_yet(tmp_path, monkeypatch):
    return make(tmp_path, monkeypatch, with_files=False)


@pytest.fixture
def release(tmp_path):
    """Folder with the files as their owners hand them out."""
    folder = tmp_path / "release"
    write_files(folder)
    return folder


def tar_of(folder, *, gzipped: bool) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in sorted(folder.rglob("*.png")):
            content = gzip.compress(path.read_bytes()) if gzipped else path.read_bytes()
            info = tarfile.TarInfo(f"../deep/er/{path.name}{'.gz' if gzipped else ''}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(folder) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for path in sorted(folder.rglob("*.png")):
            zipped.writestr(f"any/{path.name}", path.read_bytes())
        zipped.writestr("__MACOSX/any/._0.png", b"junk")
        zipped.writestr("readme.txt", b"hello")
    return buffer.getvalue()


def left_behind(made) -> list[str]:
    return sorted(path.name for path in made.root.iterdir())


@pytest.mark.parametrize("pack", [lambda f: tar_of(f, gzipped=True), lambda f: tar_of(f, gzipped=False), zip_of])
def test_a_release_is_fetched_unpacked_and_compared(nothing_yet, release, server, pack):
    server.bodies["/set"] = pack(release)
    calls = []
    fetched = download.fetch(
        NAME, nothing_yet.root, downloads=[server.url("/set")], progress=lambda *call: calls.append(call)
    )
    assert fetched.state == "downloaded"
    assert fetched.folder == nothing_yet.folder
    assert left_behind(nothing_yet) == ["DRAWN"]
    assert audit.check(NAME, nothing_yet.root) == []
    assert any(done == total == len(server.bodies["/set"]) for done, total, _ in calls)
    assert not list(nothing_yet.root.parent.rglob("er"))


def test_the_cards_addresses_are_used_and_may_be_several(nothing_yet, release, server):
    server.bodies = {"/i.tar": tar_of(release / "images", gzipped=True), "/l.zip": zip_of(release / "labels")}
    words = card([server.url("/i.tar"), server.url("/l.zip")])
    (nothing_yet.manifests / f"{NAME}.yaml").write_text(yaml.safe_dump(words))
    new_root = nothing_yet.root / "new" / "root"
    assert download.fetch(NAME, new_root).state == "downloaded"
    assert datasets.load(datasets.rows(NAME)[4], new_root).id == "4"


def test_a_truncated_download_leaves_nothing(nothing_yet, release, server):
    server.bodies["/set"] = tar_of(release, gzipped=False)
    server.cut.add("/set")
    with pytest.raises(UserError, match=r"failed or broke off.*Run the same command again"):
        download.fetch(NAME, nothing_yet.root, downloads=[server.url("/set")])
    assert left_behind(nothing_yet) == []


@pytest.mark.parametrize("body", [None, b"", b"<html>moved</html>", b"PK\x03\x04 not really"])
def test_an_answer_that_is_no_archive_leaves_nothing(nothing_yet, server, body):
    if body is not None:
        server.bodies["/set"] = body
    with pytest.raises(UserError, match="failed or broke off"):
        download.fetch(NAME, nothing_yet.root, downloads=[server.url("/set")])
    assert left_behind(nothing_yet) == []


def test_an_archive_cut_before_it_was_served_leaves_nothing(nothing_yet, release, server):
    whole = tar_of(release, gzipped=False)
    server.bodies["/set"] = whole[: len(whole) // 2]
    with pytest.raises(UserError):
        download.fetch(NAME, nothing_yet.root, downloads=[server.url("/set")])
    assert left_behind(nothing_yet) == []


def test_other_pixels_than_the_manifests_leave_nothing(nothing_yet, release, server):
    image = photograph(2)[0].copy()
    image[80, 80] += 1
    save(image, release / row(2).image)
    server.bodies["/set"] = zip_of(release)
    with pytest.raises(UserError, match=r"not the release that the manifest describes.*images/2.png"):
        download.fetch(NAME, nothing_yet.root, downloads=[server.url("/set")])
    assert left_behind(nothing_yet) == []


def test_a_missing_member_leaves_nothing(nothing_yet, release, server):
    (release / row(1).targets["vessels"]).unlink()
    server.bodies["/set"] = zip_of(release)
    with pytest.raises(UserError, match=r"labels/1_vessels.png is missing"):
        download.fetch(NAME, nothing_yet.root, downloads=[server.url("/set")])
    assert left_behind(nothing_yet) == []


def test_an_existing_folder_is_never_touched(nothing_yet, server):
    save(photograph(0)[0], nothing_yet.folder / row(0).image)
    with pytest.raises(UserError, match="holds 1 of 10 files; move it away"):
        download.fetch(NAME, nothing_yet.root, downloads=[server.url("/set")])
    assert [path.name for path in nothing_yet.folder.rglob("*.png")] == ["0.png"]
    write_files(nothing_yet.folder)
    assert download.fetch(NAME, nothing_yet.root, downloads=[server.url("/set")]).state == "present"


def test_sets_that_ask_for_registration_are_explained_not_fetched(tmp_path):
    fetched = download.fetch("drive", tmp_path / "data", downloads=["http://127.0.0.1:9/never"])
    assert fetched.state == "register"
    for words in ("https://drive.grand-challenge.org/", "Register", str(tmp_path / "data" / "DRIVE")):
        assert words in fetched.message
    assert not (tmp_path / "data").exists()


def test_no_server_is_a_user_error(nothing_yet, server):
    address = server.url("/set")
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(UserError, match="get it by hand: the obtain of the drawn set"):
        download.fetch(NAME, nothing_yet.root, downloads=[address])
    assert left_behind(nothing_yet) == []


def zeros_of(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A gzipped tar of one member of so many zeros."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1) as packed:
        info = tarfile.TarInfo(name)
        info.size, info.type = size, kind
        packed.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(size + -size % 512 + 1024))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("limit", "value", "body", "words"),
    [
        ("_MAX_ARCHIVES", 1000, lambda: b"x" * 5000, "would have more than 1,000 bytes"),
        ("_MAX_FILE", 1000, lambda: zeros_of("0.png", 5000), "a piece of more than 1,000 bytes"),
        ("_MAX_FILE", 10_240, lambda: zeros_of("0.png", 50_000, tarfile.XHDTYPE), "a piece of more than"),
        ("_MAX_UNPACKED", 20_000, lambda: zeros_of("other", 50_000), "the archive would have more"),
        ("_MAX_MEMBERS", 2, None, "more than 2 members"),
        ("_MAX_DIRECTORY", 10, None, "list of members"),
    ],
)
def test_what_is_too_large_is_broken_off(nothing_yet, release, server, monkeypatch, limit, value, body, words):
    monkeypatch.setattr(download, limit, value)
    server.bodies["/set"] = body() if body else zip_of(release)
    with pytest.raises(UserError, match=words):
        download.fetch(NAME, nothing_yet.root, downloads=[server.url("/set")])
    assert left_behind(nothing_yet) == []


def test_a_server_that_drips_is_left(nothing_yet, server, monkeypatch):
    monkeypatch.setattr(download, "_PATIENCE_S", -1)
    monkeypatch.setattr(download, "_SLOWEST", 1e12)
    server.bodies["/set"] = b"x" * 100
    with pytest.raises(UserError, match="the server is too slow"):
        download.fetch(NAME, nothing_yet.root, downloads=[server.url("/set")])


def test_what_a_killed_fetch_left_is_removed_after_a_day(nothing_yet, release, server):
    old, new, other = (
        nothing_yet.root / name for name in (".DRAWN.aaaaaaaa.part", ".DRAWN.bbbbbbbb.part", ".mine.part")
    )
    for folder in (old, new, other):
        folder.mkdir()
    os.utime(old, (0, 0))
    os.utime(other, (0, 0))
    server.bodies["/set"] = zip_of(release)
    download.fetch(NAME, nothing_yet.root, downloads=[server.url("/set")])
    assert left_behind(nothing_yet) == [".DRAWN.bbbbbbbb.part", ".mine.part", "DRAWN"]
