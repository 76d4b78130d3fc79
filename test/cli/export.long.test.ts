/** `distilwhisper export`: what it writes, what it says, what it refuses. */
import { cpSync, existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { WhisperTokenizer } from '../../lib/text/index.js';
import {
  type HostTensor,
  openModelFolder,
  weightEntries,
  writeExpert,
  writeSafetensors,
} from '../../lib/weights/index.js';
import { cli, scratchFolder, writeTinyModel } from '../support/cli.js';
import { randomExpertTensors } from '../support/experts.js';

const { path: scratch, remove } = scratchFolder();
const at = (name: string): string => join(scratch, name);
const read = (name: string) => JSON.parse(readFileSync(at(name), 'utf8'));
test.before(async () => {
  const config = await writeTinyModel(at('tiny'), 1, {}, { generation: { suppress_tokens: [-1], num_beams: 1 } });
  for (const language of ['catalan', 'polish'])
    await writeExpert(at(`${language}.safetensors`), config, language, randomExpertTensors(config, language, 1));
  const other = await writeTinyModel(at('wide'), 1, { d_model: 32 });
  await writeExpert(at('wide.safetensors'), other, 'catalan', randomExpertTensors(other, 'catalan', 1));
});
test.after.always(remove);

test('a folder with its settings: what runtimes look for, and what decoding here follows', async (t) => {
  const args = ['export', at('tiny'), '--onnx', '--expert', at('catalan.safetensors'), '--dtype', 'int8'];
  const { code, stdout, stderr } = await cli([...args, '--output', at('out'), '--json']);
  t.is(code, 0, stderr);
  t.deepEqual(JSON.parse(stdout), {
    output: at('out'),
    expert: 'catalan',
    files: ['onnx/encoder_model_quantized.onnx', 'onnx/decoder_model_merged_quantized.onnx'],
  });
  t.regex(stderr, /with the catalan expert inside; its gates see every row/);
  t.regex(stderr, /writing, MiB 1\/1/);
  const tokenizer = await WhisperTokenizer.fromFolder(at('tiny'));
  const generation = read('out/generation_config.json');
  t.is(generation.is_multilingual, true);
  t.is(generation.lang_to_id['<|ca|>'], tokenizer.languageId('ca'));
  t.deepEqual(generation.task_to_id, { transcribe: tokenizer.transcribe, translate: tokenizer.translate });
  t.is(generation.no_timestamps_token_id, tokenizer.noTimestamps);
  t.is(generation.max_length, 12);
  t.is(generation.num_beams, 1);
  t.true(generation.suppress_tokens.includes(tokenizer.startOfTranscript));
  t.false(generation.suppress_tokens.includes(-1));
  t.deepEqual(read('out/config.json')['transformers.js_config'], { dtype: 'q8' });
  const preprocessor = read('out/preprocessor_config.json');
  t.deepEqual([preprocessor.n_samples, preprocessor.nb_max_frames, preprocessor.feature_size], [80_000, 500, 80]);
  t.is(read('out/tokenizer_config.json').tokenizer_class, 'WhisperTokenizer');
  t.deepEqual(read('out/tokenizer.json'), read('tiny/tokenizer.json'));
  t.deepEqual((await WhisperTokenizer.fromFolder(at('out'))).encode('abc'), tokenizer.encode('abc'));
});

test('experts inside a model folder: the only one, or the one that is asked for', async (t) => {
  const folder = await openModelFolder(at('tiny'));
  const backbone: [string, HostTensor][] = [];
  for (const name of folder.weights.names()) backbone.push([name, await folder.weights.read(name)]);
  await folder.close();
  const withExperts = async (name: string, ...languages: string[]): Promise<void> => {
    cpSync(at('tiny'), at(name), { recursive: true });
    const experts = languages.flatMap((language) => [...randomExpertTensors(folder.config, language, 1)]);
    await writeSafetensors(at(`${name}/model.safetensors`), weightEntries([...backbone, ...experts]));
  };
  await withExperts('one', 'catalan');
  await withExperts('two', 'catalan', 'polish');
  const exported = (from: string, to: string, ...args: string[]) =>
    cli(['export', at(from), '--onnx', '--output', at(to), '--json', ...args]);
  t.is(JSON.parse((await exported('one', 'one-out')).stdout).expert, 'catalan');
  t.is(JSON.parse((await exported('two', 'two-out', '--language', 'pl')).stdout).expert, 'polish');
  const { code, stderr } = await exported('two', 'neither');
  t.is(code, 1);
  t.regex(stderr, /experts for catalan, polish; an export holds one: expected its language/);
  t.regex(
    (await exported('two', 'neither', '--language', 'th')).stderr,
    /expected an expert for thai in it, got catalan, polish/,
  );
  t.false(existsSync(at('neither')));
});

test('what cannot be exported is refused, and nothing is written', async (t) => {
  const refused = async (code: number, message: RegExp, ...args: string[]): Promise<void> => {
    const result = await cli(['export', ...args, '--output', at('refused')]);
    t.is(result.code, code, args.join(' '));
    t.regex(result.stderr, message);
    t.is(result.stdout, '');
    t.false(existsSync(at('refused')));
  };
  await refused(2, /option '--onnx' not specified/, at('tiny'));
  await refused(2, /Expected fp32, int8 or fp32,int8/, at('tiny'), '--onnx', '--dtype', 'fp16');
  await refused(2, /missing required argument 'model'/, '--onnx');
  await refused(1, /There is no model folder/, at('gone'), '--onnx');
  await refused(
    1,
    /is no catalan expert for a model of width 16/,
    at('tiny'),
    '--onnx',
    '--expert',
    at('wide.safetensors'),
  );
  const polish = ['--expert', at('polish.safetensors'), '--language', 'ca'];
  await refused(1, /expected an expert for catalan, got one for polish/, at('tiny'), '--onnx', ...polish);
  const { code, stderr } = await cli(['export', at('tiny'), '--onnx', '--output', at('wide')]);
  t.is(code, 1);
  t.regex(stderr, /wide exists already/);
  t.false(readdirSync(at('wide')).includes('onnx'));
});

test('Ctrl-C leaves nothing behind', async (t) => {
  const config = { d_model: 256, encoder_ffn_dim: 4096, decoder_ffn_dim: 4096, encoder_layers: 6, decoder_layers: 6 };
  await writeTinyModel(at('larger'), 1, config);
  const { code, stderr } = await cli(
    ['export', at('larger'), '--onnx', '--dtype', 'fp32,int8', '--output', at('stopped')],
    {
      onStderr: (text, kill) => {
        if (/writing/.test(text) && !/stopping/.test(text)) kill('SIGINT');
      },
    },
  );
  t.is(code, 130, stderr);
  t.deepEqual(
    readdirSync(scratch).filter((name) => name.startsWith('stopped')),
    [],
  );
  rmSync(at('larger'), { recursive: true });
});
