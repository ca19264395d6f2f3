"""The command that applies a trained style network: stylize."""

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from normbench.cli.options import RESULTS, Json, Modules, Results, exit_codes, expanded


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

    Each is written as a PNG of the size of the input, upright as its EXIF orientation
    says. All are read before the first is written.
    """
    with exit_codes():
        from normbench.config.user_modules import import_modules, require_modules
        from normbench.records import store
        from normbench.training import stylization as styling

        finished, folder = store.finished(results, run)
        require_modules(finished, module or ())
        import_modules(module or ())
        written = []
        for target in styling.redrawn(finished, folder, images, output_dir, style):
            written.append(target)
            if not json:
                typer.echo(target)
        if json:
            plain = [
                {"image": str(image), "file": str(target)}
                for image, target in zip(images, written, strict=True)
            ]
            typer.echo(jsonlib.dumps(plain, indent=2))
