"""What bridges cost in translation, against `last`, which computes nothing.

    python benchmarks/bridge.py [--quick] [--out FILE]

An OPUS-MT in shape (Marian, 6+6 layers, width 512, vocabulary 58,101; arXiv 2405.08570) with random weights in fp32.
All bridges share its encoder and decoder; `aligned` leaves out the last encoder layer, as it does in use. Sources have
17 to 45 tokens, 30 on average, padded to the longest of their batch; every target has 30.

In a round, all bridges translate one batch side by side in one process on one thread, and take turns at every target
token, so that whatever else the machine does meets them alike. Decoding is `generate` from the encoder's output; a
whole translation is that and the encoder with its bridge. Figures are milliseconds of CPU time, medians over rounds. A
ratio is `last`'s time over the bridge's in the same round: the median over rounds, with its quartiles.
"""

import argparse
import os
import random
import statistics
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Condition
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch import Tensor
from transformers import MarianConfig, StoppingCriteria, StoppingCriteriaList

from graftlm.adaptation.bridge_init import bridged
from graftlm.bench.machine import machine, write
from graftlm.families.marian import MARIAN
from graftlm.families.stock_config import complete
from graftlm.model.bridge import Bridge
from graftlm.model.config import BridgeConfig
from graftlm.model.encoder import Encoder
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.model.task_encoder import EncoderOutput, TaskEncoder

LAST = "last"
BRIDGES = {
    LAST: BridgeConfig(),
    "aligned": BridgeConfig(kind="aligned"),
    "map": BridgeConfig(kind="map"),
    "scalar": BridgeConfig(kind="scalar"),
    "linear": BridgeConfig(kind="linear"),
    "linear of rank 64": BridgeConfig(kind="linear", rank=64, add="last"),
    "gated": BridgeConfig(kind="gated"),
}
LENGTHS = (30, 22, 41, 17, 35, 27, 45, 23)
"""Source tokens of the rows of a batch, again and again."""


@dataclass(frozen=True)
class Size:
    """Shape of the model, and of its targets."""

    layers: int = 6
    width: int = 512
    vocabulary: int = 58_101
    tokens: int = 30


@dataclass(frozen=True)
class Case:
    """A way to translate, and how often to measure it."""

    rows: int
    rounds: int
    beams: int = 1
    bridges: tuple[str, ...] = tuple(BRIDGES)

    @property
    def name(self) -> str:
        """As it is printed."""
        return f"batch {self.rows}, {'greedy' if self.beams == 1 else f'beam {self.beams}'}"


QUICK = Size(layers=2, width=64, vocabulary=1_000, tokens=4)
CASES = [
    Case(rows=1, rounds=7),
    Case(rows=8, rounds=7),
    Case(rows=32, rounds=3),
    Case(rows=8, rounds=3, beams=4, bridges=(LAST, "scalar", "linear")),
]
QUICK_CASES = [Case(rows=2, rounds=2), Case(rows=2, rounds=2, beams=2)]


@dataclass(frozen=True)
class Took:
    """Seconds of one batch."""

    encoding: float
    decoding: float

    @property
    def whole(self) -> float:
        """Seconds of encoder, bridge and decoder."""
        return self.encoding + self.decoding


class Turn(StoppingCriteria):
    """The clock of one translator, which stops after every token while the others in the line write theirs."""

    def __init__(self, line: deque["Turn"], moved: Condition) -> None:
        self.line, self.moved = line, moved
        self.seconds = 0.0
        line.append(self)

    def __enter__(self) -> None:
        with self.moved:
            self.moved.wait_for(lambda: self.line[0] is self)
        self.start = time.thread_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.thread_time() - self.start
        with self.moved:
            self.line.popleft()
            self.moved.notify_all()

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        """Stop no row: (B, T) -> (B,)."""
        self.line.append(self)
        self.__exit__()
        self.__enter__()
        return torch.zeros(len(input_ids), dtype=torch.bool)


def build(size: Size) -> tuple[GraftForConditionalGeneration, dict[str, TaskEncoder]]:
    """The model, and its encoder with every bridge."""
    torch.manual_seed(0)
    end, pad = 0, size.vocabulary - 1
    values = MarianConfig(
        vocab_size=size.vocabulary,
        d_model=size.width,
        max_position_embeddings=512,
        activation_function="swish",
        scale_embedding=True,
        pad_token_id=pad,
        eos_token_id=end,
        decoder_start_token_id=pad,
        **{
            f"{part}_{name}": value
            for part in ("encoder", "decoder")
            for name, value in (("layers", size.layers), ("ffn_dim", 4 * size.width), ("attention_heads", 8))
        },
    ).to_dict()
    model = GraftForConditionalGeneration(MARIAN.config.read(values, complete(values))).eval()
    weights, sides = model.encoder.state_dict(), {}
    for name, bridge in BRIDGES.items():
        config, _ = bridged(model.config, bridge, None)
        encoder = Encoder(config.encoder, attention="bidirectional", own_embedding=False)
        encoder.load_state_dict({name: weights[name] for name in encoder.state_dict()}, assign=True)
        sides[name] = TaskEncoder(encoder.eval(), Bridge(config).eval())
    return model, sides


def sources(rows: int, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Random ids, and their mask with padding on the left."""
    lengths = torch.tensor([LENGTHS[row % len(LENGTHS)] for row in range(rows)])
    longest = int(lengths.max())
    mask = (torch.arange(longest) >= longest - lengths[:, None]).long()
    return torch.randint(1, vocabulary - 1, mask.shape) * mask + (vocabulary - 1) * (1 - mask), mask


def side_by_side(
    model: GraftForConditionalGeneration, sides: dict[str, TaskEncoder], case: Case, tokens: int
) -> dict[str, Took]:
    """Seconds of every bridge for one new batch, encoded one after the other and decoded in turn."""
    ids, mask = sources(case.rows, model.config.encoder.vocab_size)
    line: deque[Turn] = deque()
    moved = Condition()
    turns = {name: Turn(line, moved) for name in sides}

    def decode(name: str, encoded: EncoderOutput) -> float:
        length = {"min_new_tokens": tokens, "max_new_tokens": tokens, "num_beams": case.beams}
        with torch.inference_mode(), turns[name]:
            stops = StoppingCriteriaList([turns[name]])
            model.generate(encoder_outputs=encoded, attention_mask=mask, stopping_criteria=stops, **length)
        return turns[name].seconds

    encoding, outputs = {}, {}
    with torch.inference_mode():
        for name, side in sides.items():
            start = time.thread_time()
            outputs[name] = side(model.decoder.embedding, ids, mask)
            encoding[name] = time.thread_time() - start
    with ThreadPoolExecutor(len(sides)) as pool:
        decoding = dict(zip(sides, pool.map(decode, sides, outputs.values()), strict=True))
    return {name: Took(encoding[name], decoding[name]) for name in sides}


def rows(model: GraftForConditionalGeneration, sides: dict[str, TaskEncoder], case: Case, tokens: int) -> list[Any]:
    """Lines of one case."""
    sides = {name: sides[name] for name in case.bridges}
    side_by_side(model, sides, case, 2)  # The first calls of a shape are slower.
    found = []
    for number in range(case.rounds):
        order = random.Random(number).sample(case.bridges, len(case.bridges))
        found.append(side_by_side(model, {name: sides[name] for name in order}, case, tokens))
    lines = []
    for name in case.bridges[1:]:
        pairs = [(took[name], took[LAST]) for took in found]
        decoding = [(ours.decoding, last.decoding) for ours, last in pairs]
        whole = [(ours.whole, last.whole) for ours, last in pairs]
        lines.append(row(f"decoding, {case.name}, {name}", "ms per token", decoding, case.rows * tokens))
        lines.append(row(f"whole translations, {case.name}, {name}", "ms per translation", whole, case.rows))
    return lines


def row(case: str, unit: str, pairs: list[tuple[float, float]], count: int) -> dict[str, Any]:
    """One line of the result from seconds that a bridge and `last` took for `count` units; above 1 is faster."""
    ours, last = (round(statistics.median(times) * 1e3 / count, 3) for times in zip(*pairs, strict=True))
    quartiles = statistics.quantiles((last / ours for ours, last in pairs), n=4, method="inclusive")
    low, middle, high = (round(ratio, 3) for ratio in quartiles)
    return {"case": case, "unit": unit, "ours": ours, "peers": {LAST: last}, "ratio": middle, "quartiles": [low, high]}


def main() -> None:
    """Run and print; --out also writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    size = QUICK if arguments.quick else Size()
    model, sides = build(size)
    cases = QUICK_CASES if arguments.quick else CASES
    lines = [line for case in cases for line in rows(model, sides, case, size.tokens)]
    write({"machine": machine(), "rows": lines}, arguments.out)


if __name__ == "__main__":
    main()
