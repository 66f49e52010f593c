from __future__ import annotations

import json
import sys

import pytest
from bundles import build_bundle
from project import TESTS

sys.path.append(str(TESTS.parent / "scripts"))
import bulk_growth


@pytest.mark.skipif(sys.platform != "linux", reason="peaks of memory are read from /proc")
def test_every_size_of_every_way_is_routed_by_a_process_of_its_own(tmp_path, monkeypatch, capsys):
    bundle = build_bundle(tmp_path / "static").path
    monkeypatch.setattr(bulk_growth, "LINES", (30,))
    monkeypatch.setattr(sys, "argv", ["bulk_growth.py", str(bundle), "--json", str(tmp_path / "bulk.json")])
    bulk_growth.main()
    result = json.loads((tmp_path / "bulk.json").read_text("utf-8"))
    ways = [(run["kind"], run["output_kind"], run["n_lines"]) for run in result["runs"]]
    assert ways == [(*way, 30) for way in bulk_growth.WAYS]
    assert all(run["peak_rss_mb"] > 10 for run in result["runs"])
    assert capsys.readouterr().out.strip() == bulk_growth.table(result).strip()
    monkeypatch.setattr(bulk_growth, "RESULTS", tmp_path / "bulk.json")
    assert "| `.jsonl` | `.parquet` | 30 |" in bulk_growth.page()


def test_what_is_no_bundle_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bulk_growth.py", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"bulk_growth\.py: "):
        bulk_growth.main()
