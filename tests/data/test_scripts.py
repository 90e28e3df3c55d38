"""Words in any script: one definition for overlap, explanations, neighbours, slices and encoders of words."""

import itertools
import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import qpairs
from qpairs.data.augment import generate_pairs
from qpairs.data.pairs import pairs_from_texts
from qpairs.data.words import looks_english, pieces, words
from qpairs.encoders.words import word_tokenizer
from qpairs.evaluation.explain import explain
from qpairs.evaluation.slices import slices
from qpairs.evaluation.wording import KINDS, Wording

CHINESE = ["怎么修改我的密码", "怎么删除我的账户", "我的订单在哪里", "如何联系客服", "可以退款吗"]
SCRIPTS = {
    "怎么修改我的密码\uff1f": ("怎", "么", "修", "改", "我", "的", "密", "码"),
    "パスワードを忘れた": ("パスワード", "を", "忘", "れ", "た"),
    "ลืมรหัสผ่าน เก่า": ("ลื", "ม", "ร", "หั", "ส", "ผ่า", "น", "เก่า"),
    "비밀번호를 잊었어요": ("비밀번호를", "잊었어요"),
    "मेरा काम कब होगा?": ("मेरा", "काम", "कब", "होगा"),
    "Как дела?": ("как", "дела"),
    "don\u2019t 忘记 PIN": ("don't", "忘", "记", "pin"),
}


@pytest.mark.parametrize("text", SCRIPTS)
def test_words_where_no_blanks_are_written(text: str) -> None:
    assert words(text) == SCRIPTS[text]
    tokenizer = word_tokenizer()
    split = tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
    assert len([word for word, _ in split if word[0].isalnum()]) >= len(SCRIPTS[text]) - 1  # do n't are two


@given(st.text(max_size=40))
def test_pieces_are_the_whole_text(text: str) -> None:
    assert "".join(map("".join, pieces(text))) == text.lstrip()
    assert not any(part.split() != [part] for part, _ in pieces(text))


@given(st.text(st.characters(max_codepoint=127), max_size=40))
def test_the_fast_words_of_ascii_are_the_same(text: str) -> None:
    assert words(text) == words(text + " é")[:-1]


def test_different_chinese_questions_overlap_in_part() -> None:
    pair = Wording((CHINESE[0], CHINESE[1]), frozenset())
    assert pair.overlap == 4 / 12
    assert KINDS["word overlap"].value(pair) == "20 to 40 %"
    assert pair.length == 8


@given(st.text("abc ", max_size=9), st.text("abc ", max_size=9))
def test_overlap_is_defined_once(one: str, other: str) -> None:
    pairs = pairs_from_texts([one], [other], [1])
    wording = Wording(pairs.texts(0), frozenset())
    shown = {part.name for part in slices(pairs, np.array([0.9], np.float32), 0.5) if part.kind == "overlap"}
    assert shown == {f"word overlap {KINDS['word overlap'].value(wording)}"}


def test_a_chinese_question_is_explained_by_its_characters(checkpoint: qpairs.Checkpoint) -> None:
    trained_on = pairs_from_texts(CHINESE[:4], CHINESE[1:], [1, 0, 1, 0])
    found = explain(checkpoint, CHINESE[0], "a b", trained_on=trained_on)
    assert [word.text for word in found.words[0]] == ["怎", "么", "修", "改", "我", "的", "密", "码"]
    assert [word.text for word in found.words[1]] == ["a", "b"]
    assert found.neighbours


def test_different_questions_have_different_vectors(tmp_path_factory: pytest.TempPathFactory) -> None:
    asked = [one + other for one, other in itertools.product(CHINESE, CHINESE)]
    pairs = pairs_from_texts(asked, [*asked[1:], asked[0]], [0, 1] * (len(asked) // 2) + [0])
    for encoder in ("static", "lstm", "cnn"):
        built = qpairs.encoders.build.build_encoder(encoder, texts=pairs.questions, max_length=32)
        vectors = built.encode(CHINESE)
        assert (vectors @ vectors.T)[np.triu_indices(len(CHINESE), 1)].max() < 0.999


ENGLISH = ["How do I pay?", "What is my PIN?", "Where are you from?", "Is the shop open?", "Why was it refused?"]
GERMAN = ["Wie bezahle ich das?", "Wo ist mein PIN?", "Was tun?", "Ist der Laden auf?", "Warum wurde es abgelehnt?"]


def test_languages_are_told_apart() -> None:
    assert looks_english(ENGLISH) and looks_english(qpairs.load_pairs("sample").questions)
    assert not any(map(looks_english, (GERMAN, CHINESE, ["¿Cómo pago esto?", "¿Dónde está mi pedido?"] * 3)))


@pytest.mark.parametrize(("questions", "said"), [(ENGLISH, False), (GERMAN, True), (CHINESE, True)])
def test_rules_for_english_say_so(questions: list[str], said: bool, caplog: pytest.LogCaptureFixture) -> None:
    pairs = pairs_from_texts(questions, questions[::-1], [1] * len(questions))
    with caplog.at_level(logging.WARNING, "qpairs"):
        generate_pairs(pairs, 0.5, seed=0)
    assert ("do not look English" in caplog.text) is said
    assert caplog.text.count("\n") == said
