"""Widgets of the course: sliders around pure drawing functions. The only room that imports ipywidgets."""

from lecture_lib.widgets.explorer import Explorer, Scene, explore

__all__ = ["Explorer", "Scene", "explore"]
