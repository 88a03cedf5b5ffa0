"""The view page in a real browser, as a first-time user meets it."""

import re
import zipfile
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from retina_seg import Segmenter, io, metrics, overlay, phantom, zoo

VESSELS = np.array(overlay.COLOURS["vessels"])


def blueish(picture: np.ndarray) -> np.ndarray:
    """Where the picture has the colour of the vessel layer rather than of a retina or of black."""
    red, _, blue = np.moveaxis(picture.astype(int), -1, 0)
    return blue > red + 25


def number(visitor, label: str) -> float:
    """The number after a label in the column beside the picture."""
    line = visitor.page.locator("p", has_text=re.compile(rf"^{label}:")).first.inner_text()
    return float(re.search(r": ([\d.]+)", line).group(1))


def choose(visitor, label: str, value: str) -> None:
    visitor.page.locator(f'.bar select[aria-label="{label}"]').select_option(value)
    visitor.page.locator(".wait").wait_for(state="hidden")
    visitor.page.wait_for_timeout(200)


def select(page, label: str, option: str) -> None:
    """Choose in one of Streamlit's own select boxes."""
    page.get_by_role("combobox", name=label).click()
    page.keyboard.type(option)
    page.get_by_role("option", name=option, exact=True).wait_for()
    page.keyboard.press("Enter")
    page.wait_for_timeout(1500)  # the boxes below are made anew


def test_a_dropped_file_is_segmented_and_measured_as_the_library_does_it(visit, photographs, picture_folder):
    visitor = visit()
    assert not visitor.page.locator(".stage").count()
    visitor.drop(photographs / "eye_0.png")
    visitor.result()
    prediction = Segmenter.from_pretrained(zoo.DEFAULT, "cpu").predict(photographs / "eye_0.png")
    share = 100 * prediction.mask.sum() / prediction.fov.sum()
    assert number(visitor, "Vessel density") == pytest.approx(share, abs=0.051)
    assert f"{share:.1f} % of the field" in visitor.page.locator(".live").first.inner_text()
    shown = visitor.picture()
    zoom = min(shown.shape[0] / 584, shown.shape[1] / 565)
    assert blueish(shown).sum() == pytest.approx(prediction.mask.sum() * zoom**2, rel=0.2)
    visitor.page.screenshot(path=picture_folder / "viewer.png")


def test_at_one_to_one_the_browser_shows_the_mask_of_the_library_pixel_by_pixel(visit, photographs):
    visitor = visit()
    visitor.drop(photographs / "eye_0.png")
    visitor.result()
    page = visitor.page
    page.get_by_label("vessels: opacity").press("End")
    page.get_by_role("button", name="One screen pixel for each pixel").click()
    page.wait_for_timeout(300)
    shown = (visitor.picture() == VESSELS).all(axis=2)
    mask = Segmenter.from_pretrained(zoo.DEFAULT, "cpu").predict(photographs / "eye_0.png").mask[0]
    high, wide = shown.shape
    assert high < mask.shape[0]
    assert wide > mask.shape[1]
    places = [(top, left) for top in range(mask.shape[0] - high + 1) for left in range(wide - mask.shape[1] + 1)]
    matches = [
        (top, left)
        for top, left in places
        if np.array_equal(shown[:, left : left + mask.shape[1]], mask[top : top + high])
    ]
    assert len(matches) == 1


def test_zoom_pan_and_keys_move_the_picture_and_name_the_probability_under_the_cursor(visit, photographs):
    visitor = visit()
    visitor.drop(photographs / "eye_0.png")
    visitor.result()
    stage = visitor.page.locator(".stage")
    box = stage.bounding_box()
    fitted = visitor.picture()
    x, y = box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.4
    visitor.page.mouse.move(x, y)
    for _ in range(5):
        visitor.page.mouse.wheel(0, -300)
    visitor.page.wait_for_timeout(300)
    zoomed = visitor.picture()
    assert np.abs(zoomed.astype(int) - fitted).mean() > 10
    visitor.page.mouse.move(x + 1, y)
    place = re.search(r"x (\d+), y (\d+) · probability: vessels ([\d.]+)", visitor.page.locator(".where").inner_text())
    column, line, shown = int(place[1]), int(place[2]), float(place[3])
    prediction = Segmenter.from_pretrained(zoo.DEFAULT, "cpu").predict(photographs / "eye_0.png")
    assert shown == pytest.approx(prediction.prob[0, line, column], abs=6e-4)
    visitor.page.mouse.down()
    visitor.page.mouse.move(x + 120, y + 60)
    visitor.page.mouse.up()
    visitor.page.wait_for_timeout(200)
    assert np.abs(visitor.picture().astype(int) - zoomed).mean() > 5
    stage.press("0")
    visitor.page.wait_for_timeout(200)
    stage.evaluate("stage => stage.blur()")
    back = visitor.picture()
    assert np.abs(back.astype(int) - fitted).mean() < 2  # but for the mark that keys show in the middle
    stage.press("+")
    stage.press("ArrowLeft")
    visitor.page.wait_for_timeout(200)
    assert np.abs(visitor.picture().astype(int) - back).mean() > 5


def test_layers_are_switched_outlined_and_blended_without_asking_the_server(visit, photographs):
    visitor = visit()
    visitor.drop(photographs / "eye_0.png")
    visitor.result()
    sent = len(visitor.messages)
    filled = blueish(visitor.picture()).sum()
    page = visitor.page
    page.get_by_label("vessels: contour only").check()
    page.wait_for_timeout(200)
    outlined = blueish(visitor.picture()).sum()
    assert 0.1 * filled < outlined < 0.9 * filled
    page.get_by_label("vessels: shown").uncheck()
    page.wait_for_timeout(200)
    assert blueish(visitor.picture()).sum() == 0
    page.get_by_label("field of view: shown").check()
    page.wait_for_timeout(200)
    choose(visitor, "Show", "prob:a:vessels")
    heat = visitor.picture()
    assert len(np.unique(heat.reshape(-1, 3), axis=0)) > 50
    assert len(visitor.messages) == sent


@pytest.mark.parametrize("view", ["green", "contrast"])
def test_the_photograph_is_shown_in_green_and_with_more_contrast(visit, photographs, view):
    visitor = visit()
    visitor.drop(photographs / "eye_0.png")
    visitor.result()
    visitor.page.get_by_label("vessels: shown").uncheck()
    visitor.page.wait_for_timeout(200)
    before = visitor.picture()
    choose(visitor, "View", view)
    visitor.page.wait_for_timeout(1500)
    visitor.page.locator(".wait").wait_for(state="hidden")
    after = visitor.picture().astype(int)
    if view == "green":
        assert np.abs(after[..., 0] - after[..., 2]).max() <= 1
    else:
        inside = before.sum(axis=2) > 60
        assert after[..., 1][inside].std() > before[..., 1][inside].std()


def test_the_wipe_shows_the_photograph_on_its_other_side(visit, photographs):
    visitor = visit()
    visitor.drop(photographs / "eye_0.png")
    visitor.result()
    choose(visitor, "Layout", "wipe")
    stage = visitor.page.locator(".stage")
    box = stage.bounding_box()
    middle = box["x"] + box["width"] / 2
    visitor.page.mouse.move(middle, box["y"] + box["height"] / 2)
    visitor.page.mouse.down()
    visitor.page.mouse.move(middle + 40, box["y"] + box["height"] / 2)
    visitor.page.mouse.up()
    visitor.page.wait_for_timeout(200)
    where = blueish(visitor.picture())
    cut = int(box["width"] / 2 + 40)
    assert where[:, : cut - 12].sum() > 1000
    assert where[:, cut + 12 :].sum() == 0


def test_side_by_side_with_a_dropped_truth_shows_hits_misses_and_false_pixels(visit, photographs, picture_folder):
    visitor = visit()
    page = visitor.page
    visitor.drop(photographs / "eye_0.png")
    visitor.result()
    page.get_by_text("Compare with a truth").click()
    inputs = page.get_by_test_id("stFileUploaderDropzoneInput")
    inputs.last.set_input_files(str(photographs / "truth" / "eye_0.png"))
    page.get_by_text("Against the truth").wait_for()
    visitor.settle()
    prediction = Segmenter.from_pretrained(zoo.DEFAULT, "cpu").predict(photographs / "eye_0.png")
    truth = io.read_mask(photographs / "truth" / "eye_0.png")
    assert number(visitor, "Dice") == pytest.approx(metrics.dice(prediction.mask[0], truth, prediction.fov), abs=6e-4)
    assert number(visitor, "AUC") == pytest.approx(metrics.auc(prediction.prob[0], truth, prediction.fov), abs=6e-4)
    choose(visitor, "Layout", "side")
    choose(visitor, "and", "agreement:a:vessels")
    page.screenshot(path=picture_folder / "viewer-truth.png")
    page.get_by_role("button", name="One screen pixel for each pixel").click()  # no colour is blended then
    page.wait_for_timeout(200)
    shown = visitor.picture()
    right = shown[:, shown.shape[1] // 2 :]
    for colour in (overlay.HIT, overlay.MISSED, overlay.FALSE):
        assert (np.abs(right.astype(int) - colour).max(axis=2) < 12).sum() > 20
    assert page.locator(".legend").inner_text().split() == ["hit", "missed", "false"]


def test_a_moved_threshold_changes_mask_and_numbers_without_the_model(visit, photographs):
    visitor = visit()
    visitor.drop(photographs / "eye_0.png")
    visitor.result()
    page = visitor.page
    before, shown = number(visitor, "Vessel density"), blueish(visitor.picture()).sum()
    slider = page.get_by_label("vessels: threshold")
    slider.focus()
    page.keyboard.press("PageUp")
    page.wait_for_timeout(2500)  # Python has answered; the keyboard still has the slider
    page.keyboard.press("PageUp")
    assert float(slider.input_value()) > 0.377 + 0.15
    page.wait_for_timeout(100)
    live = float(re.match(r"[\d.]+", page.locator(".live").first.inner_text())[0])
    assert live < before
    assert blueish(visitor.picture()).sum() < shown
    page.wait_for_function("text => document.body.innerText.includes(text)", arg=f"Vessel density: {live:.1f} %")
    prediction = Segmenter.from_pretrained(zoo.DEFAULT, "cpu").predict(photographs / "eye_0.png")
    moved = prediction.at(float(slider.input_value()))
    assert live == pytest.approx(100 * moved.mask.sum() / moved.fov.sum(), abs=0.051)
    page.get_by_label("Back to the model's own threshold").click()
    page.wait_for_function("text => document.body.innerText.includes(text)", arg=f"Vessel density: {before:.1f} %")


def test_the_ruler_measures_pixels_and_micrometres_only_where_their_size_is_known(visit, photographs):
    visitor = visit()
    visitor.drop(photographs / "eye_0.png")
    visitor.result()
    page = visitor.page
    page.get_by_role("button", name="Ruler").click()
    box = page.locator(".stage").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.click(x - 60, y)
    page.mouse.click(x + 60, y)
    page.locator(".length", has_text="distance").wait_for()
    text = page.locator(".length").inner_text()
    zoom = min(box["height"] / 584, box["width"] / 565)
    assert float(re.search(r"distance ([\d.]+) px", text)[1]) == pytest.approx(120 / zoom, rel=0.02)
    assert "µm" not in text
    page.get_by_text("Settings").click()
    page.get_by_test_id("stNumberInputField").fill("10")
    page.get_by_test_id("stNumberInputField").press("Enter")
    page.locator("p", has_text=re.compile("Mean calibre: .* µm")).wait_for()
    assert float(re.search(r"= ([\d.]+) µm", page.locator(".length").inner_text())[1]) == pytest.approx(
        1200 / zoom, rel=0.03
    )


def test_downloads_hold_the_result_and_neither_exif_nor_the_name_of_the_patient(visit, tmp_path):
    drawn = phantom.draw(0)
    exif = Image.Exif()
    exif[315] = "SECRET PATIENT"  # artist
    named = tmp_path / "Doe_Jane_1950.jpg"
    Image.fromarray(drawn.image).save(named, quality=95, exif=exif)
    visitor = visit()
    visitor.drop(named)
    visitor.result()
    page = visitor.page
    page.get_by_role("button", name="Download").click()
    with page.expect_download() as waited:
        page.get_by_role("button", name="Everything (ZIP)").click()
    assert waited.value.suggested_filename == "photograph-01.zip"
    packed = zipfile.ZipFile(BytesIO(Path(waited.value.path()).read_bytes()))
    stem = "photograph-01"
    assert set(packed.namelist()) == {
        *(f"{stem}_mask.png", f"{stem}_prob.tif", f"{stem}_overlay.png"),
        *(f"{stem}_mask.nii.gz", f"{stem}.json", f"{stem}.pdf"),
    }
    prediction = Segmenter.from_pretrained(zoo.DEFAULT, "cpu").predict(named)
    mask = np.array(Image.open(BytesIO(packed.read(f"{stem}_mask.png"))))
    assert np.array_equal(mask > 0, prediction.mask[0])
    assert packed.read(f"{stem}.pdf").startswith(b"%PDF")
    for name in packed.namelist():
        for secret in (b"SECRET", b"Doe", b"Jane", b"1950"):
            assert secret not in packed.read(name), name
    with page.expect_download() as waited:
        page.get_by_role("button", name="Mask (PNG)", exact=True).click()
    assert np.array_equal(np.array(Image.open(waited.value.path())) > 0, prediction.mask[0])


def test_a_corrupt_file_is_named_and_does_no_harm(visit, photographs, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes((photographs / "eye_0.png").read_bytes()[:4000])
    visitor = visit()
    visitor.drop(broken)
    visitor.page.get_by_test_id("stAlert").get_by_text("broken.png is damaged").wait_for()
    assert not visitor.page.locator(".stage").count()
    visitor.drop(photographs / "eye_1.png")
    visitor.result()


def test_blurred_and_dark_photographs_and_other_pictures_get_a_banner_and_no_biomarkers(visit, tmp_path):
    yy, xx = np.mgrid[:400, :500]
    picture = np.stack([(xx // 25 + yy // 25) % 2 * 180 + 30, yy // 2, 255 - xx // 2], axis=-1).astype(np.uint8)
    io.write_rgb(tmp_path / "chessboard.png", picture)
    visitor = visit()
    page = visitor.page
    for name, word in (("Out of focus", "blurred"), ("Too dark", "dark")):
        page.get_by_role("button", name=name, exact=True).click()
        visitor.result()
        page.get_by_test_id("stAlert").get_by_text("Do not rely on this result").wait_for()
        assert word in page.get_by_test_id("stAlert").first.inner_text()
        assert page.get_by_text("Withheld: see the red box above.").count() == 1
        assert page.get_by_text("Mean calibre:").count() == 0
        page.reload()
        page.get_by_text("No photograph at hand?").wait_for()
        visitor.settle()
    visitor.drop(tmp_path / "chessboard.png")
    page.get_by_test_id("stAlert").get_by_text("fundus").first.wait_for()
    visitor.settle()
    assert page.get_by_text("Mean calibre:").count() == 0


def test_a_large_photograph_comes_in_small_messages_and_full_resolution_on_zoom(visit, photographs, tmp_path):
    image = io.read_image(photographs / "eye_1.png")
    large = np.zeros((2848, 4288, 3), np.uint8)
    large[:, 764:3520] = cv2.resize(image, (2756, 2848), interpolation=cv2.INTER_CUBIC)
    detail = large[1324:1524, 2044:2244]
    detail[::2, ::2] = detail[1::2, 1::2] = 0  # single pixels: only the full resolution shows them
    path = tmp_path / "large.png"
    io.write_rgb(path, large)
    visitor = visit()
    visitor.drop(path)
    visitor.result()
    page = visitor.page
    page.get_by_text("4288 x 2848 px").wait_for()
    box = page.locator(".stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    for _ in range(8):
        page.mouse.wheel(0, -300)
    page.wait_for_timeout(500)
    page.locator(".wait").wait_for(state="hidden")
    page.mouse.move(box["x"] + box["width"] / 2 + 2, box["y"] + box["height"] / 2)
    page.locator(".where", has_text=re.compile(r"vessels \d")).wait_for()
    assert max(visitor.messages) < 4_000_000
    middle = visitor.picture().sum(axis=2)
    middle = middle[middle.shape[0] // 2 - 60 :, middle.shape[1] // 2 - 60 :][:120, :120]
    assert 0.2 < (middle < 60).mean() < 0.8


def test_two_visitors_do_not_see_each_others_photographs(visit, photographs):
    first, second = visit(), visit()
    first.drop(photographs / "eye_0.png")
    first.result()
    second.page.reload()
    second.page.get_by_text("No photograph at hand?").wait_for()
    assert second.page.get_by_text("eye_0.png").count() == 0


def test_uploads_stay_in_memory_and_out_of_the_log(visit, server, tmp_path):
    drawn = phantom.draw(2)
    named = tmp_path / "Secret_Name.bmp"  # above the 1 MB from which Starlette would use the disk
    Image.fromarray(drawn.image).resize((1130, 1168)).save(named)
    assert named.stat().st_size > 3_000_000
    before = set(server.temporary.rglob("*"))
    visitor = visit()
    visitor.drop(named)
    visitor.result()
    assert set(server.temporary.rglob("*")) == before
    assert "Secret_Name" not in server.log.read_text()


def test_too_large_a_file_is_refused_with_the_limit(visit, tmp_path):
    huge = tmp_path / "huge.tif"
    with huge.open("wb") as file:
        file.truncate(201 * 1024 * 1024)
    visitor = visit()
    visitor.drop(huge)
    visitor.page.get_by_text(re.compile("must be 200(.0)?MB or smaller")).wait_for()
    assert not visitor.page.locator(".stage").count()


def test_the_viewer_can_be_used_with_the_keyboard_in_the_dark(visit, photographs):
    visitor = visit(color_scheme="dark")
    visitor.drop(photographs / "eye_1.png")
    visitor.result()
    page = visitor.page
    page.locator('.bar select[aria-label="View"]').focus()
    reached = []
    for _ in range(24):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "() => { let e = document.activeElement; while (e?.shadowRoot?.activeElement)"
                " e = e.shadowRoot.activeElement; return e?.ariaLabel ?? e?.textContent; }"
            )
        )
    for label in ("Layout", "Zoom in", "vessels: shown", "vessels: threshold", "field of view: shown"):
        assert label in reached, reached
    assert any(text and text.startswith("Photograph with its layers") for text in reached)
    background = page.evaluate("() => getComputedStyle(document.querySelector('.stApp')).backgroundColor")
    assert max(map(int, re.findall(r"\d+", background)[:3])) < 60


def test_two_models_stand_side_by_side_on_a_photograph_of_the_gallery(visit):
    visitor = visit()
    page = visitor.page
    page.get_by_text("Gallery").click()
    page.wait_for_timeout(1000)  # it unfolds
    select(page, "Collection", "DRIVE")
    select(page, "Picture", "21")
    page.get_by_role("button", name="Open this picture").click()
    page.locator(".stage").wait_for()
    page.get_by_text("field of view given").wait_for()
    select(page, "Compare with", "tiny (run)")
    page.locator('.bar select[aria-label="Show"] option', has_text="Result · tiny (run)").wait_for(state="attached")
    visitor.settle()
    choose(visitor, "Layout", "side")
    choose(visitor, "and", "result:b")
    shown = visitor.picture()
    left, right = np.array_split(blueish(shown), 2, axis=1)
    assert left.sum() > 100
    assert left.sum() != right.sum()
    assert page.get_by_label("vessels · tiny (run): threshold").is_visible()


def test_nothing_leaves_this_computer(visit, photographs):
    visitor = visit()
    page = visitor.page
    visitor.drop(photographs / "eye_0.png", photographs / "eye_1.png")
    visitor.result()
    for name in ("Batch", "Results", "About", "View"):
        page.get_by_role("link", name=name).click()
        visitor.settle()
    page.wait_for_timeout(2000)
    assert len(visitor.requests) > 10
    assert visitor.elsewhere() == []
