#!/usr/bin/env bash
# Installs what wherry needs on Debian or Ubuntu, and .venv from the hashed lock. Safe to run again; quick when done.
# usage: setup.sh [--dev]    --dev adds what the tests need
set -euo pipefail
cd "$(dirname "$0")/.."

dev=""
[ "${1:-}" = "--dev" ] && dev=1
[ "$(id -u)" = 0 ] || { echo "error: run this as root (sudo): it installs packages" >&2; exit 1; }
command -v apt-get >/dev/null || { echo "error: this script knows apt-get only; README.md lists what to install" >&2; exit 1; }

packages=(etcd-server containerd runc containernetworking-plugins iptables nftables iproute2 haproxy buildah busybox-static
    python3 python3-venv procps ca-certificates)
[ -n "$dev" ] && packages+=(prometheus wrk chromium unzip npm socat debootstrap)
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || missing+=("$package")
done
# A program that is there by other means (containerd.io from Docker, node from elsewhere) needs no package.
provided() { case "$1" in
    containerd | runc | haproxy | buildah | unzip | npm | wrk | prometheus | chromium | socat) command -v "$1" ;;
    etcd-server) command -v etcd ;;
    python3-venv) python3 -c 'import ensurepip' ;;
    *) false ;;
esac; }
needed=()
for package in "${missing[@]}"; do
    provided "$package" >/dev/null 2>&1 || needed+=("$package")
done
if [ ${#needed[@]} -gt 0 ]; then
    echo "Installing: ${needed[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # Packages that bring a service must not start it: wherry runs its own.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${needed[@]}" </dev/null >/dev/null
fi

wanted=$(cat deploy/requirements.txt deploy/requirements-dev.txt pyproject.toml | sha256sum)
has() { [ "$(cat ".venv/$1" 2>/dev/null)" = "$wanted" ]; }
if ! has installed-dev && { [ -n "$dev" ] || ! has installed; }; then
    echo "Installing Python packages into .venv"
    [ -x .venv/bin/python ] || python3 -m venv .venv
    pip="env PIP_DISABLE_PIP_VERSION_CHECK=1 .venv/bin/pip install --quiet"
    $pip --require-hashes -r "deploy/requirements${dev:+-dev}.txt"
    $pip --no-deps --no-build-isolation -e .
    echo "$wanted" >".venv/installed${dev:+-dev}"
fi
