# `make` alone lists every target. PYTHON, STEWARD_PORT, STEWARD_STATE and the other settings come from the environment or the command line:
# make run STEWARD_PORT=9090

.DEFAULT_GOAL := help
.NOTPARALLEL:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory

BIN := .venv/bin
TYPED := services gateway
TEST_SECONDS ?= 780
PLATFORM_SECONDS ?= 900

# What ends things needs nothing installed anew, and before the first installation there is nothing to end.
LOCAL := if [ ! -x $(BIN)/python ]; then echo 'Nothing has been installed here yet.'; exit; fi; $(BIN)/python -m services.local

.PHONY: help
help:
	@printf '%s\n' 'Steward (管家): the platform on which a property-services group runs every estate it manages.' ''
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1 · \2/p' Makefile | awk -F ' · ' '{ printf "%-14s %s\n", $$1, $$2 }'
	@printf '%s\n' '' 'The first target that needs them installs the dependencies. Settings and their meaning: README.md and' \
		'`.venv/bin/python -m services.local --help`.'

# Quiet and instant when everything is there. To run, or to check and test too.
.PHONY: ready ready-dev
ready:
	@sh services/local/bootstrap.sh
ready-dev:
	@sh services/local/bootstrap.sh dev

.PHONY: run
run: ready  ## Start the whole platform on this machine and keep it running until Ctrl-C.
	@exec $(BIN)/python -m services.local up

.PHONY: stop
stop:  ## End everything that `make run` has started from this checkout, and nothing else.
	@$(LOCAL) stop

.PHONY: status
status:  ## List the running processes, whether each is ready, and where its metrics are.
	@$(LOCAL) status

.PHONY: wipe
wipe:  ## Stop, then remove all data of this checkout's platform (.steward).
	@$(LOCAL) wipe

.PHONY: demo
demo: ready  ## Play the story of a burst pipe on the running platform, through its public API, and tell it.
	@$(BIN)/python -m services.local.story

.PHONY: bench
bench: ready-dev  ## Measure what a repair costs and where the time goes (docs/performance.md); ARGS="--help" lists what there is.
	@$(BIN)/python -m tests.bench $(ARGS)

.PHONY: rules
rules: ready-dev  ## Write docs/rules.md anew: which rows of the rule book a test proves (needs ../shared/rules).
	@$(BIN)/python -m tests.rules_report

.PHONY: docs
docs: ready-dev  ## Write anew what is generated from the code: settings, metrics, rules and dashboards, who reacts to which event.
	@$(BIN)/python -W ignore -m tests.generated

.PHONY: test
test: check  ## Check the code and run every test, on a PostgreSQL and a RabbitMQ of their own.
	@exec timeout --foreground --signal=INT --kill-after=60 $(TEST_SECONDS) $(BIN)/python -m pytest --ignore=tests/platform $(PYTEST)

# What needs programs that are not Python's: a container engine, Prometheus (README.md of docker/, tests/platform).
.PHONY: test-platform
test-platform: ready-dev  ## Build the image and run it, and play Prometheus against the rules and dashboards (needs docker.io, prometheus).
	@exec timeout --foreground --signal=INT --kill-after=60 $(PLATFORM_SECONDS) $(BIN)/python -m pytest tests/platform $(PYTEST)

.PHONY: check
check: ready-dev  ## Check style, format and types without changing anything.
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --quiet --check
	@$(BIN)/mypy --no-error-summary $(TYPED)

.PHONY: format
format: ready-dev  ## Format the code, and mend what the style check can mend by itself.
	@$(BIN)/ruff check --quiet --fix --exit-zero
	@$(BIN)/ruff format --quiet

.PHONY: gen
gen: ready  ## Generate code from the protos into gen/ (every other target does so too when they have changed).

# The largest first: the others take their versions from it.
COMPILE = .venv/lock-tool/bin/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-build \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet
.PHONY: lock
lock: ready  ## Write the lock files anew from pyproject.toml; UPGRADE=--upgrade takes the newest versions it allows.
	@$(BIN)/python -m venv .venv/lock-tool
	@.venv/lock-tool/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@$(COMPILE) --group dev $(UPGRADE) --output-file requirements-dev.lock
	@$(COMPILE) --group local --constraint requirements-dev.lock --output-file requirements-local.lock
	@$(COMPILE) --constraint requirements-dev.lock --output-file requirements.lock

.PHONY: clean
clean:  ## Stop the platform and remove what can be made again: .venv, gen and caches; data stay.
	@$(LOCAL) stop
	@rm -rf .venv gen .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './.steward/*' -prune -exec rm -rf {} +
