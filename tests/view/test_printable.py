import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from jaxlens.view import printable

ALL = st.text(st.characters(), max_size=40)


def harmless(shown):
    return all(unicodedata.category(c)[0] in "LMNPS" for c in shown)


@given(st.binary(max_size=60))
def test_any_bytes_become_printable_characters(raw):
    assert harmless(printable.token(raw))


@given(ALL)
def test_any_text_becomes_one_line_of_printable_characters(text):
    shown = printable.line(text)
    assert harmless(shown.replace(" ", ""))
    assert len(shown.splitlines()) <= 1


@given(st.text(st.characters(categories=["L", "N"]), max_size=40))
def test_letters_and_digits_stay_what_they_are(text):
    kept = "".join(c for c in text if c not in "\u3164\uffa0\u115f\u1160")
    assert printable.token(kept.encode()) == kept


def test_white_space_and_controls_have_signs_and_numbers():
    assert printable.token(b" a\n\tb\r") == "·a↵⇥b␍"
    assert printable.token(b"\x1b[31m\x07") == "\\x1b[31m\\x07"
    assert printable.token("\u202e\u2066\u200b".encode()) == "\\u202e\\u2066\\u200b"
    assert printable.token("\U000e0041".encode()) == "\\U000e0041"
    assert printable.token(b"\xe2\x80") == "\\xe2\\x80"
    assert printable.line("a b\nc\ud800") == "a b↵c\\ud800"


def test_long_tokens_are_cut_and_say_so():
    assert printable.token(b"a" * 10_000, 5) == "aaaaa…(10,000 bytes)"
    assert printable.token("日".encode() * 6, 5) == "日日日日日…(18 bytes)"
    assert printable.token(b"a" * 5, 5) == "aaaaa"
