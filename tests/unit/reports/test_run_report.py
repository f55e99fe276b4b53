"""The report of runs and evaluations: every figure of the records is on the page, once as text."""

import re

from report_records import BRIDGE, evaluation, run

from graftlm.reports import blocks
from graftlm.reports.blocks import SampleRow
from graftlm.reports.figures import Curve
from graftlm.reports.records import Evaluation, Records, Run, Training
from graftlm.reports.run_report import run_report


def report(runs: dict[str, dict], evaluations: dict[str, dict]) -> str:
    trained = {name: Run(Training.model_validate(values), 14_760_696) for name, values in runs.items()}
    scored = {name: Evaluation.model_validate(values) for name, values in evaluations.items()}
    return run_report(Records(trained, scored)).html()


def text_of(page: str) -> str:
    return re.sub(r"<[^>]+>", "|", page).replace("\N{NO-BREAK SPACE}", " ")


def test_what_was_trained() -> None:
    mixture = {"toy": {"examples": 1200, "rate": 0.75}, "other": {"examples": 9, "rate": 0.25}}
    text = text_of(report({"enc": run(mixture=mixture), "half": run(interrupted_at=11, best=None)}, {}))
    for part in (
        "toy (1,200 examples, 75.0% of the draws), other (9 examples, 25.0% of the draws)", "|decoder|", "|encoder|",
        "|12,345|", "|67,890|", "|14.8 MB|", "|20|", "|11 of 20 (interrupted)|", "2.500, after 20 updates",
        "|1 min 1 s|", "|cpu|", "|0.003|", "|7|",
    ):  # fmt: skip
        assert part in text, part


def test_adapters_are_told() -> None:
    settings = run()["settings"] | {"lora": 8, "decoder_adapter": "lora", "adapter_rank": 4}
    text = text_of(report({"plain": run(), "adapted": run(settings=settings)}, {}))
    assert "|adapters||none||encoder: LoRA of rank 8; decoder: lora of rank 4|" in text
    settings = run()["settings"] | {"decoder_adapter": "ia3", "baseline": "causal-lora"}
    text = text_of(report({"arm": run(settings=settings)}, {}))
    assert "|decoder: ia3|" in text
    assert "|causal-lora|" in text


def test_parts_without_records_are_left_out() -> None:
    def titles(page: str) -> list[str]:
        return re.findall(r"<h2>(.*?)</h2>", page)

    assert titles(report({"enc": run()}, {})) == ["What was trained", "Learning curves"]
    assert titles(report({}, {"scores": evaluation()})) == ["Results", "Samples"]


def test_every_figure_has_a_title_a_description_and_its_data_as_a_table() -> None:
    page = report({"enc": run()}, {"scores": evaluation()})
    assert page.count("<svg ") == page.count("<desc>") == 2
    text = text_of(page)
    for part in ("|3.500|", "|2.250|", "1.50 (1.25 to 1.75)", "42.00 (40.50 to 43.50)"):
        assert part in text


def test_source_gains_are_drawn_and_told() -> None:
    entries = [{"step": step, "loss": 3.0, "source_gain": gain} for step, gain in ((10, 0.125), (20, 0.25))]
    page = report({"new": run(validation=entries, best=entries[1]), "old": run()}, {})
    text = text_of(page)
    assert "|10||0.125|" in text
    assert "|20||0.250|" in text
    assert "new ends at 0.25." in page
    assert "|source gain then||0.250||–|" in text
    assert "Source gain" not in report({"old": run()}, {})


def test_bridges_are_drawn_and_told() -> None:
    page = report({"enc": run(bridge=BRIDGE), "old": run(), "plain": run(bridge=None)}, {})
    assert re.findall(r"<h2>(.*?)</h2>", page) == ["What was trained", "Learning curves", "Bridges"]
    assert re.findall(r"<h3>(.*?)</h3>", page) == ["enc, bridge linear"]
    assert page.count("<svg ") == page.count("<desc>") == 2
    text = text_of(page)
    for part in (
        "before training: layer 1, state 3, 100%; layer 2, state 2, 100%. "
        "after training: layer 1, state 3, 62%; layer 2, state 2, 50%.",
        "|decoder layer||state 0||state 2||state 3|", "|1||0.0%||0.0%||100.0%|", "|2||6.2%||50.0%||43.8%|",
    ):  # fmt: skip
        assert part in text, part


def test_evaluations_of_the_same_examples_are_arms_of_one_table() -> None:
    other = {"loss": {"value": 9.0, "low": 8.0, "high": 9.5}}
    sample = {"source": "name[The Mill]", "prediction": "", "references": ["It is The Mill."]}
    page = report(
        {},
        {
            "tuned": evaluation(),
            "raw": evaluation(metrics=other, samples=[sample]),
            "else": evaluation(data_sha256="c"),
        },
    )
    assert page.count("<h3>toy, 54 test examples</h3>") == 4
    text = text_of(page)
    assert "9.00 (8.00 to 9.50)" in text
    assert text.count("|–|") == 1
    assert re.search(r"tuned\|+The Mill\.\|+raw\|+\(nothing\)", text)


def test_what_models_write_is_escaped() -> None:
    attack = "</dd><script>x</script><img src=x onerror=y>"
    sample = {"source": attack, "prediction": attack, "references": [attack]}
    page = report({attack: run(device=attack)}, {attack: evaluation(task=attack, samples=[sample])})
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page


def test_a_choice_is_shown_where_nothing_was_written() -> None:
    page = report({}, {"scores": evaluation(samples=[{"source": "s", "choice": "yes", "references": ["no"]}])})
    assert "<dd>yes</dd>" in page


def test_many_references_are_cut_and_counted() -> None:
    text = blocks.samples([SampleRow("s", {"tuned": "t"}, list("abcde"))])
    assert "5 references" in text
    assert "a\nb\nc\nand 2 more" in text


def test_a_long_run_has_a_short_table_that_ends_with_the_last_loss() -> None:
    steps = 1000
    page = blocks.learning_curves({"enc": Curve([(step, step / 7) for step in range(1, steps + 1)])})
    assert page.count("<tr>") == 201
    assert "every 5th entry" in page
    assert f"{steps / 7:.3f}" in page


def test_memory_of_the_demo_cases() -> None:
    text = text_of(blocks.memory({"one decoder, two encoders": 30_000_000, "two models": 45_000_000}))
    assert "|30.0 MB|" in text
    assert "|45,000,000|" in text
    assert "|1.50|" in text
