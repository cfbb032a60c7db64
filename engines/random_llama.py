"""Write a Llama that was never trained: random_llama.py SIZE TOKENIZER_DIR OUT [--weights]

SIZE is tiny or 7b (the shape of Llama-2-7b). Without --weights only the configuration is written, for engines that
make weights up themselves (vLLM: --load-format dummy).
"""

import argparse
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig

SIZES = {
    "tiny": {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "tie_word_embeddings": False,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("tokenizer_dir", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", action="store_true")
    args = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer_dir)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=len(tokenizer),
        max_position_embeddings=4096,
        dtype="bfloat16",
        **SIZES[args.size],
        **ends,
    )
    config.save_pretrained(args.out)
    if args.weights:
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(args.out)
    GenerationConfig(**ends).save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)  # last: the recipes take tokenizer.json for the sign that all is there


if __name__ == "__main__":
    main()
