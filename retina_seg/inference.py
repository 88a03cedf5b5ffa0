"""From a photograph to a Prediction at the photograph's own size: the one way every user takes.

No metrics, no drawing; the only place where a network meets a photograph outside training.
"""

import hashlib
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray
from torch import Tensor, nn

from retina_seg import files, gate, io, overlay, preprocess, quality
from retina_seg._version import __version__
from retina_seg.checkpoint import Card
from retina_seg.decode import InMemory, Placement, Source, placement
from retina_seg.errors import UserError
from retina_seg.fov import crop_box, find_fov
from retina_seg.models.blocks import fold_norms
from retina_seg.preprocess import Geometry
from retina_seg.quality import Doubt

# Photographs up to this many pixels go through the network whole; larger ones by overlapping windows.
WHOLE_IMAGE_PIXELS = 1280 * 1280
WINDOW_OVERLAP = 0.25
# Vessels cover 5 to 20 % of a retina. A picture without a border that would hold more than this is something else.
MOST_VESSELS = 0.5
DEVICES = ("auto", "cpu", "cuda")
FLIPS: tuple[tuple[int, ...], ...] = ((), (2,), (3,), (2, 3))  # axes of (N, C, h, w)
SAVED = ("mask", "prob", "overlay", "nifti")


@dataclass(frozen=True)
class Prediction:
    """What a network says about one photograph, at the photograph's own size.

    Attributes
    ----------
    prob : float32 (K, H, W) in [0, 1], zero outside the field of view.
    mask : bool (K, H, W), prob at or above the threshold of its target, inside the field of view.
    fov : bool (H, W).
    image : uint8 (H, W, 3), the photograph.
    targets : the K names.
    thresholds : the K thresholds.
    provenance : model, weights hash, versions, sizes, seconds, warnings; plain values.
    photograph_doubts, mask_doubts : why the result should not be trusted (`quality`).
    placement : where the pixels of a NIfTI photograph lie; None for other photographs.
    """

    prob: NDArray[np.float32]
    mask: NDArray[np.bool_]
    fov: NDArray[np.bool_]
    image: NDArray[np.uint8]
    targets: tuple[str, ...]
    thresholds: tuple[float, ...]
    provenance: Mapping[str, Any]
    photograph_doubts: tuple[Doubt, ...] = ()
    mask_doubts: tuple[Doubt, ...] = ()
    placement: Placement | None = None

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """Why the result should not be trusted; those of the mask follow the threshold."""
        return self.photograph_doubts + self.mask_doubts

    def at(self, *thresholds: float) -> "Prediction":
        """The same prediction with other thresholds, one for each target; the network does not run again.

        UserError for another number of thresholds than of targets, and for what is no number from 0 to 1.
        """
        if len(thresholds) != len(self.targets):
            raise UserError(f"{len(thresholds)} thresholds for the {len(self.targets)} targets {self.targets}")
        if not all(isinstance(value, Real) and 0 <= value <= 1 for value in thresholds):
            raise UserError(f"thresholds {thresholds}: expected numbers from 0 to 1")
        thresholds = tuple(map(float, thresholds))
        mask = threshold(self.prob, thresholds, self.fov)
        doubts = _mask_doubts(self.targets, self.prob, mask, self.fov)
        provenance = {
            **self.provenance,
            **_thresholded(self.targets, thresholds, mask, self.fov),
            "threshold_source": "given by the caller",
            "warnings": [doubt.text for doubt in self.photograph_doubts + doubts],
        }
        return replace(self, mask=mask, thresholds=thresholds, provenance=provenance, mask_doubts=doubts)

    def encode(
        self,
        stem: str,
        *,
        what: tuple[str, ...] = ("mask", "prob", "overlay"),
        pixel_size_mm: float | None = None,
    ) -> dict[str, bytes]:
        """Name and content of the files that `save` writes; nothing touches the disk.

        They are those of `names_of`; the last is always `<stem>.json`. The overlay of several targets has a legend
        below the photograph. Of the photograph's file they hold the pixels, in the JSON its name and hashes
        (`identity`), and as NIfTI where it lies; none of its other metadata. Each carries a seal by which the program
        knows it again (`files`).

        Parameters
        ----------
        stem : how the names begin.
        what : of `SAVED`.
        pixel_size_mm : side of a pixel; goes into the NIfTI header and, in micrometres, into the JSON.

        Raises
        ------
        UserError
            For an unknown `what`, a pixel size that is not a number above 0, and a stem or target that cannot be
            part of a file's name.
        """
        if pixel_size_mm is not None and not (isinstance(pixel_size_mm, Real) and 1e-9 < pixel_size_mm < 1e9):
            raise UserError(f"a pixel size of {pixel_size_mm!r} mm: expected a number above 0, such as 0.0075")
        names = names_of(stem, self.targets, what)
        contents: dict[str, bytes] = {}
        for kind, target, name in names:
            channel = self.targets.index(target) if target else 0
            if kind == "mask":
                contents[name] = io.mask_png(self.mask[channel])
            elif kind == "prob":
                contents[name] = io.probability_tiff(self.prob[channel])
            elif kind == "nifti":
                content = io.nifti(self.mask[channel], pixel_size_mm, placement=self.placement)
                contents[name] = files.sealed(files.gzip_comment(content, files.blank_seal()))
            elif kind == "overlay":
                picture = overlay.blend(self.image, self.mask, self.targets)
                if len(self.targets) > 1:
                    picture = np.concatenate([picture, overlay.legend(picture.shape[1], self.targets)])
                contents[name] = io.rgb_png(picture, files.RESULT)
        record = dict(self.provenance)
        if pixel_size_mm is not None:
            record["pixel_size_um"] = round(1000 * pixel_size_mm, 6)
        record["files"] = [name for _, _, name in names]
        record["files_sha256"] = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        return {**contents, f"{stem}.json": io.sealed_json(record)}

    def save(
        self,
        folder: str | Path,
        stem: str,
        *,
        what: tuple[str, ...] = ("mask", "prob", "overlay"),
        pixel_size_mm: float | None = None,
        overwrite: bool = False,
    ) -> list[Path]:
        """Write the files of `encode` into a folder, which is made where it is missing: all of them or none.

        Files that are there already are replaced where they are results of the same photograph, unchanged since, or
        with `overwrite`.

        Returns the paths, the JSON last. Raises UserError as `encode` does, where a file cannot be written, and where
        one would be lost.
        """
        contents = self.encode(stem, what=what, pixel_size_mm=pixel_size_mm)
        folder = files.make_folder(folder)
        files.check_replaceable((folder / name for name in contents), overwrite=overwrite)
        there = [folder / name for name in contents if files.is_file(folder / name)]
        mine = set(self.provenance.get("photograph", {}).values())
        if there and not overwrite and not mine & set(photograph_of(folder / f"{stem}.json").values()):
            raise UserError(
                f"{there[-1]} is of another photograph, or there is no record of which: choose another name for the "
                "results, or replace them with overwrite=True"
            )
        return files.write_all(folder, contents)


def names_of(stem: str, targets: Sequence[str], what: Sequence[str]) -> list[tuple[str, str, str]]:
    """Kind of `SAVED`, target and name of each file that `Prediction.encode` makes, the JSON last.

    They are `<stem>_mask.png`, `_prob.tif`, `_mask.nii.gz` of each target, with several `<stem>_<target>_mask.png`;
    `<stem>_overlay.png` and `<stem>.json`, whose target is "".

    Raises
    ------
    UserError
        For an unknown `what`, and for a stem or target that would leave the folder or is no name of a file.
    """
    if unknown := set(what) - set(SAVED):
        raise UserError(f"cannot save {', '.join(sorted(unknown))}: choose from {', '.join(SAVED)}")
    # A stem comes from a file of this computer, where "a\\b" may be one; a card with its targets from anywhere.
    if not isinstance(stem, str):
        raise UserError(f"a stem of type {type(stem).__name__}: expected text, how the names of the files begin")
    for text, forbidden in ((stem, {"/", "\0", os.sep}), *((target, {"/", "\0", "\\"}) for target in targets)):
        if not text or text in (".", "..") or forbidden & set(text):
            raise UserError(f"{text!r} cannot be part of a file's name: leave out slashes and folders")
    found = [
        (kind, target, f"{stem}_{target}{_ENDS[kind]}" if len(targets) > 1 else stem + _ENDS[kind])
        for target in targets
        for kind in ("mask", "prob", "nifti")
        if kind in what
    ]
    if "overlay" in what:
        found.append(("overlay", "", f"{stem}_overlay.png"))
    return [*found, ("", "", f"{stem}.json")]


_ENDS = {"mask": "_mask.png", "prob": "_prob.tif", "nifti": "_mask.nii.gz"}


def photograph_of(record: Path) -> dict[str, str]:
    """`identity` of the photograph whose result a JSON file records; {} where it does not say."""
    try:
        found = files.read_json(record)
    except UserError:
        return {}
    known = found.get("photograph") if isinstance(found, dict) else None
    return known if isinstance(known, dict) else {}


def identity(image: NDArray[np.uint8], source: Source | None) -> dict[str, str]:
    """Hashes (SHA-256) by which a photograph uint8 (H, W, 3) and the file it is from are known again.

    Of the pixels, and of a file also of its bytes and, on disk, of its path.
    """
    found = {"pixels_sha256": hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()}
    if source is not None:
        found["file_sha256"] = _file_hash(source)
    if isinstance(source, Path):
        found["path_sha256"] = _path_hash(source)
    return found


def is_of(record: Path, source: Path) -> bool:
    """Whether a JSON file records a result of a photograph: of that file, of one with its bytes, or with its pixels.

    UserError or OSError where that is no file of a photograph.
    """
    if not files.is_file(source):  # a pipe would be waited for, a device never end
        raise UserError(f"{source}: no such file")
    known = photograph_of(record)
    if known.get("path_sha256") == _path_hash(source) or known.get("file_sha256") == _file_hash(source):
        return True
    pixels = identity(io.read_image(source), None)["pixels_sha256"] if "pixels_sha256" in known else ""
    return bool(pixels) and known["pixels_sha256"] == pixels


def _path_hash(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path.absolute())).hexdigest()


def _file_hash(source: Source) -> str:
    if isinstance(source, InMemory):
        return hashlib.sha256(source.data).hexdigest()
    with source.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Segmenter:
    """A network with its card, ready for photographs of any size.

    Parameters
    ----------
    net : network that gives logits (N, K, h, w), on `device`; it is for use from then on, no longer for training.
    card : its card.
    device : "auto" (the GPU where there is one), "cpu" or "cuda".
    flips : average the probabilities of the four flips; None does what the card says.

    Examples
    --------
    >>> prediction = Segmenter.from_pretrained("vessels-drive").predict("photograph.jpg")  # doctest: +SKIP
    >>> prediction.mask.shape  # doctest: +SKIP
    (1, 584, 565)
    """

    def __init__(self, net: nn.Module, card: Card, device: str = "auto", *, flips: bool | None = None) -> None:
        self.device = choose_device(device)
        self.card = card
        self.flips = card.inference.flips if flips is None else flips
        self.settings = preprocess.Preprocess(**card.preprocess)
        fold_norms(net.eval())
        self.net = net.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def targets(self) -> tuple[str, ...]:
        """What it finds, in the order of its predictions."""
        return self.card.targets

    @classmethod
    def from_pretrained(cls, name: str | Path, device: str = "auto", *, flips: bool | None = None) -> "Segmenter":
        """The packaged model called `name`, or the model of a run folder; UserError lists the packaged ones."""
        from retina_seg import zoo

        net, card = zoo.load(name)
        return cls(net, card, device, flips=flips)

    def predict(
        self,
        source: str | Path | InMemory | NDArray[Any] | PIL.Image.Image,
        fov: NDArray[np.bool_] | None = None,
        *,
        judge: bool = True,
    ) -> Prediction:
        """Segment one photograph.

        Parameters
        ----------
        source : file, by its path or in memory (nothing touches the disk), uint8 (H, W, 3) RGB, or an array or a PIL
            image that is read as a file with its pixels would be (`io.as_photograph`).
        fov : field of view bool (H, W); found in the photograph where None.
        judge : look whether the picture shows a retina at all (`photograph_doubts`), which takes a tenth of a second;
            leave it out where nobody reads the doubts. Masks and probabilities are the same.

        Raises
        ------
        UserError
            If the file or array cannot be a fundus photograph.
        """
        started = time.perf_counter()
        photograph = opened(source, fov)
        prepared = preprocess.apply(photograph.image, photograph.fov, self.settings)
        prob = predict_probability(
            self.net, prepared.image, device=self.device, flips=self.flips, window=self.card.inference.window
        )
        return concluded(
            photograph,
            preprocess.undo(prob, photograph.fov, prepared.geometry),
            targets=self.card.targets,
            thresholds=tuple(self.card.thresholds[target] for target in self.card.targets),
            facts=self._provenance(prepared.geometry),
            fov_diameter=self.settings.fov_diameter,
            started=started,
            judge=judge,
        )

    def _provenance(self, geometry: Geometry) -> dict[str, Any]:
        """What the result of any photograph of this geometry owes to the model."""
        return {
            "model": self.card.name,
            "weights_sha256": self.card.weights_sha256,
            "threshold_source": self.card.threshold_source,
            "flips": self.flips,
            "working_width": geometry.work[1],
            "working_height": geometry.work[0],
            "device": self.device,
        }


@dataclass(frozen=True)
class Opened:
    """A photograph as it is segmented.

    Attributes
    ----------
    image, fov : uint8 (H, W, 3) and bool (H, W).
    fov_given : whether the caller gave the field of view; else it was found.
    source : the file it is from; None for an array.
    """

    image: NDArray[np.uint8]
    fov: NDArray[np.bool_]
    fov_given: bool
    source: Source | None


def opened(
    given: str | Path | InMemory | NDArray[Any] | PIL.Image.Image, fov: NDArray[np.bool_] | None = None
) -> Opened:
    """Read what `Segmenter.predict` is given, and find the field of view where `fov` is None; raises as it does."""
    if isinstance(given, str | os.PathLike | InMemory):
        source: Source | None = io.as_source(given)
        image = io.read_image(given)
    else:
        source, image = None, io.as_photograph(given)
    inside = find_fov(image) if fov is None else preprocess.given_field(fov, image.shape)
    return Opened(image, inside, fov is not None, source)


def concluded(
    photograph: Opened,
    prob: NDArray[np.float32],
    *,
    targets: tuple[str, ...],
    thresholds: tuple[float, ...],
    facts: Mapping[str, Any],
    fov_diameter: int | None,
    started: float,
    judge: bool = True,
) -> Prediction:
    """The Prediction from probabilities float32 (K, H, W): masks, doubts and where everything comes from.

    Parameters
    ----------
    facts : what the result owes to the model, for the provenance.
    fov_diameter : width of the field of view the model learnt on, px (`quality.of_photograph`).
    started : `time.perf_counter()` of the beginning.
    judge : look whether the picture shows a retina at all (`photograph_doubts`).

    Raises
    ------
    UserError
        For a picture without a border, most of which would be vessels.
    """
    image, fov = photograph.image, photograph.fov
    mask = threshold(prob, thresholds, fov)
    if not photograph.fov_given and fov.all() and "vessels" in targets:
        share = mask[targets.index("vessels")].mean()
        if share > MOST_VESSELS:
            raise UserError(
                f"no border of a field of view, and {share:.0%} of the picture would be vessels: "
                "is it a fundus photograph?"
            )
    of_photograph = photograph_doubts(image, fov, fov_diameter=fov_diameter, judge=judge)
    of_mask = _mask_doubts(targets, prob, mask, fov)
    source = photograph.source
    provenance = {
        "source": None if source is None else source.name,
        "photograph": identity(image, source),
        **facts,
        "targets": list(targets),
        "height": image.shape[0],
        "width": image.shape[1],
        **_thresholded(targets, thresholds, mask, fov),
        "field_of_view": {
            "source": "given" if photograph.fov_given else "found",
            "box_y0_x0_y1_x1": list(crop_box(fov, preprocess.CROP_MARGIN)),
            "fraction_of_image": float(fov.mean()),
        },
        "versions": {"retina_seg": __version__, "python": platform.python_version(), **_library_versions()},
        "seconds": round(time.perf_counter() - started, 4),
        "warnings": [doubt.text for doubt in of_photograph + of_mask],
    }
    lies = None if source is None else placement(source)
    return Prediction(prob, mask, fov, image, targets, thresholds, provenance, of_photograph, of_mask, lies)


@cache
def _library_versions() -> dict[str, str]:
    """Versions of the libraries that bear on a result; looking them up takes milliseconds."""
    return {name: version(name) for name in ("torch", "monai", "numpy")}


def saved(names: str) -> tuple[str, ...]:
    """What `Prediction.save` writes, from text such as "mask,prob"; UserError for an unknown name."""
    what = tuple(name.strip() for name in names.split(",") if name.strip())
    wrong = [name for name in what if name not in SAVED]
    if not what or wrong:
        raise UserError(f"cannot save {', '.join(wrong) or 'nothing'}: choose one or more of {','.join(SAVED)}")
    return what


def choose_device(device: str) -> str:
    """Return "cpu" or "cuda"; UserError where a GPU is asked for and there is none."""
    if device not in DEVICES:
        raise UserError(f"unknown device {device!r}: choose one of {', '.join(DEVICES)}")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no GPU here; use --device cpu or auto")
    return device


def threshold(prob: NDArray[np.float32], thresholds: tuple[float, ...], fov: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """`prob` (K, H, W) at or above the threshold of its channel, inside `fov` (H, W)."""
    return (prob >= np.asarray(thresholds, np.float32)[:, None, None]) & fov


def photograph_doubts(
    image: NDArray[np.uint8], fov: NDArray[np.bool_], *, fov_diameter: int | None = None, judge: bool = True
) -> tuple[Doubt, ...]:
    """What speaks against a photograph, whatever a model finds in it; () where nothing does.

    Where its quality (`quality.of_photograph`, with the same parameters and errors) withholds nothing, and with
    `judge`, a small network looks for vessels in it, and `gate` says whether they are those of a retina: one and the
    same answer for models of vessels, of lesions and of grades.
    """
    found = quality.of_photograph(image, fov, fov_diameter=fov_diameter)
    if judge and not quality.withheld(found):
        small, inside = quality.reduced(image, fov)
        measured = gate.measures(small, inside, _vessels(small, inside))
        found += gate.doubts(measured, grey=any(doubt.kind == "grey" for doubt in found))
    return tuple(found)


def _vessels(small: NDArray[np.uint8], inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Probability of vessels float32 (h, w) in what `quality.reduced` gives."""
    finder = _finder()
    prepared = preprocess.apply(small, inside, finder.settings)
    prob = predict_probability(finder.net, prepared.image)
    return preprocess.undo(prob, inside, prepared.geometry)[0]


@cache
def _finder() -> Segmenter:
    """The small network for vessels, loaded once."""
    return Segmenter.from_pretrained("vessels-small", "cpu", flips=False)


def _mask_doubts(
    targets: tuple[str, ...], prob: NDArray[np.float32], mask: NDArray[np.bool_], fov: NDArray[np.bool_]
) -> tuple[Doubt, ...]:
    """Doubts about the K masks."""
    return tuple(doubt for t, p, m in zip(targets, prob, mask, strict=True) for doubt in quality.of_mask(t, p, m, fov))


def _thresholded(
    targets: tuple[str, ...], thresholds: tuple[float, ...], mask: NDArray[np.bool_], fov: NDArray[np.bool_]
) -> dict[str, Any]:
    """Thresholds and marked areas by target, for the provenance."""
    return {
        "thresholds": dict(zip(targets, thresholds, strict=True)),
        "area_fraction_of_fov": {t: float(m.sum() / fov.sum()) for t, m in zip(targets, mask, strict=True)},
    }


@torch.inference_mode()
def predict_probability(
    net: nn.Module,
    image: NDArray[np.float32],
    *,
    device: str = "cpu",
    flips: bool = False,
    window: int = 1024,
) -> NDArray[np.float32]:
    """Probabilities (K, h, w) of a prepared image float32 (C, h, w), the sigmoid applied once.

    `flips` averages the probabilities of the four flips. Images of more than WHOLE_IMAGE_PIXELS are covered by
    windows of `window` pixels that overlap by a quarter and are blended with Gaussian weights.
    """
    batch = torch.from_numpy(image)[None]  # (1, C, h, w)
    variants = FLIPS if flips else FLIPS[:1]
    probs = [torch.flip(_probability(net, torch.flip(batch, axes), device, window), axes) for axes in variants]
    return (sum(probs[1:], probs[0]) / len(probs))[0].numpy()


def _probability(net: nn.Module, batch: Tensor, device: str, window: int) -> Tensor:
    """(1, C, h, w) to probabilities (1, K, h, w) on the CPU."""

    def run(tensor: Tensor) -> Tensor:
        return torch.sigmoid(net(tensor.to(memory_format=torch.channels_last)).float())

    if batch.shape[2] * batch.shape[3] <= WHOLE_IMAGE_PIXELS:
        return run(batch.to(device)).cpu()
    return sliding_window_inference(
        batch,
        roi_size=(window, window),
        sw_batch_size=1,
        predictor=run,
        overlap=WINDOW_OVERLAP,
        mode="gaussian",
        sw_device=device,
        device="cpu",
    )
