"""Batch, results and about in a real browser."""

import csv
import zipfile
from http.client import HTTPConnection
from io import BytesIO, StringIO
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from retina_seg import io, phantom, zoo


def click_first_row(page) -> None:
    """Tick the box of the first row of the last table; tables are drawn, not made of elements."""
    table = page.get_by_test_id("stDataFrame").last
    table.scroll_into_view_if_needed()
    box = table.bounding_box()
    page.mouse.click(box["x"] + 20, box["y"] + 52)


def test_twenty_photographs_become_a_table_and_a_zip_with_the_flagged_first(visit, tmp_path, picture_folder):
    drawn = phantom.draw(0, width=400, height=413)
    paths = []
    for number in range(18):
        shifted = np.roll(drawn.image, number, axis=1)
        paths.append(tmp_path / f"clinic_{number:02d}.png")
        io.write_rgb(paths[-1], shifted)
    dark = tmp_path / "night.png"
    io.write_rgb(dark, (drawn.image * 0.08).astype(np.uint8))
    broken = tmp_path / "torn.png"
    broken.write_bytes(paths[0].read_bytes()[:2000])
    visitor = visit()
    page = visitor.page
    visitor.drop(*paths, dark, broken)
    page.get_by_text("(1 of 20)").wait_for()
    visitor.result()
    page.get_by_role("link", name="Batch").click()
    page.get_by_role("button", name="Segment 20 of 20 photographs").click()
    page.get_by_role("button", name="Done: 20 photographs").wait_for(timeout=180_000)
    visitor.settle()
    for label in ("all (20)", "failed (1)", "flagged (1)", "no remark (18)"):
        page.get_by_role("radio", name=label).or_(page.get_by_role("button", name=label)).first.wait_for()
    page.screenshot(path=picture_folder / "viewer-batch.png")
    with page.expect_download() as waited:
        page.get_by_role("button", name="Download 20 results").click()
    packed = zipfile.ZipFile(BytesIO(Path(waited.value.path()).read_bytes()))
    assert sum(name.endswith("_mask.png") for name in packed.namelist()) == 19
    rows = list(csv.DictReader(StringIO(packed.read("results.csv").decode())))
    assert [row["status"] for row in rows] == ["failed", "flagged", *["no remark"] * 18]
    assert rows[0]["photograph"] == "photograph-20"
    assert rows[1]["calibre_px"] == ""
    assert all(float(row["calibre_px"]) > 1 for row in rows[2:])
    everything = b"".join(packed.read(name) for name in packed.namelist())
    assert not any(word in everything for word in (b"clinic", b"night", b"torn"))
    mask = np.array(Image.open(BytesIO(packed.read("photograph-01_mask.png"))))
    assert mask.shape == (413, 400)
    assert 0.04 < (mask > 0).mean() < 0.3
    click_first_row(page)
    page.get_by_role("link", name="Look at torn.png").click()
    page.get_by_test_id("stAlert").get_by_text("torn.png is damaged").wait_for()
    page.get_by_text("(20 of 20)").wait_for()


def test_the_results_page_shows_tables_curves_and_the_worst_cases(visit, picture_folder):
    visitor = visit()
    page = visitor.page
    page.get_by_role("link", name="Results").click()
    page.get_by_text("How good are the models?").wait_for()
    page.locator(".vega-embed canvas, .vega-embed svg").nth(2).wait_for()
    visitor.settle()
    page.wait_for_timeout(1000)
    page.screenshot(path=picture_folder / "viewer-results.png")
    page.get_by_text("Worst photographs of").first.wait_for()
    click_first_row(page)
    page.get_by_role("link", name="Look at drive:").click()
    page.locator(".stage").wait_for()
    page.get_by_text("Against the truth").wait_for()
    assert page.get_by_role("button", name="Where is it wrong?").is_visible()


def chosen_after(page, before: tuple[int, int]) -> tuple[int, int]:
    """Row and column the page names once they are others than `before`."""
    gone = f"row {before[0]}, column {before[1]}."
    page.wait_for_function("gone => !document.body.innerText.includes(gone)", arg=gone)
    words = page.get_by_text("Chosen: row").inner_text().rpartition("Chosen: row ")[2]
    row, column = words.rstrip(".").split(", column ")
    return int(row), int(column)


def test_a_click_asks_which_atoms_voted_there(visit, photographs, picture_folder):
    visitor = visit()
    page = visitor.page
    visitor.drop(photographs / "eye_0.png")
    visitor.result()
    box = page.get_by_test_id("stSelectbox").filter(has_text="Model")
    box.locator("input").first.click()
    page.get_by_role("option", name="atoms (run)").first.click()
    visitor.settle()
    page.get_by_role("link", name="Explain").click()
    picture = page.locator(".pointer")
    picture.wait_for()
    visitor.settle()
    place = page.locator(".pointer img").bounding_box()
    size = page.locator(".pointer img").evaluate("image => [image.naturalWidth, image.naturalHeight]")
    page.mouse.click(place["x"] + 0.25 * place["width"], place["y"] + 0.5 * place["height"])
    y, x = chosen_after(page, (size[1] // 2, size[0] // 2))
    assert abs(y - 0.5 * size[1]) < 4  # a pixel of the page is some of the picture
    assert abs(x - 0.25 * size[0]) < 4
    picture.press("ArrowDown")
    assert chosen_after(page, (y, x)) == (y + 1, x)
    page.get_by_role("tab", name="Rebuilt").click()
    page.get_by_text("no map of disease").wait_for()
    page.screenshot(path=picture_folder / "viewer-explain.png")


def test_the_grade_page_shows_answers_and_what_they_rest_on(visit, photographs, picture_folder):
    visitor = visit()
    page = visitor.page
    visitor.drop(photographs / "eye_0.png")
    visitor.result()
    page.get_by_role("link", name="Grade").click()
    page.get_by_text("must not decide about anybody's care").wait_for()
    page.get_by_test_id("stMetric").nth(1).wait_for(timeout=120_000)
    page.locator(".vega-embed canvas, .vega-embed svg").nth(1).wait_for()
    visitor.settle()
    page.wait_for_timeout(1000)
    assert page.get_by_role("tab").count() >= 3
    page.screenshot(path=picture_folder / "viewer-grade.png")
    page.get_by_role("tabpanel").first.get_by_role("img").scroll_into_view_if_needed()
    page.screenshot(path=picture_folder / "viewer-grade-looked-at.png")
    page.get_by_text("What excites a unit").click()
    visitor.settle()  # a click while the page is drawn anew may be lost
    page.get_by_role("button", name="Find the patches").click()
    page.get_by_text("image 0:").wait_for(timeout=120_000)
    page.get_by_text("image 0:").scroll_into_view_if_needed()
    page.screenshot(path=picture_folder / "viewer-grade-excites.png")
    page.get_by_text("What this classifier cannot do").click()
    page.get_by_text("Research use only").first.wait_for()


def test_the_about_page_names_limits_and_terms(visit):
    visitor = visit()
    visitor.page.get_by_role("link", name="About").click()
    visitor.page.get_by_text("Research use only: not a medical device, not for diagnosis.").first.wait_for()
    cards = [zoo.card(name) for name in zoo.names()]
    said = [limit for card in cards for limit in card.limits if limit.startswith("Misses the thinnest vessels")]
    assert said
    visitor.page.get_by_text("Misses the thinnest vessels").nth(len(said) - 1).wait_for()
    assert visitor.page.get_by_text("free for research and education").first.is_visible()


@pytest.mark.parametrize("path", ["/", "/view", "/_stcore/health", "/_stcore/host-config", "/media/x.png", "/none"])
@pytest.mark.parametrize(("host", "refused"), [("localhost", False), ("evil.example", True)])
def test_only_the_names_of_this_computer_are_answered_and_no_frame_is_allowed(server, path, host, refused):
    connection = HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    connection.request("GET", path, headers={"Host": host})
    answer = connection.getresponse()
    assert (answer.status == 403) is refused
    assert "frame-ancestors 'none'" in answer.headers.get_all("content-security-policy")
    assert answer.headers["x-frame-options"] == "DENY"
    connection.close()
