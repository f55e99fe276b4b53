"""The options that say how to tune; `graftlm tune` takes them, and a recipe of `graftlm train` by the same names."""

from pathlib import Path
from typing import Annotated, Any

import typer

from graftlm.cli.common import MODEL_HELP, TASK_HELP, yaml_value

Model = Annotated[str, typer.Argument(help=MODEL_HELP)]
Tasks = Annotated[list[str], typer.Option(help=TASK_HELP + " Several make a mixture.")]
Out = Annotated[Path, typer.Option(help="New folder for the task encoder; checkpoints go to OUT.run meanwhile.")]
Freeze = Annotated[
    str | None,
    typer.Option(
        help="decoder, the default: train encoder and bridge only; none: train everything; or groups and globs of "
        "tensor names with commas, ! before those to train all the same. A changed decoder makes OUT a whole model."
    ),
]
Phases = Annotated[
    Any,
    typer.Option(
        parser=yaml_value,
        metavar="YAML",
        help="In place of --freeze, plans one after the other: [{freeze: encoder, steps: 200}, {freeze: none}]; "
        "share: 0.1 in place of steps is a part of all updates.",
    ),
]
ShareLayers = Annotated[
    bool,
    typer.Option(
        "--share-layers",
        help="With --freeze none: the layers that encoder and decoder of a lossless graft share train as one.",
    ),
]
Lora = Annotated[
    int | None,
    typer.Option(help="Train a LoRA of this rank beside the encoder's frozen weights; or the rank of causal-lora."),
]
DecoderAdapter = Annotated[
    str, typer.Option(help="What trains beside the frozen decoder's weights: none, bias, ia3 or lora.")
]
AdapterRank = Annotated[int | None, typer.Option(help="Rank of --decoder-adapter lora; 8 by default.")]
Baseline = Annotated[
    str | None,
    typer.Option(
        help="Train the plain language model instead, decoder-only: causal-full, or causal-lora with one LoRA as "
        "large as the encoder."
    ),
]
EncoderAttention = Annotated[
    str | None,
    typer.Option(
        help="causal, bidirectional, or gated: causal until it learns to see both sides; the model's own by default."
    ),
]
Rates = Annotated[
    str, typer.Option(help="Shares of several tasks: proportional, sqrt, temperature, uniform, or NAME=NUMBER,…")
]
Temperature = Annotated[float | None, typer.Option(help="T of --rates temperature: shares go with size^(1/T).")]
Steps = Annotated[int, typer.Option(help="Updates.")]
BatchSize = Annotated[int | None, typer.Option(help="Examples per update; 16 by default.")]
BatchTokens = Annotated[
    int | None,
    typer.Option(help="In place of --batch-size: as many examples as have so many tokens, source and target."),
]
Accumulation = Annotated[
    int, typer.Option(help="Parts that an update's examples are computed in, to save memory; it divides --batch-size.")
]
Packing = Annotated[
    bool,
    typer.Option("--packing", help="Run the examples of a batch as one row without padding: faster, same losses."),
]
LearningRate = Annotated[float, typer.Option(help="Peak rate of the schedule.")]
WarmupSteps = Annotated[int, typer.Option(help="Updates in which the rate rises to its peak.")]
Schedule = Annotated[
    str,
    typer.Option(
        help="How it falls after that: cosine or linear; constant, not at all; or wsd, only at the end of the run."
    ),
]
DecayShare = Annotated[float | None, typer.Option(help="Part of all updates in which wsd falls; 0.2 by default.")]
Optimizer = Annotated[
    str, typer.Option(help="adamw; or muon, for the matrices of the layers that train, and adamw for the rest.")
]
LabelSmoothing = Annotated[float, typer.Option(help="Share of each label that goes to all tokens alike, such as 0.1.")]
ZLoss = Annotated[
    float, typer.Option(help="Weight of the squared logarithm of the softmax's normaliser, such as 1e-4.")
]
Teacher = Annotated[
    str | None,
    typer.Option(
        help="Language model with the same tokenizer to learn from, which reads what the examples are made of; or "
        "targets of it that graftlm distill wrote."
    ),
]
TeacherWeight = Annotated[
    float | None, typer.Option(help="Its share in the loss, 0.5 by default; the labels have the rest.")
]
TeacherTemperature = Annotated[
    float | None, typer.Option(help="Divides the logits of teacher and student; 1 by default, or as stored.")
]
TeacherKeep = Annotated[
    str | None,
    typer.Option(help="What is kept of its distributions: sample, drawn tokens, by default; top_k; all; or as stored."),
]
TeacherK = Annotated[int | None, typer.Option(help="Tokens that sample or top_k keep; 256 by default, or as stored.")]
EvalEvery = Annotated[int, typer.Option(help="Updates between validations and checkpoints; 0: only at the end.")]
Average = Annotated[
    int | None,
    typer.Option(
        help="End with the mean of the weights at the last so many validations, instead of the best; T5Gemma 2 takes 5."
    ),
]
EvalLimit = Annotated[int, typer.Option(help="First so many validation examples of each task.", min=1)]
Seed = Annotated[int, typer.Option(help="Seed of the order of examples and of new parts.")]
OnBadLoss = Annotated[
    str,
    typer.Option(
        help="At a loss or gradient that is not finite, or a spike: stop, or skip that update, up to ten in a row."
    ),
]
Spike = Annotated[
    float | None,
    typer.Option(help="A loss or gradient norm over so many times its running median is a spike; off by default."),
]
KeepCheckpoints = Annotated[int, typer.Option(help="Newest checkpoints that stay.", min=1)]
ActivationCheckpointing = Annotated[
    bool,
    typer.Option("--activation-checkpointing", help="Compute layers again in the backward pass, to save memory."),
]
Workers = Annotated[int, typer.Option(help="Processes that make batches ahead, for text with large batches.", min=0)]
ReportTo = Annotated[str, typer.Option(help="Send losses to tensorboard, wandb or trackio too; none by default.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint of the same run.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, show the plan, and train nothing.")]
