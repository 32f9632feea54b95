// CRC-32 by table: the shortest loop that does something, which is where metering shows most.
#include "program.h"

static uint32_t table[256];
static uint8_t data[1 << 14];

EXPORT("run") uint32_t run(uint32_t n) {
	uint32_t c = ~0u;
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t v = i;
		for (int k = 0; k < 8; k++) v = v & 1 ? v >> 1 ^ 0xedb88320 : v >> 1;
		table[i] = v;
	}
	for (size_t i = 0; i < sizeof data; i++) data[i] = next();
	while (n--) {
		for (size_t i = 0; i < sizeof data; i++) c = table[(uint8_t)(c ^ data[i])] ^ c >> 8;
	}
	return c;
}
