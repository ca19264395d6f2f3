"""The command that writes everything to one page: report."""

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
    expanded,
)
from normbench.cli.tables import print_json

if TYPE_CHECKING:
    from normbench.report.page.page import Page


Figures = Annotated[
    Path | None,
    typer.Option(
        "--figures",
        callback=expanded,
        metavar="DIR",
        help="Folder of the figures, as SVG and PNG.  [default: beside the page, "
        "its name and -figures]",
        show_default=False,
    ),
]


def report(
    output: Annotated[
        Path,
        typer.Option("--output", callback=expanded, metavar="FILE", help="The page."),
    ] = Path("report.html"),
    figures: Figures = None,
    open_: Annotated[
        bool, typer.Option("--open", help="Show it in the browser.")
    ] = False,
    results: Results = RESULTS,
    claims: Claims = CLAIMS,
    config_dir: ConfigDir = None,
    json: Json = False,
) -> None:
    """Write verdicts, footprints, runs, pictures and failures to one HTML file.

    It needs no network and no other file, and can be mailed. Verdicts are those of
    --claims; runs are those of --results and the records that the verdicts rest on.
    """
    with exit_codes():
        from normbench.errors import RequestError
        from normbench.report.page.document import write
        from normbench.report.page.material import gather

        for option, folder in (("--results", results), ("--claims", claims)):
            if folder.exists() and not folder.is_dir():
                raise RequestError(f"{option} {folder} is not a folder")
        folder = figures or output.with_name(f"{output.stem}-figures")
        material = gather(results, claims, config_dir)
        page, files = write(material, output, folder)
        for error in (*material.damaged, *page.packed.unreadable):
            typer.echo(f"left out: {error}", err=True)
        left_out = _left_out(page)
        size = output.stat().st_size
        if json:
            plain = {
                "report": str(output),
                "bytes": size,
                "figures": [str(file) for file in files],
                "claims": len(material.claims),
                "runs": len(material.records),
                "left_out": left_out,
            }
            print_json(plain)
        else:
            typer.echo(
                f"wrote {output}: {len(material.records)} runs, {size / 2**20:.1f} MiB;"
                f" {len(files)} figures in {folder}"
            )
            for what, amount in left_out.items():
                if amount:
                    typer.echo(f"note: {amount} {what.replace('_', ' ')}", err=True)
        if open_:
            typer.launch(output.absolute().as_uri())


def _left_out(page: "Page") -> dict[str, int]:
    """How much the folder has that the page lacks, or has in part."""
    return {
        "curves_thinned": page.packed.thinned,
        "histories_unreadable": len(page.packed.unreadable),
        "pictures_left_out": page.gallery.left_out,
        "pictures_unreadable": len(page.gallery.unreadable),
    }
