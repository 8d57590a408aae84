"""The lake's schema, made and changed."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.errors
import pytest

from streaming import lake, migrate
from streaming.contract import load_contract
from streaming.decode import as_instant
from streaming.errors import ContractError, LandingError, MigrationError

from .rig import Rig, line

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration


def change_contract(rig: Rig, old: str, new: str) -> None:
    path = rig.contracts_dir / f"{rig.topic}.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


TEXT = "        physicalType: text\n"
NEW_FIELD = "      - name: colour\n        logicalType: string\n        required: false\n"


def read_through_the_door(rig: Rig) -> list[dict[str, Any]]:
    """Every landed event with its contract's types, as the warehouse reads them."""
    with rig.connect() as conn:
        return [
            row
            for day in lake.landed_days(conn, rig.topic)
            for row in lake.decode_events(
                rig.contract, lake.read_events(conn, rig.topic, day=day.event_day)
            ).to_pylist()
        ]


def test_migrating_twice_changes_nothing(rig: Rig) -> None:
    with rig.connect() as conn:
        done = migrate.migrate(conn, rig.contracts.values())
    assert (done.files, done.created, done.changed) == ([], [], [])


def test_two_migrations_at_once_wait_for_each_other(rig: Rig) -> None:
    rig.execute("DROP SCHEMA control, landing, lake CASCADE")
    failures: list[Exception] = []

    def run() -> None:
        try:
            rig.migrate()
        except Exception as error:  # noqa: BLE001 shown below
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert rig.query("SELECT count(*) FROM control.migration")[0][0] == len(migrate.read_migrations())


def test_a_migration_does_not_wait_for_ever_behind_a_reader_and_keeps_no_other_one_waiting(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT_S", 0.2)
    add_field(rig, "{name: colour, logicalType: string}")
    with rig.connect() as reader, reader.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM lake.{rig.contract.stream}")
        with pytest.raises(MigrationError, match=r"Somebody's transaction has held .* pg_stat_activity"):
            rig.migrate()
    rig.migrate()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ("default_transaction_read_only = on", "no standby"),
        ("statement_timeout = '50ms'", "statement_timeout = 0"),
        ("role = pg_monitor", "needs to own the schemas"),
    ],
)
def test_what_keeps_a_migration_from_its_work_is_told_as_it_is(rig: Rig, settings: str, problem: str) -> None:
    with rig.connect() as other, other.cursor() as holder, rig.connect() as conn:
        holder.execute("SELECT pg_advisory_xact_lock(%s)", (migrate.LOCK,))
        with conn.cursor() as cursor:
            cursor.execute(f"SET {settings}")
        conn.commit()
        if "timeout" not in settings:
            other.rollback()
        with pytest.raises(MigrationError) as caught:
            migrate.migrate(conn, rig.contracts.values())
    assert problem in str(caught.value)
    assert ("own the schemas" in str(caught.value)) == ("own the schemas" in problem)


def test_a_new_optional_field_keeps_what_landed_and_appears_in_the_view(rig: Rig) -> None:
    rig.send([line(1)])
    rig.land()
    change_contract(rig, "      - name: country", NEW_FIELD + "      - name: country")
    with pytest.raises(MigrationError, match=r"new or changed there.*streaming migrate"):
        rig.land()
    rig.migrate()
    rig.send([line(2, colour="red")])
    rig.land()
    rig.assert_exact(2)
    assert rig.query(f"SELECT colour FROM lake.{rig.contract.stream} ORDER BY event_id") == [(None,), ("red",)]


def add_field(rig: Rig, definition: str) -> None:
    change_contract(rig, "      - name: country", f"      - {definition}\n      - name: country")


def test_a_new_field_amid_others_takes_no_rights_and_no_view_of_the_view(rig: Rig) -> None:
    stream = rig.contract.stream
    rig.execute(f"GRANT SELECT ON lake.{stream} TO pg_monitor; CREATE VIEW public.mine AS TABLE lake.{stream}")
    rig.send([line(1, qty=7)])
    rig.land()
    add_field(rig, "{name: qty, logicalType: integer}")
    rig.migrate()
    add_field(rig, "{name: colour, logicalType: string}")
    rig.migrate()
    change_contract(rig, "version: 1.0.0", "version: 1.1.0")
    rig.migrate()
    assert rig.query(f"SELECT qty, colour, country FROM lake.{stream}") == [(7, None, "United Kingdom")]
    assert rig.query("SELECT country FROM public.mine") == [("United Kingdom",)]
    assert rig.query(f"SELECT has_table_privilege('pg_monitor', 'lake.{stream}', 'SELECT')") == [(True,)]
    names = rig.query(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass ORDER BY attnum", f"lake.{stream}"
    )
    assert names[-2:] == [("qty",), ("colour",)]


@pytest.mark.parametrize(
    ("definition", "value", "detail"),
    [
        ("{name: qty, logicalType: integer}", "many", "Expected `int | null`, got `str`"),
        ('{name: qty, logicalType: number, physicalType: "NUMERIC(5,2)"}', "1.005", "without rounding"),
        ("{name: qty, logicalType: string}", 7, "Expected `str | null`, got `int`"),
        ("{name: qty, logicalType: object}", [1], "Expected `object`, got"),
        ("{name: qty, logicalType: timestamp}", "2026-01-01T00:00:00", "timezone"),
        ("{name: amount, physicalName: qty, logicalType: date}", "soon", "Invalid RFC3339"),
        ('{name: amount, physicalName: "a\'%s", logicalType: boolean}', 1, "Expected `bool | null`"),
    ],
)  # fmt: skip
def test_a_new_field_whose_key_landed_with_something_else_is_refused(
    rig: Rig, definition: str, value: object, detail: str
) -> None:
    key = "a'%s" if 'physicalName: "' in definition else "qty"
    rig.send([line(1), line(2, **{key: value}), line(3, **{key: None})], partition=2)
    rig.land()
    add_field(rig, definition)
    with pytest.raises(MigrationError) as caught:
        rig.migrate()
    assert f"the event at {rig.topic}[2] offset 1 has its key already" in str(caught.value)
    assert detail in str(caught.value)
    assert len(rig.query(f"SELECT * FROM lake.{rig.contract.stream}")) == 3


QTY = "{name: qty, logicalType: integer}"


def test_a_running_consumer_goes_on_by_the_new_contract(rig: Rig, tmp_path: Path) -> None:
    """It reads the file anew when the lake has another version, and lands by that: no restart, and no wrong value."""
    log = tmp_path / "consume.log"
    with rig.started(log, STREAMING_DEAD_LETTER_LIMIT="1.0") as consumer:
        rig.send([line(1)])
        rig.wait(lambda: rig.accounted() == 1, what="landing")
        add_field(rig, QTY)
        rig.migrate()
        rig.send([line(2, qty="many"), line(3, qty=7)])
        rig.wait(lambda: consumer.poll() is not None or rig.accounted() == 3, what="going on")
        assert consumer.poll() is None, log.read_text()
    assert "goes on by new contracts" in log.read_text()
    rig.assert_exact(2, dead=1)
    assert rig.query(f"SELECT qty FROM lake.{rig.contract.stream} ORDER BY qty") == [(7,), (None,)]
    assert rig.query("SELECT reason, field FROM control.dead_letter") == [("wrong_type", "qty")]


@pytest.mark.parametrize("is_reread", [False, True])
def test_a_running_consumer_lands_nothing_that_a_new_field_cannot_take(rig: Rig, *, is_reread: bool) -> None:
    """It knows nothing of the field, and its file is not there yet; such an event would make the view unreadable."""

    def land_through_a_migration() -> None:
        with rig.landing() as consumer:
            old = consumer.contracts
            consumer.reread = (lambda: old) if is_reread else None
            rig.send([line(1)])
            rig.wait(lambda: rig.accounted() == 1, what="landing")
            add_field(rig, QTY)
            rig.migrate()
            rig.send([line(2, qty="many"), line(3, qty=7)])
            rig.wait(lambda: consumer.has_ended or rig.accounted() == 3, what="noticing")  # type: ignore[attr-defined]

    with pytest.raises(MigrationError, match=r"migrated to another one meanwhile.*Start this again") as caught:
        land_through_a_migration()
    assert rig.topic in str(caught.value)
    assert rig.query(f"SELECT qty FROM lake.{rig.contract.stream}") == [(None,)]
    rig.land(dead_letter_limit=1.0)
    rig.assert_exact(2, dead=1)
    assert rig.query(f"SELECT qty FROM lake.{rig.contract.stream} ORDER BY qty") == [(7,), (None,)]


def test_a_running_consumer_that_finds_no_contract_says_why_it_looked_for_one(rig: Rig) -> None:
    path = rig.contracts_dir / f"{rig.topic}.yaml"

    def land_through_a_migration() -> None:
        with rig.landing() as consumer:
            consumer.reread = lambda: {rig.topic: load_contract(rig.topic, rig.contracts_dir)}
            rig.send([line(1)])
            rig.wait(lambda: rig.accounted() == 1, what="landing")
            add_field(rig, QTY)
            rig.migrate()
            path.rename(path.with_suffix(".away"))
            rig.send([line(2)])
            rig.wait(lambda: consumer.has_ended, what="noticing")  # type: ignore[attr-defined]

    with pytest.raises(ContractError, match=r"migrated to another one meanwhile.*or lost.*does not exist"):
        land_through_a_migration()
    path.with_suffix(".away").rename(path)
    rig.land()
    rig.assert_exact(2)


def test_what_lands_while_a_migration_looks_at_what_landed_is_looked_at_too(rig: Rig) -> None:
    """Its transaction began before, by the old contract, and ends after."""
    rig.send([line(1)], partition=0)
    rig.land()
    failures = list[MigrationError]()

    def run_migration() -> None:
        try:
            rig.migrate()
        except MigrationError as error:
            failures.append(error)

    migration = threading.Thread(target=run_migration)
    with rig.landing():
        with rig.connect() as conn, conn.cursor() as cursor:
            cursor.execute("LOCK TABLE control.landed_day IN EXCLUSIVE MODE")  # a landing transaction's last step waits
            rig.send([line(2, qty="many")], partition=0)
            waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = %s"
            rig.wait(lambda: rig.query(waits, "relation") == [(1,)], what="landing")
            add_field(rig, QTY)
            migration.start()
            rig.wait(lambda: not migration.is_alive() or rig.query(waits, "advisory") == [(1,)], what="migrating")
        migration.join()
        rig.wait(lambda: rig.accounted() == 2, what="landing")
    assert [f"{rig.topic}[0] offset 1 has its key already" in str(error) for error in failures] == [True]
    assert len(rig.query(f"SELECT * FROM lake.{rig.contract.stream}")) == 2


def test_a_migration_that_changes_no_field_disturbs_no_consumer(rig: Rig) -> None:
    with rig.landing():
        rig.send([line(1)])
        rig.wait(lambda: rig.accounted() == 1, what="landing")
        change_contract(rig, "version: 1.0.0", "version: 1.1.0")
        rig.migrate()
        rig.send([line(2)])
        rig.wait(lambda: rig.accounted() == 2, what="landing")


def test_a_new_field_takes_the_values_that_landed_before_it(rig: Rig) -> None:
    rig.send([line(1, qty=7), line(2, qty=700), line(3, note={"any": 1}), line(4)], partition=0)
    rig.land()
    add_field(rig, "{name: qty, logicalType: integer, logicalTypeOptions: {maximum: 100}}")
    add_field(rig, "{name: note, physicalType: json}")
    rig.migrate()
    found = rig.query(f"SELECT qty, note FROM lake.{rig.contract.stream} ORDER BY event_id")
    assert found == [(7, None), (700, None), (None, {"any": 1}), (None, None)]


@pytest.mark.parametrize(
    ("unit", "counts"),
    [
        ("epoch_ns", [1_796_097_253_123_456_500, 9_223_372_036_854_774_807, -1, -500, -501, -1_500, 1_499, 1_500, 0]),
        ("epoch_us", [9_007_199_254_740_993, 253_402_300_799_000_000 - 1, -1, -2_208_988_799_999_999, 0]),
        ("epoch_ms", [253_402_300_798_999, 253_402_300_797_877, -1, -2_208_988_799_999, 0]),
        ("epoch_s", [253_402_300_799, -1, -2_208_988_800, 0]),
    ],
)
def test_counts_of_any_size_are_exact_in_the_view(rig: Rig, unit: str, counts: list[int]) -> None:
    add_field(rig, f"{{name: seen_at, logicalType: timestamp, logicalTypeOptions: {{format: {unit}}}}}")
    rig.migrate()
    rig.send([line(number, seen_at=count) for number, count in enumerate([*counts, None])], partition=0)
    rig.land()
    found = rig.query(f"SELECT seen_at FROM lake.{rig.contract.stream} ORDER BY topic_offset")
    assert [at for (at,) in found] == [*(as_instant(count, unit) for count in counts), None]


FINE = ["5", "123456", "1234565", "1234575", "1234564", "1234566", "9999995", "99999949", "123456500", "123456499"]


@pytest.mark.parametrize("form", ["", ", logicalTypeOptions: {timezone: false}"], ids=["zone", "perhaps no zone"])
def test_times_finer_than_microseconds_are_the_same_in_view_ledger_and_door(rig: Rig, form: str) -> None:
    add_field(rig, f"{{name: seen_at, logicalType: timestamp{form}}}")
    add_field(rig, f'{{name: known_at, physicalName: "a\'%s", logicalType: timestamp{form}}}')
    rig.migrate()
    times = [
        f"2010-12-01T23:59:59.{digits}{zone}"
        for digits in FINE
        for zone in ("Z", "+05:45", "-01:00", *([""] if form else []))
    ]
    rig.send(
        line(n, invoiced_at=at if at and at[-1] == "Z" else "2010-12-01T00:00:00Z", seen_at=at, **{"a'%s": at})
        for n, at in enumerate([*times, None])
    )
    rig.land()
    names = ["event_at", "invoiced_at", "seen_at", "known_at"]
    view = rig.query(f"SELECT event_id, {', '.join(names)} FROM lake.{rig.contract.stream}")
    assert {at for _, _, _, at, _ in view} > {None}
    door = [(row["event_id"], *(row[name] for name in names[1:])) for row in read_through_the_door(rig)]
    assert len(door) == len(times) + 1
    assert sorted(door, key=str) == sorted(((name, *fields) for name, _, *fields in view), key=str)
    assert all(event_at == invoiced_at for _, event_at, invoiced_at, _, _ in view)


def test_a_view_of_an_older_version_is_replaced_and_what_landed_with_it_is_shown(rig: Rig) -> None:
    add_field(rig, "{name: seen_at, logicalType: timestamp}")
    rig.migrate()
    stream, longest = rig.contract.stream, "2010-12-01T08:26:00." + "1" * 200 + "Z"
    rig.send([line(1, seen_at="2010-12-01T08:26:00Z")])
    rig.land()
    columns = "topic_partition, topic_offset, event_day, event_at, produced_at"
    types = rig.query(f"SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
                      f"WHERE attrelid = 'lake.{stream}'::regclass AND attname = ANY(%s) ORDER BY attnum",
                      [field.name for field in rig.contract.fields])  # fmt: skip
    names = [name for name, _ in types]
    record = ", ".join(f"{name} {kind}" for name, kind in types)
    rig.execute(f"CREATE OR REPLACE VIEW lake.{stream} AS SELECT {columns}, {', '.join(f'f.{n}' for n in names)} "
                f"FROM landing.{stream} CROSS JOIN LATERAL json_to_record(payload) AS f({record})")  # fmt: skip
    rig.execute(f"GRANT SELECT ON lake.{stream} TO pg_monitor; CREATE VIEW public.mine AS TABLE lake.{stream}")
    rig.execute("UPDATE control.stream SET view_sha256 = NULL")
    rig.execute(  # as it could land once
        f"UPDATE landing.{stream} SET payload = replace(replace(payload::text, '2010-12-01T08:26:00Z', %s), "
        f"'2010-12-02T08:26:00Z', %s)::json", longest, longest,
    )  # fmt: skip
    with pytest.raises(psycopg2.errors.InvalidDatetimeFormat):
        rig.query(f"SELECT * FROM lake.{stream}")
    rig.migrate()
    ((at, seen_at),) = rig.query("SELECT invoiced_at, seen_at FROM public.mine")
    assert (at.microsecond, seen_at.microsecond) == (0, 111_111)
    assert rig.query(f"SELECT has_table_privilege('pg_monitor', 'lake.{stream}', 'SELECT')") == [(True,)]
    made = rig.query(f"SELECT xmin FROM pg_class WHERE oid = 'lake.{stream}'::regclass")
    rig.migrate()
    assert rig.query(f"SELECT xmin FROM pg_class WHERE oid = 'lake.{stream}'::regclass") == made


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("physicalType: numeric(38,9)", "physicalType: numeric(38,6)", "was numeric\\(38,9\\), is numeric\\(38,6\\)"),
        ("        required: false\n        description: What", "        required: true\n        description: What",
         "description was optional, is required"),
        ("      - name: customer_id", NEW_FIELD.replace("false", "true") + "      - name: customer_id",
         "colour is new and required"),
        ("name: stock_code", "name: article", "stock_code is gone"),
        ("Europe/London", "Europe/Paris", "timeZone was Europe/London"),
        (f"logicalType: string\n{TEXT}        required: false\n        logicalTypeOptions: {{maxLength: 64}}",
         "logicalType: boolean\n        required: false", "customer_id was text, is boolean"),
        ("        primaryKey: true\n        primaryKeyPosition: 1\n", "", "the primary key was event_id, is none"),
        ('        logicalTypeOptions: {minimum: "2009-01-01T00:00:00Z"}\n', "", "event time was invoiced_at, is"),
        ("name: stock_code\n", "name: stock_code\n        physicalName: code\n", "was read from the key 'stock_code'"),
        ("name: t_", "name: other_", "schema.name was t_"),
    ],
)  # fmt: skip
def test_a_breaking_change_is_refused_with_what_it_breaks(rig: Rig, old: str, new: str, problem: str) -> None:
    rig.send([line(1)])
    rig.land()
    change_contract(rig, old, new)
    if "event time" in problem:
        change_contract(rig, "value: invoiced_at", "value: produced_at")
    with pytest.raises(MigrationError, match=problem):
        rig.migrate()
    with pytest.raises(MigrationError, match=problem):
        rig.land()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("logicalTypeOptions: {minLength: 1, maxLength: 200}", "logicalTypeOptions: {minLength: 1, maxLength: 1}"),
        ("{minimum: 1, maximum: 1000000000}", "{minimum: 5}"),
        ("{exclusiveMinimum: -1000000000000, exclusiveMaximum: 1000000000000}", "{exclusiveMinimum: 100}"),
        ('{minimum: "2009-01-01T00:00:00Z"}', '{minimum: "2025-01-01T00:00:00Z"}'),
        ("        required: true\n        logicalTypeOptions: {maxLength: 200}\n        description: Country",
         "        required: false\n        description: Country"),
    ],
    ids=["length", "whole number", "number", "event time", "relaxed"],
)  # fmt: skip
def test_a_limit_that_is_narrowed_or_a_field_relaxed_leaves_what_landed_readable(rig: Rig, old: str, new: str) -> None:
    rig.send([line(1), line(2)], partition=0)
    rig.land()
    change_contract(rig, old, new)
    rig.migrate()
    rig.send([line(3, country=None)], partition=0)
    rig.land(dead_letter_limit=1.0)
    decoded = read_through_the_door(rig)
    assert {"e1", "e2"} <= {row["event_id"] for row in decoded}
    assert len(rig.query(f"SELECT * FROM lake.{rig.contract.stream}")) == len(decoded)


@pytest.mark.parametrize("part", ["2010_12", "2010_12_pkey"])
def test_a_stream_called_like_a_part_of_another_one_s_table_is_refused(rig: Rig, part: str) -> None:
    rig.send([line(1)])
    rig.land()
    other = replace(rig.contract, topic="other", stream=f"{rig.contract.stream}_{part}")
    rig.execute("DELETE FROM control.stream")  # of streams that the lake knows no longer tables are left too
    with rig.connect() as conn, pytest.raises(MigrationError, match="is not the table of a stream but a part of one"):
        migrate.migrate(conn, [other])
    assert rig.query("SELECT count(*) FROM control.stream") == [(0,)]


def test_a_topic_that_was_renamed_is_refused_the_table_of_its_old_name(rig: Rig) -> None:
    with rig.connect() as conn, pytest.raises(MigrationError, match=rf"is the table of topic {rig.topic}, and offsets"):
        migrate.migrate(conn, [replace(rig.contract, topic=f"{rig.topic}.v2")])


def test_streams_called_like_a_table_and_its_month_are_refused_whichever_came_first(rig: Rig) -> None:
    table, month = (replace(rig.contract, topic=name, stream=name) for name in ("u", "u_2031_01"))
    for first, second in ((table, month), (month, table)):
        with rig.connect() as conn:
            migrate.migrate(conn, [first])
            with pytest.raises(MigrationError, match="are called as a table and a month of it are"):
                migrate.migrate(conn, [second])
        rig.execute("DELETE FROM control.stream WHERE topic = %s", first.topic)
        rig.execute(f"DROP TABLE landing.{first.stream} CASCADE")


def test_a_table_that_is_no_month_of_the_stream_is_not_landed_into(rig: Rig) -> None:
    rig.execute(f"CREATE TABLE landing.{rig.contract.stream}_2010_12 (LIKE landing.{rig.contract.stream})")
    rig.send([line(1)])
    with pytest.raises(LandingError, match=r"_2010_12 exists and is no month of landing\.t_"):
        rig.land()
    rig.execute(f"ALTER TABLE landing.{rig.contract.stream}_2010_12 RENAME TO of_somebody")
    rig.land()
    rig.assert_exact(1)


def test_a_month_that_was_moved_to_another_schema_is_told_with_what_to_do(rig: Rig) -> None:
    """Postgres says that a partition would overlap one of the same name."""
    rig.send([line(0)], partition=0)
    rig.land()
    stream = rig.contract.stream
    rig.execute(f"CREATE SCHEMA archive; ALTER TABLE landing.{stream}_2010_12 SET SCHEMA archive")
    rig.send([line(1)], partition=0)
    with pytest.raises(LandingError, match=r"(?s)_2010_12: partition .* would overlap.*SET SCHEMA landing"):
        rig.land()
    rig.execute(f"ALTER TABLE archive.{stream}_2010_12 SET SCHEMA landing")
    rig.land()
    rig.assert_exact(2)


def test_a_migration_that_was_changed_afterwards_is_refused(rig: Rig) -> None:
    rig.execute("UPDATE control.migration SET sha256 = 'x' WHERE number = 1")
    with pytest.raises(MigrationError, match=r"0001_create_control\.sql was changed"):
        rig.migrate()


def test_a_lake_of_a_newer_version_is_refused(rig: Rig) -> None:
    rig.execute("INSERT INTO control.migration (number, name, sha256) VALUES (999, 'x', 'x')")
    with pytest.raises(MigrationError, match="at migration 999"):
        rig.migrate()
