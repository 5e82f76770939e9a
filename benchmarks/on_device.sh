#!/usr/bin/env bash
# Checks and times everything on the accelerator at hand, in at most six minutes; installs nothing.
#
#   benchmarks/on_device.sh [--small] [--seconds 350] [--only numerics gpt2 gpt2-torch ...]
#
# Needs Python with jax for the device, and PyTorch with transformers for the comparison. Another
# interpreter: PYTHON=python3.12 benchmarks/on_device.sh. --small is a trial on any machine.
set -euo pipefail
cd "$(dirname "$0")/.."
# Parts follow each other on one device; none may keep what it does not use.
export XLA_PYTHON_CLIENT_PREALLOCATE=${XLA_PYTHON_CLIENT_PREALLOCATE:-false} PYTHONUNBUFFERED=1
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
exec "${PYTHON:-python3}" benchmarks/on_device.py "$@"
