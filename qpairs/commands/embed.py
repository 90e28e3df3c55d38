"""`qpairs embed` and `push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qpairs.commands.conclusions import after_embed
from qpairs.commands.engines import EngineOption, RayAddressOption, check_engine
from qpairs.commands.search import IdColumnOption, TextColumnOption
from qpairs.commands.terminal import (
    ModelArgument,
    OverwriteOption,
    SkipOption,
    counted,
    out,
    plain,
    print_conclusion,
    print_left_out,
    print_saved,
    progress_bar,
    quiet,
    shown_path,
)


def embed(
    checkpoint: ModelArgument,
    questions: Annotated[Path, typer.Argument(help="Questions: .csv .tsv .jsonl .parquet, or .txt with one per line.")],
    output: Annotated[Path, typer.Option(help="Folder of the embeddings: manifest.json and shards/*.parquet.")],
    text_column: TextColumnOption = "",
    id_column: IdColumnOption = "",
    dtype: Annotated[str, typer.Option(help="float32, float16 or int8 (with a scale for each vector).")] = "float32",
    dim: Annotated[
        int | None,
        typer.Option(
            help="Truncate the vectors to this length; a model trained with --dims has a verdict for each of its "
            "lengths, others lose accuracy.",
            show_default=False,
        ),
    ] = None,
    side: Annotated[str, typer.Option(help="Which of two towers encodes: left or right.")] = "left",
    shard_size: Annotated[int, typer.Option(help="Questions in a shard.")] = 50_000,
    skip_bad_rows: SkipOption = False,
    overwrite: OverwriteOption = False,
    engine: EngineOption = "plain",
    ray_address: RayAddressOption = "",
) -> None:
    """Embed a file of questions into Parquet shards; after an interruption, the same command continues."""
    check_engine(engine)
    with quiet(), progress_bar() as on_progress:
        from qpairs.retrieval.embed import embed as run
        from qpairs.retrieval.executors import executor_of

        result = run(
            checkpoint,
            questions,
            output,
            text_column=text_column,
            id_column=id_column,
            dtype=dtype,  # type: ignore[arg-type]  # checked there
            dimension=dim,
            side=side,  # type: ignore[arg-type]  # likewise
            shard_size=shard_size,
            skip_bad_rows=skip_bad_rows,
            overwrite=overwrite,
            engine=executor_of(engine, ray_address),
            on_progress=on_progress,
        )
    print_left_out(result.skipped)
    size = sum((result.folder / shard.file).stat().st_size for shard in result.shards)
    out.print(
        f"{counted(result.count, 'question')}, {result.distinct:,} distinct: {result.dimension} x {result.plan.dtype}, "
        f"{size / 1e6:,.1f} MB in {counted(len(result.shards), 'shard')}",
        highlight=False,
    )
    print_saved(output, after=", which any Parquet reader reads.")
    print_conclusion(after_embed(checkpoint, output))


def push(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a checkpoint.")],
    name: Annotated[str, typer.Argument(help="OWNER/NAME on the Hugging Face Hub; created if it does not exist.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    dry_run: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the files to this folder instead of uploading them.")
    ] = None,
) -> None:
    """Put a model on the Hugging Face Hub, with a model card: data, threshold, F1 and limits."""
    with quiet(), progress_bar():
        from qpairs.export.hub import CARD, stage
        from qpairs.export.hub import push as run

        if dry_run:
            folder = stage(checkpoint, name, dry_run)
        else:
            address = run(checkpoint, name, private=private)
    if dry_run:
        print_saved(folder, "Written to", f", nothing was uploaded; look at {shown_path(folder / CARD)}.")
    else:
        out.print(f"[bold]{plain(address)}[/]\nChoose a license there: the card sets none.", highlight=False)
