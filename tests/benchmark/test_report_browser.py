"""The report in a real browser, where one is installed: what its script does, and that it fits a phone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest

from distill.benchmark.report import report_html

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
QUIET = "--disable-background-networking --disable-component-update --disable-sync --no-first-run --disable-gpu"
CLICKS = """
const table = document.getElementById("per-intent");
const filter = document.querySelector('.filter[data-table="per-intent"]');
const [words, choice] = [filter.querySelector("input"), filter.querySelector("select")];
const column = (index) => [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[index].textContent);
const click = (index) => { table.tHead.rows[0].cells[index].querySelector("button").click(); return column(index); };
const change = (field, value) => { field.value = value; field.dispatchEvent(new Event("input", { bubbles: true })); };
const seen = { recall: click(5), downwards: click(5), sorted: table.tHead.rows[0].cells[5].ariaSort, names: click(1) };
change(words, " REFUND ");
seen.filtered = column(1).concat(column(7));
seen.counted = filter.querySelector("output").textContent;
change(words, "");
change(choice, "static");
seen.chosen = column(0);
"""
NOTE = """
seen.size = [document.documentElement.scrollWidth, window.innerWidth];
seen.background = getComputedStyle(document.body).backgroundColor;
const note = document.createElement("pre");
note.id = "seen";
note.textContent = JSON.stringify(seen);
document.body.append(note);
"""


def visit(result, folder, script, *, width, dark):
    """What a script finds on the page, whose own policy stays in force."""
    if BROWSER is None:
        pytest.skip("no Chromium is installed")
    page = report_html(result).replace("script-src ", "script-src 'nonce-test' ")
    page = page.replace("</body>", f'<script nonce="test">{script}</script></body>')
    (folder / "report.html").write_text(page, encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", *QUIET.split(), f"--user-data-dir={folder / 'profile'}"]
    command += [
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        f"--window-size={width},844",
        "--dump-dom",
    ]
    done = subprocess.run(
        [*command, (folder / "report.html").as_uri()], capture_output=True, text=True, timeout=90, check=False
    )
    found = re.search(r'<pre id="seen">(.*)</pre>', done.stdout)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


@pytest.fixture(scope="module")
def seen(result, tmp_path_factory):
    """What a visitor with a small, dark screen finds after some clicks."""
    return visit(result, tmp_path_factory.mktemp("browser"), CLICKS + NOTE, width=390, dark=True)


def known(values):
    return [float(value.split()[0]) for value in values if value != "-"]


def test_a_click_on_a_title_sorts_by_number_and_another_turns_it_round(seen):
    assert len(set(seen["recall"])) > 1
    assert known(seen["recall"]) == sorted(known(seen["recall"]))
    assert known(seen["downwards"]) == sorted(known(seen["recall"]), reverse=True)
    assert seen["sorted"] == "descending"
    assert seen["names"] == sorted(seen["names"])


def test_words_filter_whatever_their_case(seen):
    n = len(seen["filtered"]) // 2
    assert all("refund" in pair for pair in map(" ".join, zip(seen["filtered"][:n], seen["filtered"][n:], strict=True)))
    assert seen["counted"] == f"{n} of {len(seen['recall'])}"
    assert 0 < n < len(seen["recall"])


def test_a_row_can_be_chosen(seen):
    assert set(seen["chosen"]) == {"static"}


def test_it_fits_a_phone_and_is_dark_where_that_is_wished(seen):
    wanted, there = seen["size"]
    assert wanted <= there
    assert seen["background"] == "rgb(19, 21, 25)"


@pytest.mark.parametrize("width", [820, 1440])
def test_it_fits_wider_screens_and_is_light_otherwise(result, tmp_path, width):
    found = visit(result, tmp_path, "const seen = {};" + NOTE, width=width, dark=False)
    wanted, there = found["size"]
    assert wanted <= there == width
    assert found["background"] != "rgb(19, 21, 25)"
