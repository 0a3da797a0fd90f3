# `make` sets up and runs the default pipeline; `make test` sets up for development and runs the tests.
PYTHON ?= python3
CORES ?= all
BIN := .venv/bin
# The environment's programs come first: the rules call `octdino` by name.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Every job is a process: without cached bytecode each would compile torch again, 10 s per job.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: all setup setup-dev test slow cluster bare dist learning fuzz benchmark gpu check vulnerabilities licenses format \
	lock schema docs pictures clean

# Snakemake's last lines name the page, if it was written or is up to date.
all: setup
	snakemake --cores $(CORES)

setup: .venv/.ready

setup-dev: .venv/.ready-dev

# CPU_ONLY=1 leaves out packages that only a GPU needs.
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python $(if $(CPU_ONLY),--excludes envs/gpu-only.txt)

# The programs in .venv begin with its absolute path: an environment of a checkout that was moved is made again.
MOVED := $(shell grep '^command = ' .venv/pyvenv.cfg 2>/dev/null | grep -q -v -F -e ' $(CURDIR)/.venv' && echo yes)
ifeq ($(MOVED),yes)
.PHONY: .venv/.ready
endif

# The users' environment. uv installs the hash-checked lock in seconds; pip only brings uv.
.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "octdino needs Python 3.11 or newer; choose one with: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "Python's venv module is missing; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet 'uv>=0.9.8'
	$(INSTALL) --require-hashes --requirement requirements.lock
	$(INSTALL) --no-deps --editable .
	@touch $@

# The developers' packages on top of it: the same versions and more, so each of the two is installed once.
.venv/.ready-dev: .venv/.ready requirements-dev.lock
	$(INSTALL) --require-hashes --requirement requirements-dev.lock
	@touch $@

# In the order of the files: by default, files of few tests come last, and one of a minute keeps one process alone.
test: setup-dev
	python -m pytest -n auto --dist loadfile --no-loadscope-reorder

slow: setup-dev
	python -m pytest -m slow -n auto --dist loadfile --no-loadscope-reorder

# Every method on the phantom: OCTDINO_LEARNING_EPOCHS epochs (default: as pretrain.epochs null, two hours on one core) of
# the seeds OCTDINO_LEARNING_SEEDS (default "0 1 2").
learning: setup-dev
	python -m pytest -m learning -n auto --dist worksteal -rP

# Damaged inputs for every verb: OCTDINO_FUZZ_CASES of them (default 300) from number OCTDINO_FUZZ_SEED (default 0) on.
fuzz: setup-dev
	python -m pytest -m fuzz -n 0 tests/fuzz

# On a SLURM of one node that the tests bring up and down; as root, with Debian's slurmctld, slurmd, slurm-client, munge.
cluster: setup-dev
	python -m pytest -m cluster -n 0 -rs

# Installs octdino on a bare Debian in a chroot in each way of docs/install.md, the container's steps included; as root,
# with debootstrap and the network. BARE="--root DIR" keeps the root at another place; BARE=wheel does one step.
BARE ?=
bare: setup-dev
	python -m tests.bare $(BARE)

# dist/: what a release publishes. The wheel is built from the source distribution.
dist: setup
	rm -rf dist build
	$(BIN)/uv build --quiet

# Half an hour on two cores, for numbers worth keeping on a machine that does nothing else.
benchmark: setup-dev
	python -m benchmarks

# On a machine with a CUDA device: checks of training on it, then the benchmarks that a GPU changes; one table.
gpu: setup-dev
	python -m benchmarks --gpu

check: setup-dev
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile workflow replication
	snakemake --lint --cores 1
	codespell

# Known weaknesses of the installed packages; needs the network of the Python Package Index.
vulnerabilities: setup-dev
	$(BIN)/uv tool run pip-audit --path $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

# Licenses of the installed packages; one of the AGPL's kind would bind users of octdino, too.
licenses: setup-dev
	$(BIN)/uv tool run pip-licenses --python $(BIN)/python --format markdown --order license \
		--partial-match --fail-on 'Affero;AGPL'

format: setup-dev
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow replication

# Versions in the files stay where they satisfy pyproject.toml; UPGRADE=--upgrade takes the newest.
# No index address is written, so that the locks hold for every index of the same packages.
UPGRADE ?=
COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header $(UPGRADE) pyproject.toml --extra cluster
lock: setup
	$(COMPILE) --output-file requirements.lock
	$(COMPILE) --extra dev --extra docs --constraint requirements.lock --output-file requirements-dev.lock

# The files that are generated: two from the settings classes, one from the installed timm.
schema: setup
	octdino schema > workflow/schemas/config.schema.json
	octdino schema --defaults > config/default.yaml
	python -m octdino.models.timm_registry > octdino/config/timm_models.json

# The documentation as a site, docs/_build/html/index.html. A broken link or reference is an error.
# RESULTS=results/phantom adds the gallery of that run's figures.
RESULTS ?=
docs: setup-dev
	OCTDINO_DOCS_RESULTS=$(RESULTS) python -m sphinx -q -b html -W -n --keep-going -E docs docs/_build/html
	@echo "The documentation: docs/_build/html/index.html"

# The pictures of README.md, of the default run, with Chromium.
pictures: setup-dev
	python -m docs.extension.pictures $(or $(RESULTS),results/phantom) docs/pictures

clean:
	rm -rf results logs benchmarks/.work build dist docs/_build docs/_gallery
