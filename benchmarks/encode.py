"""Questions per second of every way to encode, beside sentence-transformers, taking turns in one run.

    python benchmarks/encode.py --data F.parquet --json OUT [--checkpoint C] [--dev D.parquet] [--questions 50000]

A checkpoint is exported in every format; without one, MiniLM as it comes, with the first `--pairs` pairs of F as its
data. F1 is cross-fitted on held-out pairs of these, or on those of `--dev`, by the same code for all. A contender too
slow for all questions in its share of `--seconds` encodes as many of them as it can, drawn at random. The `ratio` of
the JSON is that of the fastest form of qpairs losing at most 0.3 points of F1, to sentence-transformers in fp32, the
default. The floor is what the matrix products alone would take, without padding, at the rate that they reach on this
machine: 2 operations for each weight of a block and each token, 4 for each number of a layer and each pair of tokens.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import multiprocessing
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime
import pandas
import torch
import typer
from machine import circumstances, instructions, matmul_rate, status
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxruntime.quantization import quantize_dynamic
from rich.console import Console
from rich.table import Table
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from torch import Tensor, nn

import qpairs
from qpairs import metrics
from qpairs.commands.terminal import quiet
from qpairs.config import Config
from qpairs.data.pairs import Pairs
from qpairs.data.parts import Parts, load_parts
from qpairs.data.splits import question_components
from qpairs.encoders.build import build_encoder
from qpairs.encoders.precision import fast_bf16
from qpairs.encoders.pretrained import load_encoder
from qpairs.encoders.readers import is_transformer
from qpairs.encoders.tokens import token_ids
from qpairs.evaluation.calibrate import cross_fitted
from qpairs.export.export import export_checkpoint
from qpairs.models.bi_encoder import save_checkpoint
from qpairs.models.graphs import FORMS
from qpairs.models.openvino import openvino_bf16_is_faster
from qpairs.training.judge import judge

PEER, PEER_BF16, HAND_MADE = "sentence-transformers", "sentence-transformers bf16", "hand-made ONNX int8"
OURS = {"qpairs": "torch", **{f"qpairs {form}": form for form in (*FORMS, "static")}, "qpairs distilled": "distilled"}
ALLOWED = 0.003  # F1 that may be lost
AIMS = (  # instructions, beside which contender, how many times as fast
    ("amx_bf16", PEER, 6.0),
    ("amx_bf16", PEER_BF16, 2.0),
    ("avx512_vnni", PEER, 4.5),
)
JUDGED = 4000  # pairs that F1 is measured on, at most
ROUNDS = 3
LOOK = 256  # questions of a first look at a contender's speed
FRESH = 8.0  # seconds of encoding in a process of its own, for its memory
console = Console(width=130)

Encode = Callable[[Sequence[str]], NDArray[np.float32]]


@dataclass(frozen=True)
class Contender:
    """Texts to unit vectors (n, dimension), and the part of it that makes tokens of them."""

    encode: Encode
    tokenise: Callable[[Sequence[str]], Any]


def contender(name: str, folder: Path) -> Contender:
    """The contender of a name, over what `prepare` left in the folder."""
    if name in OURS:
        model: Any = qpairs.load(folder / OURS[name])
        towers = getattr(model, "towers", model.encoder)  # a checkpoint's encoder is a SentenceTransformer
        return Contender(model.encode, towers.left.tokenise)
    if name == HAND_MADE:
        return hand_made(folder)
    dtype = torch.bfloat16 if name == PEER_BF16 else torch.float32
    model = SentenceTransformer(str(folder / "torch"), device="cpu", model_kwargs={"dtype": dtype})

    def tokenise(texts: Sequence[str]) -> None:
        ordered = sorted(texts, key=len, reverse=True)
        for start in range(0, len(ordered), 32):
            model.preprocess(ordered[start : start + 32])

    return Contender(functools.partial(model.encode, show_progress_bar=False), tokenise)


class _Pooled(nn.Module):
    """An encoder as torch.onnx.export takes it."""

    def __init__(self, encoder: SentenceTransformer) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.encoder({"input_ids": input_ids, "attention_mask": attention_mask})["sentence_embedding"]


def write_hand_made(folder: Path) -> None:
    """What one writes without qpairs: `torch.onnx.export`, then `quantize_dynamic` per channel."""
    encoder = SentenceTransformer(str(folder / "torch"), device="cpu").eval()
    whole, free = str(folder / "whole.onnx"), {0: "n", 1: "width"}
    names = ["input_ids", "attention_mask"]
    torch.onnx.export(
        _Pooled(encoder),
        tuple(torch.ones((2, 8), dtype=torch.int64) for _ in names),
        whole,
        input_names=names,
        output_names=["vectors"],
        dynamic_axes=dict.fromkeys(names, free) | {"vectors": {0: "n"}},
        dynamo=False,
    )
    quantize_dynamic(whole, folder / "hand.onnx", per_channel=True, op_types_to_quantize=["MatMul", "Gemm"])


def hand_made(folder: Path) -> Contender:
    """And runs it: sorted batches of 64, the default session, the tokenizer of the library."""
    session = onnxruntime.InferenceSession(folder / "hand.onnx", providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / "torch" / "tokenizer.json"))
    tokenizer.enable_padding()

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        order = np.argsort([-len(text) for text in texts])
        vectors = []
        for start in range(0, len(texts), 64):
            batch = tokenizer.encode_batch([texts[row] for row in order[start : start + 64]])
            ids, mask = (np.array([getattr(row, name) for row in batch]) for name in ("ids", "attention_mask"))
            vectors.append(session.run(None, {"input_ids": ids, "attention_mask": mask})[0])
        return np.concatenate(vectors)[np.argsort(order)]

    return Contender(encode, tokenizer.encode_batch)


def prepare(checkpoint: Path | None, data: Path, dev: Path | None, pairs: int, folder: Path) -> Pairs:
    """Puts the checkpoint and its exports into a folder, and returns the pairs that F1 is measured on."""
    validation = (str(dev),) if dev else ()
    if checkpoint:
        judged = qpairs.load_pairs(dev) if dev else load_parts(qpairs.load_checkpoint(checkpoint).config).validation
        (folder / "torch").symlink_to(checkpoint.absolute())
    else:
        pandas.read_parquet(data).head(pairs).to_parquet(folder / "pairs.parquet")
        config = Config(data=(str(folder / "pairs.parquet"),), validation=validation)
        parts = load_parts(config)
        judged = parts.validation
        encoder = build_encoder("minilm", max_length=config.max_length)
        save_checkpoint(judge(encoder, config, Parts(parts.train, judged, None, parts.split), []), folder / "torch")
    judged = judged.subset(np.arange(len(judged)) < JUDGED)
    own = qpairs.load_checkpoint(folder / "torch").config
    words = str(folder / "words")
    static = Config(own.data, validation=own.validation, encoder="static", vectors=str(folder / "torch"), output=words)
    start = time.perf_counter()
    qpairs.train(static)
    export_checkpoint(words, folder / "distilled", format="static", data=judged, max_loss=1.0)
    console.log(f"trained the distilled vectors in {time.perf_counter() - start:.0f} s")
    for kind in (*FORMS, "static"):
        start = time.perf_counter()
        export_checkpoint(folder / "torch", folder / kind, format=kind, data=judged, max_loss=1.0)
        console.log(f"exported {kind} in {time.perf_counter() - start:.0f} s")
    with silent():
        write_hand_made(folder)
    return judged


@contextlib.contextmanager
def silent() -> Any:
    """Without the exporters' remarks."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def f1_of(encode: Encode, pairs: Pairs) -> float:
    """F1 of the cosines of an encoder on pairs, cross-fitted."""
    vectors = encode(list(pairs.questions)).astype(np.float32)
    scores = (vectors[pairs.left] * vectors[pairs.right]).sum(axis=1)
    verdict = cross_fitted(scores, pairs.labels, question_components(pairs)[pairs.left])
    return metrics.confusion(verdict, pairs.labels, 0.5).f1


def seconds_of(function: Callable[[Sequence[str]], Any], texts: Sequence[str]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    function(texts)
    return time.perf_counter() - start


def memory_growth(name: str, folder: Path, texts: Sequence[str]) -> float:
    """MiB by which the peak of this process grows from a quarter of the texts to all, besides the vectors returned."""
    with quiet():
        encode = contender(name, folder).encode
        few = encode(texts[: len(texts) // 4])
        before = status("VmHWM")
        many = encode(texts)
    return (status("VmHWM") - before - (many.nbytes - few.nbytes)) / 2**20


def int8_rate(seconds: float = 1.0) -> float:
    """Operations per second of ONNX Runtime's product of 8-bit integers, of the shapes of `machine.matmul_rate`."""
    tokens, width, inner = 1024, 384, 1536
    weights = helper.make_tensor("w", TensorProto.INT8, (width, inner), np.ones(width * inner, dtype=np.int8).tolist())
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, (tokens, width))],
        [helper.make_tensor_value_info("y", TensorProto.INT32, (tokens, inner))],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs, fastest, end = {"x": np.ones((tokens, width), dtype=np.uint8)}, float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, inputs)
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * tokens * width * inner / fastest


def operations(encoder: SentenceTransformer, texts: Sequence[str]) -> tuple[float, float]:
    """Operations of a question's matrix products, and its tokens; means."""
    model: Any = encoder[0].model
    weights = sum(
        p.numel()
        for name, p in model.named_parameters()
        if p.ndim == 2 and not {"embeddings", "pooler"} & {*name.split(".")}
    )
    tokens = np.array([len(row) for row in token_ids(encoder, texts)])
    pairs_of_tokens = 4 * model.config.hidden_size * model.config.num_hidden_layers * (tokens**2).mean()
    return 2 * weights * tokens.mean() + pairs_of_tokens, tokens.mean()


def aims(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each aim, and what a transformer of qpairs reaches of it: word vectors, which have no floor, do not count.

    None where the machine lacks the instructions, or the peer is left out.
    """
    speed = {row["name"]: row["questions_per_second"] for row in rows}
    ours = [row for row in rows if row["name"] in OURS and row["over_floor"] and row["f1_lost"] <= ALLOWED]
    best = max((speed[row["name"]] for row in ours), default=0.0)
    have = instructions()
    return [
        {
            "instructions": needed,
            "peer": peer,
            "aim": aim,
            "found": best / speed[peer] if needed in have and peer in speed else None,
        }
        for needed, peer, aim in AIMS
    ]


def show(results: dict[str, Any]) -> None:
    """Prints the results."""
    title = f"Encoding questions of {results['tokens']:.1f} tokens; F1 on {results['judged']:,} pairs"
    table = Table(title=title, box=None, pad_edge=False)
    table.add_column("")
    for column in (
        "questions/s",
        "ratio",
        "time over the floor",
        "tokenising",
        "F1",
        "lost",
        "MiB more for 4 x as many",
    ):
        table.add_column(column, justify="right")
    for row in results["rows"]:
        table.add_row(
            row["name"],
            f"{row['questions_per_second']:,.0f}",
            f"{row['ratio']:.2f}",
            f"{row['over_floor']:.2f}" if row["over_floor"] else "",
            f"{100 * row['tokenising']:.0f} %",
            f"{row['f1']:.3f}",
            f"{row['f1_lost']:+.3f}",
            f"{row['mib']:.0f}",
        )
    console.print(table)
    rates = ", ".join(f"{name} {rate / 1e9:,.0f}" for name, rate in results["rates"].items())
    console.print(
        f"matrix products: {rates} billion operations/s; a question takes {results['operations'] / 1e9:.2f} billion\n"
        f"ratio {results['ratio']:.2f} at no more than {ALLOWED} of F1 lost; to the hand-made run "
        f"{results['ratio_to_hand_made']:.2f}",
        highlight=False,
    )
    for aim in results["aims"]:
        found = "not measured: this machine lacks them" if aim["found"] is None else f"found {aim['found']:.2f}"
        named = f"with {aim['instructions']}, {aim['aim']:g} times {aim['peer']} by a transformer"
        console.print(f"{named}: {found}", highlight=False)


def main(
    data: Annotated[Path, typer.Option(help="Labelled pairs; their questions are encoded.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Where the results go.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Of a transformer; without it, MiniLM as it comes.")] = None,
    dev: Annotated[Path | None, typer.Option(help="Pairs that F1 is measured on; else a held-out part.")] = None,
    questions: Annotated[int, typer.Option(help="Distinct questions to encode.")] = 50_000,
    pairs: Annotated[int, typer.Option(help="Pairs that a student of MiniLM learns from.")] = 30_000,
    seconds: Annotated[float, typer.Option(help="For all timed runs together.")] = 180.0,
) -> None:
    """Measures, prints a table and writes JSON."""
    measured_on = circumstances()
    with quiet(), tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        judged = prepare(checkpoint, data, dev, pairs, folder)
        texts = list(qpairs.load_pairs(data).questions[:questions])
        np.random.default_rng(0).shuffle(texts)
        encoder = load_encoder(folder / "torch")
        if not is_transformer(encoder):
            raise qpairs.UserError(f"{checkpoint}: the checkpoint is not of a transformer")
        fast = fast_bf16(encoder)
        names = [PEER, *([PEER_BF16] if fast else []), HAND_MADE, *OURS]
        if not fast:
            console.print("sentence-transformers in bf16 is left out: slower than in fp32 on this machine")
        rows = measure({name: contender(name, folder) for name in names}, texts, judged, seconds)
        fresh = multiprocessing.get_context("spawn")
        for row in rows:
            count = int(min(len(texts), max(LOOK, row["questions_per_second"] * FRESH)))
            with fresh.Pool(1) as pool:
                row["mib"] = pool.apply(memory_growth, (row["name"], folder, texts[:count]))
        work, tokens = operations(encoder, texts[:5000])
    rates = {"fp32": matmul_rate(torch.float32), "bf16": matmul_rate(torch.bfloat16), "int8": int8_rate()}
    kinds = {PEER_BF16: "bf16", "qpairs": "bf16" if fast else "fp32", "qpairs static": "", "qpairs distilled": ""}
    kinds["qpairs openvino"] = "bf16" if openvino_bf16_is_faster() else "fp32"
    for row in rows:
        kind = kinds.get(row["name"], "int8" if "int8" in row["name"] else "fp32")
        row["over_floor"] = rates[kind] / work / row["questions_per_second"] if kind else None
    speed = {row["name"]: row["questions_per_second"] for row in rows}
    good = [row["ratio"] for row in rows if row["name"] in OURS and row["f1_lost"] <= ALLOWED]
    results = {
        "ratio": max(good),
        "aims": aims(rows),
        "ratio_to_hand_made": speed["qpairs onnx-int8"] / speed[HAND_MADE],
        **measured_on,
        "questions": len(texts),
        "tokens": tokens,
        "judged": len(judged),
        "operations": work,
        "rates": rates,
        "rows": rows,
    }
    show(results)
    if json_file:
        json_file.write_text(json.dumps(results, indent=1) + "\n")


def measure(contenders: dict[str, Contender], texts: list[str], judged: Pairs, seconds: float) -> list[dict[str, Any]]:
    """Rates of the contenders, medians over rounds in which they take turns; share of tokenising; F1."""
    share = seconds / ROUNDS / len(contenders)
    counts, rates = {}, {name: list[float]() for name in contenders}
    for name, each in contenders.items():
        each.encode(texts[:LOOK])
        counts[name] = int(min(len(texts), max(LOOK, share * LOOK / seconds_of(each.encode, texts[:LOOK]))))
    for turn in range(ROUNDS):
        for name, each in contenders.items():
            begin = turn * counts[name] % (len(texts) - counts[name] + 1)
            sample = texts[begin : begin + counts[name]]
            rates[name].append(len(sample) / seconds_of(each.encode, sample))
            console.log(f"{name}: {rates[name][-1]:,.0f} questions/s ({len(sample):,} questions)")
    peer, rows = statistics.median(rates[PEER]), list[dict[str, Any]]()
    for name, each in contenders.items():
        rate, f1 = statistics.median(rates[name]), f1_of(each.encode, judged)
        sample = texts[: min(len(texts), 5000)]
        rows.append(
            {
                "name": name,
                "questions_per_second": rate,
                "ratio": rate / peer,
                "tokenising": rate * seconds_of(each.tokenise, sample) / len(sample),
                "f1": f1,
                "f1_lost": (rows[0]["f1"] if rows else f1) - f1,
                "rounds": rates[name],
            }
        )
    return rows


if __name__ == "__main__":
    typer.run(main)
