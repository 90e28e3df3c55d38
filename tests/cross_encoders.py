"""Small cross-encoders with random weights, one for each form of input that transformers have."""

from collections.abc import Sequence
from pathlib import Path

import torch
from sentence_transformers import CrossEncoder
from transformers import BertConfig, BertModel, BertTokenizer, MPNetConfig, MPNetModel, MPNetTokenizer

from qpairs.encoders.tiny import wordpiece_tokenizer
from qpairs.training.cross_encoder import new_cross_encoder

KINDS = ("tiny", "bert", "mpnet")
LENGTH = 24  # tokens of a question; a pair has up to twice as many
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def small_cross_encoder(kind: str, texts: Sequence[str], folder: Path) -> CrossEncoder:
    """A cross-encoder whose vocabulary comes from texts; BERT has token types, MPNet two separators and other ids.

    Args:
        kind: one of `KINDS`.
        texts: questions.
        folder: an empty one, for the transformer that it is made from.
    """
    if kind == "tiny":
        return new_cross_encoder("tiny", texts=texts, max_length=LENGTH, seed=0)
    words = [word for word in wordpiece_tokenizer(texts).get_vocab() if not word.startswith("[")]
    first = {"bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], "mpnet": ["<s>", "<pad>", "</s>", "<unk>"]}[kind]
    last = {"bert": [], "mpnet": ["[UNK]", "<mask>"]}[kind]
    vocabulary = {word: row for row, word in enumerate([*first, *sorted(words), *last])}
    sizes = {**SIZES, "vocab_size": len(vocabulary)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "bert":
            model, tokenizer = BertModel(BertConfig(**sizes)), BertTokenizer(vocab=vocabulary)
        else:
            model, tokenizer = MPNetModel(MPNetConfig(**sizes)), MPNetTokenizer(vocab=vocabulary)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return new_cross_encoder(str(folder), texts=texts, max_length=LENGTH, seed=0)
