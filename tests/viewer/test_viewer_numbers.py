import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from retina_seg import biomarkers, metrics
from retina_seg.viewer import numbers


def test_measured_is_what_the_library_measures(prediction, two_targets):
    assert numbers.measure(prediction) == asdict(biomarkers.measure(prediction.mask[0], prediction.fov))
    measured = numbers.measure(two_targets)
    disc = {"disc_count": measured.pop("disc_count"), "disc_pixels": int(two_targets.mask[1].sum())}
    assert measured | disc == asdict(biomarkers.measure(two_targets.mask[0], two_targets.fov)) | disc


def test_lesions_are_counted_and_measured_in_disc_areas(prediction):
    mask = np.zeros_like(prediction.mask)
    mask[0, 40:44, 40:45] = mask[0, 60:64, 40:45] = True
    spots = replace(prediction, targets=("haemorrhages",), mask=mask, mask_doubts=())
    measured = numbers.measure(spots, disc_pixels=100)
    assert measured == {"haemorrhages_count": 2, "haemorrhages_pixels": 40, "haemorrhages_disc_areas": 0.4}
    (read,) = numbers.readable(measured)
    assert (read.label, read.value) == ("Haemorrhages", "2, 0.40 disc areas")
    assert numbers.readable(numbers.measure(spots, disc_pixels=100_000))[0].value == "2, less than 0.01 disc areas"
    assert numbers.readable(numbers.measure(spots))[0].value == "2, 40 px"
    nothing = replace(spots, mask=np.zeros_like(mask))
    assert numbers.readable(numbers.measure(nothing, disc_pixels=100))[0].value == "none found"


def test_the_disc_is_measured_in_pixels(prediction):
    mask = np.zeros_like(prediction.mask)
    mask[0, 40:60, 40:60] = True
    disc = replace(prediction, targets=("disc",), mask=mask, mask_doubts=())
    assert numbers.measure(disc) == {"disc_count": 1, "disc_pixels": 400}
    (read,) = numbers.readable(numbers.measure(disc))
    assert (read.label, read.value) == ("Optic disc", "400 px")


def test_scores_of_several_targets_name_theirs(prediction, drawing):
    mask, fov = prediction.mask[0], prediction.fov
    scores = numbers.scores(mask, drawing.vessels, fov, 0.9, of="hard_exudates")
    assert [one.label for one in scores][:2] == ["Dice, hard exudates", "Sensitivity, hard exudates"]


def test_doubts_withhold_the_numbers(prediction, doubtful, worthless):
    assert numbers.withheld(prediction) == numbers.withheld(doubtful) == []
    assert numbers.withheld(worthless) == ["No tree."]
    assert numbers.measure(doubtful) == numbers.measure(prediction)
    assert numbers.measure(worthless) == {}


def test_numbers_are_read_with_their_unit(prediction):
    measured = numbers.measure(prediction)
    read = {one.name: one for one in numbers.readable(measured)}
    assert list(read) == [name for name in biomarkers.DESCRIPTIONS if name in measured]
    assert read["density"].value == f"{100 * measured['density']:.1f} % of the field of view"
    for name in set(measured) - {"density"}:
        digits = biomarkers.DESCRIPTIONS[name].digits
        assert float(read[name].value.split()[0]) == pytest.approx(measured[name], abs=0.51 * 10**-digits)
    assert read["calibre_px"].value.endswith(" px")
    assert all(one.label and one.sentence.endswith(".") for one in read.values())
    assert numbers.readable({}) == []


def test_lengths_come_in_micrometres_where_a_pixel_is_known():
    measured = {"density": 0.1, "calibre_px": 3.2, "tortuosity": 1.04, "length_px": 1000.0}
    read = {one.name: one.value for one in numbers.readable(measured, 10.0)}
    assert read["calibre_px"] == "3.2 px = 32 µm"
    assert read["length_px"] == "1000 px = 10.0 mm"
    assert "µm" not in read["density"] + read["tortuosity"]


@pytest.mark.parametrize("um_per_px", [None, 10.0])
def test_what_cannot_be_measured_is_said_in_words(prediction, um_per_px):
    empty = replace(prediction, mask=np.zeros_like(prediction.mask))
    read = {one.name: one.value for one in numbers.readable(numbers.measure(empty), um_per_px)}
    assert read["calibre_px"] == read["tortuosity"] == read["fractal_dimension"] == "not measurable"
    assert not any("nan" in value for value in read.values())


def test_scores_are_those_of_the_library(prediction, drawing):
    mask, fov = prediction.mask[0], prediction.fov
    auc = metrics.auc(prediction.prob[0], drawing.vessels, fov)
    shown = {one.name: one.value for one in numbers.scores(mask, drawing.vessels, fov, auc)}
    assert shown == {
        "dice": f"{metrics.dice(mask, drawing.vessels, fov):.3f}",
        "sensitivity": f"{metrics.sensitivity(mask, drawing.vessels, fov):.3f}",
        "specificity": f"{metrics.specificity(mask, drawing.vessels, fov):.3f}",
        "auc": f"{auc:.3f}",
    }


def test_an_undefined_score_is_said_in_words():
    nothing = np.zeros((4, 4), np.bool_)
    shown = {one.name: one.value for one in numbers.scores(nothing, nothing, ~nothing, math.nan)}
    assert shown["auc"] == shown["sensitivity"] == "undefined"
    assert shown["specificity"] == "1.000"
