"""What the terminal shows: the plan, a line a point, a table at the end, and warnings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

from servebench import defaults, metrics, records
from servebench.arguments import Settings
from servebench.records import Log, Quality, RunConfig
from servebench.search import conclusions
from servebench.sweep import Plan

# Samples that a percentile needs before it means something (MLPerf LoadGen, 99 % confidence).
FLOORS = {50: 11, 90: 64, 95: 130, 99: 662}
LATE_TOKENS_SHARE = 0.02


@dataclass(frozen=True)
class Summary:
    """A point in a few numbers; None where the log cannot tell. Percentiles carry "~" below their floor."""

    requests: int
    failed: int
    requests_per_s: float | None
    output_tokens_per_s: float | None
    ttft_s: tuple[str, str]
    tpot_s: tuple[str, str]
    e2e_s: tuple[str, str]


def summarize(log: Log) -> Summary:
    counted = metrics.measured(log)
    return Summary(
        requests=len(counted),
        failed=len(counted) - len(metrics.succeeded(log)),
        requests_per_s=metrics.request_throughput(log),
        output_tokens_per_s=metrics.output_token_throughput(log),
        ttft_s=_p50_p90(metrics.each(log, metrics.ttft_s)),
        tpot_s=_p50_p90(metrics.each(log, metrics.tpot_s)),
        e2e_s=_p50_p90(metrics.each(log, metrics.e2e_s)),
    )


def _p50_p90(values: np.ndarray) -> tuple[str, str]:
    return show_percentile(values, 50), show_percentile(values, 90)


def show_percentile(values: np.ndarray, q: int) -> str:
    """Three digits, "-" without samples, "~" behind what too few samples carry."""
    value = metrics.percentile(values, q)
    return "-" if value is None else show(value) + ("~" if len(values) < FLOORS[q] else "")


def show(value: float | None) -> str:
    """Three significant digits."""
    return "-" if value is None else f"{value:#.3g}".rstrip(".") if abs(value) < 1000 else f"{value:.0f}"


def name_of(log: Log) -> str:
    run, server = log.run, log.server
    what = f"prompt {run.mean_prompt_length}  gen {run.mean_max_new_tokens}"
    what = Path(run.dataset).stem if run.dataset else run.scenario or what
    return f"{server.backend} tp{server.tp_size} x{server.num_replicas}  {what}  {run.load[0]} {load_of(run)}"


def load_of(run: RunConfig) -> str:
    """Clients as a number, a rate as `4/s`, a trace as `x2` of its speed."""
    kind, much = run.load
    return {"clients": much, "rate": f"{much}/s", "trace": f"x{much}"}[kind]


def line(log: Log) -> str:
    """One point in one line, its client in another, and one for everything there is to say about it."""
    if log.status != "ok":
        return f"{name_of(log)}:  FAILED: {log.failure}" + (
            "\n" + indented(log.server_facts.log_tail) if log.server_facts.log_tail else ""
        )
    s = summarize(log)
    text = (
        f"{name_of(log)}:  {show(s.requests_per_s)} req/s  {show(s.output_tokens_per_s)} tok/s  "
        f"TTFT {s.ttft_s[0]} s  TPOT {s.tpot_s[0]} s  E2E {s.e2e_s[0]} s  failed {s.failed}/{s.requests}"
    )
    lines = [text, f"  client: {quality_line(log.quality)}", *beside(log)]
    return "\n".join([*lines, *(f"  warning: {w}" for w in warnings(log))])


def beside(log: Log) -> list[str]:
    """What an open loop and probes add: latencies from schedule beside those from send; what a stranger feels."""
    lines = []
    if log.run.open_loop:
        wait = metrics.each(log, metrics.schedule_wait_s)
        ttft, e2e = metrics.each(log, metrics.ttft_s), metrics.each(log, metrics.e2e_s)
        lines += [
            f"  from {start}: {_latencies(ttft + late if len(ttft) == len(wait) else ttft[:0], e2e + late)}"
            for start, late in (("schedule", wait), ("send", 0 * wait))
        ]
    answered = [r for r in log.probes if r.error is None and r.event_ns and r.finish_reason != "cancelled"]
    if log.probes:
        ttft = np.array([first for r in answered if (first := metrics.ttft_s(r)) is not None])
        shown = _latencies(ttft, np.array([metrics.e2e_s(r) for r in answered]))
        lines.append(f"  probes: {shown}; failed {sum(r.error is not None for r in log.probes)}/{len(log.probes)}")
    return lines


def _latencies(ttft: np.ndarray, e2e: np.ndarray) -> str:
    named = (("TTFT", ttft), ("E2E", e2e))
    return "; ".join(f"{n} p50 {show_percentile(v, 50)}, p99 {show_percentile(v, 99)} s" for n, v in named)


def quality_line(q: Quality) -> str:
    """What the client says of itself, in one line. Lag: from the kernel's stamp to the read."""
    cpu = ", ".join(f"{share:.0%}" for share in q.worker_cpu_share) or "-"
    lag = f"lag p50 {_ms(q.lag_p50_s)}, p99 {_ms(q.lag_p99_s)}, max {_ms(q.lag_max_s)}"
    stamps = f"merged {q.merged_share:.2%}; unstamped {q.unstamped_share:.2%}"
    asked = f" of {q.asked_concurrency:.0f}" if q.asked_concurrency else ""
    concurrency = f"concurrency {q.achieved_concurrency:.1f}{asked}"
    rest = f"sends late p99 {_ms(q.send_late_p99_s)}; {concurrency}; RTT {_ms(q.connect_p50_s)}; CPU {cpu}"
    return f"{q.verdict.partition(':')[0]}; {lag}; {stamps}; {rest}"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.2f} ms"


def indented(text: str) -> str:
    return "\n".join(f"    | {row}" for row in text.splitlines())


def warnings(log: Log) -> list[str]:
    """What a colleague would say about this point, with the flag that helps."""
    done, counted = metrics.succeeded(log), metrics.measured(log)
    found = []
    if log.quality.verdict.startswith("client-limited"):
        found.append(log.quality.verdict)
    if len(done) < len(counted):
        first = next(r.error for r in counted if r.error)
        found.append(f"{len(counted) - len(done)} of {len(counted)} requests failed, the first with: {first}")
    retries = sum(r.retries for r in counted)
    if retries:
        tried = sum(r.retries > 0 for r in counted)
        found.append(f"{tried} of {len(counted)} requests were sent again, {retries} times (--max_retries)")
    short = sum(r.generated_tokens < r.max_new_tokens for r in done)
    if short > LATE_TOKENS_SHARE * len(done) and not log.run.respect_eos:
        found.append(f"{short} of {len(done)} answers are shorter than asked for; engines did unlike work")
    if log.quality.overloaded:
        found.append(
            "overloaded: requests in flight grew all through the point; latencies only say how long it took"
        )
    unlike = sum(r.asked_prompt_tokens is not None for r in done)
    if unlike > LATE_TOKENS_SHARE * len(done):
        asked = np.mean([r.asked_prompt_tokens or r.prompt_tokens for r in done])
        achieved = np.mean([r.prompt_tokens for r in done])
        found.append(
            f"prompts have {achieved:.1f} tokens on average by the server's count, {asked:.1f} by --tokenizer"
            + ("; a chat template adds its own" if log.run.api == "chat" else "")
        )
    cached = sum(r.cached_tokens or 0 for r in done)
    if cached > 0.02 * sum(r.prompt_tokens for r in done):
        found.append(f"{cached} prompt tokens came from the server's prefix cache")
    unlike_prompts = not (log.run.shared_prefix or log.run.dataset)
    if (log.cache_hit_rate or 0.0) > 0.02 and not cached and unlike_prompts and not log.quality.overloaded:
        found.append(
            f"the prefix cache held {log.cache_hit_rate:.1%} of all prompt tokens, which share nothing; "
            "did an earlier benchmark leave them there? Give another --seed"
        )
    if any(r.token_source == "tokenizer" for r in done):
        found.append("the server counts no tokens; they are counted with --tokenizer")
    return found


def table(logs: list[Log]) -> str:
    """All points, best read from top to bottom within one server."""
    header = ["backend", "tp", "repl", "prompt", "gen", "load", "req/s", "tok/s"]
    header += ["TTFT p50 (s)", "p90", "TPOT p50 (s)", "p90", "E2E p50 (s)", "p90", "failed", "client"]
    rows = tabulate([_row(log) for log in logs], header, disable_numparse=True, stralign="right")
    notes = [] if "~" not in rows else ["~ fewer samples than this percentile needs (p50: 11, p90: 64)"]
    return "\n".join([rows, *notes])


def _row(log: Log) -> list[str]:
    server, run, s = log.server, log.run, summarize(log)
    identity = [server.backend, server.tp_size, server.num_replicas, run.mean_prompt_length]
    identity += [run.mean_max_new_tokens, load_of(run)]
    if log.status != "ok":
        return [*map(str, identity), *["-"] * 8, "point failed", "-"]
    rates = [show(s.requests_per_s), show(s.output_tokens_per_s)]
    client = log.quality.verdict.partition(":")[0] + (", overloaded" if log.quality.overloaded else "")
    return [*map(str, identity), *rates, *s.ttft_s, *s.tpot_s, *s.e2e_s, f"{s.failed}/{s.requests}", client]


def plan_table(plan: Plan) -> str:
    """The plan: one row a server, then what it adds up to."""
    rows = []
    for server, points in plan:
        todo = [p for p in points if p.pending]
        states = {state: sum(p.state == state for p in points) for state in ("done", "failed", "superseded")}
        row = [server.backend, server.tp_size, server.max_ragged_batch_size, server.num_replicas]
        row += [_set(p.run.mean_prompt_length for p in points), _set(p.run.mean_max_new_tokens for p in points)]
        row += [" ".join(dict.fromkeys(load_of(p.run) for p in points)), len(points), *states.values(), len(todo)]
        rows.append([*row, sum(p.run.num_requests + p.run.num_clients * (p.run.warmup + 1) for p in todo)])
    header = ["backend", "tp", "batch", "repl", "prompt", "gen", "load", "points"]
    header += ["done", "failed before", "other settings", "to run", "requests (about)"]
    return tabulate(rows, header)


def _set(values: object) -> str:
    return " ".join(map(str, sorted(set(values))))  # type: ignore[call-overload]


def models_table() -> str:
    """Models with defaults of their own."""
    rows = [
        [name, _set(m.tp_size), _set(m.mean_prompt_length), _set(m.mean_max_new_tokens), m.max_prompt_length]
        for name, m in {**defaults.MODELS, "any other": defaults.ANY_MODEL}.items()
    ]
    return tabulate(rows, ["model", "tp_size", "mean_prompt_length", "mean_max_new_tokens", "max_prompt_length"])


def closing(plan: Plan, settings: Settings) -> str:
    """The last words of a run: the table of all of the plan's logs, what failed, where everything is."""
    logs = [records.load(p.path) for _, points in plan for p in points if p.path.exists()]
    failed = [log for log in logs if log.status != "ok"]
    words = ["", table(logs)] if logs else []
    words.append(
        f"{len(logs) - len(failed)} points measured, {len(failed)} failed; logs are in {settings.out_json_dir}/"
    )
    words += [f"  failed: {name_of(log)}: {log.failure}" for log in failed]
    words += conclusions(plan, settings)
    return "\n".join(words)
