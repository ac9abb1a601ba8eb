/** The etcd engine. */
export type { Endpoint, EtcdConfig, EtcdOptions } from './config.ts';
export { open, openEtcdEngine } from './open.ts';
