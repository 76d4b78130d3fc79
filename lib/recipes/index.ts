export {
  DEMO_EPOCHS,
  DEMO_LANGUAGE,
  DEMO_OPTIONS,
  type DemoResult,
  type DemoRow,
  type DemoSettings,
  type DemoStage,
  demo,
  embedded,
  formatDemo,
} from './demo.js';
export { recipeDefaults, type TrainMethod, type TrainPlan, type TrainRecipe, type TrainResult } from './recipe.js';
export { train } from './train.js';
