"""Files of the user are never lost: seals, what may be replaced, all or none, text files of bounded size."""

import errno
import gzip
import os
import stat
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from retina_seg import files, io
from retina_seg.errors import UserError

MASK = np.arange(80 * 90).reshape(80, 90) % 7 == 0
CONTENTS = {
    "mask.png": lambda: io.mask_png(MASK),
    "overlay.png": lambda: io.rgb_png(np.repeat(MASK[..., None], 3, axis=2).astype(np.uint8) * 200, files.RESULT),
    "prob.tif": lambda: io.probability_tiff(MASK.astype(np.float32)),
    "mask.nii.gz": lambda: files.sealed(files.gzip_comment(io.nifti(MASK), files.blank_seal())),
    "record.json": lambda: io.sealed_json({"model": "vessels", "files": ["a", "b"]}),
}


@pytest.fixture(params=CONTENTS)
def own(request, tmp_path) -> Path:
    path = tmp_path / request.param
    path.write_bytes(CONTENTS[request.param]())
    return path


def test_a_file_of_the_program_is_known_again(own):
    assert files.is_own(own)
    assert files.is_result(own)


def test_any_changed_byte_makes_it_somebody_elses(own):
    content = own.read_bytes()
    for place in (len(content) // 2, len(content) - 6):
        changed = bytearray(content)
        changed[place] ^= 1
        own.write_bytes(changed)
        assert not files.is_own(own)
    own.write_bytes(content + b"\n")
    assert not files.is_own(own)


def test_sealed_files_are_sound(tmp_path):
    for name, make in CONTENTS.items():
        (tmp_path / name).write_bytes(make())
    with Image.open(tmp_path / "mask.png") as picture:
        picture.verify()  # the CRC of every chunk
    np.testing.assert_array_equal(io.read_mask(tmp_path / "mask.png"), MASK)
    np.testing.assert_array_equal(io.read_mask(tmp_path / "mask.nii.gz"), MASK)
    assert gzip.decompress((tmp_path / "mask.nii.gz").read_bytes()) == io.nifti(MASK, compressed=False)
    assert files.read_json(tmp_path / "record.json")["model"] == "vessels"


def test_a_mask_corrected_by_hand_is_the_users_though_the_editor_keeps_the_seal(tmp_path):
    path = tmp_path / "mask.png"
    path.write_bytes(io.mask_png(MASK))
    with Image.open(path) as picture:
        about = PngInfo()
        for key, text in picture.info.items():
            about.add_text(key, text)
        pixels = np.array(picture)
    pixels[10:20, 10:20] = 255
    Image.fromarray(pixels).save(path, pnginfo=about)
    assert files.is_result(path)
    assert not files.is_own(path)


def test_what_carries_no_seal(tmp_path):
    Image.fromarray(MASK).save(tmp_path / "theirs.png")
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("theirs.png", "empty", "folder", "pipe", "missing"):
        assert not files.is_own(tmp_path / name)
        assert not files.is_result(tmp_path / name)
    with pytest.raises(ValueError, match="no blank seal"):
        files.sealed(b"nothing")


def test_a_picture_of_the_program_is_its_own_but_no_result(tmp_path):
    io.write_rgb(tmp_path / "drawn.png", np.full((70, 70, 3), 9, np.uint8))
    assert files.is_own(tmp_path / "drawn.png")
    assert not files.is_result(tmp_path / "drawn.png")


def test_only_own_files_are_replaceable(own, tmp_path):
    theirs, folder = tmp_path / "theirs.png", tmp_path / "folder"
    theirs.write_bytes(b"theirs")
    folder.mkdir()
    files.check_replaceable([own, tmp_path / "new.png", Path("/dev/null"), tmp_path / ("n" * 300)])
    with pytest.raises(UserError, match=r"theirs\.png.*--overwrite"):
        files.check_replaceable([own, theirs])
    files.check_replaceable([theirs], overwrite=True)
    files.check_replaceable([theirs], own=lambda path: True)
    for overwrite in (False, True):
        with pytest.raises(UserError, match="is a folder"):
            files.check_replaceable([folder], overwrite=overwrite)


def test_many_foreign_files_are_counted(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(9)]
    for path in paths:
        path.write_bytes(b"theirs")
    with pytest.raises(UserError, match="and 4 more"):
        files.check_replaceable(paths)


def test_what_is_written_replaces_what_a_link_leads_to(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    real, link = tmp_path / "elsewhere" / "real.txt", tmp_path / "link.txt"
    real.write_text("old")
    link.symlink_to(real)
    files.write_text(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    files.write_all(tmp_path, {"link.txt": b"newer"})
    assert link.is_symlink()
    assert real.read_text() == "newer"


@pytest.mark.parametrize(
    "write", [files.write_bytes, lambda path, content: files.write_all(path.parent, {path.name: content})]
)
def test_a_pipe_is_written_to_and_stays_one(tmp_path, write):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write(pipe, b"said")
    reader.join(timeout=20)
    assert read == [b"said"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_what_is_to_be_written_after_long_work_is_prepared(tmp_path):
    files.prepare(tmp_path / "new" / "a.json")
    assert not list((tmp_path / "new").iterdir())
    files.prepare("/dev/null")
    (tmp_path / "mine.json").write_text("{}")
    for path, said in (
        (tmp_path / "mine.json", "--overwrite"),
        (tmp_path, "is a folder"),
        (tmp_path / "mine.json" / "a", "folder"),
    ):
        with pytest.raises(UserError, match=said):
            files.prepare(path)


def test_a_device_stays_one():
    files.write_text("/dev/null", "nothing")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_write_that_fails_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")
    monkeypatch.setattr(files, "_settle", full)
    with pytest.raises(UserError, match=r"a\.txt cannot be written: No space left"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def full(path: Path) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


OLD, NEW = {"a": b"a", "b": b"b"}, {"a": b"A", "b": b"B", "c": b"C"}


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("fails_at", [0, 1, 2])
@pytest.mark.parametrize("where", ["settle", "replace"])
def test_several_files_are_written_all_or_none(tmp_path, monkeypatch, fails_at, where):
    files.write_all(tmp_path, OLD)
    settle, replace, calls = files._settle, Path.replace, []

    def fails(path: Path, *rest: Path) -> None:
        calls.append(path)
        if len(calls) == fails_at + 1:
            raise OSError(errno.EIO, "Input/output error")
        (settle if where == "settle" else replace)(path, *rest)

    if where == "settle":
        monkeypatch.setattr(files, "_settle", fails)
    else:
        monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(UserError, match="cannot be written"):
        files.write_all(tmp_path, NEW)
    monkeypatch.undo()
    assert written(tmp_path) == OLD
    assert files.write_all(tmp_path, NEW) == [tmp_path / name for name in NEW]
    assert written(tmp_path) == NEW


def test_a_folder_in_the_place_of_a_file_changes_nothing(tmp_path):
    files.write_all(tmp_path, OLD)
    (tmp_path / "c").mkdir()
    with pytest.raises(UserError, match="c cannot be written"):
        files.write_all(tmp_path, NEW)
    (tmp_path / "c").rmdir()
    assert written(tmp_path) == OLD


def test_the_record_is_there_before_what_it_lists(tmp_path, monkeypatch):
    replace, order = Path.replace, []

    def remembered(path: Path, target: Path) -> None:
        order.append(target.name)
        replace(path, target)

    monkeypatch.setattr(Path, "replace", remembered)
    files.write_all(tmp_path, {"mask.png": b"", "record.json": b""})
    assert order == ["record.json", "mask.png"]


def test_files_of_killed_processes_are_removed_and_no_others(tmp_path):
    old, new = tmp_path / f".retina_seg-{'a' * 16}.part.nii.gz", tmp_path / f".retina_seg-{'b' * 16}.part"
    others = [tmp_path / name for name in (".retina_seg-a.part", "mine.part", ".0123456789abcdef.part.png")]
    for path in (old, new, *others):
        path.write_bytes(b"")
    os.utime(old, (time.time() - 100, time.time() - 100))
    linked = tmp_path / f".retina_seg-{'c' * 16}.part"
    linked.symlink_to(others[1])
    files.remove_parts(tmp_path, older_than_s=60)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in (new, linked, *others)}
    files.remove_parts(tmp_path, older_than_s=0)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in (linked, *others)}
    files.remove_parts(tmp_path / "missing", older_than_s=0)


def test_a_temporary_name_is_one_that_is_removed(tmp_path):
    with files.atomic(tmp_path / "a.nii.gz") as temporary:
        temporary.write_bytes(b"")
        assert files.PART.fullmatch(temporary.name)
        assert temporary.name.endswith(".nii.gz")


def test_one_at_a_time_in_a_folder(tmp_path):
    inside, most = [], []

    def work() -> None:
        for _ in range(5):
            with files.locked(tmp_path):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.01)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 20
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_locked_for_long_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_PATIENCE_S", 0.1)
    with files.locked(tmp_path), pytest.raises(UserError, match="in use by another process"), files.locked(tmp_path):
        pass


def test_text_is_read_with_and_without_a_byte_order_mark(tmp_path):
    path = tmp_path / "a.txt"
    for content in ("ä\n".encode(), "ä\n".encode("utf-8-sig")):
        path.write_bytes(content)
        assert files.read_text(path) == "ä\n"


def test_what_is_no_text_file_of_reasonable_size(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "large").write_bytes(b"x" * 101)
    refused = {
        "missing": "there is no file",
        ".": "cannot be read|no regular file",
        "pipe": "no regular file",
        "binary": "no UTF-8",
        "large": "larger than 100 bytes",
    }
    for name, said in refused.items():
        with pytest.raises(UserError, match=said):
            files.read_text(tmp_path / name, most=100)
    with pytest.raises(UserError, match="no regular file"):
        files.read_text("/dev/zero")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "1" * 10_000, '{"a": NaN', "\0"])
def test_what_is_no_json(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"a\.json is no JSON"):
        files.read_json(path)


def test_names_that_are_no_utf8_can_be_shown():
    name = os.fsdecode(b"\xe4uge.png")
    assert files.readable(name) == r"\xe4uge.png"
    assert files.readable("äuge.png") == "äuge.png"
