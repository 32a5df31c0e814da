# Everything from a fresh checkout; needs only make and Python 3.11 or 3.12.
PROFILE ?= laptop
ENV =
EXTEND =
CORES ?= 2

VENV := .venv
READY := $(VENV)/.ready
RUN := $(VENV)/bin/python -m
CANDIDATES := $(or $(PYTHON),python3 python3.12 python3.11)
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))
ROOMS := $(filter-out campaigns,$(sort $(patsubst tests/%/,%,$(wildcard tests/*/))))
OUTPUT_SYNC := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

.DEFAULT_GOAL := help
.PHONY: help setup reproduce tune report stale test test-rest notebooks lint clean $(ROOMS:%=test-%) $(NOTEBOOKS:%=compare/%) $(NOTEBOOKS:%=refresh/%)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Variables: PROFILE=$(PROFILE) ENV=$(ENV) EXTEND=$(EXTEND) (1: only what results lack) CORES=$(CORES) PYTHON=(a Python 3.11 or 3.12; found by itself)"

setup: $(READY) ## a virtual environment with pinned versions in .venv

$(READY): pyproject.toml constraints.txt
	@python=; for candidate in $(CANDIDATES); do \
	  if "$$candidate" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
	      2>/dev/null; then python="$$candidate"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "error: no Python 3.11 or 3.12 with venv among: $(CANDIDATES);" \
	    "install one, or name it: make setup PYTHON=path/to/python3.12" >&2; exit 2; \
	fi; \
	echo "Installing into $(VENV) with $$("$$python" --version); this takes some minutes."; \
	"$$python" -m venv --clear $(VENV)
	@$(RUN) pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

reproduce: $(READY) ## every table and figure of PROFILE (of ENV alone, if given); run again to continue
	@$(RUN) reflect_rl reproduce --profile $(PROFILE) --cores $(CORES) $(ENV:%=--env %) $(if $(filter 1,$(EXTEND)),--extend)

tune: $(READY) ## the tuning grid of PROFILE
	@$(RUN) reflect_rl tune --profile $(PROFILE) --cores $(CORES) $(ENV:%=--env %)

report: $(READY) ## the tables and figures of PROFILE anew from its raw results
	@$(RUN) reflect_rl report --profile $(PROFILE) $(ENV:%=--env %)

stale: $(READY) ## the results of PROFILE that were made by other code than today's
	@$(RUN) reflect_rl stale --profile $(PROFILE)

test: $(READY) ## lint, the tests, and every notebook compared with its committed outputs
	@OMP_NUM_THREADS=1 $(MAKE) --no-print-directory --jobs=$(CORES) --keep-going $(OUTPUT_SYNC) \
	  lint $(ROOMS:%=test-%) test-rest $(NOTEBOOKS:%=compare/%)

$(ROOMS:%=test-%): test-%: $(READY)
	@$(RUN) pytest -q tests/$*

test-rest: $(READY)
	@$(RUN) pytest -q tests/test_*.py

$(NOTEBOOKS:%=compare/%): compare/%: $(READY)
	@$(RUN) reflect_rl notebooks --check $*

notebooks: $(READY) ## execute the notebooks in place, to commit their outputs
	@$(MAKE) --no-print-directory --jobs=$(CORES) --keep-going $(OUTPUT_SYNC) $(NOTEBOOKS:%=refresh/%)

$(NOTEBOOKS:%=refresh/%): refresh/%: $(READY)
	@$(RUN) reflect_rl notebooks $*

lint: $(READY) ## ruff
	@$(RUN) ruff check .

clean: ## remove what is quickly made again; runs/, results/ and figures/ of long profiles stay
	rm -rf $(VENV) build .snakemake .pytest_cache .ruff_cache *.egg-info results/smoke figures/smoke runs/smoke
