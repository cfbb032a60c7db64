"""Write the configuration of a tiny Llama, without weights: tiny_llama.py TOKENIZER_DIR OUT"""

import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

from transformers import AutoTokenizer, GenerationConfig, LlamaConfig


def main(tokenizer_dir: str, out: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        dtype="bfloat16",
        **ends,
    )
    config.save_pretrained(out)
    GenerationConfig(**ends).save_pretrained(out)
    tokenizer.save_pretrained(out)  # last: the script takes tokenizer.json for the sign that all is there


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
