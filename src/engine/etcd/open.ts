/** What `etcd://`, `etcds://` and `etcd+unix:` in a URL open. */
import type { Engine } from '../contract.ts';
import { type EtcdOptions, parseEtcdUrl } from './config.ts';
import { EtcdEngine } from './engine.ts';

export function open(url: string, options: EtcdOptions = {}): Promise<Engine> {
  return EtcdEngine.open(parseEtcdUrl(url, options));
}
