"""Errors that a reader can act on: each names the argument, what came, and what was expected."""

from __future__ import annotations


class CourseError(ValueError):
    """Base of every error this library raises on purpose."""


class ShapeError(CourseError):
    """A tensor has the wrong shape or dtype."""


class RangeError(CourseError):
    """A number lies outside the range in which the formula holds."""


class NonFiniteError(CourseError):
    """A tensor contains NaN or infinity where only numbers make sense."""


class SingularError(CourseError):
    """The formula divides by zero at this time: epsilon at alpha = 0, a score at sigma = 0, ..."""


class NotDifferentiableError(CourseError):
    """A part of the network has no forward-mode derivative."""


class UnknownNameError(CourseError):
    """A name (recipe, class, sampler) that does not exist; the message lists the ones that do."""


class DamagedFileError(CourseError):
    """A file is truncated, altered, or was not written by this course."""


class UnreachableError(CourseError):
    """Data must be fetched and cannot be; the message says what to do without a network."""


class MissingPackageError(CourseError):
    """An optional package is needed; the message says how to install it."""


class FrozenError(CourseError):
    """Weights that must stay as they are would be trained."""


class NotDefined(CourseError):
    """A family has no such thing: a density of a model without one, noise on the way of a model that never noises."""


class NotTractable(CourseError):
    """There is such a thing, and nobody can compute it: the density of a generator's push-forward."""
