import type { WhisperTokenizer } from './tokenizer.js';

const marks = [...'"#()*+/:;<=>@[\\]^_`{|}~「」『』'];
const groups = '<< >> <<< >>> -- --- -( -[ (\' (" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪'.split(' ');
const music = [...'♩♪♫♬♭♮♯'];

/**
 * Ids that transcripts of speech do not hold (brackets, music, list dashes …), ascending, as openai/whisper finds them.
 * A mark counts when it is one token, with or without a space before; of music signs the first byte token counts.
 */
export function nonSpeechTokens(tokenizer: WhisperTokenizer): number[] {
  const space = tokenizer.encode(' ')[0];
  const found = new Set<number>();
  const add = (text: string, firstOfMany: boolean): void => {
    const [first, ...rest] = tokenizer.encode(text);
    if (first !== undefined && first !== space && (rest.length === 0 || firstOfMany)) found.add(first);
  };
  for (const text of [' -', " '"]) add(text, true);
  for (const text of [...marks, ...groups]) for (const lead of ['', ' ']) add(lead + text, false);
  for (const text of music) for (const lead of ['', ' ']) add(lead + text, true);
  return [...found].sort((a, b) => a - b);
}

/** openai/whisper's default suppression while decoding: non-speech tokens, start, tasks and the markers that are never text. */
export function suppressTokens(tokenizer: WhisperTokenizer): number[] {
  const names = ['startoftranscript', 'translate', 'transcribe', 'startoflm', 'startofprev', 'nospeech', 'nocaptions'];
  const special = names.map((name) => `<|${name}|>`).filter((token) => tokenizer.has(token));
  const ids = [...nonSpeechTokens(tokenizer), ...special.map((token) => tokenizer.id(token))];
  return ids.sort((a, b) => a - b);
}

/** Ids that must not come first, so that no transcript is blank: the space and the end. */
export function suppressAtBegin(tokenizer: WhisperTokenizer): number[] {
  return [...tokenizer.encode(' '), tokenizer.endOfText];
}
