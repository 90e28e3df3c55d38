"""A transformer from nothing (`tiny`), and its WordPiece vocabulary."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence

from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import DistilBertConfig, DistilBertModel

from qpairs.core.exceptions import UserError
from qpairs.encoders.build import Recipe
from qpairs.encoders.words import CLS, PAD, SEP, UNKNOWN, fast_tokenizer

PIECES, CHARACTERS = 8_000, 500


def build_tiny(recipe: Recipe) -> SentenceTransformer:
    """A small BERT (in DistilBERT's form: no token types, no pooler) with random weights, and mean pooling."""
    tokenizer = fast_tokenizer(wordpiece_tokenizer(recipe.texts), model_max_length=recipe.max_length, cls_token=CLS)
    config = DistilBertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=recipe.max_length,
        dim=256,
        n_layers=4,
        n_heads=4,
        hidden_dim=1024,
    )
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        weights = DistilBertModel(config).state_dict()
        save_file(weights, f"{folder}/model.safetensors")  # save_pretrained writes in the first process alone
        tokenizer.save_pretrained(folder)
        transformer = Transformer(folder)
    return SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension(), "mean")])


def wordpiece_tokenizer(texts: Sequence[str]) -> Tokenizer:
    """A lower-case WordPiece tokenizer trained on the texts, the same in every process.

    The trainer numbers characters in the order of a hash map, so it is given all of them as special tokens; the
    tokenizer is then made anew from the vocabulary, where they are none.
    """
    blank = _wordpiece({UNKNOWN: 0})
    counts = Counter(c for text in texts for c in blank.normalizer.normalize_str(text) if not c.isspace())
    if not counts:
        raise UserError("encoder 'tiny' learns its vocabulary from the training questions: there are none")
    characters = sorted(counts, key=lambda c: (-counts[c], c))[:CHARACTERS]
    trainer = trainers.WordPieceTrainer(
        vocab_size=PIECES,
        min_frequency=2,
        limit_alphabet=CHARACTERS,
        special_tokens=[PAD, UNKNOWN, CLS, SEP, *characters, *(f"##{c}" for c in characters)],
        show_progress=False,
    )
    blank.train_from_iterator(texts, trainer)
    vocabulary = blank.get_vocab()
    tokenizer = _wordpiece(vocabulary)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B {SEP}",
        special_tokens=[(token, vocabulary[token]) for token in (CLS, SEP)],
    )
    return tokenizer


def _wordpiece(vocabulary: dict[str, int]) -> Tokenizer:
    """BERT's tokenizer over a vocabulary."""
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer
