// A CGI program as it would run below any web server of the nineties.
#include <stdio.h>
#include <stdlib.h>

static int served;

int main(int argc, char **argv) {
	const char *method = getenv("REQUEST_METHOD"), *length = getenv("CONTENT_LENGTH");
	printf("Content-Type: text/plain\nX-Method: %s\n\n", method);
	printf("run %d, %d arguments, last %s, %s bytes: ", ++served, argc, argv[argc - 1], length);
	for (int c; (c = getchar()) != EOF;)
		putchar(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
	fprintf(stderr, "served %s\n", method);
	return argc > 3 ? 7 : 0;
}
