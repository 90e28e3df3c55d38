import dataclasses
import json
import random
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from cross_encoders import KINDS, LENGTH, small_cross_encoder
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import CrossEncoder
from sentence_transformers.sentence_transformer.modules import Dense
from sklearn.metrics import average_precision_score
from torch import nn
from torch.nn import functional

import qpairs
from qpairs.data.pairs import Pairs
from qpairs.export.export import ODD_TEXTS
from qpairs.export.pair_graph import compare_readers, write_pair_graph
from qpairs.models import graphs, pair_graph
from qpairs.models.pair_graph import PairGraph, PairReading, open_pair_graph

Texts = Sequence[tuple[str, str]]
FEW = settings(deadline=None, max_examples=30)


def read_by_torch(model: CrossEncoder, pairs: Texts) -> np.ndarray:
    """The mean logit (n,) of both orders."""
    orders = [list(pairs), [(second, first) for first, second in pairs]]
    quiet = {"activation_fn": nn.Identity(), "show_progress_bar": False}
    return np.mean([model.predict(each, **quiet) for each in orders], axis=0)


class TorchReader:
    """A `PairReader` that is the oracle."""

    def __init__(self, model: CrossEncoder) -> None:
        self.model = model

    def logits(self, pairs: Texts) -> np.ndarray:
        return read_by_torch(self.model, pairs)


@pytest.fixture(scope="module")
def pairs(sample_rows: list[tuple[str, str, int]]) -> Pairs:
    first, second, labels = zip(*sample_rows[::4], strict=True)
    return qpairs.pairs_from_texts(first, second, labels)


@pytest.fixture(scope="module")
def texts(pairs: Pairs) -> Texts:
    """Ordinary pairs, and ones that are empty, odd, or longer than what is read, on either side or both."""
    odd = [(first, second) for first in ODD_TEXTS for second in ODD_TEXTS if first.strip() or second.strip()]
    lengths = [("a " * n, "why " * m) for n in (1, 20, 21, 22, 23, 24, 40, 50) for m in (1, 21, 23, 24, 25, 44, 60)]
    return [*(pairs.texts(row) for row in range(100)), *odd, *lengths]


Written = Callable[[str, bool], tuple[CrossEncoder, Path, PairReading]]


@pytest.fixture(scope="module")
def written(pairs: Pairs, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A cross-encoder of each kind, and the folder of its graph, made once."""
    models: dict[str, CrossEncoder] = {}
    done: dict[tuple[str, bool], tuple[CrossEncoder, Path, PairReading]] = {}

    def make(kind: str, form: str = "onnx") -> tuple[CrossEncoder, Path, PairReading]:
        if kind not in models:
            models[kind] = small_cross_encoder(kind, pairs.questions, tmp_path_factory.mktemp(kind))
        if (kind, form) not in done:
            folder = tmp_path_factory.mktemp("graph")
            done[kind, form] = (models[kind], folder, write_pair_graph(models[kind], folder, form))
        return done[kind, form]

    return make


@pytest.fixture(scope="module")
def bert(written: Written) -> PairGraph:
    _, folder, reading = written("bert")
    reader = open_pair_graph(folder, reading)
    assert isinstance(reader, PairGraph)
    return reader


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_gives_the_logits_of_the_cross_encoder(kind: str, written: Written, texts: Texts) -> None:
    model, folder, reading = written(kind)
    expected = read_by_torch(model, texts)
    assert expected.std() > 0.01
    np.testing.assert_allclose(open_pair_graph(folder, reading).logits(texts), expected, atol=1e-4)
    assert sorted(file.name for file in folder.iterdir()) == ["model.onnx", "tokenizer.json"]


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_become_the_same_ids_without_transformers(kind: str, written: Written, texts: Texts) -> None:
    model, folder, reading = written(kind)
    features = model.preprocess(list(texts))
    found = open_pair_graph(folder, reading).tokenizer.encode_batch_fast(list(texts))
    kept = features["attention_mask"].bool()
    rows = [ids[mask].tolist() for ids, mask in zip(features["input_ids"], kept, strict=True)]
    assert [each.ids for each in found] == rows
    assert max(map(len, rows)) == 2 * LENGTH
    assert ("token_type_ids" in features) == (kind == "bert")
    if kind == "bert":
        kinds = [types[mask].tolist() for types, mask in zip(features["token_type_ids"], kept, strict=True)]
        assert [each.type_ids for each in found] == kinds
        assert {0, 1} == set(kinds[0])


def test_a_reading_survives_json(written: Written) -> None:
    for kind in KINDS:
        _, _, reading = written(kind)
        assert PairReading(**json.loads(json.dumps(dataclasses.asdict(reading)))) == reading
    assert written("mpnet")[2].pad == 1


WORDS = st.text(alphabet="ab é?東", max_size=8)


@FEW
@given(drawn=st.lists(st.tuples(WORDS, WORDS), max_size=12), order=st.randoms(use_true_random=False))
def test_logits_depend_on_the_pair_alone(bert: PairGraph, drawn: list[tuple[str, str]], order: random.Random) -> None:
    pairs = [*drawn, *drawn[:2]]
    logits = bert.logits(pairs)
    assert logits.shape == (len(pairs),)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(bert.logits([(b, a) for a, b in pairs]), logits, atol=1e-5)
    rows = list(range(len(pairs)))
    order.shuffle(rows)
    np.testing.assert_allclose(bert.logits([pairs[row] for row in rows]), logits[rows], atol=1e-5)


def test_every_window_and_batch_has_its_pairs(bert: PairGraph, texts: Texts, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = bert.logits(texts)
    for window, tokens in ((1, 1), (7, 60), (len(texts), 10_000)):
        monkeypatch.setattr(pair_graph, "WINDOW", window)
        monkeypatch.setattr(graphs, "BATCH_TOKENS", tokens)
        np.testing.assert_allclose(bert.logits(texts), expected, atol=1e-5)


def test_several_threads_may_share_a_reader(bert: PairGraph, texts: Texts) -> None:
    parts = [texts[k::8] for k in range(8)]
    expected = [bert.logits(part) for part in parts]
    with ThreadPoolExecutor(8) as pool:
        for mine, wanted in zip(pool.map(bert.logits, parts), expected, strict=True):
            np.testing.assert_allclose(mine, wanted, atol=1e-5)


def test_a_pair_is_read_once_in_each_order(bert: PairGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    run = graphs.Graph.run
    monkeypatch.setattr(
        graphs.Graph, "run", lambda self, tokens, types: read.append(len(tokens.bounds) - 1) or run(self, tokens, types)
    )
    logits = bert.logits([("a", "b"), ("b", "a"), ("a", "b"), ("a", "a")])
    assert read == [3]
    assert logits[0] == logits[1] == logits[2] != logits[3]


def test_the_model_stays_as_it_is(written: Written, texts: Texts, tmp_path: Path) -> None:
    model, _, _ = written("bert")
    model.train()
    attention = model[0].model.config._attn_implementation
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    write_pair_graph(model, tmp_path, "onnx-int8")
    assert model.training
    assert model[0].model.config._attn_implementation == attention
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_cross_encoder_in_half_precision_is_written_in_full(written: Written, tmp_path: Path) -> None:
    model, _, _ = written("bert")
    half = CrossEncoder(modules=list(model), num_labels=1, device="cpu").to(torch.bfloat16)
    reading = write_pair_graph(half, tmp_path, "onnx")
    asked = [("how do I pay", "what is a card")]
    expected = read_by_torch(half.float(), asked)
    np.testing.assert_allclose(open_pair_graph(tmp_path, reading).logits(asked), expected, atol=1e-4)


@pytest.fixture(scope="module")
def trained(pairs: Pairs, tmp_path_factory: pytest.TempPathFactory) -> CrossEncoder:
    """A small BERT that has learned its training pairs by heart."""
    model = small_cross_encoder("bert", pairs.questions, tmp_path_factory.mktemp("trained"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    rng = np.random.default_rng(0)
    for _ in range(12):
        for rows in np.array_split(rng.permutation(len(pairs)), len(pairs) // 16):
            features = model.preprocess([pairs.texts(row) for row in rows])
            labels = torch.from_numpy(pairs.labels[rows].astype(np.float32))
            loss = functional.binary_cross_entropy_with_logits(model(features)["scores"].view(-1), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_eight_bits_keep_the_ranking(engine: str, trained: CrossEncoder, pairs: Pairs, tmp_path: Path) -> None:
    folders = {int8: tmp_path / str(int8) for int8 in (False, True)}
    for int8, folder in folders.items():
        folder.mkdir()
        form = f"{engine}-int8" if int8 else "onnx"
        reader = open_pair_graph(folder, write_pair_graph(trained, folder, form), form)
        parity = compare_readers(TorchReader(trained), reader, pairs)
        assert parity.n == len(pairs)
        assert parity.average_precision_before > 0.8
        assert abs(parity.f1_after - parity.f1_before) < 0.02
        if int8:
            spread = read_by_torch(trained, [pairs.texts(row) for row in range(len(pairs))]).std()
            assert 1e-4 < parity.difference_mean < 0.1 * spread
            assert parity.average_precision_after == pytest.approx(parity.average_precision_before, abs=0.01)
        else:
            assert parity.difference_max < 1e-4
            assert parity.average_precision_after == pytest.approx(parity.average_precision_before, abs=1e-4)
    sizes = [(folder / "model.onnx").stat().st_size for folder in folders.values()]
    assert sizes[1] < sizes[0]


def test_the_parity_is_that_of_the_logits(pairs: Pairs) -> None:
    rng = np.random.default_rng(0)
    old = (pairs.labels + rng.normal(size=len(pairs))).astype(np.float32)
    new = old.copy()
    new[:10] += 2.0
    readers = [type("Reader", (), {"logits": lambda self, texts, answer=answer: answer})() for answer in (old, new)]
    parity = compare_readers(*readers, pairs)
    assert parity.difference_max == pytest.approx(2.0, abs=1e-5)
    assert parity.difference_mean == pytest.approx(20.0 / len(pairs), abs=1e-5)
    assert parity.average_precision_before == pytest.approx(average_precision_score(pairs.labels, old))
    assert parity.average_precision_after == pytest.approx(average_precision_score(pairs.labels, new))
    same = compare_readers(readers[0], readers[0], pairs)
    assert same.difference_max == 0
    assert same.f1_after == same.f1_before == parity.f1_before
    with pytest.raises(qpairs.UserError, match="pairs of both labels"):
        compare_readers(*readers, pairs.subset(pairs.labels == 1))


def test_what_cannot_be_exported_is_refused(written: Written, tmp_path: Path) -> None:
    model, _, _ = written("bert")
    heads = Dense(model[-1].in_features, 3, activation_function=nn.Identity(), module_output_name="scores")
    several = CrossEncoder(modules=[*list(model)[:-1], heads], num_labels=3, device="cpu")
    with pytest.raises(qpairs.UserError, match="one logit"):
        write_pair_graph(several, tmp_path, "onnx")
    prompted = CrossEncoder(
        modules=list(model), num_labels=1, device="cpu", prompts={"q": "query: "}, default_prompt_name="q"
    )
    with pytest.raises(qpairs.UserError, match="prompt"):
        write_pair_graph(prompted, tmp_path, "onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_opened_is_said_in_one_line(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder, reading = written("bert")
    for name, content in (("tokenizer.json", "{"), ("model.onnx", "nothing")):
        broken = tmp_path / name.partition(".")[0]
        broken.mkdir()
        for file in folder.iterdir():
            (broken / file.name).write_bytes(file.read_bytes())
        (broken / name).write_text(content)
        with pytest.raises(qpairs.UserError, match="cannot be loaded") as caught:
            open_pair_graph(broken, reading)
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(qpairs.UserError, match=r"pip install 'qpairs\[onnx\]'"):
        open_pair_graph(folder, reading)
