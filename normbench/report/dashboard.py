"""A W&B workspace and a report as code: what they show, and how they are saved.

Needs the extra `dashboard`. Nothing here asks the network for anything but `publish`.
The keys of all panels are ones that `tracking` logs; a test holds the two together.
"""

import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normbench.config.wandb_variables import clean, find_folders
from normbench.errors import NormbenchError, RequestError
from normbench.report import words
from normbench.verdicts.verdict import Verdict

clean(offline=False)
try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
except ImportError:
    raise RequestError(
        "the dashboard needs wandb-workspaces; install it with: "
        "pip install 'normbench[dashboard]'"
    ) from None

TITLE = "normbench: what normalization does"
SECONDS = 20
"""That W&B has to answer."""
HALF, WHOLE = 12, 24
"""Columns of a panel in a report."""
Panel = (
    wr.LinePlot
    | wr.ScatterPlot
    | wr.BarPlot
    | wr.MediaBrowser
    | wr.WeavePanelSummaryTable
)


@dataclass(frozen=True)
class Part:
    """One section of the workspace, and of the report over runs of its own.

    `task` chooses the runs, None all of them; `by` are the config keys that agree in a
    group, of which panels show the mean.
    """

    title: str
    text: str
    task: str | None
    by: tuple[str, ...]
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Dashboard:
    """What is published: built, not saved."""

    parts: tuple[Part, ...]
    workspace: ws.Workspace
    report: wr.Report

    def plain(self) -> dict[str, Any]:
        """The objects as W&B's own client would send them."""
        return {
            "workspace": self.workspace._to_model().model_dump(
                mode="json", by_alias=True, exclude_none=True
            ),
            "report": self.report._to_model().model_dump(
                mode="json", by_alias=True, exclude_none=True
            ),
        }


def dashboard(
    verdicts: Sequence[Verdict], project: str, entity: str | None
) -> Dashboard:
    """The workspace and the report over the runs of a W&B project.

    Without `entity` they can be looked at, and not saved.
    """
    parts = _parts()
    table = verdict_table(verdicts)
    workspace = ws.Workspace(
        entity=entity or "",
        project=project,
        name="normbench",
        sections=[
            ws.Section(
                name="Verdicts", panels=[wr.MarkdownPanel(markdown=table)], is_open=True
            ),
            *(
                ws.Section(name=part.title, panels=[*part.panels], is_open=True)
                for part in parts
            ),
        ],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=100),
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Config("norm.name"), ws.Config("batch_size")]
        ),
    )
    report = wr.Report(
        entity=entity or "",
        project=project,
        title=TITLE,
        description="Built by `normbench dashboard`.",
        width="fluid",
        blocks=[
            wr.H1(text="Verdicts"),
            wr.MarkdownBlock(text=table),
            *(block for part in parts for block in _blocks(part)),
        ],
    )
    return Dashboard(parts, workspace, report)


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """Markdown: theorem, mechanism and outcome of each claim apart."""
    if not verdicts:
        return "No claim has a verdict yet: `normbench claim check` gives one."
    rows = [
        (
            verdict.claim,
            *words.row(verdict),
        )
        for verdict in verdicts
    ]
    head = ("claim", "it says", "theorem", "mechanism", "outcome")
    lines = [head, ("---",) * len(head), *rows]
    table = [f"| {' | '.join(map(_cell, line))} |" for line in lines]
    withdrawn = words.notice(verdicts)
    return "\n".join([withdrawn, "", *table] if withdrawn else table)


def keys(panel: Panel) -> dict[str, list[str]]:
    """The logged keys that a panel shows: config, summary, history or media."""
    match panel:
        case wr.LinePlot():
            return {"history": [*_names([panel.x]), *_names(panel.y)]}
        case wr.ScatterPlot():
            found: dict[str, list[str]] = {}
            for axis in (panel.x, panel.y):
                where = "config" if isinstance(axis, wr.Config) else "summary"
                found.setdefault(where, []).extend(_names([axis]))
            return found
        case wr.BarPlot():
            return {"summary": _names(panel.metrics)}
        case wr.MediaBrowser():
            return {"media": list(panel.media_keys)}
        case wr.WeavePanelSummaryTable():
            return {"summary": [panel.table_name]}


def outline(shown: Dashboard) -> str:
    """What would be published, for people."""
    workspace, report = shown.workspace, shown.report
    where = f"{workspace.entity or '(your own entity)'}/{workspace.project}"
    by = ", ".join(each.name for each in workspace.runset_settings.groupby)
    lines = [f"workspace {workspace.name}, in {where}", f"  runs grouped by {by}"]
    for section in workspace.sections:
        lines += ["", f"  {section.name}", *_described(section.panels)]
    lines += ["", f"report {report.title}, in {where}"]
    for block in report.blocks:
        match block:
            case wr.H1():
                lines += ["", f"  {block.text}"]
            case wr.PanelGrid():
                (runs,) = block.runsets
                grouped = ", ".join(key.removeprefix("config.") for key in runs.groupby)
                chosen = f"runs with {runs.filters}" if runs.filters else "all runs"
                lines.append(f"    {chosen}, grouped by {grouped}")
                lines += _described(block.panels)
            case wr.MarkdownBlock():
                lines += [f"    {line}" for line in block.text.splitlines()]
            case wr.P():
                lines.append(f"    {block.text}")
    return "\n".join(lines)


def publish(
    verdicts: Sequence[Verdict], project: str, entity: str | None
) -> dict[str, str]:
    """Save the workspace and the report, as new ones; the address of each.

    Raises NormbenchError where nobody is logged in, where W&B does not answer and where
    it refuses: then neither is there.
    """
    with tempfile.TemporaryDirectory() as spare:
        find_folders(Path(spare))
        return _publish(verdicts, project, entity)


def _publish(
    verdicts: Sequence[Verdict], project: str, entity: str | None
) -> dict[str, str]:
    import wandb

    try:
        if not wandb.login(prompt=False, verify=False):
            raise NormbenchError(
                "not logged in to W&B; run `wandb login`, or set WANDB_API_KEY; "
                "nothing was published"
            )
        owner = entity or wandb.Api(timeout=SECONDS).default_entity
        if owner is None:
            raise NormbenchError(
                "this W&B account has no default entity; name one with --entity"
            )
        shown = dashboard(verdicts, project, owner)
        shown.report.save()  # makes the project, if need be
        try:
            shown.workspace.save()
        except BaseException:
            shown.report.delete()
            raise
        return {"workspace": shown.workspace.url, "report": shown.report.url}
    except NormbenchError:
        raise
    except Exception as error:  # the client raises what it likes
        told = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NormbenchError(
            f"W&B did not take it ({told[:200]}); nothing was published"
        ) from None


def _parts() -> tuple[Part, ...]:
    return (
        Part(
            "Error against batch size",
            "Held-out error of the classifiers. `batch_size` moves the gradient and "
            "the statistics, `norm_batch` the statistics alone.",
            "cnn",
            ("norm.name", "batch_size", "norm_batch"),
            (
                _scatter("batch_size", "test/error", log=True),
                _scatter("norm_batch", "test/error", log=True),
                _scatter("batch_size", "test_batch/error", log=True),
                _scatter("batch_size", "test_recomputed/error", log=True),
            ),
        ),
        Part(
            "Training",
            "Mean and standard deviation over the runs of a group.",
            None,
            ("norm.name", "batch_size"),
            (
                _line("train/batch_loss", log=True),
                _line("val/loss", log=True),
                _line("val/error"),
                _line("lr"),
            ),
        ),
        Part(
            "Pads",
            "The Transformer over padded sequences: what pads do to an outcome, and, "
            "for runs with the probe `pad_statistics`, to the statistics.",
            "transformer",
            ("norm.name", "task.padding", "task.long_batches", "task.zero_pads"),
            (
                _scatter("task.long_batches", "test/error"),
                _scatter("task.long_batches", "test_batch/error"),
                _scatter("task.long_batches", "pad_statistics/shift"),
                _scatter("task.long_batches", "pad_statistics/scale_spread"),
                _line("val/error"),
            ),
        ),
        Part(
            "Styles",
            "Crops and styles above, each crop in its style below.",
            "style",
            ("norm.name",),
            (
                wr.MediaBrowser(
                    title="stylised",
                    media_keys=["stylised"],
                    num_columns=1,
                    layout=wr.Layout(w=WHOLE, h=12),
                ),
                _bar("test/loss"),
                _bar("test/style"),
            ),
        ),
        Part(
            "Runs",
            "Every run, one row each.",
            None,
            ("norm.name",),
            (
                wr.WeavePanelSummaryTable(
                    table_name="results", layout=wr.Layout(w=WHOLE, h=12)
                ),
            ),
        ),
    )


def _scatter(x: str, y: str, *, log: bool = False) -> wr.ScatterPlot:
    return wr.ScatterPlot(
        title=f"{y} by {x}",
        x=wr.Config(x),
        y=wr.SummaryMetric(y),
        log_x=log,
        layout=wr.Layout(w=HALF, h=8),
    )


def _line(y: str, *, log: bool = False) -> wr.LinePlot:
    return wr.LinePlot(
        title=f"{y} by epoch",
        x="epoch",
        y=[y],
        log_y=log,
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
        max_runs_to_show=100,
        layout=wr.Layout(w=HALF, h=8),
    )


def _bar(metric: str) -> wr.BarPlot:
    return wr.BarPlot(
        title=metric,
        metrics=[wr.SummaryMetric(metric)],
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
        layout=wr.Layout(w=HALF, h=8),
    )


def _blocks(part: Part) -> Iterator[wr.H1 | wr.P | wr.PanelGrid]:
    yield wr.H1(text=part.title)
    yield wr.P(text=part.text)
    chosen = "" if part.task is None else f"JobType = '{part.task}'"
    # Without an entity and a project the runs are those of the report's own.
    runs = wr.Runset(
        name=part.title, filters=chosen, groupby=[f"config.{key}" for key in part.by]
    )
    yield wr.PanelGrid(runsets=[runs], panels=[*part.panels])


def _described(panels: Iterable[Any]) -> Iterator[str]:
    for panel in panels:
        match panel:
            case wr.MarkdownPanel():
                yield from (f"    {line}" for line in panel.markdown.splitlines())
            case wr.LinePlot():
                y, scale = ", ".join(_names(panel.y)), ", log y" * bool(panel.log_y)
                yield f"    lines    {y} by {panel.x}{scale}: mean and deviation"
            case wr.ScatterPlot():
                x, y = _names([panel.x, panel.y])
                yield f"    scatter  {y} by {x}{', log x' * bool(panel.log_x)}"
            case wr.BarPlot():
                yield f"    bars     {', '.join(_names(panel.metrics))}"
            case wr.MediaBrowser():
                yield f"    images   {', '.join(panel.media_keys)}"
            case wr.WeavePanelSummaryTable():
                yield f"    table    {panel.table_name}"


def _names(metrics: Iterable[Any]) -> list[str]:
    return [each if isinstance(each, str) else each.name for each in metrics]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
