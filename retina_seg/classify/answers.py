"""What a classifier answered about many images, as lines, JSON and a table: what is in doubt is withheld."""

import csv
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from retina_seg.classify.inference import Classified, Classifier
from retina_seg.errors import UserError


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
        try:
            said = self.images[name] = self.classifier.predict(path)
        except UserError as error:
            self.failed[name] = str(error)
            return [str(error) if name in str(error) else f"{name}: {error}"]
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
        columns = ["image"]
        for question, classes in self.classifier.card.heads.items():
            columns += [question, *(f"{question}_p_{one}" for one in classes)]
        text = StringIO()
        writer = csv.DictWriter(text, [*columns, "warnings", "error"], restval="", lineterminator="\n")
        writer.writeheader()
        for name, said in self.images.items():
            row = {"image": name, "warnings": " ".join(doubt.text for doubt in said.doubts)}
            for one in () if said.withheld else said.answers:
                row |= {one.question: one.answer}
                row |= {f"{one.question}_p_{key}": f"{value:.4f}" for key, value in one.probabilities.items()}
            writer.writerow(row)
        for name, error in self.failed.items():
            writer.writerow({"image": name, "error": error})
        return text.getvalue()
