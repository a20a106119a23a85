"""What the ``course`` command does, one small file per task; the notebooks need none of it."""
