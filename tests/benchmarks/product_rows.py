"""What the running product's database says about a restoration, read beside it."""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
from typing import Any
from uuid import UUID

from tests.services.product import Product


def order_row(site: Product, restoration_id: UUID) -> tuple[float, float, dict[str, Any]]:
    """Returns when an order was taken by the endpoint and when it ended (seconds), and its manifest."""
    with sqlite3.connect(f"file:{site.var_dir}/db.sqlite3?mode=ro", uri=True) as database:
        [(submitted, ended, manifest)] = database.execute(
            "SELECT a.submitted_at, r.status_at, r.manifest FROM restorations_restoration r"
            " JOIN restorations_attempt a ON a.restoration_id = r.id WHERE r.id = ?",
            [restoration_id.hex],
        )
    return _seconds(submitted), _seconds(ended), json.loads(manifest)


def finished_at(site: Product, restoration_id: UUID) -> float:
    """Returns when an order reached its final state, in seconds."""
    return order_row(site, restoration_id)[1]


def _seconds(text: str) -> float:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()
