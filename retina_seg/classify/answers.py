"""What a classifier answered about many images, as lines, JSON and a table: what is in doubt is withheld."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retina_seg import batch, files, io
from retina_seg.classify.inference import Classified, Classifier


@dataclass
class Answered:
    """Answers as they come; of images that cannot be read the reason.

    Attributes
    ----------
    classifier : who answers.
    images : path -> answers, or none where a doubt withholds them (`quality.Doubt`), and warnings.
    failed : path -> why.
    """

    classifier: Classifier
    images: dict[str, Classified] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, path: Path) -> list[str]:
        """Ask about an image and remember what is said; the lines to print."""
        name = str(path)
        said, error = batch.attempt(lambda: self.classifier.predict(path))
        if said is None:
            self.failed[name] = error
            return [error if name in error else f"{name}: {error}"]
        self.images[name] = said
        warnings = [f"{name}: {'withheld: ' * doubt.withholds}{doubt.text}" for doubt in said.doubts]
        if said.withheld:
            return warnings
        lines = []
        for one in said.answers:
            sure = ", ".join(f"{answer} {value:.2f}" for answer, value in one.probabilities.items())
            lines.append(f"{name}: {one.question} {one.answer}" + (f" ({sure})" if sure else ""))
        return [*lines, *warnings]

    def as_json(self) -> dict[str, Any]:
        """Everything; a withheld answer is None and has no probabilities."""
        found = {}
        for name, said in self.images.items():
            found[name] = {
                **{
                    one.question: {
                        "answer": None if said.withheld else one.answer,
                        "probabilities": {} if said.withheld else one.probabilities,
                    }
                    for one in said.answers
                },
                "warnings": [doubt.text for doubt in said.doubts],
            }
        return {"model": self.classifier.card.name, "research_use_only": True, "images": found, "failed": self.failed}

    def as_csv(self) -> str:
        """A line for each image: every question with its probabilities, empty where withheld, warnings and errors."""
        rows = []
        for name, said in self.images.items():
            row = {"image": name, "warnings": " ".join(doubt.text for doubt in said.doubts)}
            for one in () if said.withheld else said.answers:
                row |= {one.question: one.answer}
                row |= {f"{one.question}_p_{key}": f"{value:.4f}" for key, value in one.probabilities.items()}
            rows.append(row)
        rows += [{"image": name, "error": error} for name, error in self.failed.items()]
        return io.comma_separated(rows, self._columns())

    def _columns(self) -> list[str]:
        columns = ["image"]
        for question, classes in self.classifier.card.heads.items():
            columns += [question, *(f"{question}_p_{one}" for one in classes)]
        return [*columns, "warnings", "error"]

    def is_own_json(self, path: Path, images: Collection[str]) -> bool:
        """Whether a file is what `as_json` gave, unchanged, about none but these images: then nothing is lost."""
        if not files.is_own(path):
            return False
        found = files.read_json(path)
        return {*found.get("images", ()), *found.get("failed", ())} <= set(map(files.readable, images))
