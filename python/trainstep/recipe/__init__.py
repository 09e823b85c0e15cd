"""The recipe: five steps from data to settings that train, and a report on each of them."""

from .procedure import run
from .results import Candidate, Curves, Grid, InitialLoss, Overfit, RateTest, Recipe

__all__ = ["Candidate", "Curves", "Grid", "InitialLoss", "Overfit", "RateTest", "Recipe", "run"]
