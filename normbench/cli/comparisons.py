"""Prints the answer of `compare`."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from normbench.cli.tables import print_table, text_width

if TYPE_CHECKING:
    from normbench.verdicts.comparisons import Comparison


def save(comparison: "Comparison", results: Path) -> list[Path]:
    """Write a comparison and its figures in a folder of `results`; return the files.

    If a file cannot be written, a warning is printed, so that the answer of long runs
    is printed in any case.
    """
    from normbench.api import comparing
    from normbench.errors import NormbenchError

    try:
        return comparing.save(comparison, results)
    except NormbenchError as error:
        typer.echo(f"warning: the answer is not saved: {error}", err=True)
        return []


def print_comparison(
    comparison: "Comparison", files: list[Path], *, details: bool
) -> None:
    """Print the notes, the table and the files; the last lines are the answers."""
    from normbench.report.text.comparison import shown
    from normbench.report.text.paragraph import paragraph
    from normbench.report.text.ranking import ranking_text
    from normbench.report.text.verdict import details_text

    width = text_width()
    if comparison.ranking is not None:
        _print_files(files, width)
        typer.echo("")
        typer.echo(ranking_text(comparison.ranking, width))
        return
    view = shown(comparison)
    for note in view.notes:
        typer.echo(paragraph("note: ", note, width))
    typer.echo(paragraph("", view.title, width))
    typer.echo("")
    typer.echo("mean [95% interval] over the seeds:")
    print_table(view.rows, title="")
    if details and comparison.verdict is not None:
        typer.echo("")
        typer.echo(details_text(comparison.verdict, width))
    typer.echo("")
    _print_files(files, width)
    typer.echo("")
    for answer in view.answers:
        typer.echo(paragraph("", answer, width))


def _print_files(files: list[Path], width: int) -> None:
    if not files:
        return
    from normbench.report.text.paragraph import paragraph

    names = ", ".join(file.name for file in files)
    typer.echo(paragraph("saved: ", f"{files[0].parent} ({names})", width))
    typer.echo(paragraph("", "`normbench report` shows all comparisons.", width))
