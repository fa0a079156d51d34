#!/usr/bin/env bash
# Remakes the hashed lock files from pyproject.toml. Needs uv (pip install uv).
set -euo pipefail
cd "$(dirname "$0")/.."
build_tools=$(mktemp)
trap 'rm -f "$build_tools"' EXIT
printf 'hatchling\neditables\n' >"$build_tools"
compile() {
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
        --no-emit-index-url "$@" pyproject.toml "$build_tools"
}
compile --upgrade --extra cel --output-file deploy/requirements.txt
compile --upgrade --constraint deploy/requirements.txt --extra cel --extra dev --output-file deploy/requirements-dev.txt
