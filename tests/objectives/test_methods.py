"""Losses, miners, samplers and towers through whole runs: trained, saved, loaded, judged, resumed."""

import copy
import functools
import itertools
import signal
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from children import run_script
from safetensors.torch import load_file
from test_training import KILLED_RUN

import qpairs
from qpairs.data.parts import load_parts
from qpairs.encoders.build import build_encoder
from qpairs.encoders.tokens import embed, features, token_ids
from qpairs.encoders.towers import towers
from qpairs.metrics import average_precision
from qpairs.objectives.functions import objective_of
from qpairs.objectives.labels import batch_labels
from qpairs.objectives.losses import LOSSES
from qpairs.objectives.miners import MINERS
from qpairs.objectives.relations import Relation
from qpairs.training import hard_negatives
from qpairs.training.batches import build_label_graph

FAST = {"encoder": "static", "batch_size": 16, "evaluations": 2, "patience": 0, "max_length": 24}


def train(pairs_csv: Path, output: Path, **options: object) -> qpairs.Checkpoint:
    return qpairs.train(data=str(pairs_csv), output=str(output), **{**FAST, **options})


# Losses and miners, without the Trainer


def synonym_pairs(topics: list[tuple[int, int]], random: np.random.Generator) -> qpairs.Pairs:
    """Four duplicates of each topic, a verb and an object of three synonyms each, and four near misses: one differs."""

    def question(verb: int, thing: int) -> str:
        synonyms = random.integers(3, size=2)
        return " ".join([*random.choice(["please", "how", "can", "now", "my", "the"], 3), f"verb{verb}{synonyms[0]}",
                         f"object{thing}{synonyms[1]}"])  # fmt: skip

    rows = []
    for verb, thing in topics * 4:
        near = [topic for topic in topics if (topic[0] == verb) != (topic[1] == thing)]
        rows.append((question(verb, thing), question(verb, thing), 1))
        rows.append((question(verb, thing), question(*near[random.integers(len(near))]), 0))
    return qpairs.pairs_from_texts(*zip(*rows, strict=True))


class Learner:
    """A static encoder, 384 pairs to train it on, and 128 of unseen combinations of the same words to judge it."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        topics = list(itertools.product(range(8), range(8)))
        topics = [topics[i] for i in random.permutation(64)]
        self.train, self.validation = (synonym_pairs(part, random) for part in (topics[:48], topics[48:]))
        self.encoder = build_encoder("static", texts=self.train.questions, max_length=24, seed=0)
        self.start = copy.deepcopy(self.encoder.state_dict())
        self.graph = build_label_graph(self.train)
        self.tokens = {id(pairs): token_ids(self.encoder, pairs.questions) for pairs in (self.train, self.validation)}
        self.untrained = self.average_precision("info_nce", steps=0)

    def embeddings(self, pairs: qpairs.Pairs, questions: Iterable[int]) -> torch.Tensor:
        tokens = [self.tokens[id(pairs)][question] for question in questions]
        return self.encoder(features(self.encoder, tokens))["sentence_embedding"]

    @functools.cache  # noqa: B019
    def average_precision(self, loss: str | Callable, miner: str = "everything", steps: int = 45) -> float:
        """On validation, after some steps of training from the same start."""
        self.encoder.load_state_dict(self.start)
        torch.manual_seed(0)
        objective = objective_of(loss, miner)
        learned = objective.learned_modules(int(self.graph.cluster.max()) + 1, 128)
        optimizer = torch.optim.Adam([*self.encoder.parameters(), *learned.parameters()], lr=0.01)
        for _ in range(steps):
            rows = torch.randint(len(self.train), (48,)).numpy()
            batch = torch.from_numpy(np.unique([self.train.left[rows], self.train.right[rows]]))
            embeddings, labels = self.embeddings(self.train, batch), batch_labels(self.graph, batch, batch)
            optimizer.zero_grad()
            objective(embeddings, embeddings, labels, (embeddings, self.graph.cluster[batch]), learned).backward()
            optimizer.step()
        with torch.no_grad():
            embeddings = self.embeddings(self.validation, range(len(self.validation.questions)))
        scores = (embeddings[self.validation.left] * embeddings[self.validation.right]).sum(1)
        return average_precision(scores.numpy(), self.validation.labels)


@pytest.fixture(scope="module")
def learner() -> Learner:
    return Learner()


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains_an_encoder_to_find_duplicates(loss: str, learner: Learner) -> None:
    expression = f"softmax + 0.003*{loss}" if LOSSES[loss].positives_only else loss
    expression = f"online_contrastive + {loss}" if LOSSES[loss].only_unlabelled else expression
    assert learner.average_precision(expression) > learner.untrained + 0.1


@pytest.mark.parametrize("miner", MINERS)
def test_every_miner_selects_pairs_from_which_an_encoder_learns(miner: str, learner: Learner) -> None:
    mined = learner.average_precision("info_nce", miner)
    assert mined > learner.untrained + 0.1
    assert (mined == learner.average_precision("info_nce")) == (miner == "everything")


def test_what_contradicts_the_labels_is_not_learned(learner: Learner) -> None:
    """The measure of these tests can fall, too."""

    def upside_down(sim: torch.Tensor, relation: Relation) -> torch.Tensor:
        return -LOSSES["info_nce"](sim, relation)

    assert learner.average_precision(upside_down) < learner.untrained


# Whole runs


def test_the_score_of_a_head_is_what_the_verdict_reads_and_search_keeps_the_cosine(
    pairs_csv: Path, tmp_path: Path
) -> None:
    model = train(pairs_csv, tmp_path / "x", loss="pair_softmax", score="head", epochs=2.0)
    loaded = qpairs.load_checkpoint(tmp_path / "x")
    assert loaded.head is not None
    assert loaded.head.weight[2].abs().max() > 0  # |u - v| started at 0
    pairs = qpairs.load_pairs(pairs_csv)
    verdict = qpairs.predict(loaded, pairs)
    embeddings = embed(loaded.encoder, token_ids(loaded.encoder, pairs.questions))
    u, v = embeddings[pairs.left], embeddings[pairs.right]
    weight, bias = loaded.head.weight.detach().numpy(), loaded.head.bias.item()
    logits = [
        (a * weight[0] + b * weight[1] + abs(a - b) * weight[2] + a * b * weight[3]).sum(1) + bias
        for a, b in ((u, v), (v, u))
    ]
    np.testing.assert_allclose(verdict.similarity, np.mean([1 / (1 + np.exp(-x)) for x in logits], axis=0), atol=1e-5)
    report = qpairs.evaluate(loaded, pairs_csv)
    assert report.threshold == model.verdict.pair.threshold
    assert report.retrieval["mrr_at_10"] > 0
    swapped = qpairs.pairs_from_texts(*zip(*[pairs.texts(i)[::-1] for i in range(9)], strict=True), [-1] * 9)
    np.testing.assert_allclose(qpairs.predict(loaded, swapped).similarity, verdict.similarity[:9], atol=1e-6)
    assert (tmp_path / "x" / "head.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "head"}, "needs the loss pair_softmax"),
        ({"miner": "semihard"}, "did you mean 'semi_hard'"),
        ({"miner": "semi_hard(choose=0.5)"}, "a whole number"),
        ({"sampler": "tripletts"}, "did you mean 'triplets'"),
        ({"symmetric": False, "sampler": "groups"}, "groups ignore on which side"),
        ({"share_vectors": True}, "cannot share word vectors"),
        ({"group_size": 1}, "group_size: 1, must be group_size >= 2"),
        ({"encoder": "lstm+cn"}, "did you mean 'cnn'"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_line(
    options: dict, message: str, pairs_csv: Path, tmp_path: Path
) -> None:
    with pytest.raises(qpairs.UserError) as refusal:
        train(pairs_csv, tmp_path / "x", **options)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


# Two towers


def test_two_towers_score_both_directions_and_load_where_qpairs_is_not_installed(
    pairs_csv: Path, tmp_path: Path
) -> None:
    model = train(pairs_csv, tmp_path / "x", encoder="cnn+static", epochs=1.0, share_vectors=False)
    pairs = qpairs.load_pairs(pairs_csv)
    script = (
        "import sys, numpy; sys.modules['qpairs'] = None\n"
        "from sentence_transformers import SentenceTransformer\n"
        f"encoder = SentenceTransformer({str(tmp_path / 'x')!r}, device='cpu')\n"
        f"texts = {list(pairs.questions[:6])!r}\n"
        f"numpy.save({str(tmp_path / 'v.npy')!r}, [encoder.encode_query(texts), encoder.encode_document(texts)])\n"
    )
    done = run_script(script)
    assert done.returncode == 0, done.stderr
    query, document = np.load(tmp_path / "v.npy")
    both = qpairs.pairs_from_texts(pairs.questions[:3], pairs.questions[3:6], [-1] * 3)
    expected = ((query[:3] * document[3:]).sum(1) + (query[3:] * document[:3]).sum(1)) / 2
    np.testing.assert_allclose(qpairs.predict(tmp_path / "x", both).similarity, expected, atol=1e-5)
    assert model.scores["test"]["retrieval"]["mrr_at_10"] > 0


def test_sides_of_different_kinds_are_scored_one_way(pairs_csv: Path, tmp_path: Path) -> None:
    table = pairs_csv.read_text().splitlines()
    (tmp_path / "titles.csv").write_text("\n".join(["title,body,same", *table[1:]]) + "\n")
    options = {"encoder": "static+cnn", "symmetric": False, "sampler": "triplets", "columns": ("title", "body", "same")}
    model = train(tmp_path / "titles.csv", tmp_path / "x", **options)
    query, document = towers(model.encoder)
    texts = ["How do I reset my password?", "I forgot my password, what now?"]
    (q, _), (_, d) = (embed(tower, token_ids(tower, texts)) for tower in (query, document))
    one_way = qpairs.predict(model, qpairs.pairs_from_texts(texts[:1], texts[1:], [-1])).similarity
    np.testing.assert_allclose(one_way, [q @ d], atol=1e-6)
    assert model.scores["test"]["retrieval"] == {}


def test_both_towers_and_shared_vectors_are_trained(pairs_csv: Path, tmp_path: Path) -> None:
    options = {"encoder": "cnn+cnn", "share_vectors": True, "seed": 1}
    trained = train(pairs_csv, tmp_path / "x", **options)
    vectors = [tower[0].emb_layer.weight for tower in towers(trained.encoder)]
    assert torch.equal(*vectors)
    before = build_encoder(
        "cnn+cnn", texts=load_parts(trained.config).train.questions, max_length=24, seed=1, share_vectors=True
    )
    fresh, after = dict(before.named_parameters()), dict(trained.encoder.named_parameters())
    assert all(not torch.equal(after[name], p) for name, p in fresh.items() if p.requires_grad)


# Resumed runs


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"loss": "cosface(sampled=50) + 0.01*center + 0.1*pair_softmax", "score": "head"}, (7, 45)),
        ({"loss": "triplet", "sampler": "triplets", "miner": "semi_hard(choose=1)"}, (20, 45)),
        ({"loss": "multi_similarity", "sampler": "groups", "encoder": "cnn+static"}, (4, 14)),
    ],
    ids=["prototypes and head", "mined negatives and random choice", "groups and towers"],
)
def test_killed_and_resumed_it_ends_with_the_same_weights(
    options: dict, steps: tuple[int, int], pairs_csv: Path, tmp_path: Path
) -> None:
    fast = {**FAST, "epochs": 2.0, "dropout": 0.1, **options}
    qpairs.train(data=str(pairs_csv), output=str(tmp_path / "unbroken"), seed=3, **fast)
    output = tmp_path / "run"
    for step in steps:
        script = KILLED_RUN.format(
            at="step", options={"kill_step": str(step)}, data=str(pairs_csv), output=str(output), fast=fast
        )
        script = script if step == steps[0] else script.replace("seed=3,", "seed=3, resume=True,")
        killed = run_script(script)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    qpairs.train(output=str(output), resume=True)
    for file in (tmp_path / "unbroken").rglob("*.safetensors"):
        ours, theirs = load_file(file), load_file(output / file.relative_to(tmp_path / "unbroken"))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_negatives_are_mined_anew_for_each_epoch(
    pairs_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mined = []

    def watched(*args: object, **options: object) -> object:
        found = nearest(*args, **options)
        mined.append({tuple(pair) for pair in found[1].tolist()})
        return found

    nearest = hard_negatives.nearest_negatives
    monkeypatch.setattr(hard_negatives, "nearest_negatives", watched)
    train(pairs_csv, tmp_path / "x", loss="triplet", sampler="triplets", epochs=3.0, learning_rate=0.1)
    assert len(mined) == 3
    assert mined[0] != mined[1] != mined[2]


def test_a_budget_ends_the_run_and_the_learning_rate_with_it(pairs_csv: Path, tmp_path: Path) -> None:
    seen = []
    model = train(pairs_csv, tmp_path / "x", epochs=1e4, budget_minutes=0.04, on_progress=seen.append)
    assert seen.pop().stage == "evaluating"
    seconds = seen[-1].done / seen[-1].rate
    assert 2 < seconds < 30
    assert seen[-1].done < seen[-1].total
    assert model.scores["test"]["f1"] > 0
