"""The exact sum of quantity x unit price straight from CSV files, by the standard library alone.

An independent witness for tests and the demo: it shares no code with the line. Usage: csv_amount.py DIR_OR_FILE
prints {"rows": ..., "amount": "..."}; a line it cannot read is an error, not a zero.
"""

from __future__ import annotations

import csv
import decimal
import io
import json
import sys
from decimal import Decimal
from pathlib import Path

EXACT = decimal.Context(prec=100, traps=[decimal.Inexact, decimal.InvalidOperation])
QUANTITY, PRICE = ("Quantity",), ("UnitPrice", "Price")


def csv_amount(source: Path) -> tuple[int, Decimal]:
    """Rows and exact amount of a CSV file, or of all that lie in a folder."""
    rows, amount = 0, Decimal(0)
    for file in sorted(source.glob("*.csv")) if source.is_dir() else [source]:
        text = _text(file)
        # the csv module splits the lines: str.splitlines would break fields at U+0085 and others
        for line in csv.DictReader(io.StringIO(text, newline="")):
            quantity, price = _value(line, QUANTITY), _value(line, PRICE)
            amount = EXACT.add(amount, EXACT.multiply(quantity, price))
            rows += 1
    return rows, amount


def _text(file: Path) -> str:
    raw = file.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252")


def _value(line: dict[str, str], names: tuple[str, ...]) -> Decimal:
    return next(EXACT.create_decimal(line[name].strip()) for name in names if name in line)


def main() -> int:
    """Print rows and amount."""
    if len(sys.argv[1:]) != 1:
        sys.stderr.write("usage: csv_amount.py DIR_OR_FILE\n")
        return 2
    rows, amount = csv_amount(Path(sys.argv[1]))
    print(json.dumps({"rows": rows, "amount": f"{amount:f}"}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
