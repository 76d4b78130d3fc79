/** How fast the updates of a call have been so far. */
export interface Pace {
  seconds: number;
  /** Of audio, that was trained on; 0 where the batches do not tell. */
  audioSeconds: number;
  /** Seconds in which nothing ran, because the next batch was not there. */
  waited: number;
}

/** Keeps a pace: told when a batch is asked for and there, and what is queued. Times in milliseconds. */
export class PaceMeter {
  private readonly began = performance.now();
  private readonly sum: Pace = { seconds: 0, audioSeconds: 0, waited: 0 };
  private running = 0;
  /** When the last update that was queued had run. */
  private idleSince = this.began;
  private askedAt = this.began;
  /** Of the batches since the last update that was queued. */
  private audio = 0;

  asks(): void {
    this.askedAt = performance.now();
  }

  got(audioSeconds: number | undefined): void {
    this.audio += audioSeconds ?? 0;
    if (this.running > 0) return;
    this.sum.waited += (performance.now() - Math.max(this.askedAt, this.idleSince)) / 1e3;
  }

  /** An update of the batches that have come. */
  queued(update: Promise<unknown>): void {
    const { audio } = this;
    this.audio = 0;
    this.running++;
    const ran = (): void => {
      this.running--;
      this.idleSince = performance.now();
      this.sum.audioSeconds += audio;
    };
    update.then(ran, ran);
  }

  read(): Pace {
    return { ...this.sum, seconds: (performance.now() - this.began) / 1e3 };
  }
}
