"""Text from files, as their names, made fit to be shown on the page: in one line, and without markup.

What the terminal shows is made fit in terminal.
"""

import re
import unicodedata

_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # control, format, surrogate, private, unassigned, line ends
_MARKUP = re.compile(r"[\\`*_{}\[\]#+|~$<>:@]")
_ELSEWHERE = {
    r"(?<=www)\.": r"\.",  # a link
    r"&(?=#?\w+;|\\#)": r"\&",  # a letter by its number
    r"^(\d+)(?=[.)](?:\s|$))": r"\1\\",  # an item of a list
    r"^(?=-)": r"\\",  # another one
}
"""Markup that is none in every place, and how it is written so that it is text."""


def line(text: str) -> str:
    """Text in one line: spaces for line ends, "_" for other control characters, marks of direction, half letters."""
    spaced = re.sub(r"[\t\n\v\f\r\x85\u2028\u2029]", " ", text)
    return "".join("_" if unicodedata.category(letter) in _UNSEEN else letter for letter in spaced)


def plain(text: str) -> str:
    """Text in one line in which Streamlit finds no Markdown."""
    escaped = _MARKUP.sub(r"\\\g<0>", line(text).strip())
    for pattern, meant in _ELSEWHERE.items():
        escaped = re.sub(pattern, meant, escaped, flags=re.IGNORECASE)
    return escaped
