#!/bin/sh
# What the fault tests need beyond PyPI: strace and an ext4 image. As root on a Debian they are installed;
# elsewhere those tests are reported as skipped (as root on Linux a skipped fault class is a failure).
set -eu
missing=""
command -v strace >/dev/null 2>&1 || missing="$missing strace"
[ -x /sbin/mkfs.ext4 ] || command -v mkfs.ext4 >/dev/null 2>&1 || missing="$missing e2fsprogs"
command -v mount >/dev/null 2>&1 || missing="$missing mount"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  apt-get update -qq
  # shellcheck disable=SC2086 (words on purpose)
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
else
  echo "not here:$missing; the fault tests that need it will be reported as skipped" >&2
fi
