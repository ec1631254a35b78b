#!/usr/bin/env bash
# Makes this machine ready for lakevision: .venv, Horovod, Delta's jars. Run again it does nothing, in under a second.
#
#     bash config/setup.sh
#
# PYTHON=/path/to/python3.11 picks the interpreter. Nothing outside .venv is touched but for apt packages that are missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=$PWD/.venv
stamp=$venv/.lakevision-ready
site=$venv/lib/python3.11/site-packages
began=$SECONDS

# What the stamp vouches for: these requirements, this script, this folder (a venv does not survive being moved).
fingerprint() { { cat requirements.txt config/setup.sh; echo "$venv"; } | sha256sum | cut -d' ' -f1; }

# A stamp alone is not believed: an interrupted upgrade or a removed interpreter leaves it behind.
ready() {
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(fingerprint)" ] && "$venv/bin/python" -c '' 2>/dev/null &&
        [ -f "$site/tensorflow/__init__.py" ] && [ -f "$site/petastorm/__init__.py" ] && [ -f "$site/mlflow/__init__.py" ] &&
        compgen -G "$site/horovod/tensorflow/mpi_lib*.so" >/dev/null &&
        compgen -G "$site/pyspark/jars/delta-spark_*.jar" >/dev/null && command -v java >/dev/null
}
if ready; then exit 0; fi
wanted=$(fingerprint) # taken now: a requirements.txt edited during the install must not be vouched for

step() { printf '[setup %3ds] %s\n' $((SECONDS - began)) "$*"; }
fail() { printf '\nsetup stopped: %s\n' "$*" >&2; exit 1; }

# ---- the system's part: Java 17, a C++ compiler, cmake
java_major() { java -version 2>&1 | sed -n 's/.*version "\(1\.\)\{0,1\}\([0-9]*\).*/\2/p' | head -1; }
missing=()
command -v java >/dev/null || missing+=(openjdk-17-jre-headless)
command -v g++ >/dev/null || missing+=(g++)
command -v make >/dev/null || missing+=(make)
command -v cmake >/dev/null || missing+=(cmake)
if [ ${#missing[@]} -gt 0 ]; then
    install="apt-get install -y --no-install-recommends ${missing[*]}"
    as_root=""
    if [ "$(id -u)" != 0 ]; then
        if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then as_root="sudo -n"; else as_root=none; fi
    fi
    if [ "$as_root" = none ] || ! command -v apt-get >/dev/null; then
        fail "these are missing: ${missing[*]}. Run:  sudo apt-get update && sudo $install"
    fi
    step "installing ${missing[*]} with apt"
    $as_root apt-get update -q >/dev/null
    $as_root env DEBIAN_FRONTEND=noninteractive $install >/dev/null ||
        fail "apt could not install ${missing[*]}. Where it has no openjdk-17 (Debian 13), install Temurin 17 and put its java first on PATH"
fi
java=$(java_major)
case "$java" in
    8 | 11 | 17) ;;
    *) fail "Spark 3.5 needs Java 17 (8 and 11 work too); 'java' here is version ${java:-unknown}. Install openjdk-17-jre-headless and put it first on PATH" ;;
esac

# ---- CPython 3.11
usable() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11) or sys.implementation.name != "cpython")' 2>/dev/null; }
find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.11 python3 /usr/bin/python3.11 "$HOME"/.pyenv/versions/3.11.*/bin/python3.11 \
        "$(command -v uv >/dev/null && uv python find 3.11 2>/dev/null || true)"; do
        if [ -n "$candidate" ] && usable "$candidate"; then echo "$candidate"; return; fi
    done
    return 1
}
if ! { [ -x "$venv/bin/python" ] && usable "$venv/bin/python" && [ -f "$venv/.for" ] && [ "$(cat "$venv/.for")" = "$venv" ] &&
    "$venv/bin/python" -m pip --version >/dev/null 2>&1; }; then
    python=$(find_python) || fail "no CPython 3.11 with venv was found. One of these gets it:
    uv:         uv python install 3.11          (then run this again)
    Debian 12:  sudo apt-get install python3.11 python3.11-venv
    Ubuntu:     sudo add-apt-repository ppa:deadsnakes/ppa && sudo apt-get install python3.11 python3.11-venv python3.11-dev
    pyenv:      pyenv install 3.11
  or name one:  PYTHON=/path/to/python3.11 bash config/setup.sh"
    step "making .venv with $("$python" --version)"
    rm -rf "$venv"
    "$python" -m venv "$venv"
    echo "$venv" >"$venv/.for"
fi
rm -f "$stamp"

# ---- Python packages
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
log=$venv/setup.log
step "installing requirements.txt (about 4 minutes; log in .venv/setup.log)"
pip install -q --upgrade 'pip<26' 'setuptools<81' wheel >"$log" 2>&1 || { tail -20 "$log" >&2; fail "pip could not be upgraded"; }
pip install -r requirements.txt >>"$log" 2>&1 || { tail -20 "$log" >&2; fail "pip install -r requirements.txt failed"; }

# ---- Horovod, against the TensorFlow just installed
horovod_works() { "$venv/bin/python" -c 'import horovod.tensorflow as hvd; hvd.init(); assert hvd.gloo_built()' >>"$log" 2>&1; }
build_horovod() {
    HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1 \
        MAKEFLAGS="-j$(nproc)" PATH="$venv/bin:$PATH" pip install --no-build-isolation --no-deps "$@" horovod==0.28.1 >>"$log" 2>&1
}
if ! horovod_works; then
    step "building Horovod against this TensorFlow (about 3 minutes)"
    # pip may hold a wheel from another TensorFlow; if it does not run here, compile afresh.
    build_horovod --force-reinstall && horovod_works || { build_horovod --force-reinstall --no-cache-dir && horovod_works; } ||
        { tail -30 "$log" >&2; fail "Horovod did not build; the log is .venv/setup.log"; }
fi

# ---- Delta's jars, so that no later session asks the network for them
if ! compgen -G "$site/pyspark/jars/delta-spark_*.jar" >/dev/null; then
    step "fetching Delta's jars"
    "$venv/bin/python" config/delta_jars.py >>"$log" 2>&1 || { tail -20 "$log" >&2; fail "Delta's jars could not be fetched"; }
fi
echo "$wanted" >"$stamp"
step "ready"
