"""Publications of one table take turns.

Two at a time are safe, since the fence rolls one of them back (docs/decisions/0005), but who is slower can lose every
time: a late day's three marts against a run that publishes today's fact table every second. So whoever publishes asks
PostgreSQL for the tables first, and is served in the order of asking.

Belongs here: the turns. Not here: publishing (dbt_like_sql), the lock of a day (keep_up.py).
"""

import contextlib
import time
from collections.abc import Iterator, Sequence

from orchestration.defs.keep_up import lock_connection
from orchestration.defs.resources import LakeResource

LOCK_SPACE = 0x7075626C  # "publ": our advisory locks, so that nobody else's numbers meet them
# A publication takes a second or a few, that of a year a minute. Beyond it the fence alone decides, as it always can.
PATIENCE_S = 60.0


@contextlib.contextmanager
def publish_turn(lake: LakeResource, tables: Sequence[str], *, patience_s: float = PATIENCE_S) -> Iterator[bool]:
    """Wait for the turn of these tables and hold it. Gives whether it came: after the patience it goes on without.

    Gone with its connection, so never left behind by a killed run. Asked for in one order by everybody: no two wait for
    each other.
    """
    import psycopg2.errors

    end, is_ours = time.monotonic() + patience_s, True
    with lock_connection(lake) as cursor:
        for table in sorted(tables):
            left_ms = max(1, int((end - time.monotonic()) * 1000))
            cursor.execute("SELECT set_config('lock_timeout', %s, false)", (f"{left_ms}ms",))
            try:
                cursor.execute("SELECT pg_advisory_lock(%s, hashtext(%s))", (LOCK_SPACE, table))
            except psycopg2.errors.LockNotAvailable:
                is_ours = False
                break
        yield is_ours
