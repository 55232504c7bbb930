#!/usr/bin/env bash
# The whole study on Modal, from nothing: benchmark, fine-tune, benchmark again, compare, report.
#   ./run_fresh_workflow.sh [GPU]
# Cut short? Repeat the commands below from the one that failed: each continues where it was.
set -euo pipefail
cd "$(dirname "$0")"
gpu="${1:-A10G}"

if ! command -v modal >/dev/null; then
  echo 'run_fresh_workflow.sh: modal is not installed; install it: pip install "ranksaga[modal]"' >&2
  exit 2
fi

modal deploy modal_fine_tune_advanced.py
modal run modal_app.py::run_benchmark --fresh --gpu "$gpu"
modal run modal_fine_tune_advanced.py --gpu "$gpu"
modal run modal_app.py::run_optimized_benchmark --model-name ranksaga-optimized-e5-v2 --gpu "$gpu"
python compare_results.py
