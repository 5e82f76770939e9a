import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlens.export import text

raw = st.binary(max_size=12) | st.text(max_size=8).map(lambda t: t.encode("utf-8", "replace"))


@settings(max_examples=500)
@given(raw=raw, spreadsheet=st.booleans())
def test_escaped_bytes_can_be_shown_and_come_back(raw, spreadsheet):
    found = text.escape(raw, spreadsheet)
    assert text.unescape(found) == raw
    found.encode("utf-8")
    assert not [c for c in found if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    assert not (spreadsheet and found.startswith(("=", "+", "-", "@")))


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b" plasma", " plasma"),
        ("\u65e5\u00fc".encode(), "\u65e5\u00fc"),
        (b"a\nb\t\r\\", r"a\nb\t\r\\"),
        (b"\x1b[31m", r"\x1b[31m"),
        (b"\xe6\x97", r"\xe6\x97"),
        ("\u202eabc".encode(), r"\u202eabc"),
        ("\u0085".encode(), r"\u0085"),
        ("\U000e0041".encode(), r"\U000e0041"),
        (b"=1+1", "=1+1"),
    ],
)
def test_what_is_printable_stays_as_it_is_and_the_rest_is_spelled(raw, shown):
    assert text.escape(raw) == shown


def test_a_formula_is_spelled_where_spreadsheets_may_read_it():
    assert text.escape(b"=1+1", spreadsheet=True) == r"\x3d1+1"
    assert text.escape(b"", spreadsheet=True) == ""
