"""Doubts about a photograph and about the mask found in it: what was seen, what it means, what to do.

No network, no files, no drawing: the words a user must read before trusting numbers.

Every photograph is first reduced (or enlarged) until its field of view is `WORK_WIDTH` pixels wide, so that one set of
limits holds for every camera. The limits were chosen by two kinds of evidence, named where they stand:

* what real photographs show: DRIVE (40), STARE (20), CHASE_DB1 (28), IDRiD segmentation (81) and grading (516);
* Dice of the packaged DRIVE model, without flips, on eight DRIVE training photographs made worse step by step (.836
  untouched). They were trained on, so only the fall counts, not the height.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from retina_seg import framing
from retina_seg.fov import crop_box, erode

KINDS = (
    "not_fundus",
    "dark",
    "overexposed",
    "blurred",
    "noisy",
    "grey",
    "small_fov",
    "coarse",
    "empty",
    "implausible",
    "several",
    "covered",
    "surround",
)
WORK_WIDTH = 540
"""Pixels across the field of view at which everything is measured; that of DRIVE, so that its photographs stay."""

# Share of the frame. Real photographs: .65 to .80.
_LEAST_FOV = 0.2
# Of the width the model learnt on. DRIVE reduced to .6: Dice .80; .5: .79; .4: .76; .3: .70; .2: .54.
_LEAST_WIDTH = 0.6

# Share of the field of view under boxes of one colour. Real photographs: 0.
_COVERED, _MOST_COVERED = 0.001, 0.25

_RIM = 0.06  # of the width: left aside at the edge, where light falls off and filters would reach outside

# Mean grey level. Real photographs: 35 to 149. Darkness alone does no harm (mean 13: Dice .82), but sensor noise does
# not fade with the light: at two grey levels of it, Dice .64 at a mean of 39, .37 at 26, .15 at 19 ("noisy", all).
_DARK = 25.0
# Share of pixels whose green is at its end. Real photographs: at most .027. DRIVE made brighter: .12 (at most .33)
# leaves Dice .81 (at least .74), .66 leaves .72, .95 leaves .53.
_CLIPPED, _MOST_CLIPPED = 250, 0.3

# Standard deviation of the blur at strong edges, work pixels: `_edges`. DRIVE blurred further by a Gaussian of 1 px:
# Dice .81; 1.5 px: .75 (widths 1.6 to 1.9); 2 px: .60 (2.0 to 2.3); 2.5 px: .38; 4 px: .24; moved by 7 px: .73 (1.7 to
# 2.0), by 13 px: .59 (2.0 to 3.1). Real photographs: DRIVE, STARE, CHASE_DB1 and IDRiD segmentation at most 1.91; of
# the 516 of IDRiD grading 28 are beyond, some 20 of them soft to the eye, the others full of exudates or haemorrhages.
_BLURRED = 1.95
# Grain against the contrast of those edges. Real photographs: at most .37. DRIVE with noise of 3 grey levels: Dice .81
# (.24 to .42), at half the contrast .69 (.34 to .66), at three tenths .37 (.49 to 1.05); with 8 grey levels .54 (.46
# to .87).
_NOISY = 0.4

# Is it a fundus? These limits name what no camera and no light makes of a retina, and no photograph of the sets above,
# nor of ORVS, SRahimDR and DRISHTI-GS1 is beyond them; `gate` names the rest by what a network marks as vessels.
# Median blue against red. Real photographs: at most .47, and 1.3 with gains of .6 on red and 1.6 on blue; with red and
# blue exchanged: 2.1 and more.
_MOST_BLUE = 1.5
# (largest - smallest channel) / largest, mean. Real photographs: .52 and more; grey ones: 0.
_GREY = 0.1
# 99 % quantile of the gradient of log brightness, per work pixel. Real photographs: red at most .078, sharpened twice
# .089; green .099, in ORVS .17, and sharpened .22, but none of these is grey.
_STEEPEST_COLOUR, _STEEPEST_GREY = 0.13, 0.15
# Share of pixels with all channels at or above the level. Real photographs: 0, exudates and discs included.
_WHITE, _MOST_WHITE = 235, 0.1

# Vessels, as a share of the field of view. Found in real photographs: .033 to .181, but for five of IDRiD grading (.010
# to .030) that are so hazy or dark that most vessels are indeed missed. DRIVE blurred by 2.5 px: .34; most other
# pictures: below .01 or above .3.
_VESSELS = (0.03, 0.25)
# Largest extent of a connected vessel, and share of the mask in pieces longer than `_LONG`, both of the width.
# Real photographs, those five left aside: .42 and .28 at least.
_LEAST_SPAN, _LONG, _LEAST_LONG = 0.35, 0.3, 0.2
# Share of the mask further than `_CORE` work pixels inside it (the widest of DRIVE are 11 wide). Real photographs: at
# most .022, those five left aside.
_CORE, _MOST_CORE = 10.0, 0.05
# Optic disc, as a share of the field of view: .015 to .038 as drawn in IDRiD (50 degrees); up to three times that in
# narrower fields.
_DISC = (0.003, 0.12)

_ALWAYS_THERE = ("vessels", "disc")  # in every eye; a retina without lesions is a healthy one


@dataclass(frozen=True)
class Doubt:
    """One reason not to trust a photograph or its mask.

    Attributes
    ----------
    kind : one of KINDS.
    text : a sentence or two for a clinician: what was seen, what it means, what to do.
    withholds : whether numbers measured on the mask must not be shown: wherever vessels are missing or made up.
    """

    kind: str
    text: str
    withholds: bool


def withheld(doubts: Iterable[Doubt]) -> bool:
    """Whether one of them withholds what was found."""
    return any(doubt.withholds for doubt in doubts)


def for_grading(doubts: Iterable[Doubt]) -> tuple[Doubt, ...]:
    """The doubts as they bear on answers about the whole photograph: of one without colours they are withheld.

    Most lesions are known by their colour: exudates from drusen and reflexes, haemorrhages from pigment.
    """
    text = (
        "The photograph has no colours, by which exudates and haemorrhages are told from what looks like them: no "
        "answer is given. Take or choose a colour photograph."
    )
    return tuple(Doubt("grey", text, withholds=True) if doubt.kind == "grey" else doubt for doubt in doubts)


class Edges(NamedTuple):
    """Sharpness at the strong edges of a photograph.

    width : standard deviation of the blur, work pixels; contrast : gradient of log green, per work pixel;
    grain : robust standard deviation of the finest detail, in units of `contrast`.
    """

    width: float
    contrast: float
    grain: float


class _Field(NamedTuple):
    """What all measurements look at.

    small : uint8 (h, w, 3), the field of view `WORK_WIDTH` pixels wide; inner : bool (h, w), its part away from the
    rim; sample : (n,) flat indices of every eleventh pixel of that; smooth : (n, 3) means over 9 x 9 pixels there, as
    noise in the dark has every colour; grey : no colours.
    """

    small: NDArray[np.uint8]
    inner: NDArray[np.bool_]
    sample: NDArray[np.intp]
    smooth: NDArray[np.uint8]
    grey: bool

    def pixels(self) -> NDArray[np.uint8]:
        """The sampled pixels of `small`, (n, 3)."""
        return self.small.reshape(-1, 3)[self.sample]


def of_photograph(image: NDArray[np.uint8], fov: NDArray[np.bool_], *, fov_diameter: int | None = None) -> list[Doubt]:
    """What speaks against a photograph, whatever is found in it; empty where nothing does.

    Where it is no fundus photograph, its other faults are not listed, exposure apart.

    Parameters
    ----------
    image : uint8 (H, W, 3) RGB.
    fov : bool (H, W), the field of view, at least one pixel; what lies outside has no influence.
    fov_diameter : width in pixels of the field of view the model learnt on; None where it is unknown, and then
        nothing is "coarse".

    Raises
    ------
    ValueError
        for arrays of another shape or type, or an empty field of view
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or fov.shape != image.shape[:2]:
        raise ValueError(f"expected uint8 (H, W, 3) and bool (H, W), got {image.dtype} {image.shape} and {fov.shape}")
    field = _field(image, fov)
    framed = _framing(image, fov)
    exposure = _exposure(field.pixels())
    saturated = any(doubt.kind == "overexposed" for doubt in exposure)  # the colours are lost then
    if not (_structured_like_a_fundus(field) and (saturated or _coloured_like_a_fundus(field))):
        text = (
            "This does not look like a fundus photograph: its colours or its sharp outlines are not those of a "
            "retina. What a model finds in it means nothing; choose a photograph of the fundus."
        )
        return [Doubt("not_fundus", text, withholds=True), *framed, *exposure]
    return [*framed, *exposure, *_sharpness(field), *_colour(field), *_size(fov, fov_diameter)]


def of_mask(target: str, prob: NDArray[np.float32], mask: NDArray[np.bool_], fov: NDArray[np.bool_]) -> list[Doubt]:
    """What speaks against a mask, whatever the photograph looks like; empty where nothing does.

    Parameters
    ----------
    target : what the mask marks: "vessels", "disc" or a lesion.
    prob : float32 (H, W) in [0, 1].
    mask : bool (H, W), `prob` at or above a threshold.
    fov : bool (H, W), the field of view, at least one pixel; what lies outside has no influence.

    Raises
    ------
    ValueError
        for arrays of different shapes, or an empty field of view
    """
    if not prob.shape == mask.shape == fov.shape:
        raise ValueError(f"expected three arrays of one shape, got {prob.shape}, {mask.shape} and {fov.shape}")
    y0, x0, y1, x1 = crop_box(fov)
    inside = fov[y0:y1, x0:x1]
    marked = mask[y0:y1, x0:x1] & inside
    share = np.count_nonzero(marked) / np.count_nonzero(inside)
    name = target.replace("_", " ")
    if share == 0:
        if target not in _ALWAYS_THERE:
            return []
        highest = float(np.max(prob[y0:y1, x0:x1], where=inside, initial=0.0))
        told = "Every retina shows some" if target == "vessels" else "Most photographs show it"
        text = (
            f"No {name} found (highest probability {highest:.2f}). {told}: "
            "check the photograph and the outline of its field of view, or mark by hand."
        )
        return [Doubt("empty", text, withholds=True)]
    usual = {"vessels": _VESSELS, "disc": _DISC}.get(target)
    if usual is not None and not usual[0] <= share <= usual[1]:
        told = "7 to 14%" if target == "vessels" else "1 to 4%"
        text = (
            f"What is marked as {name} covers {share:.1%} of the field of view, usual is {told}. "
            "Do not use numbers from this mask; check the photograph, or mark by hand."
        )
        return [Doubt("implausible", text, withholds=True)]
    if target == "vessels" and (why := _no_tree(marked)):
        text = f"{why} Do not use numbers from this mask; check that this is a sharp photograph of a fundus."
        return [Doubt("implausible", text, withholds=True)]
    return []


def edges(image: NDArray[np.uint8], fov: NDArray[np.bool_]) -> Edges:
    """Sharpness and grain of a photograph uint8 (H, W, 3) in its field of view bool (H, W), in work pixels.

    A flat photograph has edges of infinite width and grain 0.
    """
    return _edges(_field(image, fov))


def reduced(image: NDArray[np.uint8], fov: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The part around the field of view, `WORK_WIDTH` pixels wide: image uint8 (h, w, 3) and field bool (h, w).

    `image` is uint8 (H, W, 3), `fov` bool (H, W) with at least one pixel.
    """
    y0, x0, y1, x1 = crop_box(fov)
    size, scale = _work_size(y1 - y0, x1 - x0)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = cv2.resize(np.ascontiguousarray(image[y0:y1, x0:x1]), size, interpolation=method)
    inside = cv2.resize(fov[y0:y1, x0:x1].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return small, inside > 0


def _field(image: NDArray[np.uint8], fov: NDArray[np.bool_]) -> _Field:
    small, inside = reduced(image, fov)
    size = inside.shape[::-1]
    coarse = erode(inside[::4, ::4], _RIM * WORK_WIDTH / 4)  # every fourth pixel: a twentieth of the time
    inner = cv2.resize(coarse.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    if not inner.any():  # a sliver of a field has nothing but rim
        inner = inside
    sample = np.flatnonzero(inner)[::11]
    smooth = cv2.blur(small, (9, 9)).reshape(-1, 3)[sample]
    top = smooth.max(axis=1).astype(np.float32)
    saturation = float(((top - smooth.min(axis=1)) / np.maximum(top, 1)).mean())
    return _Field(small, inner, sample, smooth, saturation < _GREY)


def _work_size(height: int, width: int) -> tuple[tuple[int, int], float]:
    """(width, height) of a field of view `WORK_WIDTH` pixels wide, and the scale that leads there."""
    scale = WORK_WIDTH / max(height, width)
    return (max(1, round(width * scale)), max(1, round(height * scale))), scale


def _framing(image: NDArray[np.uint8], fov: NDArray[np.bool_]) -> list[Doubt]:
    """Other photographs, covered parts, an unsure border."""
    seen = framing.measure(image, fov)
    if seen.several:
        text = (
            "There are several photographs in this picture, both eyes perhaps, and a model takes them for one: nothing "
            "found in it is right. Cut the picture, and give each photograph by itself."
        )
        return [Doubt("several", text, withholds=True)]
    doubts = []
    if seen.unsure:
        text = (
            "The photograph has no black border, and its field of view could not be told from what is around it. "
            "Check the outline of the field of view, make the border black, or cut the picture to the photograph."
        )
        doubts.append(Doubt("surround", text, withholds=True))
    if seen.covered > _COVERED:
        text = (
            f"Part of the photograph is covered ({seen.covered:.0%} of its field of view, by a label or a box over a "
            "name): nothing is known there, and numbers and grades speak of the rest only."
        )
        doubts.append(Doubt("covered", text, withholds=seen.covered > _MOST_COVERED))
    return doubts


def _exposure(pixels: NDArray[np.uint8]) -> list[Doubt]:
    """`pixels` (n, 3)."""
    doubts = []
    if pixels.mean() < _DARK:
        text = (
            f"The photograph is very dark (mean brightness {pixels.mean():.0f} of 255): vessels drown in the noise of "
            "the camera. Take it again with more light or a wider pupil."
        )
        doubts.append(Doubt("dark", text, withholds=True))
    clipped = float((pixels[:, 1] >= _CLIPPED).mean())
    if clipped > _MOST_CLIPPED:
        text = (
            f"The photograph is overexposed: {clipped:.0%} of the field of view is at the end of the scale, and "
            "vessels there are lost. Take it again with less light."
        )
        doubts.append(Doubt("overexposed", text, withholds=True))
    return doubts


def _sharpness(field: _Field) -> list[Doubt]:
    found = _edges(field)
    if found.grain > _NOISY:
        text = (
            "The photograph is grainy: thin and pale vessels cannot be told from noise and will be missing. "
            "Take or choose one with more light."
        )
        return [Doubt("noisy", text, withholds=True)]
    if found.width > _BLURRED and np.isfinite(found.width):
        text = (
            "The photograph is blurred: thin vessels and small lesions will be missing, wide ones marked too wide. "
            "Take or choose a sharper one."
        )
        return [Doubt("blurred", text, withholds=True)]
    return []


def _colour(field: _Field) -> list[Doubt]:
    # DRIVE's green channel, or its luminance, in place of the colours: Dice .82 and .83; its red channel: .64; green
    # inverted, as vessels shine in an angiogram: .01 with .4 % of the field marked, which `of_mask` refuses.
    if not field.grey:
        return []
    text = (
        "The photograph has no colours, the model learnt on colour photographs: vessels of a red-free photograph are "
        "found almost as well, lesions less, those of an angiogram or infrared picture not. Compare result and picture."
    )
    return [Doubt("grey", text, withholds=False)]


def _size(fov: NDArray[np.bool_], fov_diameter: int | None) -> list[Doubt]:
    doubts = []
    share = np.count_nonzero(fov) / fov.size
    if share < _LEAST_FOV:
        text = (
            f"The field of view covers only {share:.0%} of the picture: it may be a part of the true one. "
            "Check its outline, or cut the picture to the field of view."
        )
        doubts.append(Doubt("small_fov", text, withholds=True))
    y0, x0, y1, x1 = crop_box(fov)
    width = max(y1 - y0, x1 - x0)
    if fov_diameter is not None and width < _LEAST_WIDTH * fov_diameter:
        text = (
            f"The field of view is {width} pixels wide, the model learnt on {fov_diameter}: thin vessels and small "
            "lesions will be missing. Use the photograph at its full size."
        )
        doubts.append(Doubt("coarse", text, withholds=True))
    return doubts


def _structured_like_a_fundus(field: _Field) -> bool:
    """Whether the outlines are as soft as those of a retina, and little is white.

    Other pictures have steep outlines in red, too, which blood hardly absorbs.
    """
    if (field.pixels().min(axis=1) >= _WHITE).mean() > _MOST_WHITE:
        return False
    channel, limit = (1, _STEEPEST_GREY) if field.grey else (0, _STEEPEST_COLOUR)
    x, y = _gradient(_log(field.small[..., channel]), 2.0)
    return float(np.quantile(cv2.magnitude(x, y).ravel()[field.sample], 0.99)) <= limit


def _coloured_like_a_fundus(field: _Field) -> bool:
    """Whether red is not far behind blue, which a retina and the lens before it absorb; True for grey photographs."""
    if field.grey:
        return True
    red, green, blue = np.median(field.smooth, axis=0)
    return bool(blue <= max(green, _MOST_BLUE * red))


def _log(channel: NDArray[np.uint8]) -> NDArray[np.float32]:
    table = np.log(np.arange(256, dtype=np.float32) + 8)  # 8: noise of the dark stays small
    return cv2.LUT(channel, table)


def _gradient(values: NDArray[np.float32], sigma: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Derivatives along x and y, per pixel, after a Gaussian of `sigma` pixels."""
    smooth = cv2.GaussianBlur(values, (0, 0), sigma)
    return cv2.Sobel(smooth, -1, 1, 0, ksize=1, scale=0.5), cv2.Sobel(smooth, -1, 0, 1, ksize=1, scale=0.5)


def _edges(field: _Field) -> Edges:
    """Blur at the strong edges of all parts of the field.

    A step blurred by s has, after a further Gaussian of sigma, its steepest gradient in proportion to
    1 / sqrt(s^2 + sigma^2); the ratio r of that at sigma 1 and 2 gives s^2 = (4 - r^2) / (r^2 - 1). The gradient at
    sigma 1 is taken along that at sigma 2, where grain mostly averages out.
    """
    values = _log(field.small[..., 1])
    (x1, y1), (x2, y2) = _gradient(values, 1.0), _gradient(values, 2.0)
    strength = cv2.magnitude(x2, y2)
    chosen = _strong(strength, field)
    fine = cv2.GaussianBlur(values, (0, 0), 0.6) - cv2.GaussianBlur(values, (0, 0), 1.2)
    weight = strength[chosen]
    contrast = float(weight.mean()) if weight.size else 0.0
    if contrast < 1e-6:
        return Edges(float("inf"), 0.0, 0.0)
    grain = 1.4826 * float(np.median(np.abs(fine.ravel()[field.sample]))) / contrast
    along = (x1[chosen] * x2[chosen] + y1[chosen] * y2[chosen]) / weight
    # A camera or an eye that moved blurs one direction only: the mean square over four directions tells that too.
    turn = np.arctan2(y2[chosen], x2[chosen]) * (4 / np.pi) + 0.5
    direction = np.floor(turn).astype(int) % 4  # opposite gradients are one direction
    squares = []
    for number in range(4):
        these = direction == number
        if these.mean() > 0.03:
            ratio = float(along[these].sum() / weight[these].sum())
            squares.append(max(4 - ratio**2, 0.0) / max(ratio**2 - 1, 0.01) if ratio > 0 else 400.0)
    return Edges(float(np.sqrt(np.mean(squares))), contrast, grain)


def _strong(strength: NDArray[np.float32], field: _Field) -> NDArray[np.bool_]:
    """The steepest pixels of every part of the field: one soft outline, of a haemorrhage or a reflex, decides nothing.

    The steepest 7 % of each of 5 x 5 parts, where they are not much weaker than the steepest 5 % of all.
    """
    inner = field.inner
    chosen = np.zeros_like(inner)
    floor = max(0.7 * float(np.quantile(strength.ravel()[field.sample], 0.95)), 1e-6)
    rows, columns = (np.linspace(0, side, 6).astype(int) for side in inner.shape)
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            part = np.s_[top:bottom, left:right]
            if np.count_nonzero(inner[part]) > 0.2 * inner[part].size:
                every = np.s_[top:bottom:2, left:right:2]
                known = strength[every][inner[every]]
                limit = max(floor, float(np.quantile(known, 0.93))) if known.size else floor
                chosen[part] = inner[part] & (strength[part] >= limit)
    return chosen


def _no_tree(marked: NDArray[np.bool_]) -> str:
    """Why a mask of vessels, bool (h, w) cut to the field of view, is no vessel tree; empty where it may be one."""
    size, scale = _work_size(*marked.shape)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = (cv2.resize(marked.astype(np.uint8) * 255, size, interpolation=method) >= 128).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(small, connectivity=8)
    pieces = stats[1:]
    area = pieces[:, cv2.CC_STAT_AREA]
    extent = np.maximum(pieces[:, cv2.CC_STAT_WIDTH], pieces[:, cv2.CC_STAT_HEIGHT]) / WORK_WIDTH
    total = max(int(area.sum()), 1)
    if extent.max(initial=0.0) < _LEAST_SPAN or area[extent >= _LONG].sum() / total < _LEAST_LONG:
        return f"The {len(area)} marked pieces are short and do not join to a vessel tree."
    distance = cv2.distanceTransform(small, cv2.DIST_L2, cv2.DIST_MASK_5)
    if np.count_nonzero(distance > _CORE) / total > _MOST_CORE:
        return "Broad areas are marked, not thin vessels."
    return ""
