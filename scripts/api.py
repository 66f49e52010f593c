"""Writes docs/api.md from the docstrings of what a user imports; ``--check`` only says whether it is up to date.

python scripts/api.py [--check]

griffe reads signatures and docstrings from the source; nothing is imported.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import griffe

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "api.md"
_WIDTH = 100


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page.

    Attributes:
        module: Whose names it lists.
        title: What it is for.
        left_out: Names of the module's ``__all__`` that other modules of distill need, and no user.
        names: In place of all of ``__all__``: these.
    """

    module: str
    title: str
    left_out: frozenset[str] = frozenset()
    names: tuple[str, ...] = ()


SECTIONS = (
    Section("distill.router", "Routing"),
    Section("distill.types", "Answers", names=("Prediction", "Reason", "Task")),
    Section("distill.hooks", "Hooks", left_out=frozenset({"notify"})),
    Section("distill.cascade", "Cascade"),
    Section("distill.bulk", "Files of queries", left_out=frozenset({"ENGINES", "PartRouter"})),
    Section("distill.bundle", "Bundles", names=("load_bundle", "Bundle", "Manifest")),
    Section("distill.policy", "Policy", left_out=frozenset({"fit_policy"})),
    Section("distill.selfcheck", "Self-check"),
    Section("distill.inspection", "Looking into a bundle", left_out=frozenset({"read_texts"})),
    Section("distill.spec", "router.yaml", names=("load_spec",)),
    Section("distill.pipeline", "Making a router"),
    Section("distill.teacher.synth", "Writing queries", names=("SynthesisPlan", "SynthesisSummary")),
    Section("distill.teacher.pool", "Queries left out", names=("Dropped",)),
    Section("distill.teacher.label", "Labelling", names=("LabelPlan", "LabelSummary")),
    Section(
        "distill.teacher.imported",
        "Answers paid for elsewhere",
        left_out=frozenset({"plan_human_labels", "say_contradictions", "take_human_labels", "why_unlabelled"}),
    ),
    Section("distill.teacher.fallback", "The teacher as the fallback"),
    Section("distill.teacher.carry", "Intents that change", names=("CarryOptions", "CarryPlan", "CarrySummary")),
    Section("distill.teacher.changed", "How intents differ", names=("IntentChange",)),
    Section(
        "distill.audit",
        "Doubtful labels",
        names=("Audit", "IntentAudit", "Suspect", "audit", "plan_relabel", "relabel"),
    ),
    Section("distill.teacher.relabel", "Asking again", names=("RelabelPlan", "RelabelSummary")),
    Section(
        "distill.improve", "Rounds that better the students", left_out=frozenset({"PAIRS", "PER_INTENT", "ROUNDS"})
    ),
    Section("distill.benchmark.results", "Figures", names=("read_result", "result_as_json")),
    Section(
        "distill.types", "What figures are made of", names=("BenchResult", "BenchRow", "GateVerdict", "IntentFigures")
    ),
    Section("distill.publish", "Publishing"),
    Section("distill.errors", "Errors", left_out=frozenset({"DISTRIBUTION", "missing_extra"})),
)

_INTRODUCTION = """\
# API reference

Generated from the docstrings by `python scripts/api.py`; `make check` says when it is out of date. `from distill import` gives
{public}; everything else is imported from the module that its section names.
"""


def load(package: str, folder: Path) -> griffe.Object:
    """A package's names, as its source has them."""
    return griffe.load(
        package,
        search_paths=[folder],
        docstring_parser="google",
        docstring_options={"returns_multiple_items": False, "warnings": False},
        resolve_aliases=True,
    )


def page() -> str:
    """The whole page."""
    package = load("distill", ROOT)
    public = ", ".join(f"`{name}`" for name in _exported(package) if not name.startswith("__"))
    parts = [_INTRODUCTION.format(public=public), _contents(package)]
    parts += [part for section in SECTIONS for part in _section(package, section)]
    return "\n".join(parts).rstrip("\n") + "\n"


def names_of(package: griffe.Object, section: Section) -> list[str]:
    """The names that a section lists, as a module's ``__all__`` orders them unless they are given."""
    if section.names:
        return list(section.names)
    return [name for name in _exported(_in(package, section.module)) if name not in section.left_out]


def _exported(module: griffe.Object) -> list[str]:
    return [str(name) for name in module.exports or ()]


def _in(package: griffe.Object, module: str) -> griffe.Object:
    path = module.split(".")[1:]
    return package[path] if path else package


def _contents(package: griffe.Object) -> str:
    lines = []
    for section in SECTIONS:
        names = ", ".join(f"`{name}`" for name in names_of(package, section))
        lines.append(f"- [{section.title}](#{_anchor(section.title)}) (`{section.module}`): {names}")
    return "\n".join(lines) + "\n"


def _anchor(title: str) -> str:
    """As code hosts make it of a heading."""
    return "".join(sign for sign in title.lower().replace(" ", "-") if sign.isalnum() or sign in "-_")


def _section(package: griffe.Object, section: Section) -> Iterator[str]:
    module = _in(package, section.module)
    yield f"## {section.title}\n"
    yield f"`{section.module}`\n"
    if not section.names:
        yield from _described(module)
    if section.module == "distill.errors":
        return  # the tree in the module's docstring says all there is to say
    for name in names_of(package, section):
        thing = module[name]
        yield from _described_name(thing.final_target if thing.is_alias else thing, "###", name)


def _described_name(thing: griffe.Object, heading: str, title: str) -> Iterator[str]:
    """Heading, signature, docstring, and for a class its members."""
    yield f"{heading} `{title}`\n"
    signature = _signature(thing)
    if signature:
        yield f"```python\n{signature}\n```\n"
    yield from _described(thing)
    if isinstance(thing, griffe.Class):
        if _is_enum(thing):
            yield _members_of(thing)
            return
        for name, member in thing.members.items():
            has_own_words = member.docstring is not None and not member.is_alias
            if has_own_words and not name.startswith("_"):
                yield from _described_name(member, f"{heading}#", f"{title}.{name}")


def _is_enum(thing: griffe.Class) -> bool:
    return any(str(base).endswith("Enum") for base in thing.bases)


def _members_of(enum: griffe.Class) -> str:
    members = (member for member in enum.members.values() if isinstance(member, griffe.Attribute) and member.value)
    return "\n".join(f"- `{each.name}` (`{each.value}`){_about(_text(each))}" for each in members) + "\n"


def _about(text: str) -> str:
    return f": {text}" if text else ""


def _text(thing: griffe.Object) -> str:
    return _markdown(thing.docstring.value) if thing.docstring else ""


def _signature(thing: griffe.Object) -> str:
    if isinstance(thing, griffe.Class):
        return "" if _is_enum(thing) else _call(thing, "")
    if isinstance(thing, griffe.Function):
        is_async = "async " if "async" in thing.labels else ""
        returns = f" -> {thing.returns}" if thing.returns is not None else ""
        return f"{is_async}{_call(thing, returns)}"
    annotation = f": {thing.annotation}" if isinstance(thing, griffe.Attribute) and thing.annotation else ""
    value = f" = {thing.value}" if isinstance(thing, griffe.Attribute) and thing.value is not None else ""
    return f"{thing.name}{annotation}{value}"


def _call(thing: griffe.Class | griffe.Function, returns: str) -> str:
    """A call as it is written, a parameter a line where it is long."""
    parts: list[str] = []
    for parameter in thing.parameters:
        if parameter.name in {"self", "cls"}:
            continue
        if parameter.kind is griffe.ParameterKind.keyword_only and "*" not in parts:
            parts.append("*")
        parts.append(_parameter(parameter, thing.module))
    line = f"{thing.name}({', '.join(parts)}){returns}"
    if len(line) <= _WIDTH:
        return line
    return "\n".join([f"{thing.name}(", *(f"    {part}," for part in parts), f"){returns}"])


def _parameter(parameter: griffe.Parameter, module: griffe.Module) -> str:
    annotation = f": {parameter.annotation}" if parameter.annotation is not None else ""
    if parameter.default is None:
        return f"{parameter.name}{annotation}"
    default = str(parameter.default)
    if default.startswith("_"):  # a constant that a reader cannot see
        default = str(module[default].value)
    return f"{parameter.name}{annotation}{' = ' if annotation else '='}{default}"


def _described(thing: griffe.Object) -> Iterator[str]:
    """The docstring: its text, then what it says of arguments, attributes, the result and errors."""
    for section in thing.docstring.parsed if thing.docstring else ():
        if section.kind is griffe.DocstringSectionKind.text:
            yield f"{_markdown(section.value)}\n"
            continue
        title = _TITLES.get(section.kind)
        if title is None:
            raise SystemExit(f"api.py: {thing.path}: a docstring has a section {section.kind.value!r}")
        yield f"{title}\n\n" + "\n".join(f"- {_entry(section.kind, entry)}" for entry in section.value) + "\n"


_TITLES = {
    griffe.DocstringSectionKind.parameters: "Arguments:",
    griffe.DocstringSectionKind.attributes: "Attributes:",
    griffe.DocstringSectionKind.returns: "Returns:",
    griffe.DocstringSectionKind.raises: "Raises:",
}


def _entry(kind: griffe.DocstringSectionKind, entry: griffe.DocstringNamedElement) -> str:
    text = " ".join(_markdown(entry.description).split())
    if kind is griffe.DocstringSectionKind.returns:
        return text
    name = entry.annotation if kind is griffe.DocstringSectionKind.raises else entry.name
    return f"`{name}`: {text}"


def _markdown(text: str) -> str:
    return text.replace("``", "`").strip("\n")


def main() -> None:
    """Writes the page, or checks it."""
    wanted = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(wanted, encoding="utf-8", newline="\n")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != wanted:
        raise SystemExit("docs/api.md is out of date: run `make docs`")


if __name__ == "__main__":
    main()
