"""What a colleague would say about a point or a sweep: what looks wrong, the likely cause, the flag that helps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

import msgspec

from servebench.analysis import answers, metrics, samples, stationarity, stats, throughput, trust
from servebench.analysis.cache import derived
from servebench.analysis.flaws import REPEATED
from servebench.analysis.metrics import OfRequests
from servebench.log import identity
from servebench.log.config import Clients
from servebench.log.result import Result
from servebench.log.schema import Log
from servebench.show import causes
from servebench.show.layouts import server_name

LATE_TOKENS_SHARE = 0.02
LONGER = 1.1  # than asked for; less may be the tokenizer's doing
USUAL_ENDS = ("length", "max_tokens", "stop", "stop_sequence", "eos", "eos_token", "tool_calls", "function_call")
WARN_CACHED = 0.02
WARN_FLAWED, WARN_REPEATED = 0.02, 0.25  # of the answers; healthy models repeat themselves, too
WARM_UP_SHARE = 0.1  # of the window
LITTLES_LAW = 0.1  # by which it may be off
SHORT_ANSWER = 0.1  # of the window: longer ones hardly end in it if the load begins with it
FOR_A_MEDIAN = stats.SAMPLES_NEEDED[50]
FULL_CPU = 0.95  # of all cores
QUEUE, PACE = 5.0, 1.5  # waiting in the server: TTFT grew by more than the first, ITL by less than the second


@derived
def of_point(log: Log) -> list[str]:
    """Warnings about one log that was measured."""
    parts = (_client, _server, _requests, _answers, _cache, _window, causes.causes)
    return [words for part in parts for words in part(log)]


def _client(log: Log) -> Iterator[str]:
    if log.quality.verdict.startswith("client-limited"):
        yield log.quality.verdict
    if log.quality.overloaded:
        yield "overloaded: requests in flight kept growing to the end; latencies only tell how long the point took"
    for kind, of_machine in trust.OF_MACHINE.items():
        if why := of_machine.why(log):
            yield f"{kind}: {why}: {of_machine.remedy}, and measure again with --overwrite_results"
    if _all_cores_busy(log):
        yield "all cores of this host were busy: if not with the server, close other programs and measure again"


def _all_cores_busy(log: Log) -> bool:
    """Were all cores of this host busy, and is it not known by whom? The server was started by somebody else."""
    return log.quality.others_cpu_share is None and (log.quality.host_cpu_share or 0.0) > FULL_CPU


def marks(runs: Sequence[Log]) -> list[str]:
    """What is wrong with a point, in a word or two each: why it decides nothing, or less than it seems."""
    good, of = [log for log in runs if log.status == "ok"], len(runs)
    share = samples.failed_share(*good) if good else 0.0
    counted = {
        "overloaded": sum(log.quality.overloaded for log in good),
        "not settled": sum(stationarity.why_not_stationary(log) is not None for log in good),
        "stand-in": sum(map(trust.stand_in, good)),
        "client unknown": sum(log.quality.verdict == "unknown" for log in good),
    }
    many = f"{share:.0%}" if share > 0.1 else f"{share * 100:.2g}%"
    found = trust.marks(runs) + ([f"{many} failed"] if share > trust.FAILED_SHARE else [])
    return found + [trust.in_runs(words, some, of) for words, some in counted.items() if some]


def _server(log: Log) -> Iterator[str]:
    if trust.stand_in(log):
        yield "the model behind MII is a stand-in (fastgen-cpu); these times say nothing about DeepSpeed-FastGen"
    if trust.buffered(log):
        yield (
            "the tokens of an answer came all at once, faster than any server makes them: something between "
            "client and server collects them; TTFT, TPOT and ITL are not the server's. Measure without the proxy, "
            "or turn its buffering off"
        )


def _requests(log: Log) -> Iterator[str]:
    counted, done = samples.measured(log), samples.succeeded(log)
    failed, _ = samples.failed_of(log)
    if failed:
        first = next((r.error for r in counted if r.error), "nothing")
        yield f"{failed} of {len(counted)} requests failed, the first with: {first}"
    retries = sum(r.retries for r in counted)
    if retries:
        tried = sum(r.retries > 0 for r in counted)
        yield f"{tried} of {len(counted)} requests were sent again, {retries} times (--max_retries)"
    if len(done) < FOR_A_MEDIAN:
        few = "1 request is" if len(done) == 1 else f"{len(done)} requests are"
        yield f"{few} too few even for a median; use more --num_requests"


def _answers(log: Log) -> Iterator[str]:
    done = samples.succeeded(log)
    flawed, others = answers.flawed_share(log) or 0.0, answers.flawed_of(log, besides=REPEATED)[0]
    if flawed > WARN_REPEATED or others > WARN_FLAWED * len(done):
        what = "" if answers.broken(log) or log.run.check else "; are they right? --check asks"
        yield f"{flawed:.0%} of the answers are flawed ({answers.described(log)}){what}"
    short = sum(r.generated_tokens < r.max_new_tokens for r in done)
    if short > LATE_TOKENS_SHARE * len(done) and not log.run.respect_eos:
        yield f"{short} of {len(done)} answers are shorter than asked for, so engines did not do the same work"
    long = sum(r.generated_tokens > LONGER * r.max_new_tokens for r in done)
    if long > LATE_TOKENS_SHARE * len(done):
        yield f"{long} of {len(done)} answers are longer than asked for; the server ignores max_tokens"
    yield from _endings(done)
    unlike = [r for r in done if r.asked_prompt_tokens is not None]
    if len(unlike) > LATE_TOKENS_SHARE * len(done):
        yield _unlike_prompts(log, done)
    if any(r.token_source == "tokenizer" for r in done):
        yield "the server sends no token counts; they are counted with --tokenizer"


def _endings(done: list[Result]) -> Iterator[str]:
    """Answers that ended for a reason of the server's own, such as a content filter."""
    for reason, count in Counter(r.finish_reason for r in done).items():
        if reason and reason.lower() not in USUAL_ENDS:
            yield f"{count} of {len(done)} answers ended with finish_reason {reason}"


def _unlike_prompts(log: Log, done: list[Result]) -> str:
    asked = sum(r.asked_prompt_tokens or r.prompt_tokens for r in done) / len(done)
    achieved = sum(r.prompt_tokens for r in done) / len(done)
    template = "; a chat template adds its own" if log.run.api == "chat" else ""
    return f"prompts have {achieved:.1f} tokens on average by the server, {asked:.1f} by --tokenizer{template}"


def _cache(log: Log) -> Iterator[str]:
    """Prompts that share nothing should not be found in a cache."""
    done = samples.succeeded(log)
    cached, share = sum(r.cached_tokens or 0 for r in done), trust.cached_share(log)
    if share > WARN_CACHED:
        decides = "; such times meet no limit and are not compared" if share > trust.REFUSE_CACHED else ""
        yield (
            f"the prefix cache held {share:.1%} of all prompt tokens, although prompts share nothing; "
            f"did an earlier benchmark leave them there? Use another --seed{decides}"
        )
    elif cached > WARN_CACHED * sum(r.prompt_tokens for r in done):
        yield f"{cached} prompt tokens came from the server's prefix cache"


def _window(log: Log) -> Iterator[str]:
    mean_s, length = samples.mean_e2e_s(log), throughput.window_s(log)
    if log.run.open_loop and not log.run.warmup and mean_s and length and mean_s > SHORT_ANSWER * length:
        early = f"in the first {mean_s:.3g} s of the window hardly any request could end"
        yield f"--warmup 0: {early}; use more --warmup"
    reason, warm_up = stationarity.why_not_stationary(log), stationarity.warming_up(log)
    if reason:
        yield f"not settled ({reason}): use more --num_requests or a lower load"
    elif warm_up > WARM_UP_SHARE:
        yield f"the first {warm_up:.0%} of the window were still warming up; use more --warmup"
    ratio = throughput.littles_law_ratio(log)
    if ratio and abs(ratio - 1) > LITTLES_LAW and len(samples.succeeded(log)) >= stats.MIN_FOR_BATCHES:
        yield (
            f"throughput x latency / requests in flight is {ratio:.2f}, not near 1 (Little's law); "
            "use more --num_requests"
        )


def of_sweep(logs: list[Log]) -> list[str]:
    """Warnings that take several points: where requests of more clients wait in the server's queue."""
    measured = [log for log in logs if log.status == "ok" and log.run.stream and not log.run.open_loop]
    ordered = sorted(measured, key=lambda log: (_without_clients(log), log.run.load.size))
    return [words for _, group in groupby(ordered, _without_clients) for words in _queueing(list(group))]


def _without_clients(log: Log) -> bytes:
    """What the points of one curve have in common."""
    run = msgspec.structs.replace(log.run, load=Clients(), num_requests=1, warmup=0, seed=0)
    return identity.point_key(log.server, run)


def _queueing(curve: list[Log]) -> Iterator[str]:
    """Does TTFT grow with the load while the time between tokens stays?"""
    light, heavy = curve[0], curve[-1]
    ttft, tpot = (_growth(light, heavy, metrics.OF_REQUESTS[name]) for name in ("ttft_s", "tpot_s"))
    if light.run.load.size < heavy.run.load.size and ttft > QUEUE and tpot < PACE:
        yield (
            f"{server_name(heavy.server)}, {light.run.load.size} to {heavy.run.load.size} clients: "
            f"the median TTFT grows {ttft:.1f}-fold, TPOT {tpot:.1f}-fold: requests wait in the server; "
            f"{causes.more_room(heavy)}"
        )


def _growth(light: Log, heavy: Log, metric: OfRequests) -> float:
    before, after = (metric.percentile(log, 50) for log in (light, heavy))
    return after / before if before and after else 1.0
