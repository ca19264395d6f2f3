"""The figures of a verdict: the means of its cells, and its contrasts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from matplotlib.figure import Figure

from normbench import stats
from normbench.config.schema import RunRecord
from normbench.report.figures import titles
from normbench.report.figures.cells import Content, Panel, cells_figure
from normbench.report.figures.drawing import style
from normbench.report.figures.forest import forest
from normbench.report.figures.layout import Texts
from normbench.report.figures.names import (
    arm_names,
    level_key,
    level_names,
    norm_of,
    norm_words,
)
from normbench.report.figures.notes import in_words, notes
from normbench.report.figures.palette import look
from normbench.report.figures.seeds import SeedRuns
from normbench.report.figures.series import Point, Series, styled_series
from normbench.report.figures.titles import Head
from normbench.report.figures.units import quantity
from normbench.report.published import Published, published_for
from normbench.verdicts.conditions import USES_OTHER_SAMPLES
from normbench.verdicts.design import Design, arm_of, level_of
from normbench.verdicts.registration import Claim
from normbench.verdicts.summaries import CellSummary
from normbench.verdicts.verdict import DesignVerdict, Verdict


def verdict_figures(
    verdict: Verdict, claim: Claim | None = None, records: Iterable[RunRecord] = ()
) -> dict[str, Figure]:
    """Draw two figures of each design: NAME with its cells, and NAME-contrasts.

    Leaves out figures that would be empty. The registered `claim` gives arms and levels
    in words; without it, they have their names, and the name of an arm determines its
    colour. `records` are the runs of the verdict: those that are known are drawn as
    dots beside the means.
    """
    registered = claim.designs() if claim else {}
    runs = SeedRuns(records, verdict.run_ids)
    figures: dict[str, Figure] = {}
    with style():
        for design in verdict.designs:
            own = registered.get(design.name)
            head = titles.claim_head(design, own, verdict)
            figures |= design_figures(design, own, verdict, runs, head)
    return figures


def design_figures(
    design: DesignVerdict,
    registered: Design | None,
    verdict: Verdict,
    runs: SeedRuns,
    head: Head,
) -> dict[str, Figure]:
    """Draw the figures of one design that `verdict_figures` draws of each."""
    figures = {}
    if cells := _cells(design, registered, verdict, runs, head):
        figures[design.name] = cells
    if any(contrast.effect is not None for contrast in design.contrasts):
        drawn = forest(design, registered, verdict.alpha, head)
        figures[f"{design.name}-contrasts"] = drawn
    return figures


def _cells(
    design: DesignVerdict,
    registered: Design | None,
    verdict: Verdict,
    runs: SeedRuns,
    head: Head,
) -> Figure | None:
    primary_first = sorted(design.contrasts, key=lambda contrast: not contrast.primary)
    metrics = dict.fromkeys(contrast.metric for contrast in primary_first)
    panels = [
        Panel(quantity(metric), series, metric)
        for metric in metrics
        if (series := cell_series(design, registered, metric, verdict.alpha, runs))
    ]
    if not panels:
        return None
    levels = _unique(design.cells, level_of)
    points = [p for panel in panels for s in panel.series for p in s.points.values()]
    seeds = any(point.seeds for point in points)
    lines = [
        head.scope,
        titles.cells_legend(design.cells, verdict.alpha, seeds=seeds),
    ]
    remarks = list(notes(design, verdict, _cell_names(design, registered)))
    if cut := _cut(panels):
        remarks.append(cut)
    texts = Texts(
        name=head.name,
        title=head.title,
        lead=head.lead,
        subtitle="\n".join(line for line in lines if line),
        notes="\n".join([*remarks, head.source]),
        description="\n".join(
            [*in_words([(p.quantity, p.series) for p in panels]), *remarks]
        ),
    )
    name = design.name.removesuffix(f"-{design.data}")
    panels += _published_panels(published_for(verdict.claim, name), panels[0].series)
    content = Content(design, registered, panels, levels, texts)
    return cells_figure(content)


def _cut(panels: Sequence[Panel]) -> str:
    """Return a note if an interval would leave the range of its metric."""
    limits = {
        panel.quantity.words: "0" if panel.quantity.high is None else "0 % or 100 %"
        for panel in panels
        for series in panel.series
        for point in series.points.values()
        if {point.low, point.high} & {panel.quantity.low, panel.quantity.high} - {None}
    }
    texts = (f"intervals of the {name} end at {end}" for name, end in limits.items())
    return "; ".join(texts).capitalize()


def cell_series(
    design: DesignVerdict,
    registered: Design | None,
    metric: str,
    alpha: float,
    runs: SeedRuns,
) -> list[Series]:
    """Return a series of the means of `metric` for each arm that has any."""
    arms = [*(registered.arms if registered else ()), *_unique(design.cells, arm_of)]
    points: dict[str, dict[str, Point]] = {arm: {} for arm in arms}
    unit = quantity(metric)
    for cell in design.cells:
        if metric in cell.mean:
            point = _point(cell, metric, alpha, runs.values(cell, metric))
            points[arm_of(cell.cell)][level_of(cell.cell)] = point.drawn(unit)
    norms = {arm: norm_of(arm, registered) for arm in arms}
    names = arm_names(registered, arms)
    by_norm_batch = level_key(registered) == "norm_batch"
    return [
        replace(
            series,
            label=names[series.label],
            across=by_norm_batch
            and len(series.points) == 1
            and norms[series.label] not in USES_OTHER_SAMPLES,
        )
        for series in styled_series(points, norms)
        if series.points
    ]


def _point(
    cell: CellSummary, metric: str, alpha: float, seeds: Sequence[float]
) -> Point:
    mean, sd = cell.mean[metric], cell.sd.get(metric)
    if sd is None or cell.n < 2:
        return Point(mean, seeds=seeds)
    half_width = stats.half_width(sd, cell.n, 1 - alpha)
    return Point(mean, mean - half_width, mean + half_width, seeds)


def _unique(cells: Sequence[CellSummary], part: Callable[[str], str]) -> list[str]:
    """Return the arms or the levels of cells, each once, in their order."""
    return list(dict.fromkeys(part(cell.cell) for cell in cells))


def _cell_names(design: DesignVerdict, registered: Design | None) -> Mapping[str, str]:
    """Return each cell in words."""
    arms = arm_names(registered, _unique(design.cells, arm_of))
    levels = level_names(registered, _unique(design.cells, level_of))
    names = {}
    for cell in design.cells:
        arm, level = arms[arm_of(cell.cell)], levels[level_of(cell.cell)]
        names[cell.cell] = arm if level == "-" else f"{arm} at {level}"
    return names


def _published_panels(
    sources: Sequence[Published], ours: Sequence[Series]
) -> list[Panel]:
    """Return a panel with all published series, which have hollow markers."""
    if not sources:
        return []
    all_series = []
    lines = (":", "--", "-.")
    error = quantity("top-1/error")
    for index, source in enumerate(sources):
        for name, values in source.series.items():
            points = {
                level: Point(value).drawn(error) for level, value in values.items()
            }
            all_series.append(
                Series(
                    f"{norm_words(name)}, {source.source}",
                    look(name)._replace(line=lines[index % len(lines)]),
                    points,
                    hollow=True,
                )
            )
    title = "\n".join(f"published: {s.source}, {s.what}" for s in sources)
    return [Panel(error, all_series, title=title)]
