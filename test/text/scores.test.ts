/** BLEU and chrF against what sacrebleu 2.6 was recorded to say (golden case 15). */
import test from 'ava';
import { type BleuOptions, bleu, type ChrfOptions, chrf } from '../../lib/text/index.js';
import { goldenJson } from '../support/golden.js';

interface Case {
  name: string;
  hypotheses: string[];
  /** Of each reference its texts, one a hypothesis. */
  references: string[][];
  bleu: Record<string, Record<string, unknown> & { score: number; signature: string }>;
  chrf: Record<string, { score: number; signature: string }>;
  sentence: { bleu: number; chrf2pp: number }[];
}

const BLEU: Record<string, BleuOptions> = {
  '13a': {},
  intl: { tokenizer: 'intl' },
  char: { tokenizer: 'char' },
  zh: { tokenizer: 'zh' },
  none: { tokenizer: 'none' },
  '13a_lc': { lowercase: true },
  '13a_add-k': { smoothing: 'add-k' },
  '13a_floor': { smoothing: 'floor' },
  '13a_no_smoothing': { smoothing: 'none' },
  '13a_eff': { effectiveOrder: true },
};
const CHRF: Record<string, ChrfOptions> = {
  chrF2: {},
  'chrF2++': { words: 2 },
  chrF3: { beta: 3 },
  chrF2_lc: { lowercase: true },
  chrF2_whitespace: { whitespace: true },
  chrF2_eps: { epsilon: true },
};

test('scores, counts and signatures are those that sacrebleu gave', (t) => {
  const { cases } = goldenJson('case15_scores/scores') as { cases: Case[] };
  const near = (got: number, want: number, what: string): void => {
    t.true(Math.abs(got - want) <= 1e-6, `${what}: ${got}, recorded ${want}`);
  };
  for (const { name, hypotheses, references, ...wanted } of cases) {
    const pairs = hypotheses.map((_, i) => references.map((texts) => texts[i]!));
    for (const [kind, want] of Object.entries(wanted.bleu)) {
      const got = bleu(pairs, hypotheses, BLEU[kind]!);
      const what = `${name}, BLEU ${kind}`;
      near(got.score, want.score, what);
      near(got.brevityPenalty, want.bp as number, `${what}, brevity`);
      t.deepEqual([got.counts, got.totals], [want.counts, want.totals], what);
      for (const [n, p] of (want.precisions as number[]).entries()) near(got.precisions[n]!, p, `${what}, precision`);
      t.deepEqual([got.hypothesisLength, got.referenceLength], [want.sys_len, want.ref_len], what);
      t.is(got.signature, want.signature, what);
    }
    for (const [kind, want] of Object.entries(wanted.chrf)) {
      const got = chrf(pairs, hypotheses, CHRF[kind]!);
      near(got.score, want.score, `${name}, ${kind}`);
      t.is(got.signature, want.signature);
    }
    for (const [i, want] of wanted.sentence.entries()) {
      const [pair, said] = [[pairs[i]!], [hypotheses[i]!]];
      near(bleu(pair, said, { effectiveOrder: true }).score, want.bleu, `${name}, BLEU of sentence ${i}`);
      near(chrf(pair, said, { words: 2 }).score, want.chrf2pp, `${name}, chrF++ of sentence ${i}`);
    }
  }
  t.true(cases.length > 20);
});

test('BLEU and chrF by hand', (t) => {
  const { score, precisions, brevityPenalty } = bleu(['the cat sat on the mat'], ['the cat sat on a mat']);
  t.is(brevityPenalty, 1);
  t.deepEqual(precisions, [(100 * 5) / 6, (100 * 3) / 5, (100 * 2) / 4, (100 * 1) / 3]);
  t.true(Math.abs(score - 100 * (((5 / 6) * (3 / 5) * (2 / 4)) / 3) ** 0.25) < 1e-9);
  // Of characters: 2 of 3 and 2 of 3; of pairs 1 of 2; no triple.
  const p = (2 / 3 + 1 / 2 + 0) / 3;
  t.true(Math.abs(chrf(['abc'], ['abd']).score - 100 * p) < 1e-9);
});

test('what cannot be scored is refused', (t) => {
  const refused = (body: () => unknown, message: RegExp): void => {
    t.throws(body, { code: 'ERR_ARGUMENT', message });
  };
  for (const score of [bleu, chrf]) {
    refused(() => score([], []), /one at least, got 0 and 0/);
    refused(() => score(['a'], ['a', 'b']), /got 1 and 2/);
    refused(() => score([[]], ['a']), /references\[0\]: expected a text or several/);
    refused(() => score([3 as never], ['a']), /row 0: expected texts, got number/);
    refused(() => score(['a'], ['a'], { lowercas: true } as never), /lowercase/);
  }
  refused(() => bleu(['a'], ['a'], { tokenizer: 'spm' as never }), /tokenizer: expected one of 13a, intl/);
  refused(() => bleu(['a'], ['a'], { smoothingValue: -1 }), /smoothingValue: expected a number from 0/);
  refused(() => chrf(['a'], ['a'], { characters: 0 }), /characters: expected a whole number from 1/);
  refused(() => chrf(['a'], ['a'], { beta: 0 }), /beta/);
});
