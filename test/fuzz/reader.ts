/** What is fuzzed: something that reads input from outside, and how inputs for it are made. */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Random } from './random.js';

export interface Session {
  /** An input; the same for the same state of the generator. */
  make(random: Random): Uint8Array;
  /**
   * Reads the input through the public API. A typed error is an answer like any other; anything else that is thrown is a find,
   * so what the result must be is checked by throwing.
   */
  read(input: Uint8Array): unknown;
  close?(): void | Promise<void>;
}

export interface Reader {
  name: string;
  about: string;
  /** Its part of the time of a run of all readers; 1 unless it says so. */
  share?: number;
  /** Seconds that an input may take, where it is not the usual 5. */
  seconds?: number;
  /** Why it cannot run on this machine; undefined where it can. */
  missing?(): string | undefined;
  /** `scratch`: an empty folder of its own, in memory where the system has such. */
  open(scratch: string): Session | Promise<Session>;
}

/** A result that breaks what the documentation promises. */
export class BrokenPromise extends Error {
  override readonly name = 'BrokenPromise';
}

export function promised(holds: boolean, what: string): void {
  if (!holds) throw new BrokenPromise(what);
}

export const root = fileURLToPath(new URL('../..', import.meta.url));

/** Where an executable lies on the PATH, if it does. */
export const onPath = (name: string): string | undefined =>
  (process.env.PATH ?? '')
    .split(':')
    .map((folder) => `${folder}/${name}`)
    .find((path) => existsSync(path));
