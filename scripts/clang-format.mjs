// Checks that every C++ file is as clang-format leaves it; with --write, makes it so.
import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';

const sources = (folder) =>
  readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return sources(path);
    return /\.(cc|h|cpp|cu|cuh)$/.test(entry.name) ? [path] : [];
  });
const files = ['native', 'cuda', 'bench', 'scripts', 'test/cuda-emulator'].flatMap(sources);
const mode = process.argv.includes('--write') ? ['-i'] : ['--dry-run', '--Werror'];
try {
  execFileSync('npx', ['clang-format', ...mode, ...files], { stdio: 'inherit' });
} catch {
  console.error('some files are not formatted: node scripts/clang-format.mjs --write');
  process.exit(1);
}
