"""Comparisons of classifiers by name: what is trained how often and on what; they are run in comparisons."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from retina_seg.classify.config import ClassifyConfig

_SHORT = {"steps": 400, "batch_size": 32, "validate_every": 400, "ema": 0.98}
_SVM: dict[str, dict[str, Any]] = {
    "kernel SVM, quadratic": {"kernel": "poly", "degree": 2},
    "kernel SVM, Gaussian": {"kernel": "rbf"},
}


@dataclass(frozen=True)
class Arm:
    """One row of a study: a name and what is trained.

    Or `svm`, the arguments of scikit-learn's classifier, or `segmenter`, the name of a packaged model as it is.
    """

    name: str
    data: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    svm: Mapping[str, Any] | None = None
    segmenter: str = ""

    def config(self, seed: int, fold: int) -> ClassifyConfig:
        """As a training."""
        return ClassifyConfig.model_validate(
            {
                "name": "arm",
                "seed": seed,
                "data": {**self.data, **({"fold": fold} if fold else {})},
                "preprocess": dict(self.preprocess),
                "model": {"name": self.model or "linear", "arguments": dict(self.arguments)},
                "training": {**_SHORT, **self.training},
            }
        )


@dataclass(frozen=True)
class Study:
    """Arms that are trained alike but for what is compared.

    Attributes
    ----------
    title, about : what is compared, and what it shows, for the page of results.
    arms : the rows of the table.
    seeds : how often each is trained.
    folds : the folds of the task, each with seed 0, in the place of seeds.
    curve : also keep how loss and score went, for a picture.
    without_seen_by : packaged model; no arm is scored on what it has seen.
    painted : arms answer for every pixel of the test photographs of DRIVE and are scored as segmenters; seconds are
        those that a photograph takes.
    """

    title: str
    about: str
    arms: tuple[Arm, ...]
    seeds: int = 3
    folds: int = 0
    curve: bool = False
    without_seen_by: str = ""
    painted: bool = False

    def runs(self) -> list[tuple[Arm, int, int]]:
        """(arm, seed, fold or 0) of every training."""
        if self.folds:
            return [(arm, 0, fold) for arm in self.arms for fold in range(1, self.folds + 1)]
        return [(arm, seed, 0) for arm in self.arms for seed in range(self.seeds)]


def _flowers() -> Study:
    flowers, few = {"task": "iris"}, {"steps": 500, "batch_size": 90, "learning_rate": 0.05}
    svm = {"task": "iris", "fit": ["train"]}
    return Study(
        "Linear models on flowers",
        "Fisher's irises, the species from four measures: 90 flowers to learn from, 30 to be scored on, drawn ten "
        "times (draws of 150 overlap, so their spread is too small). Least squares lose the species in the middle of "
        "the three (masking, Hastie 2009, section 4.2), and the features of the quadratic kernel lack the measures "
        "themselves; the others are alike, one flower being .033.",
        (
            Arm("linear, least squares", flowers, "linear", training={**few, "loss": "least_squares"}),
            Arm("linear, logistic", flowers, "linear", training=few),
            Arm("quadratic features, logistic", flowers, "polynomial", training=few),
            *(Arm(name, svm, svm=given) for name, given in _SVM.items()),
            Arm("MLP, 16 hidden", flowers, "mlp", {"hidden": [16]}, few),
        ),
        seeds=10,
    )


def _petals() -> Study:
    data = {"task": "petals"}
    few = {"steps": 500, "batch_size": 90, "learning_rate": 0.05, "loss": "least_squares", "weight_decay": 0}
    return Study(
        "A regression on flowers",
        "The width of a petal from its length, least squares, 90 flowers to learn from and 30 to be scored on, drawn "
        "ten times; errors in centimetres. The feature of the quadratic kernel is the square of the length alone, and "
        "bends where the flowers do not; the MLP may bend and finds the line.",
        (
            Arm("a line", data, "linear", training=few),
            Arm("quadratic feature", data, "polynomial", training=few),
            Arm("MLP, 16 hidden", data, "mlp", {"hidden": [16]}, {**few, "learning_rate": 0.01}),
        ),
        seeds=10,
    )


def _lecun() -> Study:
    names = ("single_layer", "two_layers", "locally_connected", "constrained", "constrained_2")
    alike = {"steps": 1000, "learning_rate": 1e-2, "batch_size": 64}
    ways: tuple[tuple[str, Mapping[str, Any]], ...] = (
        ("", alike),
        (", turned and moved", {**alike, "augment": "written"}),
    )
    return Study(
        "LeCun 1989: what constraints buy",
        "The five networks of Generalization and network design strategies, 320 digits of 16 x 16 to learn from and "
        "160 to be scored on, ten draws of them; AdamW in the place of 1989's gradient descent. Links (2570, 3240, "
        "1226, 2266, 5194) and weights are as many as published; accuracies of 1989, of other digits, were .80, .87, "
        ".885, .94 and .984. As scikit-learn's digits lie, straight in their frame, a single layer does as well as "
        "constrained 2, and the three between do worse or no better. Where training digits are turned and moved, all "
        "else alike, the means stand in the published order but for the first two. Of the four steps only the last, to "
        "constrained 2, is more than twice its standard error (paired difference .0125, standard error .0045 over ten "
        "draws, which overlap).",
        tuple(
            Arm(one.replace("_", " ") + text, {"task": "digits-320", "size": 16}, f"lecun_{one}", training=given)
            for text, given in ways
            for one in names
        ),
        seeds=10,
    )


def _networks() -> Study:
    both = {"fit": ["train", "val"]}
    small, large = {"task": "digits", "size": 8, **both}, {"task": "digits", "size": 28, **both}
    turned = {"augment": "written"}
    quick = {"steps": 1000, "learning_rate": 1e-2}
    longer = {"steps": 800, "batch_size": 64, "learning_rate": 3e-3}
    arms = [
        Arm("linear, least squares", small, "linear", training={**quick, "loss": "least_squares"}),
        Arm("linear, logistic", small, "linear", training=quick),
        Arm("quadratic features, logistic", small, "polynomial", training=quick),
        *(Arm(name, small, svm=given) for name, given in _SVM.items()),
        Arm("MLP, 128 hidden", small, "mlp", training=quick),
        Arm("MLP, 256 and 128 hidden", large, "mlp", {"hidden": [256, 128]}, longer),
        Arm(
            "MLP, 256 and 128 hidden, digits turned and moved",
            large,
            "mlp",
            {"hidden": [256, 128]},
            {**longer, **turned},
        ),
        Arm("LeNet-5", large, "lenet_5", training=longer),
        Arm("LeNet-5, digits turned and moved", large, "lenet_5", training={**longer, **turned}),
        Arm("small CNN", large, "small_cnn", {"features": [16, 32, 64]}, {**longer, "steps": 600}),
        Arm(
            "small CNN, digits turned and moved",
            large,
            "small_cnn",
            {"features": [16, 32, 64]},
            {**longer, **turned, "steps": 600},
        ),
        Arm("recurrent, row by row", large, "row_rnn", training=longer),
        Arm("transformer", large, "transformer", {"patch_size": 7, "hidden": 48, "depth": 2, "heads": 4}, longer),
    ]
    return Study(
        "Networks on digits",
        "scikit-learn's 1,797 digits, five folds, each network with one setting that was not searched for; learnt from "
        "are the training and the validation digits, as there is nothing to choose. The writers are few and on both "
        "sides. The small CNN, a modern one with batch normalisation, is ahead with and without turned digits; LeNet-5 "
        "and the MLP gain .012 and .007 by them, with which LeNet-5 passes the Gaussian kernel. One digit of a fold is "
        ".003.",
        tuple(arms),
        folds=5,
    )


def _shift() -> Study:
    nets: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
        ("MLP", "mlp", {"hidden": [64]}),
        ("CNN", "small_cnn", {"features": [8, 16, 32]}),
    )
    rows = [("moved by up to {} px", {"shift": shift}) for shift in (0, 2, 4)]
    arms = [
        Arm(
            f"{name}, test digits {text.format(given['shift']) if given['shift'] else 'as they are'}",
            {"task": "digits", "size": 28, **given},
            model,
            arguments,
        )
        for name, model, arguments in nets
        for text, given in rows
    ]
    arms += [
        Arm(f"{name}, {share:.0%} of the labels", {"task": "digits", "size": 28, "share": share}, model, arguments)
        for name, model, arguments in nets
        for share in (0.02, 0.05, 0.1, 0.5)
    ]
    return Study(
        "MLP and CNN: shifted digits, fewer labels",
        "What locality, shared weights and invariance to translation buy: an MLP and a smaller CNN, trained on digits "
        "that are not moved; three seeds each. The first of each three rows has all labels, as the last of the others "
        "would. With two digits of each class nothing is bought: the MLP is ahead there.",
        tuple(arms),
    )


def _optimisers() -> Study:
    data = {"task": "digits", "size": 16}
    plain = {"ema": 0, "weight_decay": 0, "validate_every": 10, "warmup_steps": 0, "clip": 1e9}
    chosen: tuple[tuple[str, str, int, int, float], ...] = (
        ("gradient descent, all 1,149 digits a step", "sgd", 1149, 100, 0.5),
        ("stochastic, 1 digit a step", "sgd", 1, 3000, 0.01),
        ("mini-batches of 32", "sgd", 32, 720, 0.1),
        ("mini-batches, momentum", "momentum", 32, 720, 0.02),
        ("mini-batches, RMSprop", "rmsprop", 32, 720, 1e-3),
        ("mini-batches, Adam", "adam", 32, 720, 2e-3),
    )
    arms = [
        Arm(
            name,
            data,
            "mlp",
            {"hidden": [64]},
            {
                **plain,
                "optimiser": optimiser,
                "batch_size": size,
                "steps": steps,
                "learning_rate": rate,
                "validate_every": max(1, steps // 60),
            },
        )
        for name, optimiser, size, steps, rate in chosen
    ]
    return Study(
        "Ways downhill",
        "One MLP on digits by each rule, with a learning rate that is usual for it and was not searched for (in the "
        "order of the rows .5, .01, .1, .02, .001 and .002, in 100, 3,000 and four times 720 steps); every rate falls "
        "along half a cosine. The rules do not pass over the digits equally often (100 times all at once, "
        "2.6 times one by one, 20 times in mini-batches), and three digits more or less right are .01. The picture "
        "shows the first of the seeds.",
        tuple(arms),
        curve=True,
    )


def _transfer() -> Study:
    data = {"task": "idrid-grade", "size": 528}
    alike = {"steps": 100, "batch_size": 8, "loss": "ordinal", "augment": "flips", "precision": "bf16"}
    ways: tuple[tuple[str, Mapping[str, Any]], ...] = (
        ("from scratch", {}),
        ("frozen body", {"start": "lesions", "frozen": True}),
        ("fine-tuned", {"start": "lesions", "learning_rate": 5e-4}),
    )
    arms = [
        Arm(
            f"{name}, {share:.0%} of the labels",
            {**data, "share": share},
            "lesion_grader",
            training={**alike, "validate_every": 100, **given},
            preprocess={"fov_diameter": 512},
        )
        for name, given in ways
        for share in (0.01, 0.05, 0.1, 0.5, 1.0)
    ]
    return Study(
        "Transfer: grades of retinopathy from a network that knows lesions",
        "The grader at 512 px of field of view, 100 steps of 8 photographs: all of it from random weights, its body "
        "frozen as the packaged `lesions` has it, or the whole fine-tuned from there; scored on the 100 test "
        "photographs that `lesions` has not seen. The most frequent answers of the training photographs are right for "
        ".29 (retinopathy), .45 (oedema) and .26 (both) of them, with a kappa of 0. With a body that knows lesions "
        "and stays as it is, a tenth of the labels, 32 photographs, is worth as much as all of them, and fine-tuning "
        "gains nothing at any share; random weights come near neither, for which 100 steps are too few: compared is "
        "what little computing buys. The 95 % interval of one kappa on 100 photographs is some .14 to either side. A "
        "frozen body looks at every photograph once, for all its trainings: the first of them took three minutes, the "
        "others seconds; others of the table were trained in bfloat16 on another computer, at three times the speed.",
        tuple(arms),
        without_seen_by="lesions",
    )


def _patches() -> Study:
    return Study(
        "Vessels, pixel by pixel",
        "Is the pixel in the middle of 27 x 27 on a vessel? 32,000 patches of 16 photographs of DRIVE to learn from; "
        "then every pixel of the test photographs is asked (`retina-seg classify paint`), and the map is scored as a "
        "segmenter's is, beside packaged segmenters on one thread of the same computer. Neighbouring patches share "
        "nearly all of their pixels, and all that is computed of them is computed again: the time is what patches "
        "cost. The scores differ for more reasons: the U-Nets see more than 27 pixels around, learnt from more "
        "photographs, and the first one averages four flips. The picture is of a drawn photograph, in which patches "
        "find much that is none.",
        (
            Arm(
                "small CNN, patch by patch",
                {"task": "vessel-patches", "size": 27},
                "small_cnn",
                {"features": [8, 16, 32], "dropout": 0.0},
                {
                    **{"steps": 3000, "batch_size": 128, "augment": "flips", "learning_rate": 0.003},
                    **{"ema": 0.995, "warmup_steps": 100, "validate_every": 500},
                },
                {"colour": "rgb", "fov_diameter": 540},
            ),
            Arm("U-Net, `vessels-drive`, as packaged: four flips", segmenter="vessels-drive"),
            Arm("U-Net, `vessels-small`, as packaged", segmenter="vessels-small"),
        ),
        seeds=1,
        painted=True,
    )


STUDIES: dict[str, Callable[[], Study]] = {
    "flowers": _flowers,
    "petals": _petals,
    "lecun": _lecun,
    "networks": _networks,
    "shift": _shift,
    "optimisers": _optimisers,
    "transfer": _transfer,
    "patches": _patches,
}
