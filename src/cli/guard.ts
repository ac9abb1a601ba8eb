/** `holdfast guard`: the check at the resource, for what cannot be changed itself. */
import { once } from 'node:events';
import { closeSync, createReadStream, createWriteStream, openSync } from 'node:fs';
import { createServer } from 'node:http';
import { connect, type Server } from 'node:net';
import { Duplex } from 'node:stream';
import { parseArgs } from 'node:util';
import type { SealRule } from '../guard/gate.ts';
import { createGuardProxy, HttpGuard, type HttpRoute } from '../guard/http/index.ts';
import { LmdbMarks } from '../guard/mark-table.ts';
import { StreamGuard } from '../guard/stream.ts';
import { type GuardHooks, type HoldfastMetrics, holdfastMetrics } from '../metrics.ts';
import { HoldfastError } from '../model/errors.ts';
import type { Command } from './command.ts';
import { sealKeysFrom } from './seal-keys.ts';

const USAGE = `holdfast guard: refuse stale tokens before a service or a device that cannot do it itself

  holdfast guard http --upstream http://127.0.0.1:4873 --listen 127.0.0.1:8080
      a reverse proxy; unsafe requests need a Holdfast-Token that is not older than the newest one seen
      --resource NAME            the resource of requests that no route names   (http)
      --route 'PUT,POST /x/* NAME [once]'   may be given several times; the first that matches decides
      --forward-token            pass the token on to the service

  holdfast guard device --device /dev/ttyS0 --listen 127.0.0.1:9000
      one connection speaks at a time, the one with the newest token
      --device PATH | tcp:HOST:PORT | unix:PATH
      --resource NAME            (device)
      --delimiter N              the byte that ends a frame, 10 for lines
      --on-newer drain|abort     what becomes of what the older connection has under way

  --seal-keys URL | FILE         admit only tokens sealed by the server at URL, or under the keys in FILE
      --tenant NAME              whose seals count                       (those of no tenant)
      --skew SECONDS             how far its clock and ours may be apart (0)
  --metrics HOST:PORT            answer /metrics there: what was admitted and refused
  --marks DIR                    where the highest tokens seen are kept      (./holdfast-marks)`;

const OPTIONS = {
  upstream: { type: 'string' },
  device: { type: 'string' },
  listen: { type: 'string' },
  resource: { type: 'string' },
  route: { type: 'string', multiple: true },
  'forward-token': { type: 'boolean' },
  delimiter: { type: 'string' },
  'on-newer': { type: 'string' },
  'seal-keys': { type: 'string' },
  tenant: { type: 'string' },
  skew: { type: 'string', default: '0' },
  metrics: { type: 'string' },
  marks: { type: 'string', default: './holdfast-marks' },
} as const;

type Sealed = { readonly seal?: SealRule };
type Common = Sealed & GuardHooks;
type Values = ReturnType<typeof parseArgs<{ options: typeof OPTIONS }>>['values'];

export const command: Command = {
  about: 'check tokens before a service or a device',
  usage: USAGE,
  async run(args) {
    const [kind, ...rest] = args;
    const { values } = parseArgs({ args: rest, options: OPTIONS });
    if (kind !== 'http' && kind !== 'device') {
      throw new HoldfastError(
        'invalid-argument',
        'say what to guard: holdfast guard http, or device',
      );
    }
    const figures = holdfastMetrics();
    const common = { ...(await sealRule(values)), ...figures.guard };
    const marks = LmdbMarks.open(values.marks);
    const server =
      kind === 'http' ? httpGuard(values, marks, common) : await deviceGuard(values, marks, common);
    const page = values.metrics === undefined ? undefined : metricsPage(figures);
    if (page) console.log(`metrics on ${await listening(page, values.metrics)}`);
    console.log(`guarding on ${await listening(server, values.listen)}`);
    await Promise.race([once(process, 'SIGTERM'), once(process, 'SIGINT')]);
    server.close();
    page?.close();
    await marks.close();
    return 0;
  },
};

async function listening(server: Server, where: string | undefined): Promise<string> {
  const { host, port } = listenOn(where);
  server.listen(port, host);
  await once(server, 'listening');
  return `${host}:${(server.address() as { port: number }).port}`;
}

/** Beside the guarded service, whose paths are all its own. */
function metricsPage({ render }: HoldfastMetrics): Server {
  return createServer((request, response) => {
    const found = request.url === '/metrics';
    response.writeHead(found ? 200 : 404, { 'content-type': 'text/plain; version=0.0.4' });
    response.end(found ? render() : 'see /metrics\n');
  });
}

/** Asked for, seals are required: a guard that verified only some would keep nobody out. */
async function sealRule(values: Values): Promise<Sealed> {
  const { 'seal-keys': place, tenant, skew } = values;
  const skewMs = Number(skew) * 1_000;
  if (!(skewMs >= 0)) {
    throw new HoldfastError('invalid-argument', `--skew takes a number of seconds, not ${skew}`);
  }
  if (place === undefined) return {};
  const keys = await sealKeysFrom(place);
  return { seal: { keys, required: true, skewMs, ...(tenant === undefined ? {} : { tenant }) } };
}

function httpGuard(values: Values, marks: LmdbMarks, common: Common): Server {
  const { upstream } = values;
  if (upstream === undefined || !URL.canParse(upstream)) {
    throw new HoldfastError('invalid-argument', '--upstream takes the URL of the service to guard');
  }
  const guard = new HttpGuard(marks, {
    ...common,
    ...(values.resource === undefined ? {} : { resource: values.resource }),
    routes: (values.route ?? []).map(parseRoute),
  });
  return createGuardProxy(guard, { upstream, forwardToken: values['forward-token'] === true });
}

/** `PUT,POST /seats/* seats once` */
function parseRoute(text: string): HttpRoute {
  const [methods = '', path = '', resource = '', rule] = text.trim().split(/\s+/);
  if (!path.startsWith('/') || resource === '' || (rule !== undefined && rule !== 'once')) {
    throw new HoldfastError(
      'invalid-argument',
      `--route takes 'METHODS /path/* NAME [once]', not ${text}`,
    );
  }
  const pattern = path.split('*').map((part) => part.replace(/[.+?^${}()|[\]\\]/g, '\\$&'));
  return {
    methods: methods.toUpperCase().split(','),
    path: new RegExp(`^${pattern.join('.*')}$`),
    resource,
    ...(rule === 'once' ? { rule } : {}),
  };
}

async function deviceGuard(values: Values, marks: LmdbMarks, common: Common): Promise<Server> {
  if (values.device === undefined) {
    throw new HoldfastError(
      'invalid-argument',
      '--device takes a path, tcp:HOST:PORT or unix:PATH',
    );
  }
  const onNewer = values['on-newer'] ?? 'drain';
  if (onNewer !== 'drain' && onNewer !== 'abort') {
    throw new HoldfastError('invalid-argument', `--on-newer is drain or abort, not ${onNewer}`);
  }
  const delimiter = values.delimiter === undefined ? undefined : Number(values.delimiter);
  if (
    delimiter !== undefined &&
    !(Number.isInteger(delimiter) && delimiter >= 0 && delimiter < 256)
  ) {
    throw new HoldfastError(
      'invalid-argument',
      `--delimiter is a byte from 0 to 255, not ${values.delimiter}`,
    );
  }
  const guard = new StreamGuard(await openDevice(values.device), marks, {
    ...common,
    resource: values.resource ?? 'device',
    onNewer,
    ...(delimiter === undefined ? {} : { delimiter }),
  });
  return guard.server;
}

async function openDevice(place: string): Promise<Duplex> {
  const [, scheme, rest = ''] = /^(tcp|unix):(.+)$/.exec(place) ?? [];
  if (scheme === undefined) return openFile(place);
  const { host, port } = scheme === 'tcp' ? listenOn(rest) : { host: '', port: 0 };
  const socket = scheme === 'tcp' ? connect(port, host) : connect(rest);
  await once(socket, 'connect').catch((error: Error) => {
    throw new HoldfastError('unavailable', `cannot reach the device at ${place}: ${error.message}`);
  });
  return socket;
}

/** A character device: one descriptor, read and written at once. */
function openFile(path: string): Duplex {
  let fd: number;
  try {
    fd = openSync(path, 'r+');
  } catch (error) {
    throw new HoldfastError('unavailable', `cannot open the device: ${(error as Error).message}`);
  }
  const readable = createReadStream('', { fd, autoClose: false });
  const writable = createWriteStream('', { fd, autoClose: false });
  const device = Duplex.from({ readable, writable });
  device.once('close', () => closeSync(fd));
  return device;
}

function listenOn(value = '127.0.0.1:0'): { host: string; port: number } {
  const match = /^(?:(.+):)?(\d{1,5})$/.exec(value);
  if (!match) throw new HoldfastError('invalid-argument', `${value} is not HOST:PORT`);
  return { host: match[1] ?? '127.0.0.1', port: Number(match[2]) };
}
