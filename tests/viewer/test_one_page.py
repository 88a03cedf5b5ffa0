"""The report of one result: one page, everything on it, nothing upon anything else."""

import re
from dataclasses import replace

import pytest
from matplotlib.figure import Figure

from retina_seg import report, zoo
from retina_seg.quality import Doubt
from retina_seg.viewer import numbers

LONG = (
    "Broad areas are marked, not thin vessels, and the picture has lost much of what a camera for the fundus would "
    "show. Do not use numbers from this mask; check that this is a sharp photograph of a fundus, or take it again."
)


@pytest.fixture
def drawn_page(monkeypatch):
    """The figures that became files."""
    figures = []
    save = Figure.savefig

    def kept(self, *args, **kwargs):
        figures.append(self)
        return save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", kept)
    return figures


def made(prediction, *, scored=()):
    measured = numbers.readable(numbers.measure(prediction), 7.5)
    columns = [[(one.label, one.value, one.sentence) for one in found] for found in (measured, scored)]
    card = zoo.card("vessels-drive")
    model = f"{card.name}: {card.description}. {card.headline()}"
    return report.one_page(prediction, title="photograph-01", columns=columns, model=model)


def boxes(page):
    """Every text of a page and its box in page coordinates (0 to 1), the titles of the pictures included."""
    texts = [*page.texts, *(axes.title for axes in page.axes)]
    return [(text.get_text(), text.get_window_extent().transformed(page.transFigure.inverted())) for text in texts]


def check_layout(page):
    found = boxes(page)
    for text, box in found:
        assert box.x0 >= 0, text
        assert box.x1 <= 1, text
        assert box.y0 >= 0, text
        assert box.y1 <= 1, text
    for number, (text, box) in enumerate(found):
        for other, second in found[:number]:
            apart = (
                box.y0 >= second.y1 - 1e-3 or second.y0 >= box.y1 - 1e-3 or box.x0 >= second.x1 or second.x0 >= box.x1
            )
            assert apart, f"{text!r} lies upon {other!r}"


def pages(pdf):
    return len(re.findall(rb"/Type /Page\b", pdf))


def test_it_is_one_page_with_all_its_words(prediction, drawing, drawn_page):
    scored = numbers.scores(prediction.mask[0], drawing.vessels, prediction.fov, 0.9)
    pdf = made(prediction, scored=scored)
    assert pdf.startswith(b"%PDF")
    assert pages(pdf) == 1
    assert len(pdf) < 3_000_000
    (page,) = drawn_page
    words = " ".join(" ".join(text.split()) for text, _ in boxes(page))
    for expected in (
        *("photograph-01", "RESEARCH USE ONLY", "not for diagnosis", "vessels-drive", "0.377", "200 x 206 px"),
        *(prediction.provenance["weights_sha256"][:12], "Dice", "0.900"),
        *(one.value for one in numbers.readable(numbers.measure(prediction), 7.5)),
    ):
        assert expected in words
    assert "Warning" not in words
    check_layout(page)


def test_warnings_and_withheld_numbers_are_said(worthless, drawn_page):
    made(worthless)
    words = " ".join(text for text, _ in boxes(drawn_page[0]))
    assert words.count("Warning: No tree.") == 1
    assert words.count("Warning: The photograph is dark.") == 1
    assert "Biomarkers are withheld" in words
    check_layout(drawn_page[0])


def test_two_targets_are_named(two_targets, drawn_page):
    made(two_targets)
    words = " ".join(text for text, _ in boxes(drawn_page[0]))
    assert "vessels, disc" in words
    assert "disc 0.600" in words
    check_layout(drawn_page[0])


@pytest.mark.parametrize("withholds", [False, True])
@pytest.mark.parametrize("warnings", [1, 3, 4, 7])
def test_long_warnings_stay_on_the_page_and_off_the_foot(prediction, drawing, drawn_page, warnings, withholds):
    doubts = tuple(Doubt("dark", LONG, withholds=withholds) for _ in range(warnings))
    scored = numbers.scores(prediction.mask[0], drawing.vessels, prediction.fov, 0.9)
    pdf = made(replace(prediction, photograph_doubts=doubts), scored=scored)
    assert pages(pdf) == 1
    check_layout(drawn_page[0])
    words = " ".join(text for text, _ in boxes(drawn_page[0]))
    assert words.count("Warning:") == min(warnings, 4)
    assert ("4 more" in words) == (warnings == 7)


def test_a_large_photograph_makes_a_small_file(prediction):
    image, fov = (array.repeat(12, axis=0).repeat(12, axis=1) for array in (prediction.image, prediction.fov))
    mask = prediction.mask.repeat(12, axis=1).repeat(12, axis=2)
    assert len(made(replace(prediction, image=image, mask=mask, fov=fov))) < 8_000_000


@pytest.mark.parametrize("shape", [(206, 120), (100, 200)])
def test_pictures_of_any_shape_keep_off_the_text(prediction, drawn_page, shape):
    high, wide = shape
    image, fov = prediction.image[:high, :wide], prediction.fov[:high, :wide]
    cut = replace(prediction, image=image, mask=prediction.mask[:, :high, :wide], fov=fov)
    made(cut)
    check_layout(drawn_page[0])


@pytest.mark.parametrize("title", ["Smith$_^$", "田中太郎", "a" * 300, "x\ty"])
def test_any_title_is_text_of_one_line(prediction, drawn_page, title):
    pdf = report.one_page(prediction, title=title, columns=[], model="m")
    assert pages(pdf) == 1
    check_layout(drawn_page[0])
