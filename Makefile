# `make` sets up and runs the default pipeline; `make test` sets up and runs the tests.
PYTHON ?= python3
CORES ?= all
BIN := .venv/bin
# The environment's programs come first: the rules call `octdino` by name.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Every job is a process: without cached bytecode each would compile torch again, 10 s a job.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: all setup test slow cluster learning fuzz benchmark check vulnerabilities licences format lock schema clean

all: setup
	snakemake --cores $(CORES)
	@echo "The page: results/phantom/report/report.html"

setup: .venv/.ready

# uv installs the hash-checked lock in seconds; pip only brings uv.
.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "octdino needs Python 3.11 or newer; choose one with: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "Python's venv module is missing; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet 'uv>=0.7'
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --requirement requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

test: setup
	python -m pytest -n auto --dist loadfile

slow: setup
	python -m pytest -m slow -n auto --dist loadfile

learning: setup
	python -m pytest -m learning -n auto --dist load -rP

# Damaged inputs for every verb: OCTDINO_FUZZ_CASES of them (default 300) from number OCTDINO_FUZZ_SEED (default 0) on.
fuzz: setup
	python -m pytest -m fuzz -n 0 tests/fuzz

# On a SLURM of one node that the tests bring up and down; as root, with Debian's slurmctld, slurmd, slurm-client, munge.
cluster: setup
	python -m pytest -m cluster -n 0 -rs

# Half an hour on two cores, for numbers worth keeping on a machine that does nothing else.
benchmark: setup
	python -m benchmarks

check: setup
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile workflow replication
	snakemake --lint --cores 1

# Known weaknesses of the installed packages; needs the network of the Python Package Index.
vulnerabilities: setup
	$(BIN)/uv tool run pip-audit --path $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

# Licences of the installed packages; one of the AGPL's kind would bind users of octdino, too.
licences: setup
	$(BIN)/uv tool run pip-licenses --python $(BIN)/python --format markdown --order license \
		--partial-match --fail-on 'Affero;AGPL'

format: setup
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow replication

# Host-free by --no-header and by writing no index addresses.
lock:
	uv pip compile --universal --generate-hashes --no-header --extra dev --extra cluster pyproject.toml --output-file requirements.lock

schema: setup
	octdino schema > workflow/schemas/config.schema.json

clean:
	rm -rf results logs benchmarks/.work
