"""Adapting large language models on disk, against copying the bytes and against transformers' load and save.

    python benchmarks/adapt.py [--quick] [--out FILE] [--work DIR]

The models are Gemma 2 in shape, bf16, with random weights, in shards of 5 GB. `graftlm adapt` runs in a fresh process;
its time counts from the start of the process until what it wrote is on the disk (fsync). `cp -r` of the written folder
is timed in the same way right after it, as a pair. The page cache is warm on both sides: everything that is read was
read once just before, the modules of Python too. Seconds are medians over the pairs, and `x cp` is the median of the
pairs' quotients.

Memory: peaks of the process over samples of Linux's process status, in MB: RssAnon (memory that the process holds) and
VmHWM (with the pages of mapped files, which the system may drop at any time).

transformers does the work of the lossless case, reading a model and writing as many bytes: Gemma2ForCausalLM,
from_pretrained and save_pretrained.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from tokenizers import Tokenizer, models
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast

from graftlm.bench.machine import machine, write
from graftlm.families.shards import write_shards

CP, STOCK = "cp", "transformers load and save"
SHARD_BYTES = 5_000_000_000
POLL = 0.01
"""Seconds between two looks at a process."""
ADAPT = "from graftlm.cli.main import main; main()"
IMPORTS = "import graftlm.adaptation.adapt"
LOAD_AND_SAVE = """
import sys, torch
from transformers import Gemma2ForCausalLM
Gemma2ForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16).save_pretrained(sys.argv[2])
"""


@dataclass(frozen=True)
class Shape:
    """Sizes of a Gemma 2."""

    layers: int
    width: int
    vocabulary: int
    heads: int = 8
    head_width: int = 256


@dataclass(frozen=True)
class Size:
    """The two models, and how often to measure."""

    large: Shape
    small: Shape
    runs: int


FULL = Size(Shape(32, 2304, 256_000), Shape(16, 1536, 256_000), runs=2)
QUICK = Size(Shape(4, 512, 32_000, head_width=64), Shape(2, 256, 32_000, head_width=32), runs=1)
CASES = {
    "balanced, t5gemma": ("--recipe", "t5gemma"),
    "balanced, lossless": ("--recipe", "lossless"),
    "unbalanced, t5gemma": ("--recipe", "t5gemma", "--encoder-from", "small"),
}
"""Arguments of the command beside the large model; `small` stands for the small one's folder."""


@dataclass(frozen=True)
class Measured:
    """Seconds until everything was on disk, and peaks in MB."""

    seconds: float
    anonymous: float
    resident: float


def make_model(folder: Path, shape: Shape) -> None:
    """A checkpoint of random finite weights, the same on every call, with a tokenizer of its vocabulary's size."""
    config = Gemma2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=4 * shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads // 2,
        head_dim=shape.head_width,
        query_pre_attn_scalar=shape.head_width,
        dtype="bfloat16",
        architectures=[Gemma2ForCausalLM.__name__],
    )
    with torch.device("meta"):
        model = Gemma2ForCausalLM(config).to(torch.bfloat16)
    headers = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    folder.mkdir()
    write_shards(folder, headers, random_tensors(headers), SHARD_BYTES)
    config.save_pretrained(folder)
    words = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"word{i}" for i in range(shape.vocabulary - 4))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    names = {f"{name}_token": f"<{name}>" for name in ("pad", "eos", "bos", "unk")}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)


def random_tensors(headers: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """Random bits of bf16 with the highest bit of the exponent cleared: finite, and less than 2."""
    generator = torch.Generator().manual_seed(0)
    for name, header in headers.items():
        bits = torch.empty(-(-header.numel() // 4), dtype=torch.int64).random_(-(2**63), None, generator=generator)
        numbers = bits.view(torch.int16)[: header.numel()].bitwise_and_(~0x4000)
        yield name, numbers.view(torch.bfloat16).view(header.shape)


def run(command: list[str | Path], written: Path) -> Measured:
    """Time a command and the flush of the folder that it writes, and watch its memory."""
    os.sync()
    anonymous = resident = 0.0
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        anonymous = max(anonymous, megabytes(status, "RssAnon"))
        resident = max(resident, megabytes(status, "VmHWM"))
        time.sleep(POLL)
    assert process.returncode == 0, command
    for file in written.rglob("*"):
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    return Measured(time.perf_counter() - start, anonymous, resident)


def megabytes(status: str, field: str) -> float:
    """A field of Linux's process status; 0 of a process that has just ended."""
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def warm(*folders: Path) -> int:
    """Read everything in the folders once, and import what a command imports; size of the folders in bytes."""
    total = 0
    for folder in folders:
        for file in folder.iterdir():
            with file.open("rb") as source:
                while part := source.read(1 << 24):
                    total += len(part)
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    return total


def pairs(case: str, size: Size, work: Path) -> tuple[str, dict[str, list[Measured]]]:
    """The case's name with what is read and written, and measurements of ours, of cp, and of transformers' work."""
    large, small, out, copy = (work / name for name in ("large", "small", "out", "copy"))
    arguments = [str(small) if word == "small" else word for word in CASES[case]]
    sources = [large, small] if "--encoder-from" in arguments else [large]
    measured: dict[str, list[Measured]] = {"ours": [], CP: []}
    for _ in range(size.runs):
        read = warm(*sources)
        command = [sys.executable, "-c", ADAPT, "adapt", large, "--out", out, *arguments]
        measured["ours"].append(run(command, out))
        wrote = warm(out)
        measured[CP].append(run(["cp", "-r", out, copy], copy))
        shutil.rmtree(out)
        shutil.rmtree(copy)
        if "lossless" in arguments:
            warm(large)
            peer = run([sys.executable, "-c", LOAD_AND_SAVE, large, out], out)
            measured.setdefault(STOCK, []).append(peer)
            shutil.rmtree(out)
    return f"{case}, {read / 1e9:.2f} GB read, {wrote / 1e9:.2f} GB written", measured


def rows(case: str, measured: dict[str, list[Measured]]) -> list[dict[str, Any]]:
    """Lines of one case. cp holds no memory to speak of, so that only transformers' is a peer there."""
    median = statistics.median
    seconds = {side: median(m.seconds for m in runs) for side, runs in measured.items()}
    quotients = {
        side: median(m.seconds / cp.seconds for m, cp in zip(runs, measured[CP], strict=True))
        for side, runs in measured.items()
    }
    holding = {side: runs for side, runs in measured.items() if side != CP}
    anonymous = {side: max(m.anonymous for m in runs) for side, runs in holding.items()}
    resident = {side: max(m.resident for m in runs) for side, runs in holding.items()}
    found = {"s": seconds, "x cp": quotients, "MB RssAnon": anonymous, "MB VmHWM": resident}
    return [row(case, unit, figures) for unit, figures in found.items()]


def row(case: str, unit: str, found: dict[str, float]) -> dict[str, Any]:
    """One line of the result; a ratio above 1 is in our favour, and there is none where nobody else was measured."""
    peers = {side: round(value, 3) for side, value in found.items() if side != "ours"}
    ratio = round(min(peers.values()) / found["ours"], 3) if peers else None
    return {"case": case, "unit": unit, "ours": round(found["ours"], 3), "peers": peers, "ratio": ratio}


def main() -> None:
    """Run and print; --out also writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", type=Path, help="Folder on the disk to measure; 40 GB must be free there.")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    lines = []
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        work = Path(folder)
        make_model(work / "large", size.large)
        make_model(work / "small", size.small)
        for case in CASES:
            lines += rows(*pairs(case, size, work))
    write({"machine": machine(), "rows": lines}, arguments.out)


if __name__ == "__main__":
    main()
