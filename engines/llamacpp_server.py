"""llama.cpp's own C++ HTTP server from the xllamacpp wheel, with those flags of `llama-server` that matter.

Runs in .engines/llamacpp, never in the client's environment.
"""

import argparse
import os
import signal
import threading

import xllamacpp


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="a .gguf file")
    parser.add_argument("--alias", required=True, help="name that the API knows the model by")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--parallel", type=int, default=8, help="slots: requests decoded together")
    parser.add_argument("--ctx-size", type=int, default=8192, help="tokens of context, shared by all slots")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batch-size", type=int, default=2048)
    return parser.parse_args()


def configure(args: argparse.Namespace) -> xllamacpp.CommonParams:
    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = args.model, {args.alias}
    params.hostnames, params.port = [args.host], args.port
    params.n_parallel, params.n_ctx, params.n_batch = args.parallel, args.ctx_size, args.batch_size
    params.kv_unified = True  # slots draw on one pool, as a paged engine does, not on equal shares of it
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = args.threads
    params.endpoint_metrics = params.endpoint_slots = True
    return params


def main() -> None:
    end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    server = xllamacpp.Server(configure(parse()))
    print("listening on", server.listening_address, flush=True)
    end.wait()


if __name__ == "__main__":
    main()
