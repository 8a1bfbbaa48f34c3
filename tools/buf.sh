#!/usr/bin/env bash
# Lints the contracts, and compares them with those of a git revision (default: the last release tag, if any).
#   tools/buf.sh lint
#   tools/buf.sh breaking [REVISION]
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${VENV:-.venv}/bin
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# buf resolves imports among its own modules only: google/api comes from the installed wheel.
image() { # image TREE OUT
  mkdir -p "$scratch/$2/google-apis"
  cp -r "$1/proto" "$scratch/$2/proto"
  site=$("$bin/python" -c 'import google.api, pathlib; print(pathlib.Path(list(google.api.__path__)[0]).parent.parent)')
  (cd "$site" && find google/api google/rpc google/type google/longrunning -name '*.proto' -print0 | tar cf - --null -T -) \
    | tar xf - -C "$scratch/$2/google-apis"
  sed 's|^modules:|modules:\n  - path: google-apis\n    lint: {ignore: [google-apis]}\n    breaking: {ignore: [google-apis]}|' buf.yaml >"$scratch/$2/buf.yaml"
}

case ${1:-lint} in
  lint)
    image . now
    buf=$PWD/$bin/buf
    (cd "$scratch/now" && "$buf" lint proto)
    ;;
  breaking)
    base=${2:-$(git describe --tags --abbrev=0 2>/dev/null || git rev-list --max-parents=0 HEAD | tail -1)}
    mkdir "$scratch/base-tree"
    git archive "$base" proto | tar xf - -C "$scratch/base-tree"
    image . now
    image "$scratch/base-tree" base
    buf=$PWD/$bin/buf
    (cd "$scratch/base" && "$buf" build proto -o "$scratch/base.binpb")
    (cd "$scratch/now" && "$buf" breaking proto --against "$scratch/base.binpb")
    ;;
  *)
    echo "usage: tools/buf.sh lint | breaking [REVISION]" >&2
    exit 2
    ;;
esac
