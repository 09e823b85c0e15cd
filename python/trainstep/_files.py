"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PARTIAL = ".partial"


@contextmanager
def whole_file(path: str) -> Iterator[str]:
    """Give the name of a file to write beside `path`, which takes its place when the block ends, and is gone where it raises.

    What stands in the file is on the disk before the name changes, and the name before this returns: whoever is killed leaves
    the old file or the new one. What processes that were killed had begun is removed by the next that writes.
    """
    directory, name = os.path.split(path)
    directory = directory or os.curdir
    with suppress(OSError):  # what is wrong with the place is said where the file is opened
        _remove_left(directory, name)
    partial = f"{path}.{os.getpid()}{PARTIAL}"
    try:
        yield partial
        _to_disk(partial)
        os.replace(partial, path)
        with suppress(OSError):  # a directory cannot be opened everywhere
            _to_disk(directory)
    finally:
        if os.path.exists(partial):
            os.remove(partial)


def _remove_left(directory: str, name: str) -> None:
    """Remove what processes that run no more have begun of a file."""
    for other in os.listdir(directory):
        owner = other[len(name) + 1 : -len(PARTIAL)]
        if other == f"{name}.{owner}{PARTIAL}" and owner.isdecimal() and not _runs(int(owner)):
            with suppress(FileNotFoundError):  # another may be at it too
                os.remove(os.path.join(directory, other))


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
