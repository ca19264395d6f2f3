"""Builds a W&B workspace and a W&B report, and saves both.

This module needs the extra `dashboard`. Only `publish` uses the network. The sections
are in `dashboard.yaml`; a test checks that runs log the keys of all panels.
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

clean(offline=False)  # sets environment variables before the import of W&B's client
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
API_TIMEOUT = 20
"""Timeout of W&B's API in seconds."""
HALF_WIDTH, FULL_WIDTH = {"w": 12, "h": 8}, {"w": 24, "h": 12}
"""Sizes of panels in a report, which is 24 columns wide."""
GROUP_KEYS = ("norm.name", "batch_size")
"""The config keys by which the workspace groups runs."""
WandbPanel = (
    wr.LinePlot
    | wr.ScatterPlot
    | wr.BarPlot
    | wr.MediaBrowser
    | wr.WeavePanelSummaryTable
)


class Panel(BaseModel):
    """One panel: the logged key `y` over `x`.

    In a scatter plot, `x` is a config key. If `log` is true, one axis is logarithmic:
    the axis of `x` in a scatter plot, the axis of `y` in a line plot.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["scatter", "line", "bar", "images", "table"]
    y: str
    x: str = "epoch"
    log: bool = False

    def keys(self) -> dict[str, list[str]]:
        """Return the keys that the panel reads, by the part of a run that has them.

        The parts are "config", "summary", "history" and "media".
        """
        if self.kind == "scatter":
            return {"config": [self.x], "summary": [self.y]}
        if self.kind == "line":
            return {"history": [self.x, self.y]}
        return {"media" if self.kind == "images" else "summary": [self.y]}

    def outline(self) -> str:
        """Return a line that describes the panel."""
        match self.kind:
            case "line":
                scale = ", log y" if self.log else ""
                return f"lines    {self.y} by {self.x}{scale}: mean and deviation"
            case "scatter":
                scale = ", log x" if self.log else ""
                return f"scatter  {self.y} by {self.x}{scale}"
            case "bar":
                return f"bars     {self.y}"
        return f"{self.kind:<8} {self.y}"

    def build(self) -> WandbPanel:
        """Return the panel as an object of W&B's client."""
        grouping: Any = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
        title = f"{self.y} by {self.x}"
        half, full = wr.Layout(**HALF_WIDTH), wr.Layout(**FULL_WIDTH)
        match self.kind:
            case "scatter":
                return wr.ScatterPlot(
                    title=title,
                    x=wr.Config(self.x),
                    y=wr.SummaryMetric(self.y),
                    log_x=self.log,
                    layout=half,
                )
            case "line":
                return wr.LinePlot(
                    title=title,
                    x=self.x,
                    y=[self.y],
                    log_y=self.log,
                    max_runs_to_show=100,
                    layout=half,
                    **grouping,
                )
            case "bar":
                metrics: list[Any] = [wr.SummaryMetric(self.y)]
                return wr.BarPlot(
                    title=self.y, metrics=metrics, layout=half, **grouping
                )
            case "images":
                return wr.MediaBrowser(
                    title=self.y, media_keys=[self.y], num_columns=1, layout=full
                )
            case "table":
                return wr.WeavePanelSummaryTable(table_name=self.y, layout=full)


class Section(BaseModel):
    """One section of the workspace and of the report.

    In the report, a section shows the runs of `task`, or all runs if it is None. A
    panel shows means over the runs that have equal values of the config keys `by`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    text: str
    task: str | None = None
    by: list[str]
    panels: list[Panel]

    @property
    def filters(self) -> str:
        """The condition on runs, in the syntax of W&B's client."""
        return "" if self.task is None else f"JobType = '{self.task}'"


@dataclass(frozen=True)
class Dashboard:
    """A workspace and a report, not yet saved.

    `table` is a Markdown table of the verdicts, which both contain.
    """

    table: str
    workspace: ws.Workspace
    report: wr.Report

    def plain(self) -> dict[str, Any]:
        """Return both objects as the JSON that W&B's client would send."""
        objects: dict[str, ws.Workspace | wr.Report] = {
            "workspace": self.workspace,
            "report": self.report,
        }
        return {
            name: wandb_object._to_model().model_dump(
                mode="json", by_alias=True, exclude_none=True
            )
            for name, wandb_object in objects.items()
        }


@cache
def sections() -> tuple[Section, ...]:
    """Return all sections except the one of the verdicts."""
    return tuple(Section(**section) for section in read_yaml("dashboard.yaml"))


def dashboard(
    verdicts: Sequence[Verdict], project: str, entity: str | None
) -> Dashboard:
    """Build the workspace and the report over the runs of a W&B project.

    Without `entity`, the workspace and the report can be printed but not saved.
    """
    table = verdict_table(verdicts)
    # The workspace and the report share the panel objects. The workspace sets the
    # positions of the panels.
    panels_of: list[tuple[Section, list[Any]]] = [
        (section, [panel.build() for panel in section.panels]) for section in sections()
    ]
    workspace_sections: list[tuple[str, list[Any]]] = [
        ("Verdicts", [wr.MarkdownPanel(markdown=table)]),
        *((section.title, panels) for section, panels in panels_of),
    ]
    workspace = ws.Workspace(
        entity=entity or "",
        project=project,
        name="normbench",
        sections=[
            ws.Section(name=title, panels=panels, is_open=True)
            for title, panels in workspace_sections
        ],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=100),
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Config(key) for key in GROUP_KEYS]
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
            *(
                block
                for section, panels in panels_of
                for block in _blocks(section, panels)
            ),
        ],
    )
    return Dashboard(table, workspace, report)


def _blocks(
    section: Section, panels: list[Any]
) -> Iterator[wr.H1 | wr.P | wr.PanelGrid]:
    """Yield the heading, the text and the panels of a section of the report."""
    yield wr.H1(text=section.title)
    yield wr.P(text=section.text)
    # A run set without an entity and a project takes both from the report.
    runs = wr.Runset(
        name=section.title,
        filters=section.filters,
        groupby=[f"config.{key}" for key in section.by],
    )
    yield wr.PanelGrid(runsets=[runs], panels=panels)


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """Return a Markdown table with a row for each part of a claim."""
    if not verdicts:
        return "No claim has a verdict yet. `normbench claim check` makes one."
    head = ("claim", "headline", "sentence", "finding", "scope")
    rows = [
        (
            verdict.claim,
            words.headline(part),
            part.sentence,
            " ".join(map(_sentence, words.findings(part, verdict))),
            part.scope,
        )
        for verdict in verdicts
        for part in verdict.parts
    ]
    cells = [[text.replace("|", "\\|") for text in row] for row in rows]
    table = [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *cells)]
    withdrawals = words.withdrawals(verdicts)
    return "\n".join([withdrawals, "", *table] if withdrawals else table)


def outline(built: Dashboard) -> str:
    """Return a text that lists everything `publish` would save."""
    workspace, report = built.workspace, built.report
    project = f"{workspace.entity or '(your own entity)'}/{workspace.project}"
    verdicts = ["  Verdicts", *(f"    {line}" for line in built.table.splitlines())]
    lines = [f"workspace {workspace.name}, in {project}"]
    lines += [f"  runs grouped by {', '.join(GROUP_KEYS)}", "", *verdicts]
    for section in sections():
        lines += ["", f"  {section.title}"]
        lines += [f"    {panel.outline()}" for panel in section.panels]
    lines += ["", f"report {report.title}, in {project}", "", *verdicts]
    for section in sections():
        runs = f"runs with {section.filters}" if section.filters else "all runs"
        lines += ["", f"  {section.title}", f"    {section.text}"]
        lines += [f"    {runs}, grouped by {', '.join(section.by)}"]
        lines += [f"    {panel.outline()}" for panel in section.panels]
    return "\n".join(lines)


def publish(
    verdicts: Sequence[Verdict], project: str, entity: str | None
) -> dict[str, str]:
    """Save a new workspace and a new report; return their addresses.

    Raises NormbenchError if the user is not logged in, if W&B does not answer, or if
    W&B refuses the objects. Then neither object is saved.
    """
    with tempfile.TemporaryDirectory() as folder:
        find_folders(Path(folder))
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
        owner = entity or wandb.Api(timeout=API_TIMEOUT).default_entity
        if owner is None:
            raise NormbenchError(
                "this W&B account has no default entity; name one with --entity"
            )
        built = dashboard(verdicts, project, owner)
        built.report.save()  # creates the project if it does not exist
        try:
            built.workspace.save()
        except BaseException:
            built.report.delete()
            raise
        return {"workspace": built.workspace.url, "report": built.report.url}
    except NormbenchError:
        raise
    except Exception as error:  # the client raises exceptions of many types
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NormbenchError(
            f"W&B did not accept the dashboard ({reason[:200]}); nothing was published"
        ) from None
