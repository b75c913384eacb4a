"""The browser of this machine."""

from __future__ import annotations

import os
import shutil
from typing import Final

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str:
    """Returns the path of the browser; `CHROMIUM` names another one. Raises `FileNotFoundError`."""
    named = os.environ.get("CHROMIUM")
    found = named or next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        raise FileNotFoundError(f"none of {', '.join(NAMES)} is installed; `make chromium` installs one")
    return found
