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
npx distilwhisper transcribe node_modules/distilwhisper/corpus/ca/test-in-0000.opus --language ca --expert run/expert.catalan.safetensors
