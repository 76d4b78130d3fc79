/** How arguments are written for the addon. */
import { dtypeNumber, type FloatType, type Tensor } from '../tensor.js';

/** Types of products and results; f64 on the oracles only. */
export type Float = FloatType | 'f64';
/** A tensor that may be left out. */
export type Optional = Tensor | null | undefined;

export const on = (flag: boolean | undefined): number => (flag ? 1 : 0);
export const type = dtypeNumber;
