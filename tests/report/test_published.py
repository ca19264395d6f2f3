"""The published figures that the figures of verdicts show."""

from normbench.config.choices import choices
from normbench.report.published import published
from normbench.verdicts.registration import read_claim


def test_published_series_name_existing_designs_arms_and_levels() -> None:
    for source in published():
        all_errors = source.series.values()
        levels = {level for errors in all_errors for level in errors}
        for name, designs in source.shown.items():
            claim = read_claim(name)
            for design_name in designs:
                design = {**claim.mechanisms, **claim.outcomes}[design_name]
                if levels == {"-"}:
                    assert source.series.keys() <= design.arms.keys()
                else:
                    assert levels & design.levels.keys()
                    assert source.series.keys() <= choices("norm").keys()
        for errors in all_errors:
            assert all(0 < error < 1 for error in errors.values())


def test_published_series_have_the_numbers_of_the_claim() -> None:
    wu_he, *_ = published()
    lines = " ".join(read_claim("batch-size-dependence").published)
    for norm, name in (("batch", "BN"), ("group", "GN")):
        errors = (wu_he.series[norm][level] for level in ("32", "16", "8", "4", "2"))
        assert f"{name} {'/'.join(f'{100 * error:.1f}' for error in errors)}" in lines
