"""The bars of the course, measured: each module has ``measure()``, and ``course bench NAME`` runs it."""
