"""What an encoder cuts off and does not know is counted as it reads, and said by every command that encodes."""

import csv
import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

import qpairs
from qpairs.data.pairs import pairs_from_texts
from qpairs.encoders.build import build_encoder
from qpairs.encoders.tokens import token_counter, token_ids
from qpairs.encoders.towers import towers
from qpairs.models.base import TOKENIZER
from qpairs.models.base import WORDS as WORDS_FILE
from qpairs.models.coverage import Coverage, coverage, warn_of_texts
from qpairs.models.tokens import Reading, export_counter, tokeniser

LINE = "how do i pay with my card when the bank is shut and nobody picks up"
WORDS = LINE.split()
LONG = " ".join(WORDS * 9)
TEXTS = ["how do i pay", " ".join(WORDS), LONG, "zzyzx qwrty", "", "忘记 how"]


@pytest.mark.parametrize("encoder", ["static", "lstm", "cnn", "tiny", "lstm+cnn"])
@pytest.mark.parametrize("limit", [8, 16, 64])
def test_cut_are_those_whose_tokens_reach_the_limit_and_would_go_on(encoder: str, limit: int) -> None:
    texts = [*TEXTS, *TEXTS, *(" ".join(WORDS[:n]) for n in range(1, len(WORDS)))]
    short, whole = (build_encoder(encoder, texts=texts, max_length=n) for n in (limit, 500))
    first, unlimited = (towers(built)[0] for built in (short, whole))
    counter = token_counter(first)
    assert counter is not None and counter.limit == limit
    kept, full = token_ids(first, texts), token_ids(unlimited, texts)
    wanted = sum(len(a) < len(b) for a, b in zip(kept, full, strict=True))
    assert coverage(counter, texts).cut == wanted > 0
    np.testing.assert_array_equal(counter.count(texts).tokens, [len(row) for row in full])


@pytest.mark.parametrize("encoder", ["static", "lstm", "lstm+cnn"])
def test_unknown_words_are_counted(encoder: str) -> None:
    built = build_encoder(encoder, texts=[" ".join(WORDS)] * 2)
    counter = token_counter(towers(built)[0])
    assert counter is not None
    assert coverage(counter, [" ".join(WORDS)]).unknown == 0
    assert coverage(counter, ["how zzyzx do qwrty"]).unknown == 0.5
    (note,) = coverage(counter, ["zzyzx qwrty how"]).notes()
    assert "67 % of the words are unknown to this encoder" in note and "multilingual" in note


OTHER_SCRIPTS = {
    "Hindi": ["पासवर्ड कैसे बदलें", "भारत की राजधानी क्या है?"],
    "Arabic": ["كيف أغير كلمة المرور", "ما هي عاصمة فرنسا؟"],
    "Russian": ["Как изменить пароль", "Какой город является столицей?"],
}


@pytest.fixture(scope="module")
def minilm() -> SentenceTransformer:
    return build_encoder("minilm", max_length=64)


@pytest.mark.parametrize("language", OTHER_SCRIPTS)
def test_words_spelt_in_single_letters_are_unknown(minilm: SentenceTransformer, language: str) -> None:
    """BERT's English vocabulary has the letters of these scripts, and none of their words."""
    counter = token_counter(minilm)
    assert counter is not None
    found = coverage(counter, OTHER_SCRIPTS[language])
    assert found.unknown > 0.35 and "multilingual" in found.notes()[0]


def test_words_in_longer_pieces_are_known(minilm: SentenceTransformer, sample_rows: list[tuple[str, str, int]]) -> None:
    counter = token_counter(minilm)
    assert counter is not None
    latin = ["Wie ändere ich mein Passwort?", "Rindfleischetikettierungsüberwachung", "¿Cómo cambio mi contraseña?"]
    for texts in (latin, [text for row in sample_rows for text in row[:2]]):
        assert coverage(counter, texts).unknown < 0.02


def test_two_questions_and_a_corpus_are_warned_of(
    run: Callable[..., object], minilm: SentenceTransformer, tmp_path: Path, checkpoint: qpairs.Checkpoint
) -> None:
    dataclasses.replace(checkpoint, source=minilm).save(tmp_path / "m")
    (tmp_path / "hindi.txt").write_text("\n".join(OTHER_SCRIPTS["Hindi"]), encoding="utf-8")
    for command in (("predict", "m", *OTHER_SCRIPTS["Russian"]), ("dedupe", "m", "hindi.txt", "--dry-run")):
        done = run(*command)
        assert done.code == 0 and "words are unknown to this encoder" in " ".join((done.out + done.err).split())
    done = run("predict", "m", "?", "!")
    assert " ".join((done.out + done.err).split()).count("no question has a word") == 1


def test_many_texts_give_the_same_as_few(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*TEXTS, *(" ".join(WORDS[: n % 16]) for n in range(200))]
    counter = token_counter(build_encoder("static", texts=texts, max_length=8))
    assert counter is not None
    whole = coverage(counter, texts)
    monkeypatch.setattr("qpairs.models.coverage.SAMPLE", 20)
    assert coverage(counter, texts).cut == whole.cut
    assert coverage(counter, texts).unknown == pytest.approx(whole.unknown, abs=0.2)


def test_nothing_is_said_where_nothing_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    assert Coverage(5, 0, 64, 0.1).notes() == []
    warn_of_texts(None, TEXTS, "x")
    warn_of_texts(token_counter(build_encoder("static", texts=TEXTS * 2)), [], "x")
    assert not caplog.records


@pytest.fixture(scope="module")
def long_csv(tmp_path_factory: pytest.TempPathFactory, sample_rows: list[tuple[str, str, int]]) -> Path:
    path = tmp_path_factory.mktemp("long") / "long.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = [(f"{a} {LONG}" if n < 3 else a, b, y) for n, (a, b, y) in enumerate(sample_rows)]
        csv.writer(file).writerows([["question1", "question2", "is_duplicate"], *rows])
    return path


def test_markup_is_warned_of_where_many_texts_have_it(caplog: pytest.LogCaptureFixture) -> None:
    tickets = ["<p>How do I <b>pay</b>?</p>", "Cards &amp; cash", "Where is my parcel?"]
    warn_of_texts(None, tickets, "dedupe")
    assert "dedupe: 2 of 3 questions have HTML tags or entities" in caplog.text
    caplog.clear()
    warn_of_texts(None, [*(f"Is {n} < {n + 1} & more?" for n in range(60)), "What is </div> in HTML?"], "dedupe")
    assert caplog.text == ""


def test_every_command_that_encodes_says_what_is_cut(run: Callable[..., object], long_csv: Path) -> None:
    def said(*command: object) -> str:
        done = run(*command)
        assert done.code == 0, done.err
        return " ".join((done.out + done.err).split())

    assert "3 questions of " in said("train", "--data", long_csv, "--encoder", "static", "--output", "m")
    for command in (
        ("predict", "m", long_csv, "--output", "o.csv"),
        ("evaluate", "m", "--data", long_csv),
        ("embed", "m", long_csv, "--text-column", "question1", "--output", "emb"),
    ):
        shown = said(*command)
        assert "were cut at 64 tokens" in shown and "--max-length" in shown
    assert "3 questions" in said("data", long_csv)
    assert "were cut" not in said("predict", "m", "how do i pay?", "what is it?")


@pytest.mark.parametrize("format", ["static", "onnx"])
def test_an_export_counts_as_its_checkpoint(
    checkpoint: qpairs.Checkpoint, tmp_path: Path, pairs_csv: Path, format: str
) -> None:
    data = qpairs.load_pairs(pairs_csv)
    qpairs.export_checkpoint(checkpoint.path, tmp_path / "x", format=format, data=data, max_loss=1.0)
    export = qpairs.load(tmp_path / "x")
    before, after = (model.token_counter for model in (checkpoint, export))
    assert coverage(after, TEXTS) == coverage(before, TEXTS)


def test_a_cross_encoder_counts_pairs(tmp_path: Path, pairs_csv: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = qpairs.train(
        data=str(pairs_csv),
        model="cross-encoder",
        encoder="tiny",
        epochs=0.05,
        max_length=8,
        output=str(tmp_path / "c"),
    )
    pairs = pairs_from_texts(["how do i pay", LONG, LONG], ["why", "how do i pay", LONG], [-1, -1, -1])
    found = coverage(model.token_counter, pairs.questions, pairs)
    assert (found.texts, found.cut, found.limit, found.of_pairs) == (3, 2, 16, True)
    with caplog.at_level(logging.WARNING, "qpairs"):
        model.predict(pairs)
    assert "2 pairs of 3 (66.7 %) were cut at 16 tokens" in caplog.text


@pytest.mark.parametrize(("name", "content"), [(WORDS_FILE, "[1"), (WORDS_FILE, '{"vocab": [1]}'), (TOKENIZER, "{}")])
def test_a_damaged_list_of_tokens_is_one_line(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    for read in (tokeniser, export_counter):
        with pytest.raises(qpairs.UserError, match=f"{name}: (damaged|cannot be read)") as caught:
            read(tmp_path, Reading())
        assert "\n" not in str(caught.value)
