"""Draws the pictures of the documentation from the code: losses, miners, relations, splits, verdicts, a terminal.

python docs/make_pictures.py                                # docs/pictures/*.svg that need no model
python docs/make_pictures.py --model runs/sample-minilm     # and those that need one: its verdict, and a terminal
"""

from __future__ import annotations

import argparse
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np
import torch
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

import qpairs
from qpairs.data.splits import PARTS, split_pairs
from qpairs.evaluation.charts import Axis, Dot, Line, Mark, Plane, Rule, draw
from qpairs.objectives import miners
from qpairs.objectives.labels import batch_labels
from qpairs.objectives.losses import LOSSES, LossEntry
from qpairs.objectives.relations import Relation
from qpairs.training.batches import build_label_graph

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "pictures"
WIDTH = 96  # columns of the terminal
BLUE, RED, GREY, GREEN = "#0b6e99", "#c0392b", "#777", "#5b8a3c"
RESTING = {"+": 0.7, "-": 0.4}  # cosine of the duplicate and of the other question, while the other one moves
TOY = (
    ("How do I reset my password?", "I forgot my password, what now?", 1),
    ("I forgot my password, what now?", "My password is gone, help", 1),
    ("How do I reset my password?", "How do I change my e-mail address?", 0),
    ("Where is my parcel?", "How do I change my e-mail address?", 0),
)
STYLE = (
    "text { font: 12px system-ui, sans-serif; fill: #333 } .axis, .small { font-size: 11px } .big { font-size: 14px; "
    "font-weight: 600 } .grid { stroke: #e4e4e4 } .line { fill: none; stroke-width: 2 } "
    f".line.positive {{ stroke: {BLUE} }} .line.negative {{ stroke: {RED}; stroke-dasharray: 6 3 }} "
    f".line.third {{ stroke: {GREEN}; stroke-dasharray: 2 3 }} "
    f".dot.positive {{ fill: {BLUE} }} .dot.negative {{ fill: {RED} }} .rule {{ stroke: #999; stroke-dasharray: 3 3 }} "
    ".on-rule { font-size: 11px } .box { fill: #eef4f7; stroke: #0b6e99 } .second { fill: #fbf1e7; stroke: #d1701c } "
    ".arrow { stroke: #555; stroke-width: 1.5; fill: none; marker-end: url(#tip) }"
)
TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 L8 4 L0 8 z" fill="#555"/></marker></defs>'
)


def picture(width: int, height: int, about: str, parts: Sequence[str]) -> str:
    """An SVG file of these elements on white."""
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(about)}">\n<style>{STYLE}</style>{TIP}\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def words(x: float, y: float, text: str, style: str = "", anchor: str = "middle", colour: str = "") -> str:
    """A line of text."""
    fill = f' style="fill: {colour}"' if colour else ""
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{fill}>{escape(text)}</text>'


def box(x: float, y: float, width: float, text: str, style: str = "box") -> str:
    """A box with a line of text in it."""
    shape = f'<rect class="{style}" x="{x}" y="{y}" width="{width}" height="34" rx="5"/>'
    return shape + words(x + width / 2, y + 21, text)


def arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    """An arrow from one point to another."""
    return f'<path class="arrow" d="M{x1} {y1} L{x2} {y2}"/>'


# Losses


def curves(entry: LossEntry) -> tuple[np.ndarray, dict[str, list[float]]]:
    """The loss while the similarity of the duplicate (+) or of the other question (-) goes from -1 to 1 or -6 to 6.

    Of an anchor with one duplicate and one other question, at unit length. What moves is the cosine, or the logit of a
    loss over logits; the other of the two rests at `RESTING`.
    """
    head = entry.similarity == "head"
    at = np.linspace(-6, 6, 121) if head else np.linspace(-1, 1, 201)
    moved = {}
    for sign, column in (("+", 0), ("-", 1)):
        rest = [RESTING["+"], RESTING["-"]]
        places = [[*rest[:column], float(x), *rest[column + 1 :]] for x in at]
        moved[sign] = [_value(entry, place) for place in places]
    if entry.positives_only:
        del moved["-"]
    if entry.only_unlabelled:
        del moved["+"]
    return at, moved


def _value(entry: LossEntry, cosines: Sequence[float]) -> float:
    cosine = torch.tensor([list(cosines)], dtype=torch.float64)
    squared = (2 - 2 * cosine).clamp(min=0)
    kinds = {"euclidean": -squared.sqrt(), "squared_euclidean": -squared}
    sim, relation = kinds.get(entry.similarity, cosine), Relation.from_text("+-")
    if entry.function.__name__ == "quadruplet":  # its second term needs a pair of two other questions
        sim = torch.cat([sim, torch.full_like(sim, RESTING["-"])])
        relation = Relation.from_text("+-", ".-")
    return float(entry.function(sim, relation))


def loss_picture(name: str) -> str:
    """The loss as a function of one similarity, in two curves."""
    entry = LOSSES[name]
    at, moved = curves(entry)
    top = max(1e-3, *(max(values) for values in moved.values()))
    low = min(0.0, *(min(values) for values in moved.values()))
    what = "logit" if entry.similarity == "head" else "cosine"
    plane = Plane(Axis(what, at[0], at[-1]), Axis("loss", low, 1.05 * top, "{:.3g}".format), 62, 388, 30, 208)
    styles = {"+": "positive", "-": "negative"}
    marks: list[Mark] = [Line(list(at), values, styles[sign]) for sign, values in moved.items()]
    key = {
        "+": f"duplicate moves, other at {RESTING['-']}",
        "-": f"other moves, duplicate at {RESTING['+']}",
    }
    if entry.prototypes:
        key = {"+": "the own prototype moves", "-": "another prototype moves"}
    if entry.by_pair and len(moved) == 2 and not entry.needs_both:
        key = {"+": "the duplicate moves", "-": "the other question moves"}
    legend = [
        words(12 + 200 * number, 17, f"{line} {key[sign]}", "small", "start", colour)
        for number, (sign, line, colour) in enumerate((("+", "—", BLUE), ("-", "- -", RED)))
        if sign in moved
    ]
    return picture(400, 256, f"{name} as a function of similarity", [*legend, draw(plane, marks)])


# Concepts


def towers(shared: bool) -> str:
    """Two questions, one encoder for both or one for each, two vectors, one similarity."""
    parts = [box(10, 20, 190, "How do I reset my password?"), box(10, 130, 190, "I forgot my password")]
    encoders = [(75, "one encoder", "box")] if shared else [(20, "encoder 1", "box"), (130, "encoder 2", "box second")]
    parts += [box(240, y, 110, text, style) for y, text, style in encoders]
    for y in (20, 130):
        into = 92 if shared else y + 17
        parts += [arrow(200, y + 17, 238, into), arrow(350, into, 388, y + 17)]
        parts.append(box(390, y, 80, "vector", "box" if shared or y == 20 else "box second"))
        parts.append(arrow(470, y + 17, 508, 92))
    parts += [box(510, 75, 90, "cosine"), arrow(600, 92, 638, 92), box(640, 75, 110, "threshold")]
    name = "Siamese: both questions go through the same weights" if shared else "Pseudo-Siamese: two towers"
    return picture(760, 186, name, parts)


def triplet_picture() -> str:
    """Negatives around an anchor, each in the colour of the miner that takes it."""
    kinds = {"easy": GREEN, "semi_hard": "#d1701c", "hard": RED}
    scale, centre, positive, margin = 200, (220, 200), 0.7, 0.2
    sims = np.array([0.95, 0.85, 0.75, 0.66, 0.6, 0.55, 0.42, 0.3, 0.2])
    sim = torch.tensor([[positive, *sims]])
    relation = Relation.from_text("+" + "-" * len(sims))
    parts = []
    for radius, text in ((1 - positive, "as far as the positive"), (1 - positive + margin, "plus the margin")):
        shape = f'cx="{centre[0]}" cy="{centre[1]}" r="{radius * scale:.1f}" fill="none" stroke="#bbb"'
        parts.append(f'<circle {shape} stroke-dasharray="4 3"/>')
        parts.append(words(centre[0], centre[1] - radius * scale - 4, text, "small"))
    mined = {
        "easy": miners.easy(sim, relation, margin),
        "semi_hard": miners.semi_hard(sim, relation, margin),
        "hard": miners.hard(sim, relation),
    }
    for number, cosine in enumerate(sims):
        angle = 0.35 + number * 2.4
        x = centre[0] + (1 - cosine) * scale * math.cos(angle)
        y = centre[1] + (1 - cosine) * scale * math.sin(angle)
        (kind,) = (kind for kind in kinds if mined[kind].negative[0, 1 + number])
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{kinds[kind]}"/>')
    x, y = centre[0] + (1 - positive) * scale * math.cos(-0.5), centre[1] + (1 - positive) * scale * math.sin(-0.5)
    parts += [f'<circle cx="{centre[0]}" cy="{centre[1]}" r="7" fill="#333"/>', words(*centre, "", "small")]
    parts += [words(centre[0], centre[1] + 22, "anchor"), f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" fill="{BLUE}"/>']
    parts.append(words(x + 12, y + 4, "positive", anchor="start", colour=BLUE))
    about = {
        "hard": "hard: nearer than the positive",
        "semi_hard": "semi-hard: farther, but within the margin",
        "easy": "easy: beyond the margin, nothing to learn",
    }
    for row, (kind, text) in enumerate(about.items()):
        parts.append(f'<circle cx="445" cy="{150 + 26 * row}" r="6" fill="{kinds[kind]}"/>')
        parts.append(words(458, 154 + 26 * row, text, anchor="start"))
    return picture(720, 400, "Anchor, positive, and easy, semi-hard and hard negatives", parts)


def relation_picture() -> str:
    """What the labels of five questions say of all 5 x 5 pairs: labelled alone, and with strangers as negatives."""
    left, right, labels = zip(*TOY, strict=True)
    pairs = qpairs.pairs_from_texts(list(left), list(right), list(labels))
    everyone = torch.arange(len(pairs.questions))
    known = batch_labels(build_label_graph(pairs), everyone, everyone)
    parts, cell = [], 34
    for number, (title, in_batch) in enumerate((("labelled", False), ("and in the batch", True))):
        relation, start = known.relation(in_batch=in_batch), 235 + number * 220
        parts.append(words(start + 2.5 * cell, 24, title, "big"))
        for row, question in enumerate(pairs.questions):
            if not number:
                parts.append(words(225, 62 + row * cell, f"{question}  {row + 1}", "small", "end"))
            for column in range(len(everyone)):
                positive, negative = bool(relation.positive[row, column]), bool(relation.negative[row, column])
                sign, colour = ("+", BLUE) if positive else ("\u2212", RED) if negative else ("", GREY)
                x, y = start + column * cell, 40 + row * cell
                faint = f'stroke="#ccc" fill="{colour if sign else "white"}" fill-opacity="{0.14 if sign else 1}"'
                parts.append(f'<rect x="{x}" y="{y}" width="{cell}" height="{cell}" {faint}/>')
                parts.append(words(x + cell / 2, y + 22, sign, "big", colour=colour))
        for column in range(len(everyone)):
            parts.append(words(start + (column + 0.5) * cell, 40 + 5 * cell + 16, str(column + 1), "small"))
    return picture(640, 240, "The relation of a batch of five questions", parts)


def splits_picture() -> str:
    """Twelve components of a question graph, and the part to which a split brings each."""
    random = np.random.default_rng(4)
    sizes = [6, 5, 5, 4, 4, 4, 3, 3, 3, 3, 2, 2]
    edges = [(c, i, random.integers(i)) for c, size in enumerate(sizes) for i in range(1, size)]
    edges += [(c, 0, size - 1) for c, size in enumerate(sizes) if size > 3]
    rows = [(f"{c}:{i}", f"{c}:{j}", int(random.random() < 0.5)) for c, i, j in edges]
    split = split_pairs(
        qpairs.pairs_from_texts(*(list(side) for side in zip(*rows, strict=True))),
        validation_fraction=0.2,
        test_fraction=0.2,
    )
    parts = [words(360, 296, "— duplicates     - - other labelled pairs; no edge leaves its part", "small")]
    for number, name in enumerate(PARTS):
        left, width = (10, 330) if not number else (350 + 185 * (number - 1), 175)
        style = f'x="{left}" y="34" width="{width}" height="240" rx="6" fill="#f7f7f7" stroke="#ccc"'
        parts += [f"<rect {style}/>", words(left + width / 2, 24, name, "big")]
        piece = getattr(split, name)
        here = sorted({question.split(":")[0] for question in piece.questions}, key=int)
        columns = 3 if not number else 2
        for k, component in enumerate(here):
            step = (width - 10) / columns
            x, y = (
                left + 5 + (k % columns + 0.5) * step,
                34 + (k // columns + 0.5) * (240 / math.ceil(len(here) / columns)),
            )
            parts += _component(piece, component, x, y)
    return picture(720, 306, "Components of the question graph go to one part as a whole", parts)


def _component(pairs: qpairs.Pairs, name: str, x: float, y: float) -> Iterator[str]:
    """The questions of a component on a circle, and the labelled pairs among them."""
    questions = [q for q, text in enumerate(pairs.questions) if text.split(":")[0] == name]
    turn = 2 * math.pi / len(questions)
    place = {q: (x + 26 * math.cos(k * turn), y + 26 * math.sin(k * turn)) for k, q in enumerate(questions)}
    for left, right, label in zip(pairs.left.tolist(), pairs.right.tolist(), pairs.labels.tolist(), strict=True):
        if left in place:
            (x1, y1), (x2, y2) = place[left], place[right]
            line = f'stroke="{BLUE}" stroke-width="2"' if label else f'stroke="{RED}" stroke-dasharray="4 3"'
            yield f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {line}/>'
    yield from (f'<circle cx="{a:.1f}" cy="{b:.1f}" r="5" fill="#333"/>' for a, b in place.values())


def verdict_picture(folder: Path) -> str:
    """The probability that a pair is a duplicate, by its cosine: among labelled pairs, and in corpora."""
    verdict = qpairs.load(folder).verdict
    at = np.linspace(0, 1, 101)
    settings = {"pairs that people hand over": (verdict.pair, "positive", BLUE)}
    for n, style, colour in ((1_000, "third", GREEN), (100_000, "negative", RED)):
        settings[f"all pairs of a corpus of {n:,} questions"] = (verdict.corpus(n), style, colour)
    plane = Plane(Axis("cosine", 0, 1), Axis("probability of a duplicate", 0, 1), 62, 548, 70, 300)
    marks: list[Mark] = [Rule(float(verdict.pair.threshold), f"threshold for pairs: {verdict.pair.threshold:.2f}")]
    marks += [Line(list(at), setting.probability(at).tolist(), style) for setting, style, _ in settings.values()]
    marks += [Dot(verdict.pair.threshold, float(verdict.pair.probability([verdict.pair.threshold])[0]), "positive")]
    lines = {"positive": "—", "third": "···", "negative": "- -"}
    keys = [
        words(62, 18 + 16 * row, f"{lines[style]} {name}", "small", "start", colour)
        for row, (name, (_, style, colour)) in enumerate(settings.items())
    ]
    return picture(560, 348, "One score means different things in different places", [*keys, draw(plane, marks)])


# The terminal


def terminal_picture(folder: str) -> str:
    """What three commands print, as a picture of a terminal; they are run in the folder of the repository."""
    environment = {**os.environ, "COLUMNS": str(WIDTH), "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    shown = (
        ("predict", folder, "How do I reset my password?", "I forgot my password"),
        ("predict", folder, "How do I reset my password?", "How do I change my address?"),
        ("dedupe", folder, "data/tickets.csv", "--text-column", "title", "--dry-run"),
    )
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True, color_system="truecolor")
        for arguments in shown:
            command = [sys.executable, str(ROOT / "cli.py"), *arguments]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=True)
            words = " ".join(f'"{word}"' if " " in word else word for word in arguments)
            console.print(Text(f"$ qpairs {words}", style="bold"), soft_wrap=True)
            console.print(Text.from_ansi(done.stdout.rstrip()))
            console.print()
    without_web_fonts = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    return console.export_svg(title="qpairs", code_format=without_web_fonts, unique_id="qpairs")


def drawings() -> dict[str, str]:
    """File names -> the pictures that need no model."""
    concepts = {
        "siamese.svg": towers(shared=True),
        "pseudo_siamese.svg": towers(shared=False),
        "triplet.svg": triplet_picture(),
        "relation.svg": relation_picture(),
        "splits.svg": splits_picture(),
    }
    return concepts | {f"losses/{name}.svg": loss_picture(name) for name in LOSSES}


def main() -> None:
    """Writes the pictures that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="the folder of a trained model, from the folder of the repository")
    options = parser.parse_args()
    drawn = drawings()
    if options.model:
        drawn["verdict.svg"] = verdict_picture(ROOT / options.model)
        drawn["terminal.svg"] = terminal_picture(options.model)
    for name, svg in drawn.items():
        (PICTURES / name).parent.mkdir(parents=True, exist_ok=True)
        (PICTURES / name).write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
