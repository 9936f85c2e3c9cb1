"""Files as memory that is read when it is looked at."""

from __future__ import annotations

import mmap
from pathlib import Path

from penstock.core.errors import LoadError


def mapped(path: Path) -> mmap.mmap:
    """The bytes of a file. Writing to them would change a private copy only: torch wants buffers that could be written.

    Raises LoadError when the file is absent, empty or not readable.
    """
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError) as error:
        raise LoadError(f"{path} cannot be read: {error}", hint="check the path, and get the file again if it is empty") from error
