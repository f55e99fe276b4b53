"""Losses of a tiny graft in transformers' Trainer on two CPU processes: by DDP, and by each DeepSpeed config here.

    DS_BUILD_OPS=0 pip install deepspeed
    python recipes/scaling/deepspeed_losses.py [--out FILE]

The result holds the losses of every update, the hashes of the configs, and versions.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import Trainer, TrainingArguments

from graftlm.data.collate import Example, Seq2SeqCollator
from graftlm.model.config import BridgeConfig, GraftConfig, StackConfig
from graftlm.model.modeling import GraftForConditionalGeneration

FOLDER = Path(__file__).parent
CONFIGS = ("deepspeed_zero2.json", "deepspeed_zero3.json")
EXAMPLES = [Example([1, 5 + i, 9] * (1 + i % 3), [20 + i, 7, 4, 2][: 2 + i % 3]) for i in range(12)]
MARK = "losses: "


def graft() -> GraftForConditionalGeneration:
    """A random graft of three layers."""
    sizes = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "num_kv_heads": 2}
    more = {"head_dim": 8, "max_position_embeddings": 64, "rotary": {"full_attention": {"rope_theta": 100.0}}}
    decoder = StackConfig(num_layers=3, layer_types=("full_attention",) * 3, **sizes, **more)
    encoder = StackConfig(num_layers=2, layer_types=("full_attention",) * 2, final_norm=False, **sizes, **more)
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    torch.manual_seed(0)
    return GraftForConditionalGeneration(
        GraftConfig(encoder=encoder, decoder=decoder, bridge=BridgeConfig(kind="aligned"), **tokens)
    )


def train(config: str | None) -> None:
    """One process of a run; the first prints the losses."""
    torch.set_num_threads(1)
    if config is not None:
        import deepspeed

        # Nothing is compiled: gloo does the work.
        deepspeed.ops.__compatible_ops__.clear()
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            max_steps=4,
            per_device_train_batch_size=2,
            learning_rate=1e-2,
            warmup_steps=1,
            optim="adamw_torch",
            train_sampling_strategy="sequential",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            ddp_backend="gloo",
            remove_unused_columns=False,
            disable_tqdm=True,
            deepspeed=None if config is None else str(FOLDER / config),
        )
        trainer = Trainer(model=graft(), args=arguments, train_dataset=EXAMPLES, data_collator=Seq2SeqCollator())
        trainer.train()
        assert (type(trainer.model_wrapped).__name__ == "DeepSpeedEngine") == (config is not None)
    if arguments.process_index == 0:
        print(MARK + json.dumps([entry["loss"] for entry in trainer.state.log_history if "loss" in entry]), flush=True)


def losses(config: str | None) -> list[float]:
    """Of a run of two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", __file__, "--train"]
    variables = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    run = subprocess.run([*command, config or "ddp"], env=variables, capture_output=True, text=True, check=True)
    [line] = [line for line in run.stdout.splitlines() if line.startswith(MARK)]
    found: list[float] = json.loads(line.removeprefix(MARK))
    return found


def main() -> None:
    """Run and print; --out also writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--train", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train(None if arguments.train == "ddp" else arguments.train)
        return
    result = {
        "versions": {name: version(name) for name in ("deepspeed", "torch", "transformers", "accelerate")},
        "sha256": {name: hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() for name in CONFIGS},
        "losses": {"ddp": losses(None)} | {name: losses(name) for name in CONFIGS},
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
