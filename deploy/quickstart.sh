#!/usr/bin/env bash
# From nothing to a running page: installs what is missing, starts a one-machine cluster, builds the hello image, applies
# manifests/hello.yaml and requests the page. Safe to run again.
# usage: quickstart.sh     WHERRY_DATA_DIR and WHERRY_PORT choose another directory (/var/lib/wherry) and port (6443),
#                          WHERRY_HTTP_PORT and WHERRY_HTTPS_PORT other ports of the ingress (80 and 443)
set -euo pipefail
cd "$(dirname "$0")/.."

data_dir=${WHERRY_DATA_DIR:-/var/lib/wherry}
port=${WHERRY_PORT:-6443}
http_port=${WHERRY_HTTP_PORT:-80}
https_port=${WHERRY_HTTPS_PORT:-443}
page_url=http://127.0.0.1:$http_port/
[ "$http_port" = 80 ] && page_url=http://127.0.0.1/
wherry=".venv/bin/wherry --kubeconfig $data_dir/admin.kubeconfig"

deploy/setup.sh
.venv/bin/wherry up --detach --data-dir "$data_dir" --port "$port" \
    --ingress-http-port "$http_port" --ingress-https-port "$https_port"

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp manifests/hello/Containerfile manifests/hello/index.html "$context"
cp "$(command -v busybox)" "$context/busybox"
$wherry image build -t localhost/hello:1 "$context"

$wherry apply -f manifests/hello.yaml
$wherry rollout status deployment/hello --timeout 120

# The page at an address, tried for 20 s; nothing if it is not the hello page.
page() { .venv/bin/python - "$1" <<'PY'
import sys, time, urllib.request
deadline = time.monotonic() + 20
while time.monotonic() < deadline:
    try:
        text = urllib.request.urlopen(sys.argv[1], timeout=2).read().decode()
        if "served by a container" in text:
            print(text)
            break
    except OSError:
        pass
    time.sleep(0.2)
PY
}
if [ -z "$(page "$page_url")" ]; then
    echo "The ingress does not serve the page at $page_url:" >&2
    $wherry get events | grep -i ingress >&2 || true
    [ -z "${WHERRY_HTTP_PORT:-}" ] || exit 1
    page_url=http://127.0.0.1:8080/
    [ -n "$(page "$page_url")" ] || { echo "error: $page_url does not serve it either" >&2; exit 1; }
fi
$wherry get pods -o wide
cat <<EOF

The page $page_url is served by a container, by way of its Service and Ingress (and by its host port at 8080). Go on with:
  export PATH=$PWD/.venv/bin:\$PATH KUBECONFIG=$data_dir/admin.kubeconfig
  wherry scale deployment/hello --replicas 0     and back to 1
  wherry run -it localhost/hello:1 -- --help
  wherry down --data-dir $data_dir               stop everything (--purge deletes the data)
EOF
