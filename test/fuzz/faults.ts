/** What counts as a fault, how faults are told apart, and the messages between the supervisor and its children. */
import { isDistilWhisperError } from '../../lib/errors/index.js';
import { BrokenPromise } from './reader.js';

/** Bytes by which an input may make the process grow. */
export const MOST_GROWTH = 2 ** 30;
/** Seconds that an input may take, where its reader does not say otherwise. */
export const MOST_SECONDS = 5;

/** The file, in a child's scratch folder, that names the call of a kernel that was made last. */
export const LAST_CALL = 'last-call';

export interface Fault {
  /** untyped: an error without a code; result: an answer that breaks a promise; the others as they say. */
  kind: 'untyped' | 'result' | 'rejection' | 'time' | 'memory' | 'death';
  what: string;
  /** Where in the package or in what it depends on, if it is known. */
  where?: string;
}

export type Request =
  | { type: 'loop'; reader: string; seed: number; from: number; step: number; inputs: number; until: number }
  | { type: 'make'; reader: string; seed: number; index: number }
  | { type: 'try'; reader: string; input: Uint8Array }
  | { type: 'kernels'; seed: number; seconds: number };

/** `next`: the index that a loop goes on from. `tired`: the process has grown and wants to be replaced. */
export type Reply =
  | { type: 'ready' }
  | { type: 'found'; index: number; fault: Fault }
  | { type: 'ended'; inputs: number; next: number; tired: boolean }
  | { type: 'made'; input: Uint8Array }
  | { type: 'tried'; fault: Fault | null }
  | { type: 'said'; line: string };

/** The first frame of a stack that is not Node's. */
function whereOf(error: Error): string | undefined {
  const frames = (error.stack ?? '').split('\n').filter((line) => /^ {4}at /.test(line) && !line.includes('node:'));
  const found = frames
    .map((line) => /(\S+ \()?[^(]*\/((?:lib|node_modules|test)\/[^:)]+)/.exec(line))
    .find((match) => match);
  return found ? `${(found[1] ?? '').replace(' (', '')} ${found[2]}`.trim() : undefined;
}

/** What was thrown, as a fault; null for a typed error. */
export function faultOf(thrown: unknown): Fault | null {
  if (isDistilWhisperError(thrown)) return null;
  if (!(thrown instanceof Error)) return { kind: 'untyped', what: `thrown: ${String(thrown).slice(0, 200)}` };
  const where = whereOf(thrown);
  const kind = thrown instanceof BrokenPromise ? 'result' : 'untyped';
  return { kind, what: `${thrown.name}: ${thrown.message.slice(0, 200)}`, ...(where && { where }) };
}

/** Faults with the same signature are one find. */
export function signature(reader: string, { kind, what, where }: Fault): string {
  const general = what
    .replace(/'[^']*'|"[^"]*"|`[^`]*`/g, '…')
    .replace(/-?\d+(\.\d+)?/g, 'N')
    .slice(0, 80);
  return kind === 'time' || kind === 'memory' ? `${reader} ${kind}` : `${reader} ${kind} ${general} ${where ?? ''}`;
}
