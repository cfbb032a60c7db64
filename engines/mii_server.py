"""DeepSpeed-MII in persistent mode, as one process that a benchmark can watch and end.

    .engines/fastgen/bin/python engines/mii_server.py --model NAME --port 20050 --tensor-parallel 2 --replica-num 2

Runs in .engines/fastgen or fastgen-cpu, never in the client's environment. `mii.serve` makes many processes:
two launchers and the ranks of every replica, and a balancer in front. This one keeps them in its process group and
answers for them. It says "ready on port 20050" when every replica has streamed a token through the balancer, ends
with status 1 when one of them ends, and leaves none behind, also when it is killed itself. Its last line says why.

Ports: the balancer's, then one for every rank of every replica: 1 + replica_num x tensor_parallel in a row.
"""

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
from ports import free_ports, hold, listens
from process_group import ASKS_TO_END, clean_up, ignore_asks_to_end, start_guard

MODULE = "mii.launch.multi_gpu_server"  # what every process of MII runs, and its launchers name
PROOF_S = 120.0  # for a token of a replica that listens already
MOST_TRACKED = 2048  # DeepSpeed's default: the sequences whose state it keeps


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", required=True, help="a directory, or a name on the Hugging Face hub")
    add("--port", type=int, required=True, help="the balancer's; the ranks' follow")
    add("--deployment-name", default="servebench")
    add("--tensor-parallel", type=int, default=1, help="ranks a replica")
    add("--replica-num", type=int, default=1)
    add("--max-ragged-batch-size", type=int, default=768, help="tokens of a forward step")
    add("--max-ragged-sequence-count", type=int, help="sequences of a step (default: as many as tokens)")
    add("--max-length", type=int, help="tokens of prompt and answer (default: the model's)")
    add("--quantization-mode", choices=["wf6af16"], help="FP6 weights")
    add("--gpus", help="indices, replica by replica: 4,5,6,7 (default: CUDA_VISIBLE_DEVICES, or the first)")
    add("--cpu-engine", choices=["hf", "sim"], help="no GPU: a stand-in, see mii_cpu/cpu_engine.py")
    add("--sim-step-ms", type=float, default=5.0, help="of --cpu-engine sim: a step takes this long,")
    add("--sim-token-us", type=float, default=20.0, help="and this for each of its tokens")
    return parser.parse_args()


def main() -> None:
    args = parse()
    for word in (sys.executable, args.deployment_name):
        if " " in word:
            sys.exit(f"{word!r} has a space in it, where DeepSpeed-MII would split its commands")
    for number in ASKS_TO_END:
        signal.signal(number, end_by_signal)
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    scratch = tempfile.mkdtemp(prefix="servebench-mii-")
    guard = start_guard(scratch)
    try:
        serve(args, scratch)
    finally:  # before Python prints the reason: so that is the last line of the log
        ignore_asks_to_end()
        clean_up(scratch, os.getpid(), guard)


def end_by_signal(number: int, _: object) -> None:
    sys.exit(f"ended by {signal.Signals(number).name}")


def serve(args: argparse.Namespace, scratch: str) -> None:
    ports = range(args.port, args.port + 1 + args.replica_num * args.tensor_parallel)
    with hold(ports):
        set_environment(args, scratch)
        start_mii(args)
        watch(args, "while it loaded", until=lambda: all(map(listens, ports)))
    prove(args)
    print(f"ready on port {args.port}", flush=True)
    watch(args, "while it served", until=lambda: False)


def set_environment(args: argparse.Namespace, scratch: str) -> None:
    """What MII's processes inherit."""
    visible = os.environ.pop("CUDA_VISIBLE_DEVICES", "")  # DeepSpeed counts GPUs by it, then overwrites it
    args.gpus = args.gpus or visible
    tempfile.tempdir = scratch  # MII leaves files behind
    os.environ |= {
        "TMPDIR": scratch,
        "MII_CACHE_PATH": scratch,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # MII calls `deepspeed` by its name
        "no_grpc_proxy": "localhost",
    }
    if args.cpu_engine:
        os.environ |= cpu_environment(args)


def cpu_environment(args: argparse.Namespace) -> dict[str, str]:
    ranks = args.replica_num * args.tensor_parallel
    return {
        "PYTHONPATH": f"{Path(__file__).parent / 'mii_cpu'}:{os.environ.get('PYTHONPATH', '')}",
        "DS_ACCELERATOR": "cpu",
        "LOCAL_SIZE": str(ranks),  # what DeepSpeed takes for the number of devices
        "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // ranks)),
        "MII_CPU_ENGINE": args.cpu_engine,
        "MII_SIM_STEP_MS": str(args.sim_step_ms),
        "MII_SIM_TOKEN_US": str(args.sim_token_us),
    }


def start_mii(args: argparse.Namespace) -> None:
    import mii  # here, since it reads the environment, and so that the guard gets none of its threads

    check_model(args.model)
    check_devices(args)
    # MII's own wait looks every five seconds, and never at the balancer; `watch` does it instead.
    mii.backend.MIIServer._wait_until_server_is_live = lambda *_: None
    mii.serve(args.model, **settings(args))


def check_model(model: str) -> None:
    from transformers import AutoConfig

    path = Path(model)
    if (path.is_absolute() or path.is_dir()) and not (path / "config.json").is_file():
        sys.exit(f"--model {model}: there is no config.json in it")
    try:
        AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        sys.exit(f"--model {model}: {str(error).splitlines()[0]}")


def check_devices(args: argparse.Namespace) -> None:
    import torch

    ranks, gpus = args.replica_num * args.tensor_parallel, torch.cuda.device_count()
    if not args.cpu_engine and ranks > gpus:
        sys.exit(f"{ranks} GPUs are needed, torch sees {gpus}; without any, --cpu-engine hf serves for tests")


def settings(args: argparse.Namespace) -> dict[str, object]:
    """The arguments of mii.serve. Those that two benchmarks would share by default are chosen free."""
    sequences = args.max_ragged_sequence_count or args.max_ragged_batch_size
    manager = {
        "max_ragged_batch_size": args.max_ragged_batch_size,
        "max_ragged_sequence_count": sequences,
        "max_tracked_sequences": max(MOST_TRACKED, sequences),
    }
    chosen = {
        "deployment_name": args.deployment_name,
        "port_number": args.port,
        "tensor_parallel": args.tensor_parallel,
        "replica_num": args.replica_num,
        "quantization_mode": args.quantization_mode,
        "max_length": args.max_length,
        "inference_engine_config": {"state_manager": manager},
        "torch_dist_port": free_ports(args.replica_num, step=100),
        "zmq_port_number": free_ports(args.replica_num, step=1),
    }
    if args.gpus:
        gpus, size = [int(gpu) for gpu in args.gpus.split(",")], args.tensor_parallel
        chosen["device_map"] = [gpus[i * size : (i + 1) * size] for i in range(args.replica_num)]
    return chosen


def watch(args: argparse.Namespace, when: str, until: Callable[[], bool]) -> None:
    """Wait while every process of MII runs; ends this process when one of MII's has ended."""
    processes = family(args)
    while not until():
        for process, name in processes.items():
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                sys.exit(f"{name} ended {when}; what it said stands above")
        time.sleep(0.3)


def family(args: argparse.Namespace) -> dict[psutil.Process, str]:
    """MII's processes below this one, with names for people."""
    named = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            words = process.cmdline()
            if "--load-balancer" in words:
                named[process] = "the balancer"
            elif MODULE in words:
                port = int(words[words.index("--server-port") + 1])
                named[process] = f"replica {(port - args.port - 1) // args.tensor_parallel}"
    return named


def prove(args: argparse.Namespace) -> None:
    """Have a token of every replica. In a thread, because the balancer would not tell that a replica is gone."""
    faults: list[str] = []
    proof = threading.Thread(target=ask_replicas, args=(args, faults), daemon=True)
    proof.start()
    watch(args, "at its first request", until=lambda: not proof.is_alive())
    if faults:
        sys.exit(faults[0])


def ask_replicas(args: argparse.Namespace, faults: list[str]) -> None:
    """Stream a token of each through the balancer, which deals requests in turn."""
    import grpc
    from mii.grpc_related.proto.modelresponse_pb2 import MultiStringRequest
    from mii.grpc_related.proto.modelresponse_pb2_grpc import ModelResponseStub
    from mii.utils import kwarg_dict_to_proto

    wanted = kwarg_dict_to_proto({"stream": True, "max_new_tokens": 1, "do_sample": False})
    request = MultiStringRequest(request=["Hello"], query_kwargs=wanted)
    with grpc.insecure_channel(f"localhost:{args.port}") as channel:
        try:
            for _ in range(args.replica_num):
                list(ModelResponseStub(channel).GeneratorReplyStream(request, timeout=PROOF_S))
        except grpc.RpcError as error:
            faults.append(f"the first request failed: {error.code().name}, {error.details()}")


if __name__ == "__main__":
    main()
