"""The path for other languages: an encoder with a multilingual tokenizer, from a folder as from the Hub."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

import qpairs
from qpairs.encoders.build import build_encoder
from qpairs.encoders.tokens import token_counter
from qpairs.models.coverage import coverage

TEXTS = {
    "Chinese": ("怎么修改我的密码", "怎么删除我的密码"),
    "Japanese": ("パスワードを変更するには", "パスワードを削除するには"),
    "Thai": ("ฉันจะเปลี่ยนรหัสผ่านได้อย่างไร", "ฉันจะลบรหัสผ่านได้อย่างไร"),
    "Korean": ("비밀번호를 어떻게 바꾸나요", "비밀번호를 어떻게 삭제하나요"),
    "Hindi": ("पासवर्ड कैसे बदलें", "पासवर्ड कैसे हटाएं"),
    "Arabic": ("كيف أغير كلمة المرور", "كيف أحذف كلمة المرور"),
    "Russian": ("Как изменить пароль", "Как удалить пароль"),
    "German": ("Wie ändere ich mein Passwort", "Wie lösche ich mein Passwort"),
}
ALL = [text for pair in TEXTS.values() for text in pair]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random XLM-R, as multilingual E5 is one, with a Unigram tokenizer of all these scripts and a prompt."""
    root = tmp_path_factory.mktemp("multilingual")
    words = [f"▁{word}" for text in [*ALL, "query:"] for word in text.split()]
    halves = [part for word in words for part in (word[: len(word) // 2], word[len(word) // 2 :])]
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    scores = dict.fromkeys(special, 0.0) | dict.fromkeys({*"".join(words)}, -20.0) | dict.fromkeys(halves, -5.0)
    tokenizer = Tokenizer(models.Unigram(list(scores.items()), unk_id=special.index("<unk>")))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    ends = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "cls_token": "<s>"}
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, sep_token="</s>", mask_token="<mask>", **names
    )
    torch.manual_seed(0)
    config = transformers.XLMRobertaConfig(
        vocab_size=len(fast), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=66, pad_token_id=1, type_vocab_size=1,
    )  # fmt: skip
    transformers.XLMRobertaModel(config).eval().save_pretrained(root / "bare")
    fast.save_pretrained(root / "bare")
    modules = [Transformer(str(root / "bare")), Pooling(32, "mean"), Normalize()]
    encoder = SentenceTransformer(modules=modules, prompts={"query": "query: ", "passage": "passage: "}, device="cpu")
    encoder.save_pretrained(str(root / "whole"), create_model_card=False)
    return root / "whole"


def test_every_script_is_known_and_told_apart(folder: Path) -> None:
    encoder = build_encoder(str(folder), max_length=64)
    counter = token_counter(encoder)
    assert counter is not None
    for one, other in TEXTS.values():
        assert coverage(counter, [one, other]).unknown < 0.1
        vectors = encoder.encode([one, other])
        assert vectors[0] @ vectors[1] < 0.9999
    plain = SentenceTransformer(str(folder), device="cpu").encode(["query: " + text for text in ALL])
    np.testing.assert_allclose(encoder.encode(ALL), plain, atol=1e-4)


def test_it_trains_and_predicts(folder: Path, tmp_path: Path) -> None:
    rows = [(one, other, 0) for one, other in TEXTS.values()]
    rows += [(text, f"{text} {n}", 1) for n, text in enumerate(ALL)]
    model = qpairs.train(
        data=rows * 2, validation=rows, encoder=str(folder), epochs=1, batch_size=8, output=str(tmp_path / "run")
    )
    found = model.predict([ALL[:2], ALL[2:4]])
    assert len(found) == 2 and np.isfinite(found.probability).all()
    assert model.config.prompt == ""


def test_an_english_vocabulary_is_said_to_know_little(folder: Path) -> None:
    counter = token_counter(build_encoder("static", texts=["how do i pay", "how do i pay by card"]))
    assert counter is not None
    assert any("multilingual" in note for note in coverage(counter, list(TEXTS["Chinese"])).notes())
