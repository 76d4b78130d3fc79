import type { ProfileReport } from './summary.js';

/** Shares of the time from which a part is worth a sentence. */
const TEACHER = 0.2;
const WAITING = 0.05;
const IDLE = 0.1;
/** From this factor on another type is worth one. */
const FASTER = 1.3;

/** What would make the busiest stream of a profile faster, the most first. */
export function adviceOf({ streams, seconds, ceilings, javascript }: Omit<ProfileReport, 'advice'>): string[] {
  const [stream] = streams;
  if (!stream || seconds === 0) return [];
  const found: { share: number; sentence: string }[] = [];
  const say = (share: number, sentence: string): void => {
    found.push({ share, sentence });
  };
  const percent = (share: number): string => `${(100 * share).toFixed(0)}%`;
  const teacher = stream.parts.find(({ name }) => name === 'teacher')?.share ?? 0;
  if (teacher > TEACHER) {
    say(
      teacher,
      `the teacher takes ${percent(teacher)} of the time: with --teacher-cache it is asked once for each utterance`,
    );
  }
  const waiting = stream.seconds.waitingForData / seconds;
  if (waiting > WAITING) {
    say(
      waiting,
      `${percent(waiting)} of the time nothing ran for want of data: audio that decodes faster (wav, or flac) or lies nearer helps`,
    );
  }
  const idle = stream.seconds.idle / seconds;
  if (stream.parts.length > 0 && idle > IDLE) {
    const busy = javascript.busy === null ? '' : `, the JavaScript thread was busy for ${percent(javascript.busy)}`;
    say(
      idle,
      `${percent(idle)} of the time the stream was idle${busy}: checkpoints and validations are part of that; larger batches leave less of it`,
    );
  }
  const inF32 = stream.kernels.filter(({ type, gflops }) => type === 'fp32' && (gflops ?? 0) > 0);
  const share = inF32.reduce((sum, kernel) => sum + kernel.share, 0);
  if (ceilings.bf16 > FASTER * ceilings.fp32 && share > IDLE) {
    const gain = share * (1 - ceilings.fp32 / ceilings.bf16);
    say(
      gain,
      `${percent(share)} of the time are products in fp32: --compute-type bf16 runs them up to ${(ceilings.bf16 / ceilings.fp32).toFixed(1)} times as fast here`,
    );
  }
  return found.sort((a, b) => b.share - a.share).map(({ sentence }) => sentence);
}
