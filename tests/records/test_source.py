"""The hash of a run's code: it covers the code that the run uses, and nothing else."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from records_made import a_record

from normbench.config.composition import compose
from normbench.records import source
from normbench.registry import classes

CONFIGS = {
    name: compose(words)
    for name, words in {
        "batch": ["task=cnn", "norm=batch"],
        "group": ["task=cnn", "norm=group"],
        "shapes": ["task=cnn", "norm=batch", "data=shapes"],
        "style": ["task=style", "norm=batch"],
    }.items()
}
CACHED = (
    source._hash_of_choice,
    source._module_of,
    source._closure,
    source._imports,
)


@pytest.fixture
def changed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str], set[str]]:
    """Return a function: add a text to a module -> the CONFIGS whose hash changes."""
    package = tmp_path / "normbench"
    for folder in ("norms", "tasks", "data", "training", "config"):
        shutil.copytree(source.PACKAGE / folder, package / folder)
    monkeypatch.setattr(source, "PACKAGE", package)

    def hashes() -> dict[str, str]:
        for function in CACHED:
            function.cache_clear()
        return {name: source.source_hash(config) for name, config in CONFIGS.items()}

    before = hashes()

    def changed_by(module: str, text: str) -> set[str]:
        path = package / module
        text_before = path.read_text() if path.exists() else None
        path.write_text((text_before or "") + text)
        after = hashes()
        path.unlink()
        if text_before is not None:
            path.write_text(text_before)
        return {name for name in after if after[name] != before[name]}

    return changed_by


def test_a_hash_is_of_the_code_that_a_run_uses(
    changed_by: Callable[[str, str], set[str]],
) -> None:
    new = 'class NewNorm(Norm, name="new"):\n    """A norm."""\n'
    for module, text, changed in (
        ("norms/layers/new.py", new, set()),
        ("norms/layers/group.py", "#", {"group"}),
        ("norms/layers/batch.py", "#", {"batch", "shapes", "style"}),
        ("norms/statistics.py", "#", {"batch", "shapes", "style"}),
        ("norms/sharing.py", "#", set(CONFIGS)),
        ("data/shapes.py", "#", {"shapes"}),
        ("data/mnist5k.py", "#", {"batch", "group"}),
        ("tasks/style.py", "#", {"style"}),
        ("tasks/networks/perceptual.py", "#", {"style"}),  # imported in a function
        ("training/loop.py", "#", set(CONFIGS)),
        ("training/distributed.py", "#", set(CONFIGS)),
        ("training/stylization.py", "#", set()),
        ("config/rates.py", "#", set(CONFIGS)),
        ("config/overrides.py", "#", set()),
    ):
        assert changed_by(module, text) == changed, module


def test_runs_of_different_norms_share_the_code_of_the_loop() -> None:
    def codes(*runs: tuple[str, str]) -> set[str]:
        records = [a_record(f"norm={norm}", "task=cnn") for norm, _ in runs]
        return source.codes(
            record.model_copy(
                update={
                    "environment": record.environment.model_copy(
                        update={"source_hash": source_hash}
                    )
                }
            )
            for record, (_, source_hash) in zip(records, runs, strict=True)
        )

    one, two = ("1" * 6, "2" * 6)
    same, other_norm, other_task = one * 4, one + two + one * 2, one * 2 + two + one
    assert codes() == set()
    assert codes(("batch", same), ("batch", same)) == {same}
    assert codes(("batch", same), ("group", other_norm)) == {one}
    for mixed in (
        (("batch", same), ("batch", other_norm), ("group", same)),
        (("batch", same), ("group", other_task)),
        (("batch", same), ("group", two + one * 3)),
        (("batch", same), ("group", "0" * 16)),
    ):
        assert codes(*mixed) == {code for _, code in mixed}, mixed


def test_every_choice_of_this_package_has_a_module() -> None:
    for kind in source.FOLDERS:
        for name in classes(kind).names():
            assert source._module_of(kind, name) is not None, name
    assert source._module_of("norm", "of_a_user") is None
