"""What the demo shows in the terminal: live tables, the summary, plain lines where there is no terminal.

Pure rendering: numbers come in, renderables go out. Reading the layers does not belong here (layers.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from deploy.demo.layers import CHAIN, Layer, plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deploy.demo.layers import Difference, Layers, Watch

NAMES = {
    "produced": "Kafka",
    "landed": "PostgreSQL lake",
    "core": "BigQuery core",
    "mart": "BigQuery marts",
    "report": "Power BI report",
}
QUIET = "[dim]-[/]"


def live_table(watch: Watch, *, title: str) -> Table:
    """The line as it is now: rows, how many events each layer is behind, and how late they got there."""
    table = Table(title=title, title_justify="left", title_style="bold", expand=False)
    table.add_column("layer")
    for column in ("rows", "dead", "gaps", "behind", "delay"):
        table.add_column(column, justify="right")
    table.add_column("as of", overflow="ellipsis", no_wrap=True)
    produced = watch.rows("produced")
    for name in CHAIN:
        layer = watch.layers.get(name)
        trouble = watch.troubles.get(name)
        if layer is None:
            table.add_row(NAMES[name], QUIET, "", "", "", "", f"[dim]{trouble[:60]}[/]" if trouble else "")
            continue
        behind = max(0, produced - watch.rows(name))
        table.add_row(
            NAMES[name],
            f"{layer.rows:,}",
            _count(layer.dead_letters) if name == "landed" else "",
            _count(layer.gaps) if name == "landed" else "",
            "" if name == "produced" else (f"[yellow]{behind:,}[/]" if behind else "[green]0[/]"),
            _delay(watch, name),
            (f"[red]{trouble[:60]}[/]" if trouble else layer.as_of or ""),
        )
    return table


def live_line(watch: Watch) -> str:
    """The same in one line, for logs."""
    parts = []
    for name in CHAIN:
        layer = watch.layers.get(name, Layer())
        dead = f" (+{layer.dead_letters} dead)" if name == "landed" and layer.dead_letters else ""
        parts.append(f"{name} {layer.rows:,}{dead}")
    return ", ".join(parts)


def summary_table(layers: Layers, differences: list[Difference]) -> Table:
    """Counts and exact amounts of every layer, and whether each agrees with the one before it."""
    table = Table(title="Summary", title_justify="left", title_style="bold")
    table.add_column("layer")
    for column in ("rows", "dead letters", "gaps", "amount (GBP)"):
        table.add_column(column, justify="right")
    table.add_column("agrees")
    table.add_column("as of")
    wrong = {difference.layer for difference in differences}
    for name in CHAIN:
        layer: Layer = getattr(layers, name)
        is_landed = name == "landed"
        table.add_row(
            NAMES[name],
            f"{layer.rows:,}",
            f"{layer.dead_letters:,}" if is_landed else "",
            f"{layer.gaps:,}" if is_landed else "",
            "" if name == "produced" else plain(layer.amount) or "-",
            "" if name == "produced" else Text("NO", "bold red") if name in wrong else Text("yes", "green"),
            layer.as_of or "",
        )
    return table


def seconds_line(seconds: Mapping[str, float]) -> str:
    """Where the time went."""
    return "  ".join(f"{name.replace('_', ' ')} {value:.1f} s" for name, value in seconds.items())


def _count(number: int) -> str:
    return f"[yellow]{number:,}[/]" if number else "0"


def _delay(watch: Watch, name: str) -> str:
    delay = watch.delays.get(name)
    return "" if delay is None else f"{delay:.1f} s"
