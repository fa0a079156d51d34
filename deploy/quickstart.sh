#!/usr/bin/env bash
# From nothing to a running page: installs what is missing, starts a one-machine cluster, builds the hello image, applies
# manifests/hello.yaml and requests the page. Safe to run again.
# usage: quickstart.sh     WHERRY_DATA_DIR and WHERRY_PORT choose another directory (/var/lib/wherry) and port (6443)
set -euo pipefail
cd "$(dirname "$0")/.."

data_dir=${WHERRY_DATA_DIR:-/var/lib/wherry}
port=${WHERRY_PORT:-6443}
wherry=".venv/bin/wherry --kubeconfig $data_dir/admin.kubeconfig"

deploy/setup.sh
.venv/bin/wherry up --detach --data-dir "$data_dir" --port "$port"

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp manifests/hello/Containerfile manifests/hello/index.html "$context"
cp "$(command -v busybox)" "$context/busybox"
$wherry image build -t localhost/hello:1 "$context"

$wherry apply -f manifests/hello.yaml
$wherry rollout status deployment/hello --timeout 120

page=$(.venv/bin/python - <<'PY'
import time, urllib.request
deadline = time.monotonic() + 20
while True:
    try:
        print(urllib.request.urlopen("http://127.0.0.1:8080/", timeout=2).read().decode())
        break
    except OSError:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.2)
PY
)
case "$page" in
    *"served by a container"*) ;;
    *) echo "error: http://127.0.0.1:8080/ answers, but not with the hello page: $page" >&2; exit 1 ;;
esac
$wherry get pods -o wide
cat <<EOF

The page http://127.0.0.1:8080/ is served by a container. Go on with:
  export PATH=$PWD/.venv/bin:\$PATH KUBECONFIG=$data_dir/admin.kubeconfig
  wherry scale deployment/hello --replicas 0     and back to 1
  wherry run -it localhost/hello:1 -- --help
  wherry down --data-dir $data_dir               stop everything (--purge deletes the data)
EOF
