"""TMDL as text: names, expressions, descriptions, and each way of getting the format wrong, with its line."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerbi import tmdl
from powerbi.errors import TmdlError
from powerbi.ids import id_of
from powerbi.m import Source, parameter_value, source_of, without_range
from powerbi.model import model_of
from powerbi.tidy import tidy_text
from tests.unit.powerbi import shop

TABLE = """/// Two lines
/// of words.
table 'It''s a Table'
	lineageTag: 1

	/// A number.
	measure 'Net = Sales' = SUM ( T[a] )
		formatString: £#,##0.00

	measure Long =
			VAR a = 1

			RETURN
				a
		displayFolder: Folder

	measure Fenced = ```
			1 + 1
			```
		formatString: 0

	column b
		dataType: int64
		isHidden
		summarizeBy: none

		annotation Key = {"a": 1}
"""


def test_names_descriptions_properties_and_flags_are_read() -> None:
    (table,) = tmdl.parse(TABLE, "T.tmdl")
    assert (table.kind, table.name, table.description) == ("table", "It's a Table", "Two lines\nof words.")
    assert table.text("lineageTag") == "1"
    (column,) = table.all("column")
    assert column.flag("isHidden")
    assert not column.flag("isKey")
    assert column.text("dataType") == "int64"
    assert next(column.all("annotation")).value == '{"a": 1}'


def test_expressions_of_one_line_of_many_and_in_fences_keep_their_lines() -> None:
    (table,) = tmdl.parse(TABLE, "T.tmdl")
    short, long, fenced = table.all("measure")
    assert (short.name, short.value, short.value_line) == ("Net = Sales", "SUM ( T[a] )", 7)
    assert (short.text("formatString"), short.description) == ("£#,##0.00", "A number.")
    assert long.value == "VAR a = 1\n\nRETURN\n\ta"
    assert (long.value_line, long.text("displayFolder")) == (11, "Folder")
    assert (fenced.value or "").strip() == "1 + 1"
    assert fenced.text("formatString") == "0"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("table T\n  column a\n", 2),
        ("table T\n\t\tcolumn a\n", 2),
        ("table T\n\n\t/// nobody's\n", 3),
        ("table T\n\t= 1\n", 2),
        ("table T\n\tmeasure a = ```\n\t\t1\n", 2),
    ],
)
def test_what_is_no_tmdl_is_told_with_its_line(text: str, line: int) -> None:
    with pytest.raises(TmdlError) as refused:
        tmdl.parse(text, "T.tmdl")
    assert (refused.value.file, refused.value.line) == ("T.tmdl", line)


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_any_text_is_read_or_refused_with_a_line(text: str) -> None:
    try:
        tmdl.parse(text, "T.tmdl")
    except TmdlError as error:
        assert error.line >= 0  # noqa: PT017 - some texts are TMDL


@given(
    st.lists(st.text(st.characters(categories=["L", "N"], max_codepoint=0x17F), min_size=1), unique=True, max_size=5)
)
def test_tidying_twice_changes_nothing_and_tags_follow_from_names(names: list[str]) -> None:
    text = "table T\n" + "".join(f"\n\tcolumn '{name}'\n\t\tdataType: int64\n" for name in names)
    tidied = tidy_text(text, "T.tmdl")
    assert tidy_text(tidied, "T.tmdl") == tidied
    tags = [column.text("lineageTag") for column in tmdl.parse(tidied, "T.tmdl")[0].all("column")]
    assert tags == [id_of("table", "T", "column", name) for name in names]


def test_the_tags_and_ids_of_the_project_follow_from_its_names() -> None:
    for path in shop.ROOM.glob("Retail.SemanticModel/**/*.tmdl"):
        text = path.read_text(encoding="utf-8")
        bare = "\n".join(line for line in text.splitlines() if not line.strip().startswith("lineageTag:")) + "\n"
        assert tidy_text(bare, path.name) == text, f"{path.name}: a tag that does not follow from its object's name"


def test_every_id_of_the_project_is_made_from_a_name() -> None:
    texts = [path.read_text(encoding="utf-8") for path in shop.ROOM.glob("Retail.*/**/*") if path.is_file()]
    ids = re.findall(r"\b[0-9a-f]{8}-[0-9a-f]{4}-(.)[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b", "\n".join(texts))
    assert len(ids) > 100
    assert set(ids) == {"5"}, "a random id (version 4) changes whenever a file is made again"


def test_the_model_has_what_a_retailer_asks_for() -> None:
    model = shop.model()
    names = {measure.name for table in model.tables for measure in table.measures}
    assert names >= {
        "Net Sales", "Gross Sales", "Returns", "Return Rate", "Orders", "Items", "Average Order Value", "Customers",
        "New Customers", "Returning Customers", "Share of Countries", "vs Previous Day", "vs Previous Week",
        "vs Previous Month", "Net Sales MTD", "Net Sales YTD", "Net Sales 7-Day Average", "Top 10 Products Share",
    }  # fmt: skip
    for table in model.tables:
        assert table.description, table.name
        for measure in table.measures:
            assert measure.description, measure.name
            assert measure.format_string, measure.name
            assert measure.display_folder, measure.name
        for column in table.columns:
            assert column.description, column.name
            assert column.summarize_by == "none", column.name
            assert column.format_string or column.data_type in ("string", "boolean"), column.name
    for one in model.relationships:
        column = next(
            c for t in model.tables if t.name == one.from_table for c in t.columns if c.name == one.from_column
        )
        assert column.is_hidden, one.from_column
    assert model.date_table is not None
    assert model.table("Sales") is not None
    assert len({role.name for role in model.roles}) == 2


QUERY = """let
    Source = GoogleBigQuery.Database([BillingProject = P]),
    Project = Source{[Name = P]}[Data],
    Schema = Project{[Name = "d", Kind = "Schema"]}[Data],
    Rows = Schema{[Name = "t", Kind = "Table"]}[Data],
    #"In range" = Table.SelectRows(Rows, each [day] >= Date.From(RangeStart) and [day] < Date.From(RangeEnd))
in
    #"In range"
"""


def test_m_tells_what_is_read_and_by_which_column_it_is_cut() -> None:
    assert source_of(QUERY, {"P": "project"}) == Source("project", "d", "t", "day")
    assert source_of("let a = 1 in a", {}) is None
    assert parameter_value('"it""s" meta [IsParameterQuery=true]') == 'it"s'
    assert parameter_value("let a = 1 in a") is None


def test_m_without_its_cut_reads_the_same_table_whole() -> None:
    whole = without_range(QUERY)
    assert "Range" not in whole
    assert source_of(whole, {"P": "project"}) == Source("project", "d", "t", None)
    assert without_range(whole) == whole


def test_an_empty_model_is_no_model() -> None:
    assert model_of({}).tables == ()
