# What tests/clients/run, tests/page/run and ci/policy install where it is missing. Sourced by them.

# install PACKAGE…: from Debian's packages.
install() {
  echo "installing $*" >&2
  local sudo
  sudo=$( ((EUID == 0)) || echo sudo)
  $sudo apt-get update --quiet >&2
  $sudo apt-get install --yes --quiet --no-install-recommends "$@" >&2
}

need_node() {
  command -v npm >/dev/null || install nodejs npm
}

need_chromium() {
  command -v chromium >/dev/null || install chromium
}

# npm_packages FOLDER CACHE: those of FOLDER's lock file, into CACHE. The copy of the lock file in node_modules is made last, so
# that an unfinished installation starts again.
npm_packages() {
  cmp --silent "$1/package-lock.json" "$2/node_modules/package-lock.json" && return
  echo "installing npm's packages into ${2#"$PWD"/}" >&2
  mkdir -p "$2"
  cp "$1/package.json" "$1/package-lock.json" "$2/"
  npm ci --prefix "$2" --ignore-scripts --no-audit --no-fund --silent >&2
  cp "$1/package-lock.json" "$2/node_modules/package-lock.json"
}
