"""What a run trains: the encoder or a LoRA on it, a decoder adapter, or the plain language model as a baseline."""

from __future__ import annotations

import torch
from torch import nn

from graftlm.errors import ConfigError
from graftlm.model.adapter import Adapter, AdapterConfig, targets
from graftlm.model.attention import Gate
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.training.freeze import FreezePlan, freeze, freezes
from graftlm.training.optimizer import is_matrix
from graftlm.training.settings import TuneSettings


def prepare(model: GraftForConditionalGeneration, settings: TuneSettings) -> FreezePlan:
    """Give `model` the parts that train, and freeze the others.

    An encoder that shares the decoder's weights gets its own, unless the plan freezes both, or the settings say that
    they train as one. The baselines are the
    plain language model, decoder-only: a lossless graft whose encoder is causal and shares every weight with the
    decoder computes just that, and a LoRA that stands on both sides is a LoRA on that model.
    Raises: ConfigError for parts that do not go together, and as `freeze`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        plan = _parts(model, settings) if settings.baseline is None else _baseline(model, settings)
    _check_gates(model, plan)
    if settings.optimizer == "muon" and not any(is_matrix(name, model.get_parameter(name)) for name in plan.trained):
        raise ConfigError("optimizer muon is for the matrices of layers, of which none trains; choose adamw.")
    return plan


def _check_gates(model: GraftForConditionalGeneration, plan: FreezePlan) -> None:
    gates = [name for name, part in model.named_modules() if isinstance(part, Gate)]
    if any(f"{name}.weight" in plan.trained or model.get_parameter(f"{name}.weight").any() for name in gates):
        return
    if gates:
        raise ConfigError(
            "The gates of the encoder's attention are closed and would not train, nor would a LoRA open them; train "
            "the encoder, or make its attention causal or bidirectional."
        )


def _parts(model: GraftForConditionalGeneration, settings: TuneSettings) -> FreezePlan:
    plans = settings.plans
    if settings.lora is not None:
        model.encoder_adapter = Adapter(AdapterConfig(kind="lora", rank=settings.lora), model.encoder.layers)
        plans = tuple("encoder" if plan == "none" else f"{plan},encoder" for plan in plans)
    elif settings.share_layers:
        _check_shared(model, plans)
    elif not all(_freezes_shared(model, plan) for plan in plans):
        model.copy_layers()
    if settings.decoder_adapter is not None:
        config = AdapterConfig(kind=settings.decoder_adapter, rank=settings.adapter_rank)
        model.decoder_adapter = Adapter(config, model.decoder.layers)
    frozen = freeze(model, *plans)
    if not frozen.keeps_decoder and (model.encoder_adapter, model.decoder_adapter) != (None, None):
        raise ConfigError("A LoRA or adapter goes with a frozen decoder; freeze it, or leave out lora and adapter.")
    return frozen


def _check_shared(model: GraftForConditionalGeneration, plans: tuple[str, ...]) -> None:
    """Raises: ConfigError where nothing is shared, or a plan means one side without the other."""
    if not model.config.share_layers:
        raise ConfigError(
            "share_layers is for a graft whose encoder uses the decoder's own layers, as recipe lossless makes it; "
            "this encoder has its own, so leave it out."
        )
    for plan in plans:
        for name, _ in model.encoder.named_parameters():
            if freezes(plan, f"encoder.{name}") != freezes(plan, f"decoder.{name}"):
                raise ConfigError(
                    f"share_layers trains encoder and decoder as one, but freeze {plan!r} means encoder.{name} without "
                    "the decoder's; freeze none of both, or leave out share_layers."
                )


def _baseline(model: GraftForConditionalGeneration, settings: TuneSettings) -> FreezePlan:
    config = model.config
    if config.bridge.kind != "aligned" or config.encoder_attention != "causal":
        raise ConfigError(
            "A causal baseline is the plain language model, which only a graft of recipe lossless with a causal "
            "encoder computes; give one."
        )
    model.share_layers()
    if settings.baseline == "causal-full":
        return freeze(model, "none")
    rank = settings.lora or rank_of_size(encoder_size(model), model.decoder.layers)
    model.decoder_adapter = Adapter(AdapterConfig(kind="lora", rank=rank), model.decoder.layers)
    model.encoder_adapter = model.decoder_adapter
    return freeze(model, "decoder,encoder")


def encoder_size(model: GraftForConditionalGeneration) -> int:
    """Parameters that a full task encoder would train."""
    return sum(parameter.numel() for part in (model.encoder, model.bridge) for parameter in part.parameters())


def rank_of_size(size: int, layers: nn.Module) -> int:
    """Rank at which a LoRA on `layers` comes closest to `size` parameters; at least 1.

    A map from D to D' costs D + D' parameters for each rank.
    """
    parts = [part for layer in layers.children() for part in targets("lora", layer).values()]
    linears = [linear for part in parts for linear in part.values()]
    return max(1, round(size / sum(linear.in_features + linear.out_features for linear in linears)))


def _freezes_shared(model: GraftForConditionalGeneration, plan: str) -> bool:
    """The plan freezes what encoder and decoder can share, on both sides; else it means one side without the other."""
    names = [name for name, _ in model.encoder.named_parameters()]
    return all(freezes(plan, f"{side}.{name}") for side in ("encoder", "decoder") for name in names)
