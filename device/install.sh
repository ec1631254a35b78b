#!/usr/bin/env bash
# Installs or updates the capture agent. Running it again is safe.
#
#     sudo bash device/install.sh [--camera KIND] [--score] [--reboot-after N] [--no-start] [--root DIR]
#
#   --camera KIND      picamera2 (default on a Raspberry Pi), picamera, folder or simulated (default elsewhere)
#   --score            also score on the device: installs LiteRT and the service lakevision-score
#   --reboot-after N   reboot after N failures of capture in a row; 0 removes this
#   --no-start         install without starting the services
#   --root DIR         install below DIR, for a mounted SD card image: no apt, no users, no systemctl
#
# Writes /opt/lakevision (program), /etc/lakevision (your files, never overwritten), /var/lib/lakevision (spool, model),
# units and one user.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root="" camera="" reboot_after="" start=yes score=no
usage() { sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit "${1:-0}"; }
value() { [ $# -ge 2 ] || { echo "$1 needs a value" >&2; exit 64; }; echo "$2"; }
while [ $# -gt 0 ]; do
    case "$1" in
        --camera) camera=$(value "$@"); shift 2 ;;
        --reboot-after) reboot_after=$(value "$@"); shift 2 ;;
        --score) score=yes; shift ;;
        --root) root=$(value "$@"); shift 2 ;;
        --no-start) start=no; shift ;;
        -h | --help) usage ;;
        *) echo "unknown option $1" >&2; usage 64 >&2 ;;
    esac
done
case "$camera" in
    "" | picamera2 | picamera | folder | simulated) ;;
    *) echo "--camera $camera is not one of picamera2, picamera, folder, simulated" >&2; exit 64 ;;
esac
case "$reboot_after" in *[!0-9]*) echo "--reboot-after $reboot_after should be a number" >&2; exit 64 ;; esac
root=${root%/}
say() { printf '%s\n' "$*"; }
if [ -z "$root" ] && [ "$(id -u)" != 0 ]; then say "run it with sudo" >&2; exit 77; fi
opt=$root/opt/lakevision etc=$root/etc/lakevision units=$root/etc/systemd/system spool=$root/var/lib/lakevision
is_pi() { grep -qs "Raspberry Pi" "$root/proc/device-tree/model" /proc/device-tree/model; }
[ -n "$camera" ] || { if is_pi; then camera=picamera2; else camera=simulated; fi; }

# ---- the system's packages and user
if [ -z "$root" ]; then
    missing=()
    python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
    case "$camera" in picamera2 | picamera)
        /usr/bin/python3 -c "import $camera" 2>/dev/null || missing+=("python3-$camera")
    esac
    if [ ${#missing[@]} -gt 0 ]; then
        say "installing ${missing[*]}"
        apt-get update -q >/dev/null
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
    fi
    if ! getent passwd lakevision >/dev/null; then
        say "making the user lakevision"
        useradd --system --user-group --no-create-home --home-dir /var/lib/lakevision --shell /usr/sbin/nologin \
            lakevision
    fi
    getent group video >/dev/null && usermod -a -G video lakevision
fi

# ---- the program: copied beside the old one, then swapped in, so an interrupted update leaves one complete copy
mkdir -p "$opt" "$etc" "$units" "$spool"
if ! diff -rq --exclude=__pycache__ "$here" "$opt/device" >/dev/null 2>&1; then
    say "copying the program to /opt/lakevision/device"
    rm -rf "$opt/device.new" "$opt/device.old"
    cp -R "$here" "$opt/device.new"
    find "$opt/device.new" -name __pycache__ -prune -exec rm -rf {} +
    chmod -R u=rwX,go=rX "$opt/device.new"
    [ ! -e "$opt/device" ] || mv "$opt/device" "$opt/device.old"
    mv "$opt/device.new" "$opt/device"
    rm -rf "$opt/device.old"
    changed=yes
fi
python=${PYTHON:-$([ -x /usr/bin/python3 ] && echo /usr/bin/python3 || command -v python3)}
# Scoring stays installed: an update without --score must not remove LiteRT.
[ ! -e "$units/lakevision-score.service" ] || score=yes
requirements=("$opt/device/requirements.txt")
[ "$score" = no ] || requirements+=("$opt/device/requirements-score.txt")
fingerprint=$({ cat "${requirements[@]}"; "$python" --version; } | sha256sum | cut -d' ' -f1)
if [ "$(cat "$opt/venv/.ready" 2>/dev/null)" != "$fingerprint" ] ||
    ! "$opt/venv/bin/python" -c 'import PIL' 2>/dev/null; then
    say "installing the agent's packages into /opt/lakevision/venv"
    "$python" -m venv --clear --system-site-packages "$opt/venv"
    "$opt/venv/bin/python" -m pip install -q --disable-pip-version-check --no-input --prefer-binary \
        "${requirements[@]/#/-r}"
    "$opt/venv/bin/python" -c 'import PIL, obstore'
    [ "$score" = no ] || "$opt/venv/bin/python" -c 'import ai_edge_litert.interpreter'
    echo "$fingerprint" >"$opt/venv/.ready"
    changed=yes
fi

# ---- the owner's files: written once
if [ ! -e "$etc/device.toml" ]; then
    say "writing /etc/lakevision/device.toml: set store.url in it"
    sed "s/@KIND@/$camera/" "$here/device.toml.example" >"$etc/device.toml"
    chmod 644 "$etc/device.toml"
fi
if [ ! -e "$etc/credentials" ]; then
    say "writing /etc/lakevision/credentials: put the store's credentials there, NAME=value (README.md, Credentials)"
    (umask 077; echo "# NAME=value, one a line; see /opt/lakevision/device/README.md, Credentials" >"$etc/credentials")
fi
chmod 600 "$etc/credentials"

# ---- units
put() { # source, destination: copies only changed files, so that systemd reloads only after changes
    ! cmp -s "$1" "$2" || return 0
    mkdir -p "$(dirname "$2")"
    install -m 644 "$1" "$2"
    say "writing ${2#"$root"}"
    changed=yes
}
# The service that drives the camera: score if score.camera = true, else capture. The agent itself reads the setting.
driver=capture other=score
camera_check='import sys; from device import config; sys.exit(not config.load(sys.argv[1]).score.camera)'
if [ "$score" = yes ] && (cd "$opt" && venv/bin/python -c "$camera_check" "$etc/device.toml" 2>/dev/null); then
    driver=score other=capture
fi
services=(lakevision-upload "lakevision-$driver")
[ "$score" = no ] || [ "$driver" = score ] || services+=(lakevision-score)
for unit in lakevision-capture "${services[@]}"; do put "$opt/device/systemd/$unit.service" "$units/$unit.service"; done
if [ "$score" = yes ] && grep -qs '^gpio *= *"..*"' "$etc/device.toml"; then
    put "$opt/device/systemd/gpio.conf" "$units/lakevision-score.service.d/gpio.conf"
fi
drop_ins=$units/lakevision-$driver.service.d others=$units/lakevision-$other.service.d
if [ "$driver" = score ]; then put "$opt/device/systemd/camera.conf" "$drop_ins/camera.conf"; fi
for name in camera legacy-camera; do # the permissions move with the camera
    [ ! -e "$others/$name.conf" ] || { rm -f "$others/$name.conf"; changed=yes; }
done
if [ -e "$others/reboot.conf" ]; then
    mkdir -p "$drop_ins"
    mv "$others/reboot.conf" "$drop_ins/reboot.conf"
    changed=yes
fi
if grep -qs '^kind *= *"picamera"' "$etc/device.toml"; then
    put "$opt/device/systemd/legacy-camera.conf" "$drop_ins/legacy-camera.conf"
fi
if [ "${reboot_after:-}" = 0 ]; then
    rm -f "$drop_ins/reboot.conf"
    changed=yes
elif [ -n "$reboot_after" ]; then
    filled=$(mktemp)
    sed "s/@N@/$reboot_after/; s/@SECONDS@/$((reboot_after * 180))/" "$opt/device/systemd/reboot.conf" >"$filled"
    put "$filled" "$drop_ins/reboot.conf"
    rm -f "$filled"
fi

if [ -n "$root" ]; then say "installed below $root"; exit 0; fi
install -d -o lakevision -g lakevision -m 750 /var/lib/lakevision /var/lib/lakevision/spool /var/lib/lakevision/model
systemctl daemon-reload
if [ "$start" = yes ]; then
    if [ "$driver" = score ]; then systemctl disable -q --now lakevision-capture; fi
    systemctl enable -q "${services[@]}"
    if [ "${changed:-no}" = yes ]; then systemctl restart "${services[@]}"; else systemctl start "${services[@]}"; fi
fi
[ "$score" = no ] || say "scoring: set enabled = true in [score] and url in [model] of /etc/lakevision/device.toml \
(README.md, Scoring on the device)"
say "installed. Next: edit /etc/lakevision/device.toml, then
    sudo systemctl restart ${services[*]}
    cd /opt/lakevision && sudo venv/bin/python -m device doctor"
