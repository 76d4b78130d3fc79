/**
 * A file of Chrome's trace events, written as they come: one event a line in an array, which is left open until `close`. Perfetto
 * and chrome://tracing load an array without its end, so that what a killed run has written is a trace too.
 */
import { closeSync, constants, openSync, statSync, writeFileSync } from 'node:fs';
import { DistilWhisperError, fileWriteError, systemCode } from '../errors/index.js';

/** Characters that are gathered before they are written. */
const CHUNK = 1 << 20;

export class TraceFile {
  private readonly fd: number;
  private text = '[\n';
  private first = true;
  private failure: DistilWhisperError | null = null;
  private open = true;

  /** Replaces a file. Errors: ERR_FILE_WRITE (a folder, no permission, no such folder), ERR_DISK_FULL. */
  constructor(readonly path: string) {
    const kind = statSync(path, { throwIfNoEntry: false });
    if (kind?.isDirectory()) {
      throw new DistilWhisperError(
        'ERR_FILE_WRITE',
        `${path}: expected the name of a file for the trace, got a folder`,
      );
    }
    try {
      // Of a pipe that nothing reads this is refused, where the next call would wait, with everything else on this thread.
      const probe = kind?.isFIFO() ? openSync(path, constants.O_WRONLY | constants.O_NONBLOCK) : null;
      this.fd = openSync(path, 'w');
      if (probe !== null) closeSync(probe);
    } catch (error) {
      throw fileWriteError(error, path);
    }
    this.flush();
    if (!this.failure) return;
    closeSync(this.fd);
    throw this.failure;
  }

  /** An event as JSON text, without a newline. Behind `close` there is no room for it. */
  add(event: string): void {
    if (!this.open) return;
    this.text += this.first ? event : `,\n${event}`;
    this.first = false;
    if (this.text.length >= CHUNK) this.flush();
  }

  /** Events as JSON text with ",\n" before each: not the first of the file. */
  addEvents(events: Uint8Array): void {
    if (!this.open) return;
    this.flush();
    this.write(events);
  }

  /** Hands what was gathered to the system. A failure is kept for `close`: a profile never ends the work that it watches. */
  flush(): void {
    const { text } = this;
    this.text = '';
    if (this.open && text !== '') this.write(text);
  }

  private write(text: string | Uint8Array): void {
    if (this.failure) return;
    try {
      writeFileSync(this.fd, text);
    } catch (error) {
      const full = systemCode(error) === 'ENOSPC' || systemCode(error) === 'EDQUOT';
      this.failure = new DistilWhisperError(
        full ? 'ERR_DISK_FULL' : 'ERR_FILE_WRITE',
        `${this.path}: the trace ends early: ${full ? 'the disk is full' : (systemCode(error) ?? String(error))}`,
        { cause: error },
      );
    }
  }

  /** Ends the array. Throws the first failure of a write: ERR_DISK_FULL or ERR_FILE_WRITE. */
  close(): void {
    if (!this.open) return;
    this.text += '\n]\n';
    this.flush();
    this.open = false;
    closeSync(this.fd);
    if (this.failure) throw this.failure;
  }
}
