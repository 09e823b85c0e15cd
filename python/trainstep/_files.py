"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PARTIAL = ".partial"


@contextmanager
def whole_file(path: str) -> Iterator[str]:
    """Give the name of a file to write beside `path`, which takes its place when the block ends, and is gone where it raises.

    What stands in the file is on the disk before the name changes, and the name before this returns: whoever is killed leaves
    the old file or the new one. What processes that were killed had begun is removed by the next that writes.
    """
    place = Path(path)
    for left in place.parent.glob(f"{_escaped(place.name)}.*{_PARTIAL}"):
        owner = left.name.removesuffix(_PARTIAL).rpartition(".")[2]
        if owner.isdecimal() and not _runs(int(owner)):
            left.unlink(missing_ok=True)
    partial = f"{path}.{os.getpid()}{_PARTIAL}"
    try:
        yield partial
        _to_disk(partial)
        os.replace(partial, path)
        with suppress(OSError):  # a directory cannot be opened everywhere
            _to_disk(str(place.parent))
    finally:
        if os.path.exists(partial):
            os.remove(partial)


def _escaped(name: str) -> str:
    """Give a pattern that only this name matches."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _to_disk(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
