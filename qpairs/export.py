"""A checkpoint -> a folder that answers without torch: ONNX graphs, or a table of word vectors.

An export is tried before it is kept: it embeds labelled pairs, gets a threshold and a calibration of its own, and is
refused where its F1 falls too far behind that of the checkpoint.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding, Transformer, WordEmbeddings
from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from qpairs import metrics
from qpairs.checkpoint import Checkpoint, check_output, load_checkpoint, versions
from qpairs.encoders import token_ids, towers
from qpairs.evaluation import Tables, as_pairs, cross_fitted, need_both_labels, score_pairs, score_tables
from qpairs.faults import UserError, nearest
from qpairs.folders import folder_beside
from qpairs.pairs import Pairs
from qpairs.runtime import (
    FILE,
    FORMAT,
    GRAPH,
    TOKENIZER,
    VECTORS,
    Reading,
    fingerprint,
    open_export,
    tokeniser,
)
from qpairs.splits import question_components
from qpairs.training import Parts, load_parts

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


def export(
    path: str | Path,
    output: str | Path,
    *,
    format: str = "onnx-int8",
    data: Pairs | str | Path | Sequence[str | Path] = (),
    max_loss: float | None = None,
    overwrite: bool = False,
) -> Parity:
    """Writes a checkpoint in a form that `qpairs.load` runs without torch.

    Args:
        path: folder of the checkpoint.
        output: folder of the export.
        format: one of `FORMATS`.
        data: labelled pairs, or their source, to compare on; without it, those that the checkpoint was validated on.
        max_loss: of F1, beyond which nothing is written; without it, that of `MAX_LOSS`.
        overwrite: whether what is in the output folder may be replaced.

    Raises:
        UserError: something that the user can mend, or the export loses too much.
    """
    path, output = Path(path), Path(output)
    checkpoint = _exportable(path, output, format, overwrite)
    texts: Sequence[str] = ()
    if not data or format == "static":
        parts = _parts(checkpoint)
        pairs, texts = parts.validation, parts.train.questions
    if data:
        pairs = as_pairs(data)
    need_both_labels(pairs, "export")
    before, tables = score_pairs(checkpoint.encoder, pairs, checkpoint.score)
    with folder_beside(output) as fresh:
        readings = _write_towers(checkpoint.encoder, fresh, format, texts)
        written: dict[str, Any] = {
            "format": FORMAT,
            "kind": format,
            "dimension": checkpoint.encoder.get_embedding_dimension(),
            "towers": {name: asdict(reading) for name, reading in readings.items()},
            "symmetric": checkpoint.config.symmetric,
            "encoder": checkpoint.config.encoder,
            "source": fingerprint(path),
            "versions": versions(),
        }
        encoder = open_export(fresh, written)
        rows = encoder.encode(pairs.questions)
        columns = rows if encoder.left is encoder.right else encoder.encode(pairs.questions, "right")
        after = score_tables((rows, columns), pairs, checkpoint.score)
        threshold = metrics.fit_threshold(after, pairs.labels)
        cosines = [(old * new).sum(axis=1) for old, new in zip(tables, (rows, columns), strict=True)]
        parity = Parity(
            n=len(pairs),
            cosine_mean=float(np.mean(cosines)),
            cosine_min=float(np.min(cosines)),
            f1_before=_f1(before, pairs),
            f1_after=_f1(after, pairs),
            threshold_before=checkpoint.threshold,
            threshold_after=threshold,
        )
        allowed = MAX_LOSS[format] if max_loss is None else max_loss
        if parity.f1_before - parity.f1_after > allowed:
            raise UserError(
                f"{format}: F1 falls from {parity.f1_before:.3f} to {parity.f1_after:.3f} on {len(pairs):,} pairs, by "
                f"more than {allowed:g}; nothing is written; choose another --format, or allow it with --max-loss"
            )
        written |= {
            "threshold": threshold,
            "calibration": asdict(metrics.fit_calibration(after, pairs.labels)),
            "operating_points": [asdict(point) for point in metrics.operating_points(after, pairs.labels)],
            "parity": asdict(parity),
        }
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


def _write_towers(encoder: SentenceTransformer, folder: Path, format: str, texts: Sequence[str]) -> dict[str, Reading]:
    """Writes one tower into the folder, or two into folders in it; folder -> how it reads texts."""
    left, right = towers(encoder.eval())
    readings = {}
    for name, tower in {"": left} if left is right else {"left": left, "right": right}.items():
        place = folder / name
        place.mkdir(exist_ok=True)
        if format == "static":
            readings[name] = _write_table(tower, place, texts)
        else:
            readings[name] = _write_graph(tower, place)
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
    module, prompt = tower[0], tower.prompts.get(tower.default_prompt_name or "") or ""
    tokenizer = module.tokenizer
    if isinstance(tokenizer, WhitespaceTokenizer):
        tokenizer.save(str(folder))
        return Reading(prompt, longest=module.max_seq_length)
    token_ids(
        tower, [""]
    )  # transformers' tokenizers put their settings, such as the longest text, in force when called
    fast = getattr(tokenizer, "tokenizer", tokenizer)
    fast = getattr(fast, "backend_tokenizer", fast)
    if not isinstance(fast, Tokenizer):
        raise UserError(f"export: the tokenizer {type(fast).__name__} has no tokenizer.json")
    fast = Tokenizer.from_str(fast.to_str())
    fast.no_padding()
    fast.save(str(folder / TOKENIZER))
    if isinstance(module, Transformer):
        return Reading(prompt, pad=tokenizer.pad_token_id, pad_left=tokenizer.padding_side == "left")
    if isinstance(module, WordEmbeddings):
        return Reading(prompt, longest=module.max_seq_length)
    return Reading(prompt, special_tokens=False, longest=(fast.truncation or {}).get("max_length"))


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
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


# Word vectors


def _write_table(tower: SentenceTransformer, folder: Path, texts: Sequence[str]) -> Reading:
    """Writes the vectors of an encoder that is the mean of such, or else of a student of it."""
    module, *rest = tower
    if not (isinstance(module, StaticEmbedding) and all(isinstance(other, Normalize) for other in rest)):
        raise NotImplementedError
    reading = _write_tokenizer(tower, folder)
    save_file({"vectors": module.embedding.weight.detach().float().numpy()}, folder / VECTORS)
    by_word = dataclasses.replace(reading, by_word=True)
    sample = [*ODD_TEXTS, *texts[:10_000]]
    whole, parts = (tokeniser(folder, how)(sample) for how in (reading, by_word))
    same = np.array_equal(whole.bounds, parts.bounds) and np.array_equal(whole.ids, parts.ids)
    return by_word if same else reading
