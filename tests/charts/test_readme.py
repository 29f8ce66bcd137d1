"""Every value has a sentence, and charts/README.md has all of them."""

from __future__ import annotations

from tests.charts.rendering import CASES, CHART
from tests.charts.values_table import CHARTS, page, rows, without_sentence


def test_every_value_has_a_sentence() -> None:
    assert without_sentence() == []
    assert len({name for name, _, _ in rows()}) == len(rows())
    for name, _, sentence in rows():
        assert len(sentence) > 8, name
        assert sentence.endswith((".", ")")), f"{name}: {sentence}"


def test_the_table_of_the_readme_is_what_the_values_say() -> None:
    assert (CHARTS / "README.md").read_text() == page(), "run `make docs`"


def test_the_readme_names_every_set_of_values_and_the_secrets_script() -> None:
    text = (CHARTS / "README.md").read_text()
    for case in CASES:
        assert f"`{case}`" in text
    assert "charts/secrets.sh" in text
    assert (CHARTS / "secrets.sh").exists()
    assert CHART.name == "steward"
