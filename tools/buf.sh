#!/usr/bin/env bash
# Lints the contracts, and compares them with those of a git revision (default: the last release tag, if any).
#   tools/buf.sh lint
#   tools/buf.sh breaking [REVISION]
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$(realpath "${VENV:-.venv}/bin"):$PATH

case ${1:-lint} in
  lint)
    buf lint proto
    ;;
  breaking)
    base=${2:-$(git describe --tags --abbrev=0 2>/dev/null || git rev-list --max-parents=0 HEAD | tail -1)}
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    git archive "$base" proto | tar xf - -C "$scratch"
    cp -r buf.yaml third_party "$scratch"
    (cd "$scratch" && buf build proto -o "$scratch/base.binpb")
    buf breaking proto --against "$scratch/base.binpb"
    ;;
  *)
    echo "usage: tools/buf.sh lint | breaking [REVISION]" >&2
    exit 2
    ;;
esac
