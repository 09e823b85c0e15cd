"""The compiled core is imported here first, and where it cannot be, the user reads why."""

import os.path
import sys


def _is_the_command() -> bool:
    """Whether this process is ``trainstep`` or ``python -m trainstep``, also as ``python -Im trainstep`` or ``-mtrainstep``."""
    name = os.path.splitext(os.path.basename(sys.argv[0]))[0] if getattr(sys, "argv", None) else ""
    if name != "-m":
        return name == "trainstep"
    words = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]  # those of the interpreter
    return bool(words) and (words[-1] == "trainstep" or (words[-1].startswith("-") and words[-1].endswith("mtrainstep")))


try:
    from trainstep import _core  # noqa: F401
except ImportError as error:
    if "TRAINSTEP_" not in str(error):
        raise ImportError(
            f"trainstep's compiled core cannot be imported ({error}). Install the package (pip install .) rather than "
            "importing it from its source tree, with the Python version that it was built for."
        ) from error
    if not _is_the_command():  # the core's own words about a setting: nothing to add
        raise
    print(f"trainstep: error: {error}", file=sys.stderr)
    raise SystemExit(2) from None
