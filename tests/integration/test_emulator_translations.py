"""A statement that the emulator translates by a template means what it means without.

In a process of the embedded environment's own Python, where each use of a template is compared with the emulator's own
translation (--translations check). The statements are those by which a template could go wrong: literals that are no
values, tables of the same name and another form, names that an answer brings, what depends on who asks or when.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .emulator_process import require_the_same

pytestmark = pytest.mark.integration

COMPARE = """
import collections, pathlib, sys, threading
from local_bigquery.settings import settings
settings.data_dir, settings.default_project_id = pathlib.Path(sys.argv[1]), "p"
sys.path.insert(0, sys.argv[2])
import bigquery_emulator, translations
from local_bigquery.engine import database
from local_bigquery.jobs import query, runner
from local_bigquery.models import JobConfiguration

known = bigquery_emulator.KnownCatalog()
known.install()
bigquery_emulator.QuickJobs().install()
ours = translations.KnownTranslations(translations.Catalog(known.forms), check=True)
ours.install()
used = collections.Counter()
find = ours.find
def counted(kind, text, context):
    found = find(kind, text, context)
    used[kind, found is not None] += 1
    return found
ours.find = counted
count = 0

def ask(sql, wrong=None, user=None):
    global count
    count += 1
    job = f"j{count}"
    runner.submit("p", job, JobConfiguration.model_validate({"query": {"query": sql, "useLegacySql": False}}))
    done = runner.wait("p", job, 60000)
    error = done.status.errorResult
    if wrong is not None:
        assert error is not None and wrong in error.message, (sql, error)
        return None
    assert error is None, (sql, error)
    try:
        return sorted(database.fetch(f'SELECT * FROM emulator._results."p:{job}"'))
    except Exception:
        return None

def by_template(kind, work):
    before = used[kind, True]
    result = work()
    assert used[kind, True] > before, f"no template: {used}"
    return result

for name, n in (("d1", "NUMERIC"), ("d2", "NUMERIC"), ("d3", "FLOAT64")):
    ask(f"CREATE SCHEMA {name}")
    ask(f"CREATE TABLE {name}.t (day DATE NOT NULL, n {n}, s STRING) PARTITION BY day")
    ask(f"INSERT INTO {name}.t VALUES (DATE '2010-12-01', 1, 'a'), (DATE '2010-12-02', 2, 'b'), "
        "(DATE '2010-12-02', 3, 'a')")

# literals that differ, in one dataset and in another
DAY = "SELECT SUM(n), COUNT(*) FROM `p.{0}.t` WHERE day = DATE '{1}' AND s = '{2}' AND n < {3}"
assert ask(DAY.format("d1", "2010-12-01", "a", 9)) == [(1, 1)]
assert ask(DAY.format("d1", "2010-12-02", "a", 8)) == [(3, 1)]
assert by_template("SQL", lambda: ask(DAY.format("d1", "2010-12-02", "b", 7))) == [(2, 1)]
ask(DAY.format("d2", "2010-12-02", "b", 1))
assert by_template("SQL", lambda: ask(DAY.format("d1", "2010-12-01", "a", 2))) == [(1, 1)]
assert by_template("SQL", lambda: ask(DAY.format("d2", "2010-12-02", "a", 4))) == [(3, 1)]
ask(DAY.format("d1", "2010-02-30", "a", 9), wrong="2010-02-30")
ask(DAY.format("nowhere", "2010-12-01", "a", 9), wrong="nowhere")
assert ask(DAY.format("d2", "2010-12-02", r"it\\'s", 9)) == [(None, 0)]

# the same statement on a column of another type: a literal of floating point is one, or none
HALF = "SELECT n * 0.5 FROM `p.{0}.t` WHERE day = DATE '2010-12-01' AND n = {1}"
for dataset, number in (("d1", 1), ("d2", 1), ("d3", 1), ("d1", 1), ("d3", 1), ("d2", 1), ("d3", 1), ("d1", 1)):
    [(half,)] = ask(HALF.format(dataset, number))
    assert type(half).__name__ == ("float" if dataset == "d3" else "Decimal"), (dataset, half)

# literals that are no values: positions of columns, digits, rows that are wanted, how a date is written
for _ in range(3):
    assert ask("SELECT s, day, COUNT(*) FROM `p.d1.t` GROUP BY 1, 2 ORDER BY 1 LIMIT 2") is not None
    assert len(ask("SELECT s, SUM(n), COUNT(*) FROM `p.d1.t` GROUP BY 1 ORDER BY 2 LIMIT 1")) == 1
    assert len(ask("SELECT s, SUM(n), COUNT(*) FROM `p.d1.t` GROUP BY 1 ORDER BY 3 LIMIT 2")) == 2
    for divisor in (4, 2, 8, 0, 0, 2):
        wrong = None if divisor else "division by zero"
        ask(f"SELECT n / {divisor} FROM `p.d1.t` WHERE s = 'a' AND n = 1", wrong=wrong)
    for form, text in (("YYYY-MM", "2010-12"), ("MM-DD", "12-01"), ("YYYY", "2010")):
        assert ask(f"SELECT CAST(day AS STRING FORMAT '{form}') FROM `p.d1.t` WHERE s = 'a' AND n = 1") == [(text,)]
    assert str(ask("SELECT ROUND(NUMERIC '1.26', 1) FROM `p.d1.t` LIMIT 1")[0][0]).rstrip("0") == "1.3"
    assert str(ask("SELECT ROUND(NUMERIC '1.26', 2) FROM `p.d1.t` LIMIT 1")[0][0]).rstrip("0") == "1.26"

# a table that gets another form, goes, comes again as a view, is kept from some, or is past its time
FORM = "SELECT * FROM `p.d2.t` WHERE day = DATE '{0}' ORDER BY day"
ask(FORM.format("2010-12-01")), ask(FORM.format("2010-12-02"))
assert len(by_template("SQL", lambda: ask(FORM.format("2010-12-01")))[0]) == 3
ask("ALTER TABLE d2.t ADD COLUMN more STRING")
assert len(ask(FORM.format("2010-12-01"))[0]) == 4
ask("ALTER TABLE d2.t RENAME TO u")
ask(FORM.format("2010-12-01"), wrong="Not found")
ask("CREATE VIEW d2.t AS SELECT day, n FROM d2.u")
assert len(ask(FORM.format("2010-12-01"))[0]) == 2
ask("CREATE ROW ACCESS POLICY only ON d1.t GRANT TO ('allUsers') FILTER USING (s = 'b')")
assert ask(DAY.format("d1", "2010-12-01", "a", 2)) == [(None, 0)]
ask("DROP ALL ROW ACCESS POLICIES ON d1.t")
assert ask(DAY.format("d1", "2010-12-01", "a", 2)) == [(1, 1)]
ask("CREATE TABLE d1.gone AS SELECT 1 AS one, 'text' AS s")
GONE = "SELECT one FROM `p.d1.gone` WHERE one < {0} AND s = 'text'"
for number in (2, 3, 4):
    assert ask(GONE.format(number)) == [(1,)]
ask("ALTER TABLE d1.gone SET OPTIONS (expiration_timestamp = TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL 1 SECOND))")
import time; time.sleep(1.2)
ask(GONE.format(5), wrong="Not found")

# scripts: variables, temporary tables, how many rows were changed
SCRIPT = '''
DECLARE highest NUMERIC;
DECLARE changed INT64 DEFAULT 0;
SET highest = (SELECT MAX(n) FROM `p.{0}.t` WHERE day = DATE '{1}');
CREATE TEMP TABLE chosen AS SELECT day, n FROM `p.{0}.t` WHERE n = highest AND day = DATE '{1}';
BEGIN TRANSACTION;
UPDATE `p.{0}.t` SET s = '{2}' WHERE day = DATE '{1}' AND n IN (SELECT n FROM chosen);
SET changed = @@row_count;
DELETE FROM `p.{0}.t` WHERE day = DATE '{1}' AND s != '{2}' AND n < {3};
INSERT INTO `p.{0}.t` (day, n, s) SELECT day, n + {3}, '{2}' FROM chosen WHERE day = DATE '{1}';
COMMIT TRANSACTION;
SELECT highest, changed, (SELECT SUM(n) FROM `p.{0}.t` WHERE day = DATE '{1}') AS total, @@row_count AS rows_now;
'''
ask("CREATE OR REPLACE TABLE d3.t (day DATE NOT NULL, n NUMERIC, s STRING) PARTITION BY day")
ask("INSERT INTO d3.t VALUES (DATE '2010-12-01', 1, 'a'), (DATE '2010-12-02', 2, 'b'), (DATE '2010-12-02', 3, 'a')")
assert ask(SCRIPT.format("d1", "2010-12-02", "x", 10)) == [(3, 1, 16, 1)]
assert ask(SCRIPT.format("d1", "2010-12-01", "y", 20)) == [(1, 1, 22, 1)]
assert by_template("SET", lambda: ask(SCRIPT.format("d1", "2010-12-02", "z", 30))) == [(13, 1, 56, 1)]
ask(SCRIPT.format("d3", "2010-12-01", "x", 10))
assert by_template("SET", lambda: ask(SCRIPT.format("d3", "2010-12-02", "x", 10))) == [(3, 1, 16, 1)]
assert ask("SELECT day, n, s FROM d3.t WHERE day = DATE '2010-12-02'") == ask(
    "SELECT DATE '2010-12-02', n, s FROM UNNEST([STRUCT(3 AS n, 'x' AS s), STRUCT(13 AS n, 'x' AS s)])")

# a translation that folds a literal, or leaves one out, makes no template
import re
from local_bigquery.sql.translate import Context
for fold in (lambda sql: f"{sql} -- {len(sql)}", lambda sql: re.sub("'a+'", "''", sql), lambda sql: sql):
    odd = translations.KnownTranslations(translations.Catalog(known.forms))
    odd._translate = lambda tree, context: (fold(tree.sql(dialect="bigquery")), {})
    texts = [f"SELECT n FROM t WHERE s = '{'a' * n}' AND n < 100000" for n in range(1, 6)]
    found = [odd.find("SQL", text, Context("p", "d1")) for text in texts]
    assert any(found) == (fold("'a'") == "'a'"), (found, fold("'a'"))

# several at once, each with its own literals
results, threads = {}, []
def work(number):
    for each in range(5):
        results[number, each] = ask_alone(number, each)
def ask_alone(number, each):
    sql = (f"SELECT {number} * 100 + {each} AS it, COUNT(*) FROM `p.d1.t` "
           f"WHERE n < {number} + 1000 AND s != '{'abc'[each % 3]}q'")
    job = f"t{number}_{each}"
    runner.submit("p", job, JobConfiguration.model_validate({"query": {"query": sql, "useLegacySql": False}}))
    error = runner.wait("p", job, 60000).status.errorResult
    assert error is None, error
    return database.fetch(f'SELECT it FROM emulator._results."p:{job}"')
threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
[each.start() for each in threads]
[each.join() for each in threads]
assert results == {(number, each): [(number * 100 + each,)] for number in range(4) for each in range(5)}, results
print("the same")
"""


@pytest.mark.timeout(180)
def test_a_statement_by_template_is_the_emulators_own(tmp_path: Path) -> None:
    require_the_same(COMPARE, tmp_path / "data", timeout_s=170)
