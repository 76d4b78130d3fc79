/** What a stage of the GPU check leaves behind: lines that are written as they come, so that a stage cut off leaves what it had. */
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** One figure or check. Times are medians in ms. */
export interface GpuRow {
  stage: string;
  name: string;
  ms?: number;
  /** PyTorch's arguments for the same work. */
  peer?: readonly string[];
  /** Whether PyTorch is to do it compiled too. */
  compile?: boolean;
  /** What PyTorch takes, eager and compiled. */
  peerMs?: number;
  compiledMs?: number;
  /** The better of PyTorch's two by ours. */
  ratio?: number;
  samplesPerSecond?: number;
  /** TFLOP/s, and the share of the measured ceiling of bf16 products. */
  tflops?: number;
  mfu?: number;
  /** Tensors that the work reads and writes, once each, in GB/s. */
  bandwidth?: number;
  /** Memory in MiB: the most that was held, and PyTorch's. */
  peakMiB?: number;
  peerPeakMiB?: number;
  /** Beyond inputs. */
  extraMiB?: number;
  /** What the figures of those names must reach. */
  bars?: Partial<Record<keyof typeof BARS, number>>;
  /** Of a check: whether it held. */
  ok?: boolean;
  note?: string;
}

/** A promise about a figure. 'open': what it is held against was not measured. */
export interface Bar {
  name: string;
  needed: string;
  got: string;
  verdict: 'met' | 'NOT MET' | 'open';
}

export type Add = (row: Omit<GpuRow, 'stage'>) => void;

const rowsFile = (folder: string, stage: string): string => join(folder, `${stage}.jsonl`);

/** Opens the rows of a stage anew and returns what adds one. */
export function rowWriter(folder: string, stage: string): Add {
  const file = rowsFile(folder, stage);
  writeFileSync(file, '');
  return (row) => {
    appendFileSync(file, `${JSON.stringify({ stage, ...row })}\n`);
    console.log(describe({ stage, ...row }));
  };
}

export function readRows(folder: string, stage: string): GpuRow[] {
  const file = rowsFile(folder, stage);
  if (!existsSync(file)) return [];
  // A stage that was stopped may leave half a line.
  const whole = readFileSync(file, 'utf8').split('\n').slice(0, -1);
  return whole.map((line) => JSON.parse(line) as GpuRow);
}

/** What PyTorch was asked, as the name of its row. */
export const peerName = (args: readonly string[], compiled: boolean): string =>
  [...args, ...(compiled ? ['--compile'] : [])].join(' ');

/** Our rows with what PyTorch's say of the same work. */
export function besidePyTorch(rows: readonly GpuRow[], peers: readonly GpuRow[]): GpuRow[] {
  return rows.map((row): GpuRow => {
    if (!row.peer || row.ms === undefined) return row;
    const [eager, compiled] = [false, true].map((c) => peers.find(({ name }) => name === peerName(row.peer!, c)));
    const times = [eager?.ms, compiled?.ms].filter((ms) => ms !== undefined);
    return {
      ...row,
      ...(eager?.ms !== undefined && { peerMs: eager.ms }),
      ...(compiled?.ms !== undefined && { compiledMs: compiled.ms }),
      ...(eager?.peakMiB !== undefined && { peerPeakMiB: eager.peakMiB }),
      ...(times.length > 0 && { ratio: Math.min(...times) / row.ms }),
    };
  });
}

const BARS = {
  ratio: { title: "times PyTorch's speed", least: true, shown: (x: number) => digits(x) },
  mfu: { title: 'share of the bf16 ceiling', least: true, shown: (x: number) => `${digits(100 * x)}%` },
  extraMiB: { title: 'memory beyond inputs', least: false, shown: (x: number) => `${digits(x)} MiB` },
} as const;

/** Every bar of the rows, in their order. */
export function bars(rows: readonly GpuRow[]): Bar[] {
  return rows.flatMap((row) =>
    Object.entries(row.bars ?? {}).map(([key, needed]): Bar => {
      const { title, least, shown } = BARS[key as keyof typeof BARS];
      const got = row[key as keyof typeof BARS];
      const reached = got !== undefined && (least ? got >= needed : got <= needed);
      return {
        name: `${row.name}, ${title}`,
        needed: `${least ? 'at least' : 'at most'} ${shown(needed)}`,
        got: got === undefined ? 'not measured' : shown(got),
        verdict: got === undefined ? 'open' : reached ? 'met' : 'NOT MET',
      };
    }),
  );
}

const digits = (value: number): string => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3));

/** The figures of a row, in the order of the table's columns. */
const FIGURES: [key: keyof GpuRow, head: string, shown: (value: number) => string][] = [
  ['ms', 'ms', digits],
  ['peerMs', 'PyTorch', digits],
  ['compiledMs', 'compiled', digits],
  ['ratio', 'ratio', digits],
  ['samplesPerSecond', 'samples/s', digits],
  ['tflops', 'TFLOP/s', digits],
  ['mfu', '% of ceiling', (x) => digits(100 * x)],
  ['bandwidth', 'GB/s', digits],
  ['peakMiB', 'peak MiB', digits],
  ['peerPeakMiB', "PyTorch's", digits],
  ['extraMiB', 'beyond inputs', digits],
];

/** A row as a line. */
export function describe(row: GpuRow): string {
  const parts = FIGURES.flatMap(([key, head, shown]) => {
    const value = row[key] as number | undefined;
    return value === undefined ? [] : [`${shown(value)} ${head}`];
  });
  const verdict = row.ok === undefined ? '' : row.ok ? 'held' : 'FAILED';
  return `${row.stage.padEnd(10)} ${row.name}: ${[...parts, row.note ?? '', verdict].filter(Boolean).join(', ')}`;
}

/** Aligned Markdown. Columns that are empty are left out. */
function table(head: readonly string[], lines: readonly (readonly string[])[]): string {
  const used = head.map((_, i) => i === 0 || lines.some((line) => line[i] !== ''));
  const all = [head, ...lines].map((line) => line.filter((_, i) => used[i]));
  const widths = all[0]!.map((_, i) => Math.max(...all.map((line) => line[i]!.length)));
  const text = (line: readonly string[]): string =>
    `| ${line.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join(' | ')} |`;
  const rule = `|${widths.map((w, i) => (i === 0 ? '-'.repeat(w + 2) : `${'-'.repeat(w + 1)}:`)).join('|')}|`;
  return [text(all[0]!), rule, ...all.slice(1).map(text)].join('\n');
}

/** Figures, then checks, then bars: what is read on a terminal and committed. */
export function report(rows: readonly GpuRow[]): string {
  const figures = rows.filter((row) => row.ms !== undefined);
  const cells = figures.map((row) => [
    row.name,
    ...FIGURES.map(([key, , shown]) => (row[key] === undefined ? '' : shown(row[key] as number))),
  ]);
  const parts = [
    figures.length > 0 && table(['bf16', ...FIGURES.map(([, head]) => head)], cells),
    rows
      .filter((row) => row.ms === undefined)
      .map(describe)
      .join('\n'),
    bars(rows).length > 0 &&
      table(
        ['bar', 'needed', 'got', ''],
        bars(rows).map(({ name, needed, got, verdict }) => [name, needed, got, verdict]),
      ),
  ];
  return `${parts.filter(Boolean).join('\n\n')}\n`;
}

/** Every row with `facts` (GPU, driver, date, commit), which make it stand on its own. */
export function csv(rows: readonly GpuRow[], facts: Readonly<Record<string, string>>): string {
  const cell = (value: unknown): string => {
    const text = value === undefined ? '' : Array.isArray(value) ? value.join(' ') : String(value);
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const columns = ['stage', 'name', ...FIGURES.map(([key]) => key), 'ok', 'note', 'peer'] as const;
  const lines = rows.map((row) => [...columns.map((name) => row[name as keyof GpuRow]), ...Object.values(facts)]);
  return [[...columns, ...Object.keys(facts)], ...lines].map((line) => `${line.map(cell).join(',')}\n`).join('');
}
