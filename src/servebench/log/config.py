"""What is asked for: a server, a load, requests. A field that a user can give declares its option, once and here.

A load is one of three kinds (clients, a rate, a trace), and so are requests (synthetic, a scenario, a dataset). A
kind refuses nonsense when it is made, with ValueError. Names of fields are those of flags, of keys in a log, of
--filter and of columns.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta
from msgspec.structs import asdict

from servebench.cli.commandline import (
    Number,
    json_object,
    named_words,
    tokens_and_groups,
    variable,
    words_in_quotes,
)
from servebench.cli.declare import Option
from servebench.log.lengths import Lengths, parse_scenario

DEFAULT_MODEL = "meta-llama/Llama-2-7b-hf"
MEANS = ("mean_prompt_length", "mean_max_new_tokens")
T = TypeVar("T", bound=msgspec.Struct)

# A declaration reads as one statement.
# fmt: off
SERVER, RUNNING = "server", "a server that is running already"
LOAD, OPEN_LOOP = "load", "load on a schedule (open loop)"
ANSWERS = "are the answers right?"
REQUESTS, OWN_REQUESTS = "requests", "requests like those of your own users"
Count = Annotated[int, Meta(ge=1)]
Rate_per_s = Annotated[float, Meta(ge=1e-6)]
Share = Annotated[float, Meta(ge=0, le=1)]


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One server to benchmark: what is launched, or what is attached to."""

    backend: Annotated[str, Option(
        "serving engines, one after the other [fastgen]", SERVER, swept=True, common=True)]  # of servers/backends/
    model: Annotated[str, Option(
        f"Hugging Face id or local directory [{DEFAULT_MODEL}]", SERVER, "NAME", common=True)]
    tp_size: Annotated[Count, Option(
        "tensor parallel sizes: GPUs of one replica [the model's]", SERVER, "N", swept=True, common=True)] = 1
    max_ragged_batch_size: Annotated[Count, Option(
        "largest batch: fastgen counts tokens and sequences in one forward step, vllm and sglang running "
        "sequences, llamacpp its slots (at most 32) [fastgen: 768; others: the engine's own]",
        SERVER, "N", swept=True)] = 768
    num_replicas: Annotated[Count, Option(
        "replicas of the model", SERVER, "N", swept=True, common=True)] = 1
    fp6: Annotated[bool, Option("quantize the weights to 6 bits (fastgen only)", SERVER)] = False
    engine_args: Annotated[tuple[str, ...], Option(
        "more options for the engine's own command line; each text in quotes is a variant to measure, and may "
        "have a name: \"fast: --x 1\"; of several engines it begins with its own: \"vllm: --x 1\" [none]",
        SERVER, '"..."', parse=named_words, quoted=True, common=True)] = ()
    engine_env: Annotated[tuple[str, ...], Option(
        "environment variables of the engine; a NAME with several values is swept [none]",
        SERVER, "NAME=VALUE", parse=variable)] = ()
    variant: str = ""  # name of these arguments and variables: as given, or how they differ from others
    gpus: Annotated[tuple[Annotated[int, Meta(ge=0)], ...], Option(
        "GPUs for the servers, such as 0 1 2 3 or 0-3; replicas take them in this order [all visible]",
        SERVER, "N", parse=Number(int, 0, ranges=True))] = ()
    engine_path: Annotated[str, Option(
        "the engine's environment (a folder) or its executable [the recipe's in .engines, else the active one]",
        SERVER, "DIR", parse=os.path.abspath)] = ""
    router: Annotated[bool, Option(
        "put vllm-router in front of the replicas, on the next port; without it the client spreads the requests",
        SERVER)] = False
    deployment_name: Annotated[str, Option(
        "name of the deployment; needed for aml, optional for fastgen", SERVER, "NAME", parse=str)] = ""
    serve: Annotated[tuple[str, ...], Option(
        "command line of any engine, for --backend command; {model}, {port}, {tp_size}, {gpus}, {replica} and "
        "{max_batch} in it are filled in; it may be a docker run (docs/engines.md) [none]",
        SERVER, '"..."', parse=words_in_quotes, quoted=True, as_one_text=True)] = ()
    ready_path: Annotated[str, Option(
        "with --serve: the server is ready when a GET of this path answers 200 [/health, else /v1/models]",
        SERVER, "PATH")] = ""
    label: Annotated[str, Option(
        "with --serve: what the engine is called, as is its folder of logs [its program or image]",
        SERVER, "NAME")] = ""
    urls: tuple[str, ...] = ()  # base URLs of servers that run already, without keys; none for those we start

    @property
    def workers(self) -> int:
        """GPUs that it takes (on a CPU: processes)."""
        return self.tp_size * self.num_replicas

    @property
    def engine(self) -> str:
        """What its engine is called, as is the folder of its logs."""
        return self.label or self.backend

    @property
    def layout(self) -> str:
        """TP size and replicas in words: `TP 2 x 4`."""
        return f"TP {self.tp_size} x {self.num_replicas}"


class Kind(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """One of several kinds. Its name is the `kind` in the log."""

    @property
    def kind(self) -> str:
        return str(type(self).__struct_config__.tag)


# The load: one of three kinds; `size` is what a sweep of it sweeps.


class Clients(Kind, frozen=True, kw_only=True, tag="clients"):
    """A closed loop: each client sends its next request when its last one ended."""

    num_clients: Annotated[Count, Option(
        "concurrent clients; each sends its next request when its last one has ended [1 2 4 6 8 12 ... 32]",
        LOAD, "N", swept=True, common=True)] = 1

    @property
    def size(self) -> float:
        return self.num_clients


MAX_IN_FLIGHT = Option(
    "caps requests in flight; the rest queue in the client, and latency is shown with and without that wait "
    "[no cap]",
    OPEN_LOOP,
    "N",
)


class Rate(Kind, frozen=True, kw_only=True, tag="rate"):
    """An open loop: requests leave at times set beforehand, whether or not the last ones ended."""

    request_rate: Annotated[Rate_per_s, Option(
        "requests/s on a fixed schedule, even if the server falls behind (instead of --num_clients)",
        OPEN_LOOP, "R", swept=True, common=True)]
    arrival: Annotated[Literal["poisson", "constant", "gamma"], Option(
        "how the gaps between requests are drawn; their mean is 1/R s", OPEN_LOOP)] = "poisson"
    burstiness: Annotated[float, Meta(ge=0.001), Option(
        "with --arrival gamma: 1 is like poisson, lower is burstier, higher is more regular",
        OPEN_LOOP, "X")] = 1.0
    ramp_from: Annotated[Rate_per_s | None, Option(
        "start at this rate and ramp up to --request_rate during the measurement, requests/s [no ramp]",
        OPEN_LOOP, "R")] = None
    max_concurrency: Annotated[Count | None, MAX_IN_FLIGHT] = None
    stop_when_overloaded: bool = False  # end early if the server clearly falls behind (a search asks for it)

    def __post_init__(self) -> None:
        if self.burstiness != 1 and self.arrival != "gamma":
            raise ValueError("--burstiness shapes gamma gaps; give --arrival gamma")
        if self.ramp_from == self.request_rate:
            raise ValueError("--ramp_from equals --request_rate; give another")

    @property
    def size(self) -> float:
        return self.request_rate


class Trace(Kind, frozen=True, kw_only=True, tag="trace"):
    """An open loop at the dataset's own times."""

    trace_speed: Annotated[Rate_per_s, Option(
        "replay the trace of --dataset at its recorded times, X times as fast", OPEN_LOOP, "X", swept=True)]
    max_concurrency: Annotated[Count | None, MAX_IN_FLIGHT] = None

    @property
    def size(self) -> float:
        return self.trace_speed


Load = Clients | Rate | Trace

# The requests: one of three kinds. Lengths are tokens.

LONGEST_PROMPT = Option("longest prompt, in tokens [the model's, usually 4000]", REQUESTS, "N")
MEAN_ANSWER = Option("mean tokens to generate [the model's]", REQUESTS, "N", swept=True, common=True)
SPREAD_ANSWER = Option("the same for generated tokens, as a fraction of their mean", REQUESTS, "X")
DISTRIBUTION = Option("distribution of prompt and answer lengths around their means", OWN_REQUESTS)
TEXT = Option("text of prompts: random words, or prose after eight random words", OWN_REQUESTS)
PREFIX = Option(
    "prompts start with one of GROUPS shared texts of TOKENS tokens [no shared text]",
    OWN_REQUESTS,
    "TOKENS:GROUPS",
    parse=tokens_and_groups,
)


class Synthetic(Kind, frozen=True, kw_only=True, tag="synthetic"):
    """Made-up prompts and answers, whose lengths lie around means."""

    mean_prompt_length: Annotated[Count, Option(
        "mean prompt length in tokens [the model's]", REQUESTS, "N", swept=True, common=True)] = 2600
    prompt_length_var: Annotated[Share, Option(
        "standard deviation of prompt lengths, as a fraction of the mean", REQUESTS, "X")] = 0.3
    max_prompt_length: Annotated[Count, LONGEST_PROMPT] = 4000
    mean_max_new_tokens: Annotated[Count, MEAN_ANSWER] = 60
    max_new_tokens_var: Annotated[Share, SPREAD_ANSWER] = 0.3
    length_distribution: Annotated[Literal["normal", "uniform", "fixed"], DISTRIBUTION] = "normal"
    prompt_text: Annotated[Literal["words", "prose"], TEXT] = "words"
    shared_prefix: Annotated[tuple[int, int] | None, PREFIX] = None  # tokens, groups

    name = ""  # of what is asked, where its lengths do not say it

    def __post_init__(self) -> None:
        if self.mean_prompt_length > self.max_prompt_length:
            longest = f"--max_prompt_length {self.max_prompt_length}"
            raise ValueError(
                f"--mean_prompt_length {self.mean_prompt_length} is more than {longest}; "
                "lower the former or raise the latter"
            )
        check_prefix(self.shared_prefix, self.max_prompt_length)

    @property
    def lengths(self) -> tuple[Lengths, Lengths]:
        """Of prompts, of answers."""
        around = partial(Lengths.around, distribution=self.length_distribution)
        prompts = around(self.mean_prompt_length, self.prompt_length_var)
        return prompts, around(self.mean_max_new_tokens, self.max_new_tokens_var)


class Scenario(Kind, frozen=True, kw_only=True, tag="scenario"):
    """Made-up prompts and answers, whose lengths a scenario says (log/lengths.py)."""

    scenario: Annotated[str, Option(
        "prompt and answer lengths: fixed 'D(100,32)', normal (mean, deviation) 'N(480,240)/(300,150)', "
        "or uniform 'U(50,100)/(200,250)'",
        OWN_REQUESTS, "S", swept=True)]
    max_prompt_length: Annotated[Count, LONGEST_PROMPT] = 4000
    prompt_text: Annotated[Literal["words", "prose"], TEXT] = "words"
    shared_prefix: Annotated[tuple[int, int] | None, PREFIX] = None

    def __post_init__(self) -> None:
        if self.lengths[0].mean > self.max_prompt_length:
            longest = f"--max_prompt_length {self.max_prompt_length}"
            raise ValueError(f"--scenario {self.scenario} exceeds {longest}; raise the latter")
        check_prefix(self.shared_prefix, self.max_prompt_length)

    @property
    def name(self) -> str:
        return self.scenario

    @property
    def lengths(self) -> tuple[Lengths, Lengths]:
        return parse_scenario(self.scenario)

    @property
    def mean_prompt_length(self) -> int:
        return self.lengths[0].mean

    @property
    def mean_max_new_tokens(self) -> int:
        return self.lengths[1].mean


class Dataset(Kind, frozen=True, kw_only=True, tag="dataset"):
    """Requests of a file; answers whose length it does not say are drawn around a mean."""

    dataset: Annotated[str, Option(
        "requests from a file: ShareGPT, prompts, chat messages or a trace (docs/datasets.md)",
        OWN_REQUESTS, "FILE")]
    dataset_sha256: str = ""
    trace_format: Annotated[Literal["auto", "mooncake", "bailian", "guidellm", "azure", "burstgpt"], Option(
        "format of the trace, if it is not recognized", OWN_REQUESTS)] = "auto"
    multi_turn: Annotated[bool, Option(
        "replay whole conversations, each by one client; without it, their first requests only",
        OWN_REQUESTS)] = False
    think_time: Annotated[float, Meta(ge=0), Option(
        "pause in s between an answer and the next request of its conversation", OWN_REQUESTS, "S")] = 0.0
    max_prompt_length: Annotated[Count, LONGEST_PROMPT] = 4000
    mean_max_new_tokens: Annotated[Count, MEAN_ANSWER] = 60
    max_new_tokens_var: Annotated[Share, SPREAD_ANSWER] = 0.3
    length_distribution: Annotated[Literal["normal", "uniform", "fixed"], DISTRIBUTION] = "normal"

    def __post_init__(self) -> None:
        if self.think_time and not self.multi_turn:
            raise ValueError("--think_time is a pause between the requests of a conversation; give --multi_turn")

    @property
    def name(self) -> str:
        return Path(self.dataset).stem

    @property
    def mean_prompt_length(self) -> None:
        """Its prompts are as long as they are."""

    @property
    def answer_lengths(self) -> Lengths:
        return Lengths.around(self.mean_max_new_tokens, self.max_new_tokens_var, self.length_distribution)


Requests = Synthetic | Scenario | Dataset


def check_prefix(prefix: tuple[int, int] | None, max_prompt_length: int) -> None:
    if prefix and prefix[0] > max_prompt_length:
        raise ValueError(f"--shared_prefix exceeds --max_prompt_length {max_prompt_length}; raise the latter")


class RunConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One load to put on a server, and the requests that it is made of. Times in seconds."""

    load: Load = Clients()
    requests: Requests = Synthetic()
    # measured ones; those of warm-up and cooldown come on top
    num_requests: Annotated[Count, Option(
        "measured requests per run [4 x clients + 32; open loop: 30 s of them, at least 100]", LOAD, "N")] = 36
    warmup: Annotated[int, Meta(ge=0), Option(
        "warm-up requests before those, per client; open loop: in all [1; open loop: a tenth]", LOAD, "N")] = 1
    stream: Annotated[bool, Option(
        "stream tokens; with --no_stream only end-to-end latency can be measured", REQUESTS)] = True
    api: Annotated[Literal["completions", "chat", "score", "mii"], Option(
        "OpenAI API to use; not for fastgen [what the URL names, else completions]",
        RUNNING, choices=('completions', 'chat'))] = "completions"
    temperature: Annotated[float, Meta(ge=0), Option("sampling temperature; 0 is greedy", REQUESTS, "X")] = 1.0
    top_p: Annotated[Share, Option("sample from the likeliest tokens up to this probability", REQUESTS, "X")] = 0.9
    respect_eos: Annotated[bool, Option(
        "let answers end at the end-of-text token; without it every answer has its full length, the same for all "
        "engines", REQUESTS)] = False
    extra_body: Annotated[dict[str, Any], Option(
        "more fields for every request, as a JSON object; they replace ours, and null removes one [{}]",
        REQUESTS, "JSON", parse=json_object)] = {}
    request_timeout: Annotated[float, Meta(ge=0.001), Option(
        "a request that takes longer than this fails, in s", LOAD, "S")] = 600.0  # of each attempt
    max_retries: Annotated[int, Meta(ge=0), Option(
        "retries of a request after status 429 or 5xx, an error in the answer or a broken connection; latency "
        "counts from the first try; Retry-After is obeyed up to 60 s", LOAD, "N")] = 0
    seed: Annotated[int, Meta(ge=0), Option(
        "random seed for lengths, text and arrival times; same seed, same requests [0; a running server: a "
        "new one, since its cache may have the last prompts]", REQUESTS, "N")] = 0
    repetition: int = 0  # which of several runs of the same load; each has fresh requests
    probe_rate: Annotated[float, Meta(ge=0), Option(
        "extra short requests per second, reported separately (what a new user would feel)", LOAD, "R")] = 0.0
    check: Annotated[str, Option(
        "ask questions with known answers during the load, as up to 5 % of its requests, and alone: a file "
        "(docs/answers.md), or basic for a small set of ours [none]", ANSWERS, "FILE.jsonl")] = ""
    check_sha256: str = ""

    @property
    def open_loop(self) -> bool:
        return not isinstance(self.load, Clients)


# fmt: on


def load_label(load: Load) -> str:
    """The load as part of a file name: `clients8`, `rate2.5`, `trace1`."""
    return f"{load.kind}{load.num_clients if isinstance(load, Clients) else format(load.size, 'g')}"


def run_of(fields: Mapping[str, Any]) -> RunConfig:
    """A run from its fields under their own names, whichever kind they belong to; others are left out.

    A rate or the speed of a trace makes an open loop; a scenario or a dataset says what is asked.
    """
    load: type[Load] = Rate if fields.get("request_rate") else Trace if fields.get("trace_speed") else Clients
    requests: type[Requests] = (
        Dataset if fields.get("dataset") else Scenario if fields.get("scenario") else Synthetic
    )
    parts = {"load": from_fields(load, fields), "requests": from_fields(requests, fields)}
    return RunConfig(**({k: v for k, v in fields.items() if k in RunConfig.__struct_fields__} | parts))


def from_fields(kind: type[T], fields: Mapping[str, Any]) -> T:
    """A kind made from those of the fields that it has. Raises ValueError where they make no sense."""
    names = kind.__struct_fields__
    return kind(**{name: value for name, value in fields.items() if name in names})


def fields_of(config: ServerConfig | RunConfig) -> dict[str, Any]:
    """All that was asked for, by the names of the options, whichever kind has them."""
    fields = asdict(config)
    parts = [fields.pop(name) for name in ("load", "requests") if name in fields]
    means = [{name: getattr(p, name) for name in MEANS} for p in parts if isinstance(p, Scenario)]
    return {name: value for part in (*map(asdict, parts), *means) for name, value in part.items()} | fields


def all_fields(config: ServerConfig | RunConfig) -> dict[str, Any]:
    """As fields_of, with the fields of other kinds at their defaults (or None), so that logs can be compared."""
    kinds = (ServerConfig,) if isinstance(config, ServerConfig) else KINDS
    return {
        name: DEFAULTS[name] for kind in kinds for name in kind.__struct_fields__ if name in DEFAULTS
    } | fields_of(config)


def non_default_fields(config: ServerConfig | RunConfig) -> dict[str, Any]:
    """What was asked for that is not the default."""
    return {name: value for name, value in fields_of(config).items() if value != DEFAULTS[name]}


KINDS = (RunConfig, Clients, Rate, Trace, Synthetic, Scenario, Dataset)


def _defaults() -> dict[str, Any]:
    """The default of each field, None where it has none."""
    fields = [field for kind in (ServerConfig, *KINDS) for field in msgspec.structs.fields(kind)]
    made = {f.name: f.default_factory() for f in fields if f.default_factory is not msgspec.NODEFAULT}
    given = {f.name: None if f.default is msgspec.NODEFAULT else f.default for f in fields}
    return {name: value for name, value in (given | made).items() if name not in ("load", "requests")}


DEFAULTS = _defaults()
