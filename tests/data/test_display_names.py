"""The data set of display names, and the script that made it."""

import runpy
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from normbench.data import display_names
from normbench.data.base import Tokens
from normbench.data.display_names import Name, distinct_names

ROOT = Path(__file__).parents[2]


def test_the_display_names_are_those_of_existing_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "babel", None)
    assert "babel" not in (ROOT / "pyproject.toml").read_text().lower()
    names = distinct_names()
    assert len(names) == 9769
    assert names == sorted(names)
    texts = Counter(name.text.casefold() for name in names)
    assert set(texts.values()) == {1}
    languages = Counter(name.language for name in names)
    assert sorted(languages) == list(display_names.LANGUAGES)
    assert min(languages.values()) > 500
    assert Name(("territories", "DE"), "de", "Deutschland") in names
    data = display_names.DisplayNames().load(0)
    assert isinstance(data, Tokens)
    sizes = {part: len(index) for part, index in data.splits.items()}
    assert sizes == {"train": 6876, "val": 1089, "test": 1804}  # in the documents
    notice = display_names.FILE.with_name("LICENSE.unicode").read_text("utf-8")
    assert "UNICODE LICENSE V3" in notice
    assert "Unicode, Inc." in notice


def a_babel(version: str, names: Mapping[str, Mapping[str, str]]) -> ModuleType:
    """Make a package "babel" with these names of territories per language."""
    babel = ModuleType("babel")

    def locale(language: str) -> SimpleNamespace:
        territories = names.get(language, {})
        return SimpleNamespace(
            currencies={}, languages={}, scripts={}, territories=territories
        )

    vars(babel).update(__version__=version, Locale=locale)
    return babel


def test_the_script_keeps_names_of_one_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    territories = {
        "de": {"AT": "Österreich", "DE": "Deutschland", "CD": "Kongo", "CG": "kongo"},
        "fr": {"AT": "Autriche", "JP": "Japon"},
        "en": {"AT": "Austria", "JP": "Japan"},
        "es": {"AT": "AUSTRIA", "JP": "Japón"},
    }
    script, made = str(ROOT / "scripts" / "make_display_names"), tmp_path / "names"
    monkeypatch.setattr(sys, "argv", [script, "--output", str(made)])
    monkeypatch.setitem(sys.modules, "babel", a_babel("2.18.0", territories))
    runpy.run_path(script, run_name="__main__")
    monkeypatch.setattr(display_names, "FILE", made)
    assert [(name.language, name.text) for name in distinct_names()] == [
        ("de", "Österreich"),
        ("fr", "Autriche"),
        ("de", "Kongo"),
        ("de", "Deutschland"),
        ("en", "Japan"),
        ("es", "Japón"),
        ("fr", "Japon"),
    ]
    first = made.read_bytes()
    runpy.run_path(script, run_name="__main__")
    assert made.read_bytes() == first
    monkeypatch.setitem(sys.modules, "babel", a_babel("2.19.0", {}))
    with pytest.raises(SystemExit, match=r"Babel 2\.19\.0 .* pip install Babel==2\.18"):
        runpy.run_path(script, run_name="__main__")
    assert made.read_bytes() == first
