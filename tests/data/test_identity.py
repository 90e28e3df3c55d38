"""When two texts are one question: in twenty scripts, with the symbols of technical questions."""

import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import qpairs
from qpairs.data.identity import canonical, canonical_ids, distinct_texts
from qpairs.data.splits import contradictions
from qpairs.data.words import words

NEAR_WORDS = {  # two words that differ in a letter or a mark
    "Latin, German": ("schon", "schön"),
    "Latin, French": ("peche", "pêche"),
    "Latin, Vietnamese": ("ma", "mạ"),
    "Latin, Turkish": ("kar", "kâr"),
    "Greek": ("πότε", "ποτέ"),
    "Cyrillic": ("мои", "мой"),
    "Hebrew": ("סֵפֶר", "סַפָּר"),
    "Arabic": ("عَلَم", "عِلْم"),
    "Devanagari": ("पानी", "पान"),
    "Bengali": ("দিন", "দান"),
    "Gurmukhi": ("ਦਿਨ", "ਦਾਨ"),
    "Gujarati": ("દિન", "દાન"),
    "Tamil": ("கலம்", "காலம்"),
    "Telugu": ("పని", "పాన"),
    "Kannada": ("ಮನೆ", "ಮನ"),
    "Malayalam": ("കല", "കാല"),
    "Sinhala": ("මල", "මාල"),
    "Thai": ("ใกล้", "ใกล"),
    "Lao": ("ຂ້າວ", "ຂາວ"),
    "Khmer": ("មាន", "មន"),
    "Burmese": ("စား", "စာ"),
    "Tibetan": ("མི", "མེ"),
    "Ethiopic": ("ሰላም", "ሰለም"),
    "Armenian": ("տուն", "տոն"),
    "Georgian": ("მთა", "მზა"),
    "Hangul": ("달", "딸"),
    "Hiragana": ("かき", "かぎ"),
    "Han": ("大人", "太人"),
}
OTHER_QUESTIONS = [
    ("C++", "C#"),
    ("C", "C#"),
    ("x^2", "x/2"),
    ("a*b", "ab"),
    ("-5", "5"),
    ("is it -5?", "is it 5?"),
    ("1.50", "150"),
    ("1,5", "15"),
    ("9:30", "930"),
    ("pages 1-5", "pages 15"),
    ("python 2 3", "python 23"),
    ("pages 1 \u2013 5", "pages 1 5"),
    ("1 , 5", "1 5"),
    ("10\u207b\u2075", "105"),
    ("1 > 2", "1 < 2"),
    ("a != b", "a = b"),
    ("5 %", "5"),
    ("$5", "5 \u20ac"),
    ("R&D", "rd"),
    ("\U0001f44d?", "\U0001f44e?"),
    ("\u0665\u066a", "\u0665"),
]
ONE_QUESTION = [
    ("How do  I, er, FLY?!", "how do i er fly"),
    ("Straße", "STRASSE"),
    ("snake_case", "snakecase"),
    ("e-mail", "Email"),
    ("don't", "don\u2019t", "don\u02bct", "don`t", "don\u00b4t", "dont"),
    ("\uff48\uff4f\uff57\uff1f", "how"),
    ("\u00bfQu\u00e9?", "Que\u0301"),
    ("\ufb01le", "file"),
    ("100 %", "100%"),
    ("version  1  2", "version 1 2"),
    ("\u7530?", "\u7530\u3002", "\u7530\uff1f"),
    ("a\u200bb", "ab"),
    ("iPhone 6 , 7", "iPhone 6, 7", "iPhone 6,7"),
    ("top 10 - 20", "top 10-20", "top 10 \u2013 20", "top 10\u201420", "top 10 \u2212 20", "top 10\uff0d20"),
    ("is it -5?", "is it \u22125?", "is it \u20135?"),
    ("x \u2212 y", "x - y"),
    ("1\u200e5", "15"),
    ("1 \u200e5", "1 5"),
    ("I \u2764\ufe0f it", "I \u2764 it"),
    ("\u845b\U000e0100", "\u845b"),
]


@pytest.mark.parametrize(("one", "other"), NEAR_WORDS.values(), ids=NEAR_WORDS)
def test_a_letter_or_a_mark_makes_another_question(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)
    assert "".join(words(one)) == one.lower()  # marks are parts of a word, or of a character where words have no blanks
    for text in (one, other):
        forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD")]
        assert {canonical(form) for form in (*forms, f"  {text} ?", text.upper())} == {canonical(text)}


@pytest.mark.parametrize(("one", "other"), OTHER_QUESTIONS)
def test_numbers_and_symbols_make_another_question(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)
    assert canonical(f"How does {one} look, do you know?") != canonical(f"How does {other} look, do you know?")


@pytest.mark.parametrize("texts", ONE_QUESTION)
def test_case_spaces_punctuation_and_the_form_of_letters_do_not_count(texts: tuple[str, ...]) -> None:
    assert len({canonical(text) for text in texts}) == 1


def test_where_nothing_is_left_the_text_stands_for_itself() -> None:
    assert canonical("?!") == "?!" != canonical("!?")
    assert canonical("") == ""


@given(st.text())
def test_the_form_of_unicode_and_what_surrounds_a_text_do_not_count(text: str) -> None:
    assume(any(c.isalnum() for c in text))
    expected = canonical(text)
    assert canonical(unicodedata.normalize("NFD", text)) == canonical(unicodedata.normalize("NFC", text))
    assert canonical(f" ({text}) ...") == expected


@given(st.lists(st.sampled_from(["a", "A!", "b", "?", "1.5", "15"])))
def test_numbers_of_questions_against_a_naive_loop(texts: list[str]) -> None:
    naive: list[str] = []
    for text in map(canonical, texts):
        naive += [text] * (text not in naive)
    number, first = distinct_texts(texts)
    assert number.tolist() == canonical_ids(texts).tolist() == [naive.index(canonical(text)) for text in texts]
    assert [canonical(texts[row]) for row in first] == naive


def test_near_words_of_any_script_are_no_contradictions() -> None:
    left, right = zip(*[*NEAR_WORDS.values(), *OTHER_QUESTIONS], strict=True)
    assert contradictions(qpairs.pairs_from_texts(left, right, [0] * len(left))).tolist() == []
    same = [texts[:2] for texts in ONE_QUESTION]
    found = contradictions(qpairs.pairs_from_texts(*zip(*same, strict=True), [0] * len(same)))
    assert found.tolist() == list(range(len(same)))
