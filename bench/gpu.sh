#!/usr/bin/env bash
# The report of bench/run.ts on a machine with an NVIDIA GPU: probes, operations, steps, and PyTorch on
# the same card where `python3` has it. Run it from anywhere; it takes what `deno task bench` takes.
#
#     bench/gpu.sh --rounds 1        writes bench/report.json and bench/report.md
#
# On a bare machine, .gpu-kit brings Deno, the Vulkan loader and the packages (as root).
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ -f .gpu-kit/enter.sh ]]; then
  set +u
  . .gpu-kit/enter.sh
  set -u
fi
nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv,noheader || true

# Software adapters must not pass for the card.
deno eval '
const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
if (!adapter || adapter.info.isFallbackAdapter) {
  console.error(`error: There is no GPU that Vulkan finds, only ${adapter?.info.description}`);
  Deno.exit(1);
}'

# What this script measures and the caller does not name.
only=(--only gpu,torch-cuda,torch-cuda-compiled,torch-cuda-tf32,torch-cuda-bf16)
for argument in "$@"; do [[ $argument == --only* ]] && only=(); done
exec deno run -A bench/run.ts ${only[@]+"${only[@]}"} "$@"
