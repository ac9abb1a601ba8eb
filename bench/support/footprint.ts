/** What a process keeps in memory, and how a server is filled to see it. */
import { readFileSync } from 'node:fs';
import { utf8 } from '../../src/base/bytes.ts';
import { KVService } from '../../src/wire/messages/services.ts';
import { GrpcClient } from '../../src/wire/net/grpc-client.ts';

const PUTS_PER_TXN = 100;
const TXNS_AT_ONCE = 16;

/** Keys of 100 bytes with values of 100 bytes. */
export async function fill(port: number, keys: number): Promise<void> {
  const client = new GrpcClient({ port });
  const value = new Uint8Array(100).fill(0x76);
  let next = 0;
  const writer = async (): Promise<void> => {
    while (next < keys) {
      const from = next;
      next += PUTS_PER_TXN;
      const success = Array.from({ length: Math.min(PUTS_PER_TXN, keys - from) }, (_, i) => ({
        requestPut: { key: utf8(`fill/${String(from + i).padStart(95, '0')}`), value },
      }));
      await client.unary(KVService.Txn, { success });
    }
  };
  try {
    await Promise.all(Array.from({ length: TXNS_AT_ONCE }, writer));
  } finally {
    client.destroy();
  }
}

export interface Resident {
  readonly megabytes: number;
  /** Without the pages of mapped files, which the system may take back at any time. */
  readonly ownMegabytes: number;
}

export function resident(pid: number): Resident {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const megabytes = (field: string): number =>
    Math.round(Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) / 1_024);
  return { megabytes: megabytes('VmRSS'), ownMegabytes: megabytes('RssAnon') };
}
