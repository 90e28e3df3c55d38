"""What `qpairs evaluate` prints about changed questions, attacks, and a retrieval set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from qpairs.commands.terminal import out, percent, plain

SHOWN = {"mrr": "MRR", "map": "MAP", "recall_at_": "recall@", "ndcg_at_": "nDCG@"}


def print_behaviour(behaviours: list[Mapping[str, Any]], kinds: list[str], ignores_order: bool, score: str) -> None:
    """Prints how often decisions about questions changed by rule are wrong.

    Args:
        behaviours: `Behaviour.to_dict()` of each.
        kinds: of changes that were asked for.
        ignores_order: whether the encoder ignores the order of words.
        score: what a score is called.
    """
    wanted = {
        (True, "itself"): "duplicate of itself",
        (True, "pairs"): "pair keeps its verdict",
        (False, "itself"): "no duplicate of itself",
        (False, "pairs"): "pair no longer duplicate",
    }
    table = Table(title="\nWhen a question is changed", title_justify="left", box=None, pad_edge=False)
    for column in ("", "expected", "cases", "failures", "rate", "95 % interval"):
        table.add_column(column, justify="left" if column in ("", "expected") else "right")
    for b in behaviours:
        low, high = b["interval"]
        figures = f"{b['n']:,}", f"{b['failures']:,}", percent(b["rate"]), f"{100 * low:.1f} to {100 * high:.1f}"
        table.add_row(b["kind"], wanted[b["same"], b["against"]], *figures)
    out.print(table)
    missing = set(kinds) - {b["kind"] for b in behaviours}
    if missing:
        out.print(f"No question here fits these kinds: {', '.join(sorted(missing))}.")
    if "word-order" in kinds and ignores_order:
        out.print("[dim]Note: a static encoder ignores word order; use lstm or minilm for word-order.[/]")
    for b in behaviours:
        if b["examples"] and b["against"] == "itself":
            worst = b["examples"][0]
            out.print(f"\n{b['kind']}, {score} {worst['similarity']:.3f}:", style="dim", highlight=False)
            for text in (worst["question"], worst["changed"]):
                out.print(f"  {plain(text)}", highlight=False)


def print_attack(found: Mapping[str, Any], score: str) -> None:
    """Prints how many right decisions were flipped by rewording, with examples; `found` is `AttackReport.to_dict()`."""
    attacked, turned, (low, high) = found["attacked"], found["turned"], found["interval"]
    n, several = sum(attacked.values()), found["words"]
    how = "slips, marks, contractions" + (f" and nearest words of {found['vectors']}" if found["vectors"] else "")
    out.print(
        f"\n[bold]{percent(found['rate'])}[/] of {n:,} right decisions are flipped by rewording (95 %: "
        f"{100 * low:.1f} to {100 * high:.1f}; {plain(how)}): {turned['duplicates']:,} of {attacked['duplicates']:,} "
        f"duplicates, {turned['others']:,} of {attacked['others']:,} others.",
        highlight=False,
    )
    if several is not None:
        out.print(
            f"{several:.1f} words are changed on average, found with {found['scored']:.0f} scores of at most "
            f"{found['budget']:,} a pair.",
            highlight=False,
        )
    for example in found["examples"]:
        label = "duplicates" if example["label"] else "not duplicates"
        out.print(
            f"\n{label}, {score} {example['before']:.3f} -> {example['after']:.3f}:", style="dim", highlight=False
        )
        for side in "12":
            before, after = example[f"question{side}"], example[f"changed{side}"]
            arrow = f"\n    -> [bold]{plain(after)}[/]" if after != before else ""
            out.print(f"  {plain(before)}{arrow}", highlight=False, soft_wrap=True)


def print_search(found: Mapping[str, Any]) -> None:
    """Prints the scores of a retrieval set, with intervals; `found` is `SearchReport.to_dict()`."""
    title = f"\nSearch: {found['queries']:,} queries in {found['corpus']:,} texts, by cosine"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in ("", "mean", "95 % interval"):
        table.add_column(column, justify="right" if column else "left")
    for name, value in sorted(found["scores"].items(), key=lambda row: _place(row[0])):
        low, high = found["intervals"][name]
        table.add_row(_shown(name), f"[bold]{value:.3f}[/]", f"{low:.3f} to {high:.3f}")
    out.print(table)
    for miss in found["missed"]:
        out.print(f"\nrank {miss['rank']:,}:  {plain(miss['query'])}", highlight=False, soft_wrap=True)
        out.print(f"  relevant  {plain(miss['relevant'])}\n  [dim]first     {plain(miss['first'])}[/]", highlight=False)


def _place(name: str) -> tuple[int, int]:
    kinds: Sequence[str] = list(SHOWN)
    kind = next(kind for kind in kinds if name.startswith(kind))
    return kinds.index(kind), int(name.removeprefix(kind) or 0)


def _shown(name: str) -> str:
    kind = next(kind for kind in SHOWN if name.startswith(kind))
    return SHOWN[kind] + name.removeprefix(kind)
