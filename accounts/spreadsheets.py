"""Lines for files that people open in a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

#: Spreadsheets run a text that begins so as a formula.
_FORMULA = ("=", "+", "-", "@")


def csv_line(values: Iterable[object]) -> str:
    """Returns a line of CSV (RFC 4180); numbers stay numbers, and a text that looks like a formula stays a text."""
    buffer = io.StringIO()
    csv.writer(buffer).writerow(
        f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value for value in values
    )
    return buffer.getvalue()
