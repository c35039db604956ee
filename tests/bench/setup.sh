#!/usr/bin/env bash
# A Python with numpy, PyTorch and transformers, for the comparison with floats (sprint.py), for the oracles of the race
# (primitives/sprint/tests/oracle) and of the sampler (primitives/artifact/tests/oracle), and for what the engine is
# compared with in `make test` (ml-worker/engine/tests/parity). Prints the interpreter's path; installs only what is missing. Neither building nor the
# demo needs it.
#
# The engine's libtorch is the C++ half of PyPI's wheel, whose Python half does not load without CUDA's libraries, even
# on a CPU. So: PyTorch's own CPU wheel (190 MB) where its registry can be reached, else the Python half of the wheel
# that is here, and the libraries (2 GB) from PyPI. $PACER_BENCH_PYTHON names an interpreter to use instead, for a GPU say.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/../.."
cache=${PACER_CACHE:-$HOME/.cache/pacer}
venv=$cache/bench
mkdir -p "$cache"
exec 9>"$cache/bench.lock"
flock 9

# Of transformers only its version is looked at here: loading it takes seconds.
wanted=ml-worker/engine/tests/parity/requirements.txt
works() {
    "$1" -c 'import numpy, torch' >/dev/null 2>&1 && "$1" - "$wanted" <<'PYTHON' >/dev/null 2>&1
import importlib.metadata, sys
for line in open(sys.argv[1]):
    name, _, version = line.split("#")[0].strip().partition("==")
    if name and importlib.metadata.version(name) != version:
        sys.exit(1)
importlib.metadata.version("torch")
PYTHON
}
for python in ${PACER_BENCH_PYTHON:+"$PACER_BENCH_PYTHON"} "$venv/bin/python"; do
    if works "$python"; then echo "$python"; exit; fi
done

libtorch=$(sed -n 's/^LIBTORCH = "\(.*\)"/\1/p' .cargo/config.toml 2>/dev/null || true)
# transformers asks pip's records for PyTorch's version.
metadata() {
    local site
    site=$(echo "$venv"/lib/python3*/site-packages)
    compgen -G "$site/torch-*.dist-info" >/dev/null || cp -a "$libtorch"/../torch-*.dist-info "$site/"
}
pip() { "$venv/bin/pip" --quiet --disable-pip-version-check "$@" >&2; }
# PyTorch is there and something around it is missing or another version.
if "$venv/bin/python" -c 'import numpy, torch' >/dev/null 2>&1; then
    echo "bench: fetching transformers" >&2
    pip install --no-deps -r "$wanted"
    metadata
    works "$venv/bin/python" && { echo "$venv/bin/python"; exit; }
fi
echo "bench: fetching PyTorch for Python" >&2
rm -rf "$venv"
python3 -m venv "$venv"
pip install 'numpy>=2,<3' typing_extensions
if ! pip install --no-deps --retries 0 --timeout 15 --index-url https://download.pytorch.org/whl/cpu torch==2.11.0 2>/dev/null; then
    echo "bench: from PyPI, with CUDA's libraries (2 GB)" >&2
    pip install 'cuda-toolkit[cublas,cudart,cufft,cufile,cupti,curand,cusparse,nvjitlink]==13.0.2'
    pip install --no-deps nvidia-cudnn-cu13==9.19.0.56 nvidia-cusparselt-cu13==0.8.0 nvidia-nccl-cu13==2.28.9 nvidia-nvshmem-cu13==3.4.5
    site=$(echo "$venv"/lib/python3*/site-packages)
    # PyTorch looks for the libraries beside its own, true folder, so a link to the folder is no help; links to its
    # files are, and cost no space.
    if [ -e "$libtorch/__init__.py" ] && [ -e "$libtorch/../torchgen" ]; then
        for part in torch torchgen; do
            cp -al "$libtorch/../$part" "$site/$part" 2>/dev/null || cp -a "$libtorch/../$part" "$site/"
        done
    else
        pip install --no-deps torch==2.11.0
    fi
fi
pip install --no-deps -r "$wanted"
metadata
works "$venv/bin/python" || { echo "bench: PyTorch does not load" >&2; "$venv/bin/python" -c 'import numpy, torch' >&2; exit 1; }
echo "$venv/bin/python"
