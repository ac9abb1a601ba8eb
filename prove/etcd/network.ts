/**
 * A network of namespaces for the members of a cluster: each has a wire of its own to a bridge on
 * this machine, which can be cut, and routes to the others, which can be taken away. Needs root.
 */
import { spawnSync } from 'node:child_process';
import type { Home } from '../../test/servers/etcd.ts';

export class Network {
  readonly homes: readonly Home[];
  readonly #bridge: string;
  readonly #names: readonly string[];
  readonly #wires: readonly string[];

  /** Undefined where namespaces cannot be made. */
  static create(size: number): Network | undefined {
    if (process.getuid?.() !== 0 || !ip('-V')) return undefined;
    const network = new Network(size);
    try {
      network.#build();
      return network;
    } catch {
      network.remove();
      return undefined;
    }
  }

  private constructor(size: number) {
    const id = process.pid.toString(36);
    // Addresses for measurements between networks (RFC 2544): no machine has them by right.
    const address = (host: number): string => `198.18.${process.pid % 250}.${host}`;
    const each = <T>(make: (i: number) => T): T[] =>
      Array.from({ length: size }, (_, i) => make(i));
    this.#bridge = `hfb${id}`;
    this.#names = each((i) => `hf-${id}-${i}`);
    this.#wires = each((i) => `hfv${id}${i}`);
    this.homes = each((i) => ({
      address: address(i + 1),
      within: ['ip', 'netns', 'exec', this.#names[i]!],
    }));
    this.#hub = address(254);
  }

  readonly #hub: string;

  /** Cuts the member off from everybody. */
  cutWire(member: number): void {
    must('link', 'set', this.#wires[member]!, 'down');
  }

  /** Cuts the member off from the others; clients still reach it. */
  cutPeers(member: number): void {
    for (const { address } of this.#others(member)) {
      must('-n', this.#names[member]!, 'route', 'add', 'blackhole', `${address}/32`);
    }
  }

  heal(member: number): void {
    must('link', 'set', this.#wires[member]!, 'up');
    for (const { address } of this.#others(member)) {
      ip('-n', this.#names[member]!, 'route', 'del', 'blackhole', `${address}/32`);
    }
  }

  remove(): void {
    for (const name of this.#names) ip('netns', 'del', name);
    for (const wire of this.#wires) ip('link', 'del', wire);
    ip('link', 'del', this.#bridge);
  }

  #others(member: number): readonly Home[] {
    return this.homes.filter((_, i) => i !== member);
  }

  #build(): void {
    must('link', 'add', this.#bridge, 'type', 'bridge');
    must('addr', 'add', `${this.#hub}/24`, 'dev', this.#bridge);
    must('link', 'set', this.#bridge, 'up');
    for (const [i, name] of this.#names.entries()) {
      const wire = this.#wires[i]!;
      must('netns', 'add', name);
      must('link', 'add', wire, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name);
      must('link', 'set', wire, 'master', this.#bridge, 'up');
      must('-n', name, 'addr', 'add', `${this.homes[i]!.address}/24`, 'dev', 'eth0');
      must('-n', name, 'link', 'set', 'lo', 'up');
      must('-n', name, 'link', 'set', 'eth0', 'up');
    }
  }
}

function ip(...args: string[]): boolean {
  return spawnSync('ip', args, { stdio: 'ignore' }).status === 0;
}

function must(...args: string[]): void {
  if (!ip(...args)) throw new Error(`ip ${args.join(' ')} failed`);
}
