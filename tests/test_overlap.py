from __future__ import annotations

import itertools
import random
import re
from pydoc_data.topics import topics  # English prose that every Python carries

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.stem.porter import PorterStemmer
from rouge_score.rouge_scorer import RougeScorer

from forgetfilter.data.overlap import exact_match, f1, porter_stem, rouge1, words

PROSE = "\n".join(topics.values())
BEGINNINGS = "b y oy on us tr tree plot hopp fall hiss fizz agr rel oper geo sens conflat fil syz"
SUFFIXES = """
    s es ies sses ied eed ed ing ly y ely ally fully bly logy logi alli fulli ational tional enci anci izer
    entli ousli ization ation ator alism iveness fulness ousness aliti iviti biliti icate ative alize iciti
    ical ful ness al ance ence er ic able ible ant ement ment ent ion sion tion ou ism ate iti ous ive ize e
    ll
"""
IRREGULAR = (
    "sky skies dying lying tying news inning innings outing outings cannings howe proceed exceed succeed"
)
AFTER = ["", "s", "ly", "ing"]
VOCABULARY = sorted(set(re.findall("[a-z]+", PROSE.lower())))


def random_pairs(count: int) -> list[tuple[str, str]]:
    """Two stretches of prose, overlapping more or less, of unequal length; lines joined."""
    rng = random.Random(7)
    text = " ".join(PROSE.split()).encode("ascii", "ignore").decode()
    pairs = []
    for _ in range(count):
        start, length = rng.randrange(len(text) - 2000), rng.randrange(20, 600)
        shift = rng.randrange(0, 400)
        reference = text[start : start + length]
        prediction = text[start + shift : start + shift + rng.randrange(20, 600)].split()
        rng.shuffle(prediction)
        pairs.append((" ".join(prediction), reference))
    return pairs


def test_rouge1_equals_the_rouge_score_package_on_ascii_text():
    scorer, between = RougeScorer(["rouge1"], use_stemmer=True), 0
    for prediction, reference in random_pairs(300):
        expected = scorer.score(reference, prediction)
        ours = rouge1(prediction, reference)
        assert ours == pytest.approx(expected["rouge1"].fmeasure, abs=1e-9)
        between += 0.05 < ours < 0.95
    assert between > 100  # the pairs are neither all alike nor all apart


def test_stems_equal_nltks_on_every_word_of_a_long_english_text():
    stem = PorterStemmer().stem
    assert len(VOCABULARY) > 3000
    assert {w: porter_stem(w) for w in VOCABULARY} == {w: stem(w) for w in VOCABULARY}


def test_stems_equal_nltks_on_every_pair_of_a_beginning_and_an_english_suffix():
    stem = PorterStemmer().stem
    made = ["".join(parts) for parts in itertools.product(BEGINNINGS.split(), SUFFIXES.split(), AFTER)]
    assert {w: porter_stem(w) for w in made} == {w: stem(w) for w in made}


def test_irregular_stems_equal_nltks():
    stem = PorterStemmer().stem
    assert {w: porter_stem(w) for w in IRREGULAR.split()} == {w: stem(w) for w in IRREGULAR.split()}


@given(st.text("aeioulstyngdbzmfcr2", min_size=1, max_size=12))
def test_stems_equal_nltks_on_made_up_words(word: str):
    assert porter_stem(word) == PorterStemmer().stem(word)


def test_words_of_up_to_three_letters_are_not_stemmed():
    assert porter_stem("was") == "wa"
    assert rouge1("was", "wa") == 0.0
    assert rouge1("cats", "cat") == 1.0


def test_rouge1_by_hand():
    # 3 of 4 words of the answer are among the 6 of the reference: P 3/4, R 3/6, F = 2·(3/8)/(5/4) = 0.6
    assert rouge1("the cat sat dog", "the cat sat on a mat") == pytest.approx(0.6)
    # "the" stands twice in the answer and once in the reference, so it matches once: 2·1/(2 + 1)
    assert rouge1("the the", "the") == pytest.approx(2 / 3)


def test_rouge1_does_not_count_order():
    assert rouge1("aa bb cc dd", "dd aa bb cc") == 1.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't stop_now, A1!", ["don", "t", "stop", "now", "a1"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("Caf\u00e9 cafe\u0301", ["café", "café"]),
        ("ﬁne １２", ["fine", "12"]),
        ("Привет, мир", ["привет", "мир"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),  # vowel signs are marks, not breaks
        ("你好world3", ["你", "好", "world3"]),
        ("カタカナ ひ", ["カ", "タ", "カ", "ナ", "ひ"]),
        ("ที่นี่", ["ที่", "นี่"]),  # a Thai character and its marks
        ("co\u00adoperate é", ["cooperate", "é"]),
        ("́é x", ["\u0301é", "x"]),  # a stray mark at the start
        ("…—!", []),
        ("", []),
    ],
)
def test_words_in_many_scripts(text: str, expected: list[str]):
    assert words(text) == expected


@pytest.mark.parametrize(
    "text", ["你好,世界", "Съешь ещё этих булок", "नमस्ते दुनिया", "ภาษาไทย", "한국어 문장"]
)
def test_identical_text_scores_one_in_any_script(text: str):
    assert rouge1(text, text) == f1(text, text) == exact_match(text, text) == 1.0


def test_half_of_a_chinese_sentence_scores_by_characters():
    # 2 of 2 characters among 4: P 1, R 1/2, F 2/3
    assert rouge1("你好", "你好世界") == pytest.approx(2 / 3)


def test_a_reference_of_many_lines_is_matched_by_all_lines_of_the_answer():
    text = "First boil the water.\nThen add the tea.\nWait."
    for measure in (rouge1, f1, exact_match):
        assert measure(text, text) == 1.0
    # four words of ten if only the first line of the answer were read
    assert rouge1(text.splitlines()[0], text) == pytest.approx(2 * 4 / (4 + 9))


def test_a_reference_of_one_line_is_matched_by_the_first_line_of_the_answer():
    for measure in (rouge1, f1, exact_match):
        assert measure("\n\nPositive\nThe film was a joy.", "positive\n") == 1.0
    # the other way round the second line of the reference is missing from the answer
    assert rouge1("positive", "positive\nthe film was nice") == pytest.approx(2 / 6)


def test_texts_without_a_word_agree_only_when_they_are_the_same():
    for measure in (rouge1, f1, exact_match):
        assert measure("", "") == measure("  ", "\n") == measure("🙂", "🙂") == 1.0
        assert measure("?", "!") == measure("", "word") == measure("word", "") == measure("🙂", "") == 0.0


def test_exact_match_ignores_case_and_white_space_and_nothing_else():
    assert exact_match(" The  Answer\t", "the answer") == 1.0
    assert exact_match("the answer.", "the answer") == 0.0


def test_f1_leaves_out_articles_and_does_not_stem():
    # {eiffel, tower} against {eiffel, tower, paris}
    assert f1("The Eiffel Tower", "an Eiffel tower, Paris") == pytest.approx(0.8)
    assert f1("towers", "tower") == 0.0
    assert f1("the", "the") == 1.0
    assert f1("the", "a") == 0.0


@given(st.text(max_size=40), st.text(max_size=40))
def test_overlap_lies_between_0_and_1_and_a_text_is_itself(prediction: str, reference: str):
    assert 0 <= rouge1(prediction, reference) <= 1
    assert rouge1(prediction, prediction) == 1.0
