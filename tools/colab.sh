#!/bin/sh
# Makes .venv-colab, an environment with the versions of tools/colab.txt and without the course: what a notebook finds on
# Colab. tests/test_colab.py runs notebooks in it; without it those tests are skipped, and say so.
#
# Colab has torch 2.11 on Python 3.13. Its CPU build is taken if the index has one (TORCH_INDEX names an index, as for
# tools/setup.sh), else the CPU build of .venv with .venv's Python, so that nobody pulls gigabytes for a test.
set -eu
cd "$(dirname "$0")/.."
home=.venv-colab

say() { printf '[colab] %s\n' "$*"; }
now=$(cat tools/colab.txt tools/colab.sh | cksum)
if [ -x $home/bin/python ] && [ "$(cat $home/made-from 2>/dev/null)" = "$now" ]; then exit 0; fi

# attempt PYTHON TORCH: a fresh environment with that torch, or a failure within seconds
attempt() {
  "$1" -m venv --clear $home 2>/dev/null || return 1
  $home/bin/python -m pip install -qq --disable-pip-version-check "torch==$2+cpu" \
    ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} 2>/dev/null
}

pinned=$(sed -n 's/^torch==//p' constraints.txt)
attempt python3.13 2.11.0 || attempt .venv/bin/python "$pinned" || {
  say "no CPU build of torch to be had: name an index, e.g. TORCH_INDEX=https://download.pytorch.org/whl/cpu" >&2
  exit 1
}
$home/bin/python -m pip install -qq --disable-pip-version-check -r tools/colab.txt
printf '%s\n' "$now" >$home/made-from
say "$($home/bin/python -c 'import platform, torch; print("Python", platform.python_version(), "· torch", torch.__version__)')" \
  "(Colab: Python 3.13 · torch 2.11.0)"
