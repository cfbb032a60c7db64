"""What a search found, in words."""

from __future__ import annotations

from servebench.plan.strategies import PEAK, LoadResult, Verdict


def words(found: Verdict, with_batch: bool) -> str:
    """One sentence: of which server and requests, the load, what was seen there, and what is beyond it."""
    server, run = found.server, found.run
    of = f"{server.backend} tp{server.tp_size}{f' batch {server.max_ragged_batch_size}' if with_batch else ''}"
    asked = run.requests
    lengths = f"prompt {asked.mean_prompt_length}  gen {asked.mean_max_new_tokens}"
    of += f" x{server.num_replicas}  {asked.name or lengths}"
    return f"{of}: {_peak(found) if found.searched.startswith(PEAK) else _highest(found)}"


def _highest(found: Verdict) -> str:
    loads, unit, searched = found.loads, found.unit, found.searched
    above = [each for each in loads if found.best is None or each.load > found.best]
    if found.best is None and all(each.says == "does not meet" for each in above):
        return f"no load meets {searched}, not even {above[0].load:g} {unit}{_seen(above[0])}"
    if found.best is None:
        return f"no load is known to meet {searched}{_edge(above, unit)}"
    best = next(each for each in loads if each.load == found.best)
    load = "1 client meets" if (best.load, unit) == (1, "clients") else f"{best.load:g} {unit} meet"
    meets = f"{load} {searched}{_seen(best)}"
    return f"{meets}{_edge(above, unit) or ', and no more was tried'}"


def _edge(above: list[LoadResult], unit: str) -> str:
    """The lowest load that does not meet the limits, and the lowest of which nothing is known."""
    missed = next((each for each in above if each.says == "does not meet"), None)
    unknown = next((each for each in above if each.says == "unknown"), None)
    said = f"; {missed.load:g} does not{_seen(missed)}" if missed else ""
    return said + _unknown_at(unknown, unit) + (", nor above" if unknown and not missed else "")


def _unknown_at(seen: LoadResult | None, unit: str) -> str:
    return f"; at {seen.load:g} {unit} nothing is known ({seen.why})" if seen else ""


def _seen(seen: LoadResult) -> str:
    if seen.says == "does not meet" and seen.why:
        return f" ({seen.why})"
    runs = f" over {seen.runs} runs" if seen.runs > 1 else ""
    values = [f"{name} {'unknown' if v is None else _value(name, v)}" for name, v in seen.seen.items()]
    return f" ({', '.join(values)}{runs})"


def _value(name: str, value: float) -> str:
    """Of a limit, by its name."""
    return f"{value:.2%}" if name == "error_rate" else f"{value:.3g} s"


def _peak(found: Verdict) -> str:
    loads, unit = found.loads, found.unit
    rest = _unknown_at(next((each for each in loads if each.says == "unknown"), None), unit)
    if found.best is None:
        lowest = f", not even {loads[0].load:g} {unit}" if loads[0].says != "unknown" else ""
        rate = found.searched.removeprefix(PEAK)
        return f"no load has requests that meet FastGen's SLAs at {rate} tokens/s{lowest}{rest}"
    value = next(each.seen["effective_throughput_per_s"] for each in loads if each.load == found.best)
    return f"the peak of effective throughput is {value:.4g} requests/s, at {found.best:g} {unit}{rest}"
