// A JSON parser by recursive descent: calls, switches, short loops.
#include "program.h"

static const char text[] =
	"{\"method\":\"GET\",\"path\":\"/a/b?x=1\",\"headers\":{\"host\":\"x\",\"accept\":\"*/*\",\"user-agent\":\"curl/8.0\"},"
	"\"items\":[{\"id\":1,\"name\":\"widget\",\"price\":9.5},{\"id\":2,\"name\":\"gadget\",\"price\":3.25},"
	"{\"id\":3,\"name\":\"doo\\\"hickey\",\"price\":-7e2}],\"flags\":[true,false,null,[],{}]}";
static const char *p;
static uint32_t sum;

static void spaces(void) {
	while (*p == ' ' || *p == '\n' || *p == '\t') p++;
}

static void string(void) {
	for (p++; *p != '"'; p++) {
		if (*p == '\\') p++;
		sum = sum * 31 + *p;
	}
	p++;
}

static void number(void) {
	double v = 0, scale = 1;
	int negative = *p == '-', exponent = 0;
	p += negative;
	while (*p >= '0' && *p <= '9') v = v * 10 + (*p++ - '0');
	if (*p == '.')
		for (p++; *p >= '0' && *p <= '9'; p++) v += (*p - '0') * (scale /= 10);
	if (*p == 'e')
		for (p++; *p >= '0' && *p <= '9'; p++) exponent = exponent * 10 + (*p - '0');
	while (exponent--) v *= 10;
	sum += (uint32_t)(negative ? -v : v);
}

__attribute__((noinline)) static void value(void) {
	spaces();
	switch (*p) {
	case '{':
	case '[': {
		char close = *p == '{' ? '}' : ']';
		for (p++; spaces(), *p != close;) {
			if (close == '}') string(), spaces(), p++;
			value();
			spaces();
			if (*p == ',') p++;
		}
		p++;
		break;
	}
	case '"': string(); break;
	case 't': case 'n': p += 4; sum++; break;
	case 'f': p += 5; break;
	default: number();
	}
}

EXPORT("run") uint32_t run(uint32_t n) {
	while (n--) p = text, value();
	return sum;
}
