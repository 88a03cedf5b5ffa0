"""Finished trainings that differ in their seed only, joined into one model that averages their probabilities.

No training: the members stay as they are; only the threshold is chosen anew.
"""

from collections.abc import Sequence
from pathlib import Path

from retina_seg import checkpoint, datasets, metrics, zoo
from retina_seg.checkpoint import Card, CardModel
from retina_seg.errors import UserError
from retina_seg.inference import choose_device
from retina_seg.models import count_parameters
from retina_seg.models.ensemble import Ensemble
from retina_seg.photographs import load_photograph
from retina_seg.preprocess import Preprocess
from retina_seg.train import histograms

# What a card says of the images behind the weights.
SEEN = ("images", "threshold_images")


def join(runs: Sequence[str | Path], out: Path, data_root: str | Path, *, device: str = "auto") -> Card:
    """Write the ensemble of several models into the folder `out`, which is then a model like any finished run.

    The threshold is that of the highest pooled Dice on the images that chose the members' thresholds.

    Parameters
    ----------
    runs : two or more run folders or packaged models of one network, preprocessing, targets and training images.

    Raises
    ------
    UserError
        For fewer than two models, models that differ in more than weights, and a folder that already holds one.
    """
    device = choose_device(device)
    if len(runs) < 2:
        raise UserError(f"an ensemble needs two models or more, got {len(runs)}")
    checkpoint.check_free(out)
    loaded = [zoo.load(run) for run in runs]
    cards = [card for _, card in loaded]
    first = cards[0]
    for run, card in zip(runs[1:], cards[1:], strict=True):
        for name in ("targets", "model", "preprocess", "inference"):
            if getattr(card, name) != getattr(first, name):
                raise UserError(
                    f"{run} differs from {runs[0]} in its {name} ({getattr(card, name)} and {getattr(first, name)}): "
                    "members of an ensemble differ in their weights only"
                )
        if {name: card.training.get(name) for name in SEEN} != {name: first.training.get(name) for name in SEEN}:
            raise UserError(f"{run} was trained or its threshold chosen on other images than {runs[0]}")
    if len({card.weights_sha256 for card in cards}) < len(cards):
        raise UserError("two of the models have the same weights: name each once")
    if any(name not in first.training for name in SEEN):
        raise UserError(f"the card of {runs[0]} does not say which images it has seen")
    net = Ensemble([net for net, _ in loaded]).to(device).eval()
    keys = first.training["threshold_images"]
    rows = datasets.by_key()
    if unknown := set(keys) - set(rows):
        raise UserError(f"the threshold images {', '.join(sorted(unknown)[:5])} are in no packaged manifest")
    settings = Preprocess(**first.preprocess)
    photographs = [load_photograph(rows[key], data_root, first.targets, settings) for key in keys]
    tallied = histograms(net, photographs, device=device, flips=first.inference.flips)
    differing = [one for card in cards for one in card.training.get("differing", ())]
    arguments = {"member": first.model.name, "arguments": first.model.arguments, "count": len(cards)}
    card = first.model_copy(
        update={
            "name": out.resolve().name,
            "model": CardModel(name="ensemble", in_channels=first.model.in_channels, arguments=arguments),
            "thresholds": {
                target: round(metrics.best_threshold_from_histogram(histogram)[0], 4)
                for target, histogram in zip(first.targets, tallied, strict=True)
            },
            "parameters": count_parameters(net),
            "training": {
                **{name: first.training[name] for name in (*SEEN, "device", "precision") if name in first.training},
                "members": [{"name": card.name, "weights_sha256": card.weights_sha256} for card in cards],
                **({"differing": list(dict.fromkeys(differing))} if differing else {}),
                **{name: sum(card.training.get(name, 0) for card in cards) for name in ("steps", "seconds")},
            },
            "scores": {},
            "speed": {},
        }
    )
    with checkpoint.held(out):
        checkpoint.check_free(out)  # another process may have been quicker
        return checkpoint.save_model(net, card, out / checkpoint.WEIGHTS, out / checkpoint.CARD)
