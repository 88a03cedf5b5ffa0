"""Cards: complete, typed, and strict about it."""

import pytest
import yaml
from drawn_set import card

from retina_seg import cards
from retina_seg.errors import UserError


def write(tmp_path, **changes):
    path = tmp_path / "set.yaml"
    path.write_text(yaml.safe_dump(card([]) | changes), encoding="utf-8")
    return path


def test_a_card_is_read_with_its_types(tmp_path):
    path = write(tmp_path, known_shared_subjects={"fold/1": ["04"]}, downloads=["https://example.org/a.tar"])
    read = cards.read(path)
    assert read.known_shared_subjects == {"fold/1": ("04",)}
    assert read.downloads == ("https://example.org/a.tar",)
    assert read.registration is False


@pytest.mark.parametrize(
    "changes",
    [
        {"licence": ""},
        {"title": 3},
        {"registration": "no"},
        {"notes": "one"},
        {"known_shared_subjects": {"a": "04"}},
        {"unknown": "entry"},
    ],
)
def test_a_wrong_entry_is_named(tmp_path, changes):
    with pytest.raises(UserError, match=next(iter(changes))):
        cards.read(write(tmp_path, **changes))


def test_a_missing_entry_and_broken_yaml_are_user_errors(tmp_path):
    path = tmp_path / "set.yaml"
    entries = card([])
    del entries["citation"]
    path.write_text(yaml.safe_dump(entries), encoding="utf-8")
    with pytest.raises(UserError, match="citation"):
        cards.read(path)
    for text in ("a: [", "just text"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=r"set\.yaml"):
            cards.read(path)
    with pytest.raises(UserError, match="cannot be read"):
        cards.read(tmp_path / "none.yaml")


def test_the_set_whose_owners_forbid_passing_it_on_is_marked_so():
    drive = cards.card("drive")
    assert not drive.redistribution
    assert drive.registration
    assert not drive.downloads
