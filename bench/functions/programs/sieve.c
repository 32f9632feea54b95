// Primes by Eratosthenes: byte stores in short inner loops.
#include "program.h"

enum { SIZE = 1 << 16 };
static uint8_t composite[SIZE];

EXPORT("run") uint32_t run(uint32_t n) {
	uint32_t primes = 0;
	while (n--) {
		__builtin_memset(composite, 0, SIZE);
		primes = 0;
		for (uint32_t i = 2; i < SIZE; i++) {
			if (composite[i]) continue;
			primes++;
			for (uint32_t k = i * 2; k < SIZE; k += i) composite[k] = 1;
		}
	}
	return primes;
}
