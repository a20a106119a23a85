"""The library behind the course on modern image generation.

Rooms, in the order in which they may import one another (never the other way round)::

    tensors <- core <- oracles, guidance, samplers <- distill <- training <- families <- zoo
    tensors <- nets        data, metrics        viz <- widgets        checks        sandbox <- exercises <- grading

``t = 0`` is data and ``t = 1`` is noise, everywhere: ``x_t = alpha(t) x0 + sigma(t) eps``.
Importing the package loads nothing heavier than torch; every room is imported on its own, e.g.
``from lecture_lib.samplers import DDIM, sample, last``.
"""

__version__ = "0.1.0"
