"""Graders whose heads were trained on different folds, joined into one that averages what they say.

No training: body and heads stay as they are; only the temperatures are chosen anew.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from retina_seg import checkpoint, loop, zoo
from retina_seg.classify import evaluation, inference, tasks, training
from retina_seg.classify.config import ClassifyConfig
from retina_seg.classify.inference import Classifier, ClassifierCard, ClassifierModel
from retina_seg.classify.outputs import VALUE, split
from retina_seg.errors import UserError
from retina_seg.inference import choose_device
from retina_seg.models import count_parameters

_MODEL = "lesion_grader"
_ALIKE = ("task", "heads", "outputs", "model", "preprocess")


def fit_folds(
    config: ClassifyConfig,
    out: Path,
    data_root: str | Path,
    *,
    device: str = "auto",
    progress: Callable[[int, loop.Progress], None] | None = None,
) -> ClassifierCard:
    """Train a grader on every fold of its task, in OUT/fold1, OUT/fold2, ..., and `join` them in the folder `out`.

    The frozen body looks at each photograph once a call. A finished fold is not trained again, an unfinished one is
    gone on with.

    Parameters
    ----------
    config : of a `lesion_grader` with `training.frozen`; its `data.fold` is replaced.
    progress : called with the number of the fold and how far it is.

    Raises
    ------
    UserError
        For a config of another kind, a task without folds, folds trained by another config, and what `training.fit`
        and `join` raise.
    """
    if loop.several_processes():
        raise UserError("folds are trained in one process: leave out `accelerate launch`")
    spec = tasks.find(config.data.task)
    if spec.folds < 2 or not spec.watched_folds:
        raise UserError(f"{config.data.task} has no folds of validation examples: use `retina-seg classify train`")
    if "val" in config.data.fit:
        raise UserError("data.fit holds val: nothing would tell how sure a head is that learns from its own fold")
    if config.model.arguments.get("readers", 1) != 1:
        raise UserError("model.arguments.readers: the folds make the readers; leave it out")
    if config.model.name != _MODEL or not config.training.frozen:
        raise UserError(f"the folds of a {_MODEL} with training.frozen are joined, not of {config.model.name}")
    checkpoint.check_free(out)
    runs = {}
    for fold in range(1, spec.folds + 1):
        data, run = config.data.model_copy(update={"fold": fold}), out / f"fold{fold}"
        runs[run] = config.model_copy(update={"name": f"{config.name}-fold{fold}", "data": data})
        if (run / checkpoint.CARD).exists():
            made = inference.card_of(run).training
            if made.get("config") != runs[run].model_dump(mode="json") or not _is_of_today(made):
                raise UserError(f"{run} was trained by another configuration or body: choose another --out")
    looked = training.Looked()
    with checkpoint.held(out):
        for fold, (run, own) in enumerate(runs.items(), 1):
            if not (run / checkpoint.CARD).exists():
                training.fit(
                    own,
                    run,
                    data_root,
                    resume=(run / checkpoint.STATE).exists(),
                    device=device,
                    progress=partial(progress, fold) if progress else None,
                    looked=looked,
                )
        return _write(*_joined(list(runs), out, data_root, name=config.name, device=device, looked=looked), out)


def _is_of_today(made: Mapping[str, Any]) -> bool:
    """Whether the model that a training owes its body to still has the weights it had then."""
    start = made["config"]["training"]["start"]
    card = inference.card_of(start) if inference.is_classifier(start) else zoo.card(start)
    return made.get("learnt_from") == checkpoint.debts([card])


def join(
    runs: Sequence[str | Path],
    out: Path,
    data_root: str | Path,
    *,
    name: str = "",
    device: str = "auto",
    looked: training.Looked | None = None,
) -> ClassifierCard:
    """Write the mean of several `lesion_grader`s of one frozen body into the folder `out`, a model like any run.

    Every member answers the validation photographs of its own fold, which it has not learnt from; what the body has
    seen is left out. On all these answers together the temperatures are chosen: they are those of single members, whose
    mean is as sure or less.

    Parameters
    ----------
    runs : two or more run folders that differ in fold and seed only.
    name : of the joined model, else that of its folder.
    looked : what the body has made of examples already, see `training.fit`.

    Raises
    ------
    UserError
        For fewer than two runs, other models than `lesion_grader`, runs that differ in more than their heads, and a
        folder that already holds a run.
    """
    net, card = _joined(runs, out, data_root, name=name, device=device, looked=looked)
    with checkpoint.held(out):
        return _write(net, card, out)


def _joined(
    runs: Sequence[str | Path],
    out: Path,
    data_root: str | Path,
    *,
    name: str,
    device: str,
    looked: training.Looked | None,
) -> tuple[nn.Module, ClassifierCard]:
    """The network and card that `join` writes."""
    device = choose_device(device)
    if len(runs) < 2:
        raise UserError(f"a joined classifier needs two runs or more, got {len(runs)}")
    checkpoint.check_free(out)
    members = [Classifier.from_pretrained(run, device) for run in runs]
    first = members[0]
    _check(runs, members)
    said, truth = _held_out(members, data_root, training.Looked() if looked is None else looked)
    heads = first.card.questions()
    temperatures = {
        head.name: round(training.temperature(one, first.card.outputs, truth[:, number]), 3)
        for number, (head, one) in enumerate(zip(heads, split(said, heads, first.card.outputs), strict=True))
        if first.card.outputs != VALUE
    }
    source = (
        f"{len(truth)} validation examples of {len(members)} folds, each answered by the member that has not learnt "
        "from it"
    )
    arguments = {**first.card.model.arguments, "readers": len(members)}
    card = first.card.model_copy(
        update={
            "name": name or out.resolve().name,
            "model": ClassifierModel(name=_MODEL, in_shape=first.card.model.in_shape, arguments=arguments),
            "temperatures": temperatures,
            "temperature_source": source if temperatures else "",
            "training": _training([member.card for member in members], name),
            "scores": {},
            "speed": {},
        }
    )
    net = inference.build(card)
    net.get_submodule("body").load_state_dict(first.net.get_submodule("body").state_dict())
    for number, member in enumerate(members):
        net.get_submodule(f"head.readers.{number}").load_state_dict(member.net.get_submodule("head").state_dict())
    card = card.model_copy(update={"parameters": count_parameters(net)})
    return net.eval(), card


def _write(net: nn.Module, card: ClassifierCard, out: Path) -> ClassifierCard:
    checkpoint.check_free(out)  # another process may have been quicker
    return checkpoint.save_model(net, card, out / checkpoint.WEIGHTS, out / checkpoint.CARD)


def _check(runs: Sequence[str | Path], members: Sequence[Classifier]) -> None:
    """UserError where the members are no graders of one body."""
    first = members[0]
    body = first.net.get_submodule("body").state_dict()
    for run, member in zip(runs, members, strict=True):
        if member.card.model.name != _MODEL:
            raise UserError(f"{run} is a {member.card.model.name}: only runs of {_MODEL} are joined")
        for name in _ALIKE:
            if getattr(member.card, name) != getattr(first.card, name):
                raise UserError(
                    f"{run} differs from {runs[0]} in its {name} ({getattr(member.card, name)} and "
                    f"{getattr(first.card, name)}): members differ in fold and seed only"
                )
        own = member.net.get_submodule("body").state_dict()
        if any(not torch.equal(body[key], value) for key, value in own.items()):
            raise UserError(f"{run} has another body than {runs[0]}: train both with training.frozen from one model")
        if member.card.model.arguments.get("readers", 1) != 1:
            raise UserError(f"{run} is joined already: name the runs it is made of")
        if "images" not in member.card.training:
            raise UserError(f"the card of {run} does not say which images it has seen")
    if len({member.card.weights_sha256 for member in members}) < len(members):
        raise UserError("two of the runs have the same weights: name each once")


def _held_out(
    members: Sequence[Classifier], data_root: str | Path, looked: training.Looked
) -> tuple[Tensor, NDArray[np.int64]]:
    """What every member says of the validation examples that it has not seen, (N, outputs), and the answers (N, K)."""
    said, truth = [], []
    for member in members:
        part = evaluation.part_of(member.card, data_root, "val")
        seen = set(tasks.seen(member.card.task, part, member.card.training["images"]))
        part = part.take(np.array([i for i, key in enumerate(part.keys) if key not in seen], np.int64))
        if not len(part):
            raise UserError(
                f"{member.card.name} has learnt from all of its validation examples: nothing tells how sure it is"
            )
        net = training.HeadOnly(member.net)
        said.append(training.outputs(net, net.features(part, member.device, looked), member.device))
        truth.append(part.labels.astype(np.int64))
    return torch.from_numpy(np.concatenate(said)), np.concatenate(truth)


def _training(cards: Sequence[ClassifierCard], name: str) -> dict[str, Any]:
    """What the joined card says of the trainings: what any of them has seen, and who they are."""
    first = cards[0].training
    kept = ("config", "device", "precision", "versions", "learnt_from")
    joined: dict[str, Any] = {kind: first[kind] for kind in kept if kind in first}
    if "config" in first and name:
        joined["config"] = {**first["config"], "name": name}
    differing = [one for card in cards for one in card.training.get("differing", ())]
    joined |= {"differing": list(dict.fromkeys(differing))} if differing else {}
    for kind in ("images", "watched_images"):
        joined[kind] = list(dict.fromkeys(key for card in cards for key in card.training.get(kind, ())))
    joined["members"] = [{"name": card.name, "weights_sha256": card.weights_sha256} for card in cards]
    return joined | {kind: sum(card.training.get(kind, 0) for card in cards) for kind in ("steps", "seconds")}
