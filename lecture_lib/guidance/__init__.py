"""Guidance, all of Lecture 2: combination rules, denoisers built from denoisers, repairs, memory, distillation."""

from lecture_lib.guidance.classifier import classifier_guidance, log_prob_gradient
from lecture_lib.guidance.distillation import guidance_distillation_loss
from lecture_lib.guidance.guide import compose, extrapolate, fused, guide, interval
from lecture_lib.guidance.memory import Remembering, cached, projected_momentum
from lecture_lib.guidance.repairs import clipped, thresholded
from lecture_lib.guidance.rules import Rule, Scale, linear, plus_plus, project, projected, rescaled

__all__ = [
    "Remembering",
    "Rule",
    "Scale",
    "cached",
    "classifier_guidance",
    "clipped",
    "compose",
    "extrapolate",
    "fused",
    "guidance_distillation_loss",
    "guide",
    "interval",
    "linear",
    "log_prob_gradient",
    "plus_plus",
    "project",
    "projected",
    "projected_momentum",
    "rescaled",
    "thresholded",
]
