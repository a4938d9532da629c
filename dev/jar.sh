#!/usr/bin/env bash
# A jar that needs no -Dquorate.library: the native library is inside, under native/OS-ARCH/.
set -euo pipefail
cd "$(dirname "$0")/.."

# As quorate.jni.NativeLibrary names them.
os=$(uname -s | tr '[:upper:]' '[:lower:]' | sed 's/^darwin$/macos/')
arch=$(uname -m | sed 's/^arm64$/aarch64/')
library="${CARGO_TARGET_DIR:-target}/release/libquorate.so"
inside="target/jar-resources/native/$os-$arch"

rm -rf target/jar-resources
mkdir -p "$inside"
cp "$library" "$inside/"
strip --strip-debug "$inside/libquorate.so"
# It is a library: without a main class of its own.
lein update-in : dissoc :main -- with-profile +with-library jar
