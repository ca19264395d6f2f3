"""What `list norms` says of each norm."""

from normbench.catalogue import catalogue
from normbench.choices import choices
from normbench.norms import REGISTRY
from normbench.tasks.base import REGISTRY as TASKS


def test_every_norm_has_its_facts() -> None:
    facts = {norm.name: norm for norm in catalogue()}
    assert list(facts) == list(choices("norm"))
    for norm in facts.values():
        assert len(norm.description) > 10
        if norm.name in REGISTRY.names():
            assert norm.source
            assert norm.axes
            assert norm.parameters
    assert facts["group"].year == 2018
    assert facts["batch"].uses_other_samples
    assert [facts[name].parameters for name in ("batch", "rms", "none")] == [
        "2 C",
        "1 C",
        "0",
    ]
    assert facts["layer_shape"].parameters == "2 C x positions"
    assert facts["layer_shape"].tasks == ["cnn", "style"]
    assert facts["layer"].tasks == TASKS.names()
    assert facts["layer"].source is None


def test_every_norm_works_in_some_task() -> None:
    assert all(norm.tasks for norm in catalogue())
