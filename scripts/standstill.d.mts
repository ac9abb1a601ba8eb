export function whereTheyStand(runner: number): Promise<string[]>;
