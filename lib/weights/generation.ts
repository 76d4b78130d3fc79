/** What a generation_config.json asks for that decoding here does not follow. */
import { shown } from '../errors/index.js';
import { isJsonObject, type JsonObject } from '../files/index.js';

/**
 * Settings of transformers' generation that change what a model says and are not followed, each with the values that ask for
 * nothing. What has a meaning only while sampling (top_k, top_p, temperature) is told by do_sample or by a value of its own.
 */
const NOT_FOLLOWED: Readonly<Record<string, readonly unknown[]>> = {
  num_beams: [1],
  num_beam_groups: [1],
  diversity_penalty: [0],
  length_penalty: [1],
  early_stopping: [false],
  do_sample: [false],
  temperature: [0, 1],
  top_k: [0, 50],
  top_p: [1],
  min_p: [0],
  typical_p: [1],
  epsilon_cutoff: [0],
  eta_cutoff: [0],
  penalty_alpha: [0],
  repetition_penalty: [1],
  encoder_repetition_penalty: [1],
  no_repeat_ngram_size: [0],
  encoder_no_repeat_ngram_size: [0],
  bad_words_ids: [],
  force_words_ids: [],
  constraints: [],
  sequence_bias: [],
  exponential_decay_length_penalty: [],
  forced_bos_token_id: [],
  forced_eos_token_id: [],
  min_length: [0],
  min_new_tokens: [0],
  max_new_tokens: [],
  max_time: [],
  stop_strings: [],
  num_return_sequences: [1],
  renormalize_logits: [false],
  guidance_scale: [1],
  return_timestamps: [false],
  language: [],
  task: ['transcribe'],
  prompt_ids: [],
  no_speech_threshold: [],
  logprob_threshold: [],
  compression_ratio_threshold: [],
  condition_on_prev_tokens: [false],
};

/** What to say instead, where there is something. */
const INSTEAD: Readonly<Record<string, string>> = {
  num_beams: 'ask for a beam size',
  length_penalty: 'ask for a length penalty with a beam size',
  return_timestamps: 'ask for timestamps',
  language: 'ask for a language',
  task: 'ask for a task',
  max_new_tokens: 'max_length is followed',
};

/** Whether null, an empty list or object, or one of the values that ask for nothing. */
function asksForNothing(value: unknown, neutral: readonly unknown[]): boolean {
  if (value === undefined || value === null || neutral.includes(value)) return true;
  return typeof value === 'object' && Object.keys(value).length === 0;
}

/**
 * A sentence for each setting of a generation configuration that is not followed and asks for something, with its value.
 * `file` names it.
 */
export function unfollowedSettings(generation: JsonObject, file = 'generation_config.json'): string[] {
  const told: string[] = [];
  const tell = (name: string, instead: string | undefined): void => {
    const advice = instead === undefined ? '' : `; ${instead}`;
    told.push(`${file}: ${name} ${shown(generation[name], 60)} is not followed${advice}`);
  };
  for (const [name, neutral] of Object.entries(NOT_FOLLOWED)) {
    if (!asksForNothing(generation[name], neutral)) tell(name, INSTEAD[name]);
  }
  if (forcesMoreThanAPrompt(generation))
    tell('forced_decoder_ids', 'the language and the task that are asked for count');
  const ends = generation.eos_token_id;
  if (Array.isArray(ends) && ends.length > 1) tell('eos_token_id', 'only <|endoftext|> ends a text');
  return told;
}

/** Whether forced_decoder_ids force anything but what every prompt has: any language, to transcribe, no timestamps. */
function forcesMoreThanAPrompt(generation: JsonObject): boolean {
  const forced = generation.forced_decoder_ids;
  if (asksForNothing(forced, [])) return false;
  if (!Array.isArray(forced)) return true;
  const tasks = generation.task_to_id;
  const usual = [null, isJsonObject(tasks) ? tasks.transcribe : undefined, generation.no_timestamps_token_id];
  // At the first place behind the start stands the language, then the task; without languages they begin with neither.
  const places = generation.is_multilingual === false ? usual.slice(2) : usual;
  return !forced.every(
    (pair) =>
      Array.isArray(pair) &&
      typeof pair[0] === 'number' &&
      places[pair[0] - 1] !== undefined &&
      pair[1] === places[pair[0] - 1],
  );
}
