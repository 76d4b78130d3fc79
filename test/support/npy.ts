/** Reads NumPy's .npy files of the golden cases: little-endian float32 or int16, C order. */
import { readFileSync } from 'node:fs';

export function readNpy(file: string | URL): { data: Float32Array; shape: number[] } {
  const bytes = readFileSync(file);
  const start = 10 + bytes.readUInt16LE(8);
  const header = bytes.toString('latin1', 10, start);
  const shape = /'shape': \(([^)]*)\)/
    .exec(header)![1]!
    .split(',')
    .filter((s) => s.trim() !== '');
  const body = bytes.subarray(start);
  const data = header.includes("'<i2'")
    ? Float32Array.from({ length: body.length / 2 }, (_, i) => body.readInt16LE(2 * i) / 32768)
    : Float32Array.from({ length: body.length / 4 }, (_, i) => body.readFloatLE(4 * i));
  return { data, shape: shape.map(Number) };
}
