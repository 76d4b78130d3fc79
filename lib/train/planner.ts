/** What a training step takes in memory and work, counted on a stream that plans: nothing is computed, and no weight is read. */
import type { Whisper } from '../model/index.js';
import { countWork } from '../profile/index.js';
import { Stream } from '../tensor/index.js';
import type { TrainBatch } from './batch.js';
import type { TrainingOptions } from './options.js';
import { TrainingEngine } from './step.js';
import type { Teacher } from './teacher.js';

/** Bytes of the device that a step needs, and of the files whose pages it reads. */
export interface StepMemory {
  /** The student's own parameters. */
  student: number;
  /** Gradients and moments of those that train. */
  training: number;
  teacher: number;
  /** What an update makes: activations, gradients, features. */
  step: number;
  /** Frozen weights in the order that products read them. */
  packed: number;
  /** Scratch memory of kernels. */
  scratch: number;
  /** Weights that are mapped files: resident, and given back by the system where memory is short. */
  files: number;
}

/** Of a batch: its items, all of one language, and the labels of its longest. */
export interface BatchShape {
  items: number;
  labels: number;
  language: string | null;
}

export interface StepCost {
  memory: StepMemory;
  /** Products of one update, a multiply and an add counted as two. */
  flop: number;
}

/** The models of a step on the planning stream. */
export interface PlannedModels {
  student: Whisper;
  teacher: Teacher | Whisper | null;
  dispose(): void;
}

/** How a batch is run. */
export interface HowToRun {
  /** Items that run at once. */
  microBatch: number;
  gradientCheckpointing: boolean;
}

/** A stream that plans for `like`. */
export function planStream(like: Stream): Stream {
  const isa = like.isa === 'cuda' || like.isa === 'oracle' ? undefined : like.isa;
  return new Stream({ backend: 'plan', threads: like.threads, isa, label: 'plan' });
}

/** Plans updates of one pair of models in one type. Plan the smaller ones first: memory of a step only grows. */
export class StepPlanner {
  private constructor(
    private readonly stream: Stream,
    private readonly models: PlannedModels,
    private readonly student: number,
    private readonly teacher: number,
  ) {}

  /** `like`: the stream that shall run it. Errors: those of loading the models. */
  static async open(
    like: Stream,
    load: {
      student(stream: Stream): Promise<Whisper>;
      teacher(stream: Stream, student: Whisper): Promise<Omit<PlannedModels, 'student'>>;
    },
  ): Promise<StepPlanner> {
    const stream = planStream(like);
    try {
      const student = await load.student(stream);
      const alone = stream.memory().persistent;
      const { teacher, dispose } = await load.teacher(stream, student);
      return new StepPlanner(stream, { student, teacher, dispose }, alone, stream.memory().persistent - alone);
    } catch (error) {
      stream.close();
      throw error;
    }
  }

  /** One update of a batch of this shape. */
  async plan(shape: BatchShape, options: TrainingOptions, how: HowToRun): Promise<StepCost> {
    const { stream, models } = this;
    const { config } = models.student;
    const feature = new Float32Array(config.num_mel_bins * 2 * config.max_source_positions);
    const items = Math.min(shape.items, how.microBatch);
    const fill = <T>(value: T): T[] => Array.from({ length: items }, () => value);
    const labels = Array.from({ length: shape.labels }, () => 0);
    const batch: TrainBatch = { features: fill(feature), labels: fill(labels), languages: fill(shape.language) };
    const engine = new TrainingEngine(models.student, models.teacher, options, {
      gradientCheckpointing: how.gradientCheckpointing,
    });
    try {
      const { flop } = await countWork(stream, async () => {
        await engine.update(0, [batch]);
      });
      const { persistent, stepReserved: step, packed, scratch, mapped: files } = stream.memory();
      const gradients = models.student.trainable().reduce((sum, { size }) => sum + 4 * size, 0);
      const [student, teacher] = [this.student - gradients, this.teacher];
      const memory = { student, training: persistent - student - teacher, teacher, step, packed, scratch, files };
      return { memory, flop: (flop * shape.items * options.accumulation) / items };
    } finally {
      engine.dispose();
    }
  }

  close(): void {
    this.models.dispose();
    this.models.student.dispose();
    this.stream.close();
  }
}
