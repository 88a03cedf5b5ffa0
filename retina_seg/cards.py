"""Cards: what a person must know about a set before using it (licence, source, citation, split, leaks).

Reads the YAML file beside a set's manifest; the rows are in manifest.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from retina_seg import manifest
from retina_seg.errors import UserError

_TEXTS = ("name", "title", "licence", "source", "obtain", "citation", "split_rule")
_FLAGS = ("registration", "redistribution")


@dataclass(frozen=True)
class Card:
    """One set in words.

    Attributes
    ----------
    name, title
        Name in this package, and in full.
    licence
        Licence or terms, as far as they are known.
    redistribution
        Whether the terms allow passing the images on.
    registration
        Whether the owners hand the set out only to registered users.
    source, obtain
        The owners' page, and what to do there.
    citation, split_rule
        What to cite, and how the protocols' splits are ruled.
    notes
        Known leaks, second observers, differences between copies.
    known_shared_subjects
        Protocol -> subjects that the split as published has on two sides.
    downloads
        Addresses of archives that the owners let everyone fetch; empty where there is none.
    """

    name: str
    title: str
    licence: str
    redistribution: bool
    registration: bool
    source: str
    obtain: str
    citation: str
    split_rule: str
    notes: tuple[str, ...]
    known_shared_subjects: Mapping[str, tuple[str, ...]]
    downloads: tuple[str, ...]


def read(path: str | Path) -> Card:
    """Read one card; an unknown, missing, empty or wrongly typed entry is an error."""
    path = Path(path)
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as a card ({error})") from error
    known = {field.name for field in fields(Card)}
    if not isinstance(entries, dict) or set(entries) != known:
        differing = sorted(map(str, known ^ set(entries))) if isinstance(entries, dict) else sorted(known)
        raise UserError(f"{path}: entries missing or unknown: {', '.join(differing)}")
    for name in _TEXTS:
        if not isinstance(entries[name], str) or not entries[name].strip():
            raise UserError(f"{path}: {name} is {entries[name]!r}, expected text")
    for name in _FLAGS:
        if not isinstance(entries[name], bool):
            raise UserError(f"{path}: {name} is {entries[name]!r}, expected true or false")
    shared = entries["known_shared_subjects"]
    if not isinstance(shared, dict) or not all(isinstance(subjects, list) for subjects in shared.values()):
        raise UserError(f"{path}: known_shared_subjects is {shared!r}, expected protocol: [subject, ...]")
    for name in ("notes", "downloads"):
        if not isinstance(entries[name], list) or not all(isinstance(entry, str) for entry in entries[name]):
            raise UserError(f"{path}: {name} is {entries[name]!r}, expected a list of texts")
    return Card(
        **{name: entries[name].strip() for name in _TEXTS},
        **{name: entries[name] for name in _FLAGS},
        notes=tuple(note.strip() for note in entries["notes"]),
        known_shared_subjects={str(key): tuple(map(str, value)) for key, value in shared.items()},
        downloads=tuple(entries["downloads"]),
    )


def card(dataset: str) -> Card:
    """The packaged card of a set."""
    return read(manifest.folder() / f"{dataset}.yaml")
