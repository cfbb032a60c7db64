"""TLS: stamped as plain sockets are, and verified unless the certificate's authority is made known."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from servebench import metrics, records


class TlsFront:
    """Takes TLS connections on a port of its own and passes their bytes on to a plain server."""

    def __init__(self, context: ssl.SSLContext, behind: tuple[str, int]) -> None:
        self.context, self.behind = context, behind
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                raw, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        with (
            suppress(OSError),
            self.context.wrap_socket(raw, server_side=True) as outer,
            socket.create_connection(self.behind) as inner,
        ):
            threading.Thread(target=self._pass_on, args=(outer, inner), daemon=True).start()
            self._pass_on(inner, outer)

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)


@pytest.fixture
def https(reference: Callable[..., str], tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """(URL, file of the authority) of the reference server behind TLS."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    plain = urlsplit(reference("--ttft", "0.02", "--gap", "0.002"))
    front = TlsFront(context, (str(plain.hostname), int(plain.port or 0)))
    yield f"https://localhost:{front.port}/v1", tmp_path / "ca.pem"
    front.listener.close()


LOAD = ["--backend", "openai", "--model", "reference", "--num_clients", 3, "--num_requests", 12]
LOAD += ["--mean_prompt_length", 500, "--mean_max_new_tokens", 8, "--max_new_tokens_var", 0]


def test_https_is_measured_with_kernel_stamps(
    https: tuple[str, Path],
    benchmark: Callable[..., tuple[int, str, str]],
    tokenizer_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, authority = https
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    code, _, err = benchmark(*LOAD, "--openai_api_url", url, "--tokenizer", tokenizer_dir)
    assert code == 0, err
    (path,) = (tmp_path / "results/openai").glob("*.json")
    log = records.load(path)
    assert metrics.failed_share(log) == 0
    assert log.quality.unstamped_share == 0
    assert all(r.event_tokens == [1] * 8 for r in metrics.succeeded(log))


def test_a_certificate_that_nobody_vouches_for_is_refused(
    https: tuple[str, Path], benchmark: Callable[..., tuple[int, str, str]], tokenizer_dir: Path
) -> None:
    code, _, err = benchmark(*LOAD, "--openai_api_url", https[0], "--tokenizer", tokenizer_dir)
    assert code == 2
    assert "CERTIFICATE_VERIFY_FAILED" in err and err.count("\n") == 1
