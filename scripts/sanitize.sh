#!/usr/bin/env bash
# Builds the addon, in a copy of its own, and the emulated CUDA device with AddressSanitizer and
# UndefinedBehaviorSanitizer, and runs random calls of every kernel (test/fuzz/kernels.ts) for FUZZ_SECONDS (30), then the kernel
# tests on them. `sanitize.sh emulator`: the emulated device only.
set -euo pipefail
cd "$(dirname "$0")/.."
asan=$(g++ -print-file-name=libasan.so)
if [ ! -e "$asan" ]; then
  echo 'skipped: this compiler brings no libasan'
  exit 0
fi
plugin=$(node scripts/build-cuda-emulator.mjs --sanitize)
case "$plugin" in
  skipped:*) echo "the emulated CUDA device is $plugin" ;;
  *) export DISTILWHISPER_EMULATED_PLUGIN="$plugin" ;;
esac
if [ "${1:-}" != emulator ]; then
  copy=$(mktemp -d)
  trap 'rm -rf "$copy"' EXIT
  cp -r bench cuda lib native scripts test binding.gyp package.json tsconfig.json ava.config.js "$copy/"
  ln -s "$PWD/node_modules" "$copy/node_modules"
  prefix=$(dirname "$(dirname "$(command -v node)")")
  [ -e "$prefix/include/node/node_api.h" ] && headers="--nodedir=$prefix" || headers=''
  cd "$copy"
  # Kernels that this processor cannot run are not tested here either.
  DISTILWHISPER_KERNELS=$(node scripts/kernel-sets.mjs) DISTILWHISPER_SANITIZE=address,undefined npx node-gyp configure build -j max --loglevel=error $headers
fi
# Memory that there is not is an error of the package, not of the sanitizer.
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:allocator_may_return_null=1
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
if [ "${1:-}" != emulator ]; then
  trace=$(mktemp)
  # A process that dies says in the trace's last line of what.
  DISTILWHISPER_CUDA_PLUGIN="${DISTILWHISPER_EMULATED_PLUGIN:-}" LD_PRELOAD="$asan" \
    node --import=tsx --input-type=module - "${FUZZ_SECONDS:-30}" "$trace" <<'FUZZ' || { tail -n 1 "$trace"; exit 1; }
import { openSync, writeSync } from 'node:fs';
const { run } = await import(`${process.cwd()}/test/fuzz/kernels.ts`);
const [, , seconds, path] = process.argv;
const file = openSync(path, 'w');
const trace = (line) => writeSync(file, `${line}\n`);
// An emulated device under a sanitizer takes six seconds for a decoder layer: only what hangs takes a minute.
const options = { seconds: Number(seconds), seed: Date.now() % 1e6, mostSeconds: 60, report: console.log, trace };
const { calls, faults } = await run(options);
console.log(`random calls of kernels: ${calls}, faults: ${faults.length}`);
process.exit(faults.length > 0 ? 1 : 0);
FUZZ
  rm "$trace"
fi
mapfile -t files < <(grep -v '^#' scripts/sanitized-tests.txt)
# Instrumented code tells nothing about speed or memory, and is slow for the whole of the real encoder ("within 1e-5").
LD_PRELOAD="$asan" node --import=tsx node_modules/ava/entrypoints/cli.mjs --timeout=20m "${files[@]}" \
  --match='!*within 1e-5*' --match='!speed:*' --match='!memory:*' --match='!where memory ends*'
