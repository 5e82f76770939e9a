import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from jaxlens.view import visible

ALL = st.text(st.characters(), max_size=40)


def harmless(shown):
    return all(unicodedata.category(c)[0] in "LMNPS" for c in shown)


@given(st.binary(max_size=60))
def test_any_bytes_become_printable_characters(raw):
    assert harmless(visible.token(raw))


@given(ALL)
def test_any_text_becomes_one_line_of_printable_characters(text):
    shown = visible.line(text)
    assert harmless(shown.replace(" ", ""))
    assert len(shown.splitlines()) <= 1


@given(st.text(st.characters(categories=["L", "N"]), max_size=40))
def test_letters_and_digits_stay_what_they_are(text):
    kept = "".join(c for c in text if c not in "\u3164\uffa0\u115f\u1160")
    assert visible.token(kept.encode()) == kept


def test_white_space_and_controls_have_signs_and_numbers():
    assert visible.token(b" a\n\tb\r") == "·a↵⇥b␍"
    assert visible.token(b"\x1b[31m\x07") == "\\x1b[31m\\x07"
    assert visible.token("\u202e\u2066\u200b".encode()) == "\\u202e\\u2066\\u200b"
    assert visible.token("\U000e0041".encode()) == "\\U000e0041"
    assert visible.token(b"\xe2\x80") == "\\xe2\\x80"
    assert visible.line("a b\nc\ud800") == "a b↵c\\ud800"


def test_long_tokens_are_cut_and_say_so():
    assert visible.token(b"a" * 10_000, 5) == "aaaaa…(10,000 bytes)"
    assert visible.token("日".encode() * 6, 5) == "日日日日日…(18 bytes)"
    assert visible.token(b"a" * 5, 5) == "aaaaa"
