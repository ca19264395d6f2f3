"""What a report is made of, read from folders: claims, verdicts, runs, what is broken.

Knows no torch and no hydra: a report is made on a laptop.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normbench.config.choices import choices
from normbench.config.schema import RunRecord
from normbench.errors import Unreadable
from normbench.records import query, store
from normbench.verdicts.files import read_verdict
from normbench.verdicts.registration import Claim, read_claim, registration_hash
from normbench.verdicts.verdict import Verdict

RECORDS = "records.jsonl.gz"


@dataclass(frozen=True)
class Told:
    """A claim as it is registered, and what its check came to; one of them is there.

    `changed`: the yaml is another one than that of the verdict.
    """

    name: str
    claim: Claim | None
    verdict: Verdict | None

    @property
    def statement(self) -> str:
        """The sentence that was judged, or that waits for it."""
        told = self.verdict or self.claim
        assert told is not None
        return told.statement

    @property
    def source(self) -> str:
        """Who says so."""
        told = self.verdict or self.claim
        assert told is not None
        return told.source

    @property
    def changed(self) -> bool:
        """Whether the yaml is another one than that of the verdict."""
        if self.claim is None or self.verdict is None:
            return False
        return registration_hash(self.claim) != self.verdict.registration


@dataclass(frozen=True)
class Material:
    """All that a report shows.

    `records` are by id; those in `folders` have a folder, with a history and pictures,
    the others are known from the records of a claim. `claims_of` says which verdicts a
    run is part of, by id. `damaged` are files that should be records, each with why it
    is left out, `unfinished` the ids of folders without a result.
    """

    results: Path
    told: list[Told]
    records: list[RunRecord]
    folders: dict[str, Path]
    claims_of: dict[str, list[str]]
    damaged: list[Unreadable]
    unfinished: list[str]


def gather(results: Path, claims: Path, config_dir: Path | None = None) -> Material:
    """Read runs below `results` and verdicts below `claims`; either may be missing.

    A run that has both a folder and a committed record is read from its folder. Raises
    RequestError for a verdict or records that cannot be read.
    """
    told = list(_told(claims, config_dir))
    found, damaged = store.all_records(results)
    folders = {each.run_id: store.run_folder(results, each.run_id) for each in found}
    broken = {each.path.parent.name for each in damaged}
    unfinished = [
        run_id
        for run_id in store.run_ids(results)
        if run_id not in folders and run_id not in broken
    ]
    by_id = {each.run_id: each for each in found}
    claims_of: dict[str, list[str]] = {}
    for one in told:
        file = claims / one.name / RECORDS
        if file.exists():
            with store.no_garbage():
                for each in store.read_compact(file):
                    by_id.setdefault(each.run_id, each)
        for run_id in one.verdict.run_ids if one.verdict else []:
            claims_of.setdefault(run_id, []).append(one.name)
    return Material(
        results=results,
        told=told,
        records=[by_id[run_id] for run_id in sorted(by_id)],
        folders=folders,
        claims_of=claims_of,
        damaged=damaged,
        unfinished=unfinished,
    )


def _told(claims: Path, config_dir: Path | None) -> Iterator[Told]:
    """Every claim that is registered or has a verdict, those with a verdict first.

    A quick or smoke check counts where there is no full one: it says what it is.
    """
    registered = choices("claim", config_dir)
    judged = {path.parent.name for path in claims.glob("*/verdict*.json")}
    without = []
    for name in sorted({*registered, *judged}):
        verdict = None
        for file in ("verdict.json", "verdict.quick.json", "verdict.smoke.json"):
            verdict = verdict or read_verdict(claims / name / file)
        claim = read_claim(name, config_dir) if name in registered else None
        one = Told(name, claim, verdict)
        if verdict is None:
            without.append(one)
        else:
            yield one
    yield from without


def facts(each: RunRecord, claims: Sequence[str]) -> dict[str, Any]:
    """What can be asked of a run beside its metrics: its config and how it went."""
    environment = each.environment
    return {
        "run_id": each.run_id,
        "status": each.status,
        "claim": ", ".join(claims) or None,
        **query.flat(each.config),
        "primary_metric": each.primary_metric,
        "steps": each.steps,
        "parameters": each.parameters,
        "peak_lr": each.peak_lr,
        "diverged_at": each.diverged_at,
        "error": _last_line(each.error),
        "seconds.train": each.seconds.train,
        "started": each.started,
        "code": environment.source_hash,
        "torch": environment.packages.get("torch"),
        "ran_on": environment.device,
    }


def why(each: RunRecord) -> str:
    """Why a run is not ok, in a line."""
    if each.status == "diverged":
        return "its loss was not finite"
    return _last_line(each.error) or "no reason was recorded"


def _last_line(text: str | None) -> str | None:
    lines = (text or "").strip().splitlines()
    return lines[-1] if lines else None
