from __future__ import annotations

import pytest

from urbandelta.errors import StoreError
from urbandelta.ledger import Ledger, LedgerEntry

TIME = "2020-01-01T00:00:00Z"


def entry(item_id: str, **more) -> LedgerEntry:
    return LedgerEntry(stream="optical", item_id=item_id, time=TIME, verdict="empty", reason="none", **more)


def test_remembers_until_the_item_changes(tmp_path):
    path = tmp_path / "monitor" / "ledger.jsonl"
    Ledger(path).add(entry("a", updated="2020-01-02"))
    again = Ledger(path)
    assert again.knows("optical", "a", TIME, "2020-01-02").reason == "none"
    assert again.knows("optical", "a", TIME, "2020-02-02") is None
    assert again.knows("s1_asc", "a", TIME, "2020-01-02") is None


def test_adds_each_entry_once(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.add_all([entry("a"), entry("a"), entry("b")])
    Ledger(ledger.path).add(entry("b"))
    assert [one.item_id for one in ledger.entries()] == ["a", "b"]


@pytest.mark.parametrize("cut", [1, 2, 40])
def test_a_torn_line_is_skipped_and_spoils_no_other(tmp_path, cut):
    path = tmp_path / "ledger.jsonl"
    Ledger(path).add_all([entry("a"), entry("b")])
    path.write_bytes(path.read_bytes()[:-cut])
    ledger = Ledger(path)
    ledger.add(entry("c"))
    known = [one.item_id for one in Ledger(path).entries()]
    assert known == (["a", "b", "c"] if cut == 1 else ["a", "c"])


def test_names_a_line_that_was_changed_by_hand(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"stream": "optical"}\n')
    with pytest.raises(StoreError, match=r"ledger\.jsonl:1"):
        Ledger(path)
