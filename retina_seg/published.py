"""Figures of others, measured as PROTOCOLS in protocols.py say."""

import math
from typing import NamedTuple

from retina_seg.datasets import LESIONS


class Published(NamedTuple):
    """A figure from the literature: inside the field of view, its threshold not chosen on test images.

    `protocol` is that of `Record.scored_as`.
    """

    protocol: str
    method: str
    parameters: str
    source: str
    dice: float = math.nan
    auc: float = math.nan
    mcc: float = math.nan
    ap: float = math.nan
    sensitivity: float = math.nan
    specificity: float = math.nan
    accuracy: float = math.nan
    cldice: float = math.nan
    iou: float = math.nan
    precision: float = math.nan

    @property
    def title(self) -> str:
        """What the tables call it."""
        return f"*published: {self.method}{f' ({self.source})' if self.source else ''}*"


_RESCORED, _IDIAP = "re-scored from its published weights, pooled", "rerun by Idiap"
# The human row that is published with these figures (.768) is that of 01L to 10R; on 05L to 14R it is .783.
_OTHER_SPLIT = "trained on 11L to 14R, tested on 01L to 10R"
# Microaneurysms, haemorrhages, hard exudates, soft exudates.
_LESION_FIGURES = (
    ("best of the challenge, each lesion another", "IDRiD challenge", 0.502, 0.680, 0.885, 0.700),
    ("L-Seg", "", 0.463, 0.637, 0.795, 0.711),
    ("PBDA", "", 0.534, 0.715, 0.864, 0.731),
)
_OLIVEIRA, _OPENMMLAB = "Oliveira 2018, rotations averaged", "mmsegmentation"
PUBLISHED = (
    Published("drive", "Little W-Net", "68 k", _RESCORED, 0.8283, 0.9811, 0.8029, 0.915, 0.8475, 0.9710, 0.9553),
    Published("cross-chase", "Little W-Net from DRIVE", "68 k", _RESCORED, 0.759, 0.9718, 0.734),
    Published("drive", "Little W-Net", "68 k", _IDIAP, 0.828),
    Published("stare-10", "Little W-Net", "68 k", _IDIAP, 0.839),
    Published("chase-8-20", "Little W-Net", "68 k", f"{_IDIAP}, {_OTHER_SPLIT}", 0.820),
    Published("drive", "SA-UNetv2", "0.26 M", "its authors", 0.8284, 0.9811, 0.8044),
    Published("drive", "FCN + wavelets", "", _OLIVEIRA, auc=0.9821, mcc=0.8054),
    Published("stare-5fold", "FCN + wavelets", "", _OLIVEIRA, auc=0.9905, mcc=0.8330),
    Published("chase-4fold", "FCN + wavelets", "", _OLIVEIRA, auc=0.9855, mcc=0.8009),
    Published("drive", "DRIU", "15 M", "", 0.821),
    Published("stare-10", "DRIU", "15 M", "", 0.828),
    Published("chase-8-20", "DRIU", "15 M", _OTHER_SPLIT, 0.812),
    Published("drive", "nnU-Net", "", "", 0.8109, 0.9634, 0.788),
    Published("chase-20-8", "nnU-Net", "", "", 0.8185, 0.9586, 0.800),
    Published("drive", "nnWNet", "", "CVPR 2025", 0.8138, 0.9759, 0.792),
    Published("chase-20-8", "nnWNet", "", "CVPR 2025", 0.8221, 0.9868, 0.804),
    Published("drive", "U-Net, best head", "", _OPENMMLAB, 0.7956),
    Published("stare-10", "U-Net, best head", "", _OPENMMLAB, 0.8284),
    Published("chase-20-8", "U-Net, best head", "", _OPENMMLAB, 0.8047),
    *(
        Published(f"idrid-{target}", method, "", source, ap=ap)
        for method, source, *values in _LESION_FIGURES
        for target, ap in zip(LESIONS, values, strict=True)
    ),
    Published("idrid-disc", "best of those compared", "", "would rank second in the challenge", iou=0.9317),
)
