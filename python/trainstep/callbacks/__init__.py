"""Callbacks: what ``Trainer.fit(callbacks=[...])`` calls while it runs.

A callback is an object of a class below `Callback` that has some of its methods of its own. They are called in the order of the
list (those that save the others come last), between two steps, so they may use the model and the trainer as anyone may.
"""

from trainstep.callbacks.base import Callback, LambdaCallback
from trainstep.callbacks.checkpoint import Checkpoint
from trainstep.callbacks.csv_logger import CSVLogger
from trainstep.callbacks.monitor import Monitor
from trainstep.callbacks.stopping import EarlyStopping, TerminateOnNaN
from trainstep.callbacks.tensorboard import TensorBoard

__all__ = [
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "LambdaCallback",
    "Monitor",
    "TensorBoard",
    "TerminateOnNaN",
]
