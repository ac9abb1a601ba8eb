export function missingOptional(lock: object): readonly { readonly name: string }[];
