#!/usr/bin/env bash
# Sets up and runs all checks and tests: fast ones first, then the stories on real containers.
# usage: test.sh [--full]   --full runs the long counts (random kills, failover trials); a skipped test fails unless ALLOW_SKIP=1
set -euo pipefail
cd "$(dirname "$0")/.."
[ "${1:-}" = "--full" ] && export WHERRY_FULL=1

step() { printf '\n== %s (%s)\n' "$1" "$(date +%T)"; }

step "set-up"
deploy/setup.sh --dev
deploy/clients.sh
export PATH="$PWD/.cache/bin:$PWD/.venv/bin:$PATH"

step "lint, types, layers, sizes"
ruff format --check --quiet .
ruff check --quiet .
mypy --no-error-summary
lint-imports --no-cache >/tmp/wherry-imports.$$ 2>&1 || { cat "/tmp/wherry-imports.$$"; rm -f "/tmp/wherry-imports.$$"; exit 1; }
rm -f "/tmp/wherry-imports.$$"
python -m tests.check_sizes

step "unit and property tests"
pytest -n 2 tests/unit tests/property

# A test on real parts that fails is run once more (twice is red), and named with its cause at the end: three such tests are red.
again=(--reruns 1 -rR)
MOST_RERUNS=2
WHERRY_RERUNS=$(mktemp /tmp/wherry-reruns.XXXXXX)
export WHERRY_RERUNS
trap 'rm -f "$WHERRY_RERUNS"' EXIT

step "integration: real etcd, real HTTP, real containerd"
pytest -n 3 --dist loadfile "${again[@]}" tests/integration

step "unmodified clients and stories on real containers"
pytest -n 2 --dist loadfile "${again[@]}" tests/conformance tests/compat tests/e2e

step "the main job, as README tells it"
data_dir=$(mktemp -d /tmp/wherry-quickstart.XXXXXX)
trap '.venv/bin/wherry down --data-dir "$data_dir" --purge; rm -f "$WHERRY_RERUNS"' EXIT
export WHERRY_DATA_DIR=$data_dir WHERRY_PORT=26443 WHERRY_HTTP_PORT=26080 WHERRY_HTTPS_PORT=26444
deploy/quickstart.sh
deploy/quickstart.sh

reruns=$(wc -l <"$WHERRY_RERUNS")
if [ "$reruns" -gt 0 ]; then
    step "$reruns failed once and passed then"
    cat "$WHERRY_RERUNS"
    [ "$reruns" -le "$MOST_RERUNS" ] || { echo "error: more than $MOST_RERUNS: find out why" >&2; exit 1; }
fi

step "all passed"
