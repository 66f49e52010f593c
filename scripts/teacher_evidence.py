"""What the teacher stage is worth, with a real model: teachers and students side by side on human labels.

python scripts/teacher_evidence.py data/teacher-evidence/banking [DATA] [--base-url URL] [--until CONDITION] [--again]

The first folder holds intents.json, names and descriptions written by hand. DATA is a folder with train.jsonl and test.jsonl of which the
queries of just these intents are drawn: five an intent as known examples, 1,000 as texts without labels, and all of test as gold; without
it those that lie in the folder are taken. Each condition is a spec in a folder of its own, run through the public stages. Students learn
from 1,000 queries each. What the model answered is recorded in the folder, so that a run which was killed goes on, and one with the
recordings asks nothing. Which queries each was right on goes to results.json there. What stands there is measured once more with --again
alone: the teachers, and the students that another recipe than the present one trained. scripts/readme.py makes the table of all folders in
results/teacher.md from these; students of different recipes are not compared there.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from provenance import ROOT, tree_commit

from distill import pipeline
from distill.benchmark.display import share
from distill.benchmark.statistics import compare_paired, wilson_interval
from distill.data import leaked, read_gold, read_jsonl, write_json, write_jsonl
from distill.errors import DataError, DistillError, TeacherError
from distill.improve import improve
from distill.progress import Progress, say
from distill.router import Router
from distill.spec import Spec, load_spec
from distill.student.recipe import VERSION
from distill.teacher.endpoint import api_key
from distill.teacher.ledger import AppendLog
from distill.teacher.rounds import round_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openai import OpenAI

    from distill.types import Intent

FOLDERS = ROOT / "data" / "teacher-evidence"
PAGE = ROOT / "results" / "teacher.md"
QUERIES = 1000
KNOWN_PER_INTENT = 5
TEACHER_GOLD = 400
DRAWN = ("known.jsonl", "gold.jsonl", "texts.jsonl", "texts-by-people.jsonl", "teacher-gold.jsonl", "names.json")
ROUNDS = 2
BUDGET_MINUTES = 2.813
"""Of every student here; the number is 2 minutes, as training was reckoned when the specs were written."""
BUNDLES = ROOT / "models"
NAIVE_PER_REQUEST = 20
NAIVE_IN_VAIN = 10
NAIVE_PROMPT = """Write {n} different queries that users of an assistant would send with the intent "{name}".
{description}
For example:
{examples}
Answer with one query a line and nothing else."""

TEACHERS = {
    "names": "the teacher, bare names",
    "descriptions": "the teacher, descriptions",
    "examples": "the teacher, descriptions and {examples}",
}
TOGETHER = "the same, its word and the known examples combined, as students learn it"
STUDENTS = {
    "known": "the known examples alone, no model",
    "naive": "naive: one prompt an intent, the label aimed at",
    "ours": "ours: `synth` and `label`",
    "improved": f"ours after `improve`, {ROUNDS} rounds at most",
    "real": "real texts without labels, `label`",
    "human": "the same texts, labels by people",
}

AIMS = {
    "ours": (("naive", 0.03), ("teacher", -0.015)),
    "real": (("teacher", 0.0),),
}
"""By how much a student of these queries is to be above naive queries, or above the teacher with known examples."""

ROUND_FIGURES = ("n_written", "n_added", "n_calls", "gain", "gain_ci95", "kept")

Line = dict[str, Any]


def prepare(folder: Path, data: Path | None, model: str) -> None:
    """Draws the queries, or takes those that were drawn, and writes every spec; the same files each time."""
    names = json.loads((folder / "intents.json").read_text())
    if data is not None:
        _draw(folder, data, names)
    elif missing := [name for name in DRAWN if not (folder / name).exists()]:
        raise DataError(f"{folder}: {', '.join(missing)} not there; give DATA, a folder to draw the queries from")
    for condition, own in _conditions(len(names), model).items():
        _write_spec(folder / condition / "router.yaml", f"{folder.name}-{condition}", own)


def _draw(folder: Path, data: Path, names: dict[str, str]) -> None:
    train = _of_intents(data / "train.jsonl", names)
    gold = _of_intents(data / "test.jsonl", names)
    missing = sorted(set(names) - {line["intent"] for line in train})
    if missing:
        raise DataError(f"{data}/train.jsonl: no query of {', '.join(missing)}, which {folder}/intents.json names")
    chance = np.random.default_rng(0)
    shuffled = [train[position] for position in chance.permutation(len(train))]
    by_intent: dict[str, list[Line]] = defaultdict(list)
    for line in shuffled:
        by_intent[line["intent"]].append(line)
    known = [line for name in names for line in by_intent[name][:KNOWN_PER_INTENT]]
    taken = {line["text"] for line in known}
    texts = [line for line in shuffled if line["text"] not in taken][:QUERIES]
    write_jsonl(folder / "known.jsonl", known)
    write_jsonl(folder / "gold.jsonl", gold)
    write_jsonl(folder / "texts.jsonl", [{"text": line["text"]} for line in texts])
    write_jsonl(folder / "texts-by-people.jsonl", texts)
    write_jsonl(folder / "teacher-gold.jsonl", [{"text": line["text"]} for line in _stratified(gold, TEACHER_GOLD)])
    write_json(folder / "names.json", dict.fromkeys(names, ""))


def _of_intents(path: Path, names: dict[str, str]) -> list[Line]:
    lines = [line for _, line in read_jsonl(path)]
    return [{"text": line["text"], "intent": line["intent"]} for line in lines if line.get("intent") in names]


def _stratified(lines: list[Line], n: int) -> list[Line]:
    """As many of each intent as can be, in turns."""
    by_intent: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_intent[line["intent"]].append(line)
    longest = max(map(len, by_intent.values()))
    turns = [own[turn] for turn in range(longest) for own in by_intent.values() if turn < len(own)]
    return turns[:n]


def _conditions(n_intents: int, model: str) -> dict[str, Line]:
    asked = {"model": model, "logprobs": True}
    shown = {**asked, "evidence": "../known.jsonl"}
    to_label = {"queries": "../teacher-gold.jsonl"}
    written = {"synth": {"per_intent": -(-QUERIES // n_intents)}}
    return {
        "names": {"intents": "../names.json", "teacher": asked, **to_label},
        "descriptions": {"teacher": asked, **to_label},
        "examples": {"teacher": shown, **to_label},
        "known": {"teacher": {"labels": "../known.jsonl"}},
        "naive": {"teacher": {"labels": "written.jsonl"}},
        "ours": {"teacher": shown, **written},
        "improved": {"teacher": shown, **written},
        "real": {"teacher": shown, "queries": "../texts.jsonl"},
        "human": {"teacher": {"labels": "../texts-by-people.jsonl"}},
    }


def _write_spec(path: Path, name: str, own: Line) -> None:
    path.parent.mkdir(exist_ok=True)
    whole = {"name": name, "intents": "../intents.json", **own, "budget_minutes": BUDGET_MINUTES}
    path.write_text(yaml.safe_dump(whole, sort_keys=False))


def write_naively(folder: Path, spec: Spec) -> None:
    """Has the model write queries by one prompt an intent, until there are enough or so many requests in a row bring none.

    An intent that is through is written down, so that a run which was killed asks for the others alone.

    Raises:
        TeacherError: A request failed.
    """
    target, through = folder / "naive" / "written.jsonl", folder / "naive" / "written.partial.jsonl"
    if target.exists():
        return
    from openai import OpenAI, OpenAIError

    examples: dict[str, list[str]] = defaultdict(list)
    for _, line in read_jsonl(folder / "known.jsonl"):
        examples[line["intent"]].append(line["text"])
    wanted = -(-QUERIES // len(spec.intent_list))
    own = (
        {line["intent"]: line["queries"] for _, line in read_jsonl(through, skip_torn=True)} if through.exists() else {}
    )

    left = [intent for intent in spec.intent_list if intent.name not in own]
    try:
        with (
            Progress("naive", len(left) * wanted) as progress,
            OpenAI(base_url=spec.teacher.base_url, api_key=api_key(spec.teacher)) as client,
            AppendLog(through) as log,
            ThreadPoolExecutor(4) as pool,
        ):
            tasks = {
                pool.submit(_written, client, spec, intent, examples[intent.name], wanted, progress): intent.name
                for intent in left
            }
            for done in as_completed(tasks):
                if done.exception() is None:
                    own[tasks[done]] = done.result()
                    log.append({"intent": tasks[done], "queries": done.result()})
            for each in tasks:
                each.result()
    except OpenAIError as error:
        raise TeacherError(
            f"naive: a request failed ({type(error).__name__}); what was written is kept, run it again"
        ) from None
    lines = [{"text": text, "intent": intent.name} for intent in spec.intent_list for text in own[intent.name]]
    write_jsonl(target, list({line["text"].casefold(): line for line in lines}.values()))
    through.unlink(missing_ok=True)


def _written(
    client: OpenAI, spec: Spec, intent: Intent, examples: Sequence[str], wanted: int, progress: Progress
) -> list[str]:
    """Queries with one intent, as many as are wanted or as come."""
    prompt = NAIVE_PROMPT.format(
        n=NAIVE_PER_REQUEST, name=intent.name, description=intent.description, examples="\n".join(examples)
    )
    found: dict[str, str] = {}
    in_vain = 0
    while len(found) < wanted and in_vain < NAIVE_IN_VAIN:
        answer = client.chat.completions.create(
            model=str(spec.teacher.model),
            messages=[{"role": "user", "content": prompt}],
            temperature=1.0,
            max_tokens=600,
        )
        before = len(found)
        for text in (answer.choices[0].message.content or "").splitlines():
            plain = re.sub(r"^\s*(\d+[.):]|[-*•])\s*", "", text).strip().strip("\"'")
            if plain:
                found.setdefault(plain.casefold(), plain)
        in_vain = in_vain + 1 if len(found) == before else 0
        progress.advance(min(len(found), wanted) - min(before, wanted))
    return list(found.values())[:wanted]


def teacher_outcomes(folder: Path, condition: str, spec: Spec) -> dict[str, Any]:
    """On which of the gold queries a teacher is right; with known examples also what the two say together."""
    truth = {line["text"]: line["intent"] for _, line in read_jsonl(folder / "gold.jsonl")}
    ways = {condition: False, **({"together": True} if spec.evidence_path else {})}
    found = {}
    texts = [line["text"] for _, line in read_jsonl(folder / "teacher-gold.jsonl")]
    for name, with_evidence in ways.items():
        said = {
            example.text: spec.labels[int(example.target.argmax())]
            for example in pipeline.examples(spec, with_evidence=with_evidence, show_notes=False)
        }
        found[name] = _outcome([said.get(text) == truth[text] for text in texts])
    return found


def student_outcomes(folder: Path, spec: Spec) -> dict[str, Any]:
    """On which gold queries each student is right, taking the likeliest intent."""
    gold = [line for _, line in read_jsonl(folder / "gold.jsonl")]
    found = {}
    for student, bundle in pipeline.train(spec, out=BUNDLES / spec.name).items():
        router = Router.load(bundle.path)
        best = router.predict_proba([line["text"] for line in gold]).argmax(axis=1)
        found[student] = _outcome([spec.labels[at] == line["intent"] for at, line in zip(best, gold, strict=True)])
    texts = [example.text for example in pipeline.examples(spec, show_notes=False)]
    also_gold = leaked(texts, read_gold(folder / "gold.jsonl"))
    return {"n_queries": len(texts), "n_also_gold": len(also_gold), "students": found}


def _outcome(right: list[bool]) -> Line:
    return {"accuracy": round(float(np.mean(right)), 4), "right": "".join("01"[each] for each in right)}


def run(
    folder: Path, data: Path | None, base_url: str | None, model: str, until: str | None = None, *, again: bool = False
) -> None:
    """Runs every condition that has no result yet; ``again`` also the teachers, and students of another recipe; none after ``until``."""
    prepare(folder, data, model)
    path = folder / "results.json"
    results: Line = json.loads(path.read_text()) if path.exists() else {"teachers": {}, "students": {}}

    def spec_of(condition: str) -> Spec:
        return load_spec(folder / condition / "router.yaml", base_url=base_url)

    for condition in [*TEACHERS, *STUDENTS]:
        trained = results["students"].get(condition)
        if (again and (condition in TEACHERS or trained is None or trained["recipe"] != VERSION)) or (
            condition not in results["teachers"] and trained is None
        ):
            say(f"{folder.name}: {condition}")
            spec = spec_of(condition)
            _ask(folder, condition, spec, spec_of("ours"))
            if condition in TEACHERS:
                results["teachers"] |= teacher_outcomes(folder, condition, spec)
            else:
                results["students"][condition] = _trained(folder, condition, spec)
            results |= {"model": model, "commit": tree_commit(), "date": datetime.now(UTC).date().isoformat()}
            write_json(path, results)
        if condition == until:
            return


def _ask(folder: Path, condition: str, spec: Spec, writer: Spec) -> None:
    """What a condition needs from the model, as far as it isn't recorded."""
    if condition == "improved":
        for name in ("ledger.jsonl", "queries.jsonl", "synth.jsonl"):
            if not (folder / condition / name).exists():
                shutil.copy2(folder / "ours" / name, folder / condition / name)
    if condition == "naive":
        write_naively(folder, writer)
    if spec.writes_queries and not spec.queries_path.exists():
        pipeline.synth(spec)
    pipeline.label(spec)


def _trained(folder: Path, condition: str, spec: Spec) -> Line:
    rounds = []
    if condition == "improved":
        pipeline.train(spec, out=BUNDLES / spec.name)
        rounds = rounds_of(folder)
        if len(rounds) < ROUNDS and all(each["kept"] for each in rounds):
            improve(spec, out=BUNDLES / spec.name, rounds=ROUNDS - len(rounds))
            rounds = rounds_of(folder)
    return {"recipe": VERSION} | student_outcomes(folder, spec) | ({"rounds": rounds} if rounds else {})


def rounds_of(folder: Path) -> list[Line]:
    """The figures of the rounds of ``improve`` that are finished."""
    paths = [
        round_folder(load_spec(folder / "improved" / "router.yaml"), number) / "result.json"
        for number in range(1, ROUNDS + 1)
    ]
    results = [json.loads(path.read_text()) for path in paths if path.exists()]
    return [{name: each[name] for name in ROUND_FIGURES} for each in results]


def table() -> str:
    """What came of every folder that has results."""
    return "\n".join(_part(path) for path in sorted(FOLDERS.glob("*/results.json")))


def _part(path: Path) -> str:
    results = json.loads(path.read_text())
    folder = path.parent
    gold = [line["text"] for _, line in read_jsonl(folder / "gold.jsonl")]
    asked = [line["text"] for _, line in read_jsonl(folder / "teacher-gold.jsonl")]
    n_intents = len(json.loads((folder / "intents.json").read_text()))
    about = (
        f"{n_intents} intents, {KNOWN_PER_INTENT} known examples each. Teacher: {results['model']}, on {len(asked)} of the {len(gold)} gold queries that the "
        f"students are measured on. Last commit {results['commit']}, {results['date']}.\n"
    )
    lines = [
        f"## {folder.name}\n",
        about,
        "| teacher | accuracy |",
        "| --- | ---: |",
    ]
    for name, title in {**TEACHERS, "together": TOGETHER}.items():
        if name in results["teachers"]:
            right = _bits(results["teachers"][name])
            lines.append(f"| {title.format(examples=_examples_shown(folder))} | {_share(right)} |")
    lines += [
        "\n| student | recipe | queries, also gold | | accuracy | minus naive | minus the teacher with known examples |",
        "| --- | --- | ---: | --- | ---: | ---: | ---: |",
    ]
    at = [gold.index(text) for text in asked]
    together = _bits(results["teachers"]["together"]) if "together" in results["teachers"] else None
    for name, title in STUDENTS.items():
        found = results["students"].get(name, {"students": {}})
        for student, outcome in found["students"].items():
            right = _bits(outcome)
            naive = results["students"].get("naive")
            against = ""
            if naive is not None and name != "naive":
                alike = _made_alike(found, naive)
                against = _difference(right, _bits(naive["students"][student])) if alike else "of another recipe"
            under = "" if together is None else _difference(right[at], together)
            lines.append(
                f"| {title} | {_recipe(found)} | {found['n_queries']}, {found['n_also_gold']} | {student} | {_share(right)} | {against} | {under} |"
            )
    lines += _aims(results["students"], together, at)
    lines += _rounds(results["students"].get("improved", {}))
    return "\n".join([*lines, ""])


def _recipe(found: Line) -> str:
    return f"{found['recipe']}{'' if found['recipe'] == VERSION else ', older'}"


def _made_alike(first: Line, second: Line) -> bool:
    return bool(first["recipe"] == second["recipe"])


def _examples_shown(folder: Path) -> str:
    """Which of the known examples stood in a prompt, by what the recording says of its settings."""
    n_known = sum(1 for _ in read_jsonl(folder / "known.jsonl"))
    n_shown = {
        line["settings"].get("by_query", {}).get("examples")
        for _, line in read_jsonl(folder / "examples" / "ledger.jsonl")
    }
    shown = ", ".join(f"{n} of {n_known} a query" for n in sorted(n_shown - {None}))
    return f"retrieved examples, {shown}" if shown else f"all {n_known} known examples"


def _aims(students: Line, together: np.ndarray[Any, Any] | None, at: list[int]) -> list[str]:
    """Each aim and whether each student reaches it, as far as both sides of it were measured."""
    lines = []
    for condition, aims in AIMS.items():
        for rival, least in aims:
            for student, outcome in students.get(condition, {"students": {}})["students"].items():
                right = _bits(outcome)
                if rival == "teacher" and together is not None:
                    gain = compare_paired(together, right[at]).drop
                elif rival in students and not _made_alike(students[condition], students[rival]):
                    lines.append(f"| {_aim(condition, rival, least)} | {student} |  | not known: of another recipe |")
                    continue
                elif rival in students:
                    gain = compare_paired(_bits(students[rival]["students"][student]), right).drop
                else:
                    continue
                verdict = "reached" if round(gain, 9) >= least else "missed"
                lines.append(f"| {_aim(condition, rival, least)} | {student} | {gain:+.3f} | {verdict} |")
    head = ["\n| aim | student | measured | |", "| --- | --- | ---: | --- |"]
    return head + lines if lines else []


def _aim(condition: str, rival: str, least: float) -> str:
    against = {"teacher": "the teacher with known examples"}.get(rival, rival)
    how = f"at least {100 * least:g} points above" if least > 0 else f"at most {-100 * least:g} points under"
    return f"{condition}, {how if least else 'at or above'} {against}"


def _rounds(improved: Line) -> list[str]:
    if not improved.get("rounds"):
        return []
    head = [
        "\n| round of `improve` | written | added | calls | agreement on held-out queries, gain | kept |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    return head + [
        f"| {number} | {each['n_written']} | {each['n_added']} | {each['n_calls']} | {_signed(each['gain'], each['gain_ci95'])} "
        f"| {'yes' if each['kept'] else 'no'} |"
        for number, each in enumerate(improved["rounds"], start=1)
    ]


def _bits(outcome: Line) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.asarray([bit == "1" for bit in outcome["right"]])


def _share(right: np.ndarray[Any, Any]) -> str:
    return share(right.mean(), wilson_interval(int(right.sum()), len(right)))


def _difference(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> str:
    gain = compare_paired(second, first)
    return _signed(gain.drop, gain.drop_ci95)


def _signed(difference: float, interval: Any) -> str:
    return f"{difference:+.3f} [{interval[0]:+.3f}, {interval[1]:+.3f}]"


def main() -> None:
    """Runs what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="With intents.json, and the recordings.")
    parser.add_argument(
        "data", type=Path, nargs="?", help="With train.jsonl and test.jsonl; none: what was drawn before."
    )
    parser.add_argument("--base-url", help="Of the server, where something is to be asked.")
    parser.add_argument("--teacher-model", default="qwen2.5-coder-1.5b-instruct-q4_k_m")
    parser.add_argument("--until", choices=[*TEACHERS, *STUDENTS], help="The last condition to run.")
    parser.add_argument(
        "--again", action="store_true", help="Measure teachers and students of other recipes anew, from the recordings."
    )
    options = parser.parse_args()
    try:
        data = None if options.data is None else options.data.resolve()
        run(options.folder.resolve(), data, options.base_url, options.teacher_model, options.until, again=options.again)
    except DistillError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
