"""transformers' Trainer, going on from checkpoints without pickles."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from graftlm.model.linear_cross_entropy import LossTerms
from graftlm.training.bad_loss import LossGuard
from graftlm.training.checkpoint import restore_optimizer, restore_random, restore_weights
from graftlm.training.optimizer import muon_adamw
from graftlm.training.ranks import whole
from graftlm.training.settings import TuneSettings
from graftlm.training.teaching import Teaching


class TuneTrainer(Trainer):
    """A Trainer that holds no logits, and resumes from a checkpoint of RunFolder; writing them is RunKeeper's work.

    The Trainer calls the hooks of resuming with the folder given as `resume_from_checkpoint`, or with None.
    """

    def __init__(
        self, *, guard: LossGuard, settings: TuneSettings, teaching: Teaching | None = None, **arguments: Any
    ) -> None:
        """`guard` judges updates; with `teaching`, the batches are of its lessons."""
        super().__init__(**arguments)
        self._guard = guard
        self._losses: list[Tensor] = []
        self._muon = settings.optimizer == "muon"
        self._terms = LossTerms(label_smoothing=settings.label_smoothing, z_loss=settings.z_loss)
        self._teaching = teaching
        if teaching is not None:
            teaching.to(self.args.device)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Muon with AdamW where it is asked for, else the Trainer's own."""
        if self._muon and self.optimizer is None:
            model = self.model if model is None else model
            assert model is not None
            decayed = set(self.get_decay_parameter_names(model))
            self.optimizer = muon_adamw(model, decayed, self.args.learning_rate, self.args.weight_decay)
        return super().create_optimizer(model)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """transformers' own, of a model that is told what the loss is made of, and so makes no logits."""
        if self._teaching is None:
            inputs = inputs | {"loss_terms": self._terms}
        else:
            # Which part of the update's batch it is goes into the seed, so that a resumed run draws the same.
            part = (self.args.seed, self.state.global_step, len(self._losses), self.args.process_index)
            inputs = self._teaching.inputs(inputs, self._terms, "/".join(map(str, part)))
        return super().compute_loss(model, inputs, *args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """transformers' own, noting the loss.

        What is not finite goes no further: the sum that the Trainer logs from would never be a number again.
        """
        loss = super().training_step(*args, **kwargs)
        self._losses.append(loss)
        return loss.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)

    def _defer_fsdp_gradient_reduction(self) -> Any:
        """Nothing is deferred: after each part of a batch a process keeps its part of the gradients alone."""
        return nullcontext()

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The last hook before an update; one that is to be skipped loses its gradients.

        An optimizer passes over what has none, moments, step count and decay included; the schedule goes on.
        """
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        loss = self.accelerator.gather(torch.stack(self._losses).sum()).mean().item()
        self._losses.clear()
        if self._guard.skips(self.state.global_step + 1, loss, float(whole(norm))):
            model.zero_grad()
        return norm

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        model = self.model if model is None else model
        assert model is not None
        restore_weights(model, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            assert self.optimizer is not None
            assert self.lr_scheduler is not None
            restore_optimizer(self.optimizer, self.lr_scheduler, Path(checkpoint))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            restore_random(Path(checkpoint))


def bf16_pays() -> bool:
    """The device multiplies matrices in bf16 faster than in fp32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
