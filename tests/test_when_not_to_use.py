"""docs/when-not-to-use.md: its commands run, and no figure on it was typed."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest
from guides import ROOT, empty_folder, page, run

from distill.benchmark.results import read_result

sys.path.append(str(ROOT / "scripts"))
import readme
import when_not

PAGE = page("when-not-to-use.md")
GENERATED = re.compile(r"<!-- (\S+): generated.*?<!-- \1: end -->", re.DOTALL)


def test_no_figure_is_typed():
    prose = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", "", GENERATED.sub("", PAGE), flags=re.DOTALL)
    assert re.findall(r"(?<![A-Z\d])\d[\d.,]*", prose) == []


def test_the_markers_are_those_of_the_parts():
    assert [match.group(1) for match in GENERATED.finditer(PAGE)] == [
        "break-even", "latency", "baselines", "published", "retraining", "gold",
    ]  # fmt: skip
    assert {match.group(1) for match in GENERATED.finditer(PAGE)} == {*when_not.PARTS}


@pytest.mark.timeout(300)  # many commands, on a busy machine
def test_the_commands_run_and_ask_nothing(tmp_path, monkeypatch):
    with empty_folder(tmp_path, monkeypatch) as fake:
        printed = run(PAGE)
        assert fake.n_requests == 0
    assert len(printed) == 2
    assert "Nothing was asked." in printed["distill run trial/router.yaml --dry-run"]


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target


def test_the_break_even_is_that_of_bench():
    even = read_result(when_not.DEMO / "results.json").cost["break_even"]["queries"]["static"]
    line = next(line for line in when_not.break_even().splitlines() if line.startswith("| 1,000 "))
    assert float(line.split(" | ")[3].removesuffix(" days")) == pytest.approx(even / 1_000, rel=0.01)


def test_baselines_are_what_was_measured():
    """The mean over the seeds of the newest recipe, of each the last time that it was measured; the newest line where it does not say."""
    lines = [json.loads(line) for line in (when_not.RESULTS / "openings.jsonl").read_text("utf-8").splitlines()]
    lines = [line for line in lines if line["set"] == "banking77"]
    newest = lines[-1]
    alike = [line for line in lines if line.get("recipe") == newest["recipe"]] if "recipe" in newest else [newest]
    by_seed = {line["seed"]: line["rows"] for line in alike}
    (line,) = [line for line in when_not.baselines().splitlines() if line.startswith("| BANKING77")]
    cells = [cell.strip() for cell in line.split("|")[3:6]]
    means = [np.mean([rows[name]["accuracy"] for rows in by_seed.values()]) for name in ("tfidf", "static", "encoder")]
    assert cells == [f"{mean:.3f}" for mean in means]


@pytest.mark.parametrize(
    ("days", "shown"),
    [(0.5, "12.0 hours"), (1, "1.00 days"), (364, "364 days"), (365, "1.00 years"), (36500, "100 years")],
)
def test_time_is_in_the_unit_that_one_thinks_in(days, shown):
    assert when_not._time(days) == shown


def test_every_published_figure_has_a_source():
    entries = json.loads((when_not.RESULTS / "alternatives.json").read_text("utf-8"))
    assert entries
    for line, entry in zip(when_not.published().splitlines()[2:], entries, strict=True):
        assert entry["url"].startswith("https://")
        assert f"{entry['value']:g} | published: [{entry['source']}]({entry['url']})" in line


def test_a_page_that_is_out_of_date_is_named(tmp_path, monkeypatch):
    copy = tmp_path / "docs" / "page.md"
    copy.parent.mkdir()
    copy.write_text(PAGE.replace("$500 of work", "$400 of work"), encoding="utf-8")
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    monkeypatch.setattr(readme, "PAGES", {copy: when_not.PARTS})
    monkeypatch.setattr(readme, "WHOLE_PAGES", {})
    monkeypatch.setattr(sys, "argv", ["readme.py", "--check"])
    with pytest.raises(SystemExit, match=r"docs.page\.md is out of date: run `python scripts/readme\.py`"):
        readme.main()
    monkeypatch.setattr(sys, "argv", ["readme.py"])
    readme.main()
    monkeypatch.setattr(sys, "argv", ["readme.py", "--check"])
    readme.main()
    assert "$500 of work" in copy.read_text("utf-8")


def test_a_page_without_its_markers_is_named():
    with pytest.raises(SystemExit, match=r"page\.md: the markers of the part 'gold' are missing"):
        readme.generated("no markers", {"gold": when_not.gold}, "page.md")
