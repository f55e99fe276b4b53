"""The evaluation record: its exact shape, and that each part of it is what its own function gives."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import PreTrainedTokenizerFast

import graftlm
from graftlm.data.collate import Example, encode
from graftlm.data.task import METRICS, Task, load_task
from graftlm.data.tokenizers import Tokenizers
from graftlm.errors import ConfigError, TaskError
from graftlm.evaluation.compare import ALL_SCORES
from graftlm.evaluation.evaluator import SAMPLES, evaluate
from graftlm.evaluation.loss import loss_and_source_gain, target_nats
from graftlm.evaluation.metrics import REGISTRY
from graftlm.generation.text import generate_texts
from graftlm.model.modeling import GraftForConditionalGeneration

ROWS: list[dict[str, Any]] = [
    {"id": str(i), "source": source, "target": target, "references": [target, target.upper()][: 1 + i % 2]}
    for i, (source, target) in enumerate(
        [("fox", "the fox"), ("lazy", "dog sleeps"), ("quick", "x"), ("a", "b"), ("b", "over"), ("c", "and"), ("d", "")]
    )
]


@pytest.fixture
def task(tmp_path: Path) -> Task:
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    fields = {
        "name": "toy",
        "test": "test.jsonl",
        "metrics": list(METRICS),
        "source_template": "say {source}",
        "target_template": "< {target}",
        "max_new_tokens": 6,
        "num_beams": 2,
    }
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(fields))
    return load_task(tmp_path / "task.yaml")


def test_record(tiny_model: GraftForConditionalGeneration, tiny_tokenizer: PreTrainedTokenizerFast, task: Task) -> None:
    record = evaluate(tiny_model, tiny_tokenizer, task, batch_size=3, model_name="m", encoder_name="e")
    assert json.loads(json.dumps(record)) == record
    assert list(record) == [
        "task", "split", "metrics", "n", "model", "encoder", "versions", "decoding", "data_sha256", "samples",
        "rows",
    ]  # fmt: skip
    assert (record["task"], record["split"], record["n"]) == ("toy", "test", len(ROWS))
    assert (record["model"], record["encoder"]) == ("m", "e")
    assert record["data_sha256"] == task.data_hash("test")
    assert record["versions"]["graftlm"] == graftlm.__version__
    assert {"python", "torch", "transformers", "sacrebleu"} < set(record["versions"])
    assert "nrefs:var" in record["versions"]["bleu"]
    assert record["decoding"] == {
        "max_new_tokens": 6,
        "num_beams": 2,
        "do_sample": False,
        "source_limit": tiny_model.config.max_position_embeddings - 6,
        "truncate": False,
        "scoring": "sum",
    }

    sources = ["say " + row["source"] for row in ROWS]
    references = [["< " + text for text in row["references"]] for row in ROWS]
    predictions = generate_texts(tiny_model, tiny_tokenizer, sources, max_new_tokens=6, num_beams=2)
    tokenizers = Tokenizers(tiny_tokenizer, tiny_tokenizer)
    examples = [encode(row, task, tokenizers, 99) for row in task.records("test")]
    scored = loss_and_source_gain(tiny_model, examples)
    expected = scored | {name: metric(predictions, references) for name, metric in REGISTRY.items()}
    assert set(record["metrics"]) == {"loss", "source_gain", *METRICS}
    for name, metric in expected.items():
        assert record["metrics"][name] == pytest.approx(metric.to_dict(), abs=1e-5)
    assert (
        record["samples"]
        == [
            {"source": source, "prediction": prediction, "references": accepted}
            for source, prediction, accepted in zip(sources, predictions, references, strict=True)
        ][:SAMPLES]
    )
    assert [(row["id"], row["prediction"]) for row in record["rows"]] == list(zip("0123456", predictions, strict=True))


def test_statistics_of_the_rows_add_up_to_the_metrics(
    tiny_model: GraftForConditionalGeneration, tiny_tokenizer: PreTrainedTokenizerFast, task: Task
) -> None:
    record = evaluate(tiny_model, tiny_tokenizer, task, model_name="m")
    for name, metric in record["metrics"].items():
        sums = [sum(column) for column in zip(*(row["statistics"][name] for row in record["rows"]), strict=True)]
        assert ALL_SCORES[name](sums) == pytest.approx(metric["value"])


def choosing(task: Task, **fields: Any) -> Task:
    """The task with choices between what its seven rows want and one other text."""
    targets = [row["target"] for row in ROWS]
    return Task(**task.model_dump() | {"metrics": ["accuracy"], "choices": [*targets, "nothing"]} | fields)


@pytest.mark.parametrize("scoring", ["sum", "mean"])
def test_choices_are_ranked_by_likelihood_and_nothing_is_written(
    tiny_model: GraftForConditionalGeneration, tiny_tokenizer: PreTrainedTokenizerFast, task: Task, scoring: str
) -> None:
    calls: list[tuple[int, int]] = []
    task = choosing(task, scoring=scoring)
    record = evaluate(
        tiny_model, tiny_tokenizer, task, batch_size=8, model_name="m", progress=lambda *call: calls.append(call)
    )
    assert set(record["metrics"]) == {"loss", "source_gain", "accuracy"}
    assert record["decoding"]["scoring"] == scoring
    chosen = []
    for row in ROWS:
        source = tiny_tokenizer("say " + row["source"]).input_ids
        costs = {}
        for choice in task.choices:
            example = Example(source, [*tiny_tokenizer("< " + choice, add_special_tokens=False).input_ids, 2])
            nats = target_nats(tiny_model, [example])[0]
            costs["< " + choice] = nats / len(example.labels) if scoring == "mean" else nats
        chosen.append(min(costs, key=costs.__getitem__))
    assert [row["choice"] for row in record["rows"]] == chosen
    assert [sample["choice"] for sample in record["samples"]] == chosen[:SAMPLES]
    assert "prediction" not in record["rows"][0]
    right = [text[2:] in {row["target"], *row["references"]} for text, row in zip(chosen, ROWS, strict=True)]
    assert record["metrics"]["accuracy"]["value"] == pytest.approx(100 * sum(right) / len(ROWS))
    assert calls[-1] == (2 * 7 + 7 * 8, 2 * 7 + 7 * 8)


def test_choices_beside_metrics_of_texts(
    tiny_model: GraftForConditionalGeneration, tiny_tokenizer: PreTrainedTokenizerFast, task: Task
) -> None:
    calls: list[tuple[int, int]] = []
    both = choosing(task, metrics=["accuracy", "chrf"])
    record = evaluate(tiny_model, tiny_tokenizer, both, model_name="m", progress=lambda *call: calls.append(call))
    alone = evaluate(tiny_model, tiny_tokenizer, choosing(task), model_name="m")
    texts = evaluate(tiny_model, tiny_tokenizer, task, model_name="m")
    assert record["metrics"]["accuracy"] == alone["metrics"]["accuracy"]
    assert record["metrics"]["chrf"] == texts["metrics"]["chrf"]
    assert {"id", "prediction", "choice", "statistics"} == set(record["rows"][0])
    assert calls == sorted(calls)
    assert calls[-1] == (7 * 8 + 3 * 7, 7 * 8 + 3 * 7)


def test_without_metrics_only_the_loss_is_taken(
    tiny_model: GraftForConditionalGeneration, tiny_tokenizer: PreTrainedTokenizerFast, task: Task
) -> None:
    record = evaluate(tiny_model, tiny_tokenizer, task.model_copy(update={"metrics": []}), model_name="m")
    assert set(record["metrics"]) == {"loss", "source_gain"}
    assert set(record["rows"][0]) == {"id", "statistics"}


def test_beams_replace_the_tasks(
    tiny_model: GraftForConditionalGeneration, tiny_tokenizer: PreTrainedTokenizerFast, task: Task
) -> None:
    record = evaluate(tiny_model, tiny_tokenizer, task, num_beams=3, model_name="m")
    assert record["decoding"]["num_beams"] == 3
    sources = ["say " + row["source"] for row in ROWS]
    predictions = generate_texts(tiny_model, tiny_tokenizer, sources, max_new_tokens=6, num_beams=3)
    assert [row["prediction"] for row in record["rows"]] == predictions
    with pytest.raises(ConfigError, match="No metric of task toy reads what the model writes"):
        evaluate(tiny_model, tiny_tokenizer, choosing(task), num_beams=3, model_name="m")


def test_limit_takes_the_first_records(
    tiny_model: GraftForConditionalGeneration, tiny_tokenizer: PreTrainedTokenizerFast, task: Task
) -> None:
    calls: list[tuple[int, int]] = []
    record = evaluate(
        tiny_model, tiny_tokenizer, task, limit=2, model_name="m", progress=lambda *call: calls.append(call)
    )
    assert record["n"] == 2
    assert [sample["source"] for sample in record["samples"]] == ["say fox", "say lazy"]
    assert record["encoder"] is None
    assert calls == [(4, 6), (6, 6)]
    with pytest.raises(TaskError, match="at least two examples"):
        evaluate(tiny_model, tiny_tokenizer, task, limit=1, model_name="m")


def test_limits_of_the_task_and_of_the_model(
    tiny_model: GraftForConditionalGeneration, tiny_tokenizer: PreTrainedTokenizerFast, task: Task
) -> None:
    short = task.model_copy(update={"max_source_tokens": 3})
    with pytest.raises(TaskError, match="the limit is 3"):
        evaluate(tiny_model, tiny_tokenizer, short, model_name="m")
    cut = short.model_copy(update={"truncate": True, "source_template": "{source} now"})
    decoding = evaluate(tiny_model, tiny_tokenizer, cut, model_name="m")["decoding"]
    assert (decoding["source_limit"], decoding["truncate"]) == (3, True)
    with pytest.raises(TaskError, match="leaves none for the source"):
        evaluate(tiny_model, tiny_tokenizer, task.model_copy(update={"max_new_tokens": 64}), model_name="m")


def test_split_without_data(
    tiny_model: GraftForConditionalGeneration, tiny_tokenizer: PreTrainedTokenizerFast, task: Task
) -> None:
    with pytest.raises(TaskError, match="no validation data"):
        evaluate(tiny_model, tiny_tokenizer, task, "validation", model_name="m")
