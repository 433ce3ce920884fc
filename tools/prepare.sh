#!/bin/sh
# Brings what a make target needs: npm packages by the lockfile, and Debian packages where root and apt-get are at hand.
# usage: prepare.sh [COMMAND-OR-FILE[:PACKAGE] ...]
set -eu
cd "$(dirname "$0")/.."

missing=
for need in "$@"; do
  command=${need%%:*}
  package=${need#*:}
  # Only a path is a file: there is a folder iptables here.
  case $command in
    */*) [ -e "$command" ] ;;
    *) PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null 2>&1 ;;
  esac || missing="$missing $package"
done
if [ -n "$missing" ]; then
  if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing from Debian:$missing"
    # A package list that is too old to be used is renewed once.
    # shellcheck disable=SC2086
    install() { DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1; }
    install || { apt-get update -qq && install; } || echo "could not install:$missing (some checks may be skipped)" >&2
  else
    echo "missing:$missing (as root on Debian they are installed by themselves; some checks may be skipped)" >&2
  fi
fi

# The lockfile that node_modules was made from is kept inside it.
if ! cmp -s package-lock.json node_modules/.handfast-lock.json; then
  command -v npm >/dev/null 2>&1 || { echo "npm is missing: install Node.js (20 or later) with npm" >&2; exit 1; }
  echo "installing npm packages"
  npm ci --loglevel=error --no-progress >/dev/null || {
    echo "npm ci failed: it needs the npm registry, and this folder and ${HOME:-the home directory} must be writable" >&2
    exit 1
  }
  cp package-lock.json node_modules/.handfast-lock.json
fi
