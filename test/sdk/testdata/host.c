/* A host for the function of examples/languages/c, native, so that the sanitizers watch it. Each line of the input is a
 * request's head and body, in hexadecimal; each capability call is answered by what the line says third. */
#define _GNU_SOURCE
#include "../../../examples/languages/c/main.c"

static char *head, *body, *answer;
static size_t head_len, body_len, answer_len;

size_t loam_host_request_head(char *data, size_t cap)
{
	if (head_len <= cap)
		memcpy(data, head, head_len);
	return head_len;
}

int32_t loam_host_request_body(char *data, size_t cap)
{
	size_t n = body_len < cap ? body_len : cap;
	memcpy(data, body, n);
	body += n;
	body_len -= n;
	return (int32_t)n;
}

static void print(const char *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		printf("%02x", (unsigned char)data[i]);
}

void loam_host_response_head(const char *data, size_t len)
{
	print(data, len);
	printf(" ");
}

int32_t loam_host_response_body(const char *data, size_t len)
{
	print(data, len);
	return 0;
}

int64_t loam_host_call(const char *method, size_t method_len, const char *in, size_t in_len, char *out, size_t out_cap)
{
	(void)method, (void)method_len, (void)in, (void)in_len;
	if (answer_len <= out_cap)
		memcpy(out, answer, answer_len);
	return (int64_t)answer_len;
}

int32_t loam_host_result(char *data, size_t cap)
{
	memcpy(data, answer, answer_len < cap ? answer_len : cap);
	return (int32_t)answer_len;
}

/* Bytes of their own, so that one too far is seen. */
static char *unhex(char *text, size_t *len)
{
	*len = strlen(text) / 2;
	char *data = malloc(*len ? *len : 1);
	for (size_t i = 0; i < *len; i++) {
		char digits[3] = {text[2 * i], text[2 * i + 1], 0};
		data[i] = (char)strtol(digits, NULL, 16);
	}
	return data;
}

int main(void)
{
	char *line = NULL;
	size_t cap = 0;
	while (getline(&line, &cap, stdin) > 0) {
		char *rest = line, *mine[3];
		line[strcspn(line, "\n")] = 0;
		mine[0] = head = unhex(strsep(&rest, " "), &head_len);
		mine[1] = body = unhex(strsep(&rest, " "), &body_len);
		mine[2] = answer = unhex(rest, &answer_len);
		loam_serve();
		printf("\n");
		for (int i = 0; i < 3; i++)
			free(mine[i]);
	}
	free(line);
}
