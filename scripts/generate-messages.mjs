/**
 * `npm run generate`: turns src/wire/messages/proto/*.proto into src/wire/messages/gen/*.ts.
 *
 * Understands the part of proto3 those files use: messages and enums (nested too), oneof, repeated,
 * services, the option jstype, and two comments: "since X.Y" and "@json PATH" above an rpc.
 * The result is straight-line code per message, for engines that compile it once.
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', 'src', 'wire', 'messages');

// ─── parsing ───────────────────────────────────────────────────────────────────────────────────

function tokens(text) {
  const found = [];
  const pattern = /\/\/[^\n]*|"[^"]*"|[\w.]+|[{}()=;[\],]/g;
  for (const [token] of text.matchAll(pattern)) found.push(token);
  return found;
}

export function parseProto(text) {
  const all = tokens(text);
  let at = 0;
  let comments = [];
  const next = () => {
    while (all[at]?.startsWith('//')) comments.push(all[at++].slice(2).trim());
    if (at >= all.length) throw new Error('the file ends too early');
    return all[at++];
  };
  const peek = () => {
    let i = at;
    while (all[i]?.startsWith('//')) i++;
    return all[i];
  };
  const expect = (token) => {
    const got = next();
    if (got !== token) throw new Error(`expected ${token}, got ${got}`);
  };
  const file = { package: '', imports: [], messages: [], enums: [], services: [] };

  const parseEnum = (parent) => {
    const name = next();
    const values = [];
    expect('{');
    while (peek() !== '}') {
      const key = next();
      expect('=');
      values.push([key, Number(next())]);
      expect(';');
    }
    expect('}');
    file.enums.push({ name, parent, values });
  };

  const parseField = (first, oneof) => {
    const repeated = first === 'repeated';
    const type = repeated ? next() : first;
    const name = next();
    expect('=');
    const number = Number(next());
    let asNumber = false;
    if (peek() === '[') {
      expect('[');
      expect('jstype');
      expect('=');
      asNumber = next() === 'JS_NUMBER';
      expect(']');
    }
    expect(';');
    return { name, number, type, repeated, oneof, asNumber };
  };

  const parseMessage = (parent) => {
    const name = next();
    const message = { name, parent, fields: [] };
    file.messages.push(message);
    const full = parent ? `${parent}.${name}` : name;
    expect('{');
    while (peek() !== '}') {
      const word = next();
      if (word === 'enum') parseEnum(full);
      else if (word === 'message') parseMessage(full);
      else if (word === 'oneof') {
        const oneof = next();
        expect('{');
        while (peek() !== '}') message.fields.push(parseField(next(), oneof));
        expect('}');
      } else message.fields.push(parseField(word, undefined));
    }
    expect('}');
    message.fields.sort((a, b) => a.number - b.number);
  };

  const parseMethod = () => {
    const since = comments.find((c) => c.startsWith('since '))?.slice(6);
    const json = comments.filter((c) => c.startsWith('@json ')).map((c) => c.slice(6));
    const name = next();
    const side = () => {
      expect('(');
      const stream = peek() === 'stream' && next() === 'stream';
      const type = next();
      expect(')');
      return { stream, type };
    };
    const request = side();
    expect('returns');
    const response = side();
    expect(';');
    comments = [];
    return { name, request, response, since, json };
  };

  const parseService = () => {
    const service = { name: next(), methods: [] };
    expect('{');
    comments = [];
    while (peek() !== '}') {
      const word = next();
      if (word !== 'rpc') throw new Error(`expected rpc, got ${word}`);
      service.methods.push(parseMethod());
    }
    expect('}');
    file.services.push(service);
  };

  while (peek() !== undefined) {
    const word = next();
    if (word === 'syntax') {
      expect('=');
      expect('"proto3"');
      expect(';');
    } else if (word === 'package') {
      file.package = next();
      expect(';');
    } else if (word === 'import') {
      file.imports.push(next().slice(1, -1));
      expect(';');
    } else if (word === 'message') parseMessage('');
    else if (word === 'enum') parseEnum('');
    else if (word === 'service') parseService();
    else throw new Error(`unexpected ${word}`);
  }
  return file;
}

// ─── names ─────────────────────────────────────────────────────────────────────────────────────

/** As protobuf makes JSON names: an underscore goes, and the letter behind it becomes a capital. */
const localName = (name) => name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());

/** Nested enums keep their own name, except where it says nothing. */
const enumName = ({ name, parent }) => (name === 'Type' ? `${parent.split('.').pop()}Type` : name);

function index(files) {
  const types = new Map();
  const names = new Set();
  const add = (key, entry) => {
    if (names.has(entry.local)) throw new Error(`two types are called ${entry.local}`);
    names.add(entry.local);
    types.set(key, entry);
  };
  for (const [module, file] of files) {
    const qualified = (item) => [file.package, item.parent, item.name].filter(Boolean).join('.');
    for (const message of file.messages) {
      add(qualified(message), { kind: 'message', module, local: message.name });
    }
    for (const item of file.enums) {
      add(qualified(item), { kind: 'enum', module, local: enumName(item) });
    }
  }
  return types;
}

function resolve(types, file, message, name) {
  for (const scope of [`${file.package}.${message}.`, `${file.package}.`, '']) {
    const found = types.get(scope + name);
    if (found) return found;
  }
  throw new Error(`${file.package}.${message} uses ${name}, which is nowhere`);
}

// ─── writing code ──────────────────────────────────────────────────────────────────────────────

const SCALARS = {
  bool: ['bool', 'boolean', 'false', 0],
  int32: ['int32', 'number', '0', 0],
  uint32: ['uint32', 'number', '0', 0],
  'int64-number': ['int64', 'number', '0', 0],
  'uint64-number': ['uint64', 'number', '0', 0],
  int64: ['big-int64', 'bigint', '0n', 0],
  uint64: ['big-uint64', 'bigint', '0n', 0],
  string: ['string', 'string', "''", 2],
  bytes: ['bytes', 'Bytes', 'EMPTY', 2],
};
const METHODS = { 'big-int64': 'bigInt64', 'big-uint64': 'bigUint64', enum: 'int32' };
const WRITE_METHODS = { ...METHODS, 'big-uint64': 'bigInt64' };

function plan(types, file, message, field) {
  const scalar = SCALARS[field.asNumber ? `${field.type}-number` : field.type];
  const local = localName(field.name);
  if (scalar) {
    const [kind, type, zero, wire] = scalar;
    return { ...field, local, kind, type, init: type, zero, wire, target: undefined };
  }
  const target = resolve(types, file, message.name, field.type);
  if (target.kind === 'enum') {
    return {
      ...field,
      local,
      kind: 'enum',
      type: 'number',
      init: 'number',
      zero: '0',
      wire: 0,
      target,
    };
  }
  const init = `${target.local}Init`;
  return {
    ...field,
    local,
    kind: 'message',
    type: target.local,
    init,
    zero: undefined,
    wire: 2,
    target,
  };
}

const optional = (f) => f.kind === 'message' || f.oneof !== undefined;

function interfaces(name, fields) {
  const body = fields.map((f) => {
    if (f.repeated) return `  ${f.local}: ${f.type}[];`;
    return `  ${f.local}: ${f.type}${optional(f) ? ' | undefined' : ''};`;
  });
  const init = fields.map((f) =>
    f.repeated
      ? `  readonly ${f.local}?: readonly ${f.init}[] | undefined;`
      : `  readonly ${f.local}?: ${f.init} | undefined;`,
  );
  if (fields.length === 0) {
    return [
      `export type ${name} = Record<never, never>;`,
      `export type ${name}Init = Record<never, never>;`,
    ];
  }
  return [
    `export interface ${name} {`,
    ...body,
    '}',
    `export interface ${name}Init {`,
    ...init,
    '}',
  ];
}

function maker(name, fields) {
  const values = fields.map(
    (f) => `    ${f.local}: ${f.repeated ? '[]' : optional(f) ? 'undefined' : f.zero},`,
  );
  return [`function make${name}(): ${name} {`, '  return {', ...values, '  };', '}'];
}

/** Setting a member of a oneof unsets the others: the last one sent counts. */
function unsetOthers(field, fields) {
  if (!field.oneof) return '';
  const others = fields.filter((f) => f.oneof === field.oneof && f !== field);
  return others.map((f) => ` m.${f.local} = undefined;`).join('');
}

function readCases(field, fields) {
  const tag = (field.number << 3) | field.wire;
  const method = METHODS[field.kind] ?? field.kind;
  if (field.kind === 'message') {
    const { local } = field.target;
    const read = field.repeated
      ? `m.${field.local}.push(read${local}(r, make${local}()));`
      : `m.${field.local} = read${local}(r, m.${field.local} ?? make${local}());`;
    const lines = [
      `const outer = r.enter();`,
      read + unsetOthers(field, fields),
      'r.leave(outer);',
    ];
    return [
      `      case ${tag}: {`,
      ...lines.map((l) => `        ${l}`),
      '        break;',
      '      }',
    ];
  }
  const assign = field.repeated
    ? `m.${field.local}.push(r.${method}());`
    : `m.${field.local} = r.${method}();${unsetOthers(field, fields)}`;
  const lines = [`      case ${tag}:`, `        ${assign}`, '        break;'];
  if (field.repeated && field.wire === 0) {
    lines.push(
      `      case ${(field.number << 3) | 2}: {`,
      '        const outer = r.enter();',
      `        while (r.at < r.end) m.${field.local}.push(r.${method}());`,
      '        r.leave(outer);',
      '        break;',
      '      }',
    );
  }
  return lines;
}

function reader(name, fields) {
  const known = `[${fields.map((f) => f.number).join(', ')}]`;
  return [
    `const KNOWN_${name}: readonly number[] = ${known};`,
    `function read${name}(r: Reader, m: ${name}): ${name} {`,
    '  while (r.at < r.end) {',
    '    const tag = r.tag();',
    '    switch (tag) {',
    ...fields.flatMap((f) => readCases(f, fields)),
    '      default:',
    `        r.skip(tag, KNOWN_${name});`,
    '    }',
    '  }',
    '  return m;',
    '}',
  ];
}

function writeLines(field) {
  const tag = (field.number << 3) | (field.repeated && field.wire === 0 ? 2 : field.wire);
  const v = `m.${field.local}`;
  const method = WRITE_METHODS[field.kind] ?? field.kind;
  if (field.repeated) {
    const element =
      field.kind === 'message'
        ? [
            'const mark = w.length;',
            `write${field.target.local}(w, list[i]!);`,
            `w.close(${tag}, mark);`,
          ]
        : field.wire === 0
          ? ['w.packedInt32(list[i]!);']
          : [`w.${method}(${tag}, list[i]!);`];
    const packed = field.wire === 0;
    return [
      `  if (${v} !== undefined && ${v}.length > 0) {`,
      `    const list = ${v};`,
      ...(packed ? ['    const all = w.length;'] : []),
      '    for (let i = list.length - 1; i >= 0; i--) {',
      ...element.map((l) => `      ${l}`),
      '    }',
      ...(packed ? [`    w.close(${tag}, all);`] : []),
      '  }',
    ];
  }
  if (field.kind === 'message') {
    return [
      `  if (${v} !== undefined) {`,
      '    const mark = w.length;',
      `    write${field.target.local}(w, ${v});`,
      `    w.close(${tag}, mark);`,
      '  }',
    ];
  }
  const present = field.oneof
    ? `${v} !== undefined`
    : field.kind === 'bytes'
      ? `${v} !== undefined && ${v}.length > 0`
      : v;
  return [`  if (${present}) w.${method}(${tag}, ${v});`];
}

function writer(name, fields) {
  const body = [...fields].reverse().flatMap(writeLines);
  const unused = fields.length === 0 ? '_' : '';
  return [
    `function write${name}(${unused}w: Writer, ${unused}m: ${name}Init): void {`,
    ...body,
    '}',
  ];
}

function descriptor(full, name, fields) {
  const lines = fields.map((f) => {
    const parts = [
      `number: ${f.number}`,
      `name: '${f.name}'`,
      `local: '${f.local}'`,
      `kind: '${f.kind}'`,
    ];
    if (f.repeated) parts.push('repeated: true');
    if (f.oneof) parts.push(`oneof: '${f.oneof}'`);
    if (f.kind === 'message') parts.push(`message: () => ${f.target.local}`);
    if (f.kind === 'enum') parts.push(`enumeration: ${f.target.local}`);
    return `    { ${parts.join(', ')} },`;
  });
  return [
    `export const ${name}: MessageType<${name}, ${name}Init> = {`,
    `  name: '${full}',`,
    '  fields: [',
    ...lines,
    '  ],',
    `  make: make${name},`,
    `  read: read${name},`,
    `  write: write${name},`,
    '};',
  ];
}

function methodKind({ request, response }) {
  if (request.stream) return response.stream ? 'bidi-stream' : 'client-stream';
  return response.stream ? 'server-stream' : 'unary';
}

function services(types, file) {
  return file.services.flatMap((service) => {
    const full = `${file.package}.${service.name}`;
    const methods = service.methods.map((m) => {
      const request = resolve(types, file, '', m.request.type).local;
      const response = resolve(types, file, '', m.response.type).local;
      const json = `[${m.json.map((p) => `'${p}'`).join(', ')}]`;
      const since = m.since ? `, since: '${m.since}'` : '';
      return [
        `  ${m.name}: {`,
        `    service: '${full}', name: '${m.name}', path: '/${full}/${m.name}',`,
        `    kind: '${methodKind(m)}', request: ${request}, response: ${response}, json: ${json}${since},`,
        '  },',
      ].join('\n');
    });
    const entries = service.methods.map((m) => {
      const request = resolve(types, file, '', m.request.type).local;
      const response = resolve(types, file, '', m.response.type).local;
      return `  readonly ${m.name}: Method & { readonly kind: '${methodKind(m)}'; readonly request: typeof ${request}; readonly response: typeof ${response} };`;
    });
    return [`export const ${service.name}Service: {`, ...entries, '} = {', ...methods, '};', ''];
  });
}

export function generate(types, module, file) {
  const own = file.messages.map((message) => ({
    name: message.name,
    full: [file.package, message.parent, message.name].filter(Boolean).join('.'),
    fields: message.fields.map((field) => plan(types, file, message, field)),
  }));
  const body = [];
  for (const item of file.enums) {
    const values = item.values.map(([key, value]) => `${key}: ${value}`).join(', ');
    const types = item.values.map(([key, value]) => `readonly ${key}: ${value}`).join('; ');
    body.push(`export const ${enumName(item)}: { ${types} } = { ${values} };`, '');
  }
  for (const { name, full, fields } of own) {
    body.push(...interfaces(name, fields), ...maker(name, fields), ...reader(name, fields));
    body.push(...writer(name, fields), ...descriptor(full, name, fields), '');
  }
  body.push(...services(types, file));
  const text = body.join('\n');
  return `${header(module, own, file, text)}\n${text.trimEnd()}\n`;
}

function header(module, own, file, text) {
  const lines = [
    `// Generated by \`npm run generate\` from proto/${module}.proto. Do not edit.`,
    "import type { Reader } from '../reader.ts';",
    "import type { Writer } from '../writer.ts';",
    `import type { MessageType${file.services.length > 0 ? ', Method' : ''} } from '../descriptor.ts';`,
  ];
  const ground = [
    /\bEMPTY\b/.test(text) ? 'EMPTY' : '',
    /\bBytes\b/.test(text) ? 'type Bytes' : '',
  ];
  const used = ground.filter(Boolean).join(', ');
  if (used === 'type Bytes') lines.push("import type { Bytes } from '../../../base/bytes.ts';");
  else if (used) lines.push(`import { ${used} } from '../../../base/bytes.ts';`);
  const others = new Map();
  for (const { fields } of own) {
    for (const { target } of fields) {
      if (target === undefined || target.module === module) continue;
      if (!others.has(target.module)) others.set(target.module, new Map());
      others.get(target.module).set(target.local, target.kind);
    }
  }
  for (const [other, names] of others) {
    const list = [...names].flatMap(([name, kind]) =>
      kind === 'enum'
        ? [name]
        : [name, `type ${name}Init`, `make${name}`, `read${name}`, `write${name}`],
    );
    lines.push(`import { ${list.join(', ')} } from './${other}.ts';`);
  }
  return `${lines.join('\n')}\n`;
}

/** Module → text, of everything that belongs into `gen/`. */
export function generateAll() {
  const folder = join(ROOT, 'proto');
  const files = new Map();
  for (const name of readdirSync(folder).sort()) {
    if (!name.endsWith('.proto')) continue;
    files.set(name.slice(0, -6), parseProto(readFileSync(join(folder, name), 'utf8')));
  }
  const types = index(files);
  const shared = sharedMessages(types, files);
  const texts = new Map();
  for (const [module, file] of files) {
    let text = generate(types, module, file);
    for (const name of shared) {
      const own = new RegExp(`^function ((make|read|write)${name}\\()`, 'gm');
      text = text.replaceAll(own, 'export function $1');
    }
    texts.set(module, text);
  }
  return texts;
}

/** Messages whose functions another module calls directly. */
function sharedMessages(types, files) {
  const shared = new Set();
  for (const [module, file] of files) {
    for (const message of file.messages) {
      for (const field of message.fields) {
        if (SCALARS[field.type]) continue;
        const target = resolve(types, file, message.name, field.type);
        if (target.module !== module && target.kind === 'message') shared.add(target.local);
      }
    }
  }
  return shared;
}

function main() {
  mkdirSync(join(ROOT, 'gen'), { recursive: true });
  for (const [module, text] of generateAll()) {
    const path = join(ROOT, 'gen', `${module}.ts`);
    writeFileSync(path, text);
    console.log(path);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main();
