/** `NAME --long --guard redis` → words and options; an option's value is the next bare word. */
export interface Arguments {
  readonly words: readonly string[];
  readonly options: Readonly<Record<string, string | true>>;
}

/** Options that never take a value, so that a bare word after them is a word. */
const FLAGS = new Set(['long', 'quick', 'json', 'list']);

export function parseArguments(args: readonly string[]): Arguments {
  const words: string[] = [];
  const options: Record<string, string | true> = {};
  for (let i = 0; i < args.length; i++) {
    const word = args[i]!;
    if (!word.startsWith('--')) {
      words.push(word);
      continue;
    }
    const [, name = '', given] = /^--([^=]*)(?:=(.*))?$/s.exec(word)!;
    const next = args[i + 1];
    if (given !== undefined) options[name] = given;
    else if (!FLAGS.has(name) && next !== undefined && !next.startsWith('--')) {
      options[name] = next;
      i++;
    } else options[name] = true;
  }
  return { words, options };
}
