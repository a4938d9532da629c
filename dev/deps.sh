#!/usr/bin/env bash
# Checks for what the build needs. What Debian packages is installed, as root or with sudo; otherwise it is named.
set -euo pipefail

rust_min=88     # of 1.x
java_min=17
maven_repo=/usr/share/maven-repo

fail() { printf '%s\n' "$*" >&2; exit 1; }

# A jar of ring: packaged by Debian, or fetched earlier.
have_ring() { [ -d "$maven_repo/ring/$1/1.8.2" ] || [ -f "$HOME/.m2/repository/ring/$1/1.8.2/$1-1.8.2.jar" ]; }

check_toolchains() {
    command -v cargo >/dev/null || fail "Rust is missing: install cargo and rustc 1.$rust_min or newer."
    local minor
    minor=$(rustc --version | sed -n 's/^rustc 1\.\([0-9]*\)\..*/\1/p')
    [ "${minor:-0}" -ge $rust_min ] || fail "Rust 1.$rust_min or newer is needed; this is $(rustc --version)."
    command -v javac >/dev/null || fail "A JDK is missing: install JDK $java_min or newer (Debian: openjdk-$java_min-jdk-headless)."
    local feature
    feature=$(javac -version 2>&1 | sed -n 's/^javac \([0-9]*\).*/\1/p')
    [ "${feature:-0}" -ge $java_min ] || fail "JDK $java_min or newer is needed; this is $(javac -version 2>&1)."
}

missing_packages() {
    command -v lein >/dev/null || echo leiningen
    have_ring ring-core || echo libring-core-clojure
    have_ring ring-jetty-adapter || echo libring-jetty-adapter-clojure
    command -v cc >/dev/null || echo gcc libc6-dev
    command -v curl >/dev/null || echo curl
}

install() {
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; } \
            || fail "Missing packages: $*. Install them as root: apt-get install $*"
        as_root=(sudo)
    fi
    command -v apt-get >/dev/null || fail "Missing: $* (names of Debian packages)."
    echo "Installing $*"
    local log
    log=$(mktemp)
    if ! { "${as_root[@]}" apt-get update && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y --no-install-recommends "$@"; } >"$log" 2>&1 </dev/null; then
        cat "$log" >&2
        rm -f "$log"
        fail "apt-get could not install: $*"
    fi
    rm -f "$log"
}

check_toolchains
missing=$(missing_packages)
if [ -n "$missing" ]; then
    # shellcheck disable=SC2086  # a list of package names
    install $missing
    still=$(missing_packages)
    [ -z "$still" ] || fail "Still missing after the installation:" $still
fi
