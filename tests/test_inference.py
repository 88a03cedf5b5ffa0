import errno
import gzip
import hashlib
import json
import math
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo
from torch import nn

from retina_seg import files, inference, io
from retina_seg.checkpoint import Card, CardInference, CardModel
from retina_seg.decode import InMemory
from retina_seg.errors import UserError
from retina_seg.inference import Segmenter, predict_probability


@pytest.fixture(scope="module")
def segmenter(tiny_run) -> Segmenter:
    return Segmenter.from_pretrained(tiny_run, "cpu")


class _TwoTargets(nn.Module):
    """Bright pixels are one target, dark ones the other."""

    def forward(self, image):
        return torch.cat([image.mean(1, keepdim=True), -image.mean(1, keepdim=True)], 1)


def _two_targets() -> Segmenter:
    card = Card(
        name="two",
        targets=("vessels", "disc"),
        model=CardModel(name="unet", in_channels=3),
        preprocess={},
        inference=CardInference(),
        thresholds={"disc": 0.8, "vessels": 0.6},
        threshold_source="chosen for the test",
        parameters=0,
    )
    return Segmenter(_TwoTargets(), card, "cpu")


def test_prediction_has_the_size_of_the_photograph(segmenter, drawn):
    before = drawn.image.copy()
    prediction = segmenter.predict(drawn.image)
    assert prediction.prob.shape == prediction.mask.shape == (1, *drawn.image.shape[:2])
    assert prediction.prob.dtype == np.float32
    assert prediction.mask.dtype == prediction.fov.dtype == bool
    assert 0 <= prediction.prob.min() <= prediction.prob.max() <= 1
    assert not prediction.prob[:, ~prediction.fov].any()
    np.testing.assert_array_equal(prediction.mask, (prediction.prob >= prediction.thresholds[0]) & prediction.fov)
    np.testing.assert_array_equal(drawn.image, before)


def test_file_memory_and_array_agree(segmenter, drawn, tmp_path):
    path = tmp_path / "eye.png"
    Image.fromarray(drawn.image).save(path)
    from_array = segmenter.predict(drawn.image)
    assert from_array.provenance["source"] is None
    for source in (path, str(path), InMemory("eye.png", path.read_bytes())):
        prediction = segmenter.predict(source)
        np.testing.assert_array_equal(prediction.prob, from_array.prob)
        assert prediction.provenance["source"] == "eye.png"
    with pytest.raises(UserError, match=r"^notes\.png is a text file"):
        segmenter.predict(InMemory("notes.png", b"no photograph"))


def test_a_picture_full_of_vessels_is_no_photograph():
    ramp = np.broadcast_to(np.linspace(60, 250, 160).astype(np.uint8)[None, :, None], (120, 160, 3)).copy()
    segmenter = _two_targets()
    segmenter.card = segmenter.card.model_copy(update={"thresholds": {"vessels": 0.3, "disc": 0.8}})
    with pytest.raises(UserError, match="is it a fundus photograph"):
        segmenter.predict(ramp)
    assert segmenter.predict(ramp, np.ones(ramp.shape[:2], bool)).mask[0].mean() > 0.5


def test_given_field_of_view_is_used(segmenter, drawn):
    half = drawn.fov.copy()
    half[:, : half.shape[1] // 2] = False
    prediction = segmenter.predict(drawn.image, half)
    np.testing.assert_array_equal(prediction.fov, half)
    assert not prediction.prob[0][~half].any()
    assert prediction.provenance["field_of_view"]["source"] == "given"


def test_repeated_prediction_is_equal(segmenter, drawn):
    np.testing.assert_array_equal(segmenter.predict(drawn.image).prob, segmenter.predict(drawn.image).prob)


def test_flips_average_the_four_flips(segmenter, drawn):
    image = np.random.default_rng(0).standard_normal((3, 48, 64)).astype(np.float32)
    plain = [
        np.flip(predict_probability(segmenter.net, np.flip(image, axes).copy()), axes)
        for axes in ((), (1,), (2,), (1, 2))
    ]
    np.testing.assert_allclose(predict_probability(segmenter.net, image, flips=True), np.mean(plain, axis=0), atol=1e-6)


def test_averaged_flips_commute_with_flips(segmenter):
    image = np.random.default_rng(1).standard_normal((3, 64, 64)).astype(np.float32)
    flipped = predict_probability(segmenter.net, image[:, :, ::-1].copy(), flips=True)
    np.testing.assert_allclose(flipped[:, :, ::-1], predict_probability(segmenter.net, image, flips=True), atol=1e-6)


def test_windows_and_whole_image_agree(segmenter, monkeypatch):
    image = np.random.default_rng(2).standard_normal((3, 400, 330)).astype(np.float32)
    whole = predict_probability(segmenter.net, image)
    monkeypatch.setattr(inference, "WHOLE_IMAGE_PIXELS", 100)
    tiled = predict_probability(segmenter.net, image, window=256)
    assert tiled.shape == whole.shape
    assert np.abs(tiled - whole).mean() < 0.01


def test_other_thresholds_without_the_network(drawn):
    prediction = _two_targets().predict(drawn.image, drawn.fov)
    low = prediction.at(0.1, 0.1)
    assert low.mask.sum() > prediction.mask.sum()
    assert low.provenance["thresholds"] == {"vessels": 0.1, "disc": 0.1}
    assert low.provenance["threshold_source"] == "given by the caller"
    assert prediction.provenance["thresholds"] == {"vessels": 0.6, "disc": 0.8}
    np.testing.assert_array_equal(low.mask[0], (prediction.prob[0] >= np.float32(0.1)) & drawn.fov)
    with pytest.raises(UserError, match="1 thresholds"):
        prediction.at(0.5)


def test_thresholds_follow_the_order_of_the_targets(drawn):
    prediction = _two_targets().predict(drawn.image, drawn.fov)
    assert prediction.thresholds == (0.6, 0.8)
    np.testing.assert_array_equal(prediction.mask[1], (prediction.prob[1] >= np.float32(0.8)) & drawn.fov)


def test_saved_files(segmenter, drawn, tmp_path):
    prediction = segmenter.predict(drawn.image)
    paths = prediction.save(tmp_path / "new", "eye", what=("mask", "prob", "overlay", "nifti"))
    names = {path.name for path in paths}
    assert names == {"eye_mask.png", "eye_prob.tif", "eye_overlay.png", "eye_mask.nii.gz", "eye.json"}
    assert {path.name for path in (tmp_path / "new").iterdir()} == names
    np.testing.assert_array_equal(io.read_mask(tmp_path / "new/eye_mask.png"), prediction.mask[0])
    raw = np.asarray(Image.open(tmp_path / "new/eye_mask.png"))
    assert raw.dtype == np.uint8
    assert set(np.unique(raw)) <= {0, 255}
    prob = np.asarray(Image.open(tmp_path / "new/eye_prob.tif"))
    np.testing.assert_array_equal(prob, prediction.prob[0])
    record = json.loads((tmp_path / "new/eye.json").read_text())
    assert record["model"] == "tiny"
    assert len(record["weights_sha256"]) == 64
    assert record["thresholds"] == {"vessels": prediction.thresholds[0]}
    assert (record["height"], record["width"]) == drawn.image.shape[:2]
    assert record["seconds"] > 0
    assert {"field_of_view", "versions", "warnings"} <= set(record)


def test_several_targets_carry_their_names(drawn, tmp_path):
    prediction = _two_targets().predict(drawn.image, drawn.fov)
    names = {path.name for path in prediction.save(tmp_path, "eye", what=("mask", "prob"))}
    assert names == {
        "eye_vessels_mask.png",
        "eye_disc_mask.png",
        "eye_vessels_prob.tif",
        "eye_disc_prob.tif",
        "eye.json",
    }


@pytest.mark.parametrize("pixel_size_mm", [None, 0.0051])
def test_what_is_encoded_is_what_is_saved(drawn, tmp_path, pixel_size_mm):
    prediction = _two_targets().predict(drawn.image, drawn.fov)
    for what in (inference.SAVED, ("prob",), ()):
        encoded = prediction.encode("eye", what=what, pixel_size_mm=pixel_size_mm)
        paths = prediction.save(tmp_path / "_".join(what), "eye", what=what, pixel_size_mm=pixel_size_mm)
        assert [path.name for path in paths] == list(encoded)
        assert [path.read_bytes() for path in paths] == list(encoded.values())
        assert list(encoded)[-1] == "eye.json"
        assert json.loads(encoded["eye.json"])["files"] == list(encoded)


def test_pixel_size_in_what_is_encoded(segmenter, drawn):
    prediction = segmenter.predict(drawn.image)
    for size, zoom, unit in ((None, 1, "unknown"), (0.0051, 0.0051, "mm")):
        files = prediction.encode("eye", what=("nifti",), pixel_size_mm=size)
        header = nibabel.Nifti1Image.from_bytes(gzip.decompress(files["eye_mask.nii.gz"])).header
        assert header.get_zooms() == pytest.approx((zoom, zoom))
        assert header.get_xyzt_units()[0] == unit
        record = json.loads(files["eye.json"])
        assert record.get("pixel_size_um", "not given") == ("not given" if size is None else 5.1)
    for wrong in (0, -0.01, np.nan, np.inf):
        with pytest.raises(UserError, match="pixel size of"):
            prediction.encode("eye", what=("mask",), pixel_size_mm=wrong)


def _photographs_of(image, secret) -> list[InMemory]:
    """The same pixels in several formats, with the secret wherever the format has room for words."""
    exif = Image.Exif()
    for tag in (ExifTags.Base.Artist, ExifTags.Base.ImageDescription, ExifTags.Base.Copyright):
        exif[tag] = secret
    words = PngInfo()
    words.add_text("Description", secret, zip=True)
    jpeg, png, tiff, deep = BytesIO(), BytesIO(), BytesIO(), BytesIO()
    Image.fromarray(image).save(jpeg, "JPEG", exif=exif, comment=secret)
    Image.fromarray(image).save(png, "PNG", exif=exif, pnginfo=words)
    Image.fromarray(image).save(tiff, "TIFF", exif=exif)
    tifffile.imwrite(
        deep, image * np.uint16(257), photometric="rgb", description=secret, extratags=[(315, 2, None, secret, True)]
    )
    volume = nibabel.Nifti1Image(image[..., 1].T, np.eye(4))
    volume.header["descrip"] = secret
    volume.header["intent_name"] = secret
    volume.header.extensions.append(nibabel.nifti1.Nifti1Extension(6, secret.encode()))
    content = {"a.jpg": jpeg, "a.png": png, "a.tif": tiff, "deep.tif": deep}
    return [
        *(InMemory(name, stream.getvalue()) for name, stream in content.items()),
        InMemory("a.nii", volume.to_bytes()),
        InMemory("a.nii.gz", gzip.compress(volume.to_bytes())),
    ]


def _words_in(name: str, content: bytes) -> bytes:
    """The content as it is, and what is compressed in it or told by tags, readable."""
    if name.endswith(".gz"):
        return content + gzip.decompress(content)
    if name.endswith(".png"):
        with Image.open(BytesIO(content)) as picture:
            picture.load()
            return content + repr((picture.info, dict(picture.getexif()))).encode()
    if name.endswith(".tif"):
        with tifffile.TiffFile(BytesIO(content)) as file:
            return content + repr([tag.value for page in file.pages for tag in page.tags]).encode()
    return content


def test_nothing_but_pixels_comes_from_the_photograph(segmenter, drawn):
    secret = "SECRET NAME"
    for source in _photographs_of(drawn.image, secret):
        assert secret.encode() in _words_in(source.name, source.data)
        for name, content in segmenter.predict(source).encode("eye", what=inference.SAVED, pixel_size_mm=0.01).items():
            assert secret.encode() not in _words_in(name, content), (source.name, name)


def test_what_is_in_memory_never_touches_the_disk(segmenter, drawn, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a temporary file")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tempfile, "_mkstemp_inner", refuse)
    monkeypatch.setattr(Path, "write_bytes", refuse)
    for source in _photographs_of(drawn.image, "SECRET NAME"):
        assert len(segmenter.predict(source).encode("eye", what=inference.SAVED)) == 5
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_nothing(segmenter, drawn, tmp_path, monkeypatch):
    settle, calls = files._settle, []

    def fail_at_the_last(path):
        calls.append(path)
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        settle(path)

    prediction = segmenter.predict(drawn.image)
    monkeypatch.setattr(files, "_settle", fail_at_the_last)
    with pytest.raises(UserError, match=r"eye\.json cannot be written: No space left"):
        prediction.save(tmp_path, "eye")
    assert not list(tmp_path.iterdir())


def test_save_replaces_results_of_the_same_photograph_only(segmenter, drawn, tmp_path):
    prediction = segmenter.predict(drawn.image)
    other = segmenter.predict(drawn.image[:, ::-1].copy())
    for _ in range(2):
        prediction.save(tmp_path, "eye", what=("mask",))
    before = (tmp_path / "eye_mask.png").read_bytes()
    with pytest.raises(UserError, match=r"eye\.json is of another photograph.*overwrite"):
        other.save(tmp_path, "eye", what=("mask",))
    assert (tmp_path / "eye_mask.png").read_bytes() == before
    other.save(tmp_path, "eye", what=("mask",), overwrite=True)
    assert (tmp_path / "eye_mask.png").read_bytes() != before
    (tmp_path / "eye.json").unlink()  # of whom the mask is nobody knows now
    with pytest.raises(UserError, match=r"eye_mask\.png is of another photograph, or there is no record"):
        other.save(tmp_path, "eye", what=("mask",))
    (tmp_path / "eye_overlay.png").write_bytes(b"drawn by hand")
    with pytest.raises(UserError, match=r"eye_overlay\.png"):
        other.save(tmp_path, "eye")
    assert (tmp_path / "eye_overlay.png").read_bytes() == b"drawn by hand"


def test_every_file_that_is_written_is_known_again(segmenter, drawn, tmp_path):
    *others, record = segmenter.predict(drawn.image).save(tmp_path, "eye", what=inference.SAVED)
    for path in (*others, record):
        assert files.is_own(path)
        assert files.is_result(path)
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in others}
    assert json.loads(record.read_text())["files_sha256"] == hashes


@pytest.mark.parametrize("stem", [5, None, b"eye", Path("eye"), "../evil", "/evil", "a/b", "..", ".", "", "a\0b"])
def test_a_stem_never_leaves_the_folder(segmenter, drawn, tmp_path, stem):
    prediction = segmenter.predict(drawn.image)
    for write in (prediction.encode, partial(prediction.save, tmp_path)):
        with pytest.raises(UserError, match=r"cannot be part of a file's name|expected text"):
            write(stem)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", ["x/../../evil", "..\\evil", "a\0b"])
def test_a_target_never_leaves_the_folder(segmenter, drawn, tmp_path, target):
    prediction = replace(segmenter.predict(drawn.image), targets=(target,))
    with pytest.raises(UserError, match="cannot be part of a file's name"):
        prediction.save(tmp_path, "eye")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [math.nan, 2, -0.1, math.inf, "0.5", None])
def test_thresholds_are_probabilities(segmenter, drawn, value):
    with pytest.raises(UserError, match="from 0 to 1"):
        segmenter.predict(drawn.image).at(value)


def test_a_folder_that_cannot_be_made(segmenter, drawn, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another"):
        segmenter.predict(drawn.image).save(tmp_path / "file", "eye")


def test_unknown_kinds_of_output(segmenter, drawn, tmp_path):
    with pytest.raises(UserError, match="mask, prob, overlay, nifti"):
        segmenter.predict(drawn.image).save(tmp_path, "eye", what=("masks",))
    with pytest.raises(UserError, match="mask,prob,overlay,nifti"):
        inference.saved("mask,probability")
    assert inference.saved("mask, prob") == ("mask", "prob")


def test_doubts_are_said(drawn):
    segmenter = _two_targets()
    dark = segmenter.predict((drawn.image // 8).astype(np.uint8), drawn.fov)
    assert any("very dark" in warning for warning in dark.provenance["warnings"])
    small = drawn.fov.copy()
    small[30:] = False
    assert any("covers only" in warning for warning in segmenter.predict(drawn.image, small).provenance["warnings"])


def _alike(image: np.ndarray) -> dict[str, Any]:
    """The same photograph as arrays and PIL images of other kinds."""
    grey = image[..., 1]
    opaque = np.full((*grey.shape, 1), 255, np.uint8)
    colours = {
        "16 bit": image.astype(np.uint16) * 257,
        "float": image.astype(np.float64) / 255,
        "alpha": np.dstack([image, opaque]),
        "PIL": Image.fromarray(image),
        "PIL with alpha": Image.fromarray(np.dstack([image, opaque])),
        "view": image[:, ::-1][:, ::-1],
    }
    greys = {
        "grey": grey,
        "one channel": grey[..., None],
        "grey and alpha": np.dstack([grey, opaque]),
        "PIL": Image.fromarray(grey),
        "bool": grey > 60,
    }
    return {f"colour, {name}": one for name, one in colours.items()} | {f"grey, {n}": one for n, one in greys.items()}


def test_arrays_are_read_as_files_with_their_pixels_are(segmenter, drawn, tmp_path):
    for name, given in _alike(drawn.image).items():
        image = segmenter.predict(given).image
        expected = drawn.image if name.startswith("colour") else np.repeat(drawn.image[..., 1:2], 3, axis=2)
        if name.endswith("bool"):
            expected = (expected > 60) * np.uint8(255)
        np.testing.assert_array_equal(image, expected, err_msg=name)


@pytest.mark.parametrize(
    "given",
    [
        np.zeros((3, 64, 64), np.uint8),
        np.zeros((64, 64, 5), np.uint8),
        np.zeros((2, 64, 64, 3), np.uint8),
        np.zeros((0, 0, 3), np.uint8),
        np.zeros(64),
        torch.zeros(3, 64, 64),
        [[1, 2], [3, 4]],
        b"a file",
        None,
    ],
    ids=lambda given: f"{type(given).__name__} {getattr(given, 'shape', '')}",
)
def test_what_is_no_photograph_is_told_with_what_is_expected(segmenter, given):
    with pytest.raises(UserError, match=r"height, width"):
        segmenter.predict(given)


@pytest.mark.parametrize("values", [np.full((64, 64, 3), np.nan), np.full((64, 64, 3), -1.0), np.full((64, 64), 1e6)])
def test_values_that_are_no_brightness(segmenter, values):
    with pytest.raises(UserError, match="the array holds"):
        segmenter.predict(values)


def test_devices():
    assert inference.choose_device("cpu") == "cpu"
    with pytest.raises(UserError, match="auto, cpu, cuda"):
        inference.choose_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="sees no GPU"):
            inference.choose_device("cuda")
        assert inference.choose_device("auto") == "cpu"


def test_importing_the_package_imports_no_torch():
    code = "import sys, retina_seg; retina_seg.__version__; assert not {'torch', 'monai'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_names_exist():
    import retina_seg

    assert all(getattr(retina_seg, name) for name in retina_seg.__all__)
    with pytest.raises(AttributeError, match="Segmentor"):
        _ = retina_seg.Segmentor
