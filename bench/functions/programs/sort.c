// Quicksort that compares through a function pointer, as qsort does: recursion and indirect calls.
#include "program.h"

enum { SIZE = 4096 };
static uint32_t v[SIZE];

static int ascending(uint32_t a, uint32_t b) { return a < b ? -1 : a > b; }
static int descending(uint32_t a, uint32_t b) { return ascending(b, a); }
static int (*volatile orders[])(uint32_t, uint32_t) = {ascending, descending};

static void sort(uint32_t *p, int n, int (*order)(uint32_t, uint32_t)) {
	while (n > 1) {
		uint32_t pivot = p[n / 2];
		int i = 0, k = n - 1;
		for (;; i++, k--) {
			while (order(p[i], pivot) < 0) i++;
			while (order(p[k], pivot) > 0) k--;
			if (i >= k) break;
			uint32_t t = p[i];
			p[i] = p[k], p[k] = t;
		}
		sort(p, i, order);
		p += i, n -= i;
		if (i == 0) p++, n--;
	}
}

EXPORT("run") uint32_t run(uint32_t n) {
	uint32_t sum = 0;
	while (n--) {
		for (int i = 0; i < SIZE; i++) v[i] = next();
		sort(v, SIZE, orders[n & 1]);
		sum += v[SIZE / 2];
	}
	return sum;
}
