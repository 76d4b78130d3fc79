import { SingleBar } from 'cli-progress';

/** Off a terminal, seconds between two lines of progress. */
const LINE_EVERY = 10;

/**
 * What a command says while it works, on standard error: notes, and progress as a bar on a terminal and as plain lines elsewhere
 * (the first, the last, and one every ten seconds).
 */
export class Display {
  private bar: SingleBar | null = null;
  private title = '';
  private lastLine = 0;
  private finished = false;

  constructor(private readonly stream: NodeJS.WriteStream = process.stderr) {}

  note(line: string): void {
    // The bar redraws itself below.
    this.stream.write(this.bar ? `\r\x1b[K${line}\n` : `${line}\n`);
  }

  /** `done` of `total` under a title; another title begins another bar. */
  progress(title: string, done: number, total: number, detail = ''): void {
    if (title !== this.title) {
      this.end();
      this.title = title;
      this.finished = false;
      this.lastLine = 0;
    }
    if (this.finished) return;
    this.finished = done >= total;
    if (this.stream.isTTY) this.draw(title, done, total, detail);
    else this.line(title, done, total, detail);
  }

  /** Ends the bar that is drawn, if one is. */
  end(): void {
    this.bar?.stop();
    this.bar = null;
    this.title = '';
  }

  private draw(title: string, done: number, total: number, detail: string): void {
    if (!this.bar) {
      const format = `${title} {bar} {value}/{total} {eta_formatted} {detail}`;
      // Signals are the command's to handle.
      const options = { format, stream: this.stream, gracefulExit: false, etaBuffer: 50, barsize: 24, fps: 5 };
      this.bar = new SingleBar({ ...options, barCompleteChar: '█', barIncompleteChar: '░' });
      this.bar.start(total, done, { detail });
    }
    this.bar.update(done, { detail });
    if (!this.finished) return;
    this.bar.stop();
    this.bar = null;
  }

  private line(title: string, done: number, total: number, detail: string): void {
    const now = performance.now() / 1000;
    if (!this.finished && this.lastLine > 0 && now - this.lastLine < LINE_EVERY) return;
    this.lastLine = now;
    this.stream.write(`${title} ${done}/${total}${detail === '' ? '' : ` ${detail}`}\n`);
  }
}
