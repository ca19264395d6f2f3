"""What a report is made of, read from folders: claims, verdicts, runs, what is broken.

Knows no torch and no hydra: a report is made on a laptop.
"""

from collections.abc import Sequence
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
class ClaimEntry:
    """A claim as registered, and its verdict; at least one of them is not None."""

    name: str
    claim: Claim | None
    verdict: Verdict | None

    @property
    def text(self) -> Verdict | Claim:
        """The sentence that was judged, or waits for a verdict, with its source."""
        text = self.verdict or self.claim
        assert text is not None
        return text

    @property
    def changed(self) -> bool:
        """Whether the yaml differs from the one that was judged."""
        if self.claim is None or self.verdict is None:
            return False
        return registration_hash(self.claim) != self.verdict.registration


@dataclass(frozen=True)
class Material:
    """All that a report shows.

    `records` are sorted by id. Those in `folders` have a folder, with a history and
    pictures; the others come from the records of a claim. `claims_of` lists, by run id,
    the verdicts that a run is part of. `damaged` are results that cannot be read,
    `unfinished` the ids of folders without a result.
    """

    results: Path
    claims: list[ClaimEntry]
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
    entries = _entries(claims, config_dir)
    records, damaged = store.all_records(results)
    by_id = {record.run_id: record for record in records}
    folders = {run_id: store.run_folder(results, run_id) for run_id in by_id}
    seen = {*by_id, *(error.path.parent.name for error in damaged)}
    claims_of: dict[str, list[str]] = {}
    for entry in entries:
        file = claims / entry.name / RECORDS
        if file.exists():
            with store.no_garbage():
                for record in store.read_compact(file):
                    by_id.setdefault(record.run_id, record)
        for run_id in entry.verdict.run_ids if entry.verdict else []:
            claims_of.setdefault(run_id, []).append(entry.name)
    return Material(
        results=results,
        claims=entries,
        records=[by_id[run_id] for run_id in sorted(by_id)],
        folders=folders,
        claims_of=claims_of,
        damaged=damaged,
        unfinished=[key for key in store.run_ids(results) if key not in seen],
    )


def _entries(claims: Path, config_dir: Path | None) -> list[ClaimEntry]:
    """Every claim that is registered or has a verdict, those with a verdict first.

    A quick or smoke check counts if there is no full one; the page says so.
    """
    registered = choices("claim", config_dir)
    judged = {path.parent.name for path in claims.glob("*/verdict*.json")}
    entries = []
    for name in sorted({*registered, *judged}):
        verdict = None
        for file in ("verdict.json", "verdict.quick.json", "verdict.smoke.json"):
            verdict = verdict or read_verdict(claims / name / file)
        claim = read_claim(name, config_dir) if name in registered else None
        entries.append(ClaimEntry(name, claim, verdict))
    return sorted(entries, key=lambda entry: entry.verdict is None)


def facts(record: RunRecord, claims: Sequence[str]) -> dict[str, Any]:
    """What the explorer can filter by beside metrics: config and how the run went."""
    return {
        "run_id": record.run_id,
        "status": record.status,
        "claim": ", ".join(claims) or None,
        **query.flat(record.config),
        "primary_metric": record.primary_metric,
        "steps": record.steps,
        "parameters": record.parameters,
        "peak_lr": record.peak_lr,
        "diverged_at": record.diverged_at,
        "error": _last_line(record.error),
        "seconds.train": record.seconds.train,
        "started": record.started,
        "code": record.environment.source_hash,
        "torch": record.environment.packages.get("torch"),
        "ran_on": record.environment.device,
    }


def why(record: RunRecord) -> str:
    """Why a run is not ok, in a line."""
    if record.status == "diverged":
        return "its loss was not finite"
    return _last_line(record.error) or "no reason was recorded"


def _last_line(text: str | None) -> str | None:
    lines = (text or "").strip().splitlines()
    return lines[-1] if lines else None
