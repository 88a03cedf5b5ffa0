import pytest

from retina_seg.viewer.shown import plain


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\n# b.png", "a \\# b.png"),
        ("a\r\n\r\n- b.png", "a    - b.png"),
        ("\x1b[31mred.png", "\\_\\[31mred.png"),
        ("\u202egnp.eye.png", "\\_gnp.eye.png"),
        ("a\u2028b\u200b\udce4.png", "a b\\_\\_.png"),
        ("- a.png", "\\- a.png"),
        ("1. a.png", "1\\. a.png"),
        ("12) a.png", "12\\) a.png"),
        ("    a.png", "a.png"),
        ("&lt;b&#62; &c.png", "\\&lt;b\\&\\#62; &c.png"),
        ("WWW.evil.example.png", "WWW\\.evil.example.png"),
        ("https://evil.example mail@evil.example.png", "https\\://evil.example mail\\@evil.example.png"),
        (":material/home: :red[x] ![y](z) $e$ ~~s~~.png", None),
    ],
)
def test_names_of_files_are_shown_as_they_are(name, shown):
    said = plain(name)
    if shown is None:
        shown = "".join(f"\\{letter}" if letter in ":[]$~" else letter for letter in name)
    assert said == shown
