"""Finding wrong labels: against the definition, on planted errors, and what asking again leaves in the ledger."""

from __future__ import annotations

import json
import random
import sys
from dataclasses import asdict
from decimal import Decimal
from itertools import combinations

import numpy as np
import onnx
import project
import pytest
from bundles import KEYWORDS, make_graph, make_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from project import SHOP, make_texts, write_lines, write_project
from threadpoolctl import threadpool_limits

from distill import audit as module
from distill import embed, pipeline
from distill.audit import audit, confident_joint, find_label_errors, plan_relabel, relabel
from distill.data import read_jsonl, read_labels
from distill.errors import DataError, SpecError
from distill.spec import load_spec
from distill.teacher.label import label
from distill.teacher.relabel import votes_of

LABELS = (*SHOP, "oos")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A sentence encoder that knows the shop's words."""
    folder = tmp_path_factory.mktemp("embedder")
    tokenizer = make_tokenizer(special_tokens=False)
    tokenizer.save(str(folder / embed.TOKENIZER))
    onnx.save(make_graph(tokenizer, list(KEYWORDS)), folder / embed.GRAPH)
    return embed.Embedder(folder, threads=1)


@pytest.fixture(autouse=True)
def quick(monkeypatch, encoder):
    """No export; imports of a project folder end with the test."""
    monkeypatch.setattr("distill.student.embedder.embedder_of", lambda *_, **__: encoder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    project.ASKED.clear()


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads of small products would wait for each other's processors."""
    with threadpool_limits(1):
        yield


WRONG = 6


def wrong_for(name):
    return LABELS[(LABELS.index(name) + 1) % len(LABELS)]


def answers_with_errors(spec_path, n=WRONG):
    """Answers already paid for, the first ``n`` of every tenth text wrong; which are wrong, with the right label."""
    texts = [line["text"] for _, line in read_jsonl(spec_path.parent / "logs.jsonl")]
    right = {text: project.answer(text) for text in texts}
    project.ASKED.clear()
    wrong = dict([(text, right[text]) for text in texts[::10]][:n])
    lines = [{"text": text, "intent": wrong_for(name) if text in wrong else name} for text, name in right.items()]
    path = spec_path.parent / "answers.jsonl"
    write_lines(path, lines)
    return path, wrong


@pytest.fixture
def noisy(tmp_path):
    """A project whose ledger has wrong labels; its spec, and the right label of each of these."""
    spec_path = write_project(tmp_path / "project", n=16)
    spec = load_spec(spec_path)
    path, wrong = answers_with_errors(spec_path)
    pipeline.import_answers(spec, path)
    return spec, wrong


# --- finding ---------------------------------------------------------------------------------------------------------


def joint_by_definition(probabilities, given_labels):
    """Confident learning, equations 1 to 3 (Northcutt et al., 2021), word by word, but that none counts for a label that is given once."""
    n, n_labels = probabilities.shape
    counts = [sum(label == j for label in given_labels) for j in range(n_labels)]
    thresholds = [
        np.mean([probabilities[x, j] for x in range(n) if given_labels[x] == j]) if counts[j] > 1 else np.inf
        for j in range(n_labels)
    ]
    joint = np.zeros((n_labels, n_labels))
    for x in range(n):
        passing = [j for j in range(n_labels) if probabilities[x, j] >= thresholds[j]]
        if passing:
            joint[given_labels[x], max(passing, key=lambda j: probabilities[x, j])] += 1
    for i in range(n_labels):
        if not joint[i].any():
            joint[i, i] = 1
        joint[i] *= counts[i] / joint[i].sum()
    return joint


@given(n=st.integers(1, 40), n_labels=st.integers(2, 5), seed=st.integers(0, 50))
def test_the_confident_joint_is_that_of_its_definition(n, n_labels, seed):
    chance = np.random.default_rng(seed)
    probabilities = chance.dirichlet(np.full(n_labels, 0.5), n)
    labels = chance.integers(n_labels, size=n)
    joint = confident_joint(probabilities, labels)
    np.testing.assert_allclose(joint, joint_by_definition(probabilities, labels))
    assert joint.sum() == pytest.approx(n)


def blobs(n=60, n_labels=4, dimension=8, seed=0):
    """Unit vectors around a centre for each label."""
    chance = np.random.default_rng(seed)
    labels = np.arange(n) % n_labels
    centres = np.eye(dimension)[:n_labels]
    vectors = (centres[labels] + chance.normal(scale=0.15, size=(n, dimension))).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), labels


@pytest.mark.parametrize("seed", range(3))
def test_planted_errors_are_found_and_nothing_else(seed):
    vectors, labels = blobs(seed=seed)
    wrong = np.random.default_rng(seed).permutation(len(labels))[:6]
    labels[wrong] = (labels[wrong] + 1) % 4
    found = find_label_errors(vectors, labels, 4, seed=seed)
    assert set(np.flatnonzero(found.is_suspect)) == set(wrong.tolist())
    np.testing.assert_array_equal(found.suggested[wrong], (labels[wrong] - 1) % 4)
    assert round(found.estimated_wrong) == 6
    assert (found.margin[wrong] < 0).all()


def test_a_label_has_no_part_in_what_is_said_of_its_own_query():
    """Labels drawn by chance, in so many dimensions that each query could be learnt by heart."""
    chance = np.random.default_rng(0)
    vectors = chance.normal(size=(80, 300)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = find_label_errors(vectors, chance.permutation(np.arange(80) % 4), 4)
    assert found.self_confidence.mean() < 0.3
    assert found.neighbours.mean() < 0.3


def test_where_nothing_is_wrong_nothing_is_suspected():
    vectors, labels = blobs()
    assert not find_label_errors(vectors, labels, 4).is_suspect.any()


def test_no_more_are_listed_than_the_joint_says_are_wrong():
    """Where labels overlap another one is often likelier without the label being wrong."""
    chance = np.random.default_rng(0)
    labels = np.arange(120) % 3
    vectors = (np.eye(6)[labels] + chance.normal(scale=0.7, size=(120, 6))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for agreement in (None, np.ones(120)):
        found = find_label_errors(vectors, labels, 3, agreement=agreement)
        assert 0 < found.is_suspect.sum() <= found.estimated_wrong + 3  # each of six pairs is rounded
        assert found.is_suspect.sum() < (found.margin < 0).sum()


def test_a_label_that_stands_once_is_not_judged():
    vectors, labels = blobs()
    labels[0] = 4
    found = find_label_errors(vectors, labels, 5)
    assert np.flatnonzero(~found.is_judged).tolist() == [0]
    assert not found.is_suspect.any()


def test_samples_that_disagree_count_where_the_other_queries_do_not_speak_for_the_label():
    vectors, labels = blobs()
    labels[0] = (labels[0] + 1) % 4
    agreement = np.ones(len(labels))
    agreement[:2] = 0.5
    between = 1.2 * vectors[1] + vectors[2]
    vectors[1] = between / np.linalg.norm(between)
    found = find_label_errors(vectors, labels, 4, agreement=agreement)
    assert set(np.flatnonzero(found.is_suspect)) == {0, 1}
    assert not find_label_errors(vectors, labels, 4).is_suspect[1]


def test_the_same_seed_gives_the_same_list():
    vectors, labels = blobs()
    labels[:9] = (labels[:9] + 1) % 4
    first, second = (find_label_errors(vectors, labels, 4, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.margin, second.margin)


# --- a project's labels ----------------------------------------------------------------------------------------------


def test_the_wrong_labels_of_a_project_are_listed_worst_first_and_gold_never(noisy):
    spec, wrong = noisy
    found = audit(spec, show_progress=False)
    assert {suspect.text: suspect.suggested for suspect in found.suspects} == wrong
    assert all(suspect.label == wrong_for(wrong[suspect.text]) for suspect in found.suspects)
    margins = [suspect.margin for suspect in found.suspects]
    assert margins == sorted(margins)
    assert found.n_labels == 64
    assert found.estimated_wrong == WRONG
    assert sum(intent.n for intent in found.intents) == 64
    assert sum(intent.n_suspected for intent in found.intents) == WRONG
    assert [intent.n_suspected for intent in found.intents] == sorted(
        (intent.n_suspected for intent in found.intents), reverse=True
    )
    assert project.ASKED == []


def test_gold_among_the_queries_is_neither_listed_nor_evidence(noisy):
    spec, _ = noisy
    gold = [line["text"] for _, line in read_jsonl(spec.gold_path)]
    logs = spec.queries_path
    write_lines(logs, [*(line for _, line in read_jsonl(logs)), *({"text": text.upper()} for text in gold)])
    path = spec.folder / "more.jsonl"
    write_lines(path, [{"text": text.upper(), "intent": "refund"} for text in gold])
    pipeline.import_answers(spec, path)
    found = audit(spec, show_progress=False)
    shown = {suspect.text for suspect in found.suspects} | {text for s in found.suspects for text, _ in s.evidence}
    assert found.n_labels == 64
    assert not {text.lower() for text in shown} & {text.lower() for text in gold}


def test_evidence_is_near_is_not_suspected_and_holds_the_specs_own_examples(noisy, monkeypatch):
    spec, wrong = noisy
    monkeypatch.setattr(module, "_EVIDENCE", 40)
    raw = spec.path.read_text("utf-8").replace('"about refund"', '{"description": "money", "examples": ["money back"]}')
    spec.path.write_text(raw, encoding="utf-8")
    spec = load_spec(spec.path)
    pipeline.import_answers(spec, spec.folder / "answers.jsonl")
    found = audit(spec, show_progress=False)
    known = {text: name for suspect in found.suspects for text, name in suspect.evidence}
    assert not known.keys() & wrong.keys()
    assert known.get("money back") == "refund"
    assert all(project.answer(text) == name for text, name in known.items())
    nearest = [suspect.evidence[0] for suspect in found.suspects]
    assert {name for _, name in nearest} == {*wrong.values()}


def test_labels_that_are_all_the_same_cannot_be_audited_and_no_encoder_is_loaded_to_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr("distill.student.embedder.embedder_of", lambda *_, **__: pytest.fail("the encoder was loaded"))
    spec = load_spec(write_project(tmp_path))
    path = tmp_path / "same.jsonl"
    write_lines(path, [{"text": line["text"], "intent": "refund"} for _, line in read_jsonl(spec.queries_path)])
    pipeline.import_answers(spec, path)
    with pytest.raises(DataError, match="all labels are the same"):
        audit(spec)


# --- several intents, and weights ------------------------------------------------------------------------------------


SEVERAL = """\
from bundles import KEYWORDS
import project

def intents(text):
    project.ASKED.append(text)
    return [name for name, own in KEYWORDS.items() if name != "oos" and set(own) & set(text.split())]

def weights(text):
    return dict.fromkeys(intents(text) or ["refund"], 1.0)
"""
FIELDS = {"multi": "intents", "weights": "weights"}


def write_several(folder, task, more=""):
    """A project of another task, each of its queries with words of one intent or of two; what its teacher says of each."""
    field = FIELDS[task]
    chance = random.Random(0)  # noqa: S311
    texts = []
    for names in [*combinations(SHOP, 1), *combinations(SHOP, 2)] * 16:
        words = [
            *chance.sample(project.FILLERS, 3),
            *(word for name in names for word in chance.sample(KEYWORDS[name], 2)),
        ]
        chance.shuffle(words)
        texts.append(" ".join(words))
    texts = list(dict.fromkeys(texts))
    folder.mkdir(parents=True)
    (folder / "names_by_word.py").write_text(SEVERAL, encoding="utf-8")
    write_lines(folder / "logs.jsonl", [{"text": text} for text in texts])
    described = {
        name: {"description": f"about {name}", "examples": ["money now"] * (name == "refund")} for name in SHOP
    }
    (folder / "router.yaml").write_text(
        f"name: tiny\ntask: {task}\nintents: {json.dumps(described)}\nqueries: logs.jsonl\n"
        f"teacher: {{callable: 'names_by_word:{field}'}}\n{more}",
        encoding="utf-8",
    )
    named = {text: [name for name in SHOP if set(KEYWORDS[name]) & set(text.split())] for text in texts}
    return folder / "router.yaml", named


@pytest.fixture(params=FIELDS)
def several(request, tmp_path):
    """A project of the task whose ledger has wrong labels: its spec, the right names by text, and the texts with wrong ones."""
    path, named = write_several(tmp_path / "project", request.param)
    spec = load_spec(path)
    wrong = [text for text, names in named.items() if len(names) == 1][::8][:WRONG]
    given_names = {
        text: [SHOP[(SHOP.index(names[0]) + 1) % len(SHOP)]] if text in wrong else names
        for text, names in named.items()
    }
    field = FIELDS[request.param]
    said = {text: names if field == "intents" else dict.fromkeys(names, 1) for text, names in given_names.items()}
    write_lines(path.parent / "answers.jsonl", [{"text": text, field: answer} for text, answer in said.items()])
    pipeline.import_answers(spec, path.parent / "answers.jsonl")
    return spec, named, wrong


def strongest(answer):
    """What a label says above all, in words."""
    return [name for name, share in answer.items() if share >= 0.5] if isinstance(answer, dict) else answer


def test_wrong_labels_of_other_tasks_are_listed_first(several, monkeypatch):
    spec, named, wrong = several
    monkeypatch.setattr(module, "_EVIDENCE", 60)
    found = audit(spec, show_progress=False)
    first = found.suspects[: len(wrong)]
    assert len(first) == len(wrong)
    assert np.mean([suspect.text in wrong for suspect in first]) >= 0.8
    assert np.mean([strongest(each.suggested) == named[each.text] for each in first if each.text in wrong]) >= 0.8
    assert found.n_labels == len(named)
    assert found.estimated_wrong is None
    assert sum(intent.n_suspected for intent in found.intents) == len(found.suspects)
    assert all(suspect.listed_under in SHOP for suspect in found.suspects)
    shown = {text for suspect in found.suspects for text, _ in suspect.evidence}
    assert "money now" in shown  # an example of the spec's own
    assert not shown & {suspect.text for suspect in found.suspects}
    assert project.ASKED == []
    assert json.loads(json.dumps(asdict(found)))["suspects"][0]["suggested"]


def test_of_several_intents_it_is_said_which_are_missing_and_which_superfluous(tmp_path):
    path, named = write_several(tmp_path / "project", "multi")
    spec = load_spec(path)
    lacks, has = (next(text for text, names in named.items() if len(names) == n) for n in (2, 1))
    other = next(name for name in SHOP if name not in named[has])
    labels = named | {lacks: named[lacks][:1], has: [*named[has], other]}
    write_lines(path.parent / "answers.jsonl", [{"text": text, "intents": names} for text, names in labels.items()])
    pipeline.import_answers(spec, path.parent / "answers.jsonl")
    found = {suspect.text: suspect for suspect in audit(spec, show_progress=False).suspects}
    assert (found[lacks].missing, found[lacks].superfluous) == (tuple(named[lacks][1:]), ())
    assert (found[has].missing, found[has].superfluous) == ((), (other,))
    assert found[has].listed_under == other


def test_labels_of_other_tasks_that_are_all_the_same_cannot_be_audited(several):
    spec, named, _ = several
    field = FIELDS[spec.task]
    write_lines(
        spec.folder / "same.jsonl",
        [{"text": text, field: ["refund"] if field == "intents" else {"refund": 1}} for text in named],
    )
    pipeline.import_answers(spec, spec.folder / "same.jsonl")
    with pytest.raises(DataError, match="all labels are the same"):
        audit(spec, show_progress=False)


def test_asking_again_mends_the_labels_of_other_tasks(several):
    spec, named, wrong = several
    found = audit(spec, show_progress=False)
    planted = [suspect.text for suspect in found.suspects if suspect.text in wrong]
    summary = relabel(spec, found, samples=3, show_progress=False)
    assert (summary.n_asked, summary.n_failed, summary.n_left) == (3 * len(found.suspects), 0, 0)
    assert summary.n_changed == len(planted) >= WRONG - 1
    assert set(project.ASKED) == {suspect.text for suspect in found.suspects}
    targets = {each.text: each.target for each in pipeline.examples(spec, show_notes=False)}
    for text in planted:
        right = np.asarray([name in named[text] for name in spec.labels])
        assert targets[text][right] == pytest.approx(0.75)  # three of four answers
        assert targets[text][~right].max() == pytest.approx(0.25)
    again = audit(spec, show_progress=False)
    assert not {suspect.text for suspect in again.suspects} & set(planted)
    assert relabel(spec, found, samples=3, show_progress=False).n_asked == 0


def test_the_samples_of_weights_are_compared_with_their_mean(tmp_path):
    path, named = write_several(tmp_path / "project", "weights")
    path.write_text(
        path.read_text("utf-8").replace("names_by_word:weights'", "names_by_word:weights', samples: 2"),
        encoding="utf-8",
    )
    spec = load_spec(path)
    torn = next(text for text, names in named.items() if names == ["refund"])
    lines = [
        {"text": text, "weights": dict.fromkeys(names, 1), "sample": n} for text, names in named.items() for n in (0, 1)
    ]
    for line in lines:
        if line["text"] == torn and line["sample"]:
            line["weights"] = {"track_order": 1}
    write_lines(path.parent / "answers.jsonl", lines)
    pipeline.import_answers(spec, path.parent / "answers.jsonl")
    found = {suspect.text: suspect for suspect in audit(spec, show_progress=False).suspects}
    assert found[torn].agreement == 0.5
    assert found[torn].label == {"track_order": 0.5, "cancel_order": 0.0, "refund": 0.5}


# --- asking again ----------------------------------------------------------------------------------------------------


def targets(spec):
    return {each.text: spec.labels[int(each.target.argmax())] for each in pipeline.examples(spec, show_notes=False)}


def test_asking_again_mends_the_labels_and_keeps_every_answer(noisy):
    spec, wrong = noisy
    before = spec.ledger_path.read_bytes()
    summary = relabel(spec, audit(spec, show_progress=False), samples=3, show_progress=False)
    assert (summary.n_cases, summary.n_asked, summary.n_changed, summary.n_confirmed) == (WRONG, 3 * WRONG, WRONG, 0)
    assert (summary.n_failed, summary.n_left, summary.limit_reached) == (0, 0, False)
    assert spec.ledger_path.read_bytes().startswith(before)
    mended = targets(spec)
    assert {text: mended[text] for text in wrong} == wrong
    text = next(iter(wrong))
    example = next(each for each in pipeline.examples(spec, show_notes=False) if each.text == text)
    assert example.target.max() == pytest.approx(0.75)  # three of four answers
    lines = [line for line in read_labels(spec.ledger_path) if line.text == text]
    assert [line.sample for line in lines] == [0, 0, 1, 2, 0]
    assert [line.extra["settings"].get("stage") for line in lines[1:4]] == ["relabel"] * 3
    assert lines[-1].key == lines[0].key
    assert lines[-1].extra["carried_from"]["answers"] == [line.key for line in lines[:4]]


def test_asking_again_twice_asks_nothing_and_changes_nothing(noisy):
    spec, wrong = noisy
    found = audit(spec, show_progress=False)
    relabel(spec, found, samples=3, show_progress=False)
    project.ASKED.clear()
    before = spec.ledger_path.read_bytes()
    summary = relabel(spec, found, samples=3, show_progress=False)
    assert (summary.n_asked, summary.n_changed, project.ASKED) == (0, WRONG, [])
    assert spec.ledger_path.read_bytes() == before
    assert plan_relabel(spec, found, samples=3).n_missing == 0
    assert plan_relabel(spec, found, samples=5).n_missing == 2 * WRONG
    again = audit(spec, show_progress=False)
    assert not {suspect.text for suspect in again.suspects} & wrong.keys()


def test_a_label_that_is_confirmed_stays_and_is_marked(noisy):
    """The teacher itself errs on one query: the list goes on naming it, with what was said."""
    spec, wrong = noisy
    text = next(iter(wrong))
    stubborn = spec.model_copy(update={"teacher": spec.teacher.model_copy(update={"callable": "stubborn:answer"})})
    (spec.folder / "stubborn.py").write_text(
        f"import project\ndef answer(text):\n    return {wrong_for(wrong[text])!r} if text == {text!r} else project.answer(text)\n",
        encoding="utf-8",
    )
    pipeline.import_answers(stubborn, spec.folder / "answers.jsonl")
    summary = relabel(stubborn, audit(stubborn, show_progress=False), samples=2, show_progress=False)
    assert (summary.n_confirmed, summary.n_changed) == (1, WRONG - 1)
    (suspect,) = audit(stubborn, show_progress=False).suspects
    assert (suspect.text, suspect.asked_again) == (text, {wrong_for(wrong[text]): 2})


def test_what_was_said_of_an_intent_that_is_no_more_is_no_vote(noisy):
    spec, wrong = noisy
    relabel(spec, audit(spec, show_progress=False), samples=2, show_progress=False)
    assert set(votes_of(spec, wrong).keys()) == set(wrong)
    gone = wrong[next(iter(wrong))]
    path = spec.folder / "fewer.yaml"
    path.write_text(spec.path.read_text("utf-8").replace(f'"{gone}"', '"another"'), encoding="utf-8")
    fewer = load_spec(path)
    assert votes_of(fewer, wrong).keys() == {text for text, name in wrong.items() if name != gone}


def test_the_limit_asks_the_worst_ones(noisy):
    spec, _ = noisy
    found = audit(spec, show_progress=False)
    relabel(spec, found, samples=1, limit=2, show_progress=False)
    assert [suspect.text for suspect in found.suspects[:2]] == project.ASKED


def test_failed_answers_are_asked_again_and_decide_nothing(noisy, monkeypatch):
    spec, _ = noisy
    found = audit(spec, show_progress=False)

    def broken(_):
        raise RuntimeError("out of order")

    before = targets(spec)
    monkeypatch.setattr(project, "answer", broken)
    summary = relabel(spec, found, samples=1, show_progress=False)
    assert (summary.n_failed, summary.n_changed, summary.n_left) == (WRONG, 0, WRONG)
    assert targets(spec) == before
    assert plan_relabel(spec, found, samples=1).n_missing == WRONG


def test_peoples_labels_are_not_asked_again(tmp_path):
    spec_path = write_project(tmp_path, n=16, teacher="{labels: answers.jsonl}")
    answers_with_errors(spec_path)
    spec = load_spec(spec_path)
    label(spec, show_progress=False)
    found = audit(spec, show_progress=False)
    assert len(found.suspects) == WRONG
    with pytest.raises(SpecError, match=r"labels are people's .*answers\.jsonl.*by hand"):
        relabel(spec, found, samples=3, max_usd=Decimal(1))


def test_what_an_audit_holds_is_json(noisy):
    value = json.loads(json.dumps(asdict(audit(noisy[0], show_progress=False))))
    assert value["suspects"][0]["evidence"]


def test_texts_of_a_project_are_distinct():
    """What the tests above rest on."""
    assert len({text for text, _ in make_texts(SHOP, 20)}) == 80
    assert module.__doc__
