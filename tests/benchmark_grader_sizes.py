"""Does the grader answer alike about a photograph at 640 and at 4288 pixels of width? IDRiD has 62 of them at both.

Run: python tests/benchmark_grader_sizes.py --data-root data
"""

import argparse
from pathlib import Path

import numpy as np

from retina_seg import datasets
from retina_seg.classify import evaluation, inference, measures
from retina_seg.classify.fundus import GRADE, OEDEMA
from retina_seg.classify.inference import Classifier
from retina_seg.classify.tasks import seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--model", default="dr-grade")
    arguments = parser.parse_args()
    grader = Classifier.from_pretrained(arguments.model)
    small = {row.key: row for row in datasets.rows("idrid_grade")}
    pairs = [(small[key], row) for row in datasets.rows("idrid_seg") for key in row.same_photograph if key in small]
    answers = np.zeros((2, 2, len(pairs)), int)  # (small and large, question, photograph)
    shift = []
    for number, pair in enumerate(pairs):
        probs = []
        for size, row in enumerate(pair):
            image = datasets.load(row, arguments.data_root).image
            probs.append(grader.probabilities(grader.prepare(image)[None]))
            answers[size, :, number] = [one[0].argmax() for one in probs[-1]]
        shift.append([np.abs(one - other).sum() / 2 for one, other in zip(*probs, strict=True)])
    known = {
        key
        for split in ("train", "val", "test")
        for key in seen(
            grader.card.task,
            evaluation.part_of(grader.card, arguments.data_root, split),
            inference.seen_by(grader.card),
        )
    }
    print(f"{len(pairs)} photographs, {sum(one.key in known for one, _ in pairs)} of them seen in training")
    for number, head in enumerate((GRADE, OEDEMA)):
        truth = np.array([int(one.labels[head.name]) for one, _ in pairs])
        same = (answers[0, number] == answers[1, number]).mean()
        moved = np.mean([one[number] for one in shift])
        print(f"{head.name}: the same answer {same:.2f}, probability moved {moved:.2f}", end="")
        for name, given in zip(("640 px", "4288 px"), answers[:, number], strict=True):
            print(f"; {name}: right {(given == truth).mean():.2f}", end="")
            print(f", quadratic kappa {measures.quadratic_kappa(given, truth):.2f}", end="")
        print()


if __name__ == "__main__":
    main()
