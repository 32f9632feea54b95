// Matrix multiplication: floating point in a triple loop.
#include "program.h"

enum { N = 64 };
static double a[N][N], b[N][N], c[N][N];

EXPORT("run") uint32_t run(uint32_t n) {
	for (int i = 0; i < N; i++)
		for (int k = 0; k < N; k++) a[i][k] = i + k, b[i][k] = i - k;
	while (n--) {
		for (int i = 0; i < N; i++)
			for (int k = 0; k < N; k++) {
				double sum = 0;
				for (int j = 0; j < N; j++) sum += a[i][j] * b[j][k];
				c[i][k] = sum;
			}
		a[0][0] = c[N - 1][N - 1];
	}
	return (uint32_t)(int64_t)c[5][7];
}
