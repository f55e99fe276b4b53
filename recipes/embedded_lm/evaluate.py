"""Bits per byte of the language model and of a 5-gram model on the validation documents, written with the log."""

import argparse
import json
import math
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from corpus import documents, load_recipe, token_stream, training_stream
from ngram import KneserNey

LOG_EVERY = 20
AVERAGED_STEPS = 50


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


@torch.no_grad()
def language_model_bits(model: Any, tokenizer: Any, texts: list[str]) -> float:
    """Bits that the model needs for the texts, each after BOS and scored whole in float32."""
    nats = 0.0
    for text in texts:
        ids = tokenizer(text, return_tensors="pt").input_ids
        nats += model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
    return nats / math.log(2)


def five_gram_bits(model: KneserNey, tokenizer: Any, texts: list[str]) -> float:
    """Bits that the 5-gram model needs for the tokens of the same texts, BOS and EOS not counted."""
    stream = token_stream(tokenizer, texts).astype(np.int64)
    scored = (stream != tokenizer.bos_token_id) & (stream != tokenizer.eos_token_id)
    return -float(model.log2(stream)[scored].sum())


def training_row(log: list[dict[str, Any]]) -> dict[str, Any]:
    """Totals and medians of the training run."""
    steps, end = [entry for entry in log if "loss" in entry], log[-1]
    return {
        "measure": "pretraining",
        "steps": end["step"],
        "tokens_seen": end["tokens"],
        "tokens_in_train_stream": end["train_stream_tokens"],
        "seconds": end["seconds"],
        "median_tokens_per_second": float(np.median([entry["tok_s"] for entry in steps])),
        f"train_loss_mean_of_last_{AVERAGED_STEPS}_steps": round(
            float(np.mean([entry["loss"] for entry in steps[-AVERAGED_STEPS:]])), 4
        ),
        "validation_loss_32_rows": end["validation_loss"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with one subfolder per data set")
    parser.add_argument("--run", type=Path, required=True, help="folder that pretrain.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for results.json and training_log.jsonl")
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipe = load_recipe()
    tokenizer: Any = AutoTokenizer.from_pretrained(args.run / "model")
    model: Any = AutoModelForCausalLM.from_pretrained(args.run / "model", dtype=torch.float32)
    stream = training_stream(args.data, tokenizer, recipe).astype(np.int64)
    five_gram = KneserNey.fit(stream, len(tokenizer), tokenizer.bos_token_id)

    log = [json.loads(line) for line in (args.run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [training_row(log)]
    for name in recipe["data"]["validation"]:
        texts = list(documents(args.data, [name], "validation"))
        size = sum(len(text.encode()) for text in texts)
        for label, bits in (
            ("embedded_lm", language_model_bits(model, tokenizer, texts)),
            ("kneser_ney_5_gram", five_gram_bits(five_gram, tokenizer, texts)),
        ):
            score = {"model": label, "set": name, "split": "validation", "documents": len(texts), "bytes": size}
            rows.append({"measure": "bits_per_byte", **score, "bits_per_byte": round(bits / size, 4)})
    results = {"machine": machine(), "rows": rows}
    (args.out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    kept = [entry for entry in log if "loss" not in entry or entry["step"] % LOG_EVERY == 0]
    lines = "".join(json.dumps(entry) + "\n" for entry in kept)
    (args.out / "training_log.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
