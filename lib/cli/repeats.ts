/** Options that are given more than once: they mean all of their values, or are refused. */
import type { Command } from 'commander';

/** Collects an option that may be given again. */
export const again = (value: string, earlier: string[] = []): string[] => [...earlier, value];

/**
 * Refuses an option of one value that is given twice, where the last would win silently. Switches mean the same twice, and
 * what collects its values means all of them.
 */
export function refuseRepeats(command: Command): void {
  for (const option of command.options) {
    if (option.isBoolean() || option.variadic || option.parseArg === again) continue;
    let given = 0;
    command.on(`option:${option.name()}`, () => {
      if (++given > 1)
        command.error(`error: option '${option.flags}' was given more than once, and it takes one value`, {
          code: 'distilwhisper.repeatedOption',
        });
    });
  }
}
