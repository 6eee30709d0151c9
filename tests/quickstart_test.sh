#!/usr/bin/env bash
# What tools/quickstart does on machines of every kind, shown with stand-ins for apt, sudo, cmake and ponder.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

room=$(mktemp -d)
trap 'rm -rf -- "$room"' EXIT
mkdir -p "$room/project/tools" "$room/bin"
cp tools/quickstart tools/common.sh "$room/project/tools/"
printf '# libraries\nalpha-dev  # the first\n\nbeta\n' >"$room/project/apt.txt"

stand_in() { printf '#!/bin/bash\n%s\n' "$2" >"$room/bin/$1" && chmod +x "$room/bin/$1"; }
stand_in dpkg-query 'grep -qx "${@: -1}" "$ROOM/installed" && printf installed'
stand_in apt-get 'echo "apt-get $*" >>"$ROOM/calls"
  [[ " $* " != *" update "* ]] || exit "${UPDATE_STATUS:-0}"
  [ "${INSTALL_STATUS:-0}" = 0 ] || exit "$INSTALL_STATUS"
  printf "%s\n" "$@" >>"$ROOM/installed"'
stand_in sudo '[ "${SUDO_STATUS:-0}" = 0 ] || exit 1; echo "sudo $*" >>"$ROOM/calls"; shift; exec "$@"'
stand_in id 'echo "${USER_ID:-0}"'
stand_in cmake 'echo "cmake $*" >>"$ROOM/calls"
  [ "$1" != --build ] || { mkdir -p build/release && cp "$ROOM/bin/ponder" build/release/; }'
stand_in ponder 'echo "ponder $*" >>"$ROOM/calls"; exit "${PONDER_STATUS:-0}"'

# try WHAT INSTALLED [VARIABLE=VALUE...] [-- ARGUMENT...]: runs quickstart; sets `status`, `output`, `calls`.
try() {
  local what=$1
  printf '%s\n' $2 >"$room/installed"
  shift 2
  local settings=()
  while [ $# -gt 0 ] && [ "$1" != -- ]; do settings+=("$1") && shift; done
  [ $# -eq 0 ] || shift
  : >"$room/calls"
  rm -rf -- "$room/project/build"
  status=0
  output=$(env "ROOM=$room" "PATH=$room/bin:$PATH" "${settings[@]}" bash "$room/project/tools/quickstart" "$@" 2>&1) || status=$?
  calls=$(cat "$room/calls")
  echo "$what: status $status"
}

expect() {
  [[ "$1" == $2 ]] && return
  printf 'line %s: expected %s, got:\n%s\n' "${BASH_LINENO[0]}" "$2" "$1"
  exit 1
}

try 'all packages there' 'alpha-dev beta' USER_ID=1000 SUDO_STATUS=1
expect "$status" 0
expect "$calls" 'cmake --preset release*ponder pipeline recipes/quickstart.toml'

try 'arguments and exit status pass through' 'alpha-dev beta' PONDER_STATUS=75 -- --set 'run_name=two words'
expect "$status" 75
expect "$calls" '*ponder pipeline recipes/quickstart.toml --set run_name=two words'

try 'root, one missing' 'beta'
expect "$status" 0
expect "$calls" 'apt-get * update*apt-get * install -y --no-install-recommends alpha-dev?cmake*'

try 'sudo without a password' '' USER_ID=1000
expect "$status" 0
expect "$calls" 'sudo -n true*sudo -n * update*sudo -n * install * alpha-dev beta?cmake*'

try 'no root, no sudo' 'beta' USER_ID=1000 SUDO_STATUS=1
expect "$status" 1
expect "$output" '*apt-get install -y --no-install-recommends alpha-dev*'
expect "$calls" ''

try 'package lists cannot be renewed, but the package is at hand' 'beta' UPDATE_STATUS=100
expect "$status" 0
expect "$calls" '*ponder pipeline*'

try 'packages cannot be had' 'beta' UPDATE_STATUS=100 INSTALL_STATUS=100
expect "$status" 1
expect "$output" '*apt-get install -y --no-install-recommends alpha-dev*'
