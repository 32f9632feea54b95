/*
 * The first and the last function of the chain. Before either reads its request's body it looks through all of its
 * memory for the mark that every body bears: none but a request before can have left it there. Then it leaves it itself,
 * wherever it can.
 */
#define LOAM_IMPLEMENTATION
#include "../../../../sdk/c/loam.h"

/* The mark, so written that it is not in memory by itself. */
static const char hidden[] = {'l' ^ 85, 'o' ^ 85, 'a' ^ 85, 'm' ^ 85, '-' ^ 85, 'm' ^ 85, 'a' ^ 85, 'r' ^ 85, 'k' ^ 85, ':' ^ 85};

static char kept[4096];

/* Compares without a copy of the mark, which would be found. */
__attribute__((noinline)) static bool marked_at(const char *p)
{
	for (size_t i = 0; i < sizeof hidden; i++)
		if ((p[i] ^ 85) != ((volatile const char *)hidden)[i])
			return false;
	return true;
}

static bool marked(void)
{
	const char *end = (const char *)(__builtin_wasm_memory_size(0) << 16) - sizeof hidden;
	for (const char *p = (const char *)8; p && p < end; p++)
		if (!(p = memchr(p, 'l', (size_t)(end - p))))
			break;
		else if (marked_at(p))
			return true;
	return false;
}

static loam_code take(loam_request *r, loam_bytes *body)
{
	if (marked())
		return loam_fail(LOAM_DATA_LOSS, "memory bears the mark of a request before");
	loam_code code = loam_body(r, body);
	if (code)
		return code;
	memcpy(kept, body->data, body->len < sizeof kept ? body->len : sizeof kept);
	size_t at = __builtin_wasm_memory_grow(0, 1); /* and where there was no memory when the function began */
	if (at != (size_t)-1)
		memcpy((char *)(at << 16) + 100, body->data, body->len < 4096 ? body->len : 4096);
	return LOAM_OK;
}

static loam_code front(loam_request *r, loam_response *w)
{
	loam_outgoing next = {.timeout_ms = 0};
	loam_response answer;
	loam_code code = take(r, &next.body);
	if (!code)
		code = loam_invoke("middle", "/", &next, &answer);
	if (code)
		return code;
	char *text = loam_alloc(answer.body.len + 2);
	memcpy(text, "f:", 2);
	memcpy(text + 2, answer.body.data, answer.body.len);
	return loam_answer(w, answer.status, "text/plain", (loam_bytes){text, answer.body.len + 2});
}

/* Answers with the body from its end to its start. */
static loam_code back(loam_request *r, loam_response *w)
{
	loam_bytes body;
	loam_code code = take(r, &body);
	if (code)
		return code;
	char *text = loam_alloc(body.len + 1);
	for (size_t i = 0; i < body.len; i++)
		text[i] = body.data[body.len - 1 - i];
	return loam_answer(w, 200, "text/plain", (loam_bytes){text, body.len});
}

void loam_init(void)
{
	loam_handle("/front", front);
	loam_handle("/back", back);
}
