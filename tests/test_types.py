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
    "benchmark/display.py": "presentation",
    "benchmark/report.py": "presentation",
    "bulk_files.py": "presentation: columns of the output",
    "cli/bundles.py": "presentation",
    "cli/init.py": "presentation: which questions are asked",
    "cli/inspection.py": "presentation",
    "init/project.py": "presentation: a router.yaml with remarks",
    "inspection.py": "presentation: a decision in words",
    "student/card.py": "presentation",
}


def compared_with_a_task(path: Path) -> list[int]:
    """Lines where something is compared with a member of Task, or with a name that stands for one."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    aliases = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for names, values in [_pairs(node)]
        for target, value in zip(names, values, strict=False)
        if isinstance(target, ast.Name) and _is_member(value, set())
    }
    sides = (
        [node.left, *node.comparators] if isinstance(node, ast.Compare) else [node.value]
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare | ast.MatchValue)
    )
    return sorted(
        {part.lineno for each in sides for side in each for part in ast.walk(side) if _is_member(part, aliases)}
    )


def _pairs(node: ast.Assign) -> tuple[list[ast.expr], list[ast.expr]]:
    target, value = node.targets[0], node.value
    is_several = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
    return (target.elts, value.elts) if is_several else ([target], [value])


def _is_member(node: ast.AST, aliases: set[str]) -> bool:
    if isinstance(node, ast.Name):
        return node.id in aliases
    is_of_task = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Task"
    return is_of_task and node.attr in Task.__members__


def test_no_code_branches_on_the_task_but_for_loss_policy_metric_and_presentation():
    found = {path.relative_to(DISTILL).as_posix(): compared_with_a_task(path) for path in DISTILL.rglob("*.py")}
    assert {name: lines for name, lines in found.items() if lines and name not in MAY_BRANCH} == {}
    assert [name for name in MAY_BRANCH if not found[name]] == []


@pytest.mark.parametrize(
    "line", ["task is Task.MULTI", "task in {None, Task.SINGLE}", "x[: task == Task.WEIGHTS]", "task is _MULTI"]
)
def test_a_branch_is_found_however_it_is_written(tmp_path, line):
    path = tmp_path / "branch.py"
    path.write_text(f"_MULTI, _ONE = Task.MULTI, 1\nFORMS = {{Task.SINGLE: 1}}\nprint({line})\n")
    assert compared_with_a_task(path) == [3]


@pytest.mark.parametrize(
    ("task", "properties"), [(Task.SINGLE, (1, 1, 0)), (Task.MULTI, (0, 0, 0)), (Task.WEIGHTS, (1, 0, 1))]
)
def test_what_a_task_means(task, properties):
    assert (task.sums_to_one, task.has_one_label, task.is_mixture) == properties
