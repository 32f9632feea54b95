// What a guest written for Layotto imports and exports: Proxy-Wasm, and two calls more.
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define IMPORT(name) __attribute__((import_module("env"), import_name(#name))) uint32_t name
#define EXPORT(name) __attribute__((export_name(#name))) name

enum { REQUEST_BODY = 0, RESPONSE_BODY = 1, CALL_DATA = 8 };
enum { CONTINUE = 0, PAUSE = 1 };
enum { LOG_ERROR = 4 };

IMPORT(proxy_log)(uint32_t level, const char *message, size_t size);
IMPORT(proxy_get_buffer_bytes)(uint32_t buffer, size_t start, size_t max, char **data, size_t *size);
IMPORT(proxy_set_buffer_bytes)(uint32_t buffer, size_t start, size_t size, const char *data, size_t data_size);
IMPORT(proxy_get_state)(const char *store, size_t store_size, const char *key, size_t key_size, char **value, size_t *size);
IMPORT(proxy_invoke_service)(const char *id, size_t id_size, const char *method, size_t method_size,
	const char *param, size_t param_size, char **result, size_t *size);

// The host writes into memory that it gets here.
void *EXPORT(proxy_on_memory_allocate)(size_t size) { return malloc(size); }
void EXPORT(proxy_abi_version_0_2_0)(void) {}
void EXPORT(proxy_on_context_create)(uint32_t id, uint32_t parent) {}

static inline void set(uint32_t buffer, const char *text) { proxy_set_buffer_bytes(buffer, SIZE_MAX, 0, text, strlen(text)); }
static inline void fail(const char *why) { proxy_log(LOG_ERROR, why, strlen(why)); }
