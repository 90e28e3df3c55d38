"""Students: encoders that are the mean of word vectors, and learn from a checkpoint's encoder."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.linalg import LinearOperator, cg
from sentence_transformers import SentenceTransformer

from qpairs import metrics
from qpairs.config import Config
from qpairs.core.progress import Meter, OnProgress
from qpairs.data.pairs import Pairs
from qpairs.data.parts import Parts
from qpairs.data.splits import question_components
from qpairs.encoders.distilled import rarity, single_tokens
from qpairs.encoders.readers import reader_of
from qpairs.encoders.tokens import Ids, embed, token_ids
from qpairs.encoders.words import mean_encoder
from qpairs.evaluation.calibrate import cross_fitted
from qpairs.models.base import Floats, cosine_scores
from qpairs.models.bi_encoder import embed_tables, load_checkpoint
from qpairs.models.tokens import bag_of_words, concatenated
from qpairs.training.fit import train

MAX_QUESTIONS = 100_000  # training questions that a student learns from, at most
RARITY = 1e-4  # the share of all tokens at which the weight of a token is a half
RIDGE = 0.03  # strength that holds a student's vectors to where they start
TUNING: dict[str, Any] = {"epochs": 2.0, "batch_size": 128, "learning_rate": 1e-3, "precision": "fp32"}
CHUNK = 2048  # texts between two reports of progress

Sides = tuple[SentenceTransformer, SentenceTransformer]


def students(sides: Sides, config: Config, parts: Parts, on_progress: OnProgress) -> Sides:
    """The students of the query and the document side; one student, tuned on labelled pairs if any, where they are one.

    Args:
        sides: the towers of a trained encoder.
        config: of its run.
        parts: the pairs of its run; the training questions are what a student learns from.
        on_progress: gets the stages vocabulary, distilling and tuning.
    """
    left, right = sides
    texts = list(dict.fromkeys(parts.train.questions))  # without labels, each is there twice
    np.random.default_rng(config.seed).shuffle(texts)
    first = distil(left, texts[:MAX_QUESTIONS], on_progress)
    if left is not right:
        return first, distil(right, texts[:MAX_QUESTIONS], on_progress)
    return (first if config.without_labels else _tuned(first, config, parts, on_progress),) * 2


def distil(tower: SentenceTransformer, texts: Sequence[str], on_progress: OnProgress) -> SentenceTransformer:
    """The student of a tower: ridge regression of the tower's vectors of texts on the tokens of these.

    Its vectors are held to where they start: the tower's vector of each token by itself, less the mean, weighted by
    the rarity of the token (SIF: Arora, Liang and Ma 2017; Tulkens and van Dongen 2024, model2vec).
    """
    meter, tokenizer = Meter(on_progress), reader_of(tower).tokenizer()
    vocabulary = tokenizer.get_vocab_size()
    tokens = concatenated([encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)])
    counts = bag_of_words(tokens, vocabulary)  # (texts, vocabulary)
    means = counts.multiply(1 / np.maximum(np.diff(tokens.bounds), 1)[:, None].astype(np.float32)).tocsr()
    frequency = counts.sum(axis=0) / len(tokens.ids)
    single = _embed(tower, single_tokens(tower, vocabulary), meter, "vocabulary")
    start = (single - single.mean(axis=0)) * rarity(frequency, RARITY)[:, None]
    targets = _embed(tower, token_ids(tower, texts), meter, "distilling")  # (texts, dimension)
    guess = means @ start
    start *= (guess * targets).sum() / (guess * guess).sum()
    return mean_encoder(tokenizer, ridge(means, targets, start, RIDGE))


def _embed(tower: SentenceTransformer, ids: Sequence[Ids], meter: Meter, stage: str) -> Floats:
    """The vectors (n, dimension) of texts, with progress."""
    meter.begin(stage, len(ids))
    found = []
    for start in range(0, len(ids), CHUNK):
        found.append(embed(tower, ids[start : start + CHUNK]))
        meter.advance(len(found[-1]))
    return np.concatenate(found)


def ridge(inputs: csr_array, targets: Floats, start: Floats, strength: float, steps: int = 20) -> Floats:
    """The W (k, d) of least |inputs W - targets|^2 + strength |W - start|^2.

    By conjugate gradients with Jacobi's preconditioner, on all columns at once.

    Args:
        inputs: (n, k) sparse.
        targets: (n, d).
        start: (k, d) where W is held to, and the first guess.
        strength: of that hold.
        steps: of the iteration.

    >>> found = ridge(csr_array(np.eye(2)), np.ones((2, 1)), np.zeros((2, 1)), strength=1.0)
    >>> found.round(3).tolist()
    [[0.5], [0.5]]
    """
    scale = 1 / (inputs.multiply(inputs).sum(axis=0) + strength)[:, None].astype(start.dtype)  # (k, 1)
    hold = start.dtype.type(strength)

    def operator(apply: Callable[[Floats], Floats]) -> LinearOperator:
        """A linear map of (k, d), as scipy takes it."""
        size = start.size
        return LinearOperator((size, size), lambda v: apply(v.reshape(start.shape)).ravel(), dtype=start.dtype)

    found, _ = cg(
        operator(lambda table: inputs.T @ (inputs @ table) + hold * table),
        (inputs.T @ targets + hold * start).ravel(),
        start.ravel(),
        rtol=0,
        atol=1e-15,  # an exact solution ends the iteration before it divides by zero
        maxiter=steps,
        M=operator(lambda residual: scale * residual),
    )
    table: NDArray[np.float32] = found.reshape(start.shape)
    return table


def _tuned(student: SentenceTransformer, config: Config, parts: Parts, on_progress: OnProgress) -> SentenceTransformer:
    """The student, trained on the labelled pairs if that helps on the validation pairs."""
    with tempfile.TemporaryDirectory() as folder:
        student.save_pretrained(f"{folder}/student", create_model_card=False)
        tuned = train(
            Config(
                data=config.data,
                encoder=f"{folder}/student",
                max_length=config.max_length,
                symmetric=config.symmetric,
                dims=config.dims,
                seed=config.seed,
                output=f"{folder}/tuned",
                **TUNING,
            ),
            parts=parts,
            on_progress=lambda now: on_progress(dataclasses.replace(now, stage="tuning")),
        )
        encoders = student, load_checkpoint(tuned.path).encoder
    pairs = parts.validation
    return max(encoders, key=lambda e: f1_of(cosine_scores(embed_tables(e, pairs.questions), pairs), pairs))


def f1_of(scores: Floats, pairs: Pairs) -> float:
    """F1 of scores (n,) on labelled pairs, cross-fitted: half the pairs at the threshold of the others."""
    verdict = cross_fitted(scores, pairs.labels, question_components(pairs)[pairs.left])
    return metrics.confusion(verdict, pairs.labels, 0.5).f1
