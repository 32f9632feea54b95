// debug.wasm is made of this, for the tests that read DWARF:
//   clang --target=wasm32 -nostdlib -O1 -g -ffile-compilation-dir=. -Wl,--no-entry -Wl,--export=outer -o debug.wasm debug.c
__attribute__((noinline)) static int inner(int n) {
	if (n == 7)
		__builtin_trap();
	return n * 3;
}

int outer(int n) { return inner(n + 1) + 1; }
