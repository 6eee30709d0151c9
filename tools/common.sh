# shellcheck shell=bash
# What tools/quickstart and tools/test share. To be sourced, from the root of the project.

say() { printf '==> %s\n' "$*" >&2; }

# The packages that the named lists hold, without comments.
listed_packages() { sed -e 's/#.*//' -- "$@" | xargs -n 1 -r; }

# Those of the listed packages that are not installed.
missing_packages() {
  local package
  for package in $(listed_packages "$@"); do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || printf '%s ' "$package"
  done
}

# Installs what the lists name and the machine lacks. Where all is there, nothing is run, so it works offline.
ensure_packages() {
  if ! command -v dpkg-query >/dev/null; then
    say "this is not Debian: please see to it that the counterparts of the packages in $* are installed"
    return 0
  fi
  local missing
  missing=$(missing_packages "$@")
  missing=${missing% }
  [ -n "$missing" ] || return 0

  local line="apt-get update && apt-get install -y --no-install-recommends $missing"
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      as_root=(sudo -n)
    else
      {
        echo "Packages are missing, and only root may install them. Type this line, then run the same command again:"
        echo
        if command -v sudo >/dev/null; then echo "  sudo sh -c '$line'"; else echo "  su -c '$line'"; fi
        echo
      } >&2
      exit 1
    fi
  fi
  say "installing $missing"
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300)
  "${apt[@]}" update </dev/null >&2 || say "apt-get update failed; going on with the package lists at hand"
  # shellcheck disable=SC2086  # one word for each package
  if ! "${apt[@]}" install -y --no-install-recommends $missing </dev/null >&2; then
    say "apt-get could not install the packages. With a connection, type as root:  $line"
    exit 1
  fi
}

# build PRESET TARGET...: configures a preset of CMakePresets.json and builds targets of it.
build() {
  local preset=$1
  shift
  cmake --preset "$preset" --log-level=WARNING -DCMAKE_CXX_COMPILER_LAUNCHER="$(command -v ccache)" >&2 &&
    cmake --build --preset "$preset" --parallel "$(nproc)" --target "$@" >&2
}
