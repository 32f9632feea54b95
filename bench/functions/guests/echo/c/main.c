/* Answers with what it was sent, by the SDK. */
#define LOAM_IMPLEMENTATION
#include "../../../../../sdk/c/loam.h"

static loam_code echo(loam_request *r, loam_response *w)
{
	loam_bytes body;
	loam_code code = loam_body(r, &body);
	return code ? code : loam_answer(w, 200, "text/plain", body);
}

void loam_init(void) { loam_handle("POST /", echo); }
