# Every target can be run twice. `make` alone lists them.
#
# Needs bash, Python 3.11 or newer and a package index. Everything else comes from requirements.lock and goes into .venv.
SHELL := bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
INSTALLED := .venv/.installed
SUPPORTED := import sys; sys.exit(not sys.version_info >= (3, 11))
# The first supported interpreter; `make PYTHON=/path/to/python3.13 TARGET` chooses another one.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do "$$p" -c '$(SUPPORTED)' >/dev/null 2>&1 && { echo "$$p"; break; }; done)
# More arguments for pytest: `make test ARGS="-k ledger"`.
ARGS ?=
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  \033[1mmake %-10s\033[0m %s\n", $$1, $$2}'

demo: $(INSTALLED) ## Install, then run the main job on the embedded real data and print the results
	@$(BIN)/afterclose demo

test: $(INSTALLED) ## The test suite; one case each of slow, services, browser and chaos: make test ARGS="-k ledger"
	@$(PYTEST) -m "not (slow or services or browser or chaos) or smoke" $(ARGS)

test-all: $(INSTALLED) ## Every test
	@$(PYTEST) $(ARGS)

chaos: $(INSTALLED) ## What orders survive: kills, faults, races; writes docs/exactly-once.md, some minutes
	@$(BIN)/python -m tests.chaos.table $(ARGS)

check: $(INSTALLED) ## Lint, format, types, import contracts
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/pyright --project pyproject.toml
	@$(BIN)/lint-imports

format: $(INSTALLED) ## Fix what ruff can fix
	@$(BIN)/ruff check --fix --exit-zero
	@$(BIN)/ruff format

lock: | $(BIN)/python ## Bring requirements.lock up to pyproject.toml; make lock UPGRADE=1 moves every pin
	@$(BIN)/python -m uv --version >/dev/null 2>&1 || $(INSTALL_UV)
	@$(UV_PIP) compile --universal --python-version 3.11 --generate-hashes --no-strip-extras \
	  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) \
	  --group dev pyproject.toml --output-file requirements.lock >/dev/null

calendar: $(INSTALLED) ## Freeze the exchange calendar into quant/xnys.json
	@$(BIN)/python -m adapters.freeze_calendar

factors: $(INSTALLED) ## Freeze the expressions of pyqlib's Alpha158 and Alpha360 into quant/factors/library
	@$(BIN)/python -m adapters.freeze_factors

docs: $(INSTALLED) ## Remake the reference pages, and the tour from the demo's data root
	@$(BIN)/python -m orchestration.reference
	@$(BIN)/python -m orchestration.tour

benchmark: $(INSTALLED) ## The factor engine against pyqlib and KunQuant, printed as ratios; a quarter of an hour
	@$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --target build/peers --no-deps KunQuant==0.1.12
	@$(BIN)/python -m benchmarks.alpha158

start: $(INSTALLED) ## Start UI and daemon in the background: make start PORT=3001
	@$(BIN)/afterclose start $(if $(PORT),--port $(PORT))

stop: $(INSTALLED) ## Stop them
	@$(BIN)/afterclose stop

status: $(INSTALLED) ## Whether they run, and how far every asset is
	@$(BIN)/afterclose server
	@$(BIN)/afterclose status

logs: $(INSTALLED) ## Their log: make logs FOLLOW=1 keeps printing
	@$(BIN)/afterclose logs $(if $(FOLLOW),--follow)

clean: ## Stop the server, remove everything generated; data/ stays unless make clean DATA=1
	@if [ -x $(BIN)/afterclose ]; then $(BIN)/afterclose stop || true; fi
	@rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
ifeq ($(origin DATA) $(DATA),command line 1)
	@if [ -d data ]; then find data -mindepth 1 ! -path data/README.md -delete; fi
endif

.PHONY: help demo test test-all chaos check format lock calendar factors docs benchmark start stop status logs clean

# The environment. The stamp is newer than what it was made from, so a second call costs nothing.
$(INSTALLED): requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing requirements.lock into .venv (a minute or two the first time)"
	@if $(INSTALL_UV) && $(UV_PIP) sync --compile-bytecode --python $(BIN)/python $(HASHED) requirements.lock && $(UV_PIP) install --python $(BIN)/python $(EDITABLE); then :; else \
	  echo "uv could not; installing with pip, which takes longer" >&2; \
	  $(PIP) install $(HASHED) -r requirements.lock && $(PIP) install $(EDITABLE); fi
	@$(BIN)/python -c 'import lightgbm' 2>.venv/lightgbm.log || { tail -n 1 .venv/lightgbm.log >&2; \
	  echo "LightGBM needs the OpenMP runtime of the system: apt-get install libgomp1 (Debian, Ubuntu), dnf install libgomp, brew install libomp; then run make again" >&2; exit 1; }
	@$(BIN)/python -c 'from quant.factors.compile import warm; warm()' # the engine's machine code, kept beside its source
	@touch $@

$(BIN)/python:
	@if [ -z "$(PYTHON)" ] || ! "$(PYTHON)" -c '$(SUPPORTED)'; then \
	  echo "expected Python 3.11 or newer, found $$($(or $(PYTHON),python3) --version 2>&1); install one and name it: make PYTHON=/path/to/python3.13 ..." >&2; exit 1; fi
	@"$(PYTHON)" -m venv --clear .venv || { \
	  echo "expected $(PYTHON) to make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; rm -rf .venv; exit 1; }

# uv itself is pinned, with its hashes, in requirements.lock.
INSTALL_UV = { sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > .venv/uv.txt && $(PIP) install $(HASHED) -r .venv/uv.txt; }
PIP = $(BIN)/python -m pip --quiet --disable-pip-version-check
UV_PIP = $(BIN)/python -m uv --quiet pip
HASHED := --require-hashes
EDITABLE := --no-deps --no-build-isolation --editable .
