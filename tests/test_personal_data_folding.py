"""The folded copy and the way back: every place of the copy is whole graphemes of the text as it stands."""

from __future__ import annotations

import unicodedata

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from forgetfilter.unlearn.personal_data.folding import fold

AWKWARD = (
    "\u00a0\u202f\u2009\u3000\u2011\u2013\u2014\u2212\u30fc\u200b\u200d\u00ad\u2060\ufeff\u0301\u0327\u0e34\u1100\u1161"
    "\u11a8\u094d\u0915\u09bc\ufb01\u2126\u00e9\u0130\u0660\u0966\uff11\uff21\u00b2\u2460\u3392\U0001f468\U0001f1e9"
    "\U0001f3fd\ufe0f\u0600\u115f\u1e9b\u0323\u00b4\u1fbd\r\n\t aA1-.'_&;\x00"
)
TEXTS = st.lists(
    st.one_of(st.characters(), st.sampled_from([*AWKWARD, "&eacute;", "&#64;", "&nbsp;"])), max_size=40
).map("".join)


def cuts(text: str) -> set[int]:
    """Where graphemes begin and end, told by the segmenter of `regex` over the whole text."""
    return {0} | {grapheme.end() for grapheme in regex.finditer(r"\X", text)}


def test_an_entity_is_one_place_of_the_copy():
    copy = fold("x Jos&eacute; y")
    assert copy.text == "x Jos\u00e9 y"
    assert copy.back(2, 6) == (2, 13)


@given(TEXTS)
def test_every_character_of_the_copy_came_from_whole_graphemes_in_their_order(text):
    copy, borders = fold(text), cuts(text)
    assert len(copy.text) == len(copy.starts) == len(copy.ends)
    assert set(copy.starts) | set(copy.ends) <= borders
    assert all(a < b for a, b in zip(copy.starts, copy.ends, strict=True))
    assert list(copy.starts) == sorted(copy.starts) and list(copy.ends) == sorted(copy.ends)


@given(TEXTS, st.data())
def test_the_place_of_a_piece_of_the_copy_folds_to_a_text_that_holds_the_piece(text, data):
    copy = fold(text)
    if not copy.text:
        return
    start = data.draw(st.integers(0, len(copy.text) - 1))
    end = data.draw(st.integers(start + 1, len(copy.text)))
    first, last = copy.back(start, end)
    # What a long dash or an underscore is read as depends on what stands beside it, which the cut may have taken away.
    alike = str.maketrans("\u2014\u2015\u30fc_", "---*")
    assert copy.text[start:end].translate(alike) in fold(text[first:last]).text.translate(alike)


@given(TEXTS)
def test_what_the_copy_leaves_out_is_invisible(text):
    """A second way: all graphemes that no character of the copy came from, looked at one by one."""
    copy = fold(text)
    kept = {place for start, end in zip(copy.starts, copy.ends, strict=True) for place in range(start, end)}
    for grapheme in regex.finditer(r"\X", text):
        if not kept & set(range(*grapheme.span())):
            assert regex.fullmatch(r"[\p{Cf}\p{Default_Ignorable_Code_Point}]+", grapheme[0])


LETTERS = st.text(st.sampled_from("aeinouyc\u0301\u0300\u0308\u0327\u0323\u0303 éüñçşộ"), max_size=20)


@given(LETTERS)
def test_composed_and_decomposed_spellings_have_the_same_copy(text):
    apart, whole = unicodedata.normalize("NFD", text), unicodedata.normalize("NFC", text)
    assert fold(apart).text == fold(whole).text == whole


@given(st.text(st.characters(max_codepoint=127, exclude_characters="&_"), max_size=40))
def test_plain_ascii_without_the_marks_of_html_and_markdown_is_its_own_copy(text):
    assert fold(text).text == text


@pytest.mark.parametrize(
    ("text", "copy"),
    [
        ("1\u00a02\u202f3\u20094\u30005", "1 2 3 4 5"),
        ("a\u2010b\u2011c\u2013d\u2212e\uff0df", "a-b-c-d-e-f"),
        ("03\u30fc1234", "03-1234"),
        ("\u30e1\u30fc\u30eb", "\u30e1\u30fc\u30eb"),  # the same sign, a long vowel between letters
        ("yes \u2014 no, 1\u20142", "yes \u2014 no, 1-2"),
        ("\uff11\u0662\u0969\u0e54", "1234"),
        ("O\u2019Brien, d\u00b4Angelo", "O'Brien, d'Angelo"),
        ("An\u200bna \u202a\u00adB\ufe0fo\u2060", "Anna Bo"),
        ("Jose\u0301, Jose\u200b\u0301", "Jos\u00e9, Jos\u00e9"),
        ("\ufb01\uff21\uff20", "fiA@"),
        ("Jos&eacute;&nbsp;Roe &lt;a&#64;b&#x2E;org&gt;", "Jos\u00e9 Roe <a@b.org>"),
        ("&nosuch; &amp &; R&D", "&nosuch; &amp &; R&D"),  # no entities
        ("_Ann_ __Bo__ a_b _c@d.org_ x_@y.org", "*Ann* **Bo** a_b *c@d.org* x_@y.org"),
        ("5\u00b2, 10 m\u00b3, \u00bd, \u2122", "5\u00b2, 10 m\u00b3, \u00bd, \u2122"),  # no 52, no 1/2
    ],
)
def test_one_spelling_stands_for_many(text, copy):
    assert fold(text).text == copy


def test_a_place_in_the_copy_goes_back_to_letter_and_accent_and_over_what_is_invisible():
    text = "x Jo\u200bse\u0301 y"
    copy = fold(text)
    assert copy.text == "x Jos\u00e9 y"
    start = copy.text.index("Jos\u00e9")
    assert copy.back(start, start + 4) == (2, 8)
    assert text[2:8] == "Jo\u200bse\u0301"
