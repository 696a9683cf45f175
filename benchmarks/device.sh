#!/usr/bin/env bash
# Step times on this machine's GPU or TPU, in at most 8 minutes; see device_steps.py.
#
#     bash benchmarks/device.sh [--budget 480] [--dry-run]
#
# $PYTHON is the interpreter; by default that of .venv, if there is one.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
[[ -n ${PYTHON:-} || -x $python ]] || python=python3
exec "$python" -m benchmarks.device_steps "$@"
