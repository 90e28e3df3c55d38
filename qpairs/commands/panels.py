"""The panels of options in --help: options with one purpose are grouped, the main ones in Options."""

from __future__ import annotations

from typing import Any

MOST = 8  # options in one panel without a name

_EXECUTION = {"Execution": ("engine", "ray_address")}
_READING = ("text_column", "id_column")
PANELS: dict[str, dict[str, tuple[str, ...]]] = {
    "calibrate": {"Evidence": ("data", "corpus", "labels", "trust"), "Reading": ("text_column",)},
    "embed": {"Reading": _READING, "Vectors": ("dtype", "dim", "side", "shard_size"), **_EXECUTION},
    "search": {
        "Verdict": ("threshold", "precision", "reranker"),
        "Questions of a file": ("file", "text_column", "output", "overwrite", "raw"),
    },
    "dedupe": {
        "Reading": (*_READING, "embeddings"),
        "Verdict": ("threshold", "precision", "linkage", "recall", "reranker"),
        "Files": ("kind", "overwrite", "raw"),
        **_EXECUTION,
    },
    "serve": {
        "Questions": ("index", "questions", *_READING, "uploads", "url_template", "read_only"),
        "Labels and clusters": ("labels", "annotator", "clusters"),
        "Network": ("host", "port", "token", "allow_origin"),
        "Limits": ("max_items", "max_characters", "max_body", "max_upload", "queue", "timeout", "batch", "max_reads"),
    },
    "pairs": {
        "Language model": ("llm", "model", "guideline", "max_tokens"),
        "Requests": ("concurrency", "timeout", "attempts"),
        "Cost": ("budget", "price_in", "price_out"),
    },
}  # command -> panel -> names of its options; options whose panel stands beside them are not here


def place_options(name: str, command: Any) -> None:
    """Puts the options of a command into its panels.

    Args:
        name: of the command.
        command: as typer built it.

    >>> from types import SimpleNamespace as Fake
    >>> command = Fake(params=[Fake(name="host", rich_help_panel=None), Fake(name="reranker", rich_help_panel=None)])
    >>> place_options("serve", command)
    >>> [option.rich_help_panel for option in command.params]
    ['Network', None]
    """
    panel_of = {option: panel for panel, options in PANELS.get(name, {}).items() for option in options}
    for option in command.params:
        if option.name in panel_of:
            option.rich_help_panel = panel_of[option.name]
