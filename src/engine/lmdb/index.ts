export type { BackgroundScrub } from './background.ts';
export { type LmdbEngine, type LmdbOptions, openLmdbEngine } from './engine.ts';
export { open } from './open.ts';
export { type StoreOptions, type VerifiedStore, verifyStore } from './opening.ts';
export type { OwnerSocket } from './owner.ts';
export { type Restored, type RestoreOptions, restore } from './restore.ts';
