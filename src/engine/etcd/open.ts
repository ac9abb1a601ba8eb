/** What `etcd://`, `etcds://` and `etcd+unix:` in a URL open, and the same without a URL. */
import type { Engine } from '../contract.ts';
import { type EtcdConfig, type EtcdOptions, parseEtcdUrl } from './config.ts';
import { EtcdEngine } from './engine.ts';

export function open(url: string, options: EtcdOptions = {}): Promise<Engine> {
  return openEtcdEngine(parseEtcdUrl(url, options));
}

export function openEtcdEngine(config: EtcdConfig): Promise<Engine> {
  return EtcdEngine.open(config);
}
