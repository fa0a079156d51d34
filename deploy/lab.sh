#!/usr/bin/env bash
# Several servers on this one machine, as network namespaces: to try wherry's failover, and for the tests.
# usage: lab.sh up N [--routed N] | status | kill NODE | revive NODE | cut NODE | join NODE | freeze NODE | thaw NODE | down
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] || deploy/setup.sh
exec .venv/bin/python -m deploy.lab "$@"
