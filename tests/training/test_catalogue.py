"""The facts that `list norms` prints of each norm."""

import runpy
from pathlib import Path

import pytest
from documents import ROOT

from normbench.config.choices import choices
from normbench.config.norm_facts import declared, other_names, summaries
from normbench.errors import RequestError
from normbench.norms import REGISTRY, Norm
from normbench.tasks.base import REGISTRY as TASKS
from normbench.training.catalogue import Facts, catalogue

MAX_DESCRIPTION = 57
"""Characters of a description that `list norms` prints in 100 columns."""


@pytest.fixture(scope="module")
def facts() -> dict[str, Facts]:
    return {norm.name: norm for norm in catalogue()}


def test_every_norm_has_its_facts(facts: dict[str, Facts]) -> None:
    assert list(facts) == list(choices("norm"))
    for norm in facts.values():
        assert len(norm.description) > 10
        assert norm.tasks or norm.name == "keep"
        if norm.name in REGISTRY.names():
            assert norm.source
            assert norm.axes
            assert norm.parameters
        folklore = (norm.source or "folklore") == "folklore"
        assert (norm.year is None) == folklore, norm.name
    assert (facts["group"].year, facts["group_permuted"].year) == (2018, 2018)
    assert facts["batch"].also_called == ["SyncBatchNorm"]
    assert facts["scale"].options == {"eps": 1e-5}
    assert "sqrt(" in (facts["rms"].text or "")
    assert facts["batch"].uses_other_samples
    assert facts["batch"].precisions == "fp32 bf16 fp16"
    assert (facts["batch"].one_call, facts["group"].one_call) == (True, None)
    assert facts["power"].precisions == "fp32 bf16"
    formulas = [facts[name].parameters for name in ("batch", "rms", "none")]
    assert formulas == ["2 C", "1 C", "0"]
    assert facts["layer_shape"].parameters == "2 C x positions"
    assert facts["layer_shape"].tasks == ["cnn", "style"]
    tasks = [name for name in TASKS.names() if TASKS.get(name).has_default_network]
    assert facts["layer"].tasks == tasks
    assert facts["layer"].source is None


def test_the_page_of_the_norms_is_that_of_the_code(facts: dict[str, Facts]) -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "write_norms"))
    words = script["words_of_pictures"]()
    page = script["page"](facts.values(), words)
    assert script["PAGE"].read_text() == page, "run scripts/write_norms"
    assert {name for name, norm in facts.items() if norm.text} == set(words)


def test_a_norm_may_declare_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(REGISTRY.get("instance"), "source", Norm.source)
    monkeypatch.setattr(REGISTRY.get("instance"), "axes", Norm.axes)
    (tmp_path / "norm").mkdir()
    for groups in (32, 5):
        (tmp_path / "norm" / f"group{groups}.yaml").write_text(
            f"# {groups} groups\nname: group\nnum_groups: {groups}\n"
        )
    facts = {norm.name: norm for norm in catalogue(tmp_path)}
    instance = facts["instance"]
    assert (instance.source, instance.year, instance.axes) == (None, None, None)
    assert instance.parameters == "2 C"
    # A yaml of the user's own is among them.
    assert facts["group32"].parameters == "2 C"
    assert facts["group32"].description == "32 groups"
    assert facts["group5"].parameters is None  # 5 divides no power of two
    assert facts["group5"].tasks == []
    assert [norm.name for norm in catalogue(tmp_path, ["group5"])] == ["group5"]
    # `list norms` reads the same facts without torch.
    lines = {norm.name: norm for norm in summaries(tmp_path)}
    assert lines["group5"].description == "5 groups"
    assert lines["group5"].year == 2018


def test_facts_read_from_the_source_are_those_of_the_classes() -> None:
    for name, norm in declared().items():
        cls = REGISTRY.get(name)
        assert norm.source == cls.source, name
        assert norm.uses_other_samples == cls.uses_other_samples, name
        assert norm.also_called == vars(cls).get("also_called", ()), name
        assert norm.year or norm.source == "folklore" or name == "keep", name
    assert {*REGISTRY.names()} <= {*declared()}
    assert len(other_names()) == sum(len(n.also_called) for n in declared().values())
    for line in summaries(None):
        assert 10 < len(line.description) <= MAX_DESCRIPTION, line.name
        assert line.uses_other_samples is not None or line.name == "keep"


def test_a_yaml_that_no_run_could_take_is_named(tmp_path: Path) -> None:
    (tmp_path / "norm").mkdir()
    file = tmp_path / "norm" / "mine.yaml"
    for text, message in (
        ("", "needs a line `name: NORM`"),
        ("num_groups: 2\n", "needs a line `name: NORM`"),
        ("name: [\n", "is not yaml"),
        ("name: group\ngroups: 2\n", ": norm.groups is not an option of norm=group"),
    ):
        file.write_text(text)
        with pytest.raises(RequestError, match=f"mine.yaml ?{message}"):
            catalogue(tmp_path)
