import gzip
import json
import zipfile
from dataclasses import replace
from io import BytesIO

import nibabel
import numpy as np
import pytest
from PIL import Image

from retina_seg import zoo
from retina_seg.viewer import downloads, numbers

SECRETS = ("Doe_Jane_1950", "Doe", "Jane", "1950")


def contents(packed):
    with zipfile.ZipFile(BytesIO(packed)) as file:
        assert file.testzip() is None
        return {name: file.read(name) for name in file.namelist()}


def read(prediction, um_per_px):
    return numbers.readable(numbers.measure(prediction), um_per_px)


def test_stems_hold_no_file_name_unless_asked(photograph):
    opened = [
        photograph("1", name="Doe_Jane_1950.png", source="file"),
        photograph("2", name="Drawn eye A"),
        photograph("3", name="clinic/Doe Jane.tif", source="file"),
        photograph("4", name="drive 01", source="drive"),
    ]
    anonymous = downloads.stems(opened, names=False)
    assert list(anonymous.values()) == ["photograph-01", "Drawn_eye_A", "photograph-03", "drive_01"]
    named = downloads.stems(opened, names=True)
    assert list(named.values()) == ["Doe_Jane_1950", "Drawn_eye_A", "Doe Jane", "drive_01"]
    assert list(named) == [one.id for one in opened]


def test_stems_differ_and_are_no_paths(photograph):
    names = ["a/eye.png", "b/eye.png", "b\\eye.tif", "eye.png", "EYE.png", "../../etc/passwd", "drive_01.png", ".png"]
    opened = [photograph(str(number), name=name, source="file") for number, name in enumerate(names)]
    opened.append(photograph("x", name="drive 01", source="drive"))
    opened.append(photograph("y", name="photograph 01"))
    for asked in (False, True):
        stems = list(downloads.stems(opened, names=asked).values())
        assert len({stem.casefold() for stem in stems}) == len(opened)
        assert not any(set("/\\") & set(stem) or stem in ("", ".", "..") for stem in stems)


HOSTILE = {
    "../../etc/passwd.png": "passwd",
    "..\\..\\boot.png": "boot",
    "C:\\Users\\eye.png": "eye",
    "a\n../b.png": "b",
    "\u202egnp.exe.png": "gnp.exe",
    "x\x00y\x1b\u2028\udce4.png": "x_y_",
    "CON.png": "_CON",
    "con .tif": "_con",
    "aux.left.png": "_aux.left",
    "LPT9.nii.gz": "_LPT9",
    "COM¹.jpg": "_COM¹",
    "conin$.png": "_conin$",
    "console.png": "console",
    "one.. .png": "one",
    "-rf.png": "_-rf",
    "~root.png": "_~root",
    ".hidden.png": "hidden",
    "...png": "png",
    "   ": "photograph",
    "d/NUL.png": "_NUL",
    f"{'é' * 300}.png": "é" * 56,
    f"{'😀' * 80}.png": "😀" * 42,
}


@pytest.mark.parametrize(("name", "stem"), HOSTILE.items())
def test_no_name_leaves_its_folder_hides_or_commands(photograph, name, stem):
    (found,) = downloads.stems([photograph("1", name=name, source="file")], names=True).values()
    assert found == stem


def test_stems_that_need_many_folders_stay_short_and_different(photograph):
    deep = "/".join(["folder" * 4] * 30)
    names = [f"{top}/{deep}/eye.png" for top in "abc"]
    opened = [photograph(str(number), name=name, source="file") for number, name in enumerate(names)]
    stems = list(downloads.stems(opened, names=True).values())
    assert len(set(stems)) == 3
    assert all(len(f"{stem}_hard_exudates_mask.nii.gz".encode()) <= 255 for stem in stems)


def test_many_photographs_are_numbered_to_the_last(photograph):
    opened = [photograph(str(number), source="file") for number in range(120)]
    stems = list(downloads.stems(opened, names=False).values())
    assert (stems[0], stems[8], stems[119]) == ("photograph-01", "photograph-09", "photograph-120")


def test_files_are_those_of_the_library(prediction):
    assert downloads.files(prediction, "p") == prediction.encode("p", what=("mask", "prob", "overlay", "nifti"))


@pytest.mark.parametrize("what", downloads.SINGLE.values())
def test_a_single_download_is_the_file_of_the_library(prediction, what):
    name, mime = downloads.name_of(prediction, "p", what)
    expected = prediction.encode("p", what=(what,) if what else ())
    assert downloads.single(prediction, "p", what) == expected[name]
    assert "/" in mime


@pytest.mark.parametrize("what", downloads.SINGLE.values())
def test_several_targets_come_as_one_zip(two_targets, what):
    name, mime = downloads.name_of(two_targets, "p", what)
    given = downloads.single(two_targets, "p", what)
    encoded = two_targets.encode("p", what=(what,) if what else ())
    if what in ("", "overlay"):
        assert given == encoded[name]
        return
    assert name.endswith(".zip")
    assert mime == "application/zip"
    expected = {file: content for file, content in encoded.items() if not file.endswith(".json")}
    assert len(expected) == 2
    assert contents(given) == expected


def test_the_size_of_a_pixel_enters_header_and_record(prediction):
    files = downloads.files(prediction, "p", um_per_px=7.5)
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(files["p_mask.nii.gz"]))
    assert image.header.get_zooms()[:2] == pytest.approx((0.0075, 0.0075))
    assert json.loads(files["p.json"])["pixel_size_um"] == 7.5


def test_nothing_that_is_taken_away_holds_the_name_of_the_file(photograph, prediction):
    one = photograph("1", name="Doe_Jane_1950.png", source="file")
    stem = downloads.stems([one], names=False)[one.id]
    made = {**downloads.files(prediction, stem)}
    made[f"{stem}.pdf"] = downloads.pdf(
        prediction, stem, card=zoo.card("vessels-drive"), measured=read(prediction, None), scored=[]
    )
    for name, content in made.items():
        assert not any(secret.encode() in content or secret in name for secret in SECRETS), name


def test_a_zip_holds_what_is_put_in(prediction):
    made = downloads.files(prediction, "p")
    unpacked = contents(downloads.zipped(made))
    assert unpacked == made
    mask = np.asarray(Image.open(BytesIO(unpacked["p_mask.png"])))
    np.testing.assert_array_equal(mask > 0, prediction.mask[0])
    assert contents(downloads.zipped({})) == {}


def test_the_report_is_given_the_numbers_or_why_there_are_none(prediction, worthless, drawing, monkeypatch):
    told = {}

    def one_page(prediction, *, title, columns, model):
        told.update(title=title, columns=columns, model=model)
        return b"%PDF"

    monkeypatch.setattr(downloads.report, "one_page", one_page)
    card = zoo.card("vessels-drive")
    scored = numbers.scores(prediction.mask[0], drawing.vessels, prediction.fov, 0.9)
    measured = read(prediction, 10.0)
    assert downloads.pdf(prediction, "p", card=card, measured=measured, scored=scored) == b"%PDF"
    expected = [[(one.label, one.value, one.sentence) for one in found] for found in (measured, scored)]
    assert told["columns"] == expected
    assert told["title"] == "p"
    assert card.name in told["model"]
    downloads.pdf(worthless, "p", card=card, measured=read(worthless, None), scored=scored)
    assert told["columns"] == [[], expected[1]]


def test_the_report_of_a_run_without_description_and_scores_can_be_made(prediction, tiny_run):
    assert downloads.pdf(prediction, "p", card=zoo.card(tiny_run), measured=[], scored=[]).startswith(b"%PDF")


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("eye.png", "eye"),
        ("../../evil.png", "evil"),
        ("C:\\\\Users\\\\jane\\\\eye.png", "eye"),
        ("a\u202egnp.png", "agnp"),
        ("", "photograph"),
        ("...", "photograph"),
        ("a<b>|c?.png", "a_b__c_"),
    ],
)
def test_a_kept_name_is_a_plain_file_name_of_its_own(photograph, name, stem):
    one = replace(photograph("1", source="file"), name=name)
    assert downloads.stems([one], names=True) == {one.id: stem}


def test_a_long_name_still_fits_with_its_ending(photograph):
    one = replace(photograph("1", source="file"), name="é" * 250 + ".png")
    assert len(f"{downloads.stems([one], names=True)[one.id]}_mask.nii.gz".encode()) < 255


def test_names_that_clash_get_the_folders_of_the_upload_and_never_those_of_the_server(photograph):
    both = [
        replace(photograph("1", source="file"), name="eye.png"),
        replace(photograph("2", source="file"), name="sub/eye.png"),
    ]
    assert sorted(downloads.stems(both, names=True).values()) == ["sub_eye", "upload_eye"]
