// The empty guest in AssemblyScript.
export function loam_serve(): void {}
