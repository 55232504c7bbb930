#!/usr/bin/env bash
# Correctness and speed on the first GPU at hand, without network and in less than ten minutes.
#
#   bench/gpu.sh                       the packaged MiniLM on cuda:0
#   MODEL=FOLDER bench/gpu.sh          another model
#   bench/gpu.sh --device cpu --small  a dry run of the script itself, anywhere
#
# Ends with 0 where every check holds; results also go to gpu.json in the folder it is called from.
set -euo pipefail
cd "$(dirname "$0")/.."
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" bench/gpu.py --model "${MODEL:-minilm}" --out "${OLDPWD:-.}/gpu.json" "$@"
