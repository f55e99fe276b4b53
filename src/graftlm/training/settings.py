"""How to train: all settings of a run, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from graftlm.errors import ConfigError
from graftlm.model.adapter import KINDS, AdapterKind
from graftlm.objectives.teacher_targets import Keep, TeacherTargets
from graftlm.training.phase import Phase, begins

MAX_SEED = 2**32
BATCH_SIZE = 16
ADAPTER_RANK = 8
DECAY_SHARE = 0.2
TEACHER_WEIGHT = 0.5
Schedule = Literal["cosine", "linear", "constant", "wsd"]
SCHEDULES: dict[Schedule, str] = {
    "cosine": "cosine",
    "linear": "linear",
    "constant": "constant_with_warmup",
    "wsd": "warmup_stable_decay",
}
"""What transformers calls them."""
Optimizer = Literal["adamw", "muon"]
OPTIMIZERS: tuple[Optimizer, ...] = get_args(Optimizer)
Baseline = Literal["causal-lora", "causal-full"]
BASELINES: tuple[Baseline, ...] = get_args(Baseline)


@dataclass(frozen=True, kw_only=True)
class TuneSettings:
    """How to train. One step is one update."""

    freeze: str | None = None
    """What stays as it is, in the words of training.freeze; `decoder` where there are no phases."""
    phases: tuple[Phase, ...] = ()
    """Freeze plans one after the other, in place of `freeze`; one schedule of the learning rate spans them."""
    share_layers: bool = False
    """Layers that encoder and decoder share train as one set of weights, instead of becoming the encoder's own."""
    lora: int | None = None
    """Rank of a LoRA that trains in place of the encoder's weights, or of the baseline's."""
    decoder_adapter: AdapterKind | None = None
    """Kind of the parts that train beside the frozen decoder."""
    adapter_rank: int | None = None
    """Rank of a decoder adapter of kind lora; ADAPTER_RANK if not given."""
    baseline: Baseline | None = None
    """Train the plain language model instead, decoder-only."""
    steps: int = 300
    batch_size: int | None = None
    """Examples per update; BATCH_SIZE if neither this nor batch_tokens is given."""
    batch_tokens: int | None = None
    """As many examples per update as have so many tokens, source and target; an example that has more is alone."""
    packing: bool = False
    """The examples of a batch stand in one row without padding: faster, and the losses are the same."""
    accumulation: int = 1
    """Parts that a batch is computed in, one after the other; they save memory and change no result."""
    learning_rate: float = 3e-4
    warmup_steps: int = 20
    schedule: Schedule = "cosine"
    """How the learning rate falls to 0 after its warm-up: constant does not fall, wsd only at the end of the run."""
    decay_share: float | None = None
    """Part of all updates in which schedule wsd falls; DECAY_SHARE if not given."""
    optimizer: Optimizer = "adamw"
    """adamw for everything; or muon for the matrices of the layers that train, and adamw for the rest."""
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    label_smoothing: float = 0.0
    """Share of each label that goes to all tokens alike. Validation losses are plain, whatever is trained on."""
    z_loss: float = 0.0
    """Weight of the squared logarithm of the softmax's normaliser, such as 1e-4; it keeps logits from drifting."""
    teacher: str | None = None
    """A language model that is asked for each batch, or a folder of targets that `graftlm distill` wrote."""
    teacher_weight: float | None = None
    """Its share in the loss; TEACHER_WEIGHT if not given."""
    teacher_temperature: float | None = None
    """This and those below are as in TeacherTargets; None is the default there, or what stored targets have."""
    teacher_keep: Keep | None = None
    teacher_k: int | None = None
    eval_every: int = 100
    """Updates from one validation and checkpoint to the next; 0 is only after the last."""
    average: int | None = None
    """End with the mean of the trained weights at so many last validations, instead of the best of all weights."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_tokens is not None:
            raise ConfigError("batch_size and batch_tokens both say how large a batch is; give one of them.")
        if self.batch_tokens is None and self.batch_size is None:
            object.__setattr__(self, "batch_size", BATCH_SIZE)
        for name in ("steps", "batch_size", "batch_tokens", "learning_rate"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be a number above 0.")
        if self.batch_size is None and self.accumulation != 1:
            raise ConfigError("accumulation divides a batch_size; give one in place of batch_tokens, or leave it out.")
        if self.accumulation < 1 or (self.batch_size or 1) % self.accumulation:
            raise ConfigError(
                f"accumulation is {self.accumulation}; it must divide the batch_size, which is {self.batch_size}."
            )
        if not 0 <= self.seed < MAX_SEED:
            raise ConfigError(f"seed is {self.seed}; it must be between 0 and {MAX_SEED - 1}.")
        for name in ("warmup_steps", "eval_every"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must not be below 0.")
        for name in ("lora", "adapter_rank"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be a rank of at least 1.")
        if self.optimizer not in OPTIMIZERS:
            raise ConfigError(f"optimizer is {self.optimizer!r}; choose {' or '.join(OPTIMIZERS)}.")
        self._check_schedule()
        self._check_loss()
        self._check_average()
        self._check_adapter()
        self._check_baseline()
        self._check_phases()

    @property
    def plans(self) -> tuple[str, ...]:
        """The freeze plan of each phase."""
        return (self.freeze,) if self.freeze is not None else tuple(phase.freeze for phase in self.phases)

    @property
    def begins(self) -> tuple[int, ...]:
        """Updates that are done when each phase begins."""
        return begins(self.phases, self.steps)

    @property
    def decay_steps(self) -> int:
        """Updates in which schedule wsd falls."""
        return max(1, round((self.decay_share or 0) * self.steps))

    @property
    def averaged(self) -> tuple[int, ...]:
        """Updates after which the weights count in the average."""
        done = range(self.eval_every, self.steps, self.eval_every) if self.eval_every else ()
        return (*done, self.steps)[-self.average :] if self.average else ()

    @property
    def targets(self) -> dict[str, Any]:
        """What is given of the fields of TeacherTargets."""
        given = {"temperature": self.teacher_temperature, "keep": self.teacher_keep, "k": self.teacher_k}
        return {name: value for name, value in given.items() if value is not None}

    def _check_schedule(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ConfigError(f"schedule is {self.schedule!r}; choose {', '.join(SCHEDULES)}.")
        if self.schedule != "wsd":
            if self.decay_share is not None:
                raise ConfigError("decay_share belongs to schedule wsd; choose that schedule or leave it out.")
            return
        object.__setattr__(self, "decay_share", DECAY_SHARE if self.decay_share is None else self.decay_share)
        if self.decay_share is None or not 0 < self.decay_share <= 1:
            raise ConfigError(f"decay_share is {self.decay_share}; it must be above 0 and at most 1.")
        if self.warmup_steps + self.decay_steps > self.steps:
            raise ConfigError(
                f"Schedule wsd takes {self.warmup_steps:,} updates to warm up and {self.decay_steps:,} to decay, of "
                f"{self.steps:,}; raise steps, or lower warmup_steps or decay_share."
            )

    def _check_loss(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"label_smoothing is {self.label_smoothing}; it must be at least 0 and below 1.")
        if not 0 <= self.z_loss < math.inf:
            raise ConfigError(f"z_loss is {self.z_loss}; it must be a number of at least 0, such as 1e-4.")
        if self.teacher is not None and self.teacher_weight is None:
            object.__setattr__(self, "teacher_weight", TEACHER_WEIGHT)
        if self.teacher is None and (self.teacher_weight is not None or self.targets):
            raise ConfigError("Settings of a teacher are given and no teacher; name one, or leave them out.")
        if self.teacher_weight is not None and not 0 < self.teacher_weight <= 1:
            raise ConfigError(f"teacher_weight is {self.teacher_weight}; it must be above 0 and at most 1.")
        TeacherTargets(**self.targets)

    def _check_average(self) -> None:
        if self.average is None:
            return
        if self.average < 2:
            raise ConfigError(f"average is {self.average}; it must be a number of validations of at least 2.")
        if len(self.averaged) < self.average:
            raise ConfigError(
                f"average takes the weights at {self.average} validations, and {self.steps:,} updates with eval_every "
                f"{self.eval_every} have {len(self.averaged)}; lower average or eval_every."
            )

    def _check_adapter(self) -> None:
        if self.decoder_adapter not in (None, *KINDS):
            raise ConfigError(f"decoder_adapter is {self.decoder_adapter!r}; choose none, {', '.join(KINDS)}.")
        if self.decoder_adapter == "lora":
            object.__setattr__(self, "adapter_rank", self.adapter_rank or ADAPTER_RANK)
        elif self.adapter_rank is not None:
            raise ConfigError("adapter_rank is the rank of decoder_adapter lora; choose that kind or leave it out.")
        if self.share_layers and (self.lora, self.decoder_adapter, self.baseline) != (None, None, None):
            raise ConfigError("share_layers says how all weights train; leave out lora, decoder_adapter and baseline.")

    def _check_baseline(self) -> None:
        if self.baseline is None:
            return
        if self.baseline not in BASELINES:
            raise ConfigError(f"baseline is {self.baseline!r}; choose {' or '.join(BASELINES)}.")
        if self.freeze not in (None, "decoder") or self.phases or self.decoder_adapter is not None:
            raise ConfigError("A baseline says itself what trains; leave out freeze, phases and decoder_adapter.")
        if self.baseline == "causal-full" and self.lora is not None:
            raise ConfigError("baseline causal-full trains all weights; leave out lora, or choose causal-lora.")

    def _check_phases(self) -> None:
        if not self.phases:
            object.__setattr__(self, "freeze", self.freeze or "decoder")
        elif self.freeze is not None:
            raise ConfigError("phases say what each of them freezes; leave out freeze.")
        begins(self.phases, self.steps)
