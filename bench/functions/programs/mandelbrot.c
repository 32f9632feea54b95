// The Mandelbrot set: floating point with early exits.
#include "program.h"

EXPORT("run") uint32_t run(uint32_t n) {
	uint32_t total = 0;
	while (n--) {
		for (int py = 0; py < 64; py++)
			for (int px = 0; px < 64; px++) {
				double x0 = px / 32.0 - 1.5, y0 = py / 32.0 - 1.0, x = 0, y = 0;
				int i = 0;
				for (; i < 100 && x * x + y * y <= 4; i++) {
					double t = x * x - y * y + x0;
					y = 2 * x * y + y0;
					x = t;
				}
				total += i;
			}
	}
	return total;
}
