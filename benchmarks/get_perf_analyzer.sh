#!/usr/bin/env bash
# Fetches perf_analyzer 2.46.0 for Debian or Ubuntu on x86-64 into a folder: `get_perf_analyzer.sh PYTHON FOLDER`.
# The newer perf-analyzer wheels need glibc 2.38; this one lies in an older tritonclient wheel, beside it two libraries.
set -euo pipefail
python=${1:?the Python whose pip fetches} folder=${2:?where to put it}
command -v apt-get dpkg-deb > /dev/null || { echo "libb64 comes from Debian or Ubuntu: there is no apt-get here" >&2; exit 1; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest "$scratch" \
  --platform manylinux1_x86_64 --platform manylinux2014_x86_64 tritonclient==2.46.0 nvidia-cuda-runtime-cu12==12.9.79
(cd "$scratch" && apt-get download --quiet libb64-0d && dpkg-deb -x libb64-0d_*.deb .)
for wheel in "$scratch"/*.whl; do "$python" -m zipfile -e "$wheel" "$scratch"; done
mkdir -p "$folder"
cp "$scratch"/nvidia/cuda_runtime/lib/libcudart.so.12 "$scratch"/usr/lib/*/libb64.so.0d "$folder"
cp "$scratch"/tritonclient-2.46.0.data/data/bin/perf_analyzer "$folder/perf_analyzer.partial"
chmod +x "$folder/perf_analyzer.partial"
LD_LIBRARY_PATH=$folder "$folder/perf_analyzer.partial" --version
mv "$folder/perf_analyzer.partial" "$folder/perf_analyzer"
