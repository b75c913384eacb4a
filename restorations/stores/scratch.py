"""Room for large files that exist for a moment."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Gives a folder that is deleted afterwards, on the disk of `VAR_DIR`: a film does not fit into every /tmp."""
    parent = Path(settings.VAR_DIR, "scratch")
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        yield Path(folder)
