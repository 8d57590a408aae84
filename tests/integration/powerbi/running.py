"""The stand-in over HTTP in this process, with marts from memory, for tests of its REST and of the clients."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import uvicorn

from powerbi.errors import WarehouseError
from powerbi.rest import Client, StandInCredential
from powerbi.settings import PowerBiSettings
from powerbi.standin.app import create_app
from powerbi.standin.marts import Marts, MartsSettings
from powerbi.standin.service import Service, Settings
from tests.unit.powerbi import shop

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator, Mapping
    from pathlib import Path


class MemoryMarts(Marts):
    """Marts from tables in memory; `queries` keeps what was read."""

    def __init__(self, tables: dict[str, Any]) -> None:
        super().__init__(MartsSettings("memory"))
        self.tables = dict(tables)
        self.queries: list[tuple[str, Any]] = []
        self.is_down = False

    def read(
        self, table_id: str, columns: Mapping[str, str], *, cut: tuple[str, dt.date, dt.date] | None = None
    ) -> Any:
        if self.is_down:
            raise WarehouseError("the warehouse is down")
        name = table_id.rsplit(".", 1)[-1]
        self.queries.append((name, cut))
        rows = self.tables[name]
        if cut is not None:
            days = rows.column(cut[0])
            rows = rows.filter(pc.and_(pc.greater_equal(days, cut[1]), pc.less(days, cut[2])))
        return rows.select(list(columns.values())).rename_columns(list(columns))


class Running:
    """A stand-in that answers at `url`."""

    def __init__(self, service: Service, marts: MemoryMarts, url: str) -> None:
        self.service = service
        self.marts = marts
        self.url = url

    def settings(self, **env: str) -> PowerBiSettings:
        return PowerBiSettings.from_env({"POWERBI_API_URL": self.url, **env})

    def client(self, **env: str) -> Client:
        return Client(self.settings(**env), StandInCredential(), sleep=lambda seconds: time.sleep(min(seconds, 0.02)))

    def fault(self, **fault: Any) -> None:
        self.service.faults.add(fault)


@contextmanager
def running(
    folder: Path, tables: dict[str, Any], *, is_shared: bool = False, page_size: int = 100, marts: Any = None
) -> Iterator[Running]:
    marts = marts or MemoryMarts(tables)
    service = Service(
        Settings(folder, shop.ROOM, marts.settings, is_shared=is_shared, page_size=page_size), marts=marts
    )
    server = uvicorn.Server(
        uvicorn.Config(create_app(service), port=0, log_level="warning", access_log=False, ws="none")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Running(service, marts, f"http://127.0.0.1:{port}")
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        service.close()
