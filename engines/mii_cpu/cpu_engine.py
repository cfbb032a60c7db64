"""CPU engines with those methods of DeepSpeed's InferenceEngineV2 that MII's scheduler calls.

sitecustomize.py puts them in its place.

    MII_CPU_ENGINE=hf     the model in transformers, one sequence after another: real text, slowly
    MII_CPU_ENGINE=sim    no model: a step takes MII_SIM_STEP_MS, and MII_SIM_TOKEN_US for each of its tokens

With tensor parallelism every rank computes everything, and MII takes what rank 0 computed.
"""

import os
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from deepspeed.accelerator import get_accelerator
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, DynamicCache

BLOCK_TOKENS = 64
BLOCKS = 4096
WORDS = "the of and to in that is was for on with as by at from"  # what the sim engine says


def make_engine(model_config):
    """The engine of $MII_CPU_ENGINE, in a process group like that of the CUDA engine."""
    pretend_cuda()
    torch.distributed.init_process_group("gloo")
    kind = {"hf": TransformersEngine, "sim": SimulatedEngine}[os.environ["MII_CPU_ENGINE"]]
    return kind(model_config)


def pretend_cuda() -> None:
    """MII waits for CUDA, and compares the device with 0, where DeepSpeed's CPU accelerator gives a string."""
    torch.cuda.synchronize = lambda *_: None
    get_accelerator().current_device = lambda: int(os.environ["LOCAL_RANK"])
    torch.set_grad_enabled(False)


class PagedEngine:
    """Keeps the books of a paged KV cache; subclasses compute. Sequences are known by MII's `uid`."""

    def __init__(self, model_config, max_seq_length: int) -> None:
        self.cached: dict[int, int] = {}  # uid -> tokens in the cache
        self.max_seq_length = max_seq_length
        self._config = model_config.inference_engine_config
        served = SimpleNamespace(max_seq_length=max_seq_length)
        self._policy = SimpleNamespace(_checkpoint_engine=SimpleNamespace(model_config=served))

    @property
    def free_blocks(self) -> list[int]:
        return [BLOCKS - sum(map(blocks_for, self.cached.values()))]

    def get_remaining_block_capacity(self, uid: int) -> int:
        tokens = self.cached.get(uid, 0)
        return blocks_for(tokens) * BLOCK_TOKENS - tokens

    def query(self, uid: int, max_request_tokens: int, max_request_blocks: int) -> tuple[int, int]:
        """Of so many tokens and new blocks, those that this sequence can have now."""
        tokens = self.cached.get(uid, 0)
        room = self.get_remaining_block_capacity(uid) + max_request_blocks * BLOCK_TOKENS
        granted = max(0, min(max_request_tokens, room, self.max_seq_length - tokens))
        return granted, blocks_for(tokens + granted) - blocks_for(tokens)

    def put(self, uids: list[int], token_ids: list[torch.Tensor], do_checks: bool = True) -> torch.Tensor:
        """One forward step; logits of the last token of each sequence, (sequences, vocabulary)."""
        logits = self.forward(uids, token_ids)
        for uid, ids in zip(uids, token_ids, strict=True):
            self.cached[uid] = self.cached.get(uid, 0) + len(ids)
        return logits

    def flush(self, uid: int) -> None:
        self.cached.pop(uid, None)


def blocks_for(tokens: int) -> int:
    return -(-tokens // BLOCK_TOKENS)


class TransformersEngine(PagedEngine):
    def __init__(self, model_config) -> None:
        self.model = load(model_config.model_name_or_path).eval()
        self.caches: dict[int, DynamicCache] = {}
        super().__init__(model_config, self.model.config.max_position_embeddings)

    def forward(self, uids: list[int], token_ids: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack([self.next_logits(uid, ids.long()) for uid, ids in zip(uids, token_ids, strict=True)])

    def next_logits(self, uid: int, ids: torch.Tensor) -> torch.Tensor:
        cache = self.caches.setdefault(uid, DynamicCache(config=self.model.config))
        answer = self.model(ids.view(1, -1), past_key_values=cache, use_cache=True, logits_to_keep=1)
        return answer.logits[0, -1].float()

    def flush(self, uid: int) -> None:
        super().flush(uid)
        self.caches.pop(uid, None)


def load(model: str) -> torch.nn.Module:
    """Its weights, or random ones where a directory has only a configuration (tiny_llama.sh)."""
    if Path(model).is_dir() and not [*Path(model).glob("*.safetensors"), *Path(model).glob("*.bin")]:
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model), dtype=torch.bfloat16)
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)


class SimulatedEngine(PagedEngine):
    def __init__(self, model_config) -> None:
        tokenizer = AutoTokenizer.from_pretrained(model_config.tokenizer)
        self.vocabulary = len(tokenizer)
        self.says = tokenizer.encode(" " + WORDS, add_special_tokens=False)
        self.step_s = float(os.environ["MII_SIM_STEP_MS"]) / 1e3
        self.token_s = float(os.environ["MII_SIM_TOKEN_US"]) / 1e6
        super().__init__(
            model_config, AutoConfig.from_pretrained(model_config.model_name_or_path).max_position_embeddings
        )

    def forward(self, uids: list[int], token_ids: list[torch.Tensor]) -> torch.Tensor:
        time.sleep(self.step_s + self.token_s * sum(map(len, token_ids)))
        logits = torch.full((len(uids), self.vocabulary), -30.0)
        for row, uid in enumerate(uids):
            logits[row, self.says[(uid + self.cached.get(uid, 0)) % len(self.says)]] = 30.0
        return logits
