// Planets: floating point with division and square root.
#include "program.h"

enum { BODIES = 5 };
static struct body { double x, y, z, vx, vy, vz, mass; } b[BODIES];

static void step(double dt) {
	for (int i = 0; i < BODIES; i++)
		for (int k = i + 1; k < BODIES; k++) {
			double dx = b[i].x - b[k].x, dy = b[i].y - b[k].y, dz = b[i].z - b[k].z;
			double d2 = dx * dx + dy * dy + dz * dz + 1e-3;
			double mag = dt / (d2 * __builtin_sqrt(d2));
			b[i].vx -= dx * b[k].mass * mag, b[i].vy -= dy * b[k].mass * mag, b[i].vz -= dz * b[k].mass * mag;
			b[k].vx += dx * b[i].mass * mag, b[k].vy += dy * b[i].mass * mag, b[k].vz += dz * b[i].mass * mag;
		}
	for (int i = 0; i < BODIES; i++) b[i].x += dt * b[i].vx, b[i].y += dt * b[i].vy, b[i].z += dt * b[i].vz;
}

EXPORT("run") uint32_t run(uint32_t n) {
	for (int i = 0; i < BODIES; i++) {
		b[i].x = i * 1.5, b[i].y = 7 - i, b[i].z = i * i * 0.3, b[i].mass = 1 + i;
		b[i].vx = b[i].vy = b[i].vz = 0;
	}
	while (n--) step(0.001);
	return (uint32_t)(int64_t)(b[0].x * 1e6);
}
