"""A lake that came back from a backup: its new batches must not carry numbers that it has given before.

Whoever reads the lake knows how far it has read by batch numbers. Those of batches that were written after the backup
are known outside (the warehouse's ledger) and unknown in here: given again, they stand for other events, and these
would be taken for read. Readers notice and stop until this is done (known_batches.py); the numbers that it leaves out
are how they see that it was.
Not here: taking and bringing back a backup (docs/runbooks/backup-and-restore.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streaming.database import transaction
from streaming.errors import LandingError

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812 a class with a lower-case name

# More than any topic partition commits between two backups: at five a second, two days and more.
AHEAD = 1_000_000
LAST_BATCH = 2**31 - 1  # of the column


def number_anew(conn: Connection) -> list[tuple[str, int, int]]:
    """Let every topic partition go on with batch numbers far beyond its own; topic, topic partition, next batch.

    Harmless when it was not needed, and when it is done twice.

    Raises:
        LandingError: some topic partition has no numbers left for that. Nothing was changed.
    """
    with transaction(conn) as cursor:
        cursor.execute("SELECT topic, topic_partition FROM control.offset WHERE next_batch > %s", [LAST_BATCH - AHEAD])
        full = cursor.fetchall()
        if full:
            topic, part = full[0]
            raise LandingError(
                f"numbering batches anew: {topic}/{part} has fewer than {AHEAD:,} batch numbers left. Nothing was "
                "changed. Land that topic under another name."
            )
        cursor.execute(
            "UPDATE control.offset SET next_batch = next_batch + %s, updated_at = now() "
            "RETURNING topic, topic_partition, next_batch",
            [AHEAD],
        )
        return sorted(cursor.fetchall())
