// Base64, there and back: table look-ups.
#include "program.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
enum { SIZE = 3 * 4096 };
static uint8_t in[SIZE], out[SIZE], reverse[256];
static char text[SIZE / 3 * 4];

EXPORT("run") uint32_t run(uint32_t n) {
	uint32_t sum = 0;
	for (int i = 0; i < 64; i++) reverse[(uint8_t)alphabet[i]] = i;
	for (int i = 0; i < SIZE; i++) in[i] = next();
	while (n--) {
		char *t = text;
		for (int i = 0; i < SIZE; i += 3) {
			uint32_t v = in[i] << 16 | in[i + 1] << 8 | in[i + 2];
			*t++ = alphabet[v >> 18];
			*t++ = alphabet[v >> 12 & 63];
			*t++ = alphabet[v >> 6 & 63];
			*t++ = alphabet[v & 63];
		}
		uint8_t *o = out;
		for (int i = 0; i < SIZE / 3 * 4; i += 4) {
			const uint8_t *p = (const uint8_t *)text + i;
			uint32_t v = reverse[p[0]] << 18 | reverse[p[1]] << 12 | reverse[p[2]] << 6 | reverse[p[3]];
			*o++ = v >> 16;
			*o++ = v >> 8;
			*o++ = v;
		}
		sum += out[n % SIZE];
		in[n % SIZE] ^= 1;
	}
	return sum;
}
