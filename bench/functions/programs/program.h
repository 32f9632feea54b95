// What the programs share. Each is one file without a library: it exports run(n), which works in proportion to n and
// returns a checksum, so that what it computes is not optimised away and can be compared.
//
//	clang --target=wasm32 -O2 -nostdlib -mbulk-memory -Wl,--no-entry -o NAME.wasm NAME.c
#include <stddef.h>
#include <stdint.h>

#define EXPORT(name) __attribute__((export_name(name)))

static uint32_t seed = 1;

// next is a pseudo-random number, the same in each run.
static inline uint32_t next(void) {
	seed ^= seed << 13;
	seed ^= seed >> 17;
	seed ^= seed << 5;
	return seed;
}
