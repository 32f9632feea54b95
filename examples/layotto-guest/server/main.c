// id_2 looks up in the store called redis what its parameter names.
#include "../proxy_wasm.h"

void EXPORT(proxy_get_id)(void) { set(CALL_DATA, "id_2"); }

uint32_t EXPORT(proxy_on_request_body)(uint32_t id, size_t size, uint32_t end) {
	char *key, *value;
	size_t length, digits;
	if (proxy_get_buffer_bytes(REQUEST_BODY, 0, size, &key, &length) || proxy_get_state("redis", 5, key, length, &value, &digits)) {
		fail("the state cannot be read");
		return PAUSE;
	}
	proxy_set_buffer_bytes(RESPONSE_BODY, 0, 0, value, digits);
	return CONTINUE;
}
