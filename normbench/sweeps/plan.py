"""The runs of a sweep, and how many of them are done."""

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
    """The runs of a sweep by id, each once, in the order of the request.

    `skipped` are the runs that cannot work; they are not in `runs`.
    """

    runs: dict[str, RunConfig]
    skipped: dict[str, Skipped]
    engine: Engine


def make_plan(
    overrides: Sequence[str],
    arms: Sequence[str] = (),
    config_dir: Path | None = None,
) -> Plan:
    """The grid of `overrides` (Hydra's sweep grammar), or a union of such grids.

    Each of `arms` is a text of overrides, as on a command line: with arms, the plan is
    the union of their grids, each over `overrides` and the arm's own, which win.
    Everything is validated. Raises RequestError if any run is wrong; a norm that cannot
    work in its network is skipped, with the reason.
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
                    f"{error}; in {' '.join(str(o.input_line) for o in cell)}; if "
                    "choices have different keys, give each a grid of its own: "
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
        raise RequestError("a sweep has one engine; name one value of each engine key")
    skipped = {
        key: Skipped(config=runs[key], reason=reason)
        for key, reason in incompatible(runs).items()
    }
    kept = {key: config for key, config in runs.items() if key not in skipped}
    return Plan(kept, skipped, engines.pop())


@dataclass(frozen=True)
class Shard:
    """One of `count` shares of a plan: number `index`, from 0."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """From "I/N". Raises RequestError."""
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        index, count = map(int, match.groups()) if match else (0, 0)
        if index >= count:
            right = f"I from 0 to {count - 1}" if count else "such as 0/4"
            raise RequestError(f"--shard {text!r} is not a share; write I/N, {right}")
        return cls(index, count)

    def of(self, plan: Plan) -> Plan:
        """The runs whose ids, as numbers, have the remainder `index` by `count`.

        A run is in the same share whatever the rest of the plan is.
        """

        def has(key: str) -> bool:
            return int(key, 16) % self.count == self.index

        return replace(
            plan,
            runs={key: config for key, config in plan.runs.items() if has(key)},
            skipped={key: skip for key, skip in plan.skipped.items() if has(key)},
        )


def _conflict(planned: RunConfig, config: RunConfig) -> str:
    """Why two configs that differ, but have one run id, cannot both be in a plan."""
    before, after = planned.model_dump(), config.model_dump()
    key = next(key for key in after if before[key] != after[key])
    old, new = before[key], after[key]
    if isinstance(new, dict):  # such as data.path, of the same files
        name = next(name for name in {**old, **new} if old.get(name) != new.get(name))
        key, old, new = f"{key}.{name}", old.get(name), new.get(name)
    return (
        f"{key} does not make another run: one run has {old} and {new}; name one value"
    )


def _chooses_several(overrides: Sequence[str], config_dir: Path | None) -> bool:
    parsed = [parse(text, config_dir) for text in overrides]
    return any(o.is_sweep_override() and o.key_or_group in groups() for o in parsed)


def incompatible(runs: Mapping[str, RunConfig]) -> dict[str, str]:
    """Why norms cannot work, by run id; equal networks are built once."""
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
    """How much of a plan is done: each run is in one of the first three, by id.

    `finished` are the records that satisfy the plan, `missing` the runs to do, `left`
    the failed runs that are not done again. `stale` are the runs whose record comes
    from other code, `failed` those with a record of a failure.
    """

    finished: dict[str, RunRecord]
    missing: dict[str, RunConfig]
    left: dict[str, RunRecord]
    stale: frozenset[str]
    failed: frozenset[str]


def plan_state(plan: Plan, results: Results, *, skip_failed: bool = False) -> PlanState:
    """Look up the runs of `plan`; with `skip_failed`, failed runs are not missing."""
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
