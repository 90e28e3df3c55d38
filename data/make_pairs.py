"""Makes pairs.csv and intents.csv from questions/*.toml, the same files each time: `python data/make_pairs.py`.

Duplicates are two phrasings of one intent: those that share most words, and some at random. Non-duplicates are near
misses, from two intents of one family, and easy ones, from two neighbouring families of a file. Families are taken two
by two, so that two of them are one connected component, which splits keep whole. intents.csv has the intent of every
question, so that all duplicates are known.
"""

from __future__ import annotations

import csv
import random
import re
import tomllib
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path

HERE = Path(__file__).parent
DUPLICATES_PER_INTENT = 4
CLOSEST = 2
RATIO = 0.37
NEAR_MISSES = 0.6

Intents = dict[str, list[str]]


def family_pairs() -> Iterator[tuple[str, list[Intents]]]:
    """A name, and the intents of two neighbouring families of one file; of one, if it is the last of an odd number."""
    for file in sorted((HERE / "questions").glob("*.toml")):
        families = tomllib.loads(file.read_text(encoding="utf-8"))["family"]
        for i in range(0, len(families), 2):
            yield f"{file.stem}/{i}", [family["intents"] for family in families[i : i + 2]]


def intent_rows() -> Iterator[tuple[str, str]]:
    """Every question, and its intent as `file/family/intent`."""
    for file in sorted((HERE / "questions").glob("*.toml")):
        for family in tomllib.loads(file.read_text(encoding="utf-8"))["family"]:
            for intent, texts in family["intents"].items():
                yield from ((text, f"{file.stem}/{family['name']}/{intent}") for text in texts)


def overlap(pair: tuple[str, str]) -> float:
    """Jaccard overlap of the words of two questions."""
    one, two = (set(re.findall(r"\w+", text.lower())) for text in pair)
    return len(one & two) / len(one | two)


def duplicates_of(texts: list[str], draw: random.Random) -> list[tuple[str, str]]:
    """DUPLICATES_PER_INTENT pairs of phrasings: the CLOSEST that share the most words, and others at random."""
    ranked = sorted(combinations(texts, 2), key=overlap, reverse=True)
    return ranked[:CLOSEST] + draw.sample(ranked[CLOSEST:], DUPLICATES_PER_INTENT - CLOSEST)


def pairs_of(families: list[Intents], seed: str) -> list[tuple[str, str, int]]:
    """The pairs of one or two families: a share RATIO of duplicates, and NEAR_MISSES among the non-duplicates."""
    draw = random.Random(seed)
    same = [pair for family in families for texts in family.values() for pair in duplicates_of(texts, draw)]
    near = [(a, b) for family in families for one, two in combinations(family.values(), 2) for a in one for b in two]
    easy = [
        (a, b)
        for one, two in combinations(families, 2)
        for x in one.values()
        for y in two.values()
        for a in x
        for b in y
    ]
    others = round(len(same) * (1 - RATIO) / RATIO)
    misses = round(others * NEAR_MISSES) if easy else others
    rows = [(*pair, 1) for pair in same]
    rows += [(*pair, 0) for pair in draw.sample(near, misses) + draw.sample(easy, others - misses)]
    return [(b, a, label) if draw.random() < 0.5 else (a, b, label) for a, b, label in rows]


def write(name: str, columns: list[str], rows: Iterable[tuple[str | int, ...]]) -> None:
    """Writes a CSV file beside this one."""
    with (HERE / name).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def main() -> None:
    """Writes pairs.csv and intents.csv."""
    rows = [row for name, families in family_pairs() for row in pairs_of(families, name)]
    random.Random(0).shuffle(rows)
    write("pairs.csv", ["question1", "question2", "is_duplicate"], rows)
    write("intents.csv", ["question", "intent"], intent_rows())
    print(f"{len(rows):,} pairs, {sum(row[2] for row in rows) / len(rows):.1%} duplicates")


if __name__ == "__main__":
    main()
