# Sourced by the scripts of hack/: where things are. Everything that tests need and that is not ours lives in the cache.
# shellcheck shell=bash disable=SC2034
HACK=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
ROOT=$(dirname "$HACK")
CREEL_CACHE=$(readlink -m "${CREEL_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/creel}")
export CREEL_CACHE
SUITE=bookworm # the Debian release that the test images and the registry come from, whatever runs here
CRI_TOOLS=v1.36.0
mkdir -p "$CREEL_CACHE"/{bin,log,img}

die() { echo "${0##*/}: $*" >&2; exit 1; }
say() { printf '%4ds  %s\n' "$SECONDS" "$*"; }

# Where cargo puts the two builds: the daemon and the command line; and the supervisor, which is static.
TARGET=$(readlink -m "${CARGO_TARGET_DIR:-$ROOT/target}")
STATIC_TRIPLE=$(uname -m)-unknown-linux-gnu

# free_port: a TCP port of loopback that nobody listens on now
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# debian_apt TOOL ARGS...: apt-get or apt-cache in a world of its own, where SUITE is all there is and nothing gets installed.
# The system's lists, sources and preferences are neither read nor changed.
debian_apt() {
  local dir=$CREEL_CACHE/apt tool=$1 mirror
  shift
  if [ ! -e "$dir/sources.list" ]; then
    mkdir -p "$dir"/{lists,cache/archives}/partial "$dir/debs"
    : >"$dir/status"
    mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/*$')}
    printf '%s [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] '"$mirror $SUITE"' main\n' deb deb-src >"$dir/sources.list"
  fi
  "$tool" -q -o Dir::Etc::SourceList="$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::Etc::Preferences=/dev/null \
    -o Dir::Etc::PreferencesParts=/dev/null -o Dir::State="$dir" -o Dir::State::status="$dir/status" -o Dir::Cache="$dir/cache" \
    -o APT::Sandbox::User=root -o Acquire::Check-Valid-Until=false "$@"
}
