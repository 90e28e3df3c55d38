"""Prompts: which one is chosen, and that it is everywhere the same."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from architectures import GEMMA_PROMPTS, TEXTS, set_prompts, write_encoder
from conftest import refused
from sentence_transformers import SentenceTransformer

import qpairs
from qpairs.config import Config
from qpairs.core.exceptions import UserError
from qpairs.encoders.build import build_encoder
from qpairs.encoders.tokens import prompt_of, token_ids, word_dropout
from qpairs.encoders.towers import towers
from qpairs.experiments.cells import Cell
from qpairs.export.card import train_command
from qpairs.export.export import export_checkpoint

E5 = {"query": "query: ", "passage": "passage: "}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture
def folder(saved: Path) -> Path:
    set_prompts(saved, {"query": "", "document": ""})
    return saved


@pytest.mark.parametrize(
    ("prompts", "default", "wanted", "expected"),
    [
        ({}, None, "", ""),
        (GEMMA_PROMPTS, None, "", "task: sentence similarity | query: "),  # STS, not query
        (GEMMA_PROMPTS, "Clustering", "", "task: clustering | query: "),  # what plain `encode` does
        ({"query": "Instruct: a\nQuery:", "document": ""}, None, "", "Instruct: a\nQuery:"),
        ({"search_query": "a: ", "clustering": "clustering: "}, None, "", "clustering: "),
        ({"PairClassification": "pair: ", "STS": "sts: "}, None, "", "pair: "),
        ({"document": "text: "}, None, "", ""),  # of one side alone
        (GEMMA_PROMPTS, None, "query", "task: search | query: "),
        (GEMMA_PROMPTS, "STS", "none", ""),
        ({**E5, "query": ""}, None, "query", ""),
        ({}, None, "none", ""),
        ({}, None, "query: ", "query: "),
        (E5, None, "Represent this question:", "Represent this question:"),
    ],
)
def test_which_prompt_is_chosen(folder, tmp_path, prompts, default, wanted, expected):
    set_prompts(folder, prompts, default)
    encoder = build_encoder(str(folder), prompt=wanted)
    assert prompt_of(encoder) == expected
    plain = SentenceTransformer(str(folder))
    vectors = plain.encode([expected + text for text in TEXTS], prompt="")
    encoder.save_pretrained(str(tmp_path / "y"), create_model_card=False)
    again = SentenceTransformer(str(tmp_path / "y"))
    for encode in (encoder.encode, again.encode, again.encode_query, again.encode_document):
        np.testing.assert_allclose(encode(TEXTS), vectors, atol=1e-5)
    assert prompt_of(build_encoder(str(tmp_path / "y"))) == expected  # a checkpoint keeps its prompt as --encoder


def test_a_prompt_takes_no_room_from_the_question(folder):
    bare, prompted = (build_encoder(str(folder), max_length=9, prompt=prompt) for prompt in ("", "query: "))
    text = " ".join(TEXTS)
    start = prompted.tokenizer("query: ", add_special_tokens=False)["input_ids"]
    before, after = (token_ids(encoder, [text])[0].tolist() for encoder in (bare, prompted))
    assert after == [before[0], *start, *before[1:]]
    assert len(before) == 9


def test_a_prompt_is_not_dropped(folder):
    encoder = build_encoder(str(folder), prompt="query: ")
    ids = token_ids(encoder, ["query: my card"])[0]
    kept = word_dropout(encoder, 1.0)(ids, np.random.default_rng(0)) == ids
    start = len(encoder.tokenizer("query: ")["input_ids"]) - 1
    assert kept.tolist() == [True] * start + [False] * (len(ids) - start - 1) + [True]


def test_two_towers_keep_the_prompts_of_their_sides(folder):
    set_prompts(folder, {"query": "query: ", "document": "text: ", "STS": "sts: "})
    encoder = build_encoder(f"{folder}+{folder}", max_length=20)
    assert [prompt_of(tower) for tower in towers(encoder)] == ["query: ", "text: "]


def test_training_export_and_index_have_the_prompt(folder, pairs_csv, tmp_path):
    set_prompts(folder, E5)
    options = {"data": str(pairs_csv), "encoder": str(folder), "epochs": 0.2, "max_length": 16, "learning_rate": 1e-3}
    texts = [*TEXTS, "", "  two  blanks "]
    for prompt in ("", "passage", "duplicate? "):
        model = qpairs.train(prompt=prompt, output=str(tmp_path / "x"), overwrite=True, **options)
        text = {"": "query: ", "passage": "passage: "}.get(prompt, prompt)
        found = SentenceTransformer(str(tmp_path / "x"))
        assert (model.config.prompt, found.prompts[found.default_prompt_name]) == (prompt, text)
        vectors = found.encode(texts)
        np.testing.assert_allclose(vectors, found.encode([text + question for question in texts], prompt=""), atol=1e-6)
        np.testing.assert_allclose(qpairs.load(tmp_path / "x").embed_tables(texts)[0], vectors, atol=1e-5)
    export_checkpoint(tmp_path / "x", tmp_path / "fast", format="onnx", data=pairs_csv)
    np.testing.assert_allclose(qpairs.load(tmp_path / "fast").encode(texts), vectors, atol=1e-4)
    assert "--prompt 'duplicate? '" in train_command(model.config)


def test_a_prompt_that_does_not_fit_is_one_line(folder, run, pairs_csv, monkeypatch):
    set_prompts(folder, GEMMA_PROMPTS)

    def told(encoder: object, prompt: str) -> object:
        return run("train", "--data", pairs_csv, "--encoder", encoder, "--prompt", prompt, "--output", "x")

    refused(told(folder, "sTS"), "no prompt named 'sTS'", "did you mean 'STS'", "Clustering", "'query: '")
    refused(told(folder, "so many " * 99), "leaves no room for a question", "reads 64 tokens")
    refused(told("lstm", "query: "), "prompt: is for a single pretrained encoder, which 'lstm' is not")
    refused(told(f"{folder}+{folder}", "query: "), "is not; leave it out")
    assert not Path("x").exists() and not Path("x.partial").exists()
    joined = build_encoder("static+static", texts=TEXTS)
    joined.save_pretrained("joined", create_model_card=False)
    with pytest.raises(UserError, match="two towers with their own prompts"):
        build_encoder("joined", prompt="query: ")


def test_a_comparison_gives_a_prompt_to_the_encoders_that_take_one():
    base = dataclasses.replace(Config(), prompt="query: ", lora=8)
    configs = [
        Cell(name, "contrastive", "everything", 0).config(base, Path()) for name in ("minilm", "lstm", "a/b+c/d")
    ]
    assert [(config.prompt, config.lora) for config in configs] == [("query: ", 8), ("", 0), ("", 8)]
