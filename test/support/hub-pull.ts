/** Resolves a name in a process of its own, for tests that kill it or run two: hub-pull.ts <model|experts|dataset> <name>. */
import { resolveDataset, resolveExperts, resolveModel } from '../../lib/hub/index.js';

const [, , kind, name = ''] = process.argv;
const options = {
  onProgress: ({ done, total }: { done: number; total: number }) => process.stderr.write(`${done}/${total}\n`),
  onNote: (note: string) => process.stderr.write(`${note}\n`),
};
const found =
  kind === 'experts'
    ? await resolveExperts(name, options)
    : await (kind === 'dataset' ? resolveDataset : resolveModel)(name, options);
process.stdout.write(JSON.stringify(found));
