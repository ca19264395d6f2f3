"""The command `stylize`, which applies a trained style network."""

from pathlib import Path
from typing import Annotated

import typer

from normbench.cli.options import RESULTS, Json, Modules, Results, exit_codes, expanded
from normbench.cli.tables import print_json


def stylize(
    run: Annotated[str, typer.Argument(metavar="RUN_ID", help="Or its beginning.")],
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE...", callback=expanded, help="Pictures of any size."
        ),
    ],
    output_dir: Annotated[
        Path,
        typer.Option(
            callback=expanded,
            help="Folder for the pictures: IMAGE-RUN_ID-STYLE.png.",
        ),
    ] = Path("stylized"),
    style: Annotated[
        int, typer.Option(min=0, help="Which of the run's styles, from 0.")
    ] = 0,
    results: Results = RESULTS,
    module: Modules = None,
    json: Json = False,
) -> None:
    """Redraw your own pictures with a trained network of the style task.

    Every picture becomes a PNG of the size of the input, turned as its EXIF orientation
    says. All pictures are read before the first one is written.
    """
    with exit_codes():
        from normbench.config.user_modules import import_modules, require_modules
        from normbench.records import store
        from normbench.training import stylization

        finished, folder = store.finished(results, run)
        require_modules(finished, module or ())
        import_modules(module or ())
        written = []
        for target in stylization.stylize_files(
            finished, folder, images, output_dir, style
        ):
            written.append(target)
            if not json:
                typer.echo(target)
        if json:
            pairs = zip(images, written, strict=True)
            print_json([{"image": str(i), "file": str(f)} for i, f in pairs])
