"""Fast, exact training steps for dense networks and fused optimizers on CPUs.

Four levels, each usable alone: `ops` (and `reference`, the same in NumPy), bare formulas on arrays; `optim`, `schedules`, `init`,
`losses` and `metrics`, the things a trainer is made of; `nn`, networks; `Trainer`, training runs.
"""

from trainstep import _startup  # noqa: F401, I001 - before all that imports the core
from trainstep import _core, averages, callbacks, data, init, losses, metrics, nn, ops, optim, plots, recipe, reference, schedules
from trainstep._runtime import (
    config,
    get_include,
    get_matmul_precision,
    get_num_threads,
    num_threads,
    set_matmul_precision,
    set_num_threads,
    show_config,
)
from trainstep.curves import CurveReport
from trainstep.diagnosis import LayerReport, Report, diagnose
from trainstep.history import History
from trainstep.selftest import selftest
from trainstep.trainer import DivergenceError, Trainer

__version__: str = _core.__version__

__all__ = [
    "CurveReport",
    "DivergenceError",
    "History",
    "LayerReport",
    "Report",
    "Trainer",
    "__version__",
    "averages",
    "callbacks",
    "config",
    "data",
    "diagnose",
    "get_include",
    "get_matmul_precision",
    "get_num_threads",
    "init",
    "losses",
    "metrics",
    "nn",
    "num_threads",
    "ops",
    "optim",
    "plots",
    "recipe",
    "reference",
    "schedules",
    "selftest",
    "set_matmul_precision",
    "set_num_threads",
    "show_config",
]
