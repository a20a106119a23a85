"""Figures of the course. Functions return matplotlib figures or Pillow images; ``show`` displays one with its alt text.

Importing this room loads matplotlib (but never pyplot), so nothing else in the library imports it.
"""

from lecture_lib.viz.blocks import network_map
from lecture_lib.viz.curves import Line, Tradeoff, bars, heat_map, sweep, tradeoff
from lecture_lib.viz.densities import (
    Curve,
    Histogram,
    density_contours,
    density_curves,
    lattice,
    scatter,
    square,
)
from lecture_lib.viz.display import bundle, show, show_source
from lecture_lib.viz.fields import parallelogram, trajectories, vector_field
from lecture_lib.viz.films import (
    SAMPLED,
    Backdrop,
    CostLine,
    Shot,
    cost_shot,
    cost_stage,
    film_shot,
    film_stage,
)
from lecture_lib.viz.front import cost_front
from lecture_lib.viz.images import as_picture, captioned_grid, image_grid, png_bytes, stack, text_card, to_pixels
from lecture_lib.viz.jumps import halving_tree, jump_squares
from lecture_lib.viz.maps import colour_bar, coloured, shades
from lecture_lib.viz.style import (
    COND,
    DATA,
    EXACT,
    GUIDED,
    NOISE,
    OTHERS,
    STUDENT,
    UNCOND,
    legend,
    other,
    panels,
    style,
    styled,
)
from lecture_lib.viz.words import similarity_matrix

__all__ = [
    "COND",
    "DATA",
    "EXACT",
    "GUIDED",
    "NOISE",
    "OTHERS",
    "SAMPLED",
    "STUDENT",
    "UNCOND",
    "Backdrop",
    "CostLine",
    "Curve",
    "Histogram",
    "Line",
    "Shot",
    "Tradeoff",
    "as_picture",
    "bars",
    "bundle",
    "captioned_grid",
    "colour_bar",
    "coloured",
    "cost_front",
    "cost_shot",
    "cost_stage",
    "density_contours",
    "density_curves",
    "film_shot",
    "film_stage",
    "halving_tree",
    "heat_map",
    "image_grid",
    "jump_squares",
    "lattice",
    "legend",
    "network_map",
    "other",
    "panels",
    "parallelogram",
    "png_bytes",
    "scatter",
    "shades",
    "show",
    "show_source",
    "similarity_matrix",
    "square",
    "stack",
    "style",
    "styled",
    "sweep",
    "text_card",
    "to_pixels",
    "tradeoff",
    "trajectories",
    "vector_field",
]
