/*
 * The worst that a guest can do to its host, one path each. What is meant to be refused by the host traps when it is
 * not: an answer of 200 to one of these is a bug of the host's.
 */
#define LOAM_IMPLEMENTATION
#include "../../../../sdk/c/loam.h"

#include <unistd.h>
#include <wasi/api.h>

#define IMPORT(name) __attribute__((import_module("loam"), import_name(#name)))

/* The host's functions as somebody declares them who lies. */
IMPORT(request_head) extern int head(uint32_t to, uint32_t cap);
IMPORT(request_body) extern int body(uint32_t to, uint32_t cap);
IMPORT(response_head) extern void answer_head(uint32_t from, uint32_t len);
IMPORT(response_body) extern int answer_body(uint32_t from, uint32_t len);
IMPORT(call) extern int64_t capability(uint32_t m, uint32_t ml, uint32_t in, uint32_t il, uint32_t out, uint32_t cap);
IMPORT(result) extern int result(uint32_t to, uint32_t cap);

#ifdef TABLE /* a module that changes a table has no image: each request starts it anew */
extern int table_grow(int by);    /* table.s */
extern void table_fill(int by);
#endif

static volatile uint32_t sink;

static loam_code good(loam_request *r, loam_response *w)
{
	loam_bytes b;
	loam_code code = loam_body(r, &b);
	return code ? code : loam_answer(w, 200, "text/plain", b);
}

static loam_code spin(loam_request *r, loam_response *w)
{
	(void)r, (void)w;
	for (;;)
		sink++;
}

/* Not a loop to the compiler: each turn waits for the one below it. */
__attribute__((noinline)) static uint32_t deeper(uint32_t n)
{
	sink = n;
	return deeper(n + 1) + sink;
}

static loam_code recursion(loam_request *r, loam_response *w)
{
	(void)r, (void)w;
	sink = deeper(0);
	return LOAM_OK;
}

/* Writes to every page that it can get, and then to none that it cannot. */
static loam_code memory(loam_request *r, loam_response *w)
{
	(void)r, (void)w;
	for (;;) {
		size_t at = __builtin_wasm_memory_grow(0, 16);
		if (at == (size_t)-1)
			abort();
		memset((void *)(at << 16), 0x5a, 16 << 16);
	}
}

static loam_code fill(loam_request *r, loam_response *w)
{
	(void)r, (void)w;
	size_t at = __builtin_wasm_memory_grow(0, 128);
	if (at == (size_t)-1)
		abort();
	for (;;)
		memset((void *)(at << 16), (int)sink++, 128 << 16);
}

static loam_code copy(loam_request *r, loam_response *w)
{
	(void)r, (void)w;
	size_t at = __builtin_wasm_memory_grow(0, 128);
	if (at == (size_t)-1)
		abort();
	for (;;)
		memmove((char *)(at << 16) + 8, (void *)(at << 16), (128 << 16) - 8), sink++;
}

static loam_code trap(loam_request *r, loam_response *w)
{
	(void)r, (void)w;
	__builtin_trap();
}

static loam_code flood(loam_request *r, loam_response *w)
{
	(void)r, (void)w;
	static char buffer[64 << 10];
	for (;;)
		sink += head((uint32_t)buffer, sizeof buffer);
}

/* Calls a capability until it is refused, and then goes on until its memory is full of refusals. */
static loam_code calls(loam_request *r, loam_response *w)
{
	(void)r, (void)w;
	loam_state_item item;
	for (;;)
		sink += loam_state_get("", "key", &item);
}

static loam_code self(loam_request *r, loam_response *w)
{
	(void)r;
	loam_response answer;
	loam_outgoing none = {.timeout_ms = 0};
	loam_code code = loam_invoke("self", "/self", &none, &answer);
	return code ? code : loam_answer(w, answer.status, "text/plain", answer.body);
}

static loam_code shout(loam_request *r, loam_response *w)
{
	(void)r, (void)w;
	static char line[4096];
	memset(line, 'x', sizeof line - 1);
	line[sizeof line - 1] = '\n';
	for (;;)
		sink += (uint32_t)write(2, line, sizeof line);
}

static loam_code large(loam_request *r, loam_response *w)
{
	(void)r, (void)w;
	static char page[64 << 10];
	for (;;)
		if (answer_body((uint32_t)page, sizeof page) < 0)
			abort();
}

static int number(void) { return 7; }

/* Calls through a table: functions of other types, and of places where there is none. */
static loam_code table(loam_request *r, loam_response *w)
{
	(void)w;
	const char *which = loam_path_value(r, "which");
	int (*volatile right)(void) = number;
	if (!strcmp(which, "type"))
		sink = (uint32_t)((int64_t (*)(double, int))right)(1.5, right());
	else if (!strcmp(which, "place"))
		sink = (uint32_t)((int (*)(void))(uintptr_t)(0x7fffff00 + right()))();
	else if (!strcmp(which, "null"))
		sink = (uint32_t)((int (*)(void))(uintptr_t)(right() - right()))();
	return loam_text(w, 200, "it was let");
}

#ifdef TABLE
/* Makes a table as large as it can, and fills it for ever. */
static loam_code grow(loam_request *r, loam_response *w)
{
	(void)r, (void)w;
	for (int by = 1 << 30; by > 0; by /= 2)
		while (table_grow(by) != -1)
			sink++;
	for (;;)
		table_fill(1 << 10);
}
#endif

/* Each import of the ABI, with addresses and lengths that are not the guest's. */
static loam_code lie(loam_request *r, loam_response *w)
{
	const char *which = loam_path_value(r, "which");
	uint32_t end = (uint32_t)__builtin_wasm_memory_size(0) << 16, n = (uint32_t)atoi(which);
	uint32_t at = n & 1 ? end - 1 : 0xfffffff0u, len = n & 2 ? 0xffffffffu : 64;
	switch (n >> 2) {
	case 0: sink = (uint32_t)head(at, len); break;
	case 1: sink = (uint32_t)body(at, len); break;
	case 2: answer_head(at, len); break;
	case 3: sink = (uint32_t)answer_body(at, len); break;
	case 4: sink = (uint32_t)capability(at, len, 0, 0, 0, 0); break;
	case 5: sink = (uint32_t)capability(0, 1, at, len, 0, 0); break;
	case 6: sink = (uint32_t)capability(0, 1, 0, 0, at, len); break;
	default: sink = (uint32_t)result(at, len); break;
	}
	return loam_text(w, 200, "it was believed");
}

/* The same of WASI, which answers with an error. It traps at the first that succeeds. */
static loam_code wasi(loam_request *r, loam_response *w)
{
	(void)r;
	uint32_t end = (uint32_t)__builtin_wasm_memory_size(0) << 16;
	uint32_t wrong[] = {end - 1, end, 0x80000000u, 0xfffffff0u, 0xffffffffu};
	for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		uint32_t p = wrong[i];
		__wasi_iovec_t into = {(uint8_t *)p, 64};
		__wasi_ciovec_t from = {(const uint8_t *)p, 0xffffffffu};
		__wasi_size_t n;
		if (!__wasi_random_get((uint8_t *)p, 64) || !__wasi_random_get(0, 0xffffffffu) ||
		    !__wasi_clock_time_get(0, 1, (__wasi_timestamp_t *)p) || !__wasi_args_sizes_get((__wasi_size_t *)p, &n) ||
		    !__wasi_environ_sizes_get(&n, (__wasi_size_t *)p) || !__wasi_fd_fdstat_get(1, (__wasi_fdstat_t *)p) ||
		    !__wasi_fd_write(2, &from, 1, &n) || !__wasi_fd_write(2, (__wasi_ciovec_t *)p, 0x10000000, &n) ||
		    !__wasi_fd_read(0, (__wasi_iovec_t *)p, 1, &n) || !__wasi_fd_write(2, &from, 0, (__wasi_size_t *)p) ||
		    !__wasi_poll_oneoff((__wasi_subscription_t *)p, (__wasi_event_t *)p, 0x7fffffff, &n))
			abort();
		(void)into;
	}
	return loam_text(w, 200, "nothing was believed");
}

/* A header that would end the response's head early. */
static loam_code split(loam_request *r, loam_response *w)
{
	(void)r;
	loam_text(w, 200, "split");
	loam_add_header(w, "X-Split", "a\r\nSet-Cookie: b");
	return LOAM_OK;
}

void loam_init(void)
{
	loam_handle("/good", good);
	loam_handle("/spin", spin);
	loam_handle("/recursion", recursion);
	loam_handle("/memory", memory);
	loam_handle("/fill", fill);
	loam_handle("/copy", copy);
	loam_handle("/trap", trap);
	loam_handle("/flood", flood);
	loam_handle("/calls", calls);
	loam_handle("/self", self);
	loam_handle("/shout", shout);
	loam_handle("/large", large);
	loam_handle("/table/{which}", table);
#ifdef TABLE
	loam_handle("/grow", grow);
#endif
	loam_handle("/lie/{which}", lie);
	loam_handle("/wasi", wasi);
	loam_handle("/split", split);
}
