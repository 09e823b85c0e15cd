"""The compiled core is imported here first, and where it cannot be, the user reads why."""

import os.path
import sys
from itertools import pairwise


def _is_the_command() -> bool:
    """Whether this process is ``trainstep`` or ``python -m trainstep``."""
    name = os.path.splitext(os.path.basename(sys.argv[0]))[0] if getattr(sys, "argv", None) else ""
    return name == "trainstep" or (name == "-m" and ("-m", "trainstep") in pairwise(sys.orig_argv))


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
