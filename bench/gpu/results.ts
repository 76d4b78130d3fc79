/** What a stage of the GPU check leaves behind: lines that are written as they come, so that a stage cut off leaves what it had. */
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** One figure or check. Times are medians in ms. */
export interface GpuRow {
  stage: string;
  name: string;
  ms?: number;
  /** PyTorch's, eager and compiled. */
  peerMs?: number;
  compiledMs?: number;
  /** The better of PyTorch's two by ours. */
  ratio?: number;
  /** What the ratio should be at least. */
  bar?: number;
  /** TFLOP/s, and the share of the measured ceiling of bf16 products. */
  tflops?: number;
  mfu?: number;
  /** Of memory, GB/s. */
  bandwidth?: number;
  samplesPerSecond?: number;
  /** Memory in MiB: the most that was held, and PyTorch's. */
  peakMiB?: number;
  peerPeakMiB?: number;
  /** Beyond inputs and outputs. */
  extraMiB?: number;
  /** Of a check, or of what has a bar: whether it holds. */
  ok?: boolean;
  note?: string;
}

export const rowsFile = (folder: string, stage: string): string => join(folder, `${stage}.jsonl`);

/** Opens the rows of a stage anew and returns what adds one. */
export function rowWriter(folder: string, stage: string): (row: Omit<GpuRow, 'stage'>) => void {
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
  return readFileSync(file, 'utf8')
    .split('\n')
    .flatMap((line) => (line ? [JSON.parse(line) as GpuRow] : []));
}

const digits = (value: number): string => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3));

/** A row as a sentence. */
export function describe(row: GpuRow): string {
  const parts: string[] = [];
  const add = (value: number | undefined, text: (shown: string) => string): void => {
    if (value !== undefined) parts.push(text(digits(value)));
  };
  add(row.ms, (x) => `${x} ms`);
  add(row.peerMs, (x) => `PyTorch ${x}`);
  add(row.compiledMs, (x) => `compiled ${x}`);
  add(row.ratio, (x) => `${x} times as fast`);
  add(row.bar, (x) => `bar ${x}`);
  add(row.samplesPerSecond, (x) => `${x} samples/s`);
  add(row.tflops, (x) => `${x} TFLOP/s`);
  add(row.mfu === undefined ? undefined : 100 * row.mfu, (x) => `${x}% of the bf16 ceiling`);
  add(row.bandwidth, (x) => `${x} GB/s`);
  add(row.peakMiB, (x) => `${x} MiB at most`);
  add(row.peerPeakMiB, (x) => `PyTorch ${x} MiB`);
  add(row.extraMiB, (x) => `${x} MiB beyond inputs and outputs`);
  if (row.note) parts.push(row.note);
  const verdict = row.ok === undefined ? '' : row.ok ? (row.bar === undefined ? 'ok' : 'met') : 'NOT MET';
  return `${row.stage.padEnd(10)} ${row.name}: ${[...parts, verdict].filter(Boolean).join(', ')}`;
}

const COLUMNS: (keyof GpuRow)[] = [
  ...([
    'stage',
    'name',
    'ms',
    'peerMs',
    'compiledMs',
    'ratio',
    'bar',
    'ok',
    'samplesPerSecond',
    'tflops',
    'mfu',
  ] as const),
  ...(['bandwidth', 'peakMiB', 'peerPeakMiB', 'extraMiB', 'note'] as const),
];

export function csv(rows: readonly GpuRow[]): string {
  const cell = (value: unknown): string => {
    const text = value === undefined ? '' : String(value);
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [COLUMNS.join(','), ...rows.map((row) => COLUMNS.map((name) => cell(row[name])).join(','))]
    .join('\n')
    .concat('\n');
}
