// Fannkuch: permutations in small arrays.
#include "program.h"

EXPORT("run") uint32_t run(uint32_t n) {
	enum { N = 7 };
	uint32_t most = 0, sum = 0;
	while (n--) {
		int perm1[N], perm[N], count[N], r = N;
		for (int i = 0; i < N; i++) perm1[i] = i;
		for (;;) {
			for (; r != 1; r--) count[r - 1] = r;
			for (int i = 0; i < N; i++) perm[i] = perm1[i];
			uint32_t flips = 0;
			for (int k; (k = perm[0]) != 0; flips++)
				for (int i = 0, j = k; i < j; i++, j--) {
					int t = perm[i];
					perm[i] = perm[j], perm[j] = t;
				}
			if (flips > most) most = flips;
			sum += flips;
			for (;;) {
				if (r == N) goto done;
				int first = perm1[0];
				for (int i = 0; i < r; i++) perm1[i] = perm1[i + 1];
				perm1[r] = first;
				if (--count[r] > 0) break;
				r++;
			}
		}
	done:;
	}
	return most << 24 ^ sum;
}
