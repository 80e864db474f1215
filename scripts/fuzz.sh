#!/usr/bin/env bash
# Fuzzes the importer under AddressSanitizer and UndefinedBehaviorSanitizer: fuzz.sh [SECONDS], 600 if it is not said. The
# corpus starts from the fixtures and the small models of test/import. What is found stays in build/fuzz/findings, one
# model per finding, and the exit status says whether there was anything.
set -euo pipefail
cd "$(dirname "$0")/.."
limit=${1:-600}
work=build/fuzz

cmake --preset fuzz --log-level=WARNING
cmake --build --preset fuzz --target helix-fuzz-import
mkdir -p $work/corpus $work/findings
for model in test/models/*/model.onnx; do
  cp "$model" "$work/corpus/$(basename "$(dirname "$model")")"
done
for group in good structure structure-refused shapes lengths; do
  build/venv/bin/python test/import/write_models.py $group "$work/models/$group"
  for model in "$work/models/$group"/*/model.onnx; do
    cp "$model" "$work/corpus/$group-$(basename "$(dirname "$model")")"
  done
done
build/venv/bin/python test/import/forms.py "$work/models/forms"
for model in "$work/models/forms"/*.onnx; do
  cp "$model" "$work/corpus/form-$(basename "$model" .onnx)"
done
# Leaks are not looked for: MLIR keeps its uniqued attributes until the end.
$work/bin/helix-fuzz-import -max_total_time="$limit" -max_len=131072 -timeout=30 -rss_limit_mb=4096 -detect_leaks=0 \
  -print_final_stats=1 -artifact_prefix=$work/findings/ $work/corpus
