"""Training a graft against training the same T5Gemma with stock transformers, each in its own trainer.

Ours is `graftlm.training.tune`, with packing where lengths differ. The other is Seq2SeqTrainer with eager attention,
the only one that T5Gemma's soft-caps allow. Both have fused AdamW, clipping and all else that these do at every update;
a run is timed from the start of its first update to the end of its last. Both sides hold the same weights at first and
train on the same examples, in as many updates. Runs take turns in one process; a round is one run of each, and a ratio
is the peer's time over ours in the same round: the median over rounds, with quartiles. CPU time is that of the process,
which other work on the machine disturbs less than it does wall time.

Lengths of the skewed cases are those of real training sets (lengths.json); token ids are random. Of an epoch of such
examples transformers' own sampler makes length-grouped batches, of which some are taken, spread evenly over the
lengths; some random batches are taken as well. Ours are the same examples in graftlm's own order, packed.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import nn
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback, trainer
from transformers.trainer_pt_utils import get_length_grouped_indices

from graftlm.bench.machine import machine
from graftlm.bench.pair import OURS, STOCK, Case, Size, both, memories
from graftlm.bench.rates import flops, matrix_rate, peak_rate
from graftlm.data.collate import Example, Seq2SeqCollator
from graftlm.errors import ConfigError
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.training.settings import TuneSettings
from graftlm.training.tune import tune

SETS = ("webnlg", "mtop", "scitldr")
RANDOM, GROUPED = "random batches", "length-grouped batches"
BATCH = 16
EPOCH = 200 * BATCH
"""Examples from which batches are grouped; transformers sorts a quarter of them, 50 batches, at a time."""
UPDATE_RATE = 1e-4


@dataclass(frozen=True)
class Scale:
    """Shapes of all cases, and how often each is measured."""

    small: Size
    wide: Size
    """Of a large vocabulary."""
    batches: int
    """Updates of a run of a skewed case."""
    dtype: torch.dtype = torch.float32
    large: tuple[tuple[str, Size], ...] = ()
    """Further shapes of equal lengths."""


QUICK = Scale(
    small=Size(layers=2, width=64, vocabulary=500, rows=2, tokens=8, runs=2),
    wide=Size(layers=1, width=64, vocabulary=20_000, rows=2, tokens=16, runs=2),
    batches=1,
)
CPU = Scale(
    small=Size(layers=2, width=256, vocabulary=8_192, rows=16),
    wide=Size(layers=2, width=256, vocabulary=256_000, rows=8),
    batches=4,
)
GPU = Scale(
    small=Size(layers=12, width=768, vocabulary=32_000, rows=64, tokens=512, runs=5),
    wide=Size(layers=12, width=768, vocabulary=256_000, rows=16, tokens=512, runs=5),
    batches=10,
    dtype=torch.bfloat16,
    large=(
        ("B-B", Size(12, 768, 256_000, rows=32, tokens=512, runs=5, inner=2048, heads=(12, 12, 64))),
        ("2B-2B", Size(26, 2304, 256_000, rows=4, tokens=512, runs=5, inner=9216, heads=(8, 4, 256))),
    ),
)


class Seconds(NamedTuple):
    """What a run took."""

    cpu: float
    wall: float


class Clock(TrainerCallback):
    """Notes when the updates of the latest run began and ended."""

    begun: Seconds | None = None
    ended: Seconds

    @classmethod
    def seconds(cls) -> Seconds:
        """What the updates took."""
        assert cls.begun is not None
        found = Seconds(*(end - begin for begin, end in zip(cls.begun, cls.ended, strict=True)))
        cls.begun = None
        return found

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """The first one counts."""
        Clock.begun = Clock.begun or _now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """The last one counts."""
        Clock.ended = _now()


def _now() -> Seconds:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Seconds(time.process_time(), time.perf_counter())


Run = Callable[[], None]
Say = Callable[[str], None]


CASES = ("equal", "skewed", "vocab-256k", "frozen")


def measure(quick: bool, say: Say, chosen: Sequence[str] = CASES) -> dict[str, Any]:
    """Some cases on this machine, as benchmarks/results has them; `say` is told what is being measured.

    Raises: ConfigError for a case that there is not.
    """
    scale = QUICK if quick else GPU if torch.cuda.is_available() else CPU
    skewed = itertools.chain.from_iterable(_skewed(scale, name) for name in SETS)
    cases = dict(zip(CASES, (_equal(scale), skewed, _wide(scale), _frozen(scale)), strict=True))
    if unknown := set(chosen) - set(cases):
        raise ConfigError(f"There is no case {min(unknown)!r}; choose among {', '.join(CASES)}.")
    rows: list[dict[str, Any]] = []
    for row in itertools.chain(*(cases[name] for name in chosen)):
        say(f"{row['case']}: {row['ratio']} times as good as the best peer")
        rows.append(row)
    return {"machine": machine(), "rows": rows}


def _equal(scale: Scale) -> Any:
    """All sources and targets of one length, on both sides as padded batches, which have no padding."""
    shapes = (("equal", scale.small), *((f"equal, T5Gemma {name}", size) for name, size in scale.large))
    for name, size in shapes:
        case = Case(scale.dtype, frozen=False, softcaps=True)
        models, batches = both(size, case), _examples([(size.tokens, size.tokens)] * size.rows * 2, size)
        ordered = _chunks(batches, size.rows)
        runs = {
            OURS: _ours(models[OURS], batches, size.rows, packing=False),
            f"{STOCK}, fp32" if scale.dtype == torch.float32 else STOCK: _stock(models[STOCK], ordered),
            f"{STOCK}, bf16": _stock(models[STOCK], ordered, bf16=True),
        }
        taken = _in_turn(runs, size.runs)
        yield from _rows(name, taken)
        yield _rate(name, models[OURS], size, taken, len(batches), scale.dtype)


def _skewed(scale: Scale, name: str) -> Any:
    """Random and length-grouped batches of stock, each against ours of the same examples."""
    size = dataclasses.replace(scale.small, rows=BATCH)
    models = both(size, Case(scale.dtype, frozen=False, softcaps=True))
    for kind, batches in _batches(name, scale.batches, size).items():
        examples = [example for batch in batches for example in batch]
        runs = {
            OURS: _ours(models[OURS], examples, BATCH, packing=True),
            kind: _stock(models[STOCK], batches, bf16=scale.dtype == torch.bfloat16),
        }
        yield from _rows(f"skewed, {name}, {kind}", _in_turn(runs, size.runs))


def _wide(scale: Scale) -> Any:
    """A vocabulary so large that head and loss are most of a step."""
    for frozen in (False, True):
        yield from _plain("vocab-256k", scale.wide, Case(scale.dtype, frozen=frozen, softcaps=True), warm=True)


def _frozen(scale: Scale) -> Any:
    yield from _plain("frozen", scale.small, Case(scale.dtype, frozen=True, softcaps=True))


def _plain(name: str, size: Size, case: Case, warm: bool = False) -> Any:
    """Time and memory of equal lengths."""
    name = f"{name}, {'decoder frozen' if case.frozen else 'everything trains'}"
    examples = _examples([(size.tokens, size.tokens)] * size.rows, size)
    models = both(size, case)
    runs = {
        OURS: _ours(models[OURS], examples, size.rows, packing=False, frozen=case.frozen),
        STOCK: _stock(models[STOCK], [examples], bf16=case.dtype == torch.bfloat16),
    }
    yield from _rows(name, _in_turn(runs, size.runs))
    del models, runs
    found = memories(size, case, warm)
    yield {
        "case": f"{name}, memory that {'a further step adds' if warm else 'steps add'}",
        "unit": "MB",
        "ours": round(found[OURS], 1),
        "peers": {STOCK: round(found[STOCK], 1)},
        # A step of the tiny models of --quick may fit into what the process holds already.
        "ratio": round(found[STOCK] / max(found[OURS], 1.0), 3),
    }


def _ours(model: nn.Module, examples: Sequence[Example], rows: int, *, packing: bool, frozen: bool = False) -> Run:
    assert isinstance(model, GraftForConditionalGeneration)
    settings = TuneSettings(
        freeze="decoder" if frozen else "none",
        steps=len(examples) // rows,
        batch_size=rows,
        packing=packing,
        learning_rate=UPDATE_RATE,
        warmup_steps=0,
        eval_every=0,
    )

    def run() -> None:
        tune(model, examples, settings, Console(quiet=True))

    return run


def _stock(model: nn.Module, batches: Sequence[Sequence[Example]], bf16: bool = False) -> Run:
    """Seq2SeqTrainer on padded batches, each once and in this order."""

    def run() -> None:
        model.train()
        with tempfile.TemporaryDirectory() as folder:
            arguments = Seq2SeqTrainingArguments(
                output_dir=folder,
                max_steps=len(batches),
                per_device_train_batch_size=len(batches[0]),
                learning_rate=UPDATE_RATE,
                bf16=bf16,
                use_cpu=not torch.cuda.is_available(),
                train_sampling_strategy="sequential",
                dataloader_pin_memory=torch.cuda.is_available(),
                remove_unused_columns=False,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            )
            dataset: Any = [
                {"input_ids": example.input_ids, "labels": example.labels} for batch in batches for example in batch
            ]
            Seq2SeqTrainer(model=model, args=arguments, train_dataset=dataset, data_collator=Seq2SeqCollator()).train()

    return run


def _in_turn(runs: dict[str, Run], rounds: int) -> dict[str, list[Seconds]]:
    """Seconds of every run."""
    taken: dict[str, list[Seconds]] = {name: [] for name in runs}
    # Every Trainer takes these up, in front of its own.
    callbacks: list[Any] = trainer.DEFAULT_CALLBACKS
    callbacks.append(Clock)
    try:
        for number in range(rounds):
            for name in list(runs)[:: -1 if number % 2 else 1]:
                runs[name]()
                taken[name].append(Clock.seconds())
    finally:
        callbacks.remove(Clock)
    return taken


def _rows(case: str, taken: dict[str, list[Seconds]]) -> list[dict[str, Any]]:
    """CPU and wall time of a run; the ratio is against the best peer, `ratios` are against each."""
    return [
        _row(f"{case}, {what}", {name: [s[i] for s in runs] for name, runs in taken.items()})
        for i, what in ((0, "CPU time"), (1, "wall time"))
    ]


def _row(case: str, seconds: dict[str, list[float]]) -> dict[str, Any]:
    ours = seconds[OURS]
    middles: dict[str, float] = {}
    ratios: dict[str, Any] = {}
    for name, theirs in seconds.items():
        if name != OURS:
            found = [peer / own for peer, own in zip(theirs, ours, strict=True)]
            low, middle, high = statistics.quantiles(found, n=4, method="inclusive")
            middles[name] = round(middle, 3)
            ratios[name] = {"median": middles[name], "quartiles": [round(low, 3), round(high, 3)]}
    return {
        "case": case,
        "unit": "s",
        "ours": round(statistics.median(ours), 3),
        "peers": {name: round(statistics.median(theirs), 3) for name, theirs in seconds.items() if name != OURS},
        "ratio": min(middles.values()),
        "ratios": ratios,
    }


def _rate(
    case: str, model: nn.Module, size: Size, taken: dict[str, list[Seconds]], examples: int, dtype: torch.dtype
) -> dict[str, Any]:
    """The share of the device's measured matrix rate, and of its maker's figure where that is known."""
    work = 3 * flops(model.config, size.tokens, size.tokens) * examples  # type: ignore[arg-type]
    kind, index = ("cuda", 1) if torch.cuda.is_available() else ("cpu", 0)
    measured, peak = matrix_rate(kind, dtype), peak_rate()
    rates = {name: work / statistics.median(s[index] for s in runs) for name, runs in taken.items()}
    best = max(rate for name, rate in rates.items() if name != OURS)
    row = {
        "case": f"{case}, share of the measured matrix rate",
        "unit": "share",
        "ours": round(rates[OURS] / measured, 3),
        "peers": {name: round(rate / measured, 3) for name, rate in rates.items() if name != OURS},
        "ratio": round(rates[OURS] / best, 3),
        "measured": round(measured / 1e9, 1),
    }
    return row if peak is None else row | {"utilisation": round(rates[OURS] / peak, 3)}


def _batches(name: str, number: int, size: Size) -> dict[str, list[list[Example]]]:
    """Some of an epoch's batches: the first random ones, and length-grouped ones from the longest to the shortest."""
    chooser = random.Random(0)
    lengths = json.loads(files("graftlm.bench").joinpath("lengths.json").read_text(encoding="utf-8"))[name]["lengths"]
    epoch = chooser.choices(lengths, k=EPOCH)
    order = get_length_grouped_indices([source for source, _ in epoch], BATCH, generator=torch.manual_seed(0))
    grouped = _chunks([epoch[i] for i in order[: EPOCH // 4]], BATCH)
    step = len(grouped) / number
    chosen = {RANDOM: _chunks(epoch, BATCH)[:number], GROUPED: [grouped[int((i + 0.5) * step)] for i in range(number)]}
    return {kind: [_examples(batch, size) for batch in batches] for kind, batches in chosen.items()}


def _examples(lengths: Sequence[Sequence[int]], size: Size) -> list[Example]:
    chooser = random.Random(1)
    return [Example(*([chooser.randrange(4, size.vocabulary) for _ in range(n)] for n in pair)) for pair in lengths]


def _chunks(items: Sequence[Any], number: int) -> list[list[Any]]:
    return [list(items[start : start + number]) for start in range(0, len(items), number)]
