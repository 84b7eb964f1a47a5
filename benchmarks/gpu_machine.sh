#!/usr/bin/env bash
# On a bare GPU machine, one step a call: networks, keep (once for each carried piece), export, onnxruntime, served, compile.
# Every step is meant to end within ten minutes; results are left in $OUT. See README.md, "On a machine with a GPU".
set -euo pipefail
cd "$(dirname "$0")/.."
step=${1:?name a step}
out=${OUT:?a folder for the results}
work=${WORK:-/tmp/medimageparse}
mkdir -p "$work"
export PYTHONPATH=export:client PYTHONUNBUFFERED=1

use_cuda_libraries() {  # those of the installed torch, which ONNX Runtime's CUDA provider shares
  LD_LIBRARY_PATH=$(python3 -c 'import pathlib, torch; print(*(pathlib.Path(torch.__file__).parents[1] / "nvidia").glob("*/lib"), sep=":")')
  export LD_LIBRARY_PATH
}

join() {  # the carried pieces become the site-packages of a virtual environment without torch, for the server
  [ -e "$work/joined" ] && return
  python3 -m venv --without-pip "$work/venv"
  local site
  site=$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  cat "$work"/pieces/piece_* > "$work/site.tar.xz"
  python3 -m tarfile -e "$work/site.tar.xz" "$site"
  mkdir -p "$work/onnxruntime" # the same ONNX Runtime for the interpreter that has torch
  ln -s "$site"/onnxruntime* "$work/onnxruntime/"
  touch "$work/joined"
}

networks() {
  python3 benchmarks/gpu_networks.py --work "$work" --results "$out/gpu_networks.csv" --techniques "$@"
}

nvidia-smi --query-gpu=name,driver_version,memory.used,clocks.sm,power.limit --format=csv | tee "$out/$step.nvidia-smi.csv"
case $step in
  networks) networks eager-fp32 eager-tf32 autocast-bf16 typed-fp16 ;;
  compile) networks compile-bf16 ;;
  keep) mkdir -p "$work/pieces" && cp .whl/piece_* "$work/pieces/" && ls -l "$work/pieces" ;;
  export)
    for precision in fp32 fp16; do
      python3 -m medimageparse export --random-weights 0 --precision $precision --repository "$work/graphs-PUBLISHED-$precision"
    done
    ;;
  onnxruntime)
    join
    use_cuda_libraries
    PYTHONPATH=$work/onnxruntime:$PYTHONPATH networks onnxruntime-fp32 onnxruntime-tf32 onnxruntime-fp16
    ;;
  served)
    join
    use_cuda_libraries
    for precision in fp32 fp16; do
      "$work/venv/bin/python" benchmarks/gpu_served.py --work "$work" --precision $precision \
        --volume .whl/CT_AMOS_amos_0018.npz --results "$out/gpu_served.csv"
    done
    ;;
  *) echo "there is no step $step" >&2 && exit 2 ;;
esac
