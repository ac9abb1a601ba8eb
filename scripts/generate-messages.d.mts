export function generateAll(): Map<string, string>;
