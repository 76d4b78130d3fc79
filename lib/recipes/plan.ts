/** What a run will take, before it begins, and how its batches are run so that it fits. */
import { DistilWhisperError } from '../errors/index.js';
import { loadOutputTable, Whisper } from '../model/index.js';
import { availableMemory } from '../native/index.js';
import { elementType, type FloatName, type Stream } from '../tensor/index.js';
import {
  type AudioBatches,
  type HowToRun,
  lossWorkspace,
  noTeacher,
  type PlannedModels,
  type StepCost,
  StepPlanner,
  type TrainingOptions,
} from '../train/index.js';
import { type HostTensor, type ModelFolder, whisperTensorShapes } from '../weights/index.js';
import { typesOf } from './checks.js';
import { type Method, methods, type Preparation } from './method.js';
import {
  type BatchPlan,
  gibibytes,
  type MemoryPlan,
  recipeDefaults,
  type TeacherKind,
  type TrainRecipe,
} from './recipe.js';
import type { ChosenTeacher } from './teacher.js';

/** Share of the memory that is left alone where a plan is free to choose: its numbers hold within a tenth. */
const LEFT = 0.1;
/** A thread that decodes audio: its heap and its decoders. */
const DECODER_BYTES = 40 << 20;
/** Batches whose features are on their way: those ahead of the step, and those of the updates that are queued. */
const AHEAD = 4;
const QUEUED_UPDATES = 2;

/** What a plan is made of. */
export interface Planned {
  recipe: TrainRecipe;
  folder: ModelFolder;
  teacher: ChosenTeacher;
  /** Which parameters of the backbone train, by name; undefined: none. */
  trainable: Method['trainable'];
  batches: AudioBatches;
  options: TrainingOptions;
  preparation: Preparation;
  /** Utterances of a batch. */
  batchSize: number;
  stream: Stream;
  /** What the run in the folder chose when it began: it goes on with that. */
  before: { compute: FloatName; microBatch: number } | null;
}

/** How a run is run, and what that takes. */
export interface RunPlan {
  batch: BatchPlan;
  memory: MemoryPlan;
  /** Products of an update: as it is run, and with the teacher's rows in a cache. */
  flop: { now: number; cached: number };
}

interface Room {
  bytes: number;
  what: string;
}

/**
 * Chooses how batches are run: as the recipe says, or, where it leaves that open, the first way that fits: whole batches, smaller and
 * smaller parts of them, the same with layers run again in the backward pass, and all that in bf16. Errors: ERR_MEMORY where no way
 * fits.
 */
export async function planRun(planned: Planned): Promise<RunPlan> {
  const { recipe, batchSize, before } = planned;
  const isFree = (recipe.batchSize ?? 'auto') === 'auto';
  const given = typesOf(recipe).compute ?? before?.compute;
  const types: FloatName[] = given ? [given] : isFree ? ['fp32', 'bf16'] : [recipeDefaults.compute];
  // The published code's divergence is a mean over padding too, which parts have less of.
  const isWhole = !isFree || planned.options.compat === 'reference';
  const sizes = before ? [before.microBatch] : isWhole ? [batchSize] : halves(batchSize);
  const again =
    recipe.gradientCheckpointing === undefined ? (isFree ? [false, true] : [false]) : [recipe.gradientCheckpointing];
  const room = roomOf(planned);
  const fits = ({ total, base }: MemoryPlan): boolean => total - base <= room.bytes * (isFree ? 1 - LEFT : 1);
  let least: MemoryPlan | null = null;
  for (const compute of types) {
    for (const gradientCheckpointing of again) {
      let best: RunPlan | null = null;
      const planner = await openPlanner(planned, compute, planned.teacher.kind);
      try {
        for (const microBatch of sizes) {
          const how = { microBatch, gradientCheckpointing };
          const cost = await planOne(planner, planned, how);
          const memory = memoryOf(planned, cost, room);
          if (!least || memory.total < least.total) least = memory;
          if (!fits(memory)) break;
          const batch = { size: batchSize, ...how, compute, chosen: isFree };
          best = { batch, memory, flop: { now: cost.flop, cached: cost.flop } };
        }
      } finally {
        planner.close();
      }
      if (best) return { ...best, flop: { ...best.flop, cached: await cachedFlop(planned, best) } };
    }
  }
  throw new DistilWhisperError('ERR_MEMORY', refusal(least!, room, isFree));
}

/** What a plan says to people of bytes that do not fit. */
function refusal(least: MemoryPlan, room: Room, isFree: boolean): string {
  const needed = `${isFree ? 'at least ' : ''}${gibibytes(least.total - least.base)}`;
  const parts = memoryParts(least).map(([name, bytes]) => `${name} ${gibibytes(bytes)}`);
  const advice = isFree
    ? 'a smaller model or teacher, a teacher cache (--teacher-cache) or a teacher stored in bf16 takes less'
    : '--batch-size auto runs batches in parts that fit, --gradient-checkpointing and --compute-type bf16 take less';
  return `memory: the run needs ${needed} (${parts.join(', ')}), and ${gibibytes(room.bytes)} is there (${room.what}); ${advice}`;
}

/** The parts of a memory plan's total that are not nothing, the largest first, by name. */
export function memoryParts(memory: MemoryPlan): [name: string, bytes: number][] {
  const { student, training, teacher, step, packed, scratch, features } = memory;
  const parts: [string, number][] = [
    ['student', student],
    ['gradients and moments', training],
    ['teacher', teacher],
    ['a step', step],
    ['packed weights', packed],
    ['scratch', scratch],
    ['features', features],
  ];
  return parts.filter(([, bytes]) => bytes >= 1 << 20).sort((a, b) => b[1] - a[1]);
}

/** 1, then twice that and so on up to n: memory of a step only grows. */
function halves(n: number): number[] {
  const all = [n];
  while (all[0]! > 1) all.unshift(Math.ceil(all[0]! / 2));
  return all;
}

/** What may be taken: of the device that it runs on, or, said by the recipe, of any. */
export function roomOf({ recipe, stream }: { recipe: Pick<TrainRecipe, 'maxMemory'>; stream: Stream }): Room {
  if (recipe.maxMemory !== undefined) return { bytes: recipe.maxMemory, what: 'as --max-memory says' };
  const { deviceAvailable } = stream.memory();
  if (deviceAvailable !== undefined) return { bytes: deviceAvailable, what: `free on ${stream.device}` };
  const { bytes, limit } = availableMemory();
  return { bytes, what: limit };
}

function memoryOf(
  { batches, stream, batchSize, options, teacher: { graphBytes } }: Planned,
  { memory }: StepCost,
  room: Room,
): MemoryPlan {
  const { student, training, step, files } = memory;
  const teacher = memory.teacher + graphBytes;
  if (stream.device !== 'cpu') {
    const scratch = lossWorkspace(stream.device, options.workspace);
    const total = student + training + teacher + step + scratch + files;
    return {
      student,
      training,
      teacher,
      step,
      packed: 0,
      scratch,
      features: 0,
      files,
      base: 0,
      total,
      room: room.bytes,
    };
  }
  const batch = batchSize * batches.itemBytes;
  const onTheWay = (AHEAD + QUEUED_UPDATES * options.accumulation) * batch;
  const features = batches.cachedBytes + onTheWay + DECODER_BYTES;
  const base = process.memoryUsage.rss();
  const { packed, scratch } = memory;
  // Mapped files are left out: the system takes their pages back before it lacks memory.
  const total = base + student + training + teacher + step + packed + scratch + features;
  return { ...memory, teacher, features, base, total, room: room.bytes };
}

/** Plans the largest batch of the run: as many utterances as there are, with the most labels. */
function planOne(
  planner: StepPlanner,
  { batches, batchSize, preparation, options }: Planned,
  how: HowToRun,
): Promise<StepCost> {
  const shape = {
    items: Math.min(batchSize, batches.length),
    labels: longest(batches),
    language: preparation.languages[0] ?? null,
  };
  return planner.plan(shape, options, how);
}

/** The most labels of an utterance. */
export function longest(batches: AudioBatches): number {
  let most = 1;
  for (let i = 0; i < batches.length; i++) most = Math.max(most, batches.labelCount(i));
  return most;
}

/** Products of an update whose teacher's rows are in a cache. */
async function cachedFlop(planned: Planned, { batch, flop }: RunPlan): Promise<number> {
  if (planned.teacher.kind !== 'live' && planned.teacher.kind !== 'filling') return flop.now;
  const planner = await openPlanner(planned, batch.compute, 'cached');
  try {
    return (await planOne(planner, planned, batch)).flop;
  } finally {
    planner.close();
  }
}

function openPlanner(
  { recipe, folder, teacher, trainable, preparation, stream }: Planned,
  compute: FloatName,
  kind: TeacherKind,
): Promise<StepPlanner> {
  const { method: name = recipeDefaults.method, copyWeights = false } = recipe;
  const method = methods[name];
  return StepPlanner.open(stream, {
    student: async (on) => {
      const settings = { compute, copyWeights, trainable };
      const student = recipe.fromScratch
        ? Whisper.fromTensors(on, folder.config, zeros(folder.config), settings)
        : await Whisper.fromFolder(on, folder, settings);
      await method.prepare(student, preparation);
      return student;
    },
    teacher: (on) => plannedTeacher(on, teacher, kind, { compute, copyWeights }),
  });
}

async function plannedTeacher(
  stream: Stream,
  { config, folder }: ChosenTeacher,
  kind: TeacherKind,
  options: { compute: FloatName; copyWeights: boolean },
): Promise<Omit<PlannedModels, 'student'>> {
  if (!config) return { teacher: null, dispose: () => {} };
  if (kind === 'unheard') return { teacher: noTeacher(config), dispose: () => {} };
  if (!folder) {
    const head = stream.persistent(null, [config.vocab_size, config.d_model], elementType(options.compute));
    const teach = (_: unknown, ids: { size: number }) => ({
      rows: stream.tensor(new Float32Array(ids.size * config.d_model), [ids.size, config.d_model]),
      head,
    });
    return { teacher: { config, teach }, dispose: () => head.dispose() };
  }
  if (kind !== 'cached') {
    const live = await Whisper.fromFolder(stream, folder, options);
    return { teacher: live, dispose: () => live.dispose() };
  }
  const head = await loadOutputTable(stream, folder, options);
  const rows = (size: number) => stream.tensor(new Uint16Array(size * config.d_model), [size, config.d_model], 'bf16');
  const teach = (_: unknown, ids: { size: number }) => ({ rows: rows(ids.size), head: head.value });
  return { teacher: { config, teach }, dispose: () => head.dispose() };
}

/** Weights that nobody reads: all of them the same zeros. */
function zeros(config: ModelFolder['config']): Map<string, HostTensor> {
  const shapes = [...whisperTensorShapes(config)];
  const bytes = (shape: readonly number[]): number => 4 * shape.reduce((a, b) => a * b, 1);
  const data = new Uint8Array(Math.max(...shapes.map(([, shape]) => bytes(shape))));
  return new Map(shapes.map(([name, shape]) => [name, { dtype: 'f32', shape, data: data.subarray(0, bytes(shape)) }]));
}
