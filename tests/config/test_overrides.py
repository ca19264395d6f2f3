"""Overrides: values keep their text and type, and wrong overrides are refused."""

from typing import Any

import pytest
from hydra.core.override_parser.types import Quote, QuotedString
from hypothesis import example, given, settings
from hypothesis import strategies as st

from normbench.claims.comparison import comparison
from normbench.config.composer import Composer
from normbench.config.composition import compose
from normbench.config.norm_facts import other_names
from normbench.config.overrides import grid, parse, words
from normbench.config.suggestions import suggested_key
from normbench.errors import RequestError, did_you_mean
from normbench.sweeps import plan as planning
from normbench.sweeps.plan import make_plan

SMALL = ["task=cnn", "data.size=14", "tracker=none"]
KEY = "tracker.project"
shared_composer = Composer()

TEXTS = st.text(
    st.characters(exclude_categories=["C", "Zl", "Zp"]) | st.sampled_from("\"'\\@,=#"),
    max_size=12,
).filter(lambda text: "${" not in text)
"""Texts of printable characters without "${", which begins an interpolation."""


def composed(override: str) -> list[Any]:
    """Return the values of KEY in the configs of a grid of one override."""
    cells = grid([override], None)
    return [shared_composer(cell)["tracker"]["project"] for cell in cells]


def compared(arms: list[str], overrides: list[str]) -> list[Any]:
    """Return the value of KEY in every cell of a comparison; None if it is not set."""
    numbers = {"metric": "test/error", "margin": 0.01, "rates": [0.1], "gate": 0.5}
    claim = comparison(arms, overrides, seeds=[6], **numbers)
    (design,) = claim.designs().values()
    values = []
    for cell in design.all_cells():
        parsed = map(parse, words(design.overrides(cell)))
        given = {override.key_or_group: override.value() for override in parsed}
        values.append(given.get(KEY))
    return values


@settings(deadline=None, max_examples=8)
@example("in/my flowers, v=2 (\u00e9t\u00e9) #1", "in/b")
@example("in/\u82b1 \u30c7\u30fc\u30bf", "1")
@example("1", "true")
@example("a\\", "\\'\"")
@given(TEXTS, TEXTS)
def test_every_printable_text_is_composed_unchanged_in_every_form(
    first: str, second: str
) -> None:
    for quote in Quote:
        one = QuotedString(first, quote).with_quotes()
        two = QuotedString(second, quote).with_quotes()
        assert composed(f"{KEY}={one}") == [first]
        assert composed(f"++{KEY}={one}") == [first]
        assert composed(f"{KEY}=[{one},{two}]") == [[first, second]]
        assert composed(f"{KEY}={{x: {one}}}") == [{"x": first}]
        assert composed(f"{KEY}=[{one}],[{two}]") == [[first], [second]]
        for sweep in ("{},{}", "choice({},{})", "tag(t,choice({},{}))"):
            assert composed(f"{KEY}={sweep.format(one, two)}") == [first, second]
        for function in ("sort", "shuffle"):
            values = composed(f"{KEY}={function}({one},{two})")
            assert sorted(values) == sorted([first, second])
        arm = f"norm=group {KEY}={one}"
        assert words(arm) == ["norm=group", f"{KEY}={one}"]
        assert compared([arm, "norm=batch"], []) == [first, None]
        assert compared(["norm=batch,group"], [f"{KEY}={one}"]) == [first, first]
        if first != second:
            assert compared([f"{KEY}={one},{two}"], []) == [first, second]
            levels = compared(["norm=batch,group"], [f"{KEY}=choice({one},{two})"])
            assert levels == [first, second, first, second]


def test_types_are_kept_in_every_form() -> None:
    texts = {'"1"': "1", "1": 1, "1.0": 1.0, "true": True, '"true"': "true"}
    texts |= {"null": None, '"null"': "null", "1e3": 1000.0, "a b": "a b", "''": ""}
    for text, value in texts.items():
        for form in ("{}", "{},x", "choice({},x)", "tag(t,choice({}))", "{},{}"):
            if "choice" in form and value is None:
                continue  # Hydra does not allow null in a choice
            first, *_ = composed(f"{KEY}={form.replace('{}', text)}")
            assert first == value, (form, text)
            assert type(first) is type(value), (form, text)


def test_words_are_split_as_people_write_them() -> None:
    cases = {
        'norm=group data.path="my flowers, v=2"': 2,
        "norm=group 'data.path=\"my flowers\"'": 2,
        "  norm=group\tseed=1\n": 2,
        '"norm=group"': 1,
        "data.path=in/my\\ flowers": 1,
        "": 0,
    }
    for text, count in cases.items():
        assert len(words(text)) == count, text
    assert words("'a=\"b c\"'") == ['a="b c"']
    for text in ("norm='group", "'norm=group", 'a="b" c="'):
        with pytest.raises(RequestError, match="quotation"):
            words(text)


def runs_of(*overrides: str, arms: tuple[str, ...] = ()) -> list[tuple[str, int]]:
    plan = make_plan([*SMALL, *overrides], arms)
    return [(config.norm.name, config.seed) for config in plan.runs.values()]


def test_sweeps_in_sweeps_are_flat() -> None:
    cases = {
        "seed=range(0,3),7": [0, 1, 2, 7],
        "seed=7,range(0,2)": [7, 0, 1],
        "seed=choice(choice(1,2),3)": [1, 2, 3],
        "seed=range(0,2),range(5,7)": [0, 1, 5, 6],
    }
    for text, seeds in cases.items():
        values = [cell[0].value() for cell in grid([text], None)]
        assert values == seeds, text
    names = [cell[0].value() for cell in grid(["norm=glob(gro*),batch"], None)]
    assert names == ["group", "group_permuted", "batch"]


def test_equal_arms_and_repeated_values_are_one_run() -> None:
    assert runs_of("norm=batch,batch") == [("batch", 0)]
    assert runs_of(arms=("norm=batch", "norm=batch")) == [("batch", 0)]
    plan = make_plan(SMALL, ["norm=batch", "norm=batch reparam=weight_std"])
    reparams = [config.reparam for config in plan.runs.values()]
    assert reparams == ["none", "weight_std"]
    plan = make_plan(SMALL, ["norm=batch", "norm=batch lr=0.2"])
    assert [config.lr for config in plan.runs.values()] == [0.1, 0.2]


def test_ctrl_c_during_a_composition_raises_keyboard_interrupt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise AttributeError("half of a config")

    monkeypatch.setattr("normbench.config.composer._built_in", {})
    monkeypatch.setattr("hydra.compose", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compose(["lr=0.1"])


def test_a_caller_may_change_the_result_of_a_composer() -> None:
    composer, cell = Composer(), [parse("norm=batch")]
    first = composer(cell)
    first["norm"]["eps"] = first.pop("engine")
    first["data"]["augment"].append("flip")
    assert composer(cell) == Composer()(cell)


def test_a_sweep_over_a_key_that_is_not_hashed_is_refused() -> None:
    for override, key in (
        ("compile=true,false", "compile"),
        ("device=cpu,auto", "device"),
        ("probes=[],[discrepancy]", "probes"),
        ("tracker=none,wandb", "tracker.name"),
        ("evaluations=2,3", "evaluations"),
    ):
        with pytest.raises(RequestError, match=f"^{key} is not part of a run.s id"):
            make_plan([*SMALL, override])
    with pytest.raises(RequestError, match=r"^threads is not part of a run.s id"):
        make_plan(SMALL, ["norm=batch", "norm=batch threads=2"])


NINES = "9" * 5000
BAD = [
    ("seed.x=1", ["seed.x is not a key"]),
    ("lr.a=1", ["lr.a is not a key", "lr=NUMBER"]),
    (f"seed={NINES}", ["too many digits"]),
    (f"seed={NINES[:4000]}", ["64 bits"]),
    ("seed=" + "[" * 2000 + "]" * 2000, ["nested too deeply"]),
    ("seed=range(nan,3)", ["finite"]),
    ("seed=range(0,inf)", ["finite"]),
    ("seed=range(0,3,0)", ["step"]),
    ("seed=choice(range(0,3),7)", ["RangeSweep is not allowed here"]),
    ("seed=[range(0,3)]", ["a list or a mapping cannot contain"]),
    ("norm={name: choice(batch,group)}", ["cannot contain"]),
    ("norm={name: group, num_groups: 2}", ["norm.num_groups is not a key"]),
    ("seed=interval(0,1),3", ["infinitely many"]),
    ("norm=glob(x*),batch", ["does not match any of"]),
    ('norm.eps="${a"', ["norm.eps", "${KEY}"]),
    ("norm.eps=${nosuch:1}", ["norm.eps", "nosuch"]),
    ("norm.eps=${norm.eps}", ["norm.eps", "ecursi"]),
    ("epochs=3", ["'budget.epochs'"]),
    ("max_steps=3", ["'budget.max_steps'"]),
    ("num_groups=3", ["'norm.num_groups'", "norm=", "group"]),
    ("norm.num_groups=3", ["of norm=batch", "group", "have it"]),
    ("learning_rate=0.1", ["'lr'"]),
    ("weight_decay=0.1", ["'optimizer.weight_decay'"]),
    ("momentum=0.1", ["optimizer.momentum"]),
    ("maxsteps=3", ["'budget.max_steps'"]),
    ("workers=3", ["'engine.workers'"]),
    ("experiment=x", ["+experiment=x"]),
    ("optimizer.lr=0.1", ["lr"]),
    ("optimizer={lr: 0.5}", ["the key of the learning rate is lr"]),
    ("optimizer={lr: 0.5},{lr: 1}", ["the key of the learning rate is lr"]),
    ("+optimizer={lr: 0.5}", ["the key of the learning rate is lr"]),
    ("optimizer.name=adamw", ["optimizer.momentum is not an", "write optimizer=adamw"]),
    ("optimizer.name=[a]", ["optimizer.name", "sgd"]),
    ("data=my/images", ["is unknown; for data", "data=folder data.path=my/images"]),
    ("data=/tmp", ["write data=folder data.path=/tmp"]),
    ("data=my/Names.CSV", ["write data=text_csv data.path=my/Names.CSV"]),
    ("data=foldr", ["did you mean 'folder'?"]),
    ("engine.name=x", ["engine=x is unknown"]),
    ("+lr.foo=1", ["lr.foo", "sgd"]),
    ("~engine", ["engine"]),
    ("~seed", ["seed is missing"]),
    ("=1", ["not an override"]),
    ("~", ["not an override"]),
    ("x" * 5000 + "=1", ["is not a key"]),
]
"""Overrides, and parts of the messages that refuse them."""


def test_a_bad_override_is_refused_in_one_line() -> None:
    for override, parts in BAD:
        with pytest.raises(RequestError) as refused:
            make_plan([*SMALL, override])
        message = str(refused.value)
        assert [part for part in parts if part not in message] == [], message
        assert len(message.splitlines()) == 1, override
        assert len(message) < 900, override


def test_the_end_of_a_key_suggests_the_key() -> None:
    for key, right in (
        ("groups", "norm.num_groups"),
        ("depth", "task.depth"),
        ("epochs", "budget.epochs"),
        ("steps", "budget.max_steps"),
        ("lerning_rate", "lr"),
    ):
        suggestion = suggested_key(key, KEYS, None)
        assert suggestion.startswith(f"did you mean '{right}'"), suggestion
        assert suggestion.count(" or ") <= 2


KEYS = ["lr", "task.depth", "budget.epochs", "budget.max_steps"]


def test_common_names_of_norms_suggest_the_name_here_first() -> None:
    cases = {
        "batch": [
            "BatchNorm",
            "batchnorm",
            "BatchNorm2d",
            "nn.BatchNorm2d",
            "BN",
            "bn",
        ],
        "group": ["GroupNorm", "GN", "group_norm", "GroupNormalization"],
        "layer": ["LayerNorm", "LN", "layer-norm"],
        "instance": ["InstanceNorm", "InstanceNorm2d", "IN"],
        "rms": ["RMSNorm", "RMS", "rms_norm"],
        "filter_response": ["FRN"],
        "evonorm_s0": ["EvoNormS0", "EvoNorm-S0"],
        "none": ["None"],
    }
    for other, name in other_names().items():
        cases.setdefault(name, []).append(other)
    for right, spellings in cases.items():
        for spelling in spellings:
            with pytest.raises(RequestError) as refused:
                parse(f"norm={spelling}")
            assert f"did you mean '{right}'?" in str(refused.value), spelling
    assert did_you_mean("CIFAR-10", ["cifar10", "cifar100"]).startswith(
        "did you mean 'cifar10'"
    )


SCRAPS = st.sampled_from(
    "norm data task seed lr batch group 1 0 -1 0.5 nan inf null true = , . ( ) [ ] "
    "{ } : + ++ ~ @ / \\ ' \" ${ } ${seed} choice range glob sort shuffle tag interval "
    "int str float bool norm. data. optimizer budget tracker engine epochs * ??? _ x "
    "name num_groups eps wandb none \u00e9".split()
)


@settings(deadline=None, max_examples=100)
@given(st.lists(SCRAPS, max_size=12).map("".join), st.booleans())
def test_no_text_is_a_traceback(text: str, as_key: bool) -> None:
    override = text if as_key else f"norm.eps={text}"
    try:
        for cell in grid([override], None):
            planning.resolve(shared_composer(cell))
            break
    except RequestError as error:
        assert str(error)
