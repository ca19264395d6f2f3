"""The pages on the note are those that scripts/write_note makes of the verdicts."""

import json
import re
import runpy
from pathlib import Path
from typing import Any, get_args

import pytest
from documents import ROOT
from verdicts_made import CLAIMS, rich_verdict

from normbench.config.choices import choices
from normbench.verdicts.files import as_recorded
from normbench.verdicts.registration import read_claim
from normbench.verdicts.remarks import PLACE, read_remarks
from normbench.verdicts.verdict import Headline, Result

LANGUAGES = ("en", "ko")
PLACED = "a: {made_up | a against b (clear)}, {made_up | a@2 | test/error}."


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "write_note"))


@pytest.fixture(scope="module")
def note(script: dict[str, Any]) -> Any:
    return script["read_note"]()


def committed(script: dict[str, Any], language: str) -> str:
    return (ROOT / "docs" / script["FILES"][language]).read_text(encoding="utf-8")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_is_that_of_the_verdicts(
    script: dict[str, Any], note: Any, language: str
) -> None:
    page = script["page"](note, language)
    assert page == committed(script, language), "run scripts/write_note"
    # The numbers of a census are in Korean too.
    assert language == "en" or not re.search(r"\d of \d|could not be counted", page)


def test_the_korean_readme_has_the_summaries_of_the_verdicts(
    script: dict[str, Any],
) -> None:
    page = script["korean_readme"]()
    written = (ROOT / "docs" / script["README"]).read_text(encoding="utf-8")
    assert page == written, "run scripts/write_note"
    for name in choices("claim"):
        assert f"(../claims/{name}.md) |" in page, name
    assert not re.search(r"\d of \d|could not be counted", page)


def test_every_sentence_is_on_both_pages_and_has_what_decides_it(
    script: dict[str, Any], note: Any
) -> None:
    assert len(note.sentences) == 30
    for language in LANGUAGES:
        page, at = committed(script, language), 0
        for number, sentence in enumerate(note.sentences, 1):
            heading = f"\n## {note.text('sentence', language)} {number}\n\n"
            at = page.index(f"{heading}> {sentence.quote}\n", at + 1)
    for sentence in note.sentences:
        assert not (sentence.parts and sentence.definition), sentence.quote
        assert sentence.parts or sentence.remark, sentence.quote
        if sentence.parts or sentence.definition:
            assert sentence.quick and sentence.seconds <= 120, sentence.quote


def test_every_part_that_decides_a_sentence_is_registered(note: Any) -> None:
    for part in {part for sentence in note.sentences for part in sentence.parts}:
        claim, _, name = part.partition("/")
        assert claim in choices("claim"), part
        assert name in read_claim(claim).parts, part


def test_all_texts_have_korean_words(script: dict[str, Any], note: Any) -> None:
    texts, metrics = set(), set()
    for part in {part for sentence in note.sentences for part in sentence.parts}:
        claim, _, name = part.partition("/")
        registered = read_claim(claim)
        texts |= {registered.parts[name].sentence, registered.parts[name].scope}
        # A census rule has a name and a part, as a contrast has.
        rules = registered.model_dump()["census"] or []
        texts |= {rule["name"] for rule in rules if rule["part"] == name}
        for design in (*registered.mechanisms.values(), *registered.outcomes.values()):
            for contrast in design.contrasts:
                if contrast.part == name:
                    texts.add(contrast.name)
                    metrics |= {contrast.metric, *contrast.also}
    assert set(note.korean) == texts
    others = {script["NO_VERDICT"], script["BY_DEFINITION"]}
    assert set(note.headlines) == {*get_args(Headline), *others}
    results = {*get_args(Result)} - {"not tested"}
    assert set(note.words) == {"theorem", *results, *metrics}


def test_findings_of_the_note_have_the_same_numbers_in_both_languages(
    note: Any,
) -> None:
    parts = {part for sentence in note.sentences for part in sentence.parts}
    for path in CLAIMS.glob("*/remarks.yaml"):
        remarks = read_remarks(path)
        assert remarks is not None
        of_the_note = {
            part for part in remarks.findings if f"{path.parent.name}/{part}" in parts
        }
        assert of_the_note <= set(remarks.findings_ko) <= set(remarks.findings), path
        for name, korean in remarks.findings_ko.items():
            english = PLACE.findall(remarks.findings[name])
            assert sorted(PLACE.findall(korean)) == sorted(english), (path, name)
        assert remarks.summary, f"{path} has no summary"
        places = [PLACE.findall(text) for text in (remarks.summary, remarks.summary_ko)]
        assert sorted(places[0]) == sorted(places[1]), path


@pytest.mark.slow
def test_headlines_findings_and_figures_come_from_the_verdict(
    script: dict[str, Any], note: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "padding-tokens"
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "made_up.svg").touch()
    verdict = rich_verdict()
    names = ("harm", "because", "distort")
    parts = [
        part.model_copy(update={"name": name, "sentence": f"Sentence {name}."})
        for part, name in zip(verdict.parts, names, strict=True)
    ]
    verdict = verdict.model_copy(update={"parts": parts})
    (folder / "verdict.json").write_text(as_recorded(verdict))

    def lines(language: str) -> list[str]:
        """Return what the page says of the first part, which has several statements."""
        page = script["page"](note, language, tmp_path)
        assert (
            page.count("](../results/claims/padding-tokens/figures/made_up.svg)") == 1
        )
        first = page.split("*Sentence harm.*")[1]
        return first.partition("\n- **")[0].splitlines()

    english, korean = lines("en"), lines("ko")
    assert min(len(english), len(korean)) > 3
    assert "%p [" in str(korean) and "points" not in str(korean)
    headline = f"- **{note.headlines[parts[0].headline]}**: *Sentence harm.*"
    assert headline in script["page"](note, "ko", tmp_path)
    remarks = {
        "registration": verdict.registration,
        "findings": {"harm": f"English {PLACED}"},
        "findings_ko": {"harm": f"한국어 {PLACED}"},
    }
    (folder / "remarks.yaml").write_text(json.dumps(remarks))
    (in_english, *_), (in_korean, *_) = lines("en"), lines("ko")
    assert re.match(r" English a: [-+][\d.]+ points \[", in_english)
    finding = in_english.partition(" Scope: ")[0]
    finding = finding.replace("English", "한국어").replace(" points", "%p")
    assert in_korean.startswith(finding)
    remarks["registration"] = "another"
    (folder / "remarks.yaml").write_text(json.dumps(remarks))
    assert lines("ko") == korean
