"""From a photograph to a Prediction at the photograph's own size: the one way every user takes.

No metrics, no drawing; the only place where a network meets a photograph outside training.
"""

import math
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray
from torch import Tensor, nn

from retina_seg import io, overlay, preprocess, quality
from retina_seg._version import __version__
from retina_seg.checkpoint import Card
from retina_seg.decode import InMemory
from retina_seg.errors import UserError
from retina_seg.fov import find_fov
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

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """Why the result should not be trusted; those of the mask follow the threshold."""
        return self.photograph_doubts + self.mask_doubts

    def at(self, *thresholds: float) -> "Prediction":
        """The same prediction with other thresholds, one for each target; the network does not run again."""
        if len(thresholds) != len(self.targets):
            raise UserError(f"{len(thresholds)} thresholds for the {len(self.targets)} targets {self.targets}")
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

        They are `<stem>_mask.png`, `_prob.tif`, `_overlay.png`, `_mask.nii.gz` as asked for, and always, as the
        last, `<stem>.json`. With several targets the name carries the target, `<stem>_<target>_mask.png`, and the
        overlay has a legend below the photograph. Of the photograph's file they hold the pixels and, in the JSON, its
        name; none of its other metadata.

        Parameters
        ----------
        stem : how the names begin.
        what : of `SAVED`.
        pixel_size_mm : side of a pixel; goes into the NIfTI header and, in micrometres, into the JSON.

        Raises
        ------
        UserError
            For an unknown `what`, and a pixel size that is not a number above 0.
        """
        if unknown := set(what) - set(SAVED):
            raise UserError(f"cannot save {', '.join(sorted(unknown))}: choose from {', '.join(SAVED)}")
        if pixel_size_mm is not None and not 0 < pixel_size_mm < math.inf:
            raise UserError(f"a pixel size of {pixel_size_mm} mm: expected a number above 0, such as 0.0075")
        files: dict[str, bytes] = {}
        for target, prob, mask in zip(self.targets, self.prob, self.mask, strict=True):
            name = f"{stem}_{target}" if len(self.targets) > 1 else stem
            if "mask" in what:
                files[f"{name}_mask.png"] = io.mask_png(mask)
            if "prob" in what:
                files[f"{name}_prob.tif"] = io.probability_tiff(prob)
            if "nifti" in what:
                files[f"{name}_mask.nii.gz"] = io.nifti(mask, pixel_size_mm)
        if "overlay" in what:
            picture = overlay.blend(self.image, self.mask, self.targets)
            if len(self.targets) > 1:
                picture = np.concatenate([picture, overlay.legend(picture.shape[1], self.targets)])
            files[f"{stem}_overlay.png"] = io.rgb_png(picture)
        record = dict(self.provenance)
        if pixel_size_mm is not None:
            record["pixel_size_um"] = round(1000 * pixel_size_mm, 6)
        record["files"] = [*files, f"{stem}.json"]
        return {**files, f"{stem}.json": io.json_text(record).encode()}

    def save(
        self,
        folder: str | Path,
        stem: str,
        *,
        what: tuple[str, ...] = ("mask", "prob", "overlay"),
        pixel_size_mm: float | None = None,
    ) -> list[Path]:
        """Write the files of `encode` into a folder, which is made where it is missing: all of them or none.

        Returns the paths, the JSON last. Raises UserError as `encode` does, and where a file cannot be written.
        """
        files = self.encode(stem, what=what, pixel_size_mm=pixel_size_mm)
        folder = io.make_folder(folder)
        written: list[Path] = []
        try:
            for name, content in files.items():
                written.append(folder / name)
                io.write_bytes(written[-1], content)
        except BaseException:
            for path in written:
                path.unlink(missing_ok=True)
            raise
        return written


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

    @classmethod
    def from_pretrained(cls, name: str | Path, device: str = "auto", *, flips: bool | None = None) -> "Segmenter":
        """The packaged model called `name`, or the model of a run folder; UserError lists the packaged ones."""
        from retina_seg import zoo

        net, card = zoo.load(name)
        return cls(net, card, device, flips=flips)

    def predict(
        self,
        source: str | Path | InMemory | NDArray[np.uint8],
        fov: NDArray[np.bool_] | None = None,
    ) -> Prediction:
        """Segment one photograph.

        Parameters
        ----------
        source : file, by its path or in memory (nothing touches the disk), or uint8 (H, W, 3) RGB.
        fov : field of view bool (H, W); found in the photograph where None.

        Raises
        ------
        UserError
            If the file or array cannot be a fundus photograph.
        """
        started = time.perf_counter()
        image = source if isinstance(source, np.ndarray) else io.read_image(source)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise UserError(f"expected an RGB image uint8 (H, W, 3), got {image.dtype} {image.shape}")
        given = fov is not None
        fov = find_fov(image) if fov is None else np.asarray(fov, bool)
        prepared = preprocess.apply(image, fov, self.settings)
        prob = predict_probability(
            self.net, prepared.image, device=self.device, flips=self.flips, window=self.card.inference.window
        )
        prob = preprocess.undo(prob, fov, prepared.geometry)
        thresholds = tuple(self.card.thresholds[target] for target in self.card.targets)
        mask = threshold(prob, thresholds, fov)
        if not given and fov.all() and "vessels" in self.card.targets:
            share = mask[self.card.targets.index("vessels")].mean()
            if share > MOST_VESSELS:
                raise UserError(
                    f"no border of a field of view, and {share:.0%} of the picture would be vessels: "
                    "is it a fundus photograph?"
                )
        of_photograph = tuple(quality.of_photograph(image, fov, fov_diameter=self.settings.fov_diameter))
        of_mask = _mask_doubts(self.card.targets, prob, mask, fov)
        provenance = {
            "source": None if isinstance(source, np.ndarray) else io.as_source(source).name,
            **self._provenance(prepared.geometry),
            **_thresholded(self.card.targets, thresholds, mask, fov),
            "field_of_view": {
                "source": "given" if given else "found",
                "box_y0_x0_y1_x1": list(prepared.geometry.box),
                "fraction_of_image": float(fov.mean()),
            },
            "seconds": round(time.perf_counter() - started, 4),
            "warnings": [doubt.text for doubt in of_photograph + of_mask],
        }
        return Prediction(prob, mask, fov, image, self.card.targets, thresholds, provenance, of_photograph, of_mask)

    def _provenance(self, geometry: Geometry) -> dict[str, Any]:
        """What the result of any photograph of this geometry owes to the model."""
        return {
            "model": self.card.name,
            "weights_sha256": self.card.weights_sha256,
            "targets": list(self.card.targets),
            "threshold_source": self.card.threshold_source,
            "flips": self.flips,
            "width": geometry.width,
            "height": geometry.height,
            "working_width": geometry.work[1],
            "working_height": geometry.work[0],
            "device": self.device,
            "versions": {
                "retina_seg": __version__,
                "python": platform.python_version(),
                **_library_versions(),
            },
        }


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
