/** In a process that may take 700 MiB more than it has: which errors come where memory ends. argv: the library's module. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

const { Stream } = await import(process.argv[2]);
const stream = new Stream({ threads: 2 });
const code = async (body) => {
  try {
    await body();
    return 'none';
  } catch (error) {
    return error.code ?? String(error);
  }
};
const MIB = 2 ** 20;
const bytes = new Uint8Array(64 * MIB);
const held = 1024 * Number(/VmSize:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'latin1'))[1]);
execFileSync('prlimit', ['--pid', `${process.pid}`, `--as=${held + 700 * MIB}`]);

const said = {};
const large = stream.persistent(null, [(300 * MIB) / 2], 'bf16');
const part = stream.persistent(bytes, [(64 * MIB) / 4]);
await stream.sync();
const kept = [];
said.allocated = await code(() => {
  for (;;) kept.push(stream.persistent(null, [4 * MIB]));
});
said.read = await code(() => large.read());
said.written = await code(() => part.write(bytes));
for (const tensor of kept) tensor.dispose();
await stream.sync();
said.after = [...(await stream.tensor(Float32Array.of(3), [1]).read())];
stream.close();
console.log(JSON.stringify(said));
