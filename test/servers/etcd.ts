/** A real etcd of Debian: one member, or a cluster whose members can be killed and stopped. */
import { join } from 'node:path';
import { locate } from '../../scripts/packages.mjs';
import { accepts, type Daemon, freePort, freshDirectory, startDaemon } from './daemon.ts';

export interface Etcd extends Daemon {
  /** `http://127.0.0.1:PORT` */
  readonly url: string;
  /** Starts the member again after `kill()`, on the same port and files. */
  restart(): Promise<Etcd>;
}

export interface EtcdCluster extends AsyncDisposable {
  readonly members: readonly Etcd[];
  readonly urls: readonly string[];
  stop(): Promise<void>;
}

export interface EtcdOptions {
  /** Further flags: `['--quota-backend-bytes', '16777216']`. */
  readonly args?: readonly string[];
  /** With `https`, give the certificates in `args`. */
  readonly scheme?: 'http' | 'https';
  /** Where each member lives, if not on loopback. */
  readonly homes?: readonly Home[];
}

export interface Home {
  readonly address: string;
  /** Goes before the command: `['ip', 'netns', 'exec', 'name']`. */
  readonly within: readonly string[];
}

interface Place {
  readonly name: string;
  readonly directory: string;
  readonly clientPort: number;
  readonly peerPort: number;
  readonly home: Home;
}

const LOOPBACK: Home = { address: '127.0.0.1', within: [] };

export async function startEtcd(options: EtcdOptions = {}): Promise<Etcd> {
  const place = await choosePlace(0, options);
  return await serve(place, [place], options);
}

export async function startEtcdCluster(size = 3, options: EtcdOptions = {}): Promise<EtcdCluster> {
  const places: Place[] = [];
  for (let i = 0; i < size; i++) places.push(await choosePlace(i, options));
  // No member answers before a majority is there, so all start at once.
  const members = await Promise.all(places.map((place) => serve(place, places, options)));
  const stop = async (): Promise<void> => {
    await Promise.all(members.map((member) => member.stop()));
  };
  return { members, urls: members.map(({ url }) => url), stop, [Symbol.asyncDispose]: stop };
}

async function choosePlace(index: number, { homes }: EtcdOptions): Promise<Place> {
  return {
    name: `m${index}`,
    directory: freshDirectory('etcd'),
    clientPort: await freePort(),
    peerPort: await freePort(),
    home: homes?.[index] ?? LOOPBACK,
  };
}

const at = ({ home }: Place, port: number): string => `http://${home.address}:${port}`;

async function serve(place: Place, all: readonly Place[], options: EtcdOptions): Promise<Etcd> {
  const { scheme = 'http' } = options;
  const url = at(place, place.clientPort).replace('http', scheme);
  const peerUrl = at(place, place.peerPort);
  const command = [...place.home.within, locate('etcd') ?? 'etcd'];
  const daemon = await startDaemon({
    command: command[0]!,
    args: [
      ...command.slice(1),
      ...['--name', place.name, '--data-dir', join(place.directory, 'data')],
      ...['--listen-client-urls', url, '--advertise-client-urls', url],
      ...['--listen-peer-urls', peerUrl, '--initial-advertise-peer-urls', peerUrl],
      ...['--initial-cluster', all.map((one) => `${one.name}=${at(one, one.peerPort)}`).join(',')],
      ...['--logger', 'zap', '--log-level', 'error'],
      ...(options.args ?? []),
    ],
    port: place.clientPort,
    directory: place.directory,
    ready: async () =>
      scheme === 'https' ? await accepts(place.clientPort) : (await fetch(`${url}/health`)).ok,
  });
  return { ...daemon, url, restart: () => serve(place, all, options) };
}
