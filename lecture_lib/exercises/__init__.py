"""Graded exercises: what is asked, what is right, and what each known wrong answer means."""
