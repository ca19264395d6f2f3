"""Comparisons of norms in an experiment of one's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pandas as pd

from normbench.api.runs import results_folder
from normbench.claims.check import check, prepare
from normbench.claims.comparison import budget, comparison, peak_rates
from normbench.claims.trial import Request
from normbench.config.composition import compose_engine
from normbench.config.named_modules import import_named
from normbench.records.store import Results
from normbench.report.figures import drawing
from normbench.report.figures.comparison import comparison_figures
from normbench.report.figures.seeds import read_runs
from normbench.report.text.comparison import shown
from normbench.sweeps.observer import QuietSweep
from normbench.sweeps.round import Rounds
from normbench.verdicts.comparisons import FILE, Comparison, write_comparison


@dataclass(frozen=True, repr=False)
class Compared:
    """The answer of `compare`; a notebook shows its table and its sentences."""

    comparison: Comparison
    table: pd.DataFrame
    """A row for each arm: its learning rate, mean, interval and failures, as text."""
    notes: list[str]
    answers: list[str]
    """A sentence for each level and arm, such as "BatchNorm is better: ..."."""
    files: list[Path]
    """The saved comparison and its figures."""

    def __repr__(self) -> str:
        notes = [f"note: {note}" for note in self.notes]
        return "\n".join([*notes, self.table.to_string(index=False), *self.answers])

    def _repr_html_(self) -> str:
        """Return the answer as HTML; Jupyter calls this method."""
        notes = [f"note: {note}" for note in self.notes]
        paragraphs = "".join(f"<p>{escape(p)}</p>" for p in [*notes, *self.answers])
        table: str = self.table.to_html(index=False)
        return table + paragraphs


def compare(
    *arms: str,
    overrides: Sequence[str] = (),
    metric: str = "test/error",
    margin: float = 0.01,
    rates: Sequence[float] = (0.05, 0.1, 0.2),
    seeds: Sequence[int] = (8, 16, 24, 32),
    gate: float = 0.5,
    workers: int | None = None,
    results: Path | str | None = None,
    config_dir: Path | str | None = None,
    modules: tuple[str, ...] = (),
) -> Compared:
    """Compare the first of `arms` with each other one, and save the answer.

    `arms` are texts such as "norm=group norm.num_groups=4", `overrides` the config of
    all arms; an override with several values, such as "batch_size=2,8", makes levels.
    Every seed of each arm is trained at each of `rates`, and validation data choose the
    rate. The comparison stops at the first number of `seeds` that settles it. See
    `normbench compare --help`. The runs are recorded in `results`, and those that exist
    are not done again. Raises RequestError for a wrong value.

    Several processes do the runs, one per core unless `workers` is given. In a script,
    call it below `if __name__ == "__main__":`, as everything that starts processes.
    """
    directory = None if config_dir is None else Path(config_dir)
    imported = import_named(modules, overrides, arms, directory)
    folder = results_folder(results)
    claim = comparison(
        arms,
        overrides,
        metric=metric,
        margin=margin,
        rates=rates,
        seeds=seeds,
        gate=gate,
        config_dir=directory,
    )
    rounds = Rounds(Results(folder, imported), lambda *_: QuietSweep(), blind=True)
    engine = compose_engine((), directory)
    if workers is not None:
        engine = engine.model_copy(update={"workers": workers})
    request = Request(rounds, "full", engine, title="compare", config_dir=directory)
    trial = prepare(claim, request)
    trial.require_distinct_cells()
    with rounds:
        verdict = check(claim, trial, "normbench.compare")
    peak_lr = peak_rates(verdict.outcomes[0], trial)
    length = budget(claim, trial)
    answer = Comparison(claim=claim, verdict=verdict, peak_lr=peak_lr, budget=length)
    view = shown(answer)
    files = save(answer, folder)
    return Compared(answer, pd.DataFrame(view.rows), view.notes, view.answers, files)


def save(answer: Comparison, results: Path) -> list[Path]:
    """Write a comparison and its figures in a folder of `results`; return the files.

    Raises NormbenchError if a file cannot be written.
    """
    folder = write_comparison(answer, results)
    files = [folder / FILE]
    records = read_runs(answer.run_ids, results)
    for name, figure in comparison_figures(answer, records).items():
        files += drawing.save(figure, folder / name)
    return files
