"""Whether sharing the decoder works on a task, in plain words."""

from __future__ import annotations

from collections.abc import Mapping

from graftlm.demo.arms import ARMS
from graftlm.demo.results import Summary


def verdict(task: str, results: Mapping[str, Summary]) -> str:
    """What the arms say of the frozen decoder: does it read the encoder, and how do the others compare.

    Losses and the source gain decide, in nats per target token; the shuffled control can only learn the targets.
    """
    frozen, control = _metric(results, "frozen", "loss"), _metric(results, "frozen-shuffled", "loss")
    untuned, gain = _metric(results, "un-tuned", "loss"), results["frozen"]["metrics"]["source_gain"]
    others = {name: _metric(results, name, "loss") for name in results if name not in ("un-tuned", "frozen-shuffled")}
    best = min(others, key=others.__getitem__)
    failed = [
        words
        for holds, words in (
            (frozen < untuned, "its loss is not below the un-tuned graft's"),
            (frozen < control, "its loss is not below that of the same training with shuffled sources"),
            (gain["low"] > 0, "its source gain is not clearly above 0"),
        )
        if not holds
    ]
    ranking = f"Of all arms, “{ARMS[best].title}” has the lowest test loss ({others[best]:.2f})."
    if failed:
        reasons = "; ".join(failed)
        return f"On {task} the frozen decoder without an adapter does not do at this scale: {reasons}. {ranking}"
    return (
        f"On {task} the frozen decoder reads the tuned encoder: loss {frozen:.2f} against {untuned:.2f} un-tuned and "
        f"{control:.2f} with shuffled sources, source gain {gain['value']:.2f} "
        f"({gain['low']:.2f} to {gain['high']:.2f}). {ranking}"
    )


def _metric(results: Mapping[str, Summary], arm: str, name: str) -> float:
    value: float = results[arm]["metrics"][name]["value"]
    return value
