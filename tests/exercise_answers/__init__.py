"""Right answers, written differently from those of the course: all must be accepted."""
