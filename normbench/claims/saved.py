"""Judge a claim again from the records beside its verdict.

Nothing is trained and nothing is written.
"""

from collections.abc import Sequence
from pathlib import Path

from normbench.claims import census
from normbench.claims.check import RECORDS, check, prepare
from normbench.claims.lock import registered
from normbench.claims.trial import Request
from normbench.config.schema import LocalEngine, RunRecord
from normbench.errors import RequestError
from normbench.records import store
from normbench.sweeps.plan import Plan
from normbench.verdicts.differences import Difference, differences
from normbench.verdicts.files import read_verdict
from normbench.verdicts.folders import VERDICT
from normbench.verdicts.registration import Claim, registration_hash
from normbench.verdicts.verdict import Registered, Verdict


class SavedRuns:
    """The runs of a full check, from the file beside its verdict.

    A `Trial` uses it in the place of `Rounds`. Raises RequestError if `folder`, that of
    the verdict, has no such file, or if the file is damaged.
    """

    is_over = False

    def __init__(self, folder: Path, modules: Sequence[str] = ()) -> None:
        self.path, self.modules = folder / RECORDS, tuple(modules)
        if not self.path.is_file():
            raise RequestError(
                f"{self.path} is not there: only a full check writes records; leave "
                "out --from-records to do the runs"
            )
        records = store.read_compact(self.path)
        self._records = {record.run_id: record for record in records}

    def run(self, plan: Plan, title: str) -> dict[str, RunRecord]:
        """Return the records of `plan` by run id, failed runs included.

        Raises RequestError if the file lacks a record, or if a record lacks a probe or
        metric that its run is asked for.
        """
        records = {}
        for key, config in plan.runs.items():
            record = self._records.get(key)
            if record is not None and (
                record.status == "failed"
                or store.satisfies(self.path.parent, record, config)
            ):
                records[key] = record
        missing = [key for key in plan.runs if key not in records]
        if missing:
            raise RequestError(
                f"{self.path} lacks {len(missing)} of {len(plan.runs)} runs "
                f"({title}; {missing[0]}, ..), and --from-records does no runs; if the "
                "claim has changed since its check, --budget full does its new runs"
            )
        return records


def judge_again(
    claim: Claim,
    folder: Path,
    command: str,
    *,
    modules: Sequence[str] = (),
    config_dir: Path | None = None,
) -> tuple[Verdict, list[Difference]]:
    """Return a new verdict of `claim` and its differences from the one in `folder`.

    Census rules judge the models in the folder, which the full check counted. Raises
    RequestError if the folder lacks the verdict, its records, one of its runs, or the
    models of a claim with census rules.
    """
    runs = SavedRuns(folder, modules)
    old = read_verdict(folder / VERDICT)
    if old is None:
        raise RequestError(
            f"{folder / VERDICT} is not there: --from-records compares with the "
            "verdict of a full check"
        )
    engine = LocalEngine(name="local", workers=1, timeout=None)
    request = Request(runs, "full", engine, claim.name, config_dir)
    trial = prepare(claim, request)
    new = check(
        claim,
        trial,
        command,
        registration=registered(claim, config_dir) or _of_same(claim, old),
        counted=census.read(folder / census.FILE) if claim.census else None,
    )
    return new, differences(old, new)


def _of_same(claim: Claim, old: Verdict) -> Registered | None:
    """Return the commit in the old verdict, unless the claim has changed since."""
    return old.registered if old.registration == registration_hash(claim) else None
