/** The second half of `npm run test:long`: one file at a time, because some hold the memory or the time of what they run. */
import quick from './ava.config.js';

const { environmentVariables: _, ...rest } = quick;

export default { ...rest, files: ['test/**/*.alone.test.ts'], concurrency: 1 };
