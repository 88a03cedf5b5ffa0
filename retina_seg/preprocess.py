"""The only normalisation in the project: a photograph and its field of view to the array a network reads.

Deterministic and stored with the weights. No augmentation, no network, no files.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal, cast, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from retina_seg.errors import UserError
from retina_seg.fov import crop_box

Colour = Literal["rgb", "green", "grey"]

# Pixels kept around the field of view, so that filters at its rim see the same border in every photograph.
CROP_MARGIN = 8
# Pixels at the edge of the field of view that local contrast does not look at.
RIM = 3
# A field of view within this ratio of the wanted diameter is left at its own scale: resampling costs sharpness
# and would touch every photograph of the camera the network was trained on.
SCALE_TOLERANCE = 1.12
# A field of view must be as wide and high as two of the network's coarsest pixels (an encoder halves 4 to 5 times), and
# fill a part of its box that scattered pixels do not. A circle fills .79, its smallest part between two chords more.
LEAST_SIDE, LEAST_FILLED = 16, 0.1
# Longest side, px, that a photograph is enlarged to. Smaller fields of view of common cameras become 540 to 1,600.
MOST_ENLARGED = 8192


@dataclass(frozen=True)
class Preprocess:
    """What is done to every photograph before the network; equal for training and use.

    Attributes
    ----------
    colour : "rgb" (3 channels), "green" or "grey" (1 channel).
    clahe : contrast-limited adaptive histogram equalisation (clip 2, 8 x 8 tiles) on the lightness (rgb) or
        on the single channel.
    fov_diameter : wanted diameter of the field of view in pixels, or None for the photograph's own scale.
        Photographs whose diameter differs by more than SCALE_TOLERANCE are resampled to it.
    local_contrast : standard deviation in px, on the network's grid, of the Gaussian window whose mean is taken from
        every pixel and whose standard deviation divides it, each channel for itself; None leaves it out. What is
        left is what stands out from its surroundings, as dictionaries want it (Jarrett 2009). It goes on beyond the
        field of view, whose rim would be a line else.
    """

    colour: Colour = "rgb"
    clahe: bool = False
    fov_diameter: int | None = None
    local_contrast: float | None = None

    def __post_init__(self) -> None:
        """Refuse an unknown colour or a diameter no network could use."""
        if self.colour not in get_args(Colour):
            raise UserError(f"unknown colour {self.colour!r}: choose one of {', '.join(get_args(Colour))}")
        if self.fov_diameter is not None and self.fov_diameter < 64:
            raise UserError(f"fov_diameter is {self.fov_diameter} px: at least 64 is needed")
        if self.local_contrast is not None and not 1 <= self.local_contrast <= 500:
            raise UserError(f"local_contrast is {self.local_contrast} px: 1 to 500 are possible")

    @property
    def channels(self) -> int:
        """Channels of the array the network reads."""
        return 3 if self.colour == "rgb" else 1

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, for cards and configs."""
        return asdict(self)


@dataclass(frozen=True)
class Geometry:
    """How an array maps back to its photograph.

    Attributes
    ----------
    height, width : of the photograph, px.
    box : (y0, x0, y1, x1) of the crop around the field of view in the photograph.
    work : (h, w) of the crop after resampling; equal to the crop's own size where nothing was resampled.
    """

    height: int
    width: int
    box: tuple[int, int, int, int]
    work: tuple[int, int]

    @property
    def crop(self) -> tuple[int, int]:
        """(height, width) of the crop in the photograph's own pixels."""
        y0, x0, y1, x1 = self.box
        return y1 - y0, x1 - x0


@dataclass(frozen=True)
class Prepared:
    """What the network reads: `image` float32 (C, h, w), channels last in memory, `fov` bool (h, w), and the way
    back."""

    image: NDArray[np.float32]
    fov: NDArray[np.bool_]
    geometry: Geometry


def apply(image: NDArray[np.uint8], fov: NDArray[np.bool_], settings: Preprocess) -> Prepared:
    """Crop to the field of view, resample to the wanted scale and standardise.

    Each channel gets mean 0 and standard deviation 1 over the field of view; outside it the array is 0, with
    `local_contrast` that of the nearest pixel inside.

    Parameters
    ----------
    image : uint8 (H, W, 3), RGB.
    fov : bool (H, W), with at least one pixel set.

    Raises
    ------
    UserError
        If image and field of view do not fit each other or the field of view is empty.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise UserError(f"expected an RGB image uint8 (H, W, 3), got {image.dtype} {image.shape}")
    if fov.shape != image.shape[:2]:
        raise UserError(f"the field of view is {fov.shape}, the image {image.shape[:2]}: they must be equal")
    geometry = plan(fov, settings)
    inside = apply_to_target(fov, geometry)
    array = _channels(crop(image, geometry), settings)  # (h, w, C)
    if settings.local_contrast is not None:
        array = _local_contrast(array, _without_rim(inside), settings.local_contrast)
    mean, sd = cv2.meanStdDev(array, mask=inside.astype(np.uint8))  # float64 (C, 1); many times as fast as numpy
    mean, scale = mean[:, 0].astype(np.float32), np.maximum(sd[:, 0], 1e-3).astype(np.float32)
    array = (array - mean) / scale
    if settings.local_contrast is None:
        array[~inside] = 0
    return Prepared(array.transpose(2, 0, 1), inside, geometry)


def crop(image: NDArray[np.uint8], geometry: Geometry) -> NDArray[np.uint8]:
    """The part of a photograph uint8 (H, W, 3) that the network reads, at the scale it reads it, (h, w, 3)."""
    y0, x0, y1, x1 = geometry.box
    part = image[y0:y1, x0:x1]
    return part if geometry.work == geometry.crop else _resize(part, geometry.work)


def place(pixel: tuple[int, int], geometry: Geometry) -> tuple[int, int]:
    """Where a pixel (row, column) of the photograph lies in what the network reads.

    UserError for a pixel outside the photograph, or outside the part around its field of view.
    """
    y0, x0, y1, x1 = geometry.box
    y, x = pixel
    if not (y0 <= y < y1 and x0 <= x < x1):
        raise UserError(
            f"pixel {y}, {x} is not read: the photograph is {geometry.height} x {geometry.width}, its field of view "
            f"lies in rows {y0} to {y1 - 1} and columns {x0} to {x1 - 1}"
        )
    height, width = geometry.work
    return (y - y0) * height // (y1 - y0), (x - x0) * width // (x1 - x0)


def given_field(fov: Any, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """A field of view as somebody gave it, for a photograph (H, W, 3) or (H, W) of that shape, as bool (H, W).

    `fov` : (H, W) of two values: bool, or whole numbers or floats of 0 and one other, as masks in files have them.
    UserError for anything else, probabilities among it, which leave open where the field ends.
    """
    values = np.asarray(fov)
    if values.dtype.kind not in "biuf" or values.shape != tuple(shape[:2]):
        raise UserError(
            f"the field of view given is {values.dtype} {values.shape}: expected bool {tuple(shape[:2])}, as the image"
        )
    if values.dtype.kind != "b":
        there = values != 0
        if there.any() and not (values[there] == values[there][0]).all():
            raise UserError(
                f"the field of view given has values from {values.min():g} to {values.max():g}: expected bool, or 0 "
                "outside and one other value inside"
            )
        return cast(NDArray[np.bool_], there)
    return cast(NDArray[np.bool_], values)


def plan(fov: NDArray[np.bool_], settings: Preprocess) -> Geometry:
    """The crop box and the working size for a field of view bool (H, W).

    UserError for one that is empty, too small or too thin to show a retina, or that would become too large an array.
    """
    _check_field(fov)
    y0, x0, y1, x1 = crop_box(fov, CROP_MARGIN)
    work = (y1 - y0, x1 - x0)
    if settings.fov_diameter is not None:
        scale = settings.fov_diameter / diameter(fov)
        if max(scale, 1 / scale) > SCALE_TOLERANCE:
            work = (max(round(work[0] * scale), 1), max(round(work[1] * scale), 1))
            if scale > 1 and max(work) > MOST_ENLARGED:
                raise UserError(
                    f"the field of view, {diameter(fov)} px wide, would be enlarged to {work[1]} x {work[0]} px for "
                    f"this network (fov_diameter {settings.fov_diameter}): at most {MOST_ENLARGED} are possible"
                )
    return Geometry(fov.shape[0], fov.shape[1], (y0, x0, y1, x1), work)


def _check_field(fov: NDArray[np.bool_]) -> None:
    if not fov.any():
        raise UserError("the field of view is empty: nothing to segment")
    y0, x0, y1, x1 = crop_box(fov)
    height, width = y1 - y0, x1 - x0
    pixels = int(np.count_nonzero(fov[y0:y1, x0:x1]))
    if min(height, width) < LEAST_SIDE or pixels < LEAST_FILLED * height * width:
        raise UserError(
            f"the field of view has {pixels} pixels in a box of {width} x {height}: expected one piece at least "
            f"{LEAST_SIDE} px wide and high. Give the part of the photograph that shows the retina, or none to have it "
            "found"
        )


def diameter(fov: NDArray[np.bool_]) -> int:
    """Diameter of a field of view bool (H, W) in pixels: its longer side, as cameras cut the circle on the other."""
    y0, x0, y1, x1 = crop_box(fov)
    return max(y1 - y0, x1 - x0)


def apply_to_target(target: NDArray[np.bool_], geometry: Geometry) -> NDArray[np.bool_]:
    """A truth bool (H, W) on the network's grid, bool (h, w): for training only, scores use the untouched truth.

    A pixel is set where at least half of its area is.
    """
    return to_grid(target.astype(np.float32), geometry) >= 0.5


def to_grid(values: NDArray[np.float32], geometry: Geometry) -> NDArray[np.float32]:
    """Values float32 (H, W) of a photograph's pixels on the network's grid, float32 (h, w)."""
    y0, x0, y1, x1 = geometry.box
    crop = values[y0:y1, x0:x1]
    return crop.copy() if geometry.work == geometry.crop else _resize(crop, geometry.work)


def undo(prob: NDArray[np.float32], fov: NDArray[np.bool_], geometry: Geometry) -> NDArray[np.float32]:
    """Probabilities on the network's grid (K, h, w) at the photograph's size (K, H, W), zero outside `fov`.

    `fov` is the photograph's own, bool (H, W).
    """
    y0, x0, y1, x1 = geometry.box
    full = np.zeros((prob.shape[0], geometry.height, geometry.width), np.float32)
    for channel, values in enumerate(prob):
        if geometry.work != geometry.crop:
            values = _resize(values, geometry.crop, linear=True)
        full[channel, y0:y1, x0:x1] = values
    return np.clip(full, 0.0, 1.0) * fov


def _channels(crop: NDArray[np.uint8], settings: Preprocess) -> NDArray[np.float32]:
    """The wanted colour channels as float32 (h, w, C) in [0, 255]."""
    if settings.colour == "rgb":
        if settings.clahe:
            lab = cv2.cvtColor(crop, cv2.COLOR_RGB2LAB)
            lab = np.dstack([_equalise(lab[..., 0]), lab[..., 1:]])
            crop = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
        return crop.astype(np.float32)
    single = crop[..., 1] if settings.colour == "green" else cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    single = _equalise(single) if settings.clahe else single
    return single[..., None].astype(np.float32)


def _equalise(channel: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(np.ascontiguousarray(channel))


def _local_contrast(array: NDArray[np.float32], fov: NDArray[np.bool_], sigma: float) -> NDArray[np.float32]:
    """(x - m) / s with mean m and standard deviation s of the pixels of `fov` under a Gaussian window, (h, w, C); every
    pixel outside takes the value of the nearest one inside, so that the rim is no line.

    Both are weighted means over what lies inside (Knutsson & Westin 1993, normalised convolution): the dark frame
    around the retina is no part of them. s is at least half a grey level: less is rounding, not contrast.
    """
    weight = fov.astype(np.float32)
    share = np.maximum(_gaussian(weight, sigma), 1e-6)
    result = np.empty_like(array)
    for channel in range(array.shape[2]):
        values = array[..., channel] - array[..., channel][fov].mean()
        values = values - _gaussian(values * weight, sigma) / share
        deviation = np.sqrt(_gaussian(np.square(values) * weight, sigma) / share)
        result[..., channel] = values / np.maximum(deviation, 0.5)
    rows, columns = ndimage.distance_transform_edt(~fov, return_distances=False, return_indices=True)
    return result[rows, columns]


def _without_rim(fov: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The field of view without its outermost RIM px, where the photograph fades; all of it where that leaves none."""
    core = ndimage.binary_erosion(fov, iterations=RIM, border_value=1)
    return core if core.any() else fov


def _gaussian(values: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Values (h, w) under a Gaussian window of 3 standard deviations, 0 beyond the border."""
    side = 2 * round(3 * sigma) + 1
    return cv2.GaussianBlur(values, (side, side), sigma, borderType=cv2.BORDER_CONSTANT)


def _resize(array: NDArray[Any], size: tuple[int, int], *, nearest: bool = False, linear: bool = False) -> NDArray[Any]:
    """Resample to (h, w): area averaging down, cubic up; `linear` never overshoots, `nearest` keeps labels."""
    shrinking = size[0] < array.shape[0]
    method = cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC
    if linear:
        method = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    if nearest:
        method = cv2.INTER_NEAREST
    return cv2.resize(np.ascontiguousarray(array), (size[1], size[0]), interpolation=method)
