"""The marks: well-formed, few to a test, and naming rows that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rules import BOOK, ID, MOST, Proof, Row, proofs, rows
from tests.rules_report import report, titles

PROOFS = proofs()
WITH_BOOK = pytest.mark.skipif(not BOOK.is_dir(), reason="the rule book does not lie beside the repository")


def test_every_mark_names_one_to_three_rules_by_their_ids() -> None:
    assert len(PROOFS) > 50
    for proof in PROOFS:
        where = f"{proof.file}:{proof.line}"
        assert all(ID.fullmatch(rule) for rule in proof.rules), where
        assert 1 <= len(set(proof.rules)) == len(proof.rules) <= MOST, where


@WITH_BOOK
def test_every_rule_that_a_test_names_is_a_row_of_the_rule_book() -> None:
    known = {row.id for row in rows()}
    assert len(known) > 400
    for proof in PROOFS:
        assert set(proof.rules) <= known, f"{proof.file}:{proof.line}: {set(proof.rules) - known}"


@WITH_BOOK
def test_the_rule_book_is_read_whole() -> None:
    [row] = [row for row in rows() if row.id == "REP-38"]
    assert (row.service, row.kind, row.file) == ("WO", "deadline", "work_orders")
    assert row.text.startswith("Urgent repair: accepted within 15 min")
    assert titles()["REP"].startswith("Repairs")


def test_the_report_lists_what_is_proven_and_what_is_not() -> None:
    book = [
        Row("REP-01", "WO", "rule", "Channels.", "work_orders"),
        Row("REP-02", "WO", "form", "Forms.", "work_orders"),
        Row("FEE-01", "BIL", "fee", "Fees.", "b"),
    ]
    proven = Proof("tests/test_x.py", "test_a_report_comes_by_any_channel", 1, ("REP-01",))
    text = report([proven], book, {"REP": "Repairs", "FEE": "Fees"})
    for expected in (
        "| REP | 2 | 1 | Repairs |",
        "| FEE | 1 | 0 | Fees |",
        "| **all** | **3** | **1** | |",
        "**REP-01** (rule) Channels.\n- a report comes by any channel (`tests/test_x.py`)",
        "Without a proof: REP-02.",
        "- FEE, 1 rows: Fees",
    ):
        assert expected in text
    assert "REP-01" in report([proven], [], {}), "without the rule book the marks alone are listed"


def test_marks_are_read_from_the_source_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.rules.ROOT", tmp_path)
    (tmp_path / "test_some.py").write_text(
        '@pytest.mark.rule("A-01", "B-02")\n@pytest.mark.slow\ndef test_it_works():\n    pass\n\ndef test_other():\n    pass\n'
    )
    assert proofs(tmp_path) == [Proof("test_some.py", "test_it_works", 3, ("A-01", "B-02"))]
    (tmp_path / "test_some.py").write_text("@pytest.mark.rule(RULE)\ndef test_it():\n    pass\n")
    with pytest.raises(ValueError, match="plain texts"):
        proofs(tmp_path)
