/** Traces as their files hold them. */
import { readFileSync } from 'node:fs';

/** One of Chrome's trace events. */
export interface TraceEvent {
  ph: string;
  tid: number;
  ts: number;
  dur: number;
  cat: string;
  name: string;
  // biome-ignore lint/suspicious/noExplicitAny: of many shapes
  args: any;
}

export const traceEvents = (path: string): TraceEvent[] => JSON.parse(readFileSync(path, 'utf8'));
