"""What reaches the terminal: names of files can neither command it nor pass for other lines."""

import os
from pathlib import Path

import pytest

from retina_seg import terminal
from retina_seg.batch import Outcome


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("eye.png", "eye.png"),
        ("Müller 眼.png", "Müller 眼.png"),
        ("a\x1b[2Jb.png", r"a\x1b\[2Jb.png"),
        ("a\nerror: all lost.png", r"a\nerror: all lost.png"),
        ("a\r\x08\x07\x9b.png", r"a\r\x08\x07\x9b.png"),
        ("a\u202egnp.exe", r"a\u202egnp.exe"),
        ("a\u2028b", r"a\u2028b"),
        (os.fsdecode(b"\xe4uge.png"), r"\xe4uge.png"),
        ("[bold]a[/]", r"\[bold]a\[/]"),
    ],
)
def test_names_are_shown_in_one_line_without_commands(name, shown):
    assert terminal.plain(name) == shown
    assert terminal.plain(Path("folder") / name.replace("/", "")) == "folder/" + shown.replace("/", "")


def test_an_outcome_is_told_in_lines_of_its_own(capsys):
    source = Path("a\x1b[31m\nb.png")
    terminal.tell(Outcome(source, warnings=("It is blurred.",), notes=(f"{source} is the result of another.",)))
    terminal.tell(Outcome(source, error=f"{source} is damaged"))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        r"warning: a\x1b[31m\nb.png: It is blurred.",
        r"note: a\x1b[31m\nb.png is the result of another.",
        r"error: a\x1b[31m\nb.png is damaged",
    ]
