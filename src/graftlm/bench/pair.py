"""One T5Gemma twice, as a graft and as stock transformers has it, with the same weights."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import T5GemmaConfig, T5GemmaForConditionalGeneration

from graftlm.bench.machine import added_memory
from graftlm.families.stock_config import complete
from graftlm.families.t5gemma import T5GEMMA
from graftlm.model.linear_cross_entropy import LossTerms
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.training.freeze import freeze

OURS, STOCK = "ours", "stock T5Gemma eager"
STEPS = 2


@dataclass(frozen=True)
class Size:
    """Shape of a model, of its batch, and how often to measure."""

    layers: int = 8
    width: int = 512
    vocabulary: int = 32_000
    rows: int = 8
    tokens: int = 64
    """Of a source, and of a target."""
    runs: int = 3
    inner: int | None = None
    """Width inside of the feed-forward parts; four times the width by default."""
    heads: tuple[int, int, int] | None = None
    """Query heads, key/value heads and their width; by default a query head for every 64 of the width, and half."""


@dataclass(frozen=True)
class Case:
    """Arithmetic, and what trains."""

    dtype: torch.dtype
    frozen: bool = True
    softcaps: bool = False
    """T5Gemma's own caps on attention scores (50) and logits (30)."""

    @property
    def name(self) -> str:
        """As it is printed."""
        return f"{self.arithmetic}, {'decoder frozen' if self.frozen else 'everything trains'}"

    @property
    def arithmetic(self) -> str:
        """Type of weights and products, and whether they are capped."""
        kind = {torch.bfloat16: "bf16", torch.float32: "fp32"}[self.dtype]
        return f"{kind} with soft-caps" if self.softcaps else kind


def configs(size: Size, case: Case) -> tuple[Any, T5GemmaConfig]:
    """Our config and stock's, of the same model."""
    caps = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
    heads, groups, head = size.heads or (size.width // 64, max(1, size.width // 128), 64)
    sizes = {
        "vocab_size": size.vocabulary,
        "hidden_size": size.width,
        "intermediate_size": size.inner or 4 * size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": head,
        "query_pre_attn_scalar": head,
        **(caps if case.softcaps else dict.fromkeys(caps)),
    }
    theirs = T5GemmaConfig(encoder=sizes, decoder=sizes, vocab_size=size.vocabulary)
    values = theirs.to_dict()
    return T5GEMMA.config.read(values, complete(values)), theirs


def build(side: str, size: Size, case: Case) -> nn.Module:
    """One model with fresh weights, ready to train."""
    torch.manual_seed(0)
    ours, theirs = configs(size, case)
    model: Any
    if side == OURS:
        model = GraftForConditionalGeneration(ours)
        freeze(model, "decoder" if case.frozen else "none")
    else:
        model = T5GemmaForConditionalGeneration._from_config(theirs, attn_implementation="eager")
        for part in (model.model.decoder, model.lm_head):
            part.requires_grad_(not case.frozen)
    built: nn.Module = model.to(case.dtype).train()
    return built


def copy_weights(ours: nn.Module, stock: nn.Module) -> None:
    """Give the stock model our weights."""
    stock.load_state_dict(T5GEMMA.stock_tensors(ours.state_dict(), ours.config), strict=True)  # type: ignore[arg-type]


def both(size: Size, case: Case) -> dict[str, nn.Module]:
    """Both models, whose losses agree. Raises: AssertionError where they do not."""
    models = {side: build(side, size, case) for side in (OURS, STOCK)}
    copy_weights(models[OURS], models[STOCK])
    given = batch(2, min(size.tokens, 16), size.vocabulary)
    with torch.no_grad():
        losses = [model(**given, use_cache=False).loss.item() for model in models.values()]
    tolerance = 1e-4 if case.dtype == torch.float32 else 2e-2
    assert abs(losses[0] - losses[1]) <= tolerance, f"{case.name}: the losses differ: {losses}"
    return models


def batch(rows: int, tokens: int, vocabulary: int) -> dict[str, Tensor]:
    """Random rows without padding."""
    generator = torch.Generator().manual_seed(0)
    ids, labels = (torch.randint(4, vocabulary, (rows, tokens), generator=generator) for _ in range(2))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def stepper(model: nn.Module, given: dict[str, Any]) -> Callable[[], None]:
    """A function that makes one step; ours as it trains, without logits."""
    if isinstance(model, GraftForConditionalGeneration):
        given = given | {"loss_terms": LossTerms()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)

    def step() -> None:
        model(**given, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def memories(size: Size, case: Case, warm: bool = False) -> dict[str, float]:
    """MB that steps add on both sides, each in a process of its own.

    They are those of activations, gradients and optimizer state; of the first two alone where the process is `warm`.
    """
    found = {}
    for side in (OURS, STOCK):
        with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found[side] = pool.submit(_memory, side, size, case, warm).result()
    return found


def _memory(side: str, size: Size, case: Case, warm: bool) -> float:
    torch.set_num_threads(1)
    model = build(side, size, case)
    model(**batch(1, 4, size.vocabulary), use_cache=False).loss.backward()
    model.zero_grad()
    step = stepper(model, batch(size.rows, size.tokens, size.vocabulary))
    if warm:
        step()
    return added_memory(lambda: [step() for _ in range(STEPS)])
