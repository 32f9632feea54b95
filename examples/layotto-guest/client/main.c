// id_1 says how much there is of what the query names. It asks id_2 for it.
#include "../proxy_wasm.h"
#include <stdio.h>

void EXPORT(proxy_get_id)(void) { set(CALL_DATA, "id_1"); }

uint32_t EXPORT(proxy_on_request_body)(uint32_t id, size_t size, uint32_t end) {
	char *body, *count;
	size_t length, digits;
	if (proxy_get_buffer_bytes(REQUEST_BODY, 0, size, &body, &length) || length < 5 || memcmp(body, "name=", 5)) {
		fail("the parameter name is missing");
		return PAUSE;
	}
	if (proxy_invoke_service("id_2", 4, "", 0, body + 5, length - 5, &count, &digits)) {
		fail("id_2 did not answer");
		return PAUSE;
	}
	char answer[256];
	snprintf(answer, sizeof answer, "There are %.*s inventories for %.*s.\n", (int)digits, count, (int)length - 5, body + 5);
	set(RESPONSE_BODY, answer);
	return CONTINUE;
}
