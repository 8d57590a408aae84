"""A consumer's name in its group. Not here: what the group assigns (ownership.py)."""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streaming.errors import StreamingError

if TYPE_CHECKING:
    from collections.abc import Iterable

DYNAMIC = "dynamic"  # as STREAMING_INSTANCE_ID: no stable name


class InstanceSlot:
    """A stable name for static membership: the host and the first number that no process here holds.

    The price: one that leaves for good is missed only after the session timeout. Where consumers come and go (an
    autoscaler), STREAMING_INSTANCE_ID=dynamic gives a plain member, whose place is free as soon as it leaves.

    A consumer that is killed and started again takes its old name, and with it its topic partitions, at once, where a
    new name would wait for the session timeout (measured: 3.7 s for ten kills instead of 25.8 s).

    The topics are part of the name: the broker gives a member that comes back what it had, without a look at what it
    subscribes to now, so that a new topic would never be assigned, and one that is read no more would be.
    """

    def __init__(self, group_id: str, wanted: str, topics: Iterable[str]) -> None:
        tag = hashlib.sha256("\n".join(sorted(topics)).encode()).hexdigest()[:8]
        self.name = f"{wanted}-{tag}"
        self._file: Any = None
        if wanted == DYNAMIC:
            self.name = ""
        if wanted:
            return
        safe = "".join(c if c.isalnum() else "-" for c in group_id)
        for number in range(1000):
            name = f"streaming-{os.getuid()}-{safe}-{number}.lock"
            try:
                self._file = (Path(tempfile.gettempdir()) / name).open("w")
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._file.close()
                continue
            except OSError as error:  # also where Python finds no folder for temporary files at all
                raise StreamingError(
                    f"taking a name for the consumer by the file {name}: {error.strerror}"
                    f"{f': {error.filename}' if error.filename else ''}. Nothing was landed. Make the folder for "
                    f"temporary files writable, name another one in TMPDIR, or give the consumer a name by "
                    f"STREAMING_INSTANCE_ID."
                ) from error
            self.name = f"{safe}-{socket.gethostname()}-{number}-{tag}"
            return
        raise StreamingError("taking a name for the consumer: 1000 are taken. Set STREAMING_INSTANCE_ID.")

    @property
    def is_held(self) -> bool:
        """Whether the name cannot be anybody else's: this process holds its file. False for a name that was given."""
        return self._file is not None and not self._file.closed

    def release(self) -> None:
        """Let another process have the name."""
        if self._file is not None:
            self._file.close()
