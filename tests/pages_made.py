"""Run folders and verdicts for tests of the report, written without training."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image
from records_made import A_RECORD, a_record
from verdicts_made import rich_verdict

from normbench.config.identity import hashed
from normbench.config.schema import RunConfig, RunRecord
from normbench.records.store import run_folder, write_compact
from normbench.verdicts.files import as_recorded
from normbench.verdicts.verdict import Verdict

ROOT = Path(__file__).parents[1]
COMMITTED = ROOT / "results" / "claims"
IMAGE_TAG = "<img src=x onerror=\"document.title='broken'\">"
SCRIPT_TAG = "</script><script>document.title='broken'</script>"
QUOTES = "\" ' ` {{ 7 * 7 }} & <b>"


@cache
def template() -> RunRecord:
    """Return the record of a CNN."""
    metrics = {"test/error": 0.03, "test/loss": 0.1, "train/loss": 0.01}
    return a_record("norm=affine", "data.size=14", "tracker=none", metrics=metrics)


def write_verdict(claims: Path, **changes: Any) -> Verdict:
    """Write a made-up verdict with `changes` of its fields, and the record of its run.

    A verdict of a smaller budget is written beside that of a full check.
    """
    verdict = rich_verdict().model_copy(update=changes)
    budget = "" if verdict.budget == "full" else f".{verdict.budget}"
    folder = claims / verdict.claim
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"verdict{budget}.json").write_text(as_recorded(verdict))
    write_compact(folder / "records.jsonl.gz", [A_RECORD])
    return verdict


def write_remarks(claims: Path, verdict: Verdict) -> None:
    """Write the finding of the second part, and withdraw the headline of the third."""
    _, written, withdrawn = verdict.parts
    remarks = {
        "registration": verdict.registration,
        "findings": {written.name: "a has {how-digits | a against b} errors."},
        "withdrawn": {withdrawn.name: "The data were mixed up."},
    }
    (claims / verdict.claim / "remarks.yaml").write_text(json.dumps(remarks))


def write_run(
    results: Path,
    number: int,
    *,
    config: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float | None] | None = None,
    losses: list[float | None] | None = None,
    **fields: Any,
) -> RunRecord:
    """Write the folder of a run; `number` is its seed, `losses` are its history."""
    plain = template().model_dump(mode="json") | fields
    plain["config"] |= {"seed": number} | dict(config or {})
    plain["metrics"] |= metrics or {}
    run_id = hashed(RunConfig.model_validate_json(json.dumps(plain["config"])))
    plain["run_id"] = run_id
    record = RunRecord.model_validate_json(json.dumps(plain))
    folder = run_folder(results, run_id)
    folder.mkdir(parents=True)
    rows = [
        {"step": i, "samples": 32 * i, "epoch": i / 93, "train/batch_loss": loss}
        for i, loss in enumerate(losses or [], 1)
    ]
    history = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "history.jsonl").write_text(history)
    (folder / "result.json").write_text(record.model_dump_json())
    return record


def norm(name: str) -> dict[str, Any]:
    return {"name": name, "eps": 1e-5, "affine": True}


def write_small(results: Path) -> list[RunRecord]:
    """Write runs of four norms at three batch sizes, a diverged and a failed run."""
    runs = []
    for i, name in enumerate(["batch", "group", "instance", "layer_sample"]):
        for j, batch_size in enumerate([2, 8, 32]):
            error = 0.05 + 0.01 * i + 0.02 * j
            runs.append(
                write_run(
                    results,
                    16 + 3 * i + j,
                    config={"norm": norm(name), "batch_size": batch_size, "seed": 0},
                    metrics={"test/error": error},
                    losses=[2.0 - 0.1 * i, 1.5, None, 1.0 - 0.1 * j, 0.5],
                )
            )
    runs.append(
        write_run(
            results,
            40,
            config={"norm": norm("batch"), "batch_size": 2, "seed": 7},
            status="diverged",
            diverged_at=3,
            metrics={"test/error": None},
        )
    )
    runs.append(
        write_run(results, 41, status="failed", error="Traceback\nMemoryError: none")
    )
    return runs


def write_hostile(results: Path, claims: Path) -> None:
    """Write runs and a verdict with markup in all texts that a user can choose."""
    write_run(
        results,
        64,
        config={"norm": norm(IMAGE_TAG), "data": {"name": SCRIPT_TAG, "note": QUOTES}},
        losses=[2.0, 1.0],
    )
    write_run(results, 65, status="failed", error=f"Traceback\nError: {SCRIPT_TAG}")
    plain = json.loads(as_recorded(rich_verdict()))
    name = "<img src=x onerror=alert(1)>"
    plain |= {"claim": name, "statement": SCRIPT_TAG, "source": IMAGE_TAG}
    plain["parts"][0] |= {"sentence": SCRIPT_TAG, "scope": IMAGE_TAG}
    plain["parts"][0] |= {"caveats": [QUOTES]}
    plain |= {
        "seen": [QUOTES],
        "caveats": [QUOTES],
        "confounds": [IMAGE_TAG],
        "command": QUOTES,
    }
    plain["outcomes"][0] |= {"name": IMAGE_TAG, "question": SCRIPT_TAG}
    plain["outcomes"][0]["contrasts"][0] |= {"name": IMAGE_TAG, "reason": QUOTES}
    (claims / name).mkdir(parents=True)
    (claims / name / "verdict.json").write_text(json.dumps(plain))
    write_compact(claims / name / "records.jsonl.gz", [template()])


def write_style(
    results: Path,
    number: int,
    name: str,
    colour: str,
    *,
    content: str = "navy",
    data: Mapping[str, Any] | None = None,
) -> None:
    """Write a style run with a picture: two crops and a style above, outputs below."""
    options = {"name": "photographs", "styles": ["brick"], "crop": 8, **(data or {})}
    task = {"name": "style", "width": 8}
    config = {"norm": norm(name), "data": options, "task": task}
    record = write_run(results, number, config=config)
    picture = Image.new("RGB", (24, 16), "white")
    picture.paste(content, (0, 0, 16, 8))
    picture.paste(colour, (0, 8, 16, 16))
    picture.save(run_folder(results, record.run_id) / "stylised.png")
