// Naive string search: short loops with unpredictable ends.
#include "program.h"

enum { SIZE = 1 << 15 };
static char text[SIZE];
static const char needle[] = "abacab";

EXPORT("run") uint32_t run(uint32_t n) {
	uint32_t found = 0;
	for (int i = 0; i < SIZE; i++) text[i] = 'a' + next() % 3;
	while (n--) {
		for (int i = 0; i + 6 <= SIZE; i++) {
			int k = 0;
			while (k < 6 && text[i + k] == needle[k]) k++;
			found += k == 6;
		}
	}
	return found;
}
