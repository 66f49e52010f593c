from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from shop import PRICE, TEXTS, answer, make_inputs, names_of

from distill.benchmark import bench
from distill.benchmark.bench import judge_recorded, run_bench
from distill.benchmark.cost import CostInputs
from distill.benchmark.recorded import RecordedTeacher
from distill.benchmark.results import result_as_json, result_from_json
from distill.errors import BundleError, DataError
from distill.router import Router
from distill.types import GoldQuery, Task

pytestmark = pytest.mark.usefixtures("quick")


def rows_of(result):
    return {row.name: row for row in result.rows}


def test_the_rows_stand_in_the_contracts_order(tiny_bundles):
    inputs = make_inputs(tiny_bundles)
    both = replace(inputs, bundles={"static": inputs.bundles["static"], "encoder": inputs.bundles["static"]})
    names = [row.name for row in run_bench(both, show_progress=False).rows]
    assert names == ["teacher", "encoder", "static", "tfidf", "majority"]


def test_gold_is_counted_by_scope(result):
    assert (result.n_gold, result.n_in_scope, result.n_oos) == (16, 12, 4)


def test_the_teacher_is_measured_from_its_recorded_answers(result):
    teacher = rows_of(result)["teacher"]
    assert (teacher.accuracy, teacher.accuracy_policy, teacher.n_failed) == (10 / 12, 14 / 16, 1)
    assert (teacher.fidelity, teacher.queries_per_s, teacher.size_mb) == (None, None, None)
    assert (teacher.p50_ms, teacher.p99_ms, teacher.latency_n) == (900.0, 900.0, 15)
    assert teacher.notes["requests_in_flight"] == (2, 2)
    assert (teacher.notes["prompt_tokens"], teacher.notes["completion_tokens"]) == (100, 5)
    assert (teacher.ece, teacher.aurc, teacher.oos_auroc) == (None, None, None)  # it gives no scores
    assert "ledger" in teacher.notes["latency_source"]
    assert "against_teacher" not in teacher.notes


def test_the_teacher_alone_has_the_same_row(tiny_bundles, result):
    judged = judge_recorded(replace(make_inputs(tiny_bundles), bundles={}, training=()))
    assert judged.rows == tuple(row for row in result.rows if row.name == "teacher")
    assert [each for each in result.confusions if each["row"] == "teacher"] == [*judged.confusions]
    assert (judged.n_gold, judged.n_in_scope, judged.n_oos) == (result.n_gold, result.n_in_scope, result.n_oos)
    assert judged.provenance["labels_not_in_gold"] == result.provenance["labels_not_in_gold"]


def test_the_student_is_measured_as_the_router_answers(result, tiny_router):
    static = rows_of(result)["static"]
    decided = [
        tiny_router.route(text).intent == (None if name == "oos" else name) for name in TEXTS for text in TEXTS[name]
    ]
    assert static.accuracy_policy == pytest.approx(sum(decided) / 16)
    assert static.size_mb == tiny_router.bundle.size_bytes / 1e6
    assert (static.cold_start_ms, static.peak_rss_mb) == (123.4, 56.7)
    assert static.notes["tokenizer"] == tiny_router.tokenizer
    assert 0 < static.p50_ms <= static.p95_ms <= static.p99_ms
    assert static.latency_n == 5 * 16
    assert list(static.queries_per_s_by_batch) == ["1", "32", "256"]
    assert static.queries_per_s == static.queries_per_s_by_batch["256"] > 0
    for percent in (50, 95, 99):
        low, high = static.notes[f"p{percent}_ms_by_round"]
        assert 0 < low <= high


def test_fidelity_is_against_the_teacher_and_not_against_gold(result):
    static = rows_of(result)["static"]
    assert static.accuracy_policy == 1.0
    assert static.fidelity == pytest.approx(14 / 15)
    assert static.notes["against_teacher"] == {
        "n": 15,
        "n_left_out": 1,
        "drop": -1 / 15,
        "drop_ci95": static.notes["against_teacher"]["drop_ci95"],
        "mcnemar_p": 1.0,
        "only_student_right": 1,
        "only_teacher_right": 0,
    }


def test_gates_are_judged_for_the_rows_that_have_them(result):
    assert [(gate.row, gate.gate, gate.passed) for gate in result.gates] == [
        ("static", "accuracy_drop", True),
        ("static", "p95_ms", True),
    ]
    assert (result.gates[0].figure, result.gates[0].verdict) == (-1 / 15, "not shown")
    assert "on 15 gold queries (1 more got no answer of the teacher), limit" in result.gates[0].detail


def test_gold_is_broken_down_by_intent_for_teacher_and_students(result):
    found = {(each.row, each.intent): each for each in result.per_intent}
    assert {row for row, _ in found} == {"teacher", "static"}
    teachers = found["teacher", "track_order"]
    assert (teachers.n, teachers.recall, teachers.confused_with) == (4, 0.5, "cancel_order")
    assert (found["static", None].n, found["static", None].recall) == (4, 1.0)


def test_scores_have_their_curves_for_the_rows_that_give_any(result):
    assert {each.row for each in result.reliability} == {each.row for each in result.risk_coverage}
    assert {each.row for each in result.risk_coverage} == {"static", "tfidf", "majority"}
    ((row, curve),) = result.cascades.items()
    nobody, everybody = curve[1], curve[-1]
    assert (row, nobody["share_asked"], nobody["accuracy"]) == ("static", 0.0, 1.0)
    assert (everybody["share_asked"], everybody["n_failed"], everybody["accuracy"]) == (1.0, 1, 15 / 16)
    assert everybody["p95_ms"] > 900
    assert everybody["asking_usd_per_1k"] is None  # the teacher's price is not known


def test_a_teacher_with_scores_has_figures_of_them(tiny_bundles):
    inputs = make_inputs(tiny_bundles)
    labels = inputs.labels
    soft = [answer(query.text, None, scores=dict.fromkeys(labels, 0.1) | {query.intent: 0.7}) for query in inputs.gold]
    result = run_bench(replace(inputs, teacher=RecordedTeacher(soft, labels)), show_progress=False)
    teacher = rows_of(result)["teacher"]
    assert (teacher.oos_auroc, teacher.aurc is not None) == (1.0, True)
    assert "teacher" in {each.row for each in result.risk_coverage}


def test_what_trained_the_students_has_a_row_of_its_own(tiny_bundles):
    inputs = make_inputs(tiny_bundles)
    both = [answer(query.text, query.intent, latency_ms=None) for query in inputs.gold]
    with_evidence = RecordedTeacher(both, inputs.labels)
    rows = run_bench(replace(inputs, with_evidence=with_evidence), show_progress=False).rows
    assert [row.name for row in rows][:2] == ["teacher", "teacher+evidence"]
    assert (rows[1].accuracy_policy, rows[1].fidelity, rows[1].p50_ms) == (1.0, 14 / 15, None)
    assert rows[1].notes["against_teacher"]["drop"] == -1 / 15


def test_a_loaded_machine_is_warned_of_on_stderr_and_in_the_result(tiny_bundles, monkeypatch, capsys):
    class Busy:
        def busy_share(self):
            return 0.4567

    monkeypatch.setattr(bench, "LoadWatch", Busy)
    result = run_bench(make_inputs(tiny_bundles), show_progress=False)
    assert (result.environment["loaded"], result.environment["busy_share_during"]) == (True, 0.457)
    assert "the machine was busy with other work (46 %)" in capsys.readouterr().err


def test_an_idle_machine_is_not_warned_of(tiny_bundles, capsys):
    result = run_bench(make_inputs(tiny_bundles), show_progress=False)
    assert (result.environment["loaded"], result.environment["busy_share_during"]) == (False, 0.0)
    assert capsys.readouterr().err == ""


def test_an_unknown_price_stays_unknown_and_the_what_if_is_named(result):
    rows = rows_of(result)
    assert rows["teacher"].usd_per_1k is None
    assert result.cost["usd_per_month"]["teacher"] is None
    assert result.cost["priced_as"]["model"] == "big-model"
    expected = 0.36 / 3600 / rows["static"].queries_per_s_by_batch["1"] * 1000
    assert rows["static"].usd_per_1k == pytest.approx(expected, rel=1e-3)


def test_a_known_price_prices_the_teacher_and_no_machine_leaves_the_student_unknown(tiny_bundles):
    inputs = make_inputs(tiny_bundles, cost=CostInputs(teacher_price=PRICE))
    rows = rows_of(run_bench(inputs, show_progress=False))
    expected = (Decimal(60) * Decimal("0.25") + Decimal(40) * Decimal("0.025") + Decimal(10)) / 1000
    assert rows["teacher"].usd_per_1k == pytest.approx(float(expected))
    assert rows["static"].usd_per_1k is None


def test_disagreements_name_both_sides_and_leave_failures_out(result):
    (found,) = rows_of(result)["static"].notes["disagreements"]
    assert (found["gold"], found["teacher"], found["student"]) == ("track_order", "cancel_order", "track_order")


def test_confusions_are_the_wrong_pairs(result):
    assert result.confusions[0] == {"row": "teacher", "gold": "track_order", "answer": "cancel_order", "n": 1}
    assert all(pair["gold"] != pair["answer"] for pair in result.confusions)


def test_without_gold_only_fidelity_is_measured_on_held_out_queries(tiny_bundles):
    result = run_bench(make_inputs(tiny_bundles, gold=()), show_progress=False)
    rows = rows_of(result)
    assert (result.n_gold, result.n_in_scope, result.n_oos) == (0, 0, 0)
    assert result.provenance["measured_on"].startswith("held-out")
    assert result.provenance["n_queries"] == 16
    assert rows["static"].fidelity is not None
    assert rows["static"].accuracy is rows["static"].accuracy_policy is rows["static"].coverage is None
    assert [(gate.gate, gate.passed) for gate in result.gates] == [("accuracy_drop", None), ("p95_ms", True)]
    assert "gold" in result.gates[0].detail


def test_without_a_teacher_there_is_no_fidelity(tiny_bundles):
    result = run_bench(make_inputs(tiny_bundles, teacher=None), show_progress=False)
    assert [row.name for row in result.rows] == ["static", "tfidf", "majority"]
    assert all(row.fidelity is None for row in result.rows)
    assert result.gates[0].passed is None


@pytest.mark.parametrize("task", [Task.MULTI, Task.WEIGHTS])
def test_the_other_tasks_run_through(tiny_bundles, task):
    result = run_bench(make_inputs(tiny_bundles, task), show_progress=False)
    rows = rows_of(result)
    assert (result.n_in_scope, result.n_oos) == (12, 0)
    assert rows["teacher"].accuracy == pytest.approx(10 / 12)
    assert rows["static"].accuracy_ci95 is not None
    assert rows["static"].oos_auroc is None
    assert {each.row for each in result.per_intent} == {"teacher", "static"}
    assert len(result.cascades) == 1
    assert bool(result.reliability) == bool(result.risk_coverage) == (task is Task.MULTI)
    assert rows["static"].notes["against_teacher"]["n"] == 11
    assert ("mae_policy" in rows["static"].notes) == (task is Task.WEIGHTS)
    value = result_as_json(result)
    assert result_as_json(result_from_json(value)) == value


def test_gold_that_was_trained_on_is_counted(tiny_bundles, capsys):
    inputs = make_inputs(tiny_bundles)
    seen = replace(inputs, gold=(GoldQuery("Stop it, NOW!", {"cancel_order": 1.0}), *inputs.gold))
    result = run_bench(seen, show_progress=False)
    assert (result.provenance["n_gold_in_training"], result.leakage.n_exact) == (1, 1)
    assert result.provenance["labels_not_in_gold"] == []
    assert result.provenance["n_repeated_gold"] == 0
    twice = replace(inputs, gold=(*inputs.gold, replace(inputs.gold[0], text=inputs.gold[0].text.upper())))
    assert run_bench(twice, show_progress=False).provenance["n_repeated_gold"] == 1
    signs = tuple(replace(inputs.gold[0], text=text) for text in ("👍", "🙏", "🙏 "))
    assert (
        run_bench(replace(inputs, gold=(*inputs.gold, *signs)), show_progress=False).provenance["n_repeated_gold"] == 1
    )
    other = next(name for name in inputs.labels if name not in inputs.gold[0].target)
    two = replace(inputs.gold[0], text=f"{inputs.gold[0].text}!", target={other: 1.0})
    capsys.readouterr()
    assert (
        run_bench(replace(inputs, gold=(*inputs.gold, two)), show_progress=False).provenance["n_contradicting_gold"]
        == 1
    )
    assert f"bench: gold has 1 text with more than one label ({inputs.gold[0].text!r});" in capsys.readouterr().err
    fewer = tuple(query for query in inputs.gold if "refund" not in query.target)
    result = run_bench(replace(inputs, gold=fewer), show_progress=False)
    assert result.provenance["labels_not_in_gold"] == ["refund"]


@pytest.mark.parametrize("task", list(Task))
def test_a_label_that_no_student_knows_is_wrong_whatever_is_answered(tiny_bundles, task):
    inputs = make_inputs(tiny_bundles, task, teacher=None)
    at = len(names_of(Task.MULTI))
    labels = (*inputs.labels[:at], "complain", *inputs.labels[at:])
    training = tuple(replace(each, target=np.insert(each.target, at, 0.0)) for each in inputs.training)
    unknown = GoldQuery("this is an outrage", {"complain": 1.0})
    before = rows_of(run_bench(inputs, show_progress=False))
    more = replace(inputs, labels=labels, training=training, gold=(*inputs.gold, unknown))
    after = rows_of(run_bench(more, show_progress=False))
    n = 12
    for name in ("static", "tfidf", "majority"):
        assert after[name].accuracy == pytest.approx(before[name].accuracy * n / (n + 1))


def test_nothing_to_measure_on_is_one_clear_line(tiny_bundles):
    inputs = make_inputs(tiny_bundles, gold=())
    trained = tuple(replace(example, split="train") for example in inputs.training)
    with pytest.raises(DataError, match="nothing to measure on"):
        run_bench(replace(inputs, training=trained), show_progress=False)


def test_a_missing_bundle_is_one_clear_line(tiny_bundles, tmp_path):
    with pytest.raises(BundleError, match="gone"):
        run_bench(replace(make_inputs(tiny_bundles), bundles={"static": tmp_path / "gone"}), show_progress=False)


def test_a_bundle_of_other_labels_is_one_clear_line(tiny_bundles):
    inputs = make_inputs(tiny_bundles)
    other = Router.load(tiny_bundles[Task.SINGLE].path).labels[0]
    labels = tuple(name.replace(other, "another") for name in inputs.labels)
    with pytest.raises(DataError, match=other):
        run_bench(replace(inputs, gold=(), labels=labels), show_progress=False)


def test_progress_goes_to_stderr_and_nothing_to_stdout(tiny_bundles, capsys):
    run_bench(make_inputs(tiny_bundles), show_progress=True)
    assert capsys.readouterr().out == ""


def test_a_teacher_that_was_down_is_no_reason_to_trust_the_student(tiny_bundles):
    inputs = make_inputs(tiny_bundles)
    down = [answer(query.text, None, error="server error") for query in inputs.gold]
    result = run_bench(replace(inputs, teacher=RecordedTeacher(down, inputs.labels)), show_progress=False)
    assert "against_teacher" not in rows_of(result)["static"].notes
    assert (result.gates[0].gate, result.gates[0].passed, result.gates[0].verdict) == ("accuracy_drop", None, None)
    assert result.cascades == {"static": []}
