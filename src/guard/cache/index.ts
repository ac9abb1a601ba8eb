export { LmdbMarks } from '../mark-table.ts';
export { CacheAgent, type CacheAgentOptions, type CacheTarget } from './agent.ts';
export {
  type NginxCacheOptions,
  nginxCache,
  nginxLocation,
  varnishCache,
  varnishVcl,
} from './targets.ts';
