"""Pictures of training: the loss over two directions, the paths of optimizers, learning rates over the steps.

Each function gives an object that holds the numbers of its picture, draws it (``plot(path)``, `Picture`), and needs matplotlib for
that alone: ``pip install trainstep[plot]``. With ``path=`` the picture is written at once.
"""

from trainstep.plots.functions import beale, ravine, rosenbrock, saddle
from trainstep.plots.landscapes import Landscape, landscape
from trainstep.plots.paths import Trajectories, trajectories
from trainstep.plots.pictures import Picture
from trainstep.plots.rates import Rates, schedules

__all__ = [
    "Landscape",
    "Picture",
    "Rates",
    "Trajectories",
    "beale",
    "landscape",
    "ravine",
    "rosenbrock",
    "saddle",
    "schedules",
    "trajectories",
]
