#!/usr/bin/env bash
# Snakemake runs this in the new environment; the Snakefile sets where octdino is.
set -euo pipefail
source=${OCTDINO_SOURCE:?the folder of octdino}
if [[ -f $source/pyproject.toml ]]; then
    pip install --no-deps --no-build-isolation "$source"
else # the workflow of an installed wheel, SITE/octdino/_workflow: nothing to build, so the package is copied
    package=$(dirname "$source")
    site=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    bin=$(python -c 'import sysconfig; print(sysconfig.get_path("scripts"))')
    cp -R "$package" "$(dirname "$package")"/octdino-*.dist-info "$site/"
    printf '#!%s\nimport sys\nfrom octdino.cli import main\nsys.exit(main())\n' "$(command -v python)" >"$bin/octdino"
    chmod +x "$bin/octdino"
fi
