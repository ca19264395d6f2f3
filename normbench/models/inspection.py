"""Examine the norms of any network: a table of its layers, and what is wrong."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

import torch
from torch import nn

from normbench.errors import RequestError
from normbench.models.finding import Finding, Level
from normbench.models.forward import Example, observe
from normbench.models.independence import Leak, Mode, Of, leak
from normbench.models.layers import readable
from normbench.models.problems import shapes, training
from normbench.models.problems.context import Context
from normbench.models.rows import LayerRow, layer_rows
from normbench.models.statistics import Batches, Evaluations, Gap, evaluate, gaps

LEVELS: tuple[Level, ...] = ("error", "warning", "note", "ok")
"""The levels of findings, worst first."""

_CHANGED: dict[Of, str] = {
    "other_samples": "other samples of the batch",
    "pads": "pads at its end",
    "surroundings": "the borders of the image",
}


@dataclass(frozen=True)
class Report:
    """The norms of a network, and the findings about them, worst first.

    `functional` lists norms that are called as functions, by the module that calls
    them. They have no row, because only layers can be examined.
    With data, `evaluations` are those with running, recomputed and batch statistics
    (None without targets), `gaps` say how far the running statistics of a layer are
    from those of batches, and `leaks` what the outputs of a sample depend on beside it.
    """

    model: str
    layers: list[LayerRow]
    findings: list[Finding]
    functional: list[str] = field(default_factory=list)
    evaluations: Evaluations | None = None
    gaps: list[Gap] = field(default_factory=list)
    leaks: list[Leak] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there is no finding of the level "error"."""
        return all(finding.level != "error" for finding in self.findings)

    def __str__(self) -> str:
        """The network, its norms by type, and each finding that is not ok."""
        counts = Counter(row.type for row in self.layers)
        norms = ", ".join(f"{count} {name}" for name, count in counts.items())
        lines = [f"{self.model}: {norms or 'no norm layers'}"]
        for each in self.findings:
            if each.level != "ok":
                advice = f"; {each.do}" if each.do else ""
                lines.append(f"{each.level}: {each.what}: {each.why}{advice}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as data for JSON."""
        return {**asdict(self), "ok": self.ok}


def inspect(
    model: nn.Module,
    example: Example,
    data: Batches | None = None,
    *,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None,
    steps: int | None = None,
    accumulate: int = 1,
    device: str = "cpu",
) -> Report:
    """Return a report on every normalization layer of `model`.

    `example` are the arguments of one forward: a tensor, a tuple, or a dict by name.
    The forward and the backward run once, on a copy of the model in its mode. `device`
    may be "meta", on which only shapes are computed. `optimizer(model)` returns the
    optimizer of the training, `steps` is its number of steps, and `accumulate` the
    number of forwards per step: with them, more problems can be found. `data` are
    `models.statistics.Batches`; with them, the report has evaluations, gaps and leaks.

    Raises RequestError if a forward fails; the message names the layer.
    """
    observation = observe(model, example, device)
    rows = layer_rows(model, observation)
    context = Context(model, observation, optimizer, steps, accumulate)
    leaks: list[Leak] = []
    if data is not None:
        leaks = list(_leaks(model, example))
    return Report(
        model=type(model).__name__,
        layers=rows,
        findings=_findings(rows, context, leaks),
        functional=observation.functional,
        evaluations=None if data is None else evaluate(model, data),
        gaps=[] if data is None else gaps(model, data),
        leaks=leaks,
    )


def _leaks(model: nn.Module, example: Example) -> Iterator[Leak]:
    """Yield the leaks that can be measured with this example, in both modes."""
    for of in get_args(Of):
        for mode in get_args(Mode):
            try:
                yield leak(model, example, of, mode)
            except RequestError:  # this example has no pads, images or other samples
                break


def _findings(
    rows: list[LayerRow], context: Context, leaks: Sequence[Leak]
) -> list[Finding]:
    """Return all findings about the norms, worst first."""
    checks = (*shapes.CHECKS, *training.CHECKS)
    findings = [finding for check in checks for finding in check(rows, context)]
    findings += [_leak_finding(measured) for measured in leaks if measured.leaks]
    if not any(finding.level in ("error", "warning") for finding in findings):
        layers = "1 norm layer" if len(rows) == 1 else f"{len(rows)} norm layers"
        why = f"{layers}, without an error or a warning"
        findings.append(Finding("ok", "norms", why))
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def _leak_finding(measured: Leak) -> Finding:
    what = measured.of.replace("_", " ")
    mode = "training" if measured.mode == "train" else "evaluation"
    where = f"; the first layer is {readable(measured.layer)}" if measured.layer else ""
    return Finding(
        "warning" if measured.mode == "eval" else "note",
        f"{what} in {mode}",
        f"the output of a sample moves by {measured.change:.0%} of the largest output "
        f"when {_CHANGED[measured.of]} change{where}",
        "swap the layer for a norm of single samples or positions"
        if measured.layer
        else "",
    )
