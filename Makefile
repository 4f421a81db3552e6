# Everything a newcomer types: `make demo` and `make test`. Both install into .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help install install-dev install-torchrec demo test check bench golden sanitize clean

help:  ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/installed  ## Create .venv and install dlrm with its extras
install-dev: .venv/installed-dev

install-torchrec: .venv/bin/python  ## Add TorchRec, the engine for clusters, to .venv
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[torchrec]'
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt --no-deps torchrec

.venv/bin/python:
	$(PYTHON) -m venv .venv

# constraints.txt pins every package, so that nothing pulls another torch.
.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[all]'
	@touch $@

.venv/installed-dev: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt --no-deps torchrec sdmetrics copulas plotly narwhals
	@touch .venv/installed $@

demo: install  ## Train the default model on a generated click log, up to its report
	$(BIN)/dlrm train demo

test: install-dev  ## Run the whole test suite
	$(BIN)/pytest -n 2 --dist worksteal

check: install-dev  ## Lint, type-check and check the import floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: install-dev  ## Measure speed (never part of the tests)
	$(BIN)/python benchmarks/run.py

golden: install-dev  ## Run golden runs and the kernels' oracle tests on every path, masked ones too
	cd tests && ../$(BIN)/python -m ops.paths

sanitize: install-dev  ## Run the kernels' oracle tests under AddressSanitizer and UBSan
	$(BIN)/python tests/ops/sanitize.py

clean:  ## Remove .venv and caches
	rm -rf .venv .pytest_cache .ruff_cache .import_linter_cache
