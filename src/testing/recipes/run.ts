/** Registers the recipe suite with a test framework, or runs one case. */
import type { Framework } from '../conformance/run.ts';
import { recipeCases } from './cases.ts';
import { type OpenStage, type RecipeCase, World } from './world.ts';

export async function runRecipeCase(one: RecipeCase, open: OpenStage): Promise<void> {
  const world = new World(await open());
  try {
    await one.run(world);
  } finally {
    await world.dispose();
  }
}

export interface RecipeSuiteOptions {
  readonly name: string;
  readonly open: OpenStage;
  /** Names of cases this engine cannot pass, with the reason. */
  readonly skip?: Readonly<Record<string, string>>;
}

export function runRecipes(framework: Framework, options: RecipeSuiteOptions): void {
  const cases = recipeCases();
  const { skip = {} } = options;
  for (const name of Object.keys(skip)) {
    if (!cases.some((one) => one.name === name)) throw new Error(`no case is named "${name}"`);
  }
  framework.describe(`recipes on ${options.name}`, () => {
    for (const group of new Set(cases.map((one) => one.group))) {
      framework.describe(group, () => {
        for (const one of cases.filter((member) => member.group === group)) {
          const reason = skip[one.name];
          if (reason) framework.it.skip(`${one.name} (${reason})`, async () => {});
          else framework.it(one.name, () => runRecipeCase(one, options.open));
        }
      });
    }
  });
}
