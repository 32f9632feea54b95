#define _GNU_SOURCE
#define LOAM_IMPLEMENTATION
#include "loam.h"

size_t loam_host_request_head(char *data, size_t cap) { (void)data, (void)cap; abort(); }
int32_t loam_host_request_body(char *data, size_t cap) { (void)data, (void)cap; abort(); }
void loam_host_response_head(const char *data, size_t len) { (void)data, (void)len; abort(); }
int32_t loam_host_response_body(const char *data, size_t len) { (void)data, (void)len; abort(); }
int32_t loam_host_result(char *data, size_t cap) { (void)data, (void)cap; abort(); }
int64_t loam_host_call(const char *method, size_t method_len, const char *in, size_t in_len, char *out, size_t out_cap)
{
	(void)method, (void)method_len, (void)in, (void)in_len, (void)out, (void)out_cap;
	abort();
}
void loam_init(void) {}

#define ECHO(text, type)                                                                                               \
	if (!strcmp(name, text)) {                                                                                     \
		type m;                                                                                                \
		ok = type##_read(&m, (loam_bytes){in, n});                                                             \
		if (ok)                                                                                                \
			type##_write(&b, &m);                                                                          \
	}

int main(void)
{
	char *line = NULL, *hex;
	size_t cap = 0;
	while (getline(&line, &cap, stdin) > 0) {
		hex = strchr(line, ':');
		*hex++ = 0;
		hex[strcspn(hex, "\n")] = 0;
		const char *name = line;
		size_t n = strlen(hex) / 2;
		char *in = malloc(n ? n : 1); /* of its own, so that one byte too far is seen */
		for (size_t i = 0; i < n; i++) {
			char digits[3] = {hex[2 * i], hex[2 * i + 1], 0};
			in[i] = (char)strtol(digits, NULL, 16);
		}
		loam_buffer b = {0};
		bool ok = false;
TABLE
		if (!ok)
			printf("error");
		for (size_t i = 0; ok && i < b.len; i++)
			printf("%02x", (unsigned char)b.data[i]);
		printf("\n");
		free(in);
		loam_free_all();
	}
	free(line);
}
