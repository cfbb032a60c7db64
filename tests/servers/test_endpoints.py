"""Servers as they are: where calls go, which headers they want, and what is said in place of HTTP."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError

import pytest
from tokenizers import Tokenizer

from servebench.errors import InputError
from servebench.load.http import merge_headers
from servebench.log import schema, store, urls
from servebench.plan import arguments
from servebench.servers import http_call
from servebench.servers.access import with_extra_body

Benchmark = Callable[..., tuple[int, str, str]]
Answer = tuple[int, Any]


class Call(NamedTuple):
    method: str
    path: str
    headers: list[tuple[str, str]]
    body: dict[str, Any]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]


class Fake:
    """A server of completions and chat. `odd(call)` gives (status, JSON) where it does not answer as usual."""

    def __init__(
        self, odd: Callable[[Call], Answer | None], models: Any = ("m",), template: int = 0, port: int = 0
    ) -> None:
        self.calls: list[Call] = []
        self.location = ""
        fake = self

        class Page(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._take("GET")

            def do_POST(self) -> None:
                self._take("POST")

            def _take(self, method: str) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                call = Call(method, self.path, self.headers.items(), json.loads(body) if body else {})
                fake.calls.append(call)
                status, value = odd(call) or self._usual(call)
                data = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                if fake.location and status == 302:
                    self.send_header("Location", fake.location)
                self.send_header("Content-Type", "text/event-stream" if data[:5] == b"data:" else "text/json")
                self.end_headers()
                self.wfile.write(data)

            def _usual(self, call: Call) -> Answer:
                if call.method == "GET":
                    listed = models if isinstance(models, dict) else {"data": [{"id": name} for name in models]}
                    return (200, listed) if call.path.partition("?")[0].endswith("/models") else (404, {})
                return 200, answer(call.body, template)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Page)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @property
    def posts(self) -> list[Call]:
        return [call for call in self.calls if call.method == "POST"]


def answer(ask: dict[str, Any], template: int) -> bytes:
    """A stream of the tokens that were asked for, and its usage."""
    n = int(ask.get("max_tokens") or ask.get("max_completion_tokens") or 1)
    chat = "messages" in ask
    text = ask["messages"][0]["content"] if chat else ask["prompt"]
    said = {"delta": {"content": " word"}} if chat else {"text": " word"}
    usage = {"prompt_tokens": len(text.split()) + template, "completion_tokens": n}
    chunks = [{"choices": [said | {"finish_reason": "length" if i == n - 1 else None}]} for i in range(n)]
    events = [json.dumps(chunk) for chunk in [*chunks, {"choices": [], "usage": usage}]]
    return "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"]).encode()


@pytest.fixture
def serve() -> Iterator[Callable[..., Fake]]:
    """Start a fake server."""
    running: list[Fake] = []

    def start(odd: Callable[[Call], Answer | None] = lambda _: None, **options: Any) -> Fake:
        running.append(Fake(odd, **options))
        return running[-1]

    yield start
    for fake in running:
        fake.server.shutdown()
        fake.server.server_close()


@pytest.fixture
def measure(benchmark: Benchmark, tokenizer_dir: Path) -> Benchmark:
    """Two requests of one client to this URL."""

    def run(url: str, *words: object) -> tuple[int, str, str]:
        load = ["--num_clients", 1, "--num_requests", 2, "--warmup", 0, "--request_timeout", 10]
        load += ["--prompt_length_var", 0, "--max_new_tokens_var", 0]
        if "--mean_prompt_length" not in words:
            load += ["--mean_prompt_length", 8, "--mean_max_new_tokens", 4]
        who = ["--backend", "openai", "--openai_api_url", url, "--tokenizer", tokenizer_dir]
        return benchmark(*who, *([] if "--model" in words else ["--model", "m"]), *load, *words)

    return run


def the_log(results: Path) -> schema.Log:
    (path,) = results.glob("*/*.json")
    return store.load(path)


# URLs.


@pytest.mark.parametrize(
    ("url", "chat", "models", "health"),
    [
        ("http://h:1", "http://h:1/v1/chat/completions", "http://h:1/v1/models", "http://h:1/health"),
        ("http://h:1/", "http://h:1/v1/chat/completions", "http://h:1/v1/models", "http://h:1/health"),
        ("http://h/v1", "http://h/v1/chat/completions", "http://h/v1/models", "http://h/health"),
        ("http://h/v1/", "http://h/v1/chat/completions", "http://h/v1/models", "http://h/health"),
        ("http://h/v1/chat/completions", "http://h/v1/chat/completions", "http://h/v1/models", "http://h/health"),
        ("http://h/api/v3", "http://h/api/v3/chat/completions", "http://h/api/v3/models", "http://h/api/v3/health"),
        ("http://h/a/v1", "http://h/a/v1/chat/completions", "http://h/a/v1/models", "http://h/a/health"),
        ("http://u:p@h/v1#x", "http://h/v1/chat/completions", "http://h/v1/models", "http://h/health"),
        ("http://[::1]:8/v1", "http://[::1]:8/v1/chat/completions", "http://[::1]:8/v1/models", "http://[::1]:8/health"),
        (
            "https://h/v1beta/openai",
            "https://h/v1beta/openai/chat/completions",
            "https://h/v1beta/openai/models",
            "https://h/v1beta/openai/health",
        ),
        (
            "https://h/openai/deployments/g?api-version=1",
            "https://h/openai/deployments/g/chat/completions?api-version=1",
            "https://h/openai/deployments/g/models?api-version=1",
            "https://h/openai/deployments/g/health?api-version=1",
        ),
        (
            "https://h/chat/completions?api-version=1",
            "https://h/chat/completions?api-version=1",
            "https://h/models?api-version=1",
            "https://h/health?api-version=1",
        ),
    ],
)  # fmt: skip
def test_where_the_calls_go(url: str, chat: str, models: str, health: str) -> None:
    assert urls.endpoint(url, "chat") == chat
    assert urls.models_url(url) == models
    assert urls.beside(url, "/health") == health


def test_a_base_keeps_its_path_and_query_on_every_call(serve: Callable[..., Fake], measure: Benchmark) -> None:
    fake = serve()
    code, _, err = measure(fake.url + "/openai/deployments/g?api-version=1", "--api", "chat")
    assert code == 0, err
    assert {c.path for c in fake.posts} == {"/openai/deployments/g/chat/completions?api-version=1"}
    assert all(c.path.endswith("?api-version=1") for c in fake.calls)


def test_a_url_that_names_its_api_says_which_is_measured(
    serve: Callable[..., Fake], measure: Benchmark, results: Path
) -> None:
    fake = serve()
    assert measure(fake.url + "/v1/chat/completions")[0] == 0
    assert {c.path for c in fake.posts} == {"/v1/chat/completions"}
    assert the_log(results).run.api == "chat"


# Headers and fields.


def test_what_the_user_gives_replaces_ours_whatever_its_case() -> None:
    ours = {"Host": "a", "Accept": "b"}
    assert merge_headers(ours, {"host": "c", "X": "d"}) == {"Accept": "b", "host": "c", "X": "d"}


def test_headers_go_with_every_call_and_win(
    serve: Callable[..., Fake], measure: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of-another-service")
    given = {"authorization": "Basic x", "HOST": "gateway", "user-agent": "me", "accept": "a/b", "api-key": "k"}
    fake = serve()
    code, _, err = measure(fake.url + "/v1", "--extra_headers", *(f"{k}:{v}" for k, v in given.items()))
    assert code == 0, err
    assert {c.path for c in fake.calls} >= {"/v1/models", "/metrics", "/health", "/v1/completions"}
    for call in fake.calls:
        assert {name: call.all(name.lower()) for name in given} == {name: [value] for name, value in given.items()}


def test_the_id_of_requests_may_be_the_users(serve: Callable[..., Fake], measure: Benchmark) -> None:
    fake = serve()
    assert measure(fake.url, "--extra_headers", "x-request-id:mine")[0] == 0
    assert {tuple(c.all("x-request-id")) for c in fake.posts} == {("mine",)}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--extra_headers", "A:1", "a:2"], "--extra_headers has a twice"),
        (["--openai_api_url", "http://u:1@h", "http://u:2@h2"], "every server gets the same user:password@"),
        (["--openai_api_url", "http://u:1@h", "http://h2"], "every server gets the same user:password@"),
    ],
)
def test_what_would_go_astray_is_refused(words: list[str], why: str) -> None:
    with pytest.raises(InputError, match=why):
        arguments.parse(["--backend", "openai", "--openai_api_url", "http://h", *words])


def test_we_have_a_name(serve: Callable[..., Fake], measure: Benchmark) -> None:
    fake = serve()
    assert measure(fake.url)[0] == 0
    assert all(c.all("user-agent")[0].startswith("servebench/") for c in fake.calls)


def test_a_user_and_password_of_the_url_become_a_header(
    serve: Callable[..., Fake], measure: Benchmark, results: Path
) -> None:
    fake = serve()
    code, out, err = measure(fake.url.replace("//", "//user:pass%40word@") + "/v1?key=sesame&v=1")
    assert code == 0, err
    assert {tuple(c.all("authorization")) for c in fake.calls} == {("Basic dXNlcjpwYXNzQHdvcmQ=",)}
    assert {c.path for c in fake.posts} == {"/v1/completions?key=sesame&v=1"}
    written = out + err + "".join(path.read_text() for path in results.rglob("*.json"))
    assert "pass%40word" not in written and "sesame" not in written
    assert the_log(results).server_facts.urls == [fake.url.replace("//", "//***@") + "/v1?key=***&v=1"]


def test_null_takes_a_field_of_ours_away() -> None:
    assert with_extra_body({"top_p": 0.9, "n": 1}, {"top_p": None, "n": 2, "stop": None}) == {"n": 2, "stop": None}


def test_a_field_can_be_left_out(serve: Callable[..., Fake], measure: Benchmark) -> None:
    fake = serve()
    assert measure(fake.url, "--extra_body", '{"top_p": null, "best_of": 1}')[0] == 0
    assert all("top_p" not in c.body and c.body["best_of"] == 1 for c in fake.posts)


# Models.


def test_a_model_that_is_not_there_is_refused_with_those_that_are(
    serve: Callable[..., Fake], measure: Benchmark
) -> None:
    fake = serve(models=("text-embedding-tiny", "big-model:70b"))
    code, _, err = measure(fake.url, "--model", "big-model:7b")
    assert code == 2 and err.count("\n") == 1
    assert "--model big-model:7b is not served" in err and "big-model:70b, text-embedding-tiny" in err
    assert not fake.posts


def test_the_only_model_is_taken_said_and_kept(
    serve: Callable[..., Fake], measure: Benchmark, results: Path
) -> None:
    fake = serve(models=("/models/llama",))
    code, _, err = measure(fake.url, "--model", "meta-llama/Llama-2-7b-hf")
    assert code == 0 and "lists no meta-llama/Llama-2-7b-hf; its model /models/llama is measured" in err
    assert {c.body["model"] for c in fake.posts} == {"/models/llama"}
    assert the_log(results).server_facts.model == "/models/llama"


def test_a_model_is_known_by_what_it_was_loaded_from(serve: Callable[..., Fake], measure: Benchmark) -> None:
    fake = serve(models={"data": [{"id": "lora", "root": "x"}, {"id": "llama", "root": "meta/llama"}]})
    assert measure(fake.url, "--model", "meta/llama")[0] == 0
    assert {c.body["model"] for c in fake.posts} == {"llama"}


def test_a_served_name_may_look_like_a_path(serve: Callable[..., Fake], measure: Benchmark) -> None:
    fake = serve(models=("/models/a", "/models/b"))
    assert measure(fake.url, "--model", "/models/a")[0] == 0
    assert {c.body["model"] for c in fake.posts} == {"/models/a"}


@pytest.mark.parametrize("page", [b'{"version": "\xff", "data": [{"id": "m\xe8le"}, {"id": "m"}]}', b"[" * 9000])
def test_pages_of_odd_bytes_are_read_as_far_as_they_go(
    serve: Callable[..., Fake], measure: Benchmark, page: bytes
) -> None:
    fake = serve(lambda call: (200, page) if call.method == "GET" else None)
    code, _, err = measure(fake.url)
    assert code == 0, err


@pytest.mark.parametrize("listing", [{"data": None}, {"data": [None, {}]}, {"object": "list"}, {"data": {}}])
def test_a_listing_of_nothing_lets_the_model_be(
    serve: Callable[..., Fake], measure: Benchmark, listing: dict[str, Any]
) -> None:
    fake = serve(models=listing)
    code, _, err = measure(fake.url)
    assert code == 0, err
    assert {c.body["model"] for c in fake.posts} == {"m"}


# What is there instead of an API.


def test_a_health_page_of_a_gateway_is_not_waited_for(serve: Callable[..., Fake], measure: Benchmark) -> None:
    fake = serve(lambda call: (503, {}) if call.path == "/health" else None)
    assert measure(fake.url, "--server_timeout", 300)[0] == 0


def test_a_model_that_loads_for_ever_is_said_and_given_up(serve: Callable[..., Fake], measure: Benchmark) -> None:
    fake = serve(lambda call: (503, {"error": "Loading model"}) if "models" not in call.path else None)
    code, out, err = measure(fake.url, "--server_timeout", 5)
    assert code == 1
    assert f"{fake.url}/health and the API say 503, so the model is still loading" in err
    assert "503 after 5 s (--server_timeout)" in out


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.6\r\n", b"-ERR wrong number of arguments\r\n", b""])
def test_a_port_that_speaks_no_http_is_one_line(measure: Benchmark, greeting: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            with suppress(OSError):
                while True:
                    with listener.accept()[0] as sock:
                        sock.recv(10_000)
                        sock.sendall(greeting)

        threading.Thread(target=greet, daemon=True).start()
        code, _, err = measure(f"http://127.0.0.1:{listener.getsockname()[1]}")
        listener.shutdown(socket.SHUT_RDWR)
    assert code == 2 and err.count("\n") == 1 and "nothing answers" in err
    assert not greeting or greeting.decode()[:8] in err


def test_an_unused_proxy_is_named(measure: Benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://user:sesame@127.0.0.1:9")
    code, _, err = measure("http://127.0.0.1:1")
    assert code == 2 and "$http_proxy is set but not used" in err and "sesame" not in err


def test_a_refused_key_names_the_url_and_what_to_give(serve: Callable[..., Fake], measure: Benchmark) -> None:
    fake = serve(lambda _: (401, {}))
    code, _, err = measure(fake.url)
    assert code == 2 and f"{fake.url}/v1/models refuses calls without a key" in err and "--extra_headers" in err


def test_a_key_that_the_server_repeats_is_in_no_log(
    serve: Callable[..., Fake], measure: Benchmark, results: Path
) -> None:
    fake = serve(lambda call: (401, {"error": f"bad key {call.headers}"}) if call.method == "POST" else None)
    code, out, err = measure(fake.url, "--openai_api_key", "sesame-417", "--extra_headers", "k:sesame-418")
    written = "".join(path.read_text() for path in results.rglob("*") if path.is_file())
    assert code == 1 and "bad key" in out and "bad key" in written
    assert "sesame" not in out + err + written


def test_no_header_follows_to_another_host(serve: Callable[..., Fake]) -> None:
    other = serve()
    fake = serve(lambda call: (302, b"") if call.path == "/there" else None)
    fake.location = other.url.replace("127.0.0.1", "localhost") + "/v1/models"
    with pytest.raises(HTTPError):
        http_call.call(fake.url + "/there", {"Authorization": "Bearer x"}, 5)
    assert not other.calls
    fake.location = fake.url + "/v1/models"
    assert b"data" in http_call.call(fake.url + "/there", {}, 5)


def test_what_is_waited_for_is_said(
    serve: Callable[..., Fake], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = threading.Event()
    monkeypatch.setattr(http_call, "NOTICE_AFTER_S", 0.01)
    monkeypatch.setattr(http_call, "notify", lambda line: (said.set(), print(line)))

    http_call.call(serve(lambda _: said.wait(30) and None).url + "/v1/models?key=sesame", {}, 60)
    out = capsys.readouterr().out
    assert "waiting for an answer from http" in out and "sesame" not in out


@pytest.mark.parametrize("host", ["nobody.invalid", "127.0.0.1:1"])
def test_an_absent_endpoint_is_one_line(benchmark: Benchmark, tokenizer_dir: Path, host: str) -> None:
    who = ["--backend", "aml", "--model", "m", "--tokenizer", tokenizer_dir, "--deployment_name", "d"]
    code, _, err = benchmark(*who, "--aml_api_url", f"http://{host}/score", "--aml_api_key", "k")
    assert code == 2 and err.count("\n") == 1 and f"nothing answers at http://{host}" in err


# What a first request tells, where the API is chat.


@pytest.mark.parametrize("body", ["Transfer-Encoding: chunked\r\n\r\n5\r\nabcde", "Content-Length: 9\r\n\r\nabc"])
def test_a_first_request_that_is_refused_in_half_is_left_to_the_load(measure: Benchmark, body: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            with suppress(OSError):
                while True:
                    with listener.accept()[0] as sock:
                        sock.recv(100_000)
                        sock.sendall(f"HTTP/1.1 400 Bad Request\r\n{body}".encode())

        threading.Thread(target=refuse, daemon=True).start()
        code, out, err = measure(f"http://127.0.0.1:{listener.getsockname()[1]}", "--api", "chat")
        listener.shutdown(socket.SHUT_RDWR)
    assert code == 1 and "every request failed, the first with: HTTP 400" in out and "Traceback" not in err


UNSUPPORTED = (
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
)


def test_the_name_of_the_length_is_learnt(serve: Callable[..., Fake], measure: Benchmark, results: Path) -> None:
    """Every request keeps a length of its own, under the other name."""

    def refuse(call: Call) -> Answer | None:
        return (400, {"error": {"message": UNSUPPORTED}}) if "max_tokens" in call.body else None

    fake = serve(refuse)
    code, _, err = measure(fake.url, "--api", "chat", "--max_new_tokens_var", 0.5, "--num_requests", 8)
    assert code == 0 and "wants max_completion_tokens" in err
    asked = {c.body["max_completion_tokens"] for c in fake.posts[1:]}
    assert len(asked) > 2 and not any("max_tokens" in c.body for c in fake.posts[1:])
    log = the_log(results)
    assert not any(r.error for r in log.results) and "max_completion_tokens" in log.server_facts.learnt[0]


@pytest.mark.parametrize("ours", ['"max_tokens": null, ', ""])
def test_the_length_may_be_renamed_by_hand(serve: Callable[..., Fake], measure: Benchmark, ours: str) -> None:
    fake = serve()
    assert measure(fake.url, "--extra_body", f'{{{ours}"max_completion_tokens": 4}}')[0] == 0
    assert all("max_tokens" not in c.body and c.body["max_completion_tokens"] == 4 for c in fake.posts)


def test_a_field_that_is_refused_is_named_with_the_way_out(serve: Callable[..., Fake], measure: Benchmark) -> None:
    unknown = {"error": {"message": "Unrecognized request argument supplied: ignore_eos"}}
    fake = serve(lambda call: (400, unknown) if "ignore_eos" in call.body else None)
    code, _, err = measure(fake.url, "--api", "chat")
    assert code == 1 and "refuses the field ignore_eos; leave it out with --respect_eos" in err
    assert measure(fake.url, "--api", "chat", "--respect_eos")[0] == 0


def test_a_refusal_that_repeats_the_request_refuses_no_field(
    serve: Callable[..., Fake], measure: Benchmark
) -> None:
    fake = serve(lambda call: (422, {"detail": [{"input": call.body}]}) if call.method == "POST" else None)
    code, _, err = measure(fake.url, "--api", "chat")
    assert code == 1 and "refuses the field" not in err


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_prompts_leave_room_for_the_template(
    serve: Callable[..., Fake], measure: Benchmark, results: Path, tokenizer_dir: Path, api: str
) -> None:
    """A context of 100 tokens, prompts of 70 that vary by a half, answers of 10, and a template of 20."""

    def refuse(call: Call) -> Answer | None:
        chat = "messages" in call.body
        text = call.body["messages"][0]["content"] if chat else call.body.get("prompt", "")
        used = tokens_of(text) + 20 * chat + call.body.get("max_tokens", 0)
        return (400, {"error": "too long"}) if used > 100 else None

    def usage(call: Call) -> Answer | None:
        if call.method == "GET":
            return None
        data = answer(call.body, 0).decode()
        text = call.body["messages"][0]["content"] if api == "chat" else call.body["prompt"]
        told = json.dumps({"choices": [], "usage": {"prompt_tokens": tokens_of(text) + 20 * (api == "chat")}})
        return 200, data.replace("data: [DONE]", f"data: {told}\n\ndata: [DONE]").encode()

    tokenizer = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))

    def tokens_of(text: str) -> int:
        return len(tokenizer.encode(text).ids)

    fake = serve(lambda call: refuse(call) or usage(call), models={"data": [{"id": "m", "max_model_len": 100}]})
    lengths = ["--mean_prompt_length", 70, "--mean_max_new_tokens", 10, "--prompt_length_var", 0.5]
    code, _, err = measure(fake.url, "--api", api, *lengths, "--num_requests", 30)
    log = the_log(results)
    assert code == 0, err
    assert not [r.error for r in log.results if r.error]
    most = max(r.prompt_tokens + r.max_new_tokens for r in log.results)
    assert most == 100


# Seeds of servers that run on.


def test_prompts_are_fresh_each_time_something_is_measured_anew(
    serve: Callable[..., Fake], measure: Benchmark, results: Path
) -> None:
    """And the same command finds its points done."""
    fake = serve()
    assert measure(fake.url)[0] == 0
    first = the_log(results).run.seed
    asked = len(fake.posts)
    assert measure(fake.url)[0] == 0
    assert len(fake.posts) == asked and the_log(results).run.seed == first
    assert measure(fake.url, "--overwrite_results")[0] == 0
    assert the_log(results).run.seed != first
    prompts = [c.body["prompt"] for c in fake.posts]
    assert not set(prompts[:asked]) & set(prompts[asked:])
    assert measure(fake.url, "--num_clients", 1, 2)[0] == 0
    assert len({store.load(path).run.seed for path in results.glob("*/*.json")}) == 2


def test_a_seed_that_is_given_stands(serve: Callable[..., Fake], measure: Benchmark, results: Path) -> None:
    assert measure(serve().url, "--seed", 5)[0] == 0
    assert the_log(results).run.seed == 5
