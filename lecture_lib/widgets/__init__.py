"""Widgets of the course: sliders around pure drawing functions. The only room that imports ipywidgets."""

from lecture_lib.widgets.controls import choice, count, number, same_seed, switch
from lecture_lib.widgets.convergence import error_nfe_explorer
from lecture_lib.widgets.digits import guidance_sweep, interval_explorer, two_conventions
from lecture_lib.widgets.explorer import Explorer, Scene, explore
from lecture_lib.widgets.laws import mixture_playground, negative_prompt
from lecture_lib.widgets.plane import parallelogram_explorer
from lecture_lib.widgets.repairs import repairs_explorer
from lecture_lib.widgets.trajectories import trajectories_explorer

__all__ = [
    "Explorer",
    "Scene",
    "choice",
    "count",
    "error_nfe_explorer",
    "explore",
    "guidance_sweep",
    "interval_explorer",
    "mixture_playground",
    "negative_prompt",
    "number",
    "parallelogram_explorer",
    "repairs_explorer",
    "same_seed",
    "switch",
    "trajectories_explorer",
    "two_conventions",
]
