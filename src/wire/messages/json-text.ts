/**
 * JSON text as data, for input that nobody vouches for.
 *
 * Not `JSON.parse`: that rounds the 64-bit numbers some clients send, gives objects whose keys may
 * be `__proto__`, and has no bound on depth. Here numbers keep their text and objects are Maps.
 */
import type { Bytes } from '../../base/bytes.ts';
import { HoldfastError } from '../../model/errors.ts';

/** A number as it was written. */
export class JsonNumber {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

export type JsonValue =
  | null
  | boolean
  | string
  | JsonNumber
  | readonly JsonValue[]
  | ReadonlyMap<string, JsonValue>;

export const JSON_DEPTH_MAX = 100;

function malformed(problem: string, at: number): HoldfastError {
  return new HoldfastError('invalid-argument', `malformed JSON: ${problem} at ${at}`);
}

const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
/** A run of characters that stand for themselves. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: JSON forbids exactly these in strings
const PLAIN = /[^"\\\x00-\x1f]*/y;
const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  '\\': '\\',
  '/': '/',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
};

/** Reads one value and refuses anything behind it. Throws `invalid-argument`. */
export function parseJson(text: string): JsonValue {
  const parser = new Parser(text);
  const value = parser.value(0);
  parser.expectEnd();
  return value;
}

class Parser {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  value(depth: number): JsonValue {
    if (depth > JSON_DEPTH_MAX) throw malformed(`nested deeper than ${JSON_DEPTH_MAX}`, this.#at);
    switch (this.#peek()) {
      case '{':
        return this.#object(depth);
      case '[':
        return this.#array(depth);
      case '"':
        return this.#string();
      case 't':
        return this.#word('true', true);
      case 'f':
        return this.#word('false', false);
      case 'n':
        return this.#word('null', null);
      default:
        return this.#number();
    }
  }

  expectEnd(): void {
    if (this.#peek() !== undefined) throw malformed('something behind the value', this.#at);
  }

  /** The next character that is no white space, not yet consumed. */
  #peek(): string | undefined {
    for (;;) {
      const character = this.#text[this.#at];
      if (character !== ' ' && character !== '\n' && character !== '\r' && character !== '\t') {
        return character;
      }
      this.#at++;
    }
  }

  #take(character: string): void {
    if (this.#peek() !== character) throw malformed(`expected ${character}`, this.#at);
    this.#at++;
  }

  /** Consumes a comma and answers true, or the closing character and answers false. */
  #more(close: string): boolean {
    const character = this.#peek();
    if (character !== ',' && character !== close) {
      throw malformed(`expected , or ${close}`, this.#at);
    }
    this.#at++;
    return character === ',';
  }

  #object(depth: number): JsonValue {
    this.#take('{');
    const object = new Map<string, JsonValue>();
    if (this.#peek() === '}') {
      this.#at++;
      return object;
    }
    do {
      if (this.#peek() !== '"') throw malformed('expected a name', this.#at);
      const name = this.#string();
      this.#take(':');
      object.set(name, this.value(depth + 1));
    } while (this.#more('}'));
    return object;
  }

  #array(depth: number): JsonValue {
    this.#take('[');
    const array: JsonValue[] = [];
    if (this.#peek() === ']') {
      this.#at++;
      return array;
    }
    do array.push(this.value(depth + 1));
    while (this.#more(']'));
    return array;
  }

  #word<T extends boolean | null>(word: string, value: T): T {
    if (!this.#text.startsWith(word, this.#at)) throw malformed('an unknown word', this.#at);
    this.#at += word.length;
    return value;
  }

  #number(): JsonNumber {
    NUMBER.lastIndex = this.#at;
    const found = NUMBER.exec(this.#text)?.[0];
    if (!found) throw malformed('expected a value', this.#at);
    this.#at += found.length;
    return new JsonNumber(found);
  }

  #string(): string {
    this.#at++;
    let out = '';
    for (;;) {
      PLAIN.lastIndex = this.#at;
      const run = PLAIN.exec(this.#text)?.[0] ?? '';
      out += run;
      this.#at += run.length;
      const character = this.#text[this.#at];
      if (character === undefined) throw malformed('a string without end', this.#at);
      this.#at++;
      if (character === '"') return out;
      if (character !== '\\') throw malformed('a control character in a string', this.#at - 1);
      out += this.#escape();
    }
  }

  #escape(): string {
    const letter = this.#text[this.#at++];
    if (letter === 'u') {
      const digits = this.#text.slice(this.#at, this.#at + 4);
      if (!/^[0-9a-fA-F]{4}$/.test(digits)) throw malformed('a wrong \\u escape', this.#at);
      this.#at += 4;
      return String.fromCharCode(Number.parseInt(digits, 16));
    }
    const plain = letter === undefined ? undefined : ESCAPES[letter];
    if (plain === undefined) throw malformed('an unknown escape', this.#at);
    return plain;
  }
}

const strictDecoder = new TextDecoder('utf-8', { fatal: true });

/** Bytes as text, or `invalid-argument`. */
export function jsonText(bytes: Bytes): string {
  try {
    return strictDecoder.decode(bytes);
  } catch {
    throw new HoldfastError('invalid-argument', 'malformed JSON: not UTF-8');
  }
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN = 0x7b;
const CLOSE = 0x7d;

/**
 * Cuts a stream of JSON objects, as the body of a streaming call brings them, into one text per
 * object. Works on bytes, so a character cut in two is no problem; any cutting gives the same.
 */
export class JsonObjects {
  readonly #bytesMax: number;
  #held: Bytes = new Uint8Array(0);
  #heldLength = 0;
  #depth = 0;
  #inString = false;
  #escaped = false;

  /** `bytesMax`: the longest object. */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** The objects that this chunk completes. Throws `invalid-argument`, `request-too-large`. */
  feed(chunk: Bytes): string[] {
    const objects: string[] = [];
    let start = 0;
    for (let i = 0; i < chunk.length; i++) {
      const byte = chunk[i]!;
      if (this.#depth === 0) {
        if (byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09) continue;
        if (byte !== OPEN) throw new HoldfastError('invalid-argument', 'expected a JSON object');
        this.#depth = 1;
        start = i;
      } else if (this.#closes(byte)) {
        this.#hold(chunk.subarray(start, i + 1));
        objects.push(jsonText(this.#held.subarray(0, this.#heldLength)));
        this.#heldLength = 0;
      }
    }
    if (this.#depth > 0) this.#hold(chunk.subarray(start));
    return objects;
  }

  /** The body has ended; throws when it ended inside an object. */
  end(): void {
    if (this.#depth > 0) throw new HoldfastError('invalid-argument', 'a JSON object without end');
  }

  /** Takes a byte inside an object; true when it is the object's last. */
  #closes(byte: number): boolean {
    if (this.#inString) {
      if (this.#escaped) this.#escaped = false;
      else if (byte === BACKSLASH) this.#escaped = true;
      else if (byte === QUOTE) this.#inString = false;
      return false;
    }
    if (byte === QUOTE) this.#inString = true;
    else if (byte === OPEN) this.#depth++;
    else if (byte === CLOSE) this.#depth--;
    return this.#depth === 0;
  }

  #hold(piece: Bytes): void {
    const length = this.#heldLength + piece.length;
    if (length > this.#bytesMax) {
      throw new HoldfastError('request-too-large', `a JSON object above ${this.#bytesMax} bytes`);
    }
    if (length > this.#held.length) {
      const larger = new Uint8Array(Math.max(1_024, length * 2));
      larger.set(this.#held.subarray(0, this.#heldLength));
      this.#held = larger;
    }
    this.#held.set(piece, this.#heldLength);
    this.#heldLength = length;
  }
}
