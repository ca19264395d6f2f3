"""The plan of a sweep: its runs, and which of them are finished."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from normbench.config.choices import groups
from normbench.config.composer import Composer
from normbench.config.composition import engine, resolve
from normbench.config.identity import run_id
from normbench.config.overrides import grid, parse, words
from normbench.config.schema import Engine, RunConfig, RunRecord, Skipped
from normbench.errors import RequestError, Unreadable
from normbench.records import store
from normbench.records.source import comes_from_this_code
from normbench.records.store import Results
from normbench.training import network


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep by id, in the order of the request.

    `skipped` are runs whose norm cannot work in its network; `runs` does not have them.
    """

    runs: dict[str, RunConfig]
    skipped: dict[str, Skipped]
    engine: Engine


def make_plan(
    overrides: Sequence[str],
    arms: Sequence[str] = (),
    config_dir: Path | None = None,
) -> Plan:
    """Return the runs of the grid of `overrides`, in Hydra's sweep grammar.

    Each of `arms` is a text of more overrides, as on a command line, which replace
    `overrides` of the same key. With arms, the plan is the union of the arms' grids.

    All configs are validated. Raises RequestError if a config is invalid. A run whose
    norm cannot work in its network is in `skipped`, with the reason.
    """
    compose = Composer(config_dir)
    runs: dict[str, RunConfig] = {}
    engines: list[Engine] = []
    for arm in arms or ("",):
        for cell in grid([*overrides, *words(arm)], config_dir):
            try:
                values = compose(cell)
            except RequestError as error:
                if arms or not _chooses_several(overrides, config_dir):
                    raise
                raise RequestError(
                    f"{error}; in {' '.join(str(o.input_line) for o in cell)}; if the "
                    "choices have different keys, use one --arm for each choice: "
                    '--arm "norm=group norm.num_groups=2,4" --arm norm=batch'
                ) from None
            run_engine = engine(values.pop("engine", {}))
            if run_engine not in engines:
                engines.append(run_engine)
            config = resolve(values)
            planned = runs.setdefault(run_id(config), config)
            if planned != config:
                raise RequestError(_conflict(planned, config))
    if len(engines) > 1:
        raise RequestError("a sweep has one engine; give one value to each engine key")
    skipped = {
        key: Skipped(config=runs[key], reason=reason)
        for key, reason in incompatible(runs).items()
    }
    kept = {key: config for key, config in runs.items() if key not in skipped}
    return Plan(kept, skipped, engines.pop())


@dataclass(frozen=True)
class Shard:
    """Share number `index`, from 0, of a plan that is divided into `count` shares."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Parse "I/N". Raises RequestError if `text` has another form or I >= N."""
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        index, count = map(int, match.groups()) if match else (0, 0)
        if index >= count:
            hint = f"I from 0 to {count - 1}" if count else "such as 0/4"
            raise RequestError(f"--shard {text!r} is not a share; write I/N, {hint}")
        return cls(index, count)

    def of(self, plan: Plan) -> Plan:
        """Return the part of `plan` whose run ids, as numbers, are I modulo N.

        So the share of a run does not depend on the other runs of the plan.
        """

        def contains(key: str) -> bool:
            return int(key, 16) % self.count == self.index

        return replace(
            plan,
            runs={key: config for key, config in plan.runs.items() if contains(key)},
            skipped={key: skip for key, skip in plan.skipped.items() if contains(key)},
        )


def _conflict(planned: RunConfig, config: RunConfig) -> str:
    """Return the error message for two different configs that have the same run id."""
    first, second = planned.model_dump(), config.model_dump()
    key = next(key for key in second if first[key] != second[key])
    a, b = first[key], second[key]
    if isinstance(b, dict):  # such as two values of data.path with equal files
        option = next(name for name in {**a, **b} if a.get(name) != b.get(name))
        key, a, b = f"{key}.{option}", a.get(option), b.get(option)
    return f"{key} is not part of a run's id: use one value, not both {a} and {b}"


def _chooses_several(overrides: Sequence[str], config_dir: Path | None) -> bool:
    """Return whether an override such as "norm=batch,group" has several choices."""
    parsed = [parse(text, config_dir) for text in overrides]
    return any(o.is_sweep_override() and o.key_or_group in groups() for o in parsed)


def incompatible(runs: Mapping[str, RunConfig]) -> dict[str, str]:
    """Return the reason why a norm cannot work in its network, by run id.

    Runs with equal networks are checked once.
    """
    by_shapes: dict[str, list[str]] = defaultdict(list)
    for key, config in runs.items():
        by_shapes[network.shapes(config)].append(key)
    reasons: dict[str, str] = {}
    for keys in by_shapes.values():
        reason = network.incompatible(runs[keys[0]])
        if reason is not None:
            reasons |= dict.fromkeys(keys, reason)
    return reasons


@dataclass(frozen=True)
class PlanState:
    """Which runs of a plan are finished.

    Each run is in exactly one of `finished` (with its record), `missing` (a run to do)
    and `left` (a failed run that is not repeated). `stale` are the ids of runs whose
    record was made by other code, `failed` the ids of runs whose record is a failure.
    """

    finished: dict[str, RunRecord]
    missing: dict[str, RunConfig]
    left: dict[str, RunRecord]
    stale: frozenset[str]
    failed: frozenset[str]


def plan_state(plan: Plan, results: Results, *, skip_failed: bool = False) -> PlanState:
    """Read the records of a plan's runs; with `skip_failed`, failed runs are `left`."""
    finished, missing, left = {}, {}, {}
    stale, failed = set(), set()
    with store.no_garbage():
        for key, config in plan.runs.items():
            folder = store.run_folder(results.folder, key)
            record = None
            with suppress(Unreadable):  # the worker that does the run reports it
                record = store.read(folder)
            if record is None:
                missing[key] = config
                continue
            if not comes_from_this_code(record, results.modules):
                stale.add(key)
            if record.status == "failed":
                failed.add(key)
            if record.status == "failed" and skip_failed:
                left[key] = record
            elif store.satisfies(folder, record, config) and results.counts(record):
                finished[key] = record
            else:
                missing[key] = config
    return PlanState(finished, missing, left, frozenset(stale), frozenset(failed))
