"""A sweep -> the runs it needs, minus those that are done."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch

from normbench.config.choices import groups
from normbench.config.composer import Composer
from normbench.config.composition import engine, resolve
from normbench.config.identity import run_id
from normbench.config.overrides import grid, parse, words
from normbench.config.schema import Engine, RunConfig, RunRecord, Skipped
from normbench.errors import Incompatible, RequestError, Unreadable
from normbench.records import store
from normbench.records.source import comes_from_this_code
from normbench.records.store import Results
from normbench.sweeps.manifest import Manifest
from normbench.training import network


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep by their ids, each once, in the order they were asked for.

    `skipped` are those that cannot work; they are not in `runs`.
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
    Everything is validated. Raises RequestError where any run is wrong; a norm that
    cannot work in its network is skipped, with the reason.
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
                    f"{error}; in {' '.join(str(o.input_line) for o in cell)}; where "
                    "choices have different keys, give each a grid of its own: "
                    '--arm "norm=group norm.num_groups=2,4" --arm norm=batch'
                ) from None
            asked = engine(values.pop("engine", {}))
            if asked not in engines:
                engines.append(asked)
            config = resolve(values)
            planned = runs.setdefault(run_id(config), config)
            if planned != config:
                raise RequestError(_two_of_one(planned, config))
    if len(engines) > 1:
        raise RequestError("engine is of the sweep, not of a run; name one value of it")
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
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        index, count = map(int, found.groups()) if found else (0, 0)
        if index >= count:
            right = f"I from 0 to {count - 1}" if count else "such as 0/4"
            raise RequestError(f"--shard {text!r} is none; write I/N, {right}")
        return cls(index, count)

    def of(self, plan: Plan) -> Plan:
        """The runs whose ids, as numbers, have the remainder `index` by `count`.

        A run is in the same share whatever else is asked for.
        """

        def has(key: str) -> bool:
            return int(key, 16) % self.count == self.index

        return Plan(
            {key: config for key, config in plan.runs.items() if has(key)},
            {key: each for key, each in plan.skipped.items() if has(key)},
            plan.engine,
        )


def _two_of_one(planned: RunConfig, config: RunConfig) -> str:
    """Why a run cannot be asked for with two values of what does not make a run."""
    before, after = planned.model_dump(), config.model_dump()
    key = next(key for key in after if before[key] != after[key])
    old, new = before[key], after[key]
    if isinstance(new, dict):  # such as data.path, of the same files
        name = next(name for name in {**old, **new} if old.get(name) != new.get(name))
        key, old, new = f"{key}.{name}", old.get(name), new.get(name)
    return (
        f"{key} does not make another run: {old} and {new} are asked for the same run, "
        "and one of them would be dropped; name one value"
    )


def _chooses_several(overrides: Sequence[str], config_dir: Path | None) -> bool:
    parsed = [parse(text, config_dir) for text in overrides]
    return any(o.is_sweep_override() and o.key_or_group in groups() for o in parsed)


def incompatible(runs: Mapping[str, RunConfig]) -> dict[str, str]:
    """The reason of each run whose norm cannot work, asked once for equal networks."""
    alike: dict[str, list[str]] = defaultdict(list)
    for key, config in runs.items():
        alike[network.shapes(config)].append(key)
    skipped: dict[str, str] = {}
    cpu = torch.device("cpu")
    for keys in alike.values():
        config = runs[keys[0]]
        try:
            network.check(config, network.make_task(config, cpu))
        except Incompatible as reason:
            skipped |= dict.fromkeys(keys, str(reason))
    return skipped


@dataclass(frozen=True)
class Standing:
    """How much of a plan is done: each run's id is in one of the first three.

    `finished` are the records that satisfy the plan, `missing` the runs to do, `left`
    the failed ones that are to be left as they are; `stale` are the runs with a record
    that comes from other code, `failed` those with a record of a failure.
    """

    finished: dict[str, RunRecord]
    missing: dict[str, RunConfig]
    left: dict[str, RunRecord]
    stale: frozenset[str]
    failed: frozenset[str]


def standing(plan: Plan, results: Results, *, skip_failed: bool = False) -> Standing:
    """Look up the runs of `plan` under `results`.

    With `skip_failed`, runs that failed are not missing.
    """
    finished, missing, left = {}, {}, {}
    stale, failed = set(), set()
    records: dict[str, RunRecord | None] = {}
    with store.no_garbage():
        for key in plan.runs:
            try:
                records[key] = store.read(store.run_folder(results.folder, key))
            except Unreadable:  # whoever does the run says so
                records[key] = None
    for key, config in plan.runs.items():
        folder, found = store.run_folder(results.folder, key), records[key]
        if found is None:
            missing[key] = config
            continue
        fresh = comes_from_this_code(found, results.modules)
        if not fresh:
            stale.add(key)
        if found.status == "failed":
            failed.add(key)
            if skip_failed:
                left[key] = found
                continue
        if store.satisfies(folder, found, config) and (fresh or not results.redo_stale):
            finished[key] = found
        else:
            missing[key] = config
    return Standing(finished, missing, left, frozenset(stale), frozenset(failed))


def manifest(title: str, plan: Plan, now: Standing, workers: int) -> Manifest:
    """What is said of `plan` while its missing runs are done."""
    return Manifest(
        title=title,
        workers=workers,
        runs=plan.runs,
        skipped=plan.skipped,
        todo=list(now.missing),
    )


def bytes_of_a_run(folders: Iterable[Path]) -> int | None:
    """The mean size of finished runs' folders in bytes; None where there are none."""
    sizes = [
        sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        for folder in folders
    ]
    return round(mean(sizes)) if sizes else None
