"""``python -m trainstep``: the command line."""

import sys

from trainstep.cli import main

sys.exit(main())
