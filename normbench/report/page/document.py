"""Writing a report: one HTML page, and a folder with its figures as files."""

from pathlib import Path

from normbench.errors import RequestError
from normbench.report.figures import drawing
from normbench.report.figures.comparison import comparison_figures
from normbench.report.figures.palette import colour
from normbench.report.figures.verdict import verdict_figures
from normbench.report.page.material import Material
from normbench.report.page.page import Page, render
from normbench.system.atomic import write_atomically


def write(material: Material, output: Path, folder: Path) -> tuple[Page, list[Path]]:
    """Write the page to `output`, atomically, then its figures to `folder`.

    The package has the figures of its own verdicts as files, so these are not written.
    Returns the page and the files of the figures. Raises RequestError if the page or a
    figure cannot be written.
    """
    figures = {
        # A claim that has changed does not describe the arms of the verdict.
        entry.name: verdict_figures(
            entry.verdict, None if entry.changed else entry.claim, material.records
        )
        for entry in material.claims
        if entry.verdict is not None
    } | {
        name: comparison_figures(comparison, material.records)
        for name, comparison in material.comparisons.items()
    }
    inline = {
        claim: {name: drawing.svg(figure) for name, figure in by_name.items()}
        for claim, by_name in figures.items()
    }
    norms = sorted({record.config.norm.name for record in material.records})
    page = render(material, inline, {norm: colour(norm) for norm in norms})
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, page.html)
    except OSError as error:
        raise RequestError(
            f"--output {output} cannot be written: {error.strerror}; "
            "choose a file in a writable folder"
        ) from None
    files = []
    packaged = {entry.name for entry in material.claims if entry.from_package}
    for claim, by_name in figures.items():
        if claim in packaged:
            continue
        for name, figure in by_name.items():
            # The names are from a verdict, which may be someone else's file.
            stem = f"{claim}-{name}".replace("/", "-")
            files += drawing.save(figure, folder / stem)
    return page, files
