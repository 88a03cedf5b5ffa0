import gzip
import struct

import numpy as np
import pytest
from mnist_files import idx, write

from retina_seg import datasets, photographs, protocols
from retina_seg.classify import examples, fundus, tasks
from retina_seg.classify.tasks import Wanted
from retina_seg.errors import UserError
from retina_seg.preprocess import Preprocess

OFFLINE = ("digits", "digits-320", "iris", "petals")


@pytest.mark.parametrize("name", OFFLINE)
def test_sides_share_no_example_and_the_seed_decides(name):
    one, again, other = (tasks.load(name, Wanted(seed=seed)) for seed in (0, 0, 1))
    sides = [set(one.part(split).keys) for split in ("train", "val", "test")]
    assert sum(map(len, sides)) == len(set().union(*sides))
    assert one.train.keys == again.train.keys != other.train.keys
    for split in ("train", "val", "test"):
        part = one.part(split)
        assert len(part) == len(part.images) == len(part.labels) == len(part.subjects)
        assert part.images[0].ndim == 3
        assert part.labels.shape == (len(part), len(one.heads))


def test_folds_of_digits_cover_every_digit_once():
    tested = [tasks.load("digits", Wanted(size=8, fold=fold)).test.keys for fold in range(1, 6)]
    assert sorted(key for fold in tested for key in fold) == sorted(f"digits:{number}" for number in range(1797))


def test_lecun_sized_digits_are_balanced():
    found = tasks.load("digits-320", Wanted(seed=3))
    assert (len(found.train), len(found.test)) == (320, 160)
    assert np.bincount(found.train.labels[:, 0], minlength=10).min() >= 31
    assert found.train.images[0].shape == (1, 16, 16)
    assert min(found.train.images[i].min() for i in range(320)) >= 0


def test_shifted_digits_are_the_same_digits_elsewhere():
    plain, moved = (tasks.load("digits", Wanted(size=28, shift=shift)).test for shift in (0, 3))
    assert plain.keys == moved.keys
    places = set()
    for number in range(40):
        before, after = plain.images[number][0], moved.images[number][0]
        found = [
            (dy, dx)
            for dy in range(-3, 4)
            for dx in range(-3, 4)
            if np.array_equal(np.pad(before, 3)[3 - dy : 31 - dy, 3 - dx : 31 - dx], after)
        ]
        assert found
        places.update(found)
    assert len(places) > 10
    train = [tasks.load("digits", Wanted(size=28, shift=shift)).train.images[0] for shift in (0, 3)]
    np.testing.assert_array_equal(*train)


def test_a_share_takes_as_much_of_every_class():
    part = tasks.load("digits", Wanted(size=8)).train
    some = examples.few(part, 0.1, seed=0)
    whole, kept = (np.bincount(one.labels[:, 0], minlength=10) for one in (part, some))
    np.testing.assert_allclose(kept, whole / 10, atol=0.51)
    assert set(some.keys) < set(part.keys)
    place = part.keys.index(some.keys[5])
    np.testing.assert_array_equal(some.images[5], part.images[place])
    assert np.bincount(examples.few(part, 1e-4, seed=0).labels[:, 0]).tolist() == [1] * 10


def test_files_of_mnist(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "MNIST"
    folder.mkdir()
    images = {
        name: rng.integers(0, 256, (count, 28, 28), dtype=np.uint8) for name, count in (("train", 30), ("t10k", 9))
    }
    for name, array in images.items():
        labels = np.arange(len(array), dtype=np.uint8) % 10
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(array)))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(idx(labels))
    found = tasks.load("mnist", Wanted(data_root=tmp_path))
    assert (len(found.train), len(found.val), len(found.test)) == (27, 3, 9)
    np.testing.assert_allclose(found.test.images[4][0], images["t10k"][4] / 255, atol=1e-6)
    assert found.val.labels[:, 0].tolist() == [7, 8, 9]

    (folder / "train-labels-idx1-ubyte").write_bytes(b"\x00\x00\x08\x01\x00")
    with pytest.raises(UserError, match="not a whole idx file"):
        tasks.load("mnist", Wanted(data_root=tmp_path))
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"junk")
    with pytest.raises(UserError, match="cannot be unpacked"):
        tasks.load("mnist", Wanted(data_root=tmp_path))
    with pytest.raises(UserError, match="there is no train-images-idx3-ubyte"):
        tasks.load("mnist", Wanted(data_root=tmp_path, folder="elsewhere"))


def _files(folder, images, labels=None):
    for part in ("train", "t10k"):
        write(folder, part, images, np.arange(len(images), dtype=np.uint8) % 10 if labels is None else labels)


def test_files_of_other_images_have_other_keys(tmp_path):
    sets = []
    for seed in (0, 0, 1):
        images = np.random.default_rng(seed).integers(0, 256, (20, 28, 28), dtype=np.uint8)
        _files(tmp_path / "MNIST", images)
        sets.append(set(tasks.load("mnist", Wanted(data_root=tmp_path)).train.keys))
    assert sets[0] == sets[1]
    assert not sets[0] & sets[2]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((0, 28, 28), np.uint8), None, "there is nothing in them"),
        (np.zeros((20, 0, 0), np.uint8), None, "there is nothing in them"),
        (np.zeros((20, 8, 8), np.uint8), np.zeros(20, np.uint8), "all images have label 0"),
        (np.zeros((9, 8, 8), np.uint8), None, "has 9 training images"),
        (np.zeros((9, 8, 8), np.uint8), np.zeros(8, np.uint8), "do not fit"),
    ],
)
def test_files_that_nothing_can_be_learnt_from_are_refused(tmp_path, images, labels, message):
    _files(tmp_path / "MNIST", images, labels)
    with pytest.raises(UserError, match=message):
        tasks.load("mnist", Wanted(data_root=tmp_path))


def test_a_header_of_more_than_there_can_be_is_no_idx_file(tmp_path):
    _files(tmp_path / "MNIST", np.zeros((20, 8, 8), np.uint8))
    (tmp_path / "MNIST" / "train-images-idx3-ubyte").write_bytes(struct.pack(">BBBB4I", 0, 0, 8, 4, *[65536] * 4))
    with pytest.raises(UserError, match="not a whole idx file"):
        tasks.load("mnist", Wanted(data_root=tmp_path))


def test_images_that_are_not_square_stand_on_paper(tmp_path):
    images = np.zeros((20, 6, 30), np.uint8)
    images[:, :, 12:18] = 255  # a square of ink
    _files(tmp_path / "MNIST", images)
    found = tasks.load("mnist", Wanted(data_root=tmp_path, size=30)).test.images[0][0]
    assert found.shape == (30, 30)
    np.testing.assert_array_equal(found[12:18, 12:18], 1)
    assert found.sum() == 36


@pytest.mark.parametrize("shape", [(28, 280), (280, 28)])
def test_a_stroke_in_a_long_image_is_not_lost(shape):
    drawn = np.zeros((*shape, 3), np.uint8)
    (drawn if shape[0] == 28 else drawn.transpose(1, 0, 2))[4:24, 139:142] = 255
    found = tasks.find("digits").prepare(drawn, (1, 28, 28), Preprocess())
    assert found.sum() == pytest.approx(60 / 100, rel=0.01)  # the ink, in pixels a tenth as long and wide


@pytest.mark.parametrize("name", OFFLINE)
def test_any_seed_of_a_configuration_draws(name):
    assert tasks.load(name, Wanted(seed=2**63 - 1)).train.keys != tasks.load(name, Wanted(seed=0)).train.keys


def test_patches_of_either_kind_are_equally_many(drawn_drive, monkeypatch):
    monkeypatch.setattr(fundus, "_PIXELS", dict.fromkeys(fundus._PIXELS, 10**7))
    for part in fundus.vessel_patches(drawn_drive, 9, Preprocess(fov_diameter=64), 0)[1].values():
        counts = {}
        for photograph, label in zip(part.columns["photograph"], part.labels[:, 0], strict=True):
            counts.setdefault(photograph, [0, 0])[label] += 1
        assert all(background == vessel > 0 for background, vessel in counts.values())


@pytest.mark.parametrize(
    ("name", "wanted", "message"),
    [
        ("nothing", Wanted(), "unknown task 'nothing': choose one of digits"),
        ("digits", Wanted(fold=6), "digits has 5 folds"),
        ("iris", Wanted(fold=2), "iris has 1 fold"),
        ("iris", Wanted(size=8), "iris has no images"),
        ("iris", Wanted(shift=1), "iris has none"),
    ],
)
def test_what_a_task_has_not_is_said(name, wanted, message):
    with pytest.raises(UserError, match=message):
        tasks.load(name, wanted)


def test_a_digit_on_paper_and_one_of_light_are_prepared_alike():
    drawn = np.full((40, 40, 3), 255, np.uint8)
    drawn[10:30, 18:22] = 0
    how = tasks.find("digits").prepare
    dark, light = (how(image, (1, 16, 16), Preprocess()) for image in (drawn, 255 - drawn))
    np.testing.assert_allclose(dark, light, atol=1e-6)
    assert dark.shape == (1, 16, 16)
    assert dark[0, 8, 8] > 0.8 > 0.2 > dark[0, 0, 0]


def test_strips_are_the_patches_of_all_pixels():
    image = np.random.default_rng(0).random((3, 11, 9)).astype(np.float32)
    found = np.concatenate(list(fundus.strips(image, 5, 4)))
    assert found.shape == (99, 3, 5, 5)
    around = np.pad(image, ((0, 0), (2, 2), (2, 2)))
    for y, x in ((0, 0), (4, 8), (10, 3)):
        np.testing.assert_array_equal(found[9 * y + x], around[:, y : y + 5, x : x + 5])
        assert found[9 * y + x][0, 2, 2] == image[0, y, x]


def test_vessel_patches_are_around_what_they_say(drawn_drive):
    settings = Preprocess()
    (head,), parts = fundus.vessel_patches(drawn_drive, 9, settings, 0)
    assert head.classes == ("background", "vessel")
    ids = {split: set(part.columns["photograph"]) for split, part in parts.items()}
    assert not ids["train"] & (ids["test"] | ids["val"])
    train = parts["train"]
    background, vessel = np.bincount(train.labels[:, 0])
    assert 16000 >= background == vessel > 14000  # some drawn eyes have fewer than 1000 vessel pixels
    rows = {row.key: row for row in datasets.rows("drive")}
    for number in (0, len(train.keys) // 2, len(train.keys) - 1):
        key, _, _ = train.keys[number].partition("@")
        shown = fundus.load_photograph(rows[key], drawn_drive, ("vessels",), settings).for_patches()
        y, x = map(int, train.keys[number].partition("@")[2].split(","))
        assert shown.target[0, y, x] == train.labels[number, 0]
        np.testing.assert_array_equal(train.images[number][:, 4, 4], shown.image[:, y, x])


def test_a_prepared_photograph_fills_its_square_or_keeps_its_scale():
    from retina_seg import phantom

    image = phantom.draw(0).image
    filled = fundus.prepare(image, (3, 96, 96), Preprocess())
    assert filled.shape == (3, 96, 96)
    assert (filled[:, 48] != 0).mean() > 0.9
    kept = fundus.prepare(image, (3, 400, 400), Preprocess(fov_diameter=200))
    inside = np.flatnonzero((kept != 0).any(axis=(0, 1)))
    assert 190 <= np.ptp(inside) <= 230
    cut = fundus.prepare(image, (3, 64, 64), Preprocess(fov_diameter=200))
    np.testing.assert_array_equal(cut, kept[:, 168:232, 168:232])


def test_grades_leave_out_eyes_that_are_scored(data_root):
    heads, parts = fundus.grades(data_root, 64, Preprocess(), 1)
    assert [head.name for head in heads] == ["dr_grade", "dme_risk"]
    assert (len(parts["train"].keys) + len(parts["val"].keys), len(parts["test"].keys)) == (411, 103)
    assert "idrid_grade:train/IDRiD_118" not in {*parts["train"].keys, *parts["val"].keys}
    np.testing.assert_array_equal(np.bincount(parts["test"].labels[:, 0]), [34, 5, 32, 19, 13])
    assert parts["test"].images[0].shape == (3, 64, 64)


def test_photographs_that_validate_are_blocks_with_all_views_of_their_eyes():
    rows = photographs.rows_of(["idrid-grade"], ["train", "val"])
    blocks = [fundus.validation_block(rows, fold) for fold in range(1, 6)]
    assert frozenset().union(*blocks) == {row.key for row in rows}
    for watched in blocks:
        assert 75 <= len(watched) <= 95
        learnt = [row for row in rows if row.key not in watched]
        assert protocols.leaks([row for row in rows if row.key in watched], [row.key for row in learnt]) == []
        numbers = {int(key[-3:]) for key in watched}
        beside = [row for row in learnt if {int(row.id[-3:]) - 1, int(row.id[-3:]) + 1} & numbers]
        assert len(beside) < 25  # at the edges of blocks
