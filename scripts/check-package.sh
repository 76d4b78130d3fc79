#!/usr/bin/env bash
# Packs the package, and that of the CUDA plugin where it was built, installs the tarballs in an empty folder without a compiler,
# and runs them there as a user would.
set -euo pipefail
cd "$(dirname "$0")/.."
# What the set-up compiled is packed, instead of compiled again.
node scripts/setup.mjs --all-kernels
PREBUILD_NODE_GYP=true npm run --silent prebuild
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
tarball=$(npm pack --silent --pack-destination "$folder" | tail -n 1)
cuda=''
if [ -e build-cuda/distilwhisper-cuda.so ]; then
  cuda=$(npm pack --silent --workspace @distilwhisper/cuda-linux-x64 --pack-destination "$folder" | tail -n 1)
fi
ls -l "$folder"
cd "$folder"
npm init -y >/dev/null
# The install script finds the binary: a compiler that fails would show that something was compiled after all.
CXX=false CC=false npm install --ignore-scripts=false --foreground-scripts --no-audit --no-fund "./$tarball" ${cuda:+"./$cuda"}
npx distilwhisper doctor
if [ -n "$cuda" ]; then
  npx distilwhisper doctor --json >doctor.json || true
  node -e "if (!JSON.parse(require('node:fs').readFileSync('doctor.json', 'utf8')).cuda.value.plugin?.includes('@distilwhisper/cuda-linux-x64')) throw new Error('the CUDA plugin of its package was not taken')"
fi
npx distilwhisper demo --output run --json >demo.json
node - <<'CHECK'
const { rows, language, seconds } = JSON.parse(require('node:fs').readFileSync('demo.json', 'utf8'));
for (const { language: of, domain, before, after, unchanged } of rows) {
  console.log(of, domain, `WER ${(100 * before).toFixed(1)}% -> ${(100 * after).toFixed(1)}%`);
  const ok = of !== language ? unchanged && before === after : domain === 'in' ? after <= before / 2 : after < before;
  if (!ok) throw new Error(`${of}, ${domain}: the demo does not show what it promises`);
}
console.log(`${seconds.toFixed(0)} s`);
CHECK
npx distilwhisper transcribe node_modules/distilwhisper/corpus/ca/test-in-0000.opus --model pocket-student --language ca --expert run
