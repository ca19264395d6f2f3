"""The command that applies a trained style network: stylize."""

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from normbench.cli.options import RESULTS, Json, Modules, Results, exit_codes


def stylize(
    run: Annotated[str, typer.Argument(metavar="RUN_ID", help="Or its beginning.")],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Pictures of any size.")
    ],
    output_dir: Annotated[
        Path, typer.Option(help="Folder for the pictures: IMAGE-RUN_ID-STYLE.png.")
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
        from collections import Counter

        from normbench import record
        from normbench import stylize as styling
        from normbench.errors import NormbenchError, RequestError
        from normbench.provenance import import_modules

        folder = record.find(results, run)
        finished = record.read(folder)
        if finished is None:
            raise RequestError(f"run {run} in {results} has not finished")
        import_modules(module or list(finished.environment.modules))
        known = styling.styles(finished)
        if style >= known:
            raise RequestError(
                f"--style {style}: run {finished.run_id} has "
                + (f"{known} styles, 0 to {known - 1}" if known > 1 else "one style, 0")
            )
        names = [f"{p.stem}-{finished.run_id[:8]}-{style}.png" for p in images]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise RequestError(
                f"several pictures would be written to {twice[0]}; rename one, or do "
                "them one by one"
            )
        model = styling.load(finished, folder)
        for image in images:
            styling.require_picture(image)
        targets = [output_dir / name for name in names]
        try:
            output_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(
                f"--output-dir {output_dir} cannot be a folder: {error.strerror}"
            ) from None
        try:
            for image, target in zip(images, targets, strict=True):
                styling.stylize(model, image, target, style)
                if not json:
                    typer.echo(target)
        except OSError as error:
            raise NormbenchError(
                f"--output-dir {output_dir} cannot be written: {error.strerror}"
            ) from None
        if json:
            plain = [
                {"image": str(image), "file": str(target)}
                for image, target in zip(images, targets, strict=True)
            ]
            typer.echo(jsonlib.dumps(plain, indent=2))
