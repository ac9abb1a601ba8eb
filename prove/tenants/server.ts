/** The server both tenants share, in a process of its own: as in use, and so that only it pays for its pauses. */
import { openLmdbEngine } from '../../src/engine/lmdb/engine.ts';
import { serve } from '../../src/server/serve.ts';
import type { TenantLimits } from '../../src/server/tenants/meter.ts';

const [directory = '', limits = '{}'] = process.argv.slice(2);
const VIGIL_MS = 0.3;

const engine = await openLmdbEngine(directory);
const server = await serve({
  engine,
  listen: { port: 0 },
  tenantLimits: JSON.parse(limits) as TenantLimits,
  vigilMs: VIGIL_MS,
});
process.on('disconnect', () => process.exit());
process.send?.(server.port);
