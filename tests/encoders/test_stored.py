"""Encoders read from their folders alone: the tokens and vectors of sentence-transformers, or nothing at all."""

import json
import logging
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, TEXTS, set_prompts, write_encoder
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

from qpairs.encoders.build import build_encoder
from qpairs.encoders.packages import package_folder
from qpairs.encoders.packed import POOLED
from qpairs.encoders.pretrained import MINILM_PACKAGE, load_encoder
from qpairs.encoders.prompts import choose_prompt
from qpairs.encoders.stored import CLASSES, StoredEncoder, read_stored
from qpairs.encoders.stored_mean import StoredMean
from qpairs.encoders.tokens import embed, token_counter, token_ids

ASKED = [
    *TEXTS,
    "",
    "   ",
    "Ok",
    "[PAD] [MASK]  [UNK] <mask> [SEP]x  <unk> <UNK>y",
    "CAFÉ İstanbul ﬁne ßtraße naïve",
    "日本語 のカード 12,50€ can't don't",
    "a\u200bb\x00c\u0301\ttab\nnew line",
    "How do I block my card? " * 60,
    "w" * 150,
]


def small(name: str, folder: Path) -> Path:
    """The folder of an encoder from nothing, or of one of the small architectures."""
    if name != "tiny":
        return write_encoder(name, folder)
    torch.manual_seed(0)
    build_encoder("tiny", texts=TEXTS, max_length=40).save_pretrained(str(folder / "whole"), create_model_card=False)
    return folder / "whole"


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small("bert", tmp_path_factory.mktemp("bert"))


def assert_same(folder: Path, dtype: torch.dtype = torch.float32) -> StoredEncoder | StoredMean:
    """The folder is read, and gives what `embed` gives of the whole encoder, bit by bit."""
    stored, whole = read_stored(folder), load_encoder(folder)
    assert stored is not None
    ids = token_ids(whole, ASKED)
    for ours, theirs in zip(stored.token_ids(ASKED), ids, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found, wanted = stored.embed(stored.token_ids(ASKED)), embed(whole, ids)
    np.testing.assert_array_equal(found, wanted)
    assert found.shape == (len(ASKED), stored.dimension)
    assert stored.dimension == whole.get_embedding_dimension()
    if dtype == torch.float32:
        one_by_one = whole.encode(ASKED, batch_size=1, normalize_embeddings=stored.unit)
        np.testing.assert_allclose(found, one_by_one, atol=2e-5)
    counted, counter = stored.counter, token_counter(whole)
    assert counter is not None
    assert counted.limit == counter.limit
    for ours, theirs in zip(vars(counted.count(ASKED)).values(), vars(counter.count(ASKED)).values(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    return stored


@pytest.mark.parametrize("name", ["tiny", "bert", "mpnet"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_vectors_are_those_of_the_whole_encoder(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    assert_same(small(name, tmp_path), dtype)


def test_minilm_as_it_comes_and_as_it_is_saved(tmp_path: Path) -> None:
    package = package_folder(MINILM_PACKAGE)
    assert package is not None
    assert assert_same(package / "model").limit == 256
    build_encoder("minilm", max_length=20, project=64, texts=TEXTS * 20).save_pretrained(str(tmp_path / "m"))
    stored = assert_same(tmp_path / "m")
    assert (stored.limit, stored.dimension) == (20, 64)


@pytest.mark.slow
def test_mpnet_as_it_comes(tmp_path: Path) -> None:
    build_encoder("mpnet", max_length=24).save_pretrained(str(tmp_path / "m"))
    assert assert_same(tmp_path / "m").dimension == 768


REST: dict[str, Callable[[int], list[Any]]] = {
    "unit": lambda size: [Normalize()],
    "none": lambda size: [],
    "map": lambda size: [Dense(size, 16, bias=False, activation_function=torch.nn.Identity()), Normalize()],
    "tanh": lambda size: [Normalize(), Dense(size, 16, activation_function=torch.nn.Tanh())],
}


@pytest.mark.parametrize("rest", REST)
@pytest.mark.parametrize("pooling", [*POOLED, ("cls", "mean")], ids="+".join)
@pytest.mark.parametrize("prompt", ["", "query: "])
def test_poolings_what_follows_and_prompts(rest: str, pooling: Any, prompt: str, bert: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    size = 32 * (1 if isinstance(pooling, str) else len(pooling))
    transformer = Transformer(str(bert.parent / "bare"))
    encoder = SentenceTransformer(modules=[transformer, Pooling(32, pooling), *REST[rest](size)], device="cpu")
    choose_prompt(encoder, prompt)
    encoder.save_pretrained(str(tmp_path / "m"), create_model_card=False)
    stored = assert_same(tmp_path / "m")
    again = pickle.loads(pickle.dumps(stored))  # as several processes that share the work get it
    np.testing.assert_array_equal(again.embed(again.token_ids(TEXTS)), stored.embed(stored.token_ids(TEXTS)))
    assert stored.prompt == prompt
    assert stored.unit == (rest in ("unit", "map"))


def test_a_folder_of_an_old_version_with_its_own_length(bert: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bert, tmp_path / "old"))
    edit(folder / "sentence_bert_config.json", lambda c: {"max_seq_length": 12, "do_lower_case": False})
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    edit(folder / "1_Pooling" / "config.json", lambda c: pooling)
    (folder / "2_Normalize" / "config.json").unlink()
    assert assert_same(folder).limit == 12


def test_what_was_read_stays_as_it_was_when_its_file_is_overwritten(bert: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bert, tmp_path / "m"))
    stored = read_stored(folder)
    assert stored is not None
    before = stored.embed(stored.token_ids(ASKED))
    size = (folder / "model.safetensors").stat().st_size
    with (folder / "model.safetensors").open("r+b") as file:
        file.write(bytes(size))
    np.testing.assert_array_equal(stored.embed(stored.token_ids(ASKED)), before)


def test_no_texts_give_no_vectors(bert: Path) -> None:
    stored = read_stored(bert)
    assert stored is not None
    assert stored.embed(stored.token_ids([])).shape == (0, 32)


# What is not known exactly


def edit(file: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    file.write_text(json.dumps(change(json.loads(file.read_text("utf-8")))), encoding="utf-8")


def tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    file = folder / "model.safetensors"
    changed = change({name: tensor.clone() for name, tensor in load_file(file).items()})
    save_file(changed, file, metadata={"format": "pt"})


def setting(file: str, **changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / file, lambda config: {**config, **changes})


def in_tokenizer(place: str, **changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "tokenizer.json", lambda c: {**c, place: {**c[place], **changes}})


def ordinary(tokens: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*tokens[:-1], {**tokens[-1], "special": False}]


def other_modules(folder: Path) -> None:
    rows = json.loads((folder / "modules.json").read_text("utf-8"))
    more = {"idx": 3, "name": "3", "path": "3_LayerNorm", "type": "sentence_transformers.models.LayerNorm"}
    (folder / "modules.json").write_text(json.dumps([*rows, more]), encoding="utf-8")


def renamed(change: Callable[[str], str]) -> Callable[[Path], None]:
    return lambda folder: tensors(folder, lambda found: {change(name): tensor for name, tensor in found.items()})


def first_layer(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    name = "encoder.layer.0.intermediate.dense.weight"
    return lambda folder: tensors(folder, lambda found: {**found, name: change(found[name]).contiguous()})


OTHERWISE: dict[str, tuple[Callable[[Path], None], str]] = {
    "another architecture": (setting("config.json", model_type="roberta"), "roberta"),
    "another activation": (setting("config.json", hidden_act="gelu_new"), "hidden_act 'gelu_new'"),
    "relative positions": (setting("config.json", position_embedding_type="relative_key"), "relative_key"),
    "a decoder": (setting("config.json", is_decoder=True), "is_decoder True"),
    "an unknown setting": (setting("config.json", quantization_config={}), "quantization_config"),
    "another size": (setting("config.json", intermediate_size=64), "other shapes"),
    "another module": (other_modules, "LayerNorm"),
    "another pooling": (setting("1_Pooling/config.json", pooling_mode="weightedmean"), "weightedmean"),
    "a prompt that is not pooled": (setting("1_Pooling/config.json", include_prompt=False), "pooling"),
    "a chat template": (setting("sentence_bert_config.json", modality_config={"message": {}}), "message"),
    "lower case": (setting("sentence_bert_config.json", do_lower_case=True), "do_lower_case"),
    "a cross-encoder": (setting("config_sentence_transformers.json", model_type="CrossEncoder"), "CrossEncoder"),
    "no such prompt": (setting("config_sentence_transformers.json", default_prompt_name="x"), "no prompt 'x'"),
    "another tokenizer": (setting("tokenizer_config.json", tokenizer_class="XLNetTokenizer"), "XLNetTokenizer"),
    "another end of the cut": (setting("tokenizer_config.json", truncation_side="left"), "truncation_side"),
    "other special tokens": (setting("tokenizer_config.json", sep_token="[CLS]"), "template"),
    "more special tokens": (setting("tokenizer_config.json", extra_special_tokens=["<x>"]), "more special"),
    "another list of added tokens": (setting("tokenizer_config.json", added_tokens_decoder={}), "two lists of added"),
    "an added token that is not special": (
        lambda folder: edit(folder / "tokenizer.json", lambda c: {**c, "added_tokens": ordinary(c["added_tokens"])}),
        "a token [MASK]",
    ),
    "other pieces": (in_tokenizer("model", max_input_chars_per_word=10), "pieces"),
    "another normaliser": (in_tokenizer("normalizer", type="Lowercase"), "Lowercase"),
    "words otherwise": (in_tokenizer("pre_tokenizer", type="Whitespace"), "Whitespace"),
    "adapters": (lambda folder: (folder / "adapter_config.json").write_text("{}"), "adapters"),  # type: ignore[dict-item]
    "names of a task": (renamed("bert.{}".format), "embeddings.word_embeddings.weight"),
    "tensors of adapters": (
        lambda folder: tensors(folder, lambda found: {**found, "encoder.lora_A": torch.ones(2)}),
        "lora_A",
    ),
    "a layer too many": (setting("config.json", num_hidden_layers=1), "encoder.layer.1"),
    "another shape": (first_layer(lambda weight: weight[:-1]), "other shapes"),
    "whole numbers": (first_layer(lambda weight: weight.to(torch.int8)), "int8"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
    "damaged weights": (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), ""),  # type: ignore[dict-item]
    "damaged settings": (lambda folder: (folder / "config.json").write_text("{"), "damaged"),  # type: ignore[dict-item]
    "no folder": (lambda folder: shutil.rmtree(folder), "no modules"),
}


@pytest.mark.parametrize("what", OTHERWISE)
def test_what_is_not_known_exactly_is_left_to_sentence_transformers(
    what: str, bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(bert, tmp_path / "m"))
    assert read_stored(folder) is not None
    change, why = OTHERWISE[what]
    change(folder)
    with caplog.at_level(logging.DEBUG, logger="qpairs"):
        assert read_stored(folder) is None
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert re.search(re.escape(why), record.getMessage())


def test_a_tokenizer_that_transformers_makes_anew_must_have_its_rules(tmp_path: Path) -> None:
    package = package_folder(MINILM_PACKAGE)
    assert package is not None
    folder = Path(shutil.copytree(package / "model", tmp_path / "m"))
    edit(folder / "tokenizer_config.json", lambda config: {**config, "do_lower_case": False})
    assert read_stored(folder) is None
    edit(folder / "tokenizer.json", lambda c: {**c, "normalizer": {**c["normalizer"], "lowercase": False}})
    assert_same(folder)


@pytest.mark.parametrize("options", [{}, {"max_length": 8}, {"project": 16}], ids=["plain", "short", "projected"])
def test_word_vectors_give_the_means_of_sentence_transformers(options: dict[str, int], tmp_path: Path) -> None:
    build_encoder("static", texts=TEXTS, **options).save_pretrained(str(tmp_path), create_model_card=False)
    stored = assert_same(tmp_path)
    assert isinstance(stored, StoredMean) and stored.unit
    assert stored.counter.limit == options.get("max_length", 128)
    assert stored.embed([]).shape == (0, stored.dimension)
    assert stored.token_ids([]) == []
    set_prompts(tmp_path, {"p": "how do "}, "p")
    assert len(assert_same(tmp_path).token_ids(["x"])[0]) == 3


def test_word_vectors_of_another_form_are_left_to_sentence_transformers(tmp_path: Path) -> None:
    build_encoder("static", texts=TEXTS).save_pretrained(str(tmp_path), create_model_card=False)
    file = tmp_path / "model.safetensors"
    table = load_file(file)["embedding.weight"]
    for weights in (
        {"embedding.weight": table.half()},
        {"embeddings": table},
        {"embedding.weight": table[:-1].clone()},
    ):
        save_file(weights, file)
        assert read_stored(tmp_path) is None
    build_encoder("static+static", texts=TEXTS).save_pretrained(str(tmp_path / "two"), create_model_card=False)
    assert read_stored(tmp_path / "two") is None


@pytest.mark.parametrize("name", sorted({*ARCHITECTURES} - {"bert", "mpnet"}))
def test_other_architectures_are_left_to_sentence_transformers(name: str, tmp_path: Path) -> None:
    assert read_stored(write_encoder(name, tmp_path)) is None


def test_prompts_are_read_as_they_are_written(bert: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bert, tmp_path / "m"))
    set_prompts(folder, {"query": "ask: ", "x": "about: "}, "x")
    assert assert_same(folder).prompt == "about: "


def test_the_classes_that_are_read_are_tested() -> None:
    assert len(CLASSES) == 3  # tiny, bert and mpnet above
