#!/usr/bin/env bash
# Builds one throwaway environment for each peer, with pinned versions; what is there is kept.
#
#   benchmarks/peers/setup.sh [FOLDER] [PEER...]
#
# FOLDER defaults to jaxlens-peers in the system's folder for temporary files, PEER to all of
# them. Remove FOLDER to start afresh. Another interpreter: PYTHON=python3.12 setup.sh. jaxlens
# runs in the project's own .venv, or the one that compare.py is started from.
set -euo pipefail

folder=${1:-${TMPDIR:-/tmp}/jaxlens-peers}
shift || true
peers=("$@")
[ ${#peers[@]} -gt 0 ] || peers=(pytorch transformer_lens tuned_lens nnsight)

pins() {
  local torch=torch==2.13.0
  case $1 in
    pytorch) echo "$torch transformers==5.23.0" ;;
    transformer_lens) echo "$torch transformer-lens==4.3.0" ;;
    tuned_lens) echo "$torch tuned-lens==0.2.0" ;;
    nnsight) echo "$torch transformers==5.23.0 nnsight==0.8.1" ;;
    *) echo "error: no peer $1" >&2; exit 64 ;;
  esac
}

for peer in "${peers[@]}"; do
  wanted=$(pins "$peer")
  stamp=$folder/$peer/installed
  if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    continue
  fi
  echo "installing $wanted" >&2
  "${PYTHON:-python3}" -m venv --clear "$folder/$peer"
  # shellcheck disable=SC2086  # a list of words
  "$folder/$peer/bin/python" -m pip --disable-pip-version-check install --quiet $wanted
  echo "$wanted" >"$stamp"
done
