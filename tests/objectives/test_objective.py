import dataclasses

import pytest
import torch
from draws import close, points, random_relation

from qpairs.core.exceptions import UserError
from qpairs.objectives import objective as objectives
from qpairs.objectives.labels import BatchLabels
from qpairs.objectives.losses import LOSSES
from qpairs.objectives.losses.in_batch import info_nce
from qpairs.objectives.losses.pairwise import contrastive, logistic
from qpairs.objectives.miners import MINERS, batch_hard, parse_miner, semi_hard
from qpairs.objectives.objective import Objective, Term, parse_objective
from qpairs.objectives.pair_head import PairHead
from qpairs.objectives.relations import Relation, select_rows
from qpairs.objectives.similarities import SIMILARITIES, cosine, euclidean

every_loss = pytest.mark.parametrize("name", LOSSES)
COMPONENT = torch.tensor([0, 0, 1, 1, 2, 3, 4, 4])


def value(goal, rows, columns, known, learned=None):
    """The objective with fresh prototypes and heads, the same each time."""
    learned = goal.learned_modules(5, rows.shape[1]) if learned is None else learned
    return goal(rows, columns, known, (rows, COMPONENT), learned)


def knowledge(seed, n):
    relation = random_relation(seed, n, n)
    labelled = relation.negative & (torch.arange(n) % 2 == 0)
    return BatchLabels(relation.positive, labelled, relation.negative)


def test_an_objective_is_the_weighted_sum_of_its_losses_each_on_its_own_similarity_and_negatives():
    (rows,), known = points(0, 8), knowledge(0, 8)
    total = parse_objective("0.5*contrastive(margin=0.7) + info_nce*3 + logistic")(rows, rows, known)
    labelled, in_batch = Relation(known.positive, known.labelled), Relation(known.positive, known.unrelated)
    sim, minus_distance = cosine(rows, rows), euclidean(rows, rows)
    close(
        total, 0.5 * contrastive(minus_distance, labelled, 0.7) + 3 * info_nce(sim, in_batch) + logistic(sim, labelled)
    )


@every_loss
def test_an_objective_is_computed_in_float32_also_under_autocast(name):
    (rows,), known = points(0, 8, dtype=torch.bfloat16), knowledge(0, 8)
    expected = value(parse_objective(name), rows.float(), rows.float(), known)
    with torch.autocast("cpu", torch.bfloat16):
        loss = value(parse_objective(name), rows, rows, known)
    assert loss.dtype == torch.float32
    assert loss == expected


ALONE = [n for n, e in LOSSES.items() if (e.by_pair or e.by_row) and not e.prototypes and e.similarity in SIMILARITIES]


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("mined", [None, "semi_hard(margin=0.5)", "batch_hard", "multi_similarity"])
@pytest.mark.parametrize("dense", [False, True], ids=["sparse", "dense"])
@pytest.mark.parametrize("listed", [False, True], ids=["searched", "listed"])
def test_the_known_pairs_alone_give_what_the_whole_matrix_gives(name, mined, dense, listed, monkeypatch):
    monkeypatch.setattr(objectives, "DENSE", 10**9 if dense else 0)
    rows, columns = points(0, 8, 8)
    known, entry = knowledge(1, 8), LOSSES[name]
    if listed:
        known = dataclasses.replace(known, known_pairs=(known.positive | known.labelled).nonzero())
    chosen = parse_miner(mined) if mined else None
    sim = SIMILARITIES[entry.similarity](rows, columns)
    relation = known.relation(entry.in_batch)
    relation = chosen(sim, relation) if chosen else relation
    expected = entry.function(*select_rows(sim, relation)) if len(relation.positive) else 0 * rows.sum()
    loss = Objective((Term(name),), chosen)(rows, columns, known)
    close(loss, expected)
    close(torch.autograd.grad(loss, rows, allow_unused=True), torch.autograd.grad(expected, rows, allow_unused=True))


@every_loss
@pytest.mark.parametrize("mined", MINERS)
def test_every_loss_goes_with_every_miner(name, mined):
    """Finite gradients; nothing at all, and no NaN, where all positives or all negatives are missing."""
    goal = Objective((Term(name),), parse_miner(mined))
    for seed in range(3):
        (rows,), known = points(seed, 8), knowledge(seed, 8)
        nothing = torch.zeros_like(known.positive)
        for case in (known, BatchLabels(nothing, nothing, nothing)):
            rows.grad = None
            loss = value(goal, rows, rows, case)
            loss.backward()
            assert loss.isfinite()
            assert rows.grad is None or rows.grad.isfinite().all()
            if case is not known and not LOSSES[name].prototypes:
                assert loss == 0


def test_a_miner_narrows_what_the_loss_sees():
    (rows,), known = points(3, 8), knowledge(3, 8)
    sim = cosine(rows, rows)
    for chosen in (batch_hard, semi_hard):
        relation = chosen(sim, known.relation(True))
        expected = info_nce(*select_rows(sim, relation))
        assert expected != info_nce(sim, known.relation(True))
        close(Objective((Term("info_nce"),), chosen)(rows, rows, known), expected)


def test_prototypes_and_heads_are_made_for_the_losses_that_learn_them():
    goal = parse_objective("softmax + 0.01*center(alpha=0.3) + pair_softmax + info_nce + center(by_gradient=1)")
    learned = goal.learned_modules(5, 8)
    assert sorted(learned) == ["0", "1", "2", "4"]
    assert isinstance(learned["2"], PairHead)
    softmax, center, other = learned["0"], learned["1"], learned["4"]
    assert (softmax.by_gradient, center.by_gradient, other.by_gradient) == (True, False, True)
    assert (softmax.sampled, center.sampled) == (4096, 0)
    assert center.alpha == 0.3
    assert softmax.step == pytest.approx(1 / LOSSES["softmax"].parameters["scale"])


@pytest.mark.parametrize("name", [n for n, e in LOSSES.items() if e.prototypes])
def test_prototypes_are_looked_at_in_training_alone(name):
    (rows,), known = points(0, 8), knowledge(0, 8)
    goal = parse_objective(name)
    learned = goal.learned_modules(5, 8)
    assert value(goal, rows, rows, known, learned) != 0
    assert value(goal, rows, rows, known, learned.eval()) == 0


def test_a_head_starts_as_a_logistic_verdict_on_the_cosine_and_learns():
    rows, columns = points(0, 8, 8)
    known, goal = knowledge(0, 8), parse_objective("pair_softmax")
    learned = goal.learned_modules(5, 8)
    loss = value(goal, rows, columns, known, learned)
    close(loss, logistic(cosine(rows, columns), known.relation(False)))
    loss.backward()
    assert learned["0"].weight.grad.abs().sum(1).ne(0).all()
    assert learned["0"].bias.grad != 0


@pytest.mark.parametrize(
    ("expression", "terms"),
    [
        ("contrastive", [Term("contrastive")]),
        ("  info_nce() ", [Term("info_nce")]),
        (
            "info_nce(temperature=0.05) + 0.5*contrastive",
            [Term("info_nce", 1, {"temperature": 0.05}), Term("contrastive", 0.5)],
        ),
        (
            "contrastive * 2 + logistic(scale=10, threshold=-.1)",
            [Term("contrastive", 2), Term("logistic", 1, {"scale": 10, "threshold": -0.1})],
        ),
        ("2*(info_nce + 0.25*logistic)", [Term("info_nce", 2), Term("logistic", 0.5)]),
        ("(info_nce + logistic)*2 + contrastive", [Term("info_nce", 2), Term("logistic", 2), Term("contrastive")]),
        ("2*info_nce*3", [Term("info_nce", 6)]),
        ("1e-3*contrastive(margin=2)", [Term("contrastive", 1e-3, {"margin": 2})]),
    ],
)
def test_expressions(expression, terms):
    assert parse_objective(expression) == Objective(tuple(terms))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("contrastve", "unknown loss 'contrastve'; did you mean 'contrastive'?"),
        ("0.5*info_nec + contrastive", "did you mean 'info_nce'?"),
        ("zzz", "unknown loss 'zzz'; there are: contrastive, "),
        ("info_nce(temprature=0.1)", "info_nce has no parameter 'temprature'; did you mean 'temperature'?"),
        ("contrastive(temperature=0.1)", "contrastive has no parameter 'temperature'"),
        ("contrastiv(margin=1)", "did you mean 'contrastive'?"),
        ("info_nce(temperature='0.1')", "info_nce(temperature=...) takes a number"),
        ("info_nce(temperature=True)", "takes a number, not 'True'"),
        ("info_nce(temperature=1e999)", "takes a number"),
        ("info_nce(temperature=nan)", "takes a number"),
        ("info_nce(temperature=2j)", "takes a number"),
        ("info_nce(temperature={[]: 1})", "takes a number"),
        ("info_nce(temperature=__import__('os').system('true'))", "takes a number"),
        ("info_nce(temperature=0)", "info_nce: temperature: 0, must be > 0"),
        ("logistic(scale=-3)", "logistic: scale: -3, must be > 0"),
        ("info_nce(directions=3)", "info_nce: directions: 3, must be 1 <= directions <= 2"),
        ("sphereface(margin=0)", "sphereface: margin: 0, must be >= 1"),
        ("sphereface(margin=2.5)", "takes a whole number"),
        ("-1*contrastive", "the weight -1 is not above 0"),
        ("info_nce + contrastive*0", "the weight 0 is not above 0"),
        *(
            (garbage, "cannot read")
            for garbage in (
                *(
                    "",
                    " ",
                    "+",
                    "info_nce +",
                    "info_nce contrastive",
                    "info_nce - contrastive",
                    "-contrastive",
                    "0.5",
                    "1+2",
                ),
                *(
                    "info_nce*contrastive",
                    "True*info_nce",
                    "1e999*info_nce",
                    "'2'*info_nce",
                    "info_nce/2",
                    "2**info_nce",
                ),
                *(
                    "info_nce(0.05)",
                    "info_nce(*[1])",
                    "info_nce(**{'temperature': 1})",
                    "info_nce(temperature=1, temperature=2)",
                ),
                *(
                    "__import__('os')",
                    "__import__('os').system('true')",
                    "LOSSES['info_nce']",
                    "lambda: info_nce",
                    "info_nce.function",
                ),
                *(
                    "info_nce; contrastive",
                    "a = info_nce",
                    "info_nce\0",
                    "f'{info_nce}'",
                    "info_nce +" * 5000 + "info_nce",
                ),
                *("(" * 500 + "info_nce" + ")" * 500, "-" * 100_000 + "info_nce", "1" * 5000 + "*info_nce", "é*" * 99),
            )
        ),
    ],
    ids=lambda text: text[:40],
)
def test_what_is_no_objective_is_refused_in_one_line(expression, message):
    with pytest.raises(UserError) as refusal:
        parse_objective(expression)
    text = str(refusal.value)
    assert message in text
    assert text.startswith("loss: ")
    assert "\n" not in text
    assert len(text) < 400


def test_every_loss_is_offered_where_a_name_is_unknown():
    with pytest.raises(UserError, match=", ".join(LOSSES)):
        parse_objective("unheard_of")
