"""A task picks loss, policy, metric and presentation, and nothing else: what other code has to know of it, it asks by a property."""

import ast
from pathlib import Path

import pytest

from distill.types import Task

DISTILL = Path(__file__).parent.parent / "distill"
MAY_BRANCH = {
    "types.py": "the properties themselves",
    "student/trainer.py": "loss",
    "student/calibrate.py": "loss: softmax or sigmoid, and its likelihood",
    "policy.py": "policy",
    "benchmark/metrics.py": "metric",
    "benchmark/intents.py": "metric: what each intent is told by",
    "benchmark/scores.py": "metric: what a score is worth",
    "benchmark/bench.py": "presentation: decisions in words",
    "benchmark/captions.py": "presentation",
    "benchmark/display.py": "presentation",
    "benchmark/report.py": "presentation",
    "bulk_files/parquet.py": "presentation: types of the output's columns",
    "bulk_files/parts.py": "presentation: columns of the output",
    "cli/bundles.py": "presentation",
    "cli/init.py": "presentation: which questions are asked",
    "cli/inspection.py": "presentation",
    "init/project.py": "presentation: a router.yaml with remarks",
    "inspection.py": "presentation: a decision in words",
    "student/card.py": "presentation",
}


def uses_of_a_task(path: Path) -> list[int]:
    """Lines that name a member of Task, or compare a task with its value, but for tables, arguments and default values."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name == "Task"
    }
    compared_parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.Compare) for part in ast.walk(node)}
    allowed = {id(part) for node in ast.walk(tree) for part in _harmless(node)} - compared_parts
    members = {
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in Task.__members__
        and id(node) not in allowed
        and ((isinstance(node.value, ast.Name) and node.value.id in names | {"Task"}) or _ends_in_task(node.value))
    }
    compared = {
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        and any(isinstance(part, ast.Constant) and part.value in _VALUES for part in ast.walk(node))
        and "task" in ast.unparse(node).replace("'", "")
    }
    return sorted(members | compared)


_VALUES = {task.value for task in Task}


def _ends_in_task(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "Task"


def _harmless(node: ast.AST) -> list[ast.expr]:
    """Where a member may stand without a branch: as a table's key or in its values, as an argument, as a default."""
    match node:
        case ast.Dict():
            parts = [*node.keys, *(part for value in node.values for part in ast.walk(value))]
        case ast.Call():
            parts = [*node.args, *(keyword.value for keyword in node.keywords)]
        case ast.arguments():
            parts = [part for each in [*node.defaults, *node.kw_defaults] if each for part in ast.walk(each)]
        case ast.BoolOp(op=ast.Or()):
            parts = node.values[-1:]
        case ast.AnnAssign(target=ast.Name(id=name)) if name.islower() and not name.startswith("_"):
            parts = [node.value]
        case _:
            parts = []
    return [part for part in parts if isinstance(part, ast.expr)]


def test_no_code_branches_on_the_task_but_for_loss_policy_metric_and_presentation():
    found = {path.relative_to(DISTILL).as_posix(): uses_of_a_task(path) for path in DISTILL.rglob("*.py")}
    assert {name: lines for name, lines in found.items() if lines and name not in MAY_BRANCH} == {}
    assert [name for name in MAY_BRANCH if not found[name]] == []


@pytest.mark.parametrize(
    "line",
    [
        "print(task is Task.MULTI)",
        "print(task in {None, Task.SINGLE})",
        "print(x[: task == Task.WEIGHTS])",
        "_MULTI, _ONE = Task.MULTI, 1",
        "_SEVERAL = {Task.MULTI, Task.WEIGHTS}",
        "_M: Task = Task.MULTI",
        "print(spec.task == 'multi')",
        "print(task.value in ('single', 'weights'))",
        "print(task is T.MULTI)",
        "print(task is types.Task.MULTI)",
        "task = Task.SINGLE if few else Task.MULTI",
        "print({'order': 1 if task is Task.WEIGHTS else 2})",
    ],
)
def test_a_branch_is_found_however_it_is_written(tmp_path, line):
    path = tmp_path / "branch.py"
    path.write_text(f"from distill.types import Task as T\nFORMS = {{Task.SINGLE: 1}}\n{line}\n")
    assert uses_of_a_task(path) == [3]


@pytest.mark.parametrize(
    "line",
    [
        "found = FORMS[task]",
        "def of(task: Task = Task.SINGLE): ...",
        "find(vectors, Task.SINGLE)",
        "task = given or Task.SINGLE",
        "def of(measure=MEASURES[Task.SINGLE]): ...",
        "print(key == 'weights')",
        "print(task.sums_to_one)",
    ],
)
def test_tables_arguments_and_defaults_are_no_branches(tmp_path, line):
    path = tmp_path / "branch.py"
    path.write_text(f"FORMS = {{Task.SINGLE: 1}}\n{line}\n")
    assert uses_of_a_task(path) == []


@pytest.mark.parametrize(
    ("task", "properties"), [(Task.SINGLE, (1, 1, 0)), (Task.MULTI, (0, 0, 0)), (Task.WEIGHTS, (1, 0, 1))]
)
def test_what_a_task_means(task, properties):
    assert (task.sums_to_one, task.has_one_label, task.is_mixture) == properties
