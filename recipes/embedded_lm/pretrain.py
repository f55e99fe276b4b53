"""Pretrain the language model on one CPU core for a given time; the schedule follows the elapsed share of it."""

import argparse
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

import cpu_ops  # noqa: F401  registers the "blocked" attention
from corpus import documents, load_recipe, token_stream, training_stream
from cpu_ops import HeadLoss


def build(recipe: dict[str, Any], tokenizer: Any) -> Any:
    """Stock Llama with float32 weights, initialised from the recipe's seed."""
    torch.manual_seed(recipe["pretraining"]["seed"])
    settings = dict(recipe["model"])
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        rope_parameters={"rope_type": "default", "rope_theta": settings.pop("rope_theta")},
        **settings,
    )
    return LlamaForCausalLM._from_config(config, attn_implementation="blocked")  # type: ignore[no-untyped-call]


def build_optimisers(model: Any, plan: dict[str, Any]) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms; both take the same learning rate."""
    rate, parameters = plan["learning_rate"], dict(model.named_parameters())
    matrices = {name: p for name, p in parameters.items() if p.ndim == 2 and "embed_tokens" not in name}
    rest = [p for name, p in parameters.items() if name not in matrices]
    return [
        torch.optim.Muon(matrices.values(), lr=rate, adjust_lr_fn="match_rms_adamw", **plan["muon"]),
        torch.optim.AdamW(rest, lr=rate, fused=True, **plan["adamw"]),
    ]


def rows(stream: NDArray[np.uint16], order: NDArray[np.int64], length: int) -> Tensor:
    """Rows of `length` + 1 tokens: each token but the last is an input, each but the first a target."""
    return torch.from_numpy(np.stack([stream[i * length : (i + 1) * length + 1] for i in order]).astype(np.int64))


def loss_of(model: Any, batch: Tensor) -> Tensor:
    """Mean loss of the rows, nats a token."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(input_ids=batch[:, :-1], use_cache=False).last_hidden_state
    targets = batch[:, 1:].reshape(-1)
    loss: Tensor = HeadLoss.apply(hidden.flatten(0, 1), model.lm_head.weight, targets)  # type: ignore[no-untyped-call]
    return loss


@torch.no_grad()
def validate(model: Any, stream: NDArray[np.uint16], length: int, count: int = 32) -> float:
    """Loss on `count` rows spread over the validation stream, nats a token."""
    order = np.linspace(0, (len(stream) - 1) // length - 1, count).astype(np.int64)
    return float(np.mean([loss_of(model, rows(stream, part, length)).item() for part in np.split(order, count // 4)]))


def save_state(state: dict[str, Any], path: Path) -> None:
    """Replace the checkpoint only once the new one is whole."""
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def pretrain(data: Path, tokenizer_folder: Path, out: Path, recipe: dict[str, Any]) -> None:
    """Train until the time budget is spent, continuing from `out`/checkpoint.pt if it exists."""
    plan = recipe["pretraining"]
    length, per_step, per_pass = plan["row_tokens"], plan["rows_per_step"], plan["rows_per_pass"]
    tokenizer: Any = AutoTokenizer.from_pretrained(tokenizer_folder)
    stream = training_stream(data, tokenizer, recipe)
    held_out = token_stream(tokenizer, list(documents(data, recipe["data"]["validation"], "validation")))
    total_rows = (len(stream) - 1) // length

    model = build(recipe, tokenizer)
    optimisers = build_optimisers(model, plan)
    step, spent, checkpoint = 0, 0.0, out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        step, spent = state["step"], state["seconds"]

    budget, begin = plan["minutes"] * 60, time.monotonic() - spent
    steps_per_epoch = total_rows // per_step
    epoch, order = -1, np.arange(total_rows)
    with (out / "log.jsonl").open("a", encoding="utf-8") as log:
        while (spent := time.monotonic() - begin) < budget:
            if step // steps_per_epoch != epoch:
                epoch = step // steps_per_epoch
                order = np.random.default_rng([plan["seed"], epoch]).permutation(total_rows)
            rate = plan["learning_rate"] * min(1.0, (step + 1) / plan["warmup_steps"]) * (1 - spent / budget)
            for group in (group for optimiser in optimisers for group in optimiser.param_groups):
                group["lr"] = rate
            first = step % steps_per_epoch * per_step
            total = 0.0
            for part in np.split(order[first : first + per_step], per_step // per_pass):
                loss = loss_of(model, rows(stream, part, length)) * per_pass / per_step
                loss.backward()
                total += loss.item()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), plan["clip"]).item()
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad()
            step += 1
            now = time.monotonic() - begin
            entry = {
                "step": step,
                "tokens": step * per_step * length,
                "loss": round(total, 4),
                "lr": round(rate, 7),
                "grad_norm": round(norm, 3),
                "tok_s": round(per_step * length / (now - spent)),
                "seconds": round(now, 1),
            }
            if step % plan["checkpoint_steps"] == 0:
                entry["validation_loss"] = round(validate(model, held_out, length), 4)
                state = {"model": model.state_dict(), "optimisers": [o.state_dict() for o in optimisers]}
                save_state({**state, "step": step, "seconds": time.monotonic() - begin}, checkpoint)
            print(json.dumps(entry), file=log, flush=True)

        final = {"step": step, "tokens": step * per_step * length, "seconds": round(spent, 1)}
        final |= {"train_stream_tokens": len(stream), "validation_loss": round(validate(model, held_out, length), 4)}
        print(json.dumps(final), file=log, flush=True)
    model.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    special = {key: getattr(model.config, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(**special)  # type: ignore[no-untyped-call]
    model.save_pretrained(out / "model")
    shutil.copytree(tokenizer_folder, out / "model", dirs_exist_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with one subfolder per data set")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder that tokenizer.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for the log, checkpoints and the model")
    parser.add_argument("--minutes", type=float, help="time budget in place of the recipe's")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    recipe = load_recipe()
    if args.minutes:
        recipe["pretraining"]["minutes"] = args.minutes
    pretrain(args.data, args.tokenizer, args.out, recipe)


if __name__ == "__main__":
    main()
