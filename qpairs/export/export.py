"""A checkpoint -> a folder that answers without torch: ONNX graphs, or a table of word vectors.

An export is tried before it is kept: it embeds labelled pairs, gets a threshold and a calibration of its own, and is
refused where its F1 falls too far behind that of the checkpoint.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from scipy.sparse import csr_array
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding, Transformer, WordEmbeddings
from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from qpairs import metrics
from qpairs.config import Config, to_dict
from qpairs.core.exceptions import UserError, nearest
from qpairs.core.files import atomic_folder
from qpairs.data.pairs import Pairs, need_both_labels
from qpairs.data.parts import Parts, load_parts
from qpairs.data.splits import question_components
from qpairs.encoders.build import Ids, embed, token_ids, towers, word_tokenizer
from qpairs.evaluation.baselines import tfidf_scores
from qpairs.evaluation.calibrate import cross_fitted
from qpairs.evaluation.sources import as_pairs
from qpairs.models.base import FILE, FORMAT, TOKENIZER, check_output, cosine_scores, score_pairs
from qpairs.models.bi_encoder import Checkpoint, embed_tables, load_checkpoint, versions
from qpairs.models.exported import GRAPH, VECTORS, open_towers
from qpairs.models.tokens import Reading, bags, joined, tokeniser
from qpairs.models.verdict import fit_verdict, verdict_to_dict
from qpairs.training.fit import train

FORMATS = {
    "onnx": "the encoder as it is, as an ONNX graph",
    "onnx-int8": "the same with its matrix products in 8 bits",
    "static": "a student of it: the mean of word vectors",
}
MAX_LOSS = {"onnx": 0.003, "onnx-int8": 0.003, "static": 0.1}  # of F1
OPSET = 17
QUANTISED = ("MatMul", "Gemm", "LSTM")
INT8 = ("MatMulInteger", "DynamicQuantizeLSTM")  # what becomes of them
ODD_TEXTS = (
    "",
    " ",
    "two  blanks ",
    "tab\tline\nend",
    "a " * 600,
    "C++/C#? don't! (U.S.A.)",
    "naïve ﬁ ½ 東京 🙂 e\u0301",
)
LESSONS = 100_000  # training questions that a student learns from, at most
RARITY = 1e-4  # the weight of a token is RARITY / (RARITY + its share of all tokens)
RIDGE = 0.03  # strength that holds a student's vectors to where they start
TUNING: dict[str, Any] = {"epochs": 2.0, "batch_size": 128, "learning_rate": 1e-3, "precision": "fp32"}
CHUNK = 2048  # texts between two reports of progress

Sides = tuple[SentenceTransformer, SentenceTransformer]
Tell = Callable[[str, int, int], None]  # what is being done; how many texts of how many


@dataclass(frozen=True)
class Parity:
    """How an export compares with its checkpoint on labelled pairs.

    Attributes:
        n: pairs.
        cosine_mean, cosine_min: of the vectors of a question, by checkpoint and export.
        f1_before, f1_after: of checkpoint and export, cross-fitted: half the pairs at the threshold of the others.
        threshold_before, threshold_after: the checkpoint's, and the export's own, which is chosen on these pairs.
    """

    n: int
    cosine_mean: float
    cosine_min: float
    f1_before: float
    f1_after: float
    threshold_before: float
    threshold_after: float


def export_checkpoint(
    path: str | Path,
    output: str | Path,
    *,
    format: str = "onnx-int8",
    data: Pairs | str | Path | Sequence[str | Path] = (),
    max_loss: float | None = None,
    overwrite: bool = False,
    on_progress: Tell = lambda stage, done, total: None,
) -> Parity:
    """Writes a checkpoint in a form that `qpairs.load` runs without torch.

    Args:
        path: folder of the checkpoint.
        output: folder of the export.
        format: one of `FORMATS`.
        data: labelled pairs, or their source, to compare on; without it, those that the checkpoint was validated on.
        max_loss: of F1, beyond which nothing is written; without it, that of `MAX_LOSS`.
        overwrite: whether what is in the output folder may be replaced.
        on_progress: called now and then.

    Raises:
        UserError: something that the user can mend, or the export loses too much.
    """
    path, output = Path(path), Path(output)
    checkpoint = _exportable(path, output, format, overwrite)
    sides = towers(checkpoint.encoder.eval())
    needs_student = format == "static" and not all(map(_is_table, sides))
    parts = _parts(checkpoint) if needs_student or not data else None
    pairs = parts.validation if parts and not data else as_pairs(data)
    need_both_labels(pairs, "export")
    on_progress("comparing", 0, 0)
    before, tables = score_pairs(checkpoint, pairs)
    if needs_student and parts:
        sides = _students(sides, checkpoint.config, parts, on_progress)
    on_progress("writing", 0, 0)
    with atomic_folder(output) as fresh:
        readings = _write_towers(sides, fresh, format)
        written: dict[str, Any] = {
            "format": FORMAT,
            "kind": format,
            "dimension": checkpoint.encoder.get_embedding_dimension(),
            "towers": {name: asdict(reading) for name, reading in readings.items()},
            "config": to_dict(checkpoint.config),
            "split": dict(checkpoint.split),
            "history": list(checkpoint.history),
            "source": checkpoint.fingerprint,
            "versions": versions(),
        }
        encoder = open_towers(fresh, written)
        rows = encoder.encode(pairs.questions)
        columns = rows if encoder.left is encoder.right else encoder.encode(pairs.questions, "right")
        after = cosine_scores((rows, columns), pairs, symmetric=checkpoint.verdict.symmetric)
        tfidf = metrics.best_threshold(tfidf_scores(pairs), pairs.labels)
        verdict = fit_verdict(after, pairs.labels, tfidf, symmetric=checkpoint.verdict.symmetric)
        cosines = [(old * new).sum(axis=1) for old, new in zip(tables, (rows, columns), strict=True)]
        parity = Parity(
            n=len(pairs),
            cosine_mean=float(np.clip(cosines, -1, 1).mean()),
            cosine_min=float(np.clip(cosines, -1, 1).min()),
            f1_before=_f1(before, pairs),
            f1_after=_f1(after, pairs),
            threshold_before=checkpoint.verdict.pair.threshold,
            threshold_after=verdict.pair.threshold,
        )
        allowed = MAX_LOSS[format] if max_loss is None else max_loss
        if parity.f1_before - parity.f1_after > allowed:
            raise UserError(
                f"{format}: F1 falls from {parity.f1_before:.3f} to {parity.f1_after:.3f} on {len(pairs):,} pairs, by "
                f"more than {allowed:g}; nothing is written; choose another --format, or allow it with --max-loss"
            )
        written |= {"verdict": verdict_to_dict(verdict), "parity": asdict(parity)}
        (fresh / FILE).write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    return parity


def _exportable(path: Path, output: Path, format: str, overwrite: bool) -> Checkpoint:
    """The checkpoint in a folder, if it can be exported as asked."""
    if format not in FORMATS:
        raise UserError(f"format: unknown {format!r}; {nearest(format, FORMATS)}")
    if format != "static" and not all(map(importlib.util.find_spec, ("onnx", "onnxruntime"))):
        raise UserError(f"format: {format} needs ONNX Runtime: pip install 'qpairs[onnx]'")
    if output.resolve() == path.resolve():
        raise UserError(f"{output}: is the checkpoint itself; name another folder with --output")
    check_output(output, overwrite=overwrite)
    checkpoint = load_checkpoint(path)
    if checkpoint.head is not None:
        raise UserError(f"{path}: its verdict is that of a head, which an export lacks; train with --score cosine")
    return checkpoint


def _parts(checkpoint: Checkpoint) -> Parts:
    """The pairs that a checkpoint was trained and validated on."""
    try:
        parts = load_parts(checkpoint.config)
    except UserError as error:
        raise UserError(
            f"{error}; the checkpoint's own pairs are needed, unless others are named with --data"
        ) from None
    if parts.split["fingerprint"] != checkpoint.split["fingerprint"]:
        raise UserError(
            "export: the pairs that the checkpoint was trained on have changed since, so that its validation part is "
            "no longer known; name labelled pairs with --data"
        )
    return parts


def _f1(scores: NDArray[np.float32], pairs: Pairs) -> float:
    verdict = cross_fitted(scores, pairs.labels, question_components(pairs)[pairs.left])
    return metrics.confusion(verdict, pairs.labels, 0.5).f1


def _write_towers(sides: Sides, folder: Path, format: str) -> dict[str, Reading]:
    """Writes one tower into the folder, or two into folders in it; folder -> how it reads texts."""
    left, right = sides
    write = _write_table if format == "static" else _write_graph
    readings = {}
    for name, tower in ({"": left} if left is right else {"left": left, "right": right}).items():
        (folder / name).mkdir(exist_ok=True)
        readings[name] = write(tower, folder / name)
    if format == "onnx-int8" and not sum(_quantise(graph) for graph in folder.rglob(GRAPH)):
        raise UserError("onnx-int8: the encoder has no matrix products to quantise; choose --format onnx or static")
    return readings


# ONNX graphs


class _Graph(nn.Module):
    """Token ids and mask (n, width) to unit vectors (n, dimension)."""

    def __init__(self, tower: SentenceTransformer) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        first, *rest = self.tower
        features = {"input_ids": input_ids, "attention_mask": attention_mask}
        if isinstance(first, StaticEmbedding):
            vectors = functional.embedding(input_ids, first.embedding.weight) * attention_mask[:, :, None]
            features["sentence_embedding"] = vectors.sum(1) / attention_mask.sum(1, keepdim=True).clamp(min=1)
        else:
            features = first({**features, "sentence_lengths": attention_mask.sum(1)})
        for module in rest:
            features = module(features)
        return features["sentence_embedding"]


def _write_graph(tower: SentenceTransformer, folder: Path) -> Reading:
    """Writes graph and tokenizer.

    Raises:
        UserError: the tokenizer is not one of the library tokenizers.
    """
    module = tower[0]
    if isinstance(module, Transformer):
        module.model.set_attn_implementation("eager")  # plain products, the fastest in ONNX Runtime
    ids = torch.ones((2, 5), dtype=torch.int64)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    free = {0: "texts", 1: "width"}
    with _silent(), torch.inference_mode():
        torch.onnx.export(
            _Graph(tower),
            (ids, mask),
            folder / GRAPH,
            input_names=["input_ids", "attention_mask"],
            output_names=["vectors"],
            dynamic_axes={"input_ids": free, "attention_mask": free, "vectors": {0: "texts"}},
            opset_version=OPSET,
            dynamo=False,  # the other exporter cannot trace an LSTM
        )
    return _write_tokenizer(tower, folder)


def _write_tokenizer(tower: SentenceTransformer, folder: Path) -> Reading:
    """Writes what `runtime.tokeniser` needs to give the same ids as `encoders.token_ids`."""
    module: Any = tower[0]
    prompt = tower.prompts.get(tower.default_prompt_name or "") or ""
    if isinstance(module.tokenizer, WhitespaceTokenizer):
        module.tokenizer.save(str(folder))
        return Reading(prompt, longest=module.max_seq_length)
    tokenizer = _fast_tokenizer(tower)
    tokenizer.save(str(folder / TOKENIZER))
    if isinstance(module, Transformer):
        pad, left = module.tokenizer.pad_token_id, module.tokenizer.padding_side == "left"
        return Reading(prompt, pad=pad, pad_left=left)
    if isinstance(module, WordEmbeddings):
        return Reading(prompt, longest=module.max_seq_length)
    return Reading(prompt, special_tokens=False, longest=(tokenizer.truncation or {}).get("max_length"))


def _fast_tokenizer(tower: SentenceTransformer) -> Tokenizer:
    """A copy of the library tokenizer inside a tower, without padding.

    Raises:
        UserError: there is none.
    """
    # A tokenizer of transformers puts its settings, such as the longest text, in force when it is called.
    token_ids(tower, [""])
    tokenizer: Any = tower[0].tokenizer
    for inner in ("tokenizer", "backend_tokenizer"):
        tokenizer = getattr(tokenizer, inner, tokenizer)
    if not isinstance(tokenizer, Tokenizer):
        raise UserError(f"export: the tokenizer {type(tokenizer).__name__} cannot be written as {TOKENIZER}")
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_padding()
    return copy


def _quantise(graph: Path) -> bool:
    """Puts the weights of matrix products and LSTMs into 8 bits, a scale for each column; whether there were any.

    7 of the bits are used, because products of all 8 overflow on processors without VNNI.
    """
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    whole = graph.with_suffix(".fp32")
    graph.rename(whole)
    with _silent():
        quantize_dynamic(
            whole,
            graph,
            op_types_to_quantize=list(QUANTISED),
            per_channel=True,
            reduce_range=True,
            extra_options={"MatMulConstBOnly": True},
        )
    whole.unlink()
    return any(node.op_type in INT8 for node in onnx.load(graph).graph.node)


@contextmanager
def _silent() -> Iterator[None]:
    """Keeps the exporters' own remarks off the terminal."""
    level, stderr = logging.root.manager.disable, os.dup(2)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as nowhere:
            warnings.simplefilter("ignore")
            os.dup2(nowhere.fileno(), 2)  # torch writes there by itself
            yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        logging.disable(level)


# Word vectors


def _is_table(tower: SentenceTransformer) -> bool:
    """Whether an encoder is the normalised mean of vectors."""
    module, *rest = tower
    return isinstance(module, StaticEmbedding) and all(isinstance(other, Normalize) for other in rest)


def _write_table(tower: SentenceTransformer, folder: Path) -> Reading:
    """Writes vectors and tokenizer of an encoder that is the normalised mean of vectors."""
    module: Any = tower[0]
    save_file({"vectors": module.embedding.weight.detach().float().numpy()}, folder / VECTORS)
    reading = _write_tokenizer(tower, folder)
    by_word = dataclasses.replace(reading, by_word=True)
    whole, parts = (tokeniser(folder, how)(ODD_TEXTS) for how in (reading, by_word))
    same = np.array_equal(whole.bounds, parts.bounds) and np.array_equal(whole.ids, parts.ids)
    return by_word if same else reading


def _students(sides: Sides, config: Config, parts: Parts, tell: Tell) -> Sides:
    """Encoders that are the mean of vectors, and come close to what the towers make of the training questions."""
    left, right = sides
    texts = list(parts.train.questions)
    np.random.default_rng(config.seed).shuffle(texts)
    first = _distilled(left, texts[:LESSONS], tell)
    if left is not right:
        return first, _distilled(right, texts[:LESSONS], tell)
    return (_tuned(first, config, parts, tell),) * 2


def _distilled(tower: SentenceTransformer, texts: Sequence[str], tell: Tell) -> SentenceTransformer:
    """The student of a tower: ridge regression of the tower's vectors of texts on the tokens of these.

    Its vectors are held to where they start: what the tower makes of each token alone, less the mean, weighted by the
    rarity of the token (SIF: Arora, Liang and Ma 2017; Tulkens and van Dongen 2024, model2vec).
    """
    words = tower[0].tokenizer
    if isinstance(words, WhitespaceTokenizer):
        tokenizer = word_tokenizer(list(words.word2idx))
    else:
        tokenizer = _fast_tokenizer(tower)
    vocabulary = tokenizer.get_vocab_size()
    tokens = joined([encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)])
    counts = bags(tokens, vocabulary)  # (texts, vocabulary)
    means = counts.multiply(1 / np.maximum(np.diff(tokens.bounds), 1)[:, None].astype(np.float32)).tocsr()
    frequency = counts.sum(axis=0) / len(tokens.ids)
    alone = _embedded(tower, _alone(tower, vocabulary), "vocabulary", tell)
    start = (alone - alone.mean(axis=0)) * (RARITY / (RARITY + frequency))[:, None].astype(np.float32)
    targets = _embedded(tower, token_ids(tower, texts), "lessons", tell)  # (texts, dimension)
    guess = means @ start
    start *= (guess * targets).sum() / (guess * guess).sum()
    table = torch.from_numpy(_ridge(means, targets, start, RIDGE))
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=table), Normalize()], device="cpu")


def _alone(tower: SentenceTransformer, vocabulary: int) -> list[Ids]:
    """The ids of texts of one token each, among those that the tower puts around every text."""
    empty, short = (row.tolist() for row in token_ids(tower, ["", "a"]))
    place = next((k for k, (a, b) in enumerate(zip(empty, short, strict=False)) if a != b), len(empty))
    around = np.insert(np.array(empty, dtype=np.int32), place, 0)
    rows = np.tile(around, (vocabulary, 1))  # (vocabulary, tokens)
    rows[:, place] = np.arange(vocabulary)
    return list(rows)


def _embedded(tower: SentenceTransformer, ids: Sequence[Ids], stage: str, tell: Tell) -> NDArray[np.float32]:
    """What a tower makes of texts, (n, dimension)."""
    found = []
    for start in range(0, len(ids), CHUNK):
        tell(stage, start, len(ids))
        found.append(embed(tower, ids[start : start + CHUNK]))
    return np.concatenate(found)


def _ridge(
    inputs: csr_array, targets: NDArray[np.float32], start: NDArray[np.float32], strength: float, steps: int = 20
) -> NDArray[np.float32]:
    """The W (k, d) of least |inputs W - targets|^2 + strength |W - start|^2.

    By conjugate gradients (Hestenes and Stiefel 1952), each column of its own, with Jacobi's preconditioner.

    Args:
        inputs: (n, k) sparse.
        targets: (n, d).
        start: (k, d) where W is held to, and the first guess.
        strength: of that hold.
        steps: of the iteration.
    """
    scale = 1 / (inputs.multiply(inputs).sum(axis=0) + strength)[:, None].astype(np.float32)  # (k, 1)
    table = start.copy()
    residual = inputs.T @ (targets - inputs @ table)  # (k, d)
    direction = scale * residual
    size = (residual * direction).sum(axis=0)  # (d,)
    for _ in range(steps):
        image = inputs.T @ (inputs @ direction) + strength * direction
        pace = size / np.maximum((direction * image).sum(axis=0), 1e-30)
        table += pace * direction
        residual -= pace * image
        scaled = scale * residual
        last, size = size, (residual * scaled).sum(axis=0)
        direction = scaled + size / np.maximum(last, 1e-30) * direction
    return table


def _tuned(student: SentenceTransformer, config: Config, parts: Parts, tell: Tell) -> SentenceTransformer:
    """The student, trained on the labelled pairs if that helps on the validation pairs."""
    with tempfile.TemporaryDirectory() as folder:
        student.save_pretrained(f"{folder}/student", create_model_card=False)
        tuned = train(
            Config(
                data=config.data,
                encoder=f"{folder}/student",
                max_length=config.max_length,
                symmetric=config.symmetric,
                seed=config.seed,
                output=f"{folder}/tuned",
                **TUNING,
            ),
            parts=parts,
            on_progress=lambda now: tell("tuning", now.done, now.total),
        ).encoder
    pairs = parts.validation
    return max(
        student, tuned, key=lambda encoder: _f1(cosine_scores(embed_tables(encoder, pairs.questions), pairs), pairs)
    )
