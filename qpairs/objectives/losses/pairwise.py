"""Losses over labelled pairs: each pair by itself, or against the pairs of the other kind anywhere in the batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from qpairs.core.ranges import Range
from qpairs.objectives.losses.entry import LossEntry
from qpairs.objectives.losses.masks import masked_mean
from qpairs.objectives.losses.triplets import one_row, triplet
from qpairs.objectives.relations import Relation


def contrastive(
    sim: Tensor,
    relation: Relation,
    margin: float = 1.0,
    positive_margin: float = 0.0,
    power: float = 2.0,
    pull: float = 1.0,
    push: float = 1.0,
) -> Tensor:
    """Contrastive loss: pulls duplicates together, pushes the others apart up to the margin.

    Half of d² for duplicates and half of max(0, margin - d)² for the others, mean over the pairs of the relation.
    Hadsell, Chopra, LeCun 2006, eq. 4 (there Y = 0 is the similar pair; here a duplicate is positive, label 1). The
    general form, their eq. 2 with partial losses of one shape: pull * max(0, d - positive_margin)^power / power and
    push * max(0, margin - d)^power / power; with 1, 0, 2, 1 and 1 it is eq. 4. A positive margin leaves duplicates
    alone that are near enough; power 1 weighs all violating pairs alike.

    Args:
        sim: (n, m) minus the Euclidean distance.
        relation: masks (n, m).
        margin: distance beyond which a non-duplicate costs nothing; unit vectors are at most 2 apart.
        positive_margin: distance up to which a duplicate costs nothing.
        power: exponent of the distance that is missing.
        pull: factor of the duplicates.
        push: factor of the others.

    Example:
        >>> sim = torch.tensor([[-0.1, -0.4]])  # distances of a duplicate and of a non-duplicate
        >>> contrastive(sim, Relation.from_text("+-"))  # (0.1² / 2 + (1 - 0.4)² / 2) / 2
        tensor(0.0925)
        >>> contrastive(sim, Relation.from_text("+-"), power=1, push=0.5)  # (0.1 + 0.5 (1 - 0.4)) / 2
        tensor(0.2000)
    """
    with torch.no_grad():
        hinge = (margin + sim).relu_().mul_(relation.negative)  # (n, m) distance that is missing to the margin
        steep = hinge if power == 2 else torch.where(hinge > 0, hinge.pow(power - 1), 0.0)  # (n, m)
        value = torch.dot(steep.flatten(), hinge.flatten()) / power
    slope = torch.dot(steep.flatten(), sim.flatten())
    far = slope + (value - slope).detach()  # `value`, and its gradient, `steep`, at no cost
    near = (-sim[relation.positive] - positive_margin).relu().pow(power).sum() / power
    count = relation.positive.count_nonzero() + relation.negative.count_nonzero()
    return (pull * near + push * far) / count.clamp(min=1)


def online_contrastive(sim: Tensor, relation: Relation, margin: float = 0.5) -> Tensor:
    """Contrastive loss over the hard pairs of the batch only.

    With cosine distance d: d² for the duplicates farther than the nearest non-duplicate, max(0, margin - d)² for the
    non-duplicates nearer than the farthest duplicate. OnlineContrastiveLoss of sentence-transformers 2019 sums these;
    here the sum is divided by the number of pairs in the relation, so that its scale does not depend on the batch.
    With a teacher's probability p, the cost of a pair is p times that of a duplicate plus 1 - p times that of a
    non-duplicate, each only if the pair is hard as such; pairs with p >= 1/2 are the duplicates in the search for hard
    ones.

    Args:
        sim: (n, m) cosine similarity.
        relation: masks (n, m).
        margin: cosine distance beyond which a non-duplicate costs nothing.

    Example:
        >>> relation = Relation.from_text("+-")
        >>> online_contrastive(torch.tensor([[0.6, 0.9]]), relation)  # (0.4² + (0.5 - 0.1)²) / 2
        tensor(0.1600)
        >>> online_contrastive(torch.tensor([[0.9, 0.6]]), relation)  # no hard pair
        tensor(0.)
    """
    distance = 1 - sim
    nearest_negative = functional.pad(distance.detach()[relation.negative], (0, 1), value=torch.inf).amin()
    farthest_positive = functional.pad(distance.detach()[relation.positive], (0, 1), value=-torch.inf).amax()
    far, near = distance > nearest_negative, distance < farthest_positive  # (n, m) hard as duplicates, as others
    known = relation.positive | relation.negative
    pull, push = distance.square(), (margin - distance).clamp(min=0).square()  # (n, m)
    probability = relation.teacher_probability
    if probability is None:
        cost = torch.where(relation.positive, pull * far, push * near)  # (n, m)
    else:
        cost = probability * pull * far + (1 - probability) * push * near
    return masked_mean(cost, known)


def logistic(sim: Tensor, relation: Relation, scale: float = 20.0, threshold: float = 0.75) -> Tensor:
    """Cross-entropy of a logistic regression on the similarity: the sigmoid loss with a fixed temperature and bias.

    softplus(-z (scale (sim - threshold))) with z = 1 for duplicates and -1 for the others, mean over the pairs of the
    relation. Zhai et al. 2023 (SigLIP), section 3.2, over labelled pairs. Learns a teacher's probabilities as
    `pair_softmax` does.

    Args:
        sim: (n, m) cosine similarity.
        relation: masks (n, m).
        scale: inverse temperature.
        threshold: similarity at which the probability is 1/2.

    Example:
        >>> logistic(torch.tensor([[0.9]]), Relation.from_text("+"))  # log(1 + exp(-20 (0.9 - 0.75)))
        tensor(0.0486)
    """
    return pair_softmax(scale * (sim - threshold), relation)


def pair_softmax(sim: Tensor, relation: Relation) -> Tensor:
    """Softmax loss over pairs: cross-entropy of a classification head on u, v, |u - v| and u * v.

    softplus(-z sim) with z = 1 for duplicates and -1 for the others, mean over the pairs of the relation: that of a
    softmax over two classes whose logits differ by sim. Reimers & Gurevych 2019, section 3 (the head: Conneau et al.
    2017). With a teacher's probability p: p softplus(-sim) + (1 - p) softplus(sim), Hinton et al. 2015, section 2.

    Args:
        sim: (n, m) logit of the head, the log odds of a duplicate.
        relation: masks (n, m).

    Example:
        >>> pair_softmax(torch.tensor([[3.0, -1.0]]), Relation.from_text("+-"))  # -log(sigmoid), mean of both pairs
        tensor(0.1809)
    """
    probability = relation.teacher_probability
    target = relation.positive.to(sim.dtype) if probability is None else probability  # (n, m)
    cost = functional.binary_cross_entropy_with_logits(sim, target, reduction="none")  # (n, m)
    return masked_mean(cost, relation.positive | relation.negative)


def focal(
    sim: Tensor,
    relation: Relation,
    gamma: float = 2.0,
    alpha: float = 0.5,
    scale: float = 20.0,
    threshold: float = 0.75,
) -> Tensor:
    """Focal loss: the cross-entropy of `logistic`, in which pairs that are decided well weigh next to nothing.

    -alpha_t (1 - p_t)^gamma log(p_t), where p_t is the probability sigmoid(scale (sim - threshold)) of a duplicate for
    duplicates and 1 minus it for the others, mean over the pairs of the relation. Lin et al. 2017, eq. 5. There alpha
    is 0.25, for one object among thousands of places without one, and the sum is divided by the number of objects.

    Args:
        sim: (n, m) cosine similarity.
        relation: masks (n, m).
        gamma: how fast the weight of a pair falls with its probability; 0: `logistic`, times alpha_t.
        alpha: weight of a duplicate; a non-duplicate has 1 - alpha.
        scale: inverse temperature.
        threshold: similarity at which the probability is 1/2.

    Example:
        >>> sim = torch.tensor([[0.9, 0.7]])  # probabilities 0.953 and 0.269
        >>> focal(sim, Relation.from_text("+-"))  # (0.5 0.047² 0.0486 + 0.5 0.269² 0.3133) / 2
        tensor(0.0057)
    """
    logit = scale * (sim - threshold)
    wrong = torch.where(relation.positive, -logit, logit)  # (n, m) log odds of the wrong decision
    weight = torch.where(relation.positive, alpha, 1 - alpha)
    cost = weight * (gamma * functional.logsigmoid(wrong)).exp() * functional.softplus(wrong)
    return masked_mean(cost, relation.positive | relation.negative)


def ghm(sim: Tensor, relation: Relation, bins: int = 10, scale: float = 20.0, threshold: float = 0.75) -> Tensor:
    """Gradient harmonizing: the cross-entropy of `logistic`, each pair divided by how many have a gradient like its.

    The norm of a pair's gradient g = |p - label|, with the probability p = sigmoid(scale (sim - threshold)), is sorted
    into bins of equal width; the loss is the mean over the bins of the mean cross-entropy of the pairs in each, 0 in an
    empty one. So the many easy pairs weigh as much as the few of middle difficulty, and so do those that are so wrong
    that their label may be. Li et al. 2019 (GHM-C), eq. 7 to 9, with the densities of the batch alone; through the
    weights no gradient flows.

    Args:
        sim: (n, m) cosine similarity.
        relation: masks (n, m).
        bins: M of the paper, the unit regions of the gradient's norm.
        scale: inverse temperature.
        threshold: similarity at which the probability is 1/2.

    Example:
        >>> sim = torch.tensor([[0.9, 0.9, 0.7]])  # two alike, which share a bin, and a harder one; 10 bins
        >>> ghm(sim, Relation.from_text("++-"))  # ((0.0486 + 0.0486) / 2 + 0.3133) / 10
        tensor(0.0362)
    """
    known, logit = relation.positive | relation.negative, scale * (sim - threshold)
    wrong = torch.where(relation.positive, -logit, logit)  # (n, m) log odds of the wrong decision
    place = (wrong.detach().sigmoid() * bins).long().clamp(max=bins - 1)  # (n, m)
    members = place[known].bincount(minlength=bins)  # (bins,)
    share = 1 / (bins * members.clamp(min=1)).to(sim.dtype)
    return torch.where(known, functional.softplus(wrong) * share[place], 0.0).sum()


def ranking(sim: Tensor, relation: Relation, margin: float = 0.2) -> Tensor:
    """Siamese ranking hinge: every duplicate of the batch should score above every other pair of it, by the margin.

    max(0, s_n - s_p + margin), mean over all combinations of a positive pair p and a negative pair n; with grades, or a
    teacher's probabilities, of a pair p and one n of a lower grade. Liu et al. 2017 (RankIQA), the pairwise hinge; its
    scores have no bounds and its margin no default, 0.2 is that of `triplet`.

    Args:
        sim: (n, m) cosine similarity.
        relation: masks (n, m).
        margin: epsilon of the paper, in units of sim.

    Example:
        >>> ranking(torch.tensor([[0.9], [0.8]]), Relation.from_text("+", "-"))  # max(0, 0.8 - 0.9 + 0.2)
        tensor(0.1000)
    """
    if relation.teacher_probability is not None:
        behind, above = _behind(sim, relation)
        return masked_mean((behind + margin).relu(), above)
    return triplet(sim.reshape(1, -1), one_row(relation), margin)


def _behind(sim: Tensor, relation: Relation) -> tuple[Tensor, Tensor]:
    """How far each known pair is behind each other one (k, k), and where it is the one of a higher grade (k, k)."""
    assert relation.teacher_probability is not None
    known = relation.positive | relation.negative
    scores, grades = sim[known], relation.teacher_probability[known]  # (k,) each
    return scores[None] - scores[:, None], grades[:, None] > grades[None]


def cosent(sim: Tensor, relation: Relation, scale: float = 20.0) -> Tensor:
    """CoSENT: every duplicate of the batch should be more similar than every other pair of it.

    log(1 + sum over positive pairs p and negative pairs n of exp(scale (s_n - s_p))), one value for the whole batch;
    the double sum is the product of two. Su 2022 (CoSENT). With grades, or a teacher's probabilities, the sum is over
    all pairs p and n of which n has the lower grade.

    Args:
        sim: (n, m) cosine similarity.
        relation: masks (n, m).
        scale: inverse temperature.

    Example:
        >>> cosent(torch.tensor([[0.9], [0.6]]), Relation.from_text("+", "-"), scale=10)  # log(1 + exp(10 (0.6 - 0.9)))
        tensor(0.0486)
    """
    if relation.teacher_probability is not None:
        behind, above = _behind(sim, relation)
        if not above.any():
            return sim.sum() * 0
        return functional.softplus((scale * behind[above]).logsumexp(0))
    nearest = (scale * sim[relation.negative]).logsumexp(0)
    farthest = (-scale * sim[relation.positive]).logsumexp(0)
    return functional.softplus(nearest + farthest)


PAIRWISE = {
    "contrastive": LossEntry(
        contrastive,
        "euclidean",
        "Hadsell, Chopra, LeCun 2006",
        "d²/2 of duplicates, max(0, margin - d)²/2 of others",
        {
            "margin": Range(above=0),
            "positive_margin": Range(at_least=0),
            "power": Range(at_least=1),
            "pull": Range(at_least=0),
            "push": Range(at_least=0),
        },
        by_pair=True,
    ),
    "online_contrastive": LossEntry(
        online_contrastive,
        "cosine",
        "sentence-transformers 2019",
        "d² and max(0, margin - d)² of the hard pairs only",
        needs_both=True,
        by_pair=True,
        soft_labels=True,
    ),
    "logistic": LossEntry(
        logistic,
        "cosine",
        "Zhai et al. 2023",
        "cross-entropy of the probability sigmoid(scale (sim - threshold))",
        {"scale": Range(above=0)},
        by_pair=True,
        soft_labels=True,
    ),
    "focal": LossEntry(
        focal,
        "cosine",
        "Lin et al. 2017",
        "cross-entropy as in logistic, times (1 - p)^gamma, p being the probability of the right decision",
        {"gamma": Range(at_least=0), "alpha": Range(above=0, below=1), "scale": Range(above=0)},
        by_pair=True,
    ),
    "ghm": LossEntry(
        ghm,
        "cosine",
        "Li et al. 2019",
        "cross-entropy as in logistic, mean over the bins of |p - label|",
        {"bins": Range(at_least=1), "scale": Range(above=0)},
        by_pair=True,
        monotone=False,  # a pair that changes its bin changes the weights of both bins; its gradient is right
    ),
    "pair_softmax": LossEntry(
        pair_softmax,
        "head",
        "Reimers & Gurevych 2019",
        "cross-entropy of a classification head on u, v, |u - v|, u * v",
        by_pair=True,
        soft_labels=True,
    ),
    "ranking": LossEntry(
        ranking,
        "cosine",
        "Liu et al. 2017",
        "max(0, s_n - s_p + margin) of every duplicate p and every other pair n of the batch",
        needs_both=True,
        by_pair=True,
        soft_labels=True,
    ),
    "cosent": LossEntry(
        cosent,
        "cosine",
        "Su 2022",
        "log(1 + sum of exp(scale (s_n - s_p))) over every duplicate p and every other pair n of the batch",
        {"scale": Range(above=0)},
        needs_both=True,
        by_pair=True,
        soft_labels=True,
    ),
}
