"""Connections to the lake, and what a Postgres error means. Not here: any statement about events."""

from __future__ import annotations

import re
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote

import psycopg2
from psycopg2 import errors as pg
from psycopg2.extensions import parse_dsn

from streaming.errors import LakeRefusedError, LakeUnavailableError, LandingError, MigrationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import connection as Connection  # noqa: N812 a class with a lower-case name

CONNECT_TIMEOUT_S = 10  # a host that drops packets is noticed; a busy server answers within it
# A peer that vanished without a word is noticed after 25 to 30 s, on both sides; the kernel's own limits are 15 min for
# bytes on their way and 2 h for silence, and the server would keep our locks for as long.
KEEPALIVE: dict[str, Any] = {
    "keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000,
}  # fmt: skip
SERVER_OPTIONS = (  # READ COMMITTED, since whoever has waited for a lock has to see what was written meanwhile
    "-c TimeZone=UTC -c client_encoding=UTF8 -c default_transaction_isolation=read\\ committed "
    "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 -c tcp_user_timeout=30000"
)
RETRYABLE = (
    psycopg2.OperationalError,  # connection lost, disk full, deadlock, shutdown
    psycopg2.InterfaceError,  # the connection is closed already
    pg.ReadOnlySqlTransaction,  # a fail-over has made this server a standby
)
READ_ONLY = (
    "LAKE_DSN leads to a standby (it has to lead to the primary, also after a fail-over), or its user or database has "
    "default_transaction_read_only = on (see ALTER ROLE and ALTER DATABASE)"
)
CANCELED = "If statement_timeout does it each time: ALTER ROLE ... SET statement_timeout = 0 for the user of LAKE_DSN"
# A server that answers says FATAL; these pass by themselves ("try again" is a pooler's).
PASSING = (
    "starting up|shutting down|accepting connections|recovery|too many|remaining connection slots|try again|"
    "terminating connection|authentication due to timeout|No space left|out of memory"
)
# Until the log-in is done a server speaks the language of its own lc_messages, and libpq shows no code beside it.
# The passing ones in the languages that say FATAL too (de, es, fr, ja; any other is taken for passing). No refusal
# speaks of the database system. In ASCII where it can be, since an answer may be in another encoding than UTF-8.
PASSING_ELSEWHERE = (
    "sistema de bases? de datos|demasiad|conexiones restantes|terminando la conexi|"
    "autentificaci.n debido|memoria agotada|"
    "das Datenbanksystem|zu viele Verbindungen|verbleibenden Verbindungen|Verbindung wird abgebrochen|"
    "storniere Authentifizierung|Speicher aufgebraucht|"
    "me de bases? de donn|trop de c|connexions restant|arr.t des? (?:la )?connexion|annulation de l'authentification|"
    "moire .puis|"
    "データベースシステム|多すぎます|残りの接続|接続を終了|認証処理をキャンセル|メモリ不足"
)
# What libpq itself has found out before the server could say so: waiting does not mend a setting.
AMISS = "no password supplied|server does not support SSL|root certificate file|certificate verify failed"
REFUSED = re.compile(rf"FATAL:(?!.*(?:{PASSING}|{PASSING_ELSEWHERE}))|{AMISS}", re.DOTALL)
# Of a URI's query, with what of it stands behind a bare &; of key=value pairs; and of a URI's log-in, which ends at the
# last @, as a password that is not percent-encoded may hold others, a blank or a slash.
IN_QUERY = r"(?P<query>[?&][^=&]*password=)(?P<a>[^&]*(?:&[^=&]*(?=&|$))*)"
IN_PAIRS = r"(?P<pairs>password\s*=\s*)(?P<b>'(?:[^'\\]|\\.)*'|\S+)"
SETTING = re.compile(f"{IN_QUERY}|{IN_PAIRS}", re.IGNORECASE)
LOG_IN = re.compile(r"(//[^:@]*:)(.*)@", re.DOTALL)
NOT_ENCODED = re.compile(r"[@/\s]|%(?![0-9a-f]{2})", re.IGNORECASE)
PARTS = re.compile(r"[%@/?#&=:,\[\]\s]+")  # where libpq may take a password apart that is not percent-encoded
SHORTEST_PART = 3  # shorter ones are in every text
ENCODE = "Percent-encode the password in it: @ is %40, / is %2F, % is %25, a blank is %20."


def connect(dsn: str, *, application_name: str) -> Connection:
    """A connection in UTC that notices a dead server.

    Raises:
        LakeRefusedError: the server refuses the log-in, or LAKE_DSN cannot be read.
        LakeUnavailableError: it cannot be reached.
    """
    try:
        conn: Connection = psycopg2.connect(
            dsn,
            application_name=application_name,
            connect_timeout=CONNECT_TIMEOUT_S,
            options=f"{parse_dsn(dsn).get('options', '')} {SERVER_OPTIONS}",  # given beside a DSN it takes its place
            **KEEPALIVE,
        )
    except (psycopg2.OperationalError, UnicodeDecodeError) as error:
        text = _connect_text(error)
        kind = LakeRefusedError if REFUSED.search(text) else LakeUnavailableError
        encode = f" {ENCODE}" if any(map(NOT_ENCODED.search, _passwords(dsn))) else ""
        raise kind(
            f"connecting to the lake {hide_password(dsn)}: {hide_password(text, dsn).strip()}. "
            f"Nothing was written. Check that PostgreSQL is up and LAKE_DSN is right.{encode}"
        ) from None  # libpq's own text may hold the password
    except psycopg2.ProgrammingError as error:
        raise LakeRefusedError(
            f"reading LAKE_DSN {hide_password(dsn)}: {hide_password(str(error), dsn).strip()}. Nothing was written. "
            f"Check how it is written. {ENCODE}"
        ) from None
    return conn


def _connect_text(error: psycopg2.OperationalError | UnicodeDecodeError) -> str:
    """What was told; psycopg2 stumbles over a server whose own words are not in UTF-8 (lc_messages es_ES, Windows)."""
    return error.object.decode("cp1252", "replace") if isinstance(error, UnicodeDecodeError) else str(error)


@contextmanager
def connected(dsn: str, *, command: str) -> Iterator[Connection]:
    """A connection for one command of ours; what Postgres refuses on it is told with what to do."""
    with closing(connect(dsn, application_name=f"streaming {command}")) as conn:
        tried = f"asking the lake for `streaming {command}`"
        try:
            with telling_outages(tried, remedy="What was done before stays; run it again."):
                yield conn
        except psycopg2.Error as error:
            raise_landing_error(error, tried)


@contextmanager
def telling_outages(tried: str, *, remedy: str) -> Iterator[None]:
    """For who uses a connection: one that is lost meanwhile is told as one that is not to be had.

    Raises:
        LakeUnavailableError: the server has gone.
    """
    try:
        yield
    except psycopg2.Error as error:
        if not is_outage(error):
            raise
        raise LakeUnavailableError(f"{tried}: {told_error(error)}. {remedy}") from error


def hide_password(text: str, dsn: str = "") -> str:
    """The text without passwords of connection strings; and without that of `dsn`, which libpq quotes in parts."""
    shown = LOG_IN.sub(r"\1***@", SETTING.sub(lambda match: (match["query"] or match["pairs"]) + "***", text))
    return _hide_parts(shown, dsn) if dsn else shown


def _hide_parts(text: str, dsn: str) -> str:
    """What stands elsewhere in the DSN too, such as a user of the same name, is no secret and stays."""
    open_part = hide_password(dsn)
    parts = {part for found in _passwords(dsn) for part in (found, unquote(found), *PARTS.split(found))}
    for part in sorted(parts, key=len, reverse=True):
        if len(part) >= SHORTEST_PART and part not in open_part:
            text = text.replace(part, "***")
    return text


def _passwords(dsn: str) -> list[str]:
    settings = [match["a"] or match["b"] or "" for match in SETTING.finditer(dsn)]
    return settings + [match[2] for match in LOG_IN.finditer(SETTING.sub("", dsn))]


@contextmanager
def transaction(conn: Connection) -> Iterator[Any]:
    """A cursor within one transaction: committed at the end, rolled back on any error."""
    try:
        with conn.cursor() as cursor:
            yield cursor
        conn.commit()
    except BaseException:
        if not conn.closed:
            try:
                conn.rollback()
            except psycopg2.Error:
                conn.close()
        raise


def is_outage(error: psycopg2.Error) -> bool:
    """Whether the server is away, or cannot do for now what it could do before.

    A connection that breaks while the answer to COMMIT or COPY is awaited is told by the bare DatabaseError, without a
    code: what the server itself says has one.
    """
    return isinstance(error, RETRYABLE) or (type(error) is psycopg2.DatabaseError and error.pgcode is None)


def told_error(error: psycopg2.Error) -> str:
    """Postgres's words, and what they mean where they do not tell what to look at."""
    text = hide_password(str(error)).strip() or type(error).__name__
    if isinstance(error, pg.ReadOnlySqlTransaction):
        return f"{text}. {READ_ONLY}"
    return f"{text}. {CANCELED}" if isinstance(error, pg.QueryCanceled) else text


def raise_landing_error(error: psycopg2.Error, tried: str) -> NoReturn:
    """Say what a Postgres error means for the landing."""
    text = told_error(error)
    if is_outage(error):
        raise LakeUnavailableError(f"{tried}: {text}. Nothing was written; it is tried again.") from error
    if isinstance(error, pg.InsufficientPrivilege):
        raise MigrationError(
            f"{tried}: {text}. Nothing was written. The user of LAKE_DSN lacks a right: have the lake's owner run "
            f"`streaming migrate --grant`, which gives it what the lander needs."
        ) from error
    if isinstance(error, pg.UndefinedTable | pg.UndefinedFunction | pg.InvalidSchemaName | pg.UndefinedColumn):
        raise MigrationError(
            f"{tried}: {text}. The lake lacks what this version needs; nothing was written. Run `streaming migrate`."
        ) from error
    raise LandingError(f"{tried}: {text}. Nothing was written.") from error
