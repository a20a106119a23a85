#!/bin/sh
# Makes .venv and installs the course into it. Called by the Makefile as `tools/setup.sh lab` or `tools/setup.sh dev`.
#
# A stamp inside .venv records what was installed from what. While it matches, this script ends within milliseconds;
# when an install fails there is no stamp, and the next call does it again (from scratch if it was killed half-way).
# Settings: PYTHON (interpreter), TORCH_INDEX (a package index that has CPU builds of torch).
set -eu

level=${1:-lab}
case $level in
  lab) extras='lab' ;;
  dev) extras='lab,dev,oracles,grading' ;;
  *) echo "setup: unknown level '$level', expected lab or dev" >&2; exit 2 ;;
esac
cd "$(dirname "$0")/.."
venv_python=.venv/bin/python
unfinished=.venv/unfinished

say() { printf '[setup] %s\n' "$*"; }
die() { rm -f "$unfinished"; printf '[setup] %s\n' "$@" >&2; exit 1; }

# An interpreter counts when it starts at all (pyenv shims may exist and still fail) and is 3.11, 3.12 or 3.13.
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }
fits() { case "$(version_of "$1")" in 3.11|3.12|3.13) return 0 ;; *) return 1 ;; esac; }

find_python() {
  if [ -n "${PYTHON:-}" ]; then
    if fits "$PYTHON"; then echo "$PYTHON"; return; fi
    found=$(version_of "$PYTHON")
    die "PYTHON=$PYTHON is ${found:-no interpreter that starts}; the course needs Python 3.11, 3.12 or 3.13."
  fi
  for candidate in python3 python3.13 python3.12 python3.11 python; do
    if command -v "$candidate" >/dev/null 2>&1 && fits "$candidate"; then echo "$candidate"; return; fi
  done
  found=$(version_of python3)
  die "No Python 3.11, 3.12 or 3.13 on PATH (python3 is ${found:-not there}). Install one from https://www.python.org" \
      "or with your system's packages, or say where it is: make lab PYTHON=/path/to/python3.12"
}

# --- is there anything to do? -------------------------------------------------------------------------------------
key() { cat pyproject.toml constraints.txt tools/setup.sh | cksum; echo "$PWD"; }

right_python() { [ -z "${PYTHON:-}" ] || [ "$(version_of "$PYTHON")" = "$(version_of "$venv_python")" ]; }

now=$(key)
for stamp in .venv/installed-dev ".venv/installed-$level"; do
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$now" ] && [ -x "$venv_python" ] && right_python; then exit 0; fi
done

# --- the environment ----------------------------------------------------------------------------------------------
usable_venv() {
  [ ! -f "$unfinished" ] && [ -x "$venv_python" ] && fits "$venv_python" && right_python &&
    "$venv_python" -m pip --version >/dev/null 2>&1
}

make_venv() {
  python=$(find_python)
  say "making .venv with $python ($(version_of "$python"))"
  "$python" -m venv --clear .venv || die "Python's venv module failed." \
    "On Debian and Ubuntu it is a package of its own: apt install python$(version_of "$python")-venv"
}

pip_install() { "$venv_python" -m pip install -qq --disable-pip-version-check "$@"; }

# torch goes in first: left to the resolver, it may come as the newest build with gigabytes of CUDA libraries.
install_torch() {
  wanted=$(sed -n 's/^torch==//p' constraints.txt)
  if "$venv_python" -c "import torch; assert torch.__version__.split('+')[0] == '$wanted'" 2>/dev/null; then return; fi
  if [ -n "${TORCH_INDEX:-}" ]; then
    say "torch $wanted from $TORCH_INDEX"
    pip_install "torch==$wanted" --index-url "$TORCH_INDEX"
  elif command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
    say "torch $wanted with CUDA, since there is an NVIDIA driver (a few GB, once)"
    pip_install "torch===$wanted"  # three signs: exactly this build, not a CPU build labelled +cpu
  elif [ "$(uname -s)" = Darwin ]; then
    say "torch $wanted"
    pip_install "torch==$wanted"
  else
    say "torch $wanted, CPU build"
    pip_install "torch==$wanted+cpu" 2>/dev/null || {
      say "your package index has no separate CPU build: taking the standard one, which is large on Linux (a few GB)."
      say "For the small one stop here and run: make lab TORCH_INDEX=https://download.pytorch.org/whl/cpu"
      pip_install "torch==$wanted"
    }
  fi
}

usable_venv || make_venv
rm -f .venv/installed-*
: >"$unfinished"
say "installing, a few minutes the first time"
install_torch || die "torch could not be installed; pip's message stands above."
say "the course and what it needs: lecture-lib[$extras]"
pip_install -c constraints.txt -e ".[$extras]" || die "the installation failed; pip's message stands above."
rm -f "$unfinished"
printf '%s\n' "$now" >".venv/installed-$level"
say "ready"
