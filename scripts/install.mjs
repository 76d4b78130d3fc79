// What npm runs when the package is installed: nothing where a prebuilt binary loads, else the addon is compiled, on all
// processors. JOBS= sets how many.
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';

const tool = createRequire(import.meta.url).resolve('node-gyp-build/bin.js');
const env = { ...process.env, JOBS: process.env.JOBS || 'max' };
const { status, error } = spawnSync(process.execPath, [tool], { stdio: 'inherit', env });
if (error) console.error(error.message);
process.exitCode = status ?? 1;
