import { type Params, SingleBar } from 'cli-progress';
import { visible } from '../files/index.js';

/** Off a terminal, seconds between two lines of progress. */
const LINE_EVERY = 10;
/** Of a bar, in columns. */
const BAR = 24;
/** Terminals that do not say how wide they are. */
const COLUMNS = 80;

/**
 * What a command says while it works, on standard error: notes, and progress as a bar on a terminal and as plain lines elsewhere
 * (the first, the last, and one every ten seconds), with the time that it has taken, its rate, and the time that is left.
 */
export class Display {
  private bar: SingleBar | null = null;
  private title = '';
  /** When what is under way began, in seconds: when what was before it ended. */
  private began = seconds();
  /** Of the first progress of a title: the rate is told from there, because a run may begin in its middle. */
  private first = { at: 0, done: 0 };
  private lastLine = 0;
  private finished = false;

  constructor(private readonly stream: NodeJS.WriteStream = process.stderr) {}

  note(line: string): void {
    this.clear();
    this.write(`${this.stream.isTTY ? visible(line) : line}\n`);
  }

  /** Makes room for a line on the terminal; the bar redraws itself below. */
  clear(): void {
    if (this.bar) this.write('\r\x1b[K');
  }

  /** The same of bytes: "12.5/967 MB". */
  bytes(title: string, done: number, total: number): void {
    this.progress(title, done, total, '', bytesOf(total));
  }

  /** `done` of `total` under a title; another title begins another bar. */
  progress(title: string, done: number, total: number, detail = '', unit = COUNT): void {
    if (title !== this.title) {
      this.end();
      this.title = title;
      this.finished = false;
      this.lastLine = 0;
      this.first = { at: seconds(), done };
    }
    if (this.finished) return;
    this.finished = done >= total;
    const pace = this.pace(done, total, unit);
    if (this.stream.isTTY) this.draw(title, done, total, [pace, detail], unit);
    else this.line(title, done, total, [detail, pace === '' ? '' : `(${pace})`], unit);
  }

  /** Ends the bar that is drawn, if one is. */
  end(): void {
    this.bar?.stop();
    this.bar = null;
    if (this.title !== '') this.began = seconds();
    this.title = '';
  }

  /** Elapsed time, rate and time left, as far as they are known: "0:12, 2.31/s, 1:05 left". */
  private pace(done: number, total: number, unit: Unit): string {
    const now = seconds();
    const rate = (done - this.first.done) / (now - this.first.at);
    const parts = [clock(now - this.began)];
    if (rate > 0 && Number.isFinite(rate)) {
      parts.push(`${digits(rate / unit.size)}${unit.name}/s`);
      if (done < total) parts.push(`${clock((total - done) / rate)} left`);
    }
    return parts.join(', ');
  }

  private draw(title: string, done: number, total: number, words: string[], unit: Unit): void {
    const tail = visible(words.filter((word) => word !== '').join('  '));
    if (!this.bar) {
      const format = (_: unknown, { progress, value, total }: Params, payload: { tail: string }): string => {
        const full = Math.round(BAR * progress);
        const bar = '█'.repeat(full) + '░'.repeat(BAR - full);
        // A line that wraps could not be drawn over.
        const room = Math.max(1, (this.stream.columns || COLUMNS) - 1);
        return [...`${title} ${bar} ${share(value, total, unit)} ${payload.tail}`].slice(0, room).join('');
      };
      // Signals are the command's to handle.
      this.bar = new SingleBar({ format, stream: this.stream, gracefulExit: false, fps: 5 });
      this.bar.start(total, done, { tail });
    }
    this.bar.update(done, { tail });
    if (!this.finished) return;
    this.bar.stop();
    this.bar = null;
  }

  private line(title: string, done: number, total: number, words: string[], unit: Unit): void {
    const now = seconds();
    if (!this.finished && this.lastLine > 0 && now - this.lastLine < LINE_EVERY) return;
    this.lastLine = now;
    this.write(`${[`${title} ${share(done, total, unit)}`, ...words].filter((word) => word !== '').join(' ')}\n`);
  }

  private write(text: string): void {
    if (this.stream.writable) this.stream.write(text);
  }
}

/** What is counted: so many of it are one of the name. */
interface Unit {
  size: number;
  name: string;
}

const COUNT: Unit = { size: 1, name: '' };
const BYTES: readonly Unit[] = [
  { size: 1e9, name: ' GB' },
  { size: 1e6, name: ' MB' },
  { size: 1e3, name: ' kB' },
];
const bytesOf = (total: number): Unit => BYTES.find(({ size }) => total >= size) ?? { size: 1, name: ' B' };

const digits = (n: number): string => (n >= 100 ? n.toFixed(0) : n.toPrecision(3));
/** "3/20", "12.5/967 MB". */
const share = (done: number, total: number, { size, name }: Unit): string =>
  size === 1 ? `${done}/${total}${name}` : `${digits(done / size)}/${digits(total / size)}${name}`;

const seconds = (): number => performance.now() / 1000;

/** Seconds as 0:07, 12:34 or 1:02:03. */
export function clock(seconds: number): string {
  const whole = Math.round(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n: number): string => String(n).padStart(2, '0');
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}
