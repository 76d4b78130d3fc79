import type { Display } from './display.js';

/** How many are told one by one. */
const TOLD = 20;

/** Notes what was unusual about audio that was decoded all the same: the first twenty, then how many more there were. */
export class WarningNotes {
  private count = 0;

  constructor(private readonly display: Display) {}

  readonly add = (audio: string, warning: string): void => {
    if (++this.count <= TOLD) this.display.note(`warning: ${audio}: ${warning}`);
  };

  end(): void {
    if (this.count > TOLD) this.display.note(`and ${this.count - TOLD} more warnings of this kind`);
    this.count = 0;
  }
}
