#!/usr/bin/env bash
# Packs the package, installs the tarball in an empty folder without scripts or a compiler, and runs it there as a user would.
set -euo pipefail
cd "$(dirname "$0")/.."
npm run --silent prebuild
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
tarball=$(npm pack --silent --pack-destination "$folder" | tail -n 1)
ls -l "$folder/$tarball"
cd "$folder"
npm init -y >/dev/null
# A compiler that fails would show that something was compiled after all.
CXX=false CC=false npm install --ignore-scripts --no-audit --no-fund "./$tarball"
npx distilwhisper doctor
npx distilwhisper demo --output run
npx distilwhisper transcribe node_modules/distilwhisper/corpus/*/test-in-0000.opus --language ca --expert run/expert.catalan.safetensors 2>/dev/null ||
  npx distilwhisper transcribe "$(find node_modules/distilwhisper/corpus -name 'test-in*' | head -n 1)" --language ca --expert run/expert.catalan.safetensors
