#!/bin/sh
# Rewrites constraints.txt from .venv; run it when the tests pass there. Build labels such as +cpu are cut off, so that a
# CUDA build of the same version satisfies the constraint too.
set -eu
cd "$(dirname "$0")/.."
frozen=$(.venv/bin/python -m pip freeze --exclude-editable --disable-pip-version-check)
{
  echo "# The exact versions that CI installs and tests with (Python 3.11, Linux); pyproject.toml has the lower bounds."
  echo "# Made by tools/freeze.sh from an environment in which the tests passed."
  echo "$frozen" | sed -e 's/+[a-z0-9.]*$//' -e '/ @ /d' -e '/^nvidia-/d' -e '/^triton==/d'
} >constraints.txt
