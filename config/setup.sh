#!/usr/bin/env bash
# Prepares this machine for lakevision: .venv, Horovod, Delta's jars. A second run does nothing, in under a second.
#
#     bash config/setup.sh
#
# PYTHON=/path/to/python3.11 selects the interpreter. Outside .venv only missing apt packages are installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=$PWD/.venv
stamp=$venv/.lakevision-ready
site=$venv/lib/python3.11/site-packages
began=$SECONDS

# The stamp is valid for these requirements, this script and this folder (a moved venv does not work).
fingerprint() { { cat requirements.txt config/setup.sh; echo "$venv"; } | sha256sum | cut -d' ' -f1; }

# The stamp alone is not enough: it survives an interrupted upgrade and a removed interpreter.
ready() {
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(fingerprint)" ] && "$venv/bin/python" -c '' 2>/dev/null &&
        [ -f "$site/tensorflow/__init__.py" ] && [ -f "$site/petastorm/__init__.py" ] &&
        [ -f "$site/mlflow/__init__.py" ] &&
        compgen -G "$site/horovod/tensorflow/mpi_lib*.so" >/dev/null &&
        compgen -G "$site/pyspark/jars/delta-spark_*.jar" >/dev/null && command -v java >/dev/null
}
if ready; then exit 0; fi
wanted=$(fingerprint) # computed now: the stamp must not cover a requirements.txt that is edited during the install

step() { printf '[setup %3ds] %s\n' $((SECONDS - began)) "$*"; }
fail() { printf '\nsetup stopped: %s\n' "$*" >&2; exit 1; }

# ---- system packages: Java 17, a C++ compiler, cmake
java_major() { java -version 2>&1 | sed -n 's/.*version "\(1\.\)\{0,1\}\([0-9]*\).*/\2/p' | head -1; }
missing=()
command -v java >/dev/null || missing+=(openjdk-17-jre-headless)
command -v g++ >/dev/null || missing+=(g++)
command -v make >/dev/null || missing+=(make)
command -v cmake >/dev/null || missing+=(cmake)
as_root=""
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then as_root="sudo -n"; else as_root=none; fi
fi
may_install() { [ "$as_root" != none ] && command -v apt-get >/dev/null; }
apt_install() {
    step "installing $* with apt"
    $as_root apt-get update -q >/dev/null
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >/dev/null
}
if [ ${#missing[@]} -gt 0 ]; then
    may_install || fail "these packages are missing: ${missing[*]}. Run:" \
        "sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}"
    apt_install "${missing[@]}" ||
        fail "apt could not install ${missing[*]}. If it has no openjdk-17 (Debian 13)," \
            "install Temurin 17 and put its java first on PATH"
fi
java=$(java_major)
case "$java" in
    8 | 11 | 17) ;;
    *) fail "Spark 3.5 needs Java 17 (8 and 11 work too); 'java' here is version ${java:-unknown}." \
        "Install openjdk-17-jre-headless and put it first on PATH" ;;
esac

# ---- CPython 3.11
usable() {
    "$1" -c 'import sys, venv, ensurepip
sys.exit(sys.version_info[:2] != (3, 11) or sys.implementation.name != "cpython")' 2>/dev/null
}
find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.11 python3 /usr/bin/python3.11 \
        "$HOME"/.pyenv/versions/3.11.*/bin/python3.11 \
        "$(command -v uv >/dev/null && uv python find 3.11 2>/dev/null || true)"; do
        if [ -n "$candidate" ] && usable "$candidate"; then echo "$candidate"; return; fi
    done
    return 1
}
if ! { [ -x "$venv/bin/python" ] && usable "$venv/bin/python" &&
    [ -f "$venv/.for" ] && [ "$(cat "$venv/.for")" = "$venv" ] &&
    "$venv/bin/python" -m pip --version >/dev/null 2>&1; }; then
    # Debian 12 has venv in a separate package; apt of other releases has no 3.11 and fails.
    python=$(find_python) ||
        { may_install && apt_install python3.11 python3.11-venv 2>/dev/null && python=$(find_python); } ||
        fail "no CPython 3.11 with venv was found. Install it in one of these ways:
    uv:         uv python install 3.11          (then run this again)
    Debian 12:  sudo apt-get install python3.11 python3.11-venv
    Ubuntu:     sudo add-apt-repository ppa:deadsnakes/ppa &&
                sudo apt-get install python3.11 python3.11-venv python3.11-dev
    pyenv:      pyenv install 3.11
  or give its path:  PYTHON=/path/to/python3.11 bash config/setup.sh"
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
failed() { tail "-$1" "$log" >&2; fail "$2"; }
pip install -q --upgrade 'pip<26' 'setuptools<81' wheel >"$log" 2>&1 || failed 20 "pip could not be upgraded"
pip install -r requirements.txt >>"$log" 2>&1 || failed 20 "pip install -r requirements.txt failed"

# ---- Horovod, built against the installed TensorFlow
horovod_works() {
    "$venv/bin/python" -c 'import horovod.tensorflow as hvd; hvd.init(); assert hvd.gloo_built()' >>"$log" 2>&1
}
build_horovod() {
    HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 HOROVOD_WITHOUT_PYTORCH=1 \
        HOROVOD_WITHOUT_MXNET=1 MAKEFLAGS="-j$(nproc)" PATH="$venv/bin:$PATH" \
        pip install --no-build-isolation --no-deps "$@" horovod==0.28.1 >>"$log" 2>&1
}
if ! horovod_works; then
    step "building Horovod against this TensorFlow (about 3 minutes)"
    # pip may have cached a wheel built for another TensorFlow; if it does not run, compile again.
    build_horovod --force-reinstall && horovod_works ||
        { build_horovod --force-reinstall --no-cache-dir && horovod_works; } ||
        failed 30 "Horovod did not build; the log is .venv/setup.log"
fi

# ---- Delta's jars, so that later sessions do not download them
if ! compgen -G "$site/pyspark/jars/delta-spark_*.jar" >/dev/null; then
    step "fetching Delta's jars"
    "$venv/bin/python" config/delta_jars.py >>"$log" 2>&1 || failed 20 "Delta's jars could not be fetched"
fi
echo "$wanted" >"$stamp"
step "ready"
