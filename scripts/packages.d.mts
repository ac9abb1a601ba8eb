export function locate(command: string): string | undefined;
export function missing(needs: Record<string, string>): string[];
export function install(needs: Record<string, string>): string[];
