"""SQL that the emulator has translated before is not translated again.

The emulator turns each statement into the SQL of DuckDB by Python that walks its syntax tree some twenty times: 1.6 of
the 2.2 s that it takes to publish a day. But a warehouse's scripts come again and again, and differ only in some
literals and in names of datasets and staging tables. So a translation is kept as a template of what differs
(KnownTranslations), together with what it asked the catalog and was answered (Catalog). It holds for another statement
that differs in nothing else, for as long as the same questions have the same answers.

Nothing is taken on trust. What differs is replaced by words that occur nowhere else, and the statement with these words
is translated, too; a template is made only if that translation, with the words replaced by what stood there, is the
statement's own. Statements of which that cannot be said (system variables, metadata, time travel, DDL) are left alone.
With `--translations check` each statement is translated all the same, and a difference is an error.

Not here: how a statement is run. This reaches into the emulator's modules, whose version is pinned in pyproject.toml.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import sqlglot
from local_bigquery.catalog import metadata, row_access, tables
from local_bigquery.engine import database
from local_bigquery.jobs import query
from local_bigquery.models import Table
from local_bigquery.sql import js, script
from local_bigquery.sql.dialect import BigQueryDialect
from local_bigquery.sql.rules import ddl
from local_bigquery.sql.rules.parameters import VALUE
from sqlglot import exp

if TYPE_CHECKING:
    from collections.abc import Callable

SHORTEST = 40  # characters; what is shorter is translated in some milliseconds
SKELETONS = 500  # texts without their literals; each is some 10 kB of strings once it is a template
TEMPLATES_A_SKELETON = 16
FAILURES_A_SKELETON = 4
# What the translation takes from elsewhere than the text, the catalog and the variables' names.
ELSEWHERE = re.compile(
    r"@@|INFORMATION_SCHEMA|SYSTEM_TIME|EXTERNAL_QUERY|BIGNUMERIC|SESSION_USER|__TABLES__|_TABLE_SUFFIX|\bML\s*\.",
    re.IGNORECASE,
)
LASTING = re.compile(r"\s*(?:CREATE(?!\s+TEMP)|ALTER|DROP|MERGE)\b", re.IGNORECASE)  # never by a template
LEXEME = re.compile(
    r"""(?P<fixed>--[^\n]*|\#[^\n]*|/\*.*?\*/|(?:\b[rRbB]{1,2})?(?:'''.*?'''|\"\"\".*?\"\"\")|\b[rRbB]{1,2}(?:'|")"""
    r"""(?:\\.|[^\\\n])*?(?:'|")|"(?:\\.|[^"\\\n])*"|[@A-Za-z_]\w*)"""
    r"""|'(?P<text>(?:\\.|[^'\\\n])*)'|`(?P<name>[^`]*)`|(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)""",
    re.DOTALL,
)
INTEGER = re.compile(r"[1-9]\d{0,17}")  # not 0: a division by it is translated to an error, by others to a division
DECIMAL = re.compile(r"-?\d{1,28}(?:\.\d{1,9})?")
WORDS = re.compile(  # what reads as no number
    r"(?!(?:inf|infinity|nan|true|false|null)$)[A-Za-z][A-Za-z0-9 _.:+/-]*|(?=[0-9-]*[a-d])[0-9a-f]{4,}[0-9a-f-]*",
    re.IGNORECASE,
)
NAME = re.compile(r"[a-z_][a-z0-9_]*")
# Of a table's description, what says nothing about how it is read; its columns are asked for themselves.
VOLATILE = {
    "tableReference", "id", "selfLink", "etag", "creationTime", "lastModifiedTime", "expirationTime", "description",
    "friendlyName", "labels", "schema", "clustering",
}  # fmt: skip
KINDS = (exp.Select, exp.SetOperation, exp.Insert, exp.Update, exp.Delete)
SENTINEL = re.compile(r"zq\d+qz|8101\d{9}(?:\.5)?|810\d-\d\d-\d\d")


def _class(text: str) -> str | None:
    """Of which kind a string literal is: those of one kind are translated alike. None: of a kind of its own."""
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        try:
            date.fromisoformat(text)
        except ValueError:
            return None
        return "date"
    if DECIMAL.fullmatch(text):
        return "decimal"
    return "words" if WORDS.fullmatch(text) else None


def _sentinel(kind: str, number: int) -> str:
    if kind == "date":
        return (date(8101, 1, 1) + timedelta(days=number)).isoformat()
    if kind == "integer":
        return f"8101{number:09d}"
    if kind == "decimal":
        return f"8101{number:09d}.5"
    return f"zq{number}qz"


@dataclass(frozen=True)
class Text:
    """A statement, taken apart: what stays, of which kinds the literals between are, and their values."""

    pieces: tuple[str, ...]
    kinds: tuple[str, ...]
    values: tuple[str, ...]

    def with_values(self, values: tuple[str, ...]) -> str:
        """The statement with other values."""
        return "".join(part for pair in zip(self.pieces, (*values, ""), strict=True) for part in pair)


def take_apart(sql: str) -> Text:
    """Find the literals and the parts of quoted names that may differ from one statement to the next."""
    pieces, kinds, values, end = [], [], [], 0

    def lift(kind: str, start: int, stop: int) -> None:
        nonlocal end
        pieces.append(sql[end:start])
        kinds.append(kind)
        values.append(sql[start:stop])
        end = stop

    for found in LEXEME.finditer(sql):
        if found["number"] is not None and INTEGER.fullmatch(found["number"]):
            lift("integer", *found.span())
        elif found["text"] is not None and (kind := _class(found["text"])):
            lift(kind, *found.span("text"))
        elif found["name"] is not None:
            start = found.start("name")
            for part in found["name"].split("."):
                if NAME.fullmatch(part):
                    lift("name", start, start + len(part))
                start += len(part) + 1
    return Text((*pieces, sql[end:]), tuple(kinds), tuple(values))


class Catalog:
    """What a translation asks about tables, and what it was answered: asked again, it says whether that still holds."""

    def __init__(self, forms: Callable[[list[tuple[str, str, str]]], list[tuple[Any, ...] | None]]) -> None:
        self._forms = forms
        self._of_thread = threading.local()
        self._writes: Counter[tuple[str, ...]] = Counter()  # of each table; under () those of anything else
        self._ask: dict[str, Callable[..., Any]] = {}

    def install(self) -> None:
        """Listen to the functions by which the emulator asks."""
        for name, module, attribute in (
            ("fetch", database, "fetch"),
            ("objects", database, "objects"),
            ("columns", tables, "columns"),
            ("resources", metadata, "list_"),
            ("policies", row_access, "fetch"),
        ):
            self._ask[name] = getattr(module, attribute)
            setattr(module, attribute, self._listening(name))
        execute = metadata.execute

        def write(sql: str, parameters: list[Any]) -> None:
            execute(sql, parameters)
            of_table = len(parameters) > 2 and ("emulator.tables" in sql or sql.startswith("DELETE"))  # noqa: PLR2004
            if of_table:  # a table that is dropped takes its policies with it: there were none where a template holds
                self._writes[tuple(parameters[:3])] += 1
            elif "iam_policies" not in sql:  # nobody asks for those
                self._writes[()] += 1

        metadata.execute = write

    def _listening(self, name: str) -> Callable[..., Any]:
        def ask(*arguments: Any) -> Any:
            heard = getattr(self._of_thread, "heard", None)
            if heard is None:
                return self._ask[name](*arguments)
            self._of_thread.heard = None  # what the answer itself asks is no question of the translation
            try:
                outcome = self._outcome(name, arguments)
            finally:
                self._of_thread.heard = heard
            heard.append((name, arguments, outcome[0]))
            if isinstance(outcome[1], Exception):
                raise outcome[1]
            return outcome[1]

        return ask

    def _outcome(self, name: str, arguments: tuple[Any, ...]) -> tuple[Any, Any]:
        """What of an answer counts, and the answer, which may be an error."""
        real: dict[str, str] = getattr(self._of_thread, "real", {})
        try:
            answer = self._ask[name](*_replaced(arguments, real))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised or compared by whoever asked
            return type(error), error
        return _counting(name, answer), answer

    def listen(self, work: Callable[[], Any], real: dict[str, str]) -> tuple[Any, list[tuple[Any, ...]]]:
        """Do the work; its result, and its questions with what counts of the answers.

        Args:
            work: what asks.
            real: names that exist, by those that stand for them in the questions.
        """
        heard: list[tuple[Any, ...]] = []
        self._of_thread.heard, self._of_thread.real = heard, real
        try:
            return work(), heard
        finally:
            self._of_thread.heard, self._of_thread.real = None, {}

    def holds(self, questions: list[tuple[Any, ...]], values: dict[str, str]) -> bool:
        """Whether the questions, with the values in their place, have the answers that they had."""
        return all(self._outcome(name, _replaced(asked, values))[0] == was for name, asked, was in questions)

    def state(self, named: list[tuple[str, str, str]]) -> tuple[Any, ...] | None:
        """What changes with every change of these tables' columns or descriptions; None: not known."""
        forms = self._forms(named)
        return None if None in forms else (self._writes[()], *(self._writes[each] for each in named), *forms)


def tables_of(questions: list[tuple[Any, ...]]) -> list[tuple[str, str, str]] | None:
    """Project, dataset and table of each question; None: some are about more than one table, or may expire."""
    found = []
    for name, asked, was in questions:
        if name == "resources":
            if any(expires for *_, expires in was):
                return None
        elif name == "fetch" and "duckdb_columns()" in asked[0]:
            found.append(tuple(asked[1][:3]))
        elif name in ("objects", "columns") and len(asked) == 3 and None not in asked:  # noqa: PLR2004
            found.append(asked)
        elif name != "policies":
            return None
    return sorted(set(found))


def _counting(name: str, answer: Any) -> Any:
    if name == "objects":  # their rows do not count
        return [row[:2] for row in answer] if len(answer) > 1 else [row[1] for row in answer]
    if name == "resources":
        return [
            (
                {key: value for key, value in each.dump().items() if key not in VOLATILE},
                isinstance(each, Table) and tables.expired(each),
                isinstance(each, Table) and each.expirationTime is not None,
            )
            for each in answer
        ]
    return answer


def _replaced(value: Any, by: dict[str, str]) -> Any:
    """Strings in a value with sentinels replaced."""
    if isinstance(value, str):
        return SENTINEL.sub(lambda found: by.get(found[0], found[0]), value) if by else value
    if isinstance(value, tuple | list | set | frozenset):
        return type(value)(_replaced(each, by) for each in value)
    return value


@dataclass(frozen=True)
class Translation:
    """What a translation gives and does. In a template, strings hold sentinels.

    Attributes:
        sql: in DuckDB's dialect.
        used: names of the parameters that it binds.
        referenced: tables that it reads, as the context is told.
        temporary: names of temporary tables that it makes.
        target: catalog, dataset and table that its syntax tree names first, as they are written.
    """

    sql: str
    used: frozenset[str]
    referenced: frozenset[tuple[str, ...]]
    temporary: frozenset[str]
    target: tuple[str, str, str]

    def with_values(self, by: dict[str, str]) -> Translation:
        """With sentinels replaced."""
        return Translation(
            *(_replaced(part, by) for part in (self.sql, self.used, self.referenced, self.temporary, self.target))
        )


@dataclass
class Template:
    """A translation in which some literals stand open, and what it rests on.

    Attributes:
        translation: with sentinels for what is open.
        questions: to the catalog: function, arguments, and what counts of the answer.
        form: the statement's kind, as an empty syntax tree.
        assigned: variable that a SET assigns to; else empty.
        named: tables that the questions are about; None where some are about more.
        lifted: positions that are open.
        held: by tables, the state in which the questions had these answers.
    """

    translation: Translation
    questions: list[tuple[Any, ...]]
    form: exp.Expression
    assigned: str
    named: list[tuple[str, str, str]] | None
    lifted: tuple[int, ...] = ()
    held: dict[tuple[tuple[str, str, str], ...], tuple[Any, ...]] = field(default_factory=dict)


@dataclass
class Skeleton:
    """Statements that differ in literals at most: the last one's, which positions are open, and templates.

    Attributes:
        seen: literals of the last statement.
        lifted: positions that are open in the templates.
        fixed: positions that cannot be open, or not with what was tried.
        templates: by the literals that are not open.
        failures: how many attempts at a template have failed.
        lock: for one statement at a time: which literals are open may change while a template is made.
    """

    seen: tuple[str, ...]
    lifted: frozenset[int] = frozenset()
    fixed: frozenset[int] = frozenset()
    templates: OrderedDict[tuple[str, ...], list[Template]] = field(default_factory=OrderedDict)
    failures: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def closed(self, values: tuple[str, ...]) -> tuple[str, ...]:
        """The literals that are not open."""
        return tuple(value for at, value in enumerate(values) if at not in self.lifted)


@dataclass(frozen=True)
class Known:
    """A statement's translation, and a small syntax tree by which it is dispatched."""

    text: str
    translation: Translation
    tree: exp.Expression
    assigned: str


class KnownTranslations:
    """Translations by text. Statements and assignments of scripts ask here first."""

    def __init__(self, catalog: Catalog, *, check: bool = False) -> None:
        self._catalog, self._check = catalog, check
        self._skeletons: OrderedDict[bytes, Skeleton] = OrderedDict()
        self._lock = threading.Lock()
        self._of_thread = threading.local()
        self._translate = query.translate
        self._from_duckdb = query.from_duckdb
        self._is_udf = js.is_udf
        self._sql, self._set = script.Interpreter.sql, script.Interpreter.set
        self._execute, self._temporary_table = query.execute, script._temporary_table  # noqa: SLF001

    def install(self) -> None:
        """Take the place of the emulator's own functions."""
        self._catalog.install()
        query.translate, query.from_duckdb = self.translate, self.from_duckdb
        # walked the whole tree of each statement for a clause that only CREATE has
        js.is_udf = lambda tree: isinstance(tree, exp.Create) and self._is_udf(tree)
        script.Interpreter.sql = lambda interpreter, statement: self.sql(interpreter, statement)  # noqa: PLW0108 - binds
        script.Interpreter.set = lambda interpreter, statement: self.set(interpreter, statement)  # noqa: PLW0108
        query.execute, script._temporary_table = self.execute, self.temporary_table  # noqa: SLF001

    def execute(self, *arguments: Any, session: Any = None, **options: Any) -> Any:
        """Run a query job. Its variables are tables, which are numbered so that the next job has the same."""
        outer = getattr(self._of_thread, "numbered", None)
        self._of_thread.numbered = None if session else 0
        try:
            return self._execute(*arguments, session=session, **options)
        finally:
            self._of_thread.numbered = outer

    def temporary_table(self, prefix: str) -> str:
        """A name for a table of a variable, new in its connection."""
        number: int | None = getattr(self._of_thread, "numbered", None)
        if number is None:
            return str(self._temporary_table(prefix))
        self._of_thread.numbered = number + 1
        return f'temp.main."__{prefix}_{number}"'

    def sql(self, interpreter: script.Interpreter, statement: script.Statement) -> None:
        """Run a statement of a script."""
        known = self.find("SQL", statement.text, interpreter.context) if statement.kind == "SQL" else None
        if known is None:
            self._sql(interpreter, statement)
            return
        self._of_thread.known = known
        try:
            statistics = interpreter.run_sql(known.tree)
        finally:
            self._of_thread.known = None
        if statistics and statistics.numDmlAffectedRows is not None:
            interpreter.context.system["row_count"] = int(statistics.numDmlAffectedRows)

    def set(self, interpreter: script.Interpreter, statement: script.Statement) -> None:
        """Assign to a variable."""
        known = self.find("SET", statement.text, interpreter.context)
        if known is None:
            self._set(interpreter, statement)
            return
        table = interpreter.variable(known.assigned)
        sql, bound = self._result(known, interpreter.context)
        interpreter.cursor.execute(f"UPDATE {table} SET {VALUE} = (SELECT {VALUE} FROM ({sql}))", bound)

    def translate(self, tree: exp.Expression, context: Any) -> tuple[str, dict[str, Any]]:
        """A statement in DuckDB's dialect, and what is bound to its parameters."""
        known: Known | None = getattr(self._of_thread, "known", None)
        if known is None or tree is not known.tree:
            return self._translate(tree, context)
        return self._result(known, context)

    def from_duckdb(self, error: Exception, context: Any, tree: exp.Expression) -> Exception:
        """An error as BigQuery words it; for its position the statement is parsed after all."""
        known: Known | None = getattr(self._of_thread, "known", None)
        if known is not None and tree is known.tree:
            [tree] = script.parse(known.text)
        return self._from_duckdb(error, context, tree)

    def _result(self, known: Known, context: Any) -> tuple[str, dict[str, Any]]:
        made = known.translation
        context.used.clear()
        context.used |= made.used
        context.referenced |= made.referenced
        context.temporary |= made.temporary
        return made.sql, {name: context.values[name] for name in made.used}

    def find(self, kind: str, text: str, context: Any) -> Known | None:
        """A statement's translation, if one of its form is known. kind: SQL or SET."""
        if (
            len(text) < SHORTEST
            or LASTING.match(text)
            or ELSEWHERE.search(text)
            or context.functions
            or context.settings
        ):
            return None
        if any(not isinstance(value, str) for value in context.parameters.values()):
            return None
        apart = take_apart(text)
        skeleton = self._skeleton(kind, apart, context)
        if skeleton is None or skeleton.failures >= FAILURES_A_SKELETON:
            return None
        with skeleton.lock:
            return self._find_in(skeleton, kind, apart, text, context)

    def _find_in(self, skeleton: Skeleton, kind: str, apart: Text, text: str, context: Any) -> Known | None:
        templates = skeleton.templates.get(skeleton.closed(apart.values))
        if not templates:
            templates = self._another(skeleton, kind, apart, context)
        skeleton.seen = apart.values
        for template in templates:
            if self._holds(template, apart):
                return self._known(template, apart, text, context)
        if templates:  # the tables have another form than those of the templates
            templates += self._made(kind, apart, skeleton.lifted, context) or []
            del templates[:-TEMPLATES_A_SKELETON]
            if self._holds(templates[-1], apart):
                return self._known(templates[-1], apart, text, context)
            skeleton.failures += 1
        return None

    def _skeleton(self, kind: str, apart: Text, context: Any) -> Skeleton | None:
        """The skeleton of a text; None at the first sight of one."""
        parts = (
            kind,
            apart.pieces,
            apart.kinds,
            context.project_id,
            context.dataset_id,
            sorted(context.variables.items()),
            sorted(context.parameters.items()),
            sorted(context.values),
            sorted(context.temporary),
        )
        key = hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()
        with self._lock:
            skeleton = self._skeletons.get(key)
            if skeleton is None:
                self._skeletons[key] = Skeleton(apart.values)
                if len(self._skeletons) > SKELETONS:
                    self._skeletons.popitem(last=False)
            else:
                self._skeletons.move_to_end(key)
        return skeleton

    def _another(self, skeleton: Skeleton, kind: str, apart: Text, context: Any) -> list[Template]:
        """Templates for literals for which there is none yet: those that differ from the last ones' become open."""
        differ = {at for at, (old, new) in enumerate(zip(skeleton.seen, apart.values, strict=True)) if old != new}
        fresh = frozenset(differ - skeleton.lifted - skeleton.fixed)
        closed = skeleton.closed(apart.values)
        if not fresh and skeleton.fixed and closed not in skeleton.templates:
            skeleton.templates[closed] = []  # made at the second sight: some literals never come again
            while len(skeleton.templates) > TEMPLATES_A_SKELETON:
                skeleton.templates.popitem(last=False)
            return []
        made = self._made(kind, apart, skeleton.lifted | fresh, context)
        if made is None:
            skeleton.failures += 1
            skeleton.fixed |= fresh
            return []
        if fresh:
            skeleton.lifted |= fresh
            skeleton.templates.clear()
        skeleton.templates[skeleton.closed(apart.values)] = made
        return made

    def _made(self, kind: str, apart: Text, lifted: frozenset[int], context: Any) -> list[Template] | None:
        """A template with these positions open; None: there is none."""
        positions = tuple(sorted(lifted))
        sentinels = _sentinels(positions, apart)
        real = _by_sentinel(positions, apart)
        opened = tuple(sentinels.get(at, value) for at, value in enumerate(apart.values))
        try:
            own = self._traced(kind, apart.with_values(apart.values), context, {})
            made = self._traced(kind, apart.with_values(opened), context, real) if sentinels else own
        except Exception:  # noqa: BLE001 - a wrong statement, or one that is none with these words; it is run as it is
            return None
        if own is None or made is None or made.translation.with_values(real) != own.translation:
            return None
        if any(name == "policies" and was for name, _, was in own.questions):
            return None  # they depend on who asks
        left = SENTINEL.sub(" ", made.translation.sql)
        if any(sentinel not in made.translation.sql for sentinel in real) or any(
            apart.kinds[at] == "name" and _holds_word(left, apart.values[at]) for at in lifted
        ):
            return None  # a name that an answer brought would stay where another one is meant
        return [replace(made, lifted=positions)]

    def _traced(self, kind: str, text: str, context: Any, real: dict[str, str]) -> Template | None:
        """Translate, and write down what was asked. real: names that exist, by the sentinels in their place."""
        tree, assigned = _parsed(kind, text)
        if tree is None or context.position:
            return None
        own = replace(context, used=set(), referenced=set(), temporary=set(context.temporary))
        (sql, _), questions = self._catalog.listen(lambda: self._translate(tree, own), real)
        if own.position:  # parameters without a name
            return None
        target = tree.find(exp.Table)
        translation = Translation(
            sql,
            frozenset(own.used),
            frozenset(own.referenced),
            frozenset(own.temporary - context.temporary),
            ("", "", "") if target is None else (target.catalog, target.db, target.name),
        )
        return Template(translation, questions, _form(tree), assigned, tables_of(questions))

    def _holds(self, template: Template, apart: Text) -> bool:
        by = _by_sentinel(template.lifted, apart)
        named = None if template.named is None else _replaced(template.named, by)
        state = None if named is None else self._catalog.state(named)
        if state is not None and template.held.get(tuple(named)) == state:
            return True
        if not self._catalog.holds(template.questions, by):
            return False
        if state is not None:
            if len(template.held) >= TEMPLATES_A_SKELETON:
                template.held.clear()
            template.held[tuple(named)] = state
        return True

    def _known(self, template: Template, apart: Text, text: str, context: Any) -> Known:
        made = template.translation.with_values(_by_sentinel(template.lifted, apart))
        if self._check:
            own = self._traced("SET" if template.assigned else "SQL", text, context, {})
            if own is None or own.translation != made:
                raise RuntimeError(f"a translation from a template differs:\n{text}\n\n{made}\n\n{own}")
        return Known(text, made, _with_target(template.form, made.target), template.assigned)


def _sentinels(positions: tuple[int, ...], apart: Text) -> dict[int, str]:
    return {at: _sentinel(apart.kinds[at], number) for number, at in enumerate(positions)}


def _by_sentinel(positions: tuple[int, ...], apart: Text) -> dict[str, str]:
    return {sentinel: apart.values[at] for at, sentinel in _sentinels(positions, apart).items()}


def _holds_word(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None


def _parsed(kind: str, text: str) -> tuple[exp.Expression | None, str]:
    """The syntax tree that the emulator translates for a statement or an assignment; None: not one for templates."""
    if kind == "SQL":
        trees = script.parse(text)
        if len(trees) != 1:
            return None, ""
        [tree] = trees
        temporary = isinstance(tree, exp.Create) and tree.find(exp.TemporaryProperty) is not None
        made = temporary and tree.args.get("kind") == "TABLE" and isinstance(tree.expression, exp.Query)
        if not (isinstance(tree, KINDS) or made) or ddl.normalise(tree) is not tree:
            return None, ""
        parts = ddl.split(tree)
        return (tree, "") if len(parts) == 1 and parts[0] is tree else (None, "")
    items = sqlglot.parse_one(text, dialect=BigQueryDialect).expressions
    if len(items) != 1:
        return None, ""
    target, value = items[0].this.this, items[0].this.expression
    if isinstance(target, exp.Parameter | exp.Tuple) or isinstance(value, exp.Tuple | exp.Var) or not target.name:
        return None, ""
    return exp.Select(expressions=[exp.Alias(this=value, alias=exp.to_identifier(VALUE))]), target.name


def _form(tree: exp.Expression) -> exp.Expression:
    """A tree of the same form with nothing in it: what a statement is dispatched by."""
    if isinstance(tree, exp.Create):
        empty = exp.Create(kind="TABLE", properties=exp.Properties(expressions=[exp.TemporaryProperty()]))
        for key in ("replace", "exists"):
            empty.set(key, tree.args.get(key))
        empty.set("expression", exp.Select())
        return empty
    return type(tree)()


def _with_target(form: exp.Expression, target: tuple[str, str, str]) -> exp.Expression:
    tree = form.copy()
    if not isinstance(form, exp.Query):
        catalog, dataset, table = (exp.to_identifier(part) if part else None for part in target)
        tree.set("this", exp.Table(this=table, db=dataset, catalog=catalog))
    return tree
