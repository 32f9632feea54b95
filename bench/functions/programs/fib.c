// Fibonacci by recursion: nothing but calls.
#include "program.h"

__attribute__((noinline)) static uint32_t fib(uint32_t n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

static volatile uint32_t depth = 18; // which the compiler cannot know

EXPORT("run") uint32_t run(uint32_t n) {
	uint32_t sum = 0;
	while (n--) sum += fib(depth);
	return sum;
}
