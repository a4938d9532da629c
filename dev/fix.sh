#!/usr/bin/env bash
# Formats the Rust sources and applies what clippy can repair by itself.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo clippy --release --workspace --all-targets --fix --allow-dirty --allow-staged --quiet
cargo fmt --all
