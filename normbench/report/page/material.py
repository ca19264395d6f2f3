"""The material of a report: claims, verdicts and runs, read from folders.

This module imports neither torch nor hydra, so that a report is quick to make.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normbench.config.choices import choices
from normbench.config.schema import RunRecord
from normbench.errors import Unreadable
from normbench.records import query, store
from normbench.verdicts.comparisons import Comparison, read_comparisons
from normbench.verdicts.files import read_verdict
from normbench.verdicts.folders import VERDICT, claim_folder, judged_claims, origin
from normbench.verdicts.registration import Claim, read_claim, registration_hash
from normbench.verdicts.verdict import Verdict

RECORDS = "records.jsonl.gz"


@dataclass(frozen=True)
class ClaimEntry:
    """A registered claim and its verdict; at least one of them is not None.

    `from_package` says that the user's folder has no full verdict of the claim, and
    that the verdict is the one that is part of the package.
    """

    name: str
    claim: Claim | None
    verdict: Verdict | None
    from_package: bool = False

    @property
    def text(self) -> Verdict | Claim:
        """The verdict, or the claim if there is no verdict."""
        text = self.verdict or self.claim
        assert text is not None
        return text

    @property
    def changed(self) -> bool:
        """Whether the yaml of the claim has changed since its verdict."""
        if self.claim is None or self.verdict is None:
            return False
        return registration_hash(self.claim) != self.verdict.registration


@dataclass(frozen=True)
class Material:
    """Everything that a report shows.

    `records` are sorted by run id. `folders` maps a run id to the folder of the run,
    which has the history and pictures. A record without a folder is from the committed
    records of a claim. `claims_of` maps a run id to the claims whose verdicts rest on
    the run. `damaged` are results that cannot be read. `unfinished` are the run ids of
    folders without a result. `comparisons` are those of the user, by name.
    """

    results: Path
    claims: list[ClaimEntry]
    records: list[RunRecord]
    folders: dict[str, Path]
    claims_of: dict[str, list[str]]
    damaged: list[Unreadable]
    unfinished: list[str]
    comparisons: dict[str, Comparison]


def gather(results: Path, claims: Path, config_dir: Path | None = None) -> Material:
    """Read the runs in `results` and the verdicts in `claims`; a folder may be missing.

    A verdict that `claims` lacks is that of the package. If a run has both a folder and
    a committed record, the record in the folder is used. Raises RequestError if a
    verdict or the records of a claim cannot be read.
    """
    entries = _entries(claims, config_dir)
    records, damaged = store.all_records(results)
    comparisons, damaged_comparisons = read_comparisons(results)
    by_id = {record.run_id: record for record in records}
    folders = {run_id: store.run_folder(results, run_id) for run_id in by_id}
    # A damaged result is a result too.
    with_result = {*by_id, *(error.path.parent.name for error in damaged)}
    claims_of: dict[str, list[str]] = {}
    for entry in entries:
        file = claim_folder(claims, entry.name) / RECORDS
        if file.exists():
            with store.no_garbage():
                for record in store.read_compact(file):
                    by_id.setdefault(record.run_id, record)  # keeps that of a folder
        for run_id in entry.verdict.run_ids if entry.verdict else []:
            claims_of.setdefault(run_id, []).append(entry.name)
    return Material(
        results=results,
        claims=entries,
        records=[by_id[run_id] for run_id in sorted(by_id)],
        folders=folders,
        claims_of=claims_of,
        damaged=[*damaged, *damaged_comparisons],
        unfinished=[key for key in store.run_ids(results) if key not in with_result],
        comparisons=comparisons,
    )


def _entries(claims: Path, config_dir: Path | None) -> list[ClaimEntry]:
    """Return all claims that are registered or have a verdict, sorted by name.

    Claims with a verdict come first. If a full check has no verdict, the verdict of a
    quick check is used; if that is missing too, the verdict of a smoke check is used.
    """
    registered = choices("claim", config_dir)
    entries = []
    for name in sorted({*registered, *judged_claims(claims, "verdict*.json")}):
        verdict, folder = None, claim_folder(claims, name)
        for file in (VERDICT, "verdict.quick.json", "verdict.smoke.json"):
            verdict = verdict or read_verdict(folder / file)
        claim = read_claim(name, config_dir) if name in registered else None
        from_package = origin(claims, name) == "package"
        entries.append(ClaimEntry(name, claim, verdict, from_package))
    return sorted(entries, key=lambda entry: entry.verdict is None)


def facts(record: RunRecord, claims: Sequence[str], *, mine: bool) -> dict[str, Any]:
    """Return the facts of a run for the explorer: its config and how it ended.

    `mine` says that the run has a folder in the results; other runs are from verdicts.
    """
    return {
        "run_id": record.run_id,
        "status": record.status,
        "source": "mine" if mine else "verdict",
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


def reason(record: RunRecord) -> str:
    """Return in one line why a run is not ok."""
    if record.status == "diverged":
        return "the loss was not finite"
    return _last_line(record.error) or "no reason was recorded"


def _last_line(text: str | None) -> str | None:
    lines = (text or "").strip().splitlines()
    return lines[-1] if lines else None
