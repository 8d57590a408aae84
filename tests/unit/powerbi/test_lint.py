"""`powerbi check`: the project is clean, and each way of breaking it is found, at its file and line."""

# ruff: noqa: E501 - one rule, or one breakage, a line

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from dbt_like_sql.catalog import load_catalog
from powerbi.errors import ProjectError
from powerbi.lint.check import check_project, project_files
from powerbi.lint.contracts import check_contracts
from powerbi.lint.model_checks import check_model
from powerbi.model import model_of, read_model
from powerbi.pbir import read_report
from powerbi.storage import with_storage
from powerbi.tidy import tidy_folder, tidy_text
from tests.unit.powerbi import shop

if TYPE_CHECKING:
    from pathlib import Path

    from powerbi.lint.finding import Finding

SALES = "Retail.SemanticModel/definition/tables/Sales.tmdl"
DATE = "Retail.SemanticModel/definition/tables/Date.tmdl"
CUSTOMER = "Retail.SemanticModel/definition/tables/Customer.tmdl"
PRODUCT = "Retail.SemanticModel/definition/tables/Product.tmdl"
MODEL = "Retail.SemanticModel/definition/model.tmdl"
RELATIONSHIPS = "Retail.SemanticModel/definition/relationships.tmdl"
EXPRESSIONS = "Retail.SemanticModel/definition/expressions.tmdl"
ROLE = "Retail.SemanticModel/definition/roles/United Kingdom.tmdl"
PAGES = "Retail.Report/definition/pages/"
CHART = PAGES + "overview/visuals/sales_by_country/visual.json"
CARD = PAGES + "overview/visuals/card_orders/visual.json"
TOP = PAGES + "products/visuals/top_products/visual.json"

# what is broken: (file, text, what replaces its first occurrence, rule that finds it)
BREAKAGES: dict[str, tuple[str, str, str, str]] = {
    "a measure sums an unknown column": (SALES, "SUM ( Sales[amount_gbp] )", "SUM ( Sales[amount] )", "dax"),
    "a measure names an unknown measure": (SALES, "DIVIDE ( [Returns], [Gross Sales] )", "DIVIDE ( [Returns], [Gros Sales] )", "dax"),
    "a measure names an unknown table": (SALES, "COUNTROWS ( Sales )", "COUNTROWS ( Sale )", "dax"),
    "a measure lacks a bracket": (SALES, "SUM ( Sales[gross_sales_gbp] )", "SUM ( Sales[gross_sales_gbp]", "dax"),
    "a measure has an empty argument": (SALES, "DIVIDE ( [Returns], [Gross Sales] )", "DIVIDE ( [Returns],, [Gross Sales] )", "dax"),
    "a measure calls an unknown function": (SALES, "COUNTROWS ( Sales )", "COUNTLINES ( Sales )", "dax"),
    "a measure sums a text": (SALES, "SUM ( Sales[amount_gbp] )", "SUM ( Sales[invoice_no] )", "dax"),
    "a measure refers to itself": (SALES, "[Gross Sales] - [Returns]", "[Net Sales] - [Returns]", "dax"),
    "a function has too few arguments": (SALES, "DIVIDE ( [Items], [Orders] )", "DIVIDE ( [Items] )", "dax"),
    "a property is indented by spaces": (SALES, "\t\tformatString: £#,##0.00\n", "        formatString: £#,##0.00\n", "tmdl"),
    "a property is indented too deep": (SALES, "\t\tdisplayFolder: Sales\n", "\t\t\t\tdisplayFolder: Sales\n", "tmdl"),
    "a property's name is misspelt": (DATE, "\t\tsummarizeBy: none", "\t\tsummariseBy: none", "unknown-word"),
    "a data type does not exist": (DATE, "dataType: int64", "dataType: integer", "unknown-value"),
    "two columns carry one lineage tag": (DATE, "", "", "duplicate-tag"),
    "two columns carry one name": (CUSTOMER, "column last_invoice_date", "column first_invoice_date", "duplicate-name"),
    "two measures carry one name": (SALES, "measure Cancellations", "measure Orders", "duplicate-name"),
    "a ref names no table": (MODEL, "ref table Country", "ref table Countries", "missing-ref"),
    "a ref names no role": (MODEL, "ref role 'United Kingdom'", "ref role 'Great Britain'", "missing-ref"),
    "a table has no ref": (MODEL, "ref table Product\n", "", "no-ref"),
    "a key has another type on the other side": (PRODUCT, "column stock_code\n\t\tdataType: string", "column stock_code\n\t\tdataType: int64", "key-type"),
    "a relationship names no column": (RELATIONSHIPS, "Sales.stock_code", "Sales.stock_number", "unknown-column"),
    "a sort column does not exist": (DATE, "sortByColumn: month_number", "sortByColumn: month_no", "unknown-column"),
    "incremental refresh does not use RangeEnd": (SALES, "and [invoice_date] < Date.From(RangeEnd))", ")", "no-range"),
    "RangeStart is no parameter": (EXPRESSIONS, "expression RangeStart", "expression RangeBegin", "no-range"),
    "M lacks a bracket": (PRODUCT, "Name = WarehouseProject]}[Data],", "Name = WarehouseProject][Data],", "m-syntax"),
    "M names no parameter": (PRODUCT, "[Name = WarehouseProject]", "[Name = WarehouseProjekt]", "m-name"),
    "M names no step": (PRODUCT, "in\n\t\t\t\t    Navigated", "in\n\t\t\t\t    Navigation", "m-name"),
    "a table reads no mart": (PRODUCT, 'Name = "products"', 'Name = "product"', "unknown-mart"),
    "a column reads none of the mart's": (PRODUCT, "sourceColumn: description", "sourceColumn: title", "unknown-source"),
    "a column has another type than the mart's": (SALES, "column quantity\n\t\tdataType: int64", "column quantity\n\t\tdataType: decimal", "source-type"),
    "a role filters by an unknown column": (ROLE, "Country[country]", "Country[name]", "dax"),
    "a number is summarized by itself": (SALES, "summarizeBy: none\n\t\tsourceColumn: quantity", "summarizeBy: sum\n\t\tsourceColumn: quantity", "numeric_column_summarize_by"),
    "a foreign key is shown": (SALES, "column stock_code\n\t\tdataType: string\n\t\tisHidden\n", "column stock_code\n\t\tdataType: string\n", "hide_foreign_keys"),
    "a measure has no format": (SALES, "measure Returns = SUM ( Sales[returns_gbp] )\n\t\tformatString: £#,##0.00\n", "measure Returns = SUM ( Sales[returns_gbp] )\n", "provide_format_string_for_measures"),
    "a measure divides by a slash": (SALES, "DIVIDE ( [Items], [Orders] )", "[Items] / [Orders]", "use_the_divide_function_for_division"),
    "a measure has no description": (SALES, "\t/// Invoice lines of every kind.\n", "", "objects_with_no_description"),
    "the date table is not marked": (DATE, "\tdataCategory: Time\n", "", "model_should_have_a_date_table"),
    "a relationship filters both ways": (RELATIONSHIPS, "\ttoColumn: Product.stock_code\n", "\ttoColumn: Product.stock_code\n\tcrossFilteringBehavior: bothDirections\n", "bi_directional_relationships"),
    "a visual has an unknown type": (CHART, "clusteredBarChart", "clusterBarChart", "visual-type"),
    "a visual shows an unknown measure": (CARD, '"Property": "Orders"', '"Property": "Order"', "unknown-measure"),
    "a visual shows an unknown column": (CHART, '"Property": "country"', '"Property": "land"', "unknown-column"),
    "a visual shows a measure of another table": (CARD, '"Entity": "Sales"', '"Entity": "Product"', "wrong-table"),
    "a visual has a role of another type": (CHART, '"Category": {', '"Rows": {', "role"),
    "a visual is named otherwise than its folder": (CARD, '"name": "card_orders"', '"name": "orders"', "name"),
    "a visual reaches beyond its page": (CARD, '"x": ', '"x": 9', "place"),
    "a filter names an unknown measure": (TOP, '"Property": "Net Sales"\n', '"Property": "Net Sale"\n', "unknown-measure"),
    "the page order names no page": (PAGES + "pages.json", '"products"', '"product"', "pbir"),
    "a visual's file is no JSON": (CARD, '"position": {', '"position": ', "json"),
    "a table is cut by RangeStart without a policy": (PRODUCT, "in\n\t\t\t\t    Navigated", "in\n\t\t\t\t    Table.SelectRows(Navigated, each [a] >= RangeStart)", "range-without-policy"),
    "a table is related by a column that may repeat": (RELATIONSHIPS, "toColumn: Product.stock_code", "toColumn: Product.description", "source-key"),
    "the theme's file is missing": ("Retail.Report/definition/report.json", '"name": "Retail.json"', '"name": "Retail2.json"', "theme"),
}  # fmt: skip


@pytest.fixture(scope="module")
def catalog() -> Any:
    return load_catalog()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for suffix in ("SemanticModel", "Report"):
        shutil.copytree(shop.ROOM / f"Retail.{suffix}", tmp_path / f"Retail.{suffix}")
    return tmp_path


def _edit(path: Path, old: str, new: str) -> int:
    """Replace the first occurrence; returns its line."""
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path.name} no longer holds {old!r}"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return text[: text.index(old)].count("\n") + 1


def _errors(project: Path, catalog: Any) -> list[Finding]:
    return [one for one in check_project(project, catalog=catalog) if one.severity == "error"]


def test_the_project_has_no_finding_at_all(catalog: Any) -> None:
    assert [str(one) for one in check_project(shop.ROOM, catalog=catalog)] == []


@pytest.mark.parametrize("name", BREAKAGES)
def test_breakage_is_found_at_its_file(project: Path, catalog: Any, name: str) -> None:
    file, old, new, rule = BREAKAGES[name]
    line = _copy_first_tag(project / file) if rule == "duplicate-tag" else _edit(project / file, old, new)
    found = [one for one in _errors(project, catalog) if one.rule == rule]
    assert found, f"not found: {name}; found instead: {[str(one) for one in check_project(project, catalog=catalog)]}"
    if rule not in (
        "no-ref",
        "pbir",
        "key-type",
        "model_should_have_a_date_table",
        "bi_directional_relationships",
        "no-range",
        "m-syntax",
        "m-name",
        "m-source",
        "range-without-policy",
        "source-key",
        "unknown-mart",
    ):
        near = [one for one in found if one.file == file and abs(one.line - line) <= 6]
        assert near, f"{name}: broken at {file}:{line}, told at {[str(one) for one in found]}"
    assert all(one.what and one.remedy for one in found)


def _copy_first_tag(path: Path) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    tags = [number for number, line in enumerate(lines) if "lineageTag:" in line]
    lines[tags[4]] = lines[tags[3]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tags[4] + 1


def test_what_desktop_and_macos_put_beside_the_files_is_no_part_of_the_project(project: Path, catalog: Any) -> None:
    before = project_files(project, "SemanticModel"), project_files(project, "Report")
    tables = project / "Retail.SemanticModel" / "definition" / "tables"
    (project / "Retail.SemanticModel" / ".pbi").mkdir()
    (project / "Retail.SemanticModel" / ".pbi" / "localSettings.json").write_text("{}")
    for path in (
        project / "Retail.SemanticModel" / ".pbi" / "cache.abf",
        project / "Retail.Report" / ".DS_Store",
        project / "Retail.Report" / "definition" / "._report.json",
        tables / "._Sales.tmdl",
    ):
        path.write_bytes(b"\x00\x05\x16\x07\xb0\xff")
    assert (project_files(project, "SemanticModel"), project_files(project, "Report")) == before
    assert ".platform" in before[0][1]
    assert check_project(project, catalog=catalog) == []
    assert read_model(project / "Retail.SemanticModel") == shop.model()
    assert read_report(project / "Retail.Report") == shop.report()
    assert tidy_folder(project / "Retail.SemanticModel") == []


@pytest.mark.parametrize("read", [lambda folder: project_files(folder, "SemanticModel"), tidy_folder])
def test_a_file_that_is_no_utf_8_is_named_with_its_line(project: Path, read: Any) -> None:
    path = project / "Retail.SemanticModel" / "definition" / "tables" / "Sales.tmdl"
    path.write_bytes(path.read_text(encoding="utf-8").encode("cp1252"))
    line = path.read_bytes().split(b"\xa3")[0].count(b"\n") + 1
    with pytest.raises(ProjectError, match=rf"Sales\.tmdl:{line}: it is no UTF-8 text, by its byte \d+; save it as"):
        read(project)


def test_a_finding_in_a_long_measure_names_the_line_within_it(project: Path, catalog: Any) -> None:
    line = _edit(project / SALES, "Customer[first_invoice_date] <= LastDay", "Customer[first_invoice_day] <= LastDay")
    assert [one.line for one in _errors(project, catalog)] == [line]


def test_a_fault_is_told_once_where_it_is_written_and_not_where_it_is_used(project: Path, catalog: Any) -> None:
    _edit(project / SALES, "SUM ( Sales[gross_sales_gbp] )", "SUM ( Sales[gross] )")
    assert len(_errors(project, catalog)) == 1


def test_a_function_that_only_the_preview_lacks_is_a_warning(project: Path, catalog: Any) -> None:
    line = _edit(project / SALES, "SUM ( Sales[amount_gbp] )", "MEDIAN ( Sales[amount_gbp] )")
    assert _errors(project, catalog) == []
    found = check_project(project, catalog=catalog)
    assert [(one.rule, one.line, one.severity) for one in found] == [("dax", line, "warning")]
    assert "MEDIAN" in found[0].what


def test_a_day_without_its_annotation_is_told_to_add_it(project: Path, catalog: Any) -> None:
    _edit(project / CUSTOMER, "\t\tannotation UnderlyingDateTimeDataType = Date\n", "")
    (found,) = (one for one in _errors(project, catalog) if one.rule == "source-type")
    assert found.remedy == "Add `annotation UnderlyingDateTimeDataType = Date`."


@pytest.mark.parametrize("storage", ["directQuery", "hybrid"])
def test_each_storage_mode_is_a_model_that_asks_the_warehouse_live(storage: str) -> None:
    files = {
        p.relative_to(shop.ROOM / "Retail.SemanticModel").as_posix(): p.read_text(encoding="utf-8")
        for p in shop.ROOM.glob("Retail.SemanticModel/definition/**/*.tmdl")
    }
    model = model_of(with_storage(files, storage))
    assert [
        str(one) for one in (*check_model(model), *check_contracts(model, load_catalog())) if one.severity == "error"
    ] == []
    modes = {table.name: table.partitions[0].mode for table in model.tables}
    sales = model.table("Sales")
    assert sales is not None
    assert {modes[name] for name in ("Date", "Product", "Customer", "Country")} == {"dual"}
    if storage == "hybrid":
        assert modes["Sales"] == "import"
        assert sales.refresh_policy is not None
        assert (
            next(
                child.value
                for node in model.nodes
                if node.name == "Sales"
                for policy in node.all("refreshPolicy")
                for child in policy.children
                if child.name == "mode"
            )
            == "hybrid"
        )
    else:
        assert modes["Sales"] == modes["Data Trust"] == "directQuery"
        assert sales.refresh_policy is None
        assert "RangeStart" not in sales.partitions[0].source, "only the parameters' month would be seen"


def test_the_model_as_import_is_the_files_themselves() -> None:
    assert with_storage({"definition/model.tmdl": "model Model"}, "import") == {"definition/model.tmdl": "model Model"}


def test_tidy_changes_nothing_in_a_tidy_project(project: Path) -> None:
    assert tidy_folder(project) == []


def test_tidy_gives_a_new_measure_a_tag_from_its_name_and_the_same_one_again() -> None:
    text = "table Sales\n\n\t/// Things.\n\tmeasure Things =\n\t\t\tVAR a = 1\n\t\t\tRETURN\n\t\t\t\ta\n\t\tformatString: 0\n\n\tcolumn a\n\t\tdataType: int64\n"
    tidied = tidy_text(text, "Sales.tmdl")
    assert tidied.count("lineageTag: ") == 3
    assert "\t\tformatString: 0\n\t\tlineageTag: " in tidied
    assert tidy_text(tidied, "Sales.tmdl") == tidied
    assert tidy_text(text, "Sales.tmdl") == tidied


def test_tidy_keeps_the_tag_of_a_renamed_object() -> None:
    text = tidy_text("table Sales\n\n\tcolumn a\n\t\tdataType: int64\n", "Sales.tmdl")
    renamed = text.replace("column a", "column b")
    assert tidy_text(renamed, "Sales.tmdl") == renamed
