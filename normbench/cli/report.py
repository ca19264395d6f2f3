"""The command `report`, which writes all results to one HTML page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from normbench.cli.options import (
    CLAIMS,
    RESULTS,
    Claims,
    ConfigDir,
    Json,
    Results,
    exit_codes,
    path_option,
)
from normbench.cli.tables import print_json

if TYPE_CHECKING:
    from normbench.report.page.page import Page

Output = Annotated[Path, path_option("--output", "HTML file to write.", metavar="FILE")]
Figures = Annotated[
    Path | None,
    path_option(
        "--figures",
        "Folder to which the figures of your verdicts and comparisons are written, as "
        "SVG and PNG.",
        show_default="the name of the page with -figures",
    ),
]


def report(
    output: Output = Path("report.html"),
    figures: Figures = None,
    open_: Annotated[
        bool, typer.Option("--open", help="Open the page in a browser.")
    ] = False,
    results: Results = RESULTS,
    claims: Claims = CLAIMS,
    config_dir: ConfigDir = None,
    json: Json = False,
) -> None:
    """Write all verdicts, figures and runs to one HTML file.

    The page also shows footprints, pictures of style runs, and failures. It needs no
    internet and no other file, so you can mail it. The verdicts are those in --claims,
    and those of the package for all other claims. The runs are read from --results and
    from the records saved with the verdicts.
    """
    with exit_codes():
        from normbench.errors import RequestError
        from normbench.report.page.document import write
        from normbench.report.page.material import gather

        if results.exists() and not results.is_dir():
            raise RequestError(f"--results {results} is not a folder")
        figures_folder = figures or output.with_name(f"{output.stem}-figures")
        material = gather(results, claims, config_dir)
        count = sum(entry.verdict is not None for entry in material.claims)
        typer.echo(f"drawing the figures of {count} verdicts", err=True)
        page, files = write(material, output, figures_folder)
        for error in (*material.damaged, *page.packed.unreadable):
            typer.echo(f"left out: {error}", err=True)
        left_out = _left_out(page)
        packaged = sum(entry.from_package for entry in material.claims)
        size = output.stat().st_size
        if json:
            plain = {
                "report": str(output),
                "bytes": size,
                "figures": [str(file) for file in files],
                "claims": len(material.claims),
                "verdicts_from_package": packaged,
                "runs": len(material.records),
                "left_out": left_out,
            }
            print_json(plain)
        else:
            of_verdicts = len(material.records) - len(material.folders)
            typer.echo(
                f"wrote {output}: {len(material.folders)} runs in {results}, "
                f"{of_verdicts} of verdicts, {size / 2**20:.1f} MiB; "
                f"{len(files)} figures in {figures_folder}"
            )
            if packaged:
                typer.echo(f"note: verdicts of the package: {packaged}", err=True)
            for kind, count in left_out.items():
                if count:
                    typer.echo(f"note: {count} {kind.replace('_', ' ')}", err=True)
        if open_:
            typer.launch(output.absolute().as_uri())


def _left_out(page: "Page") -> dict[str, int]:
    """Count what the page shows only in part or not at all, by kind."""
    return {
        "curves_thinned": page.packed.thinned,
        "histories_unreadable": len(page.packed.unreadable),
        "pictures_left_out": page.gallery.left_out,
        "pictures_unreadable": len(page.gallery.unreadable),
    }
