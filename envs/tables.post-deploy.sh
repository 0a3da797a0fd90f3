#!/usr/bin/env bash
# Snakemake runs this in the new environment; the Snakefile sets where octdino is.
set -euo pipefail
pip install --no-deps --no-build-isolation "${OCTDINO_SOURCE:?the folder of octdino}"
