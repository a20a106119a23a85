"""What runs inside: it imports nothing of the course, so that no answer can be found in its memory."""
