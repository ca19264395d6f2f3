"""A W&B workspace and a report as code, and how they are saved.

Needs the extra `dashboard`. Only `publish` uses the network. The sections are in
`dashboard.yaml`; a test checks that runs log the keys of all panels.
"""

import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from normbench.config.wandb_variables import clean, find_folders
from normbench.errors import NormbenchError, RequestError
from normbench.report import words
from normbench.report.published import read_yaml
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
"""The timeout of W&B's API."""
HALF, WHOLE = {"w": 12, "h": 8}, {"w": 24, "h": 12}
"""Sizes of panels in a report, of 24 columns."""
GROUPS = ("norm.name", "batch_size")
"""The config keys by which the workspace groups runs."""
Drawn = (
    wr.LinePlot
    | wr.ScatterPlot
    | wr.BarPlot
    | wr.MediaBrowser
    | wr.WeavePanelSummaryTable
)


class Panel(BaseModel):
    """One panel: `y`, a key that runs log, by `x`, in a scatter a config key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["scatter", "line", "bar", "images", "table"]
    y: str
    x: str = "epoch"
    log: bool = False

    def keys(self) -> dict[str, list[str]]:
        """The logged keys that it shows: of config, summary, history or media."""
        if self.kind == "scatter":
            return {"config": [self.x], "summary": [self.y]}
        if self.kind == "line":
            return {"history": [self.x, self.y]}
        return {"media" if self.kind == "images" else "summary": [self.y]}

    def text(self) -> str:
        """The panel in a line."""
        match self.kind:
            case "line":
                scale = ", log y" * self.log
                return f"lines    {self.y} by {self.x}{scale}: mean and deviation"
            case "scatter":
                return f"scatter  {self.y} by {self.x}{', log x' * self.log}"
            case "bar":
                return f"bars     {self.y}"
        return f"{self.kind:<8} {self.y}"

    def drawn(self) -> Drawn:
        """The object of W&B's client."""
        spread: Any = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
        title = f"{self.y} by {self.x}"
        match self.kind:
            case "scatter":
                y = wr.SummaryMetric(self.y)
                x = wr.Config(self.x)
                return wr.ScatterPlot(
                    title=title, x=x, y=y, log_x=self.log, layout=wr.Layout(**HALF)
                )
            case "line":
                return wr.LinePlot(
                    title=title,
                    x=self.x,
                    y=[self.y],
                    log_y=self.log,
                    max_runs_to_show=100,
                    layout=wr.Layout(**HALF),
                    **spread,
                )
            case "bar":
                metrics: list[Any] = [wr.SummaryMetric(self.y)]
                return wr.BarPlot(
                    title=self.y, metrics=metrics, layout=wr.Layout(**HALF), **spread
                )
            case "images":
                return wr.MediaBrowser(
                    title=self.y,
                    media_keys=[self.y],
                    num_columns=1,
                    layout=wr.Layout(**WHOLE),
                )
            case "table":
                return wr.WeavePanelSummaryTable(
                    table_name=self.y, layout=wr.Layout(**WHOLE)
                )


class Section(BaseModel):
    """One section of the workspace, and of the report over runs of its own.

    `task` chooses the runs, None all of them; panels show means over the runs that
    agree in the config keys `by`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    text: str
    task: str | None = None
    by: list[str]
    panels: list[Panel]

    @property
    def filters(self) -> str:
        """The runs, as W&B's client writes it."""
        return "" if self.task is None else f"JobType = '{self.task}'"


@dataclass(frozen=True)
class Dashboard:
    """What is published: built, not saved. `table` has the verdicts, as Markdown."""

    table: str
    workspace: ws.Workspace
    report: wr.Report

    def plain(self) -> dict[str, Any]:
        """The objects as W&B's own client would send them."""
        return {
            name: saved._to_model().model_dump(
                mode="json", by_alias=True, exclude_none=True
            )
            for name, saved in (("workspace", self.workspace), ("report", self.report))
        }


@cache
def sections() -> tuple[Section, ...]:
    """All sections but that of the verdicts."""
    return tuple(Section(**section) for section in read_yaml("dashboard.yaml"))


def dashboard(
    verdicts: Sequence[Verdict], project: str, entity: str | None
) -> Dashboard:
    """The workspace and the report over the runs of a W&B project.

    Without `entity` they can be shown but not saved.
    """
    table = verdict_table(verdicts)
    # The workspace places its panels; the report has the same ones, in these places.
    drawn: list[tuple[Section, list[Any]]] = [
        (section, [panel.drawn() for panel in section.panels]) for section in sections()
    ]
    first = ws.Section(
        name="Verdicts", panels=[wr.MarkdownPanel(markdown=table)], is_open=True
    )
    workspace = ws.Workspace(
        entity=entity or "",
        project=project,
        name="normbench",
        sections=[
            first,
            *(
                ws.Section(name=section.title, panels=panels, is_open=True)
                for section, panels in drawn
            ),
        ],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=100),
        runset_settings=ws.RunsetSettings(groupby=[ws.Config(key) for key in GROUPS]),
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
            *(block for section in drawn for block in _blocks(*section)),
        ],
    )
    return Dashboard(table, workspace, report)


def _blocks(
    section: Section, panels: list[Any]
) -> Iterator[wr.H1 | wr.P | wr.PanelGrid]:
    yield wr.H1(text=section.title)
    yield wr.P(text=section.text)
    # Without an entity and a project the runs are those of the report's own.
    runs = wr.Runset(
        name=section.title,
        filters=section.filters,
        groupby=[f"config.{key}" for key in section.by],
    )
    yield wr.PanelGrid(runsets=[runs], panels=panels)


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """Markdown: a row with theorem, mechanism and outcome for each claim."""
    if not verdicts:
        return "No claim has a verdict yet: `normbench claim check` gives one."
    head = ("claim", "it says", "theorem", "mechanism", "outcome")
    rows = [(verdict.claim, *words.row(verdict)) for verdict in verdicts]
    cells = [[text.replace("|", "\\|") for text in row] for row in rows]
    table = [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *cells)]
    withdrawn = words.notice(verdicts)
    return "\n".join([withdrawn, "", *table] if withdrawn else table)


def outline(shown: Dashboard) -> str:
    """What would be published, for people."""
    workspace, table = shown.workspace, shown.table.splitlines()
    where = f"{workspace.entity or '(your own entity)'}/{workspace.project}"
    lines = [f"workspace {workspace.name}, in {where}"]
    lines += [f"  runs grouped by {', '.join(GROUPS)}", "", "  Verdicts"]
    lines += [f"    {line}" for line in table]
    for section in sections():
        lines += ["", f"  {section.title}"]
        lines += [f"    {panel.text()}" for panel in section.panels]
    lines += ["", f"report {shown.report.title}, in {where}", "", "  Verdicts"]
    lines += [f"    {line}" for line in table]
    for section in sections():
        runs = f"runs with {section.filters}" if section.filters else "all runs"
        lines += ["", f"  {section.title}", f"    {section.text}"]
        lines += [f"    {runs}, grouped by {', '.join(section.by)}"]
        lines += [f"    {panel.text()}" for panel in section.panels]
    return "\n".join(lines)


def publish(
    verdicts: Sequence[Verdict], project: str, entity: str | None
) -> dict[str, str]:
    """Save the workspace and the report, as new ones; the address of each.

    Raises NormbenchError without a login, without an answer and if W&B refuses; then
    neither is saved.
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
    except Exception as error:  # the client raises many types
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NormbenchError(
            f"W&B did not take it ({reason[:200]}); nothing was published"
        ) from None
