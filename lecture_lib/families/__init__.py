"""Families of models beside diffusion, and what they are trained for."""

from lecture_lib.families.contrastive import info_nce, remove_span, same_texts, span_loss

__all__ = ["info_nce", "remove_span", "same_texts", "span_loss"]
