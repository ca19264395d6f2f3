"""The command `stylize`, which applies a trained style network to pictures."""

from pathlib import Path
from typing import Annotated

import typer

from normbench.cli.options import (
    RESULTS,
    Json,
    Modules,
    Results,
    RunId,
    exit_codes,
    expanded,
    path_option,
)
from normbench.cli.tables import print_json

Images = Annotated[
    list[Path],
    typer.Argument(metavar="IMAGE", callback=expanded, help="Pictures of any size."),
]
OutputDir = Annotated[
    Path,
    path_option("--output-dir", "Folder of the new pictures, IMAGE-RUN_ID-STYLE.png."),
]
Style = Annotated[
    int,
    typer.Option(
        metavar="INDEX", min=0, help="Index of the style, if the run has several."
    ),
]


def stylize(
    run: RunId,
    images: Images,
    output_dir: OutputDir = Path("stylized"),
    style: Style = 0,
    results: Results = RESULTS,
    module: Modules = None,
    json: Json = False,
) -> None:
    """Apply a trained style network to your own pictures.

    Each new picture is a PNG of the same size as the original, rotated according to its
    EXIF orientation. All pictures are read before the first one is written.
    """
    with exit_codes():
        from normbench.config.user_modules import require_modules
        from normbench.records import store
        from normbench.system.imports import import_modules
        from normbench.training import stylization

        record, folder = store.find_record(results, run)
        require_modules(record, module or ())
        import_modules(module or ())
        files = []
        for file in stylization.stylize_files(
            record, folder, images, output_dir, style
        ):
            files.append(file)
            if not json:
                typer.echo(file)
        if json:
            pairs = zip(images, files, strict=True)
            print_json([{"image": str(i), "file": str(f)} for i, f in pairs])
