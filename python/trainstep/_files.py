"""Files that appear whole or not at all."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PARTIAL = ".partial"


@contextmanager
def whole_file(path: str) -> Iterator[str]:
    """Give the name of a file to write beside `path`, which takes its place when the block ends, and is gone where it raises.

    What stands in the file is on the disk before the name changes, and the name before this returns: whoever is killed leaves
    the old file or the new one. What processes that were killed had begun is removed by the next that writes. Where `path` is a
    link, all this is of the file that it leads to. A file that was there keeps its mode, and nobody else may read the new one
    before it has that; what is no file, a device or a pipe, stays, with an OSError.
    """
    path, mode = _place(path)
    directory, name = os.path.split(path)
    directory = directory or os.curdir
    with suppress(OSError):  # what is wrong with the place is said where the file is opened
        _remove_left(directory, name)
    partial = _partial(path)
    descriptor = _begin(partial, mode)
    try:
        yield partial
        os.fsync(descriptor)
        if mode is not None and stat.S_IMODE(os.stat(partial).st_mode) != mode:
            with suppress(PermissionError):  # where there are no modes
                os.chmod(partial, mode)
        os.replace(partial, path)
        with suppress(OSError):  # a directory cannot be opened everywhere
            _to_disk(directory)
    finally:
        os.close(descriptor)
        if os.path.exists(partial):
            os.remove(partial)


def check_whole_file(path: str) -> None:
    """Raise the OSError that `whole_file` would end in."""
    partial = _partial(_place(path)[0])
    os.close(_begin(partial, None))
    os.remove(partial)


def _begin(partial: str, mode: int | None) -> int:
    """Make the file, empty, in place of one that an earlier process of this number has left."""
    with suppress(FileNotFoundError):
        os.remove(partial)
    return os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else 0o600)


def _partial(path: str) -> str:
    return f"{path}.{os.getpid()}{PARTIAL}"


def _place(path: str) -> tuple[str, int | None]:
    """Give the path behind links, and the mode of the file that is there."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return os.path.realpath(path) if os.path.islink(path) else path, None
    if os.path.islink(path):
        path = os.path.realpath(path)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
    return path, stat.S_IMODE(mode)


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
