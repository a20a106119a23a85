# The course in two commands:  make lab  (learn)  and  make test  (prove it).  `make help` lists the rest.
#
# Settings:  ARGS=...         passed on to the command, e.g. make lab ARGS=--no-browser
#            PYTHON=...       the interpreter for .venv (3.11 to 3.13), default: the first that fits
#            TORCH_INDEX=...  a package index with CPU builds of torch, e.g. https://download.pytorch.org/whl/cpu
.DEFAULT_GOAL := help
.PHONY: help lab test colab run notebooks slides info bench fmt lint clean setup setup-dev
export PYTHON TORCH_INDEX
PYTHON ?=
TORCH_INDEX ?=
ARGS ?=
BIN := .venv/bin/python
COURSE := $(BIN) -m lecture_lib.cli

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup:
	@sh tools/setup.sh lab
setup-dev:
	@sh tools/setup.sh dev

lab: setup  ## open JupyterLab on notebooks/00_start_here.ipynb (ARGS=--no-browser: a server without a window)
	@$(COURSE) lab $(ARGS)

test: setup-dev  ## everything that must hold: tests, then every notebook; ends with one line of counts
	@$(COURSE) test $(ARGS)

colab: setup-dev  ## run the start page, a lecture and an exercise with the versions that Colab has
	@sh tools/colab.sh && $(BIN) -m pytest -q tests/test_colab.py

run: setup  ## execute every notebook and write the reading version to site/ (ARGS="L2_guidance_lab --html-only" ...)
	@$(COURSE) run $(ARGS)

notebooks: setup  ## rebuild the .ipynb files from their .py sources, executed (ARGS=NAME for one of them)
	@$(COURSE) run --write $(ARGS)

slides: setup  ## lectures as HTML slides with speaker notes, in site/slides/ (ARGS=L2_guidance_lecture for one of them)
	@$(COURSE) slides $(ARGS)

info: setup  ## versions, device and zoo state: what to paste into a bug report
	@$(COURSE) info $(ARGS)

bench: setup  ## the measured bars: import time, slider latency, ... (ARGS=NAME for one of them)
	@$(COURSE) bench $(ARGS)

fmt: setup-dev  ## format code and notebook sources
	@$(BIN) -m ruff format . --exclude '*.ipynb' && $(BIN) -m ruff check --fix-only --quiet . --exclude '*.ipynb'

lint: setup-dev  ## check format, style, and that each .py and .ipynb still agree
	@$(BIN) -m ruff format --check . && $(BIN) -m ruff check . && $(COURSE) check

clean:  ## remove what commands made (site/, runs/, caches); .venv stays, `rm -rf .venv` removes it
	@rm -rf site runs build dist .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
