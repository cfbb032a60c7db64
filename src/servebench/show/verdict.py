"""The result in words: what a search found, which layout of a sweep is best, and what to type next."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec

from servebench.analysis import metrics, samples, stationarity, stats
from servebench.analysis.metrics import OfPoint, OfRequests
from servebench.analysis.stats import Interval
from servebench.log.config import ServerConfig
from servebench.plan.strategies import PEAK, LoadResult, Verdict
from servebench.show import tables
from servebench.show.layouts import THROUGHPUT, Layout, Runs, Study, server_name, trusted_rate, why_untrusted
from servebench.show.points import load_words
from servebench.show.tables import latency, significant
from servebench.show.terminal import shown_latencies, weakness

RISES = 1.05  # by which requests/s at the highest load exceed those at the load below it, if they still grow
SIZES = ("backend", "tp_size", "num_replicas")
ALIKE = 1.1  # a ratio that is known to be nearer to 1 is no difference
FEWEST_RUNS = 3  # that are advised
MEAN_E2E = "e2e_latency_mean_s"
OTHERS = 3  # layouts that are named beside the best one


# Searches.


class SearchResult(msgspec.Struct):
    """What a search found: the fields that are shown of the file that campaign/loop.py wrote.

    A Verdict has more, but its server and run may be an older version's.
    """

    words: str
    unit: str
    loads: list[LoadResult]
    searched: str = ""


def search_result(found: Verdict) -> SearchResult:
    """As it is read from its file, but for the words."""
    return SearchResult("", found.unit, found.loads, found.searched)


def searches(folder: Path) -> list[SearchResult]:
    """What each search in the folder found, or in those of its backends."""
    found = []
    for path in sorted((*folder.glob("searches/*.json"), *folder.glob("*/searches/*.json"))):
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=SearchResult))
        except (OSError, msgspec.MsgspecError) as error:
            print(f"left out: {path}: not the result of a search: {error}", file=sys.stderr)
    return found


def by_limits(found: Sequence[SearchResult]) -> list[SearchResult]:
    """Searches for the same, on several servers or with several kinds of requests, as one."""
    same: dict[str, SearchResult] = {}
    for search in found:
        known = same.setdefault(search.searched, SearchResult("", search.unit, [], search.searched))
        known.loads += search.loads
    return list(same.values())


def words(found: Verdict, with_batch: bool) -> str:
    """One sentence: of which server and requests, the load, what was seen there, and what is beyond it."""
    asked = found.run.requests
    lengths = f"prompt {asked.mean_prompt_length}, generation {asked.mean_max_new_tokens}"
    of = f"{server_name(found.server, with_batch)}, {asked.name or lengths}"
    return f"{of}: {_peak(found) if found.searched.startswith(PEAK) else _highest(found)}"


def _highest(found: Verdict) -> str:
    loads, unit, searched = found.loads, found.unit, found.searched
    above = [each for each in loads if found.best is None or each.load > found.best]
    if found.best is None and all(each.says == "does not meet" for each in above):
        return f"no load meets {searched}, not even {_load(above[0].load, unit)}{_seen(above[0])}"
    if found.best is None:
        return f"no load is known to meet {searched}{_edge(above, unit)}"
    best = next(each for each in loads if each.load == found.best)
    meet = "meets" if (best.load, unit) == (1, "clients") else "meet"
    meets = f"{_load(best.load, unit)} {meet} {searched}{_seen(best)}"
    return f"{meets}{_edge(above, unit) or ', and no more was tried'}"


def _load(size: float, unit: str) -> str:
    return tables.counted(round(size), "client") if unit == "clients" else f"{size:g} {unit}"


def _edge(above: list[LoadResult], unit: str) -> str:
    """The lowest load that does not meet the limits, and the lowest of which nothing is known."""
    missed = next((each for each in above if each.says == "does not meet"), None)
    unknown = next((each for each in above if each.says == "unknown"), None)
    said = f"; {missed.load:g} do not{_seen(missed)}" if missed else ""
    return said + _unknown_at(unknown, unit) + (", nor above" if unknown and not missed else "")


def _unknown_at(seen: LoadResult | None, unit: str) -> str:
    return f"; at {_load(seen.load, unit)} nothing is known ({seen.why})" if seen else ""


def _seen(seen: LoadResult) -> str:
    if seen.says == "does not meet" and seen.why:
        return f" ({seen.why})"
    runs = f" over {seen.runs} runs" if seen.runs > 1 else ""
    values = [f"{name} {'unknown' if v is None else value_of(name, v)}" for name, v in seen.seen.items()]
    return f" ({', '.join(values)}{runs})"


def value_of(name: str, value: float) -> str:
    """Of a limit, by its name."""
    return f"{value:.2%}" if name == "error_rate" else latency(value)


def _peak(found: Verdict) -> str:
    loads, unit = found.loads, found.unit
    rest = _unknown_at(next((each for each in loads if each.says == "unknown"), None), unit)
    if found.best is None:
        lowest = f", not even {_load(loads[0].load, unit)}" if loads[0].says != "unknown" else ""
        rate = found.searched.removeprefix(PEAK)
        return f"no load has requests that meet FastGen's SLAs at {rate} tokens/s{lowest}{rest}"
    value = next(each.seen["effective_throughput_per_s"] for each in loads if each.load == found.best)
    at = _load(found.best, unit)
    return f"the peak of effective throughput is {value:.4g} requests/s, at {at}{rest}"


# Sweeps.


def result(studies: Sequence[Study]) -> list[str]:
    """A few sentences a study: its best point, the other layouts beside it, and what is wrong."""
    return [" ".join(_of_study(study, named=len(studies) > 1)) for study in studies]


def _of_study(study: Study, named: bool) -> Iterator[str]:
    if named:
        yield f"{study.model}, {study.asked}:"
    best = {layout.name: point for layout in study.layouts if (point := layout.best())}
    if best:
        first, *others = best.items()
        yield f"Most requests/s: {_point(*first)}."
        yield from _others(first[1], others[:OTHERS])
        yield from _for_few_clients(first[0], [layout for layout in study.layouts if layout.name in best])
        if len(others) > OTHERS:
            yield f"{tables.counted(len(others) - OTHERS, 'more layout')} below that."
    else:
        yield "No point can be trusted, so none is the best."
    yield from _better_untrusted(study, trusted_rate(next(iter(best.values()))) if best else None)
    yield from _not_counted(study)
    yield from _still_growing([layout for layout in study.layouts if layout.name in best])


def _point(name: str, runs: Runs) -> str:
    """`vLLM TP 1 x 1 at 8 clients: 5.21 requests/s, TTFT p99 480 ms, TPOT p99 33 ms`."""
    said = [f"{significant(trusted_rate(runs))} requests/s"]
    for metric in shown_latencies(runs):
        if p99 := stationarity.interval(runs, partial(metric.percentile, q=99)):
            said.append(f"{metric.label} p99 {weakness(metric, runs, 99)}{latency(p99.mean)}")
    return f"{name} at {load_words(runs[0].run)}: {', '.join(said)}"


def _others(best: Runs, others: Sequence[tuple[str, Runs]]) -> Iterator[str]:
    """The other layouts; whether they are really behind only where the interval of the ratio says so."""
    unknown = []
    for name, point in others:
        reaches = f"{name} reaches {significant(trusted_rate(point))} at {load_words(point[0].run)}"
        ratio = _ratio(best, point, THROUGHPUT.name)
        if ratio and ALIKE**-1 < ratio.low <= 1 <= ratio.high < ALIKE:
            yield f"{reaches}: about equal."
        elif ratio is None or ratio.low <= 1 <= ratio.high:
            unknown.append(reaches)
        else:
            less = sorted(100 * abs(1 - end) for end in (ratio.low, ratio.high))
            yield f"{reaches} ({less[0]:.0f} to {less[1]:.0f}% {'less' if ratio.high < 1 else 'more'})."
    if unknown:
        runs = max(len(point) for _, point in [("", best), *others])
        more = f"--runs {max(FEWEST_RUNS, 2 * runs)}"
        yield f"{', '.join(unknown)}; too few runs to tell whether that is chance ({more})."


def _for_few_clients(first: str, layouts: Sequence[Layout]) -> Iterator[str]:
    """The layout that answers soonest at the lowest load, where that is surely not the one of most requests/s."""
    lightest = {layout.name: layout.points[0] for layout in layouts if trusted_rate(layout.points[0])}
    ours = lightest.get(first)
    if not ours or ours[0].run.open_loop:
        return
    alike = {name: runs for name, runs in lightest.items() if runs[0].run.load == ours[0].run.load}
    ratios = {name: _ratio(ours, runs, MEAN_E2E) for name, runs in alike.items() if name != first}
    sooner = {name: ratio.mean for name, ratio in ratios.items() if ratio and ratio.high < 1}
    if sooner:
        name = min(sooner, key=lambda name: sooner[name])
        times = [stationarity.interval(runs, samples.mean_e2e_s) for runs in (alike[name], ours)]
        took = " against ".join(latency(time.mean) for time in times if time)
        yield f"At {load_words(ours[0].run)} {name} answers sooner: mean E2E latency {took}."


def _ratio(a: Runs, b: Runs, column: str) -> Interval | None:
    """A metric of b / that of a, from their runs, or from the parts of single ones; None: nobody can tell."""
    if not (stationarity.stationary(a) and stationarity.stationary(b)):
        return None
    metric = metrics.named(column)
    assert isinstance(metric, OfPoint | OfRequests)
    if min(len(a), len(b)) > 1:
        values = [[value for log in runs if (value := metric.values(log)[column])] for runs in (a, b)]
    else:
        values = [[*map(float, metric.batches(runs[0]).get(column, ()))] for runs in (a, b)]
    return stats.ratio_of_means(*values)


def _better_untrusted(study: Study, best: float | None) -> Iterator[str]:
    """A layout that reached more at a point where the client was the limit, so that it may be the best one."""
    limited = {
        layout.name: found.mean
        for layout in study.layouts
        for runs in layout.points
        if why_untrusted(runs) == "client-limited"
        if (found := stationarity.interval(runs, THROUGHPUT.function)) and found.mean > (best or 0.0)
    }
    for name, rate in limited.items():
        yield f"{name} reached {significant(rate)} although the client was the limit: measure it again."


def _not_counted(study: Study) -> Iterator[str]:
    """How many points decide nothing, and why."""
    whys = Counter(filter(None, map(why_untrusted, study.points)))
    if whys:
        kinds = ", ".join(f"{n} {why}" for why, n in whys.most_common())
        do = "does" if whys.total() == 1 else "do"
        yield f"{whys.total()} of {tables.counted(len(study.points), 'point')} {do} not count: {kinds}."


def _still_growing(known: Sequence[Layout]) -> Iterator[str]:
    """That every layout would take more load, and the option that gives it."""
    if not known or not all(map(_grows, known)):
        return
    kind, replicas = known[0].log.run.load.kind, max(layout.log.server.num_replicas for layout in known)
    more = "--clients_per_replica" if replicas > 1 else "--num_clients"
    option = {"clients": more, "rate": "--request_rate", "trace": "--trace_speed"}[kind]
    yield f"Throughput still grows at the highest load: try more {option}, with the other options as they are."


def _grows(layout: Layout) -> bool:
    rates = [rate for runs in layout.points[-2:] if (rate := trusted_rate(runs))]
    return len(rates) == 2 and rates[1] > RISES * rates[0]


def next_steps(
    folder: Path,
    servers: Iterable[ServerConfig],
    streamed: bool,
    found: Iterable[SearchResult] = (),
    within: str = "",
) -> str:
    """What to type next, in at most three lines. The first two layouts of these servers are compared.

    The limits are those that servers were ranked by (`within`) or that were searched for, at the load that meets
    them; else usual ones, by which several servers are ranked.
    """
    servers, limits = list(servers), f" {_limits_option(within)}" if within else ""
    steps = [f"report {folder}/{limits}", *_comparison(folder, servers)]
    usual = "ttft_p90<2s, tpot_p90<100ms" if streamed else "e2e_p90<10s"  # few requests tell a p90
    asked = [_limits(search) for search in found if not search.searched.startswith(PEAK)]
    if len(steps) > 1 and not (asked or within):
        steps.append(f'decide {folder}/ --sla "{usual}"')
    elif not within:  # within limits there are loads that exceed them
        steps.append(f"gate {folder}/ {(asked or [_limits_option(usual)])[0]}")
    return "\n".join(f"{'' if i else 'Next:':7}./servebench {step}" for i, step in enumerate(steps))


def _limits(search: SearchResult) -> str:
    best = max((each.load for each in search.loads if each.says == "meets"), default=None)
    field = "num_clients" if search.unit == "clients" else "request_rate"
    return _limits_option(search.searched) + (f" --filter {field}={best:g}" if best else "")


def _limits_option(limits: str) -> str:
    return f'--limits "{limits}"'


def _comparison(folder: Path, servers: Iterable[ServerConfig]) -> Iterator[str]:
    sizes = list(dict.fromkeys((each.engine, each.tp_size, each.num_replicas) for each in servers))
    engines = list(dict.fromkeys(backend for backend, *_ in sizes))
    if len(engines) > 1 and all((folder / name).is_dir() for name in engines[:2]):
        yield f"compare {folder / engines[0]} {folder / engines[1]}"
    elif len(sizes) > 1:
        fields = [i for i in range(3) if sizes[0][i] != sizes[1][i]]
        a, b = (" ".join(f"{SIZES[i]}={size[i]}" for i in fields) for size in sizes[:2])
        yield f"compare {folder}/ --filter_a {a} --filter_b {b}"
