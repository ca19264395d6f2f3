"""A report on disk: the page, and beside it the figures as files."""

from pathlib import Path

from matplotlib.figure import Figure

from normbench.errors import RequestError
from normbench.report.figures import verdict_figures
from normbench.report.figures.palette import colour
from normbench.report.page.material import Material
from normbench.report.page.page import Page, render
from normbench.system.atomic import write_atomically


def write(material: Material, output: Path, folder: Path) -> tuple[Page, list[Path]]:
    """Write the page to `output`, whole or not at all, and its figures to `folder`.

    Returns the page and the files of the figures. Raises RequestError where either
    cannot be written; the page comes first.
    """
    drawn = _figures(material)
    inline = {
        claim: {name: verdict_figures.svg(figure) for name, figure in named.items()}
        for claim, named in drawn.items()
    }
    norms = sorted({each.config.norm.name for each in material.records})
    page = render(material, inline, {norm: colour(norm) for norm in norms})
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, page.html)
    except OSError as error:
        raise RequestError(
            f"--output {output} cannot be written: {error.strerror}; name a file in a "
            "folder that can"
        ) from None
    files = []
    for claim, named in drawn.items():
        for name, figure in named.items():
            # A name is a verdict's own, and may have come from anywhere.
            stem = f"{claim}-{name}".replace("/", "-")
            files += verdict_figures.save(figure, folder / stem)
    return page, files


def _figures(material: Material) -> dict[str, dict[str, Figure]]:
    """Of every verdict, by claim and name; without the yaml where that has changed."""
    return {
        one.name: verdict_figures.of_verdict(
            one.verdict, None if one.changed else one.claim
        )
        for one in material.told
        if one.verdict is not None
    }
