// An http-wasm handler as the ABI's description has it, in C.
#include <stdint.h>
#include <string.h>

#define IMPORT(name) __attribute__((import_module("http_handler"), import_name(#name)))
#define EXPORT(name) __attribute__((export_name(#name)))

IMPORT(get_uri) uint32_t get_uri(char *, uint32_t);
IMPORT(set_uri) void set_uri(const char *, uint32_t);
IMPORT(read_body) uint64_t read_body(uint32_t, char *, uint32_t);
IMPORT(write_body) void write_body(uint32_t, const char *, uint32_t);
IMPORT(set_header_value) void set_header_value(uint32_t, const char *, uint32_t, const char *, uint32_t);
IMPORT(set_status_code) void set_status_code(uint32_t);

static char buffer[65536];
static char served = '0';

// What begins with /v1 goes on without it; everything else is answered here.
EXPORT(handle_request) uint64_t handle_request(void) {
	served++;
	uint32_t n = get_uri(buffer, sizeof buffer);
	if (n > 3 && !memcmp(buffer, "/v1/", 4)) {
		set_uri(buffer + 3, n - 3);
		return 1;
	}
	set_status_code(202);
	set_header_value(1, "Content-Type", 12, "text/plain", 10);
	write_body(1, &served, 1);
	for (;;) {
		uint64_t r = read_body(0, buffer, sizeof buffer);
		write_body(1, buffer, (uint32_t)r);
		if (r >> 32)
			return 0;
	}
}

EXPORT(handle_response) void handle_response(uint32_t ctx, uint32_t failed) { set_header_value(1, "X-Seen", 6, "yes", 3); }
