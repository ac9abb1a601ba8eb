/** Documents made from the sources, so that they cannot rot: path → how it is made. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { ERROR_CODES } from '../src/model/errors.ts';

const GENERATED = '<!-- Made by `npm run docs`; edit its source instead. -->';

export const DOCUMENTS: Readonly<Record<string, () => string>> = {
  'docs/errors.md': errors,
  'bench/RESULTS.md': results,
};

function errors(): string {
  const rows = Object.entries(ERROR_CODES).map(([code, text]) => `| \`${code}\` | ${text} |`);
  return `${GENERATED}

# Errors

Every failure is a \`HoldfastError\`. Its \`code\` is one of the table below and stays the same across
versions; its \`message\` is for people and may change. \`HoldfastError.is(error, code)\` also works
when two copies of the package are loaded.

\`outcome\` says whether the operation may have happened: \`rejected\` means nothing changed,
\`unknown\` that the answer was lost, so ask before doing it again. The recipes ask by themselves.

| code | meaning |
|---|---|
${rows.join('\n')}
`;
}

/** One file for each comparison, as its program was last measured. */
function results(): string {
  const folder = 'bench/results';
  const files = existsSync(folder) ? readdirSync(folder).filter((f) => f.endsWith('.md')) : [];
  const parts = files.sort().map((file) => readFileSync(`${folder}/${file}`, 'utf8').trim());
  return `${GENERATED}

# Measured

Each section holds the command that produced it. Figures of one section come from one run on one
machine and are to be read against each other; other machines give other figures and, we expect,
similar ratios.

${parts.length > 0 ? parts.join('\n\n') : 'Nothing has been measured yet.'}
`;
}
