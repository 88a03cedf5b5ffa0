"""What a user takes away: file names without the patient's, and the files of one result, all in memory.

How masks and pictures are encoded is in io, the report in report.
"""

import re
import unicodedata
import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO

from retina_seg import io, report
from retina_seg.checkpoint import Card
from retina_seg.inference import Prediction
from retina_seg.viewer.numbers import Number
from retina_seg.viewer.opened import Photograph

SINGLE = {
    "Mask (PNG)": "mask",
    "Picture with mask (PNG)": "overlay",
    "Probability (TIFF)": "prob",
    "Mask (NIfTI)": "nifti",
    "Origin of the result (JSON)": "",
}
"""Label of a download -> what `Prediction.encode` calls it; "" is the JSON that is always there."""

_LONGEST = 60  # letters of a name, and of a folder above it
_BYTES = 180  # of a stem: with the ending it must fit into 255 bytes
_INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # control, format (right-to-left marks), unassigned, line ends
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$) *(\.|$)", re.IGNORECASE)
"""Names that Windows takes for devices, whatever follows the point."""

_ENDS = {
    "mask": ("_mask.png", "image/png"),
    "overlay": ("_overlay.png", "image/png"),
    "prob": ("_prob.tif", "image/tiff"),
    "nifti": ("_mask.nii.gz", "application/gzip"),
    "": (".json", "application/json"),
}


def stems(photographs: Sequence[Photograph], *, names: bool) -> dict[str, str]:
    """Photograph -> stem of its files: "photograph-01" in the order opened, or with `names` the file's own name.

    Drawings and images of the public sets always keep their names.
    """
    wanted = []
    for number, photograph in enumerate(photographs, start=1):
        if photograph.source == "file" and not names:
            wanted.append(f"photograph-{number:02d}.png")
        elif photograph.source == "file":
            wanted.append(_safe(photograph.name))
        else:
            wanted.append(re.sub(r"[^A-Za-z0-9]+", "_", photograph.name).strip("_") + ".png")
    made = io.output_stems(wanted)
    if any(len(stem.encode()) > _BYTES for stem in made):  # several folders stand above it
        made = io.output_stems([f"{_cut(stem)}.png" for stem in made])
    return dict(zip((one.id for one in photographs), made, strict=True))


def _cut(stem: str) -> str:
    """The end of a stem; the numbers that tell equal ones apart still fit behind it."""
    return stem.encode()[-_BYTES + 10 :].decode(errors="ignore")


def _safe(name: str) -> str:
    """A file's name as a path that holds nothing but letters a file system takes; it may have folders above it."""
    parts = (re.sub(r'[\x00-\x1f<>:"|?*]', "_", part) for part in name.replace("\\", "/").split("/"))
    seen = ("".join(c for c in part if unicodedata.category(c) not in _INVISIBLE) for part in parts)
    kept = [_usable(part) for part in seen if part.strip(". ")]
    return "/".join(["", "upload", *(kept or ["photograph.png"])])  # rooted, or the working folder would be above it


def _usable(part: str) -> str:
    """A part of a path without what hides it, makes it an option of a command or is kept for a device."""
    part = re.sub(r"[. ]+(?=\.\w+(\.gz)?$)", "", part[-_LONGEST:].strip(". "))
    return f"_{part}" if part.startswith(("-", "~")) or _RESERVED.match(part) else part


def distinct(names: Sequence[str]) -> list[str]:
    """The names, numbered where the same one comes again: "eye.png", "eye.png (2)"."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found


def files(
    prediction: Prediction,
    stem: str,
    *,
    what: tuple[str, ...] = ("mask", "prob", "overlay", "nifti"),
    um_per_px: float | None = None,
) -> dict[str, bytes]:
    """Name -> content, as `Prediction.encode`."""
    size = None if um_per_px is None else um_per_px / 1000
    return prediction.encode(stem, what=what, pixel_size_mm=size)


def name_of(prediction: Prediction, stem: str, what: str) -> tuple[str, str]:
    """File name and MIME type of a single download; several targets come as one ZIP."""
    end, mime = _ENDS[what]
    if what in ("", "overlay") or len(prediction.targets) == 1:
        return stem + end, mime
    return f"{stem}{end.rpartition('.')[0]}.zip", "application/zip"


def single(prediction: Prediction, stem: str, what: str, *, um_per_px: float | None = None) -> bytes:
    """The content of a single download, called as `name_of` says."""
    made = files(prediction, stem, what=(what,) if what else (), um_per_px=um_per_px)
    wanted = {name: content for name, content in made.items() if name.endswith(_ENDS[what][0])}
    return next(iter(wanted.values())) if len(wanted) == 1 else zipped(wanted)


def zipped(contents: Mapping[str, bytes]) -> bytes:
    """The files as one ZIP."""
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as file:
        for name, content in contents.items():
            file.writestr(name, content)
    return packed.getvalue()


def pdf(
    prediction: Prediction, stem: str, *, card: Card, measured: Sequence[Number], scored: Sequence[Number]
) -> bytes:
    """The one-page report: picture, numbers or why they are withheld, warnings, the model's card in a line."""
    return report.one_page(
        prediction,
        title=stem,
        columns=[[(one.label, one.value, one.sentence) for one in found] for found in (measured, scored)],
        model=". ".join(filter(None, (card.name, card.description, card.headline()))),
    )
