"""DAX as text: trees and their positions, precedence; what lies outside the subset is refused by name and position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerbi.dax.context import ColumnKey
from powerbi.dax.parse import parse_expression
from powerbi.dax.query import Selection, VisualQuery
from powerbi.dax.syntax import Binary, Bracket, Call, Expr, Name, Number, Rows, Text, Unary, Variables
from powerbi.dax.translate import FUNCTIONS, translate
from powerbi.errors import DaxError, DaxRefusedError, DaxSyntaxError
from powerbi.lint.dax_functions import DAX_FUNCTIONS
from tests.unit.powerbi import shop

if TYPE_CHECKING:
    from powerbi.model import Model


def written(one: Expr) -> str:  # noqa: PLR0911 - one return a case
    """DAX of a tree, with every operation in parentheses."""
    match one:
        case Number():
            return one.text
        case Text():
            return '"' + one.value.replace('"', '""') + '"'
        case Bracket():
            table = "" if one.table is None else "'" + one.table.replace("'", "''") + "'"
            return f"{table}[{one.name.replace(']', ']]')}]"
        case Name():
            return "'" + one.name.replace("'", "''") + "'" if one.is_quoted else one.name
        case Call():
            return f"{one.function}({', '.join(map(written, one.arguments))})"
        case Unary():
            return f"({one.operator} {written(one.operand)})"
        case Binary():
            sign = {"AND": "&&", "OR": "||"}.get(one.operator, one.operator)
            return f"({written(one.left)} {sign} {written(one.right)})"
        case Rows():
            return "{" + ", ".join(written(row[0]) for row in one.rows) + "}"
        case Variables():
            parts = " ".join(f"VAR {name} = {written(value)}" for name, value in one.variables)
            return f"({parts} RETURN {written(one.result)})"
    raise AssertionError(one)


names = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), min_size=1).filter(str.strip)
leaves = st.one_of(
    st.integers(0, 10**9).map(lambda n: Number(0, str(n))),
    st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF)).map(lambda text: Text(0, text)),
    st.builds(Bracket, st.just(0), st.one_of(st.none(), names), names),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(
            Call,
            st.just(0),
            st.sampled_from(sorted(FUNCTIONS - {"NOT"})),
            st.lists(inner, min_size=1, max_size=3).map(tuple),
        ),
        st.builds(Unary, st.just(0), st.sampled_from(["-", "NOT"]), inner),
        st.builds(
            Binary,
            st.just(0),
            st.sampled_from(["+", "-", "*", "/", "^", "&", "=", "<>", "<=", "AND", "OR"]),
            inner,
            inner,
        ),
        st.builds(
            Variables,
            st.just(0),
            st.lists(st.tuples(st.just("total"), inner), min_size=1, max_size=2).map(tuple),
            inner,
        ),
    ),
    max_leaves=12,
)


@given(trees)
def test_a_tree_written_as_dax_is_read_back_as_the_same_dax(tree: Expr) -> None:
    assert written(parse_expression(written(tree))) == written(tree)


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused_with_a_position_inside_it(text: str) -> None:
    try:
        parse_expression(text)
    except DaxSyntaxError as error:
        assert 0 <= error.position <= len(text)  # noqa: PT017 - most texts are no DAX, some are


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("1 + 2 * 3", "(1 + (2 * 3))"),
        ("-2 ^ 2", "(- (2 ^ 2))"),
        ("2 * 3 ^ 2", "(2 * (3 ^ 2))"),
        ("1 - 2 - 3", "((1 - 2) - 3)"),
        ("8 / 4 / 2", "((8 / 4) / 2)"),
        ('"a" & "b" = "ab"', '(("a" & "b") = "ab")'),
        ("1 + 2 = 3 && 4 > 3 || [x] = 1", "((((1 + 2) = 3) && (4 > 3)) || ([x] = 1))"),
        ("NOT [a] && [b]", "((NOT [a]) && [b])"),
        ("[a] IN {1, 2}", "([a] IN {1, 2})"),
        ("VAR a = 1 RETURN a + 1", "(VAR a = 1 RETURN (a + 1))"),
        ("sum ( 'Data Trust'[rows] )", "SUM('Data Trust'[rows])"),
        ("1 // comment\n + 2 -- another\n /* and /* this */", "(1 + 2)"),
        ("'It''s'[a]]b]", "'It''s'[a]b]".replace("a]b]", "a]]b]")),
    ],
)
def test_operators_bind_as_microsoft_says(text: str, meant: str) -> None:
    assert written(parse_expression(text)) == meant


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("SUM ( Sales[a]", 14),
        ("SUM ( Sales[a] ) )", 17),
        ("CALCULATE ( [a],, [b] )", 16),
        ("1 +", 3),
        ("VAR a = 1", 9),
        ("[a] [b]", 4),
        ('"never closed', 0),
        ("", 0),
        ("1 § 2", 2),
        ("IF ( , 1 )", 5),
    ],
)
def test_what_is_no_dax_is_refused_at_its_character(text: str, position: int) -> None:
    with pytest.raises(DaxSyntaxError) as refused:
        parse_expression(text, where="here")
    assert refused.value.position == position
    assert str(refused.value).startswith(f"here, character {position + 1}: ")


@pytest.fixture(scope="module")
def model() -> Model:
    return shop.model()


def asked(model: Model, dax: str) -> Any:
    return translate(model, VisualQuery((), (("asked", dax),)))


@pytest.mark.parametrize("function", sorted(DAX_FUNCTIONS - FUNCTIONS - {"ROW", "SUMMARIZECOLUMNS"}))
def test_function_outside_the_subset_is_refused_by_name(model: Model, function: str) -> None:
    with pytest.raises(DaxRefusedError) as refused:
        asked(model, f"1 + {function} ( Sales[quantity] )")
    assert function in refused.value.what
    assert refused.value.position == 4


@pytest.mark.parametrize(
    ("dax", "name"),
    [
        ("SUM ( Sales[nothing] )", "nothing"),
        ("SUM ( Nowhere[quantity] )", "Nowhere"),
        ("[No Such Measure] + 1", "No Such Measure"),
        ("SUM ( Sales[country] )", "country"),
        ("Sales[quantity] + 1", "quantity"),
        ("CALCULATE ( [Net Sales], DATEADD ( Sales[invoice_date], -1, DAY ) )", "date table"),
        ("CALCULATE ( [Net Sales], DATEADD ( 'Date'[date], -1, FORTNIGHT ) )", "MONTH"),
        ("SUMX ( Sales, [Net Sales] )", "measure"),
        ("RANKX ( Product, [Net Sales] )", "ALL(column)"),
        ("DIVIDE ( 1 )", "DIVIDE"),
        ("CALCULATE ( [Net Sales], USERELATIONSHIP ( Sales[country], Product[product] ) )", "relationship"),
        ("UNHEARDOF ( 1 )", "UNHEARDOF"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_name(model: Model, dax: str, name: str) -> None:
    with pytest.raises(DaxRefusedError) as refused:
        asked(model, dax)
    assert name in str(refused.value)


def test_position_inside_a_measure_that_is_used_names_that_measure(model: Model) -> None:
    from dataclasses import replace

    def broken(table: Any) -> Any:
        measures = tuple(
            replace(one, expression="1 + MEDIAN ( Sales[quantity] )") if one.name == "Returns" else one
            for one in table.measures
        )
        return replace(table, measures=measures)

    changed = replace(model, tables=tuple(broken(table) for table in model.tables))
    with pytest.raises(DaxRefusedError) as refused:
        asked(changed, "[Net Sales] * 2")
    assert (refused.value.where, refused.value.position) == ("measure [Returns]", 4)


@given(value=st.text(max_size=40))
def test_whatever_a_reader_selects_is_only_a_value(value: str) -> None:
    model, connection = shop.model(), _emptied()
    for column in (ColumnKey("Country", "country"), ColumnKey("Sales", "invoice_no")):
        query = VisualQuery((), (("net", "[Net Sales]"),), (Selection(column, (value,)),))
        assert connection.execute(translate(model, query).sql).fetchall() == [(None,)]
    for column in (ColumnKey("Date", "date"), ColumnKey("Sales", "quantity")):
        try:
            statement = translate(model, VisualQuery((), (("net", "[Net Sales]"),), (Selection(column, None, value),)))
        except DaxError:
            continue
        connection.execute(statement.sql)


_CONNECTIONS: list[Any] = []


def _emptied() -> Any:
    """The model's tables without rows, made once."""
    if not _CONNECTIONS:
        import duckdb

        from powerbi.dax.context import quote
        from powerbi.standin.copied import column_type

        connection = duckdb.connect()
        connection.execute("CREATE SCHEMA model")
        for table in shop.model().tables:
            columns = ", ".join(f"{quote(one.name)} {column_type(one)}" for one in table.columns)
            connection.execute(f"CREATE TABLE model.{quote(table.name)} ({columns})")
        _CONNECTIONS.append(connection)
    return _CONNECTIONS[0]
