"""`qpairs evaluate` and `predict`."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from qpairs.commands.conclusions import LABELLED, Conclusion, after_evaluate, after_search
from qpairs.commands.outputs import check_file
from qpairs.commands.probes import print_attack, print_behaviour, print_search
from qpairs.commands.reading import NamedPairs, judged_pairs, pairs_of_run, split_columns
from qpairs.commands.terminal import (
    ColumnsOption,
    JudgedDataOption,
    LabelCutOption,
    LabelsOption,
    ReplaceOption,
    SkipOption,
    counted,
    out,
    percent,
    plain,
    print_conclusion,
    print_report,
    print_skipped,
    print_verdict,
    progress_bar,
    quiet,
    shown_path,
)
from qpairs.core.exceptions import UserError
from qpairs.core.files import write_text
from qpairs.core.progress import OnProgress, Progress
from qpairs.core.tables import check_table_path
from qpairs.data.question_file import QuestionFile

if TYPE_CHECKING:
    from qpairs.data.pairs import Pairs
    from qpairs.models.base import Model


SearchOption = functools.partial(typer.Option, rich_help_panel="Retrieval")
AttackOption = functools.partial(typer.Option, rich_help_panel="Robustness")
AttackVectorsOption = Annotated[
    str,
    AttackOption(
        help="Word vectors for attacks, to also swap a word for a nearest one: glove, or a file; check what is found."
    ),
]
RetrievalOption = Annotated[
    Path | None,
    SearchOption(
        help="Table with columns query and relevant (an id in --corpus), optionally grade: evaluate the search. "
        "Without --data, nothing else is evaluated."
    ),
]


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a checkpoint or an export.")],
    data: JudgedDataOption = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report to this file.")] = None,
    overwrite: ReplaceOption = False,
    columns: ColumnsOption = "",
    labels: LabelsOption = "",
    label_cut: LabelCutOption = None,
    skip_bad_rows: SkipOption = False,
    perturb: Annotated[
        str, AttackOption(help="Change questions by rule, and count wrong decisions: kinds with commas, or all.")
    ] = "",
    attack: Annotated[
        int | None,
        AttackOption(min=1, help="Correctly decided pairs to attack: search rewordings that flip the decision."),
    ] = None,
    attack_vectors: AttackVectorsOption = "",
    intents: Annotated[
        Path | None,
        typer.Option(help="Table with columns question and intent: duplicates are the questions of one intent."),
    ] = None,
    retrieval: RetrievalOption = None,
    corpus: Annotated[Path | None, SearchOption(help="Texts that --retrieval searches, with their ids.")] = None,
    id_column: Annotated[str, SearchOption(help="Column of the ids in --corpus; without it, id or the row.")] = "",
    text_column: Annotated[str, SearchOption(help="Column of the texts in --corpus.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap, the changes and the attacks.")] = 0,
) -> None:
    """Evaluate a checkpoint or an export on labelled pairs, at its own threshold; or its search, on queries."""
    if (retrieval is None) != (corpus is None):
        raise UserError("evaluate: --retrieval and --corpus go together: the queries, and the texts that are searched")
    if json_file:
        check_file(json_file, overwrite=overwrite, option="--json")
    named = NamedPairs(data or (), columns, labels, label_cut, skip_bad_rows)
    with quiet(), progress_bar() as on_progress:
        from qpairs.data.perturbations import kinds_of
        from qpairs.models.base import load as load_model

        probes = _Probes(kinds_of(perturb) if perturb else [], attack or 0, attack_vectors, intents, seed)
        model = load_model(checkpoint)
        judged, result = None, dict[str, Any]()
        if data or not retrieval:
            judged = judged_pairs(model, named, "evaluate")
            result = _judge(model, judged.pairs, probes, on_progress)
        if retrieval and corpus:
            texts = QuestionFile(corpus, text_column, id_column, skip_bad_rows)
            result["search"] = _search(model, retrieval, texts, seed, on_progress)
    if json_file:
        about = {"checkpoint": str(checkpoint), "data": data or ([judged.source] if judged else [])}
        write_text(json_file, json.dumps({**about, **result}, indent=1) + "\n")
    if judged:
        print_skipped(judged.pairs)
        _print_judged(model, result, probes.kinds, judged.source if not data else "pairs")
        conclusion = after_evaluate(result, checkpoint, named, pairs_of_run(model.config))
    else:
        conclusion = after_search(result["search"]["scores"])
    if "search" in result:
        print_search(result["search"])
    out.print()
    print_conclusion(conclusion)


def _search(model: Model, queries: Path, texts: QuestionFile, seed: int, on_progress: OnProgress) -> dict[str, Any]:
    """The scores of a retrieval set as plain values."""
    from qpairs.evaluation.search_set import evaluate_search, read_search_set

    found = read_search_set(queries, texts.path, **texts.options)
    return evaluate_search(model, found, seed=seed, on_progress=on_progress).to_dict()


@dataclass(frozen=True)
class _Probes:
    """What is evaluated besides the verdict on labelled pairs; each as the option of that name."""

    kinds: list[str]
    attack: int
    attack_vectors: str
    intents: Path | None
    seed: int


def _judge(model: Model, pairs: Pairs, asked: _Probes, on_progress: OnProgress) -> dict[str, Any]:
    """The report on labelled pairs as plain values, with the further evaluations that were asked for."""
    from qpairs.evaluation.attack import attack
    from qpairs.evaluation.evaluate import evaluate as run
    from qpairs.evaluation.robustness import probe

    how: Any = {"seed": asked.seed, "on_progress": on_progress}
    result = run(model, pairs, intents=asked.intents, **how).to_dict()
    if asked.kinds:
        on_progress(Progress("changing questions"))
        result["perturbations"] = [found.to_dict() for found in probe(model, pairs, asked.kinds, seed=asked.seed)]
    if asked.attack:
        result["attack"] = attack(model, pairs, asked.attack, vectors=asked.attack_vectors, **how).to_dict()
    return result


def _print_judged(model: Model, result: Mapping[str, Any], kinds: list[str], what: str) -> None:
    from qpairs.encoders.build import encoder_note, tower_names
    from qpairs.models.verdict import score_name, score_names

    print_report(
        result, "pairs" if what == "pairs" else f"pairs: {shown_path(what)}", note=encoder_note(model.config.encoder)
    )
    if result["seen_in_training"] is None:
        out.print(
            "[dim]Whether these questions were in training is unknown: the training pairs are not in files here.[/]"
        )
    if result["shift"]["statistic"] is None:
        names = score_names(model.verdict.score)
        out.print(f"[dim]Shift unknown: the model does not store the {names} on which its threshold was chosen.[/]")
    _print_slices(result["slices"])
    if kinds:
        ignores_order = model.verdict.score in ("cosine", "head") and "static" in tower_names(model.config.encoder)
        print_behaviour(result["perturbations"], kinds, ignores_order, score_name(model.verdict.score))
    if "attack" in result:
        print_attack(result["attack"], score_name(model.verdict.score))


def _print_slices(slices: list[Mapping[str, Any]]) -> None:
    table = Table(title="\nBy kind of pair", title_justify="left", box=None, pad_edge=False)
    for column in ("", "pairs", "duplicates", "F1", "precision", "recall"):
        table.add_column(column, justify="right" if column else "left")
    for s in slices:
        values = (f"{s[name]:.3f}" for name in ("f1", "precision", "recall"))
        table.add_row(s["name"], f"{s['n']:,}", percent(s["duplicates"]), *values)
    out.print(table)


def predict(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a checkpoint or an export.")],
    questions: Annotated[list[str], typer.Argument(help="Two questions, or one file of pairs.")],
    output: Annotated[
        Path | None, typer.Option(help="File for the scored pairs: .csv, .tsv, .jsonl or .parquet.")
    ] = None,
    columns: ColumnsOption = "",
    threshold: Annotated[
        float | None,
        typer.Option(help="Lowest score of a duplicate  [default: the model's]", show_default=False),
    ] = None,
    precision: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Use the lowest threshold above which pairs like those of validation have this precision, with 95 % "
            "confidence.",
            show_default=False,
        ),
    ] = None,
    skip_bad_rows: SkipOption = False,
    overwrite: ReplaceOption = False,
) -> None:
    """Predict for two questions, or for each pair in a file, whether they ask the same."""
    chosen: Any = {"threshold": threshold, "precision": precision}
    if len(questions) == 2:
        _predict_two(checkpoint, questions[0], questions[1], chosen)
        return
    if len(questions) != 1:
        raise UserError(f"predict: give two questions, or one file of pairs, not {len(questions)} arguments")
    if output is None:
        from qpairs.data.sources import NAMED_SOURCES

        if not (Path(questions[0]).is_file() or questions[0] in ("sample", *NAMED_SOURCES)):
            what = "a folder" if Path(questions[0]).is_dir() else "no such file"
            raise UserError(f"predict: {questions[0]}: {what}; give two questions, or one file of pairs and --output")
        raise UserError("predict: name the file for the scored pairs with --output")
    with quiet(), progress_bar() as on_progress:
        from qpairs.evaluation.predict import predict_file
        from qpairs.models.base import load as load_model

        on_progress(Progress("scoring"))
        check_table_path(output)
        check_file(output, overwrite=overwrite)
        model = load_model(checkpoint)
        named = split_columns(columns)
        more: Any = {"columns": named, "skip_bad_rows": skip_bad_rows, **chosen}
        predicted = predict_file(model, questions[0], output, **more, on_progress=on_progress)
        found = predicted.duplicate
    if predicted.pairs and predicted.pairs.skipped:
        counts = ", ".join(f"{n:,} {plain(reason)}" for reason, n in predicted.pairs.skipped.items())
        out.print(f"rows without a result, copied unchanged: {counts}")
    out.print(
        f"{counted(len(found), 'pair')}, {int(found.sum()):,} called duplicates ({percent(float(found.mean()))}), "
        f"written to {shown_path(output)}",
        soft_wrap=True,
    )
    print_conclusion(_true_of(model, checkpoint), style="dim")


def _predict_two(checkpoint: Path, first: str, second: str, chosen: Mapping[str, Any]) -> None:
    with quiet(), progress_bar():
        from qpairs.data.pairs import pairs_from_texts
        from qpairs.evaluation.predict import predict as run
        from qpairs.models.base import load as load_model
        from qpairs.models.verdict import score_name

        if not (first.strip() and second.strip()):
            raise UserError("predict: a question is empty")
        model = load_model(checkpoint)
        found = run(model, pairs_from_texts([first], [second], [-1]), **chosen)
    figures = float(found.similarity[0]), float(found.probability[0]), bool(found.duplicate[0])
    own = all(value is None for value in chosen.values())
    print_verdict(score_name(model.verdict.score), *figures, float(found.threshold or 0.0), own=own)
    print_conclusion(_true_of(model, checkpoint), style="dim")


def _true_of(model: Model, checkpoint: Path) -> Conclusion:
    """For which pairs the probabilities hold, and what to do for others."""
    setting = model.verdict.pair
    if not model.verdict.labelled:
        return Conclusion(
            "Probabilities need labelled pairs; a few dozen give them, and a threshold:",
            (("calibrate", checkpoint, "--data", LABELLED, "--output", "here"),),
        )
    if setting.calibration.slope <= 0:
        return Conclusion(
            "The probability is the same for every pair: in the pairs that it was fitted to, duplicates do not score "
            "higher."
        )
    return Conclusion(
        f"The probability is that {setting.precision_of}; for other pairs, fit it to a few dozen labelled ones:",
        (("calibrate", checkpoint, "--data", LABELLED, "--output", "here"),),
    )
