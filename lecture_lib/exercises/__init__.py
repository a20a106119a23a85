"""Graded exercises: what is asked, what is right, and what each known wrong answer means."""

from lecture_lib.exercises.checking import check

__all__ = ["check"]
