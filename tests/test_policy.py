from __future__ import annotations

import copy
import json
import math
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import precision_recall_curve

from distill.policy import Policy, _best_f1_thresholds, decide_differently, fit_policy
from distill.types import Prediction, Reason, Task

LABELS = ("track", "cancel", "refund", "oos")
N_LABELS = len(LABELS)

probability = st.floats(0.0, 1.0, width=32)


def rows(n: int) -> st.SearchStrategy:
    return hnp.arrays(np.float32, (n, N_LABELS), elements=probability)


# few different values, so that ties are common
coarse_rows = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.float32, (n, N_LABELS), elements=st.integers(0, 4).map(lambda i: i / 4)),
        hnp.arrays(np.int64, n, elements=st.integers(0, N_LABELS - 1)),
    )
)


def policies() -> st.SearchStrategy[Policy]:
    limits = st.floats(0.0, 1.0)
    return st.one_of(
        st.builds(
            Policy,
            st.just(Task.SINGLE),
            st.sampled_from([LABELS, (*LABELS[:3], "other")]),
            limits,
            out_of_scope_ratio=limits,
        ),
        st.builds(Policy, st.just(Task.MULTI), st.just(LABELS), thresholds=st.tuples(*[limits] * N_LABELS)),
        st.builds(Policy, st.just(Task.WEIGHTS), st.just(LABELS)),
    )


def as_tuple(prediction: Prediction) -> tuple:
    return (
        prediction.intent,
        prediction.score,
        prediction.reason,
        prediction.top_intent,
        prediction.intents,
        prediction.weights,
        prediction.scores,
    )


@given(policies(), st.integers(1, 6).flatmap(rows))
def test_a_batch_is_decided_as_its_queries_are_one_by_one(policy, probabilities):
    batch = policy.decide_batch(probabilities)
    assert [as_tuple(each) for each in batch] == [as_tuple(policy.decide(row)) for row in probabilities]


@given(policies(), rows(1))
def test_a_decision_is_a_prediction_like_any_other(policy, probabilities):
    found = policy.decide(probabilities[0])
    made = Prediction(**{each.name: getattr(found, each.name) for each in fields(Prediction)})
    for other in (made, copy.copy(found)):
        assert as_tuple(other) == as_tuple(found)
        assert other.as_dict() == found.as_dict()
    assert found.labels is policy.labels
    assert np.shares_memory(found.probabilities, probabilities)
    with pytest.raises(FrozenInstanceError):
        found.intent = "other"


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), rows(1))
def test_single_accepts_only_what_reaches_the_threshold_and_beats_out_of_scope(threshold, ratio, probabilities):
    prediction = Policy(Task.SINGLE, LABELS, threshold, out_of_scope_ratio=ratio).decide(probabilities[0])
    out_of_scope = float(probabilities[0, -1])
    assert prediction.top_intent == LABELS[int(probabilities[0, :-1].argmax())]
    assert prediction.score == float(probabilities[0, :-1].max())
    if prediction.reason is Reason.ACCEPTED:
        assert prediction.score >= threshold
        assert prediction.score * ratio > out_of_scope
        assert prediction.intents == (prediction.intent,) == (prediction.top_intent,)
    else:
        rejected_as = Reason.OUT_OF_SCOPE if out_of_scope >= prediction.score * ratio else Reason.LOW_CONFIDENCE
        assert prediction.reason is rejected_as
        assert prediction.intent is None
        assert prediction.intents == ()


@given(st.tuples(*[st.floats(0.0, 1.0)] * N_LABELS), rows(1))
def test_multi_accepts_exactly_the_labels_that_reach_their_thresholds_best_first(thresholds, probabilities):
    prediction = Policy(Task.MULTI, LABELS, thresholds=thresholds).decide(probabilities[0])
    scores = prediction.scores
    assert set(prediction.intents) == {
        name for name, limit in zip(LABELS, thresholds, strict=True) if scores[name] >= limit
    }
    assert [scores[name] for name in prediction.intents] == sorted(
        (scores[name] for name in prediction.intents), reverse=True
    )
    assert prediction.intent == (prediction.intents[0] if prediction.intents else None)
    assert prediction.reason is (Reason.ACCEPTED if prediction.intents else Reason.OUT_OF_SCOPE)


def test_weights_are_the_probabilities_and_always_accepted():
    prediction = Policy(Task.WEIGHTS, ("a", "b", "c")).decide(np.array([0.25, 0.5, 0.25], np.float32))
    assert prediction.weights == {"a": 0.25, "b": 0.5, "c": 0.25}
    assert (prediction.intent, prediction.intents, prediction.reason) == ("b", ("b",), Reason.ACCEPTED)


def test_not_a_number_is_never_accepted_for_a_single_intent():
    prediction = Policy(Task.SINGLE, LABELS, 0.0).decide(np.full(N_LABELS, np.nan, np.float32))
    assert prediction.intent is None


@given(policies())
def test_a_policy_survives_json(policy):
    value = json.loads(json.dumps(policy.as_dict()))
    assert Policy.from_dict(value, task=policy.task, labels=policy.labels) == policy


@pytest.mark.parametrize(
    "value",
    [
        *({}, {"threshold": None}, {"threshold": "high"}, {"threshold": math.nan}, {"threshold": -0.1}, [0.5]),
        {"threshold": 10**400},
        *({"threshold": 0, "out_of_scope_ratio": ratio} for ratio in (-0.1, 1.1, math.nan, None)),
    ],
)
def test_what_is_not_a_policy_is_a_value_error(value):
    with pytest.raises(ValueError):
        Policy.from_dict(value, task=Task.SINGLE, labels=LABELS)


@pytest.mark.parametrize(
    ("task", "labels", "thresholds", "complaint"),
    [
        (Task.SINGLE, ("a",), None, "at least two"),
        (Task.SINGLE, ("a", "a"), None, "twice"),
        (Task.SINGLE, ("oos", "a"), None, "last"),
        (Task.SINGLE, ("a", "b"), (0.5, 0.5), "multi"),
        (Task.MULTI, ("a", "b"), None, "multi"),
        (Task.MULTI, ("a", "b"), (0.5,), "1 thresholds for 2 labels"),
    ],
)
def test_a_policy_that_does_not_fit_is_refused(task, labels, thresholds, complaint):
    with pytest.raises(ValueError, match=complaint):
        Policy(task, labels, thresholds=thresholds)


def rightness(policy: Policy, probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    wanted = [None if LABELS[label] == "oos" else LABELS[label] for label in truth]
    return np.array([policy.decide(row).intent == name for row, name in zip(probabilities, wanted, strict=True)])


def first_as_good(candidates: list[Policy], probabilities: np.ndarray, truth: np.ndarray) -> Policy:
    """The first that is within a standard error of the best."""
    right = [rightness(policy, probabilities, truth) for policy in candidates]
    is_out = truth == N_LABELS - 1
    weights = np.where(is_out, max(1.0, 0.25 * (~is_out).sum() / is_out.sum()), 1.0)  # one in five, at least
    best = max(right, key=lambda each: (each * weights).sum())

    def is_as_good(each):  # within a standard error of the difference of the two decisions
        return ((best * weights).sum() - (each * weights).sum()) <= np.sqrt(weights**2 @ (best != each)) + 1e-9

    return next(policy for policy, each in zip(candidates, right, strict=True) if is_as_good(each))


@given(coarse_rows)
def test_ratio_and_threshold_are_the_mildest_within_a_standard_error_of_the_best(examples):
    probabilities, truth = examples
    truth[0] = N_LABELS - 1  # with an out-of-scope target agreement is what counts
    assume((truth != N_LABELS - 1).any())
    fitted = fit_policy(Task.SINGLE, LABELS, probabilities, np.eye(N_LABELS)[truth])
    ratios = [1.0, 0.7, 0.6, 0.4, 0.3, 0.1, 0.0]  # one in each gap between the values that occur
    mildest = first_as_good(
        [Policy(Task.SINGLE, LABELS, out_of_scope_ratio=ratio) for ratio in ratios], probabilities, truth
    )
    limits = [0.0, 0.125, 0.375, 0.625, 0.875, 1.1]
    expected = first_as_good([replace(mildest, threshold=limit) for limit in limits], probabilities, truth)
    answers = expected.decide_batch(probabilities)
    assert [each.intent for each in fitted.decide_batch(probabilities)] == [each.intent for each in answers]


def test_out_of_scope_examples_that_lie_nearer_to_it_than_others_lower_the_ratio():
    probabilities = np.array([[0.5, 0.3, 0.2]] * 20 + [[0.9, 0.05, 0.05]] * 20, np.float32)
    policy = fit_policy(Task.SINGLE, ("a", "b", "oos"), probabilities, np.eye(3)[[2] * 20 + [0] * 20])
    assert 0.05 / 0.9 < policy.out_of_scope_ratio < 0.2 / 0.5
    assert policy.threshold == 0


def test_out_of_scope_examples_that_are_just_less_certain_move_the_threshold_over_them():
    probabilities = np.array([[0.375, 0.3, 0.125]] * 20 + [[0.75, 0.0, 0.25]] * 20, np.float32)
    policy = fit_policy(Task.SINGLE, ("a", "b", "oos"), probabilities, np.eye(3)[[2] * 20 + [0] * 20])
    assert (policy.out_of_scope_ratio, policy.threshold) == (1.0, pytest.approx(0.5625))


def test_a_query_that_fits_no_label_is_out_of_scope_where_that_is_no_label():
    probabilities = np.array([[0.5, 0.25]] * 20 + [[0.75, 0.25]] * 20, np.float32)
    targets = np.concatenate([np.zeros((20, 2)), np.eye(2)[[0] * 20]])
    policy = fit_policy(Task.SINGLE, ("a", "b"), probabilities, targets)
    assert (policy.out_of_scope_ratio, policy.threshold) == (1.0, pytest.approx(0.625))
    first_intent_holds = np.eye(2)[[0] * 40]
    assert fit_policy(Task.SINGLE, ("a", "b"), probabilities, first_intent_holds).threshold < 0.5


def test_scores_of_one_fit_a_threshold_where_out_of_scope_is_no_label():
    probabilities = np.array([[1.0, 0.0]] * 3 + [[0.6, 0.4]] * 2, np.float32)
    targets = np.concatenate([np.eye(2)[[0] * 3], np.zeros((2, 2))])
    policy = fit_policy(Task.SINGLE, ("a", "b"), probabilities, targets)
    assert policy.out_of_scope_ratio == 1.0
    assert 0.0 <= policy.threshold <= 1.0


def test_rare_out_of_scope_examples_count_for_one_query_in_five():
    probabilities = np.array([[0.375, 0.3, 0.125]] * 12 + [[0.75, 0.0, 0.25]] * 480, np.float32)
    truth = [2] * 10 + [0] * 2 + [0] * 480
    few = fit_policy(Task.SINGLE, ("a", "b", "oos"), probabilities, np.eye(3)[truth])
    assert 0.375 < few.threshold < 0.75


@given(coarse_rows, st.sampled_from([0.125, 0.5, 4.0]), st.data())
def test_only_the_proportion_of_weights_counts(examples, scale, data):
    probabilities, truth = examples
    truth[0] = N_LABELS - 1
    weights = data.draw(hnp.arrays(np.int64, len(truth), elements=st.integers(1, 3))) * 1.0
    targets = np.eye(N_LABELS)[truth]
    fitted = fit_policy(Task.SINGLE, LABELS, probabilities, targets, weights=weights)
    assert fitted == fit_policy(Task.SINGLE, LABELS, probabilities, targets, weights=weights * scale)


def test_without_out_of_scope_targets_at_least_99_percent_of_the_right_answers_are_kept():
    rng = np.random.default_rng(3)
    probabilities = rng.dirichlet(np.ones(N_LABELS), 1000).astype(np.float32)
    truth = np.where(rng.random(1000) < 0.9, probabilities[:, :-1].argmax(1), rng.integers(0, N_LABELS - 1, 1000))
    policy = fit_policy(Task.SINGLE, LABELS, probabilities, np.eye(N_LABELS)[truth])
    answers = policy.decide_batch(probabilities)
    right = [each for each, label in zip(answers, truth, strict=True) if each.top_intent == LABELS[label]]
    right = [each for each in right if each.reason is not Reason.OUT_OF_SCOPE]
    kept = sum(each.reason is Reason.ACCEPTED for each in right) / len(right)
    assert 0.99 <= kept < 0.995
    assert policy.threshold > 0


@pytest.mark.parametrize(("n", "most_declined"), [(20, 0.0), (98, 0.0), (400, 0.013)])
def test_of_right_answers_to_come_one_in_a_hundred_is_declined_at_most_in_the_mean(n, most_declined):
    rng, declined, thresholds = np.random.default_rng(4), [], []
    for _ in range(300):
        best = rng.beta(4, 2, 2 * n)  # of as many held out, and to come
        probabilities = np.stack([best, 1 - best], axis=1).astype(np.float32)
        truth = (probabilities[:, 1] > probabilities[:, 0]).astype(int) ^ (rng.random(2 * n) < 0.1)
        policy = fit_policy(Task.SINGLE, ("a", "b"), probabilities[:n], np.eye(2)[truth[:n]])
        answers = policy.decide_batch(probabilities[n:])
        right = [each for each, label in zip(answers, truth[n:], strict=True) if each.top_intent == "ab"[label]]
        declined.append(sum(each.intent is None for each in right) / len(right))
        thresholds.append(policy.threshold)
    assert np.mean(declined) <= most_declined
    assert any(thresholds) == (n == 400)


def test_with_few_held_out_examples_nothing_is_declined():
    probabilities = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.34, 0.33, 0.33]], np.float32)
    policy = fit_policy(Task.SINGLE, ("a", "b", "c"), probabilities, np.eye(3)[[0, 1, 2]])
    assert [each.intent for each in policy.decide_batch(probabilities)] == ["a", "b", "a"]


@given(
    st.integers(1, 30).flatmap(
        lambda n: st.tuples(
            hnp.arrays(np.float32, n, elements=st.integers(0, 6).map(lambda i: i / 6)),
            hnp.arrays(np.bool_, n),
        )
    )
)
def test_f1_thresholds_are_as_good_as_scikit_learns_best(column):
    scores, positives = column
    if not positives.any():
        positives[0] = True
    precision, recall, _ = precision_recall_curve(positives, scores)
    best = max(2 * p * r / (p + r) if p + r else 0.0 for p, r in zip(precision, recall, strict=True))
    (limit,) = _best_f1_thresholds(scores[:, None], positives[:, None], np.ones((len(scores), 1)))
    accepted = scores >= limit
    f1 = 2 * (accepted & positives).sum() / (accepted.sum() + positives.sum())
    assert f1 == pytest.approx(best)


def test_multi_draws_rare_labels_towards_the_common_threshold():
    rng = np.random.default_rng(0)
    targets = np.zeros((400, 2))
    targets[:200, 0] = 1
    targets[0, 1] = 1
    noise = rng.uniform(-0.05, 0.05, targets.shape)
    probabilities = (np.where(targets > 0, [0.8, 0.98], [0.3, 0.02]) + noise).clip(0, 1).astype(np.float32)
    probabilities[1:4, 1] = 0.9
    often, rare = fit_policy(Task.MULTI, ("often", "rare"), probabilities, targets).thresholds
    own_often, own_rare = _best_f1_thresholds(probabilities, targets > 0, np.ones_like(targets))
    (common,) = _best_f1_thresholds(probabilities.reshape(-1, 1), targets.reshape(-1, 1) > 0, np.ones((800, 1)))
    assert abs(own_rare - common) > 0.1
    assert abs(rare - common) < 0.1 * abs(own_rare - common)
    assert abs(often - own_often) <= 0.05 * abs(own_often - common)


def test_a_label_without_positives_gets_the_common_threshold_and_none_at_all_a_half():
    probabilities = np.tile(np.array([[0.9, 0.2], [0.1, 0.3], [0.8, 0.1]], np.float32), (5, 1))
    targets = np.tile([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]], (5, 1))
    first, second = fit_policy(Task.MULTI, ("a", "b"), probabilities, targets).thresholds
    assert second == pytest.approx((0.3 + 0.8) / 2)
    assert 0.1 < first < 0.8
    assert fit_policy(Task.MULTI, ("a", "b"), probabilities, targets * 0).thresholds == (0.5, 0.5)


def test_a_few_positives_fit_no_multi_threshold():
    probabilities, targets = np.array([[0.9, 0.2]], np.float32), np.array([[1.0, 1.0]])
    assert fit_policy(Task.MULTI, ("a", "b"), probabilities, targets).thresholds == (0.5, 0.5)
    enough = fit_policy(Task.MULTI, ("a", "b"), np.tile(probabilities, (5, 1)), np.tile(targets, (5, 1)))
    assert enough.thresholds == (0.0, 0.0)


def test_out_of_scope_examples_alone_fit_no_limit():
    probabilities = np.tile(np.array([0.9, 0.05, 0.04, 0.01], np.float32), (40, 1))
    policy = fit_policy(Task.SINGLE, LABELS, probabilities, np.eye(N_LABELS)[[3] * 40])
    assert policy == Policy(Task.SINGLE, LABELS)


def test_no_held_out_example_fits_the_most_permissive_single_policy():
    empty = np.zeros((0, N_LABELS), np.float32)
    assert fit_policy(Task.SINGLE, LABELS, empty, empty).threshold == 0.0


@pytest.mark.parametrize(
    ("probabilities", "targets", "weights"),
    [((3, 4), (2, 4), None), ((3, 2), (3, 2), None), ((3, 4), (3, 4), (2,))],
)
def test_shapes_that_do_not_fit_are_refused(probabilities, targets, weights):
    with pytest.raises(ValueError, match="do not fit"):
        fit_policy(
            Task.SINGLE,
            LABELS,
            np.zeros(probabilities, np.float32),
            np.zeros(targets),
            None if weights is None else np.ones(weights),
        )


def weighed(**weights: float) -> Prediction:
    return Prediction(None, 0.5, Reason.ACCEPTED, max(weights, key=weights.__getitem__), weights=weights)


def accepted(*intents: str) -> Prediction:
    return Prediction(next(iter(intents), None), 0.5, Reason.ACCEPTED, "refund", intents=intents)


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        (accepted("refund"), accepted("refund"), False),
        (accepted("refund", "order"), accepted("order", "refund"), False),
        (accepted("refund"), accepted(), True),
        (weighed(visual=0.7, audio=0.3), weighed(visual=0.65, audio=0.35), False),
        (weighed(visual=0.7, audio=0.3), weighed(visual=0.59, audio=0.41), True),
        (weighed(visual=0.51, audio=0.49), weighed(visual=0.49, audio=0.51), True),
        (weighed(visual=0.7, audio=0.3), weighed(visual=0.7, audio=0.2, text=0.1), True),
    ],
)
def test_which_answers_decide_differently(one, other, differ):
    assert decide_differently(one, other) is differ
    assert decide_differently(other, one) is differ
