# CLIP Explained: what can be made here.
#
#   make setup      create .venv and install everything (skipped when current; the other targets do it when needed)
#   make figures    execute the notebooks, several at once; figures go to figures/, executed copies to build/notebooks/
#   make site       the documentation: guide, methods, scoreboard, executed notebooks, reference; build/site/index.html
#   make test       run the tests, in as many processes as there are cores, up to four; those in a browser after them
#   make lint       ruff, pyright, and a check that no notebook carries outputs
#   make lab        open JupyterLab
#   make app        open the explorer (notebook 00) as a page of its own
#   make lock       resolve the dependencies anew and write requirements.lock
#   make clean      remove build/ and caches (.venv and figures/ stay)
#
# One notebook, other parameters (only what is given is passed on; the rest keeps the notebook's own values):
#   make figures NB=01 MODEL="ViT-B/16" DATASET=imagenet N_IMAGES=50 SEED=1 DEVICE=cuda OUT=/tmp/figures
# ARGS adds arguments: make test ARGS="-k grid", make figures NB=01 ARGS='-p name value', make figures ARGS="--jobs 1",
# make lab ARGS=--no-browser

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/setup-is-current

.PHONY: setup figures site test lint lab app lock clean
.DEFAULT_GOAL := setup

setup: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	@test -x $(BIN)/pip || $(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is " \
		+ sys.version.split()[0] + ": try make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): some gigabytes, some minutes"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e ".[dev]"
	@touch $@

# A parameter counts when it stands on make's command line, not when the environment happens to hold a variable of that name.
given = $(if $(filter command,$(origin $(1))),-p $(2) '$(subst ','\'',$($(1)))')
figures: $(STAMP)
	@$(BIN)/python notebooks/run.py $(if $(filter command,$(origin NB)),$(NB)) $(strip $(call given,MODEL,model) \
		$(call given,DATASET,dataset) $(call given,N_IMAGES,n_images) $(call given,SEED,seed) \
		$(call given,DEVICE,device) $(call given,OUT,out_dir) $(ARGS))

site: $(STAMP)
	@$(BIN)/python docs/make_site.py $(ARGS)

test: $(STAMP)
	@export OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1}; \
		$(BIN)/python -m pytest -m "not browser" -n logical --maxprocesses 4 --dist worksteal $(ARGS); side_by_side=$$?; \
		$(BIN)/python -m pytest -m browser tests/explorer/test_explorer_browser.py $(ARGS); alone=$$?; \
		case "$$side_by_side $$alone" in "0 0" | "0 5" | "5 0") ;; *) exit 1 ;; esac  # 5: no test has the name given

lint: $(STAMP)
	@$(BIN)/ruff check
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@$(BIN)/lint-imports
	@$(BIN)/nbstripout --verify notebooks/*.ipynb

lab: $(STAMP)
	@$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks $(ARGS)

app: $(STAMP)
	@JUPYTER_PATH="$(CURDIR)/lib/clip_explain/explorer/page$${JUPYTER_PATH:+:$$JUPYTER_PATH}" \
		$(BIN)/voila notebooks/00_explorer.ipynb --template=clip-explain $(ARGS)

lock:
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@mkdir -p build
	@$(BIN)/python -m pip install --quiet --dry-run --ignore-installed --report build/resolved.json \
		-e ".[dev,open-clip]"
	@$(BIN)/python -c 'import json; found = [item["metadata"] for item in json.load(open("build/resolved.json"))["install"]]; \
		print(*sorted((m["name"] + "==" + m["version"] for m in found if m["name"] != "clip-explain"), key=str.lower), sep="\n")' \
		> build/requirements.lock
	@mv build/requirements.lock requirements.lock

clean:
	@rm -rf build dist lib/*.egg-info .pytest_cache .ruff_cache
	@find lib tests notebooks -name __pycache__ -prune -exec rm -rf {} + -o -name .ipynb_checkpoints -prune -exec rm -rf {} +
