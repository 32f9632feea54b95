/* Answers with what it was sent, by the ABI alone. */
#define IMPORT(name) __attribute__((import_module("loam"), import_name(#name)))

IMPORT(request_body) extern int request_body(char *to, unsigned long cap);
IMPORT(response_body) extern int response_body(const char *from, unsigned long len);

#ifndef SIZE
#define SIZE (16 << 10)
#endif

static char buffer[SIZE];

__attribute__((export_name("loam_serve"))) void serve(void)
{
	for (int n; (n = request_body(buffer, sizeof buffer)) > 0;)
		response_body(buffer, n);
}
