"""Convert a GGUF checkpoint to a Hugging Face directory in bfloat16: gguf_to_hf.py FILE.gguf OUT

Runs in an engine's environment (torch, transformers, gguf, accelerate), never in the client's.
"""

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # everything needed is in the file

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def main(source: Path, out: Path) -> None:
    where = {"pretrained_model_name_or_path": source.parent, "gguf_file": source.name}
    unpacked = GgufConfig(dequantize=True)  # transformers would keep the 4-bit blocks, and then not save them
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.bfloat16, quantization_config=unpacked)
    # It still believes to be quantised; a plain checkpoint must not say so.
    vars(model.config).pop("quantization_config", None)
    model.hf_quantizer, model.is_quantized = None, False
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(**where).save_pretrained(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
