"""Runs a student's answer behind walls: ``box`` is the parent's side, ``inside`` what goes in and knows no answers."""
