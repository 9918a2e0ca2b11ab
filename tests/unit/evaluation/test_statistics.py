"""Intervals and tests against published values, scipy and formulas written out."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap, norm

from lssl_ray.errors import DataError
from lssl_ray.evaluation.statistics import compare_paired, compute_interval, summarise


def test_summarise_sample_deviation_by_hand() -> None:
    summary = summarise([0.2, 0.4, 0.9])
    assert summary.mean == pytest.approx(0.5)
    assert summary.std == pytest.approx(math.sqrt((0.09 + 0.01 + 0.16) / 2))


def test_summarise_one_value_has_no_deviation() -> None:
    summary = summarise([0.3])
    assert (summary.mean, summary.std) == (0.3, None)


def test_summarise_nothing_is_refused() -> None:
    with pytest.raises(DataError):
        summarise([])


@pytest.mark.parametrize(
    ("num_right", "num_videos", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_compute_interval_is_wilsons_as_published(
    num_right: int, num_videos: int, low: float, high: float
) -> None:
    """Newcombe, Statistics in Medicine 17 (1998), pages 857-872, table I, method 3."""
    interval = compute_interval([True] * num_right + [False] * (num_videos - num_right))
    assert interval.low == pytest.approx(low, abs=5e-5)
    assert interval.high == pytest.approx(high, abs=5e-5)
    assert interval.value == num_right / num_videos


def test_compute_interval_all_and_none_right_mirror_each_other() -> None:
    none, everything = compute_interval([False] * 5), compute_interval([True] * 5)
    assert (none.low, none.value) == (0.0, 0.0)
    assert (everything.value, everything.high) == (1.0, 1.0)
    # Without a right one Wilson's upper end is z^2 / (n + z^2).
    z = norm.ppf(0.975)
    assert none.high == pytest.approx(z**2 / (5 + z**2))
    assert everything.low == pytest.approx(1 - none.high)


def test_intervals_say_how_they_were_made() -> None:
    alone = compute_interval([True, False, True]).to_json()
    paired = compare_paired(*build_pair(1, 3, 6)).to_json()["difference"]
    assert (alone["method"], alone["bootstrap_draws"], alone["videos"]) == ("wilson", None, 3)
    assert (paired["method"], paired["bootstrap_draws"]) == ("bootstrap", 10_000)


def test_compute_interval_no_video_is_refused() -> None:
    with pytest.raises(DataError):
        compute_interval([])


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_compute_interval_confidence_outside_its_range_is_refused(confidence: float) -> None:
    with pytest.raises(DataError, match="confidence"):
        compute_interval([True], confidence=confidence)


def build_pair(only_first: int, only_second: int, both: int) -> tuple[list[bool], list[bool]]:
    first = [True] * only_first + [False] * only_second + [True] * both
    second = [False] * only_first + [True] * only_second + [True] * both
    return first, second


def test_compare_paired_few_differences_use_the_exact_test() -> None:
    comparison = compare_paired(*build_pair(3, 11, 36))
    # Twice the chance of at most 3 heads in 14 fair throws.
    tail = sum(math.comb(14, k) for k in range(4)) / 2**14
    assert comparison.test == "exact"
    assert comparison.p_value == pytest.approx(2 * tail)
    assert comparison.p_value == pytest.approx(binomtest(11, 14).pvalue)
    assert comparison.difference.value == pytest.approx(8 / 50)
    assert (comparison.num_only_first, comparison.num_only_second) == (3, 11)


def test_compare_paired_many_differences_use_the_corrected_chi_square() -> None:
    comparison = compare_paired(*build_pair(40, 70, 500))
    statistic = (abs(40 - 70) - 1) ** 2 / 110
    # The survival function of chi-square with one degree of freedom, written out.
    assert comparison.test == "chi_square"
    assert comparison.p_value == pytest.approx(math.erfc(math.sqrt(statistic / 2)))


def test_compare_paired_switches_tests_at_25_differences() -> None:
    assert compare_paired(*build_pair(12, 12, 0)).test == "exact"
    assert compare_paired(*build_pair(12, 13, 0)).test == "chi_square"
    assert compare_paired(*build_pair(13, 13, 0)).p_value == 1.0


def test_compare_paired_equal_models_do_not_differ() -> None:
    comparison = compare_paired([True, False], [True, False])
    assert comparison.p_value == 1.0
    assert (comparison.difference.low, comparison.difference.high) == (0.0, 0.0)


def test_compare_paired_interval_agrees_with_scipy_bootstrap() -> None:
    first, second = build_pair(30, 55, 115)
    difference = compare_paired(first, second, num_draws=20_000).difference
    steps = np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
    expected = bootstrap(
        (steps,),
        np.mean,
        n_resamples=4_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert difference.low == pytest.approx(expected.low, abs=0.011)
    assert difference.high == pytest.approx(expected.high, abs=0.011)


def test_compare_paired_is_narrower_than_two_intervals() -> None:
    # Models that agree on most videos: pairing is what shows the difference.
    first, second = build_pair(2, 30, 468)
    first, second = [*first, *[False] * 500], [*second, *[False] * 500]
    paired = compare_paired(first, second)
    alone = compute_interval(second)
    assert paired.difference.high - paired.difference.low < alone.high - alone.low
    assert paired.difference.low > 0


def test_compare_paired_other_number_of_videos_is_refused() -> None:
    with pytest.raises(DataError, match="2 videos"):
        compare_paired([True, True], [True])


def test_compare_paired_to_json_is_in_percent() -> None:
    values = compare_paired(*build_pair(1, 3, 6)).to_json()
    assert values["difference"]["percent"] == 20.0
    assert (values["right_only_first"], values["right_only_second"]) == (1, 3)
    assert values["mcnemar_test"] == "exact"
