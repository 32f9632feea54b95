// An interpreter of a small byte code: one loop round a large switch.
#include "program.h"

enum { PUSH, ADD, SUB, MUL, DUP, SWAP, JUMPIF, STORE, LOAD, LESS, HALT };
// sum of i*i for i below the argument
static const uint8_t program[] = {
	PUSH, 0, STORE, 1, PUSH, 0, STORE, 2,                         // sum, i
	LOAD, 2, DUP, MUL, LOAD, 1, ADD, STORE, 1,                    // sum += i*i
	LOAD, 2, PUSH, 1, ADD, DUP, STORE, 2, LOAD, 0, LESS, JUMPIF, 8, // i++, until the argument
	LOAD, 1, HALT,
};

static uint32_t interpret(uint32_t argument) {
	uint32_t stack[16], vars[4] = {argument}, *sp = stack;
	for (const uint8_t *pc = program;;) {
		switch (*pc++) {
		case PUSH: *sp++ = *pc++; break;
		case ADD: sp--; sp[-1] += *sp; break;
		case SUB: sp--; sp[-1] -= *sp; break;
		case MUL: sp--; sp[-1] *= *sp; break;
		case DUP: *sp = sp[-1]; sp++; break;
		case SWAP: { uint32_t t = sp[-1]; sp[-1] = sp[-2], sp[-2] = t; break; }
		case JUMPIF: if (*--sp) pc = program + *pc; else pc++; break;
		case STORE: vars[*pc++] = *--sp; break;
		case LOAD: *sp++ = vars[*pc++]; break;
		case LESS: sp--; sp[-1] = sp[-1] < *sp; break;
		default: return *--sp;
		}
	}
}

EXPORT("run") uint32_t run(uint32_t n) {
	uint32_t sum = 0;
	while (n--) sum += interpret(1000 + (n & 7));
	return sum;
}
