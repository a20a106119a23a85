"""Training as a generator: the loop yields, and logging, averaging, saving and stopping belong to the caller."""

from lecture_lib.training.checkpoint import restore, save
from lecture_lib.training.ema import Ema
from lecture_lib.training.forecast import Forecast, Run, bootstrap, forecast, interval, read_runs
from lecture_lib.training.mup import (
    Role,
    WidthRule,
    activations,
    movement,
    movement_slopes,
    mup_adamw,
    mup_attention,
    mup_groups,
    mup_init,
    width_rules,
)
from lecture_lib.training.scaling import (
    ParametricLaw,
    PowerLaw,
    Valley,
    fit_parametric,
    fit_power_law,
    fit_straight_line,
    frontier,
    growth_exponent,
    isoflop_valleys,
)
from lecture_lib.training.schedule import Schedule, constant, warmup_cosine
from lecture_lib.training.train import ByStep, Loss, Step, adamw, bfloat16, full_precision, train

__all__ = [
    "ByStep",
    "Ema",
    "Forecast",
    "Loss",
    "ParametricLaw",
    "PowerLaw",
    "Role",
    "Run",
    "Schedule",
    "Step",
    "Valley",
    "WidthRule",
    "activations",
    "adamw",
    "bfloat16",
    "bootstrap",
    "constant",
    "fit_parametric",
    "fit_power_law",
    "fit_straight_line",
    "forecast",
    "frontier",
    "full_precision",
    "growth_exponent",
    "interval",
    "isoflop_valleys",
    "movement",
    "movement_slopes",
    "mup_adamw",
    "mup_attention",
    "mup_groups",
    "mup_init",
    "read_runs",
    "restore",
    "save",
    "train",
    "warmup_cosine",
    "width_rules",
]
