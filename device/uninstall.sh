#!/usr/bin/env bash
# Removes the capture agent. Running it again is safe.
#
#     sudo bash device/uninstall.sh [--purge] [--root DIR]
#
# Settings, credentials and the spool with its unsent frames stay; --purge deletes them.
set -euo pipefail
root="" purge=no
while [ $# -gt 0 ]; do
    case "$1" in
        --purge) purge=yes; shift ;;
        --root) root=${2:?--root needs a folder}; shift 2 ;;
        *) sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 64 ;;
    esac
done
root=${root%/}
if [ -z "$root" ] && [ "$(id -u)" != 0 ]; then echo "run it with sudo" >&2; exit 77; fi
if [ -z "$root" ] && command -v systemctl >/dev/null; then
    for unit in lakevision-capture lakevision-upload lakevision-score; do
        [ ! -e "/etc/systemd/system/$unit.service" ] || systemctl disable --now "$unit"
    done
fi
for unit in lakevision-capture lakevision-upload lakevision-score; do
    rm -rf "$root/etc/systemd/system/$unit.service" "$root/etc/systemd/system/$unit.service.d"
done
rm -rf "$root/opt/lakevision"
if [ -z "$root" ] && command -v systemctl >/dev/null; then systemctl daemon-reload; fi
ready=$root/var/lib/lakevision/spool/ready
unsent=$([ ! -d "$ready" ] || find "$ready" -type f | wc -l)
unsent=${unsent:-0}
if [ "$purge" = yes ]; then
    [ "$unsent" = 0 ] || echo "deleting $unsent frames that were never sent"
    rm -rf "$root/var/lib/lakevision" "$root/etc/lakevision"
    if [ -z "$root" ] && getent passwd lakevision >/dev/null; then userdel lakevision; fi
    echo "removed, with settings, credentials and spool"
else
    echo "removed. Left: /etc/lakevision, and /var/lib/lakevision with $unsent unsent frames; --purge deletes them too"
fi
