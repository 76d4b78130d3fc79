export { DEMO_LANGUAGE, type DemoResult, type DemoRow, type DemoSettings, demo, embedded } from './demo.js';
export { type TrainPlan, type TrainRecipe, type TrainResult, train } from './train.js';
