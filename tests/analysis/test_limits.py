"""Limits as people type them: what is read, its canonical text, and errors that point at the wrong part."""

from __future__ import annotations

import pytest

from servebench.analysis import limits, metrics
from servebench.analysis.metrics import OfRequests
from servebench.errors import InputError


@pytest.mark.parametrize(
    ("text", "canonical", "column", "value"),
    [
        ("ttft_p99<2s", "ttft_p99<2s", "ttft_p99_s", 2.0),
        (" tpot_p50 <= 40 ms ", "tpot_p50<=40ms", "tpot_p50_s", 0.04),
        ("itl_p99.90<.5s", "itl_p99.9<0.5s", "itl_p99.9_s", 0.5),
        ("e2e_latency_p99<1.50s", "e2e_p99<1.5s", "e2e_latency_p99_s", 1.5),
        ("e2e_p99_s<1s", "e2e_p99<1s", "e2e_latency_p99_s", 1.0),
        ("TTFT_mean>=1s", "ttft_mean>=1s", "ttft_mean_s", 1.0),
        ("ttft<2s", "ttft<2s", "ttft_s", 2.0),
        ("ttft_from_schedule_p99<2s", "ttft_from_schedule_p99<2s", "ttft_from_schedule_p99_s", 2.0),
        ("error_rate<1%", "error_rate<1%", "failed_share", 0.01),
        ("failed_share<=0.005", "error_rate<=0.5%", "failed_share", 0.005),
        ("request_throughput>5", "request_throughput>5", "request_throughput_per_s", 5.0),
        ("output_token_throughput>=1234567.5", "output_token_throughput>=1234567.5", None, 1234567.5),
        ("interactivity_p10>20", "interactivity_p10>20", "interactivity_p10_per_s", 20.0),
        ("ttft_p99<+5%", "ttft_p99<+5%", "ttft_p99_s", 1.05),
        ("request_throughput>-2.5%", "request_throughput>-2.5%", "request_throughput_per_s", 0.975),
    ],
)
def test_a_limit_is_read(text: str, canonical: str, column: str | None, value: float) -> None:
    (limit,) = limits.parse(text)
    assert str(limit) == canonical and limit.value == pytest.approx(value)
    assert limit.column == (column or "output_token_throughput_per_s")
    assert limits.parse(canonical) == (limit,), "the canonical text is read as the same"


def test_several_are_separated_by_commas() -> None:
    found = limits.parse("ttft_p99<2s, tpot_p99<100ms,error_rate<1%")
    assert limits.joined(found) == "ttft_p99<2s,tpot_p99<100ms,error_rate<1%"


def test_every_metric_can_be_limited() -> None:
    for metric in metrics.METRICS:
        columns = [metric.name]
        if isinstance(metric, OfRequests):
            columns = [metric.column(statistic) for statistic in metric.statistics]
        for column in columns:
            unit = "%" if metric.name in limits.SHARES else limits.UNITS.get(metric.unit, "")
            (limit,) = limits.parse(f"{column}<1{unit}")
            assert limit.column == column


def test_a_limit_admits_what_its_operator_says() -> None:
    values = {"<": [True, False, False], "<=": [True, True, False], ">": [False, False, True]}
    for sign, expected in values.items():
        (limit,) = limits.parse(f"ttft_p99{sign}2s")
        assert [limit.admits(value) for value in (1.9, 2.0, 2.1)] == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ttft_p99<2", '--limits "ttft_p99<2": the limit needs a unit: write ttft_p99<2s or ttft_p99<2ms'),
        ("ttft_p99<2m", "the unit m is not known: write ttft_p99<2s or ttft_p99<2ms"),
        ("ttft_p99<2%", "a time has no %; write ttft_p99<2s, or ttft_p99<+2% against a baseline"),
        ("ttft99<2s", "no metric ttft99: did you mean ttft_p99?"),
        ("throughput>5", "did you mean request_throughput?"),
        ("nonsense<5", "no metric nonsense; write for example ttft_p99"),
        ("ttft=2", "= is not one of < <= > >=; write ttft<2s"),
        ("request_throughput=5", "write request_throughput>5"),
        ("ttft_p99=<2s", "=< is not one of < <= > >=; write ttft_p99<2s"),
        ("ttft_p99 2s", "there is no < or > in it; write ttft_p99<2s"),
        ("ttft_p99", "in quotes: the shell takes an unquoted <"),
        ("ttft_p99<abc", "'abc' is not a number with a unit; write for example ttft_p99<2s"),
        ("ttft_p99<", "is not a number with a unit"),
        ("ttft_p99<2s tpot_p99<1s", "put a comma between them"),
        ("ttft_p99<0s", "no time is below 0"),
        ("ttft_p100<1s", "p100 is not a percentile between 0 and 100"),
        ("request_throughput_mean>5", "did you mean request_throughput?"),
        ("request_throughput>5s", "takes no unit; write request_throughput>5"),
        ("error_rate<5", "a share is at most 100%; write error_rate<5%"),
        ("error_rate<5s", "the unit s is not known: write error_rate<5%"),
        ("ttft_p99<+5", "write ttft_p99<+5%"),
        ("ttft<+5%", "write ttft_p99<+5%"),
        ("request_throughput>-100%", "nothing is 100% less than a baseline"),
        ("", '--limits "": it is empty'),
        ("ttft_p99<2s, ,error_rate<1%", 'the part "": it is empty'),
        (
            "ttft_p99<2s, tpot99<1s",
            '--limits: in "ttft_p99<2s, tpot99<1s" the part "tpot99<1s": no metric tpot99: did you mean tpot_p99?',
        ),
    ],
)
def test_what_cannot_be_read_is_pointed_at(text: str, words: str) -> None:
    with pytest.raises(InputError) as refused:
        limits.parse(text)
    assert words in str(refused.value) and "\n" not in str(refused.value)
