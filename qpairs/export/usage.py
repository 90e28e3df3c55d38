"""The first section of a card: what a model does, and how it is used, with qpairs and without it."""

from __future__ import annotations

from qpairs.models.base import RERANKER, Model
from qpairs.models.bi_encoder import Checkpoint
from qpairs.models.cross_encoder import CrossModel
from qpairs.models.two_stages import TwoStages

QUESTIONS = '"How do I reset my password?", "I forgot my password, what now?"'


def usage(model: Model, name: str) -> str:
    """What the model does, and examples.

    Args:
        model: a checkpoint, a cross-encoder, or a model of two stages.
        name: OWNER/NAME on the Hub.
    """
    if isinstance(model, CrossModel):
        return _of_cross_encoder(model, name)
    if isinstance(model, TwoStages):
        return _of_two_stages(model, name)
    assert isinstance(model, Checkpoint)
    return _of_encoder(model, name)


def _with_qpairs(name: str, load: str = "load") -> str:
    one, other = QUESTIONS.split(", ", 1)
    return f"""\
```python
import qpairs
from huggingface_hub import snapshot_download

model = qpairs.{load}(snapshot_download("{name}"))
pairs = qpairs.pairs_from_texts([{one}], [{other}], [-1])
print(qpairs.predict(model, pairs))
```"""


def _of_encoder(checkpoint: Checkpoint, name: str) -> str:
    dimension = checkpoint.encoder.get_embedding_dimension()
    sides = "" if checkpoint.config.symmetric else " The first question is the query, the second the document."
    verdict = "a classifier on the two vectors" if checkpoint.head else "their cosine"
    return f"""\
Tells whether two questions ask the same thing. Questions become vectors of {dimension} numbers; {verdict} of at least
{checkpoint.verdict.pair.threshold:.4f} says that they are duplicates.{sides} Made with qpairs.

{_with_qpairs(name, "load_checkpoint")}

`SentenceTransformer("{name}")` loads the encoder alone.{_truncated(checkpoint, name)}"""


def _truncated(checkpoint: Checkpoint, name: str) -> str:
    """How to load the encoder with shorter vectors, where it was trained for that."""
    lengths = sorted(checkpoint.verdict.shortened, reverse=True)
    if not lengths:
        return ""
    return (
        f" Its vectors may be cut to {' or '.join(map(str, lengths))} numbers:\n"
        f'`SentenceTransformer("{name}", truncate_dim={lengths[0]}).encode(texts, normalize_embeddings=True)`.'
    )


def _of_cross_encoder(model: CrossModel, name: str) -> str:
    calibration = model.verdict.pair.calibration
    return f"""\
Tells whether two questions ask the same thing. A cross-encoder reads both at once, in both orders; a mean logit of at
least {model.verdict.pair.threshold:.4f} says that they are duplicates. It has no vectors, so it searches nothing;
`qpairs combine` combines it with an encoder that does. Made with qpairs.

{_with_qpairs(name)}

Without qpairs:

```python
import torch
from sentence_transformers import CrossEncoder

one, other = {QUESTIONS}
orders = [(one, other), (other, one)]
logit = float(CrossEncoder("{name}").predict(orders, activation_fn=torch.nn.Identity()).mean())
probability = 1 / (1 + 2.718281828 ** -({calibration.slope:.4f} * logit + {calibration.intercept:.4f}))
print("duplicates" if logit >= {model.verdict.pair.threshold:.4f} else "not duplicates", probability)
```"""


def _of_two_stages(model: TwoStages, name: str) -> str:
    low, high = model.band
    return f"""\
Tells whether two questions ask the same thing, in two stages. An encoder makes vectors of {model.dimension} numbers, to
search with; where their cosine lies between {low:.2f} and {high:.2f}, a cross-encoder (in `{RERANKER}/`) reads
both questions at once, in both orders. Log odds of both of at least {model.verdict.pair.threshold:.4f} say that they
are duplicates. Made with qpairs.

{_with_qpairs(name)}

{_without_qpairs(model, name)}"""


def _without_qpairs(model: TwoStages, name: str) -> str:
    """Both stages by hand; an encoder whose score is no plain cosine needs qpairs."""
    if model.first.verdict.score != "cosine" or not model.one_tower:
        return f'`SentenceTransformer("{name}")` loads the encoder alone; its scores need qpairs.'
    first, both, look, (low, high) = model.first.verdict.pair.calibration, model.verdict.pair, model.look, model.band
    return f"""\
Without qpairs:

```python
import torch
from huggingface_hub import snapshot_download
from sentence_transformers import CrossEncoder, SentenceTransformer

folder = snapshot_download("{name}")
one, other = {QUESTIONS}
first, second = SentenceTransformer(folder).encode([one, other], normalize_embeddings=True)
cosine = float(first @ second)
log_odds = {first.slope:.4f} * cosine + {first.intercept:.4f}
if {low:.4f} <= cosine <= {high:.4f}:
    orders = [(one, other), (other, one)]
    network = CrossEncoder(f"{{folder}}/{RERANKER}")
    logit = float(network.predict(orders, activation_fn=torch.nn.Identity()).mean())
    log_odds += {look.intercept:.4f} + {look.first:.4f} * cosine + {look.second:.4f} * logit
probability = 1 / (1 + 2.718281828 ** -({both.calibration.slope:.4f} * log_odds + {both.calibration.intercept:.4f}))
print("duplicates" if log_odds >= {both.threshold:.4f} else "not duplicates", probability)
```"""
