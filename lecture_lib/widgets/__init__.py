"""Widgets of the course: sliders around pure drawing functions. The only room that imports ipywidgets."""

from lecture_lib.widgets.adapters import lora_strength
from lecture_lib.widgets.attention import attention_explorer
from lecture_lib.widgets.bridges import bridge_explorer
from lecture_lib.widgets.concepts import concept_slider
from lecture_lib.widgets.controls import choice, count, ladder, number, same_seed, switch, text
from lecture_lib.widgets.convergence import error_nfe_explorer
from lecture_lib.widgets.couplings import coupling_explorer
from lecture_lib.widgets.curricula import curriculum_explorer
from lecture_lib.widgets.digits import guidance_sweep, interval_explorer, two_conventions
from lecture_lib.widgets.energies import Landscape, energy_landscape, exact_landscapes
from lecture_lib.widgets.exhibits import Exhibit
from lecture_lib.widgets.explorer import Explorer, Scene, explore
from lecture_lib.widgets.flow_maps import flow_map_explorer
from lecture_lib.widgets.front import front_explorer, front_picture, measured_front
from lecture_lib.widgets.gallery import family_gallery
from lecture_lib.widgets.interpolants import interpolant_explorer
from lecture_lib.widgets.latent_plane import latent_plane_explorer
from lecture_lib.widgets.latents import latent_explorer
from lecture_lib.widgets.laws import mixture_playground, negative_prompt
from lecture_lib.widgets.modulations import modulation_explorer
from lecture_lib.widgets.patches import patch_explorer
from lecture_lib.widgets.plane import parallelogram_explorer
from lecture_lib.widgets.positions import position_explorer
from lecture_lib.widgets.prompts import prompt_box
from lecture_lib.widgets.quadrants import quadrant_explorer
from lecture_lib.widgets.repairs import repairs_explorer
from lecture_lib.widgets.scaling import measured_runs, scaling_explorer
from lecture_lib.widgets.schedules import schedule_explorer
from lecture_lib.widgets.steps import steps_explorer
from lecture_lib.widgets.trajectories import trajectories_explorer
from lecture_lib.widgets.verdicts import verdicts

__all__ = [
    "Exhibit",
    "Explorer",
    "Landscape",
    "Scene",
    "attention_explorer",
    "bridge_explorer",
    "choice",
    "concept_slider",
    "count",
    "coupling_explorer",
    "curriculum_explorer",
    "energy_landscape",
    "error_nfe_explorer",
    "exact_landscapes",
    "explore",
    "family_gallery",
    "flow_map_explorer",
    "front_explorer",
    "front_picture",
    "guidance_sweep",
    "interpolant_explorer",
    "interval_explorer",
    "ladder",
    "latent_explorer",
    "latent_plane_explorer",
    "lora_strength",
    "measured_front",
    "measured_runs",
    "mixture_playground",
    "modulation_explorer",
    "negative_prompt",
    "number",
    "parallelogram_explorer",
    "patch_explorer",
    "position_explorer",
    "prompt_box",
    "quadrant_explorer",
    "repairs_explorer",
    "same_seed",
    "scaling_explorer",
    "schedule_explorer",
    "steps_explorer",
    "switch",
    "text",
    "trajectories_explorer",
    "two_conventions",
    "verdicts",
]
