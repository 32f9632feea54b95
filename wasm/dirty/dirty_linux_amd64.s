#include "textflag.h"

// Of a region.
#define VERSION 0
#define BASE 8
#define SIZE 16
#define NOTED 24
#define PAGES 32
#define REGION 256
#define MAX 56

#define SYS_mprotect 10
#define READ_WRITE 3
#define SEGV_ACCERR 2

// func handler() uintptr
TEXT ·handler(SB), NOSPLIT, $0-8
	LEAQ faulted<>(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// faulted(signal DI, info SI, context DX) is called by the kernel, as C is called. What runs was stopped anywhere: there is
// no goroutine here and no Go stack. It uses only registers that C lets it use.
TEXT faulted<>(SB), NOSPLIT|NOFRAME, $0
	CMPL 8(SI), $SEGV_ACCERR   // info.si_code: what is mapped may not be done so
	JNE  others
	MOVQ 16(SI), R8            // info.si_addr
	LEAQ ·regions(SB), R9
	MOVQ ·used(SB), R10
look:
	TESTQ R10, R10
	JZ    others
	MOVQ  VERSION(R9), CX
	MOVQ  R8, AX
	SUBQ  BASE(R9), AX
	CMPQ  AX, SIZE(R9)
	JAE   another
	TESTQ $1, CX
	JNZ   another
	CMPQ  CX, VERSION(R9)
	JEQ   found
another:
	ADDQ $REGION, R9
	DECQ R10
	JMP  look

found:
	MOVQ NOTED(R9), CX
	CMPQ CX, $MAX
	JAE  all
	SHRQ $12, AX
	MOVL AX, PAGES(R9)(CX*4)
	INCQ CX
	MOVQ CX, NOTED(R9)
	MOVQ R8, DI
	ANDQ $~4095, DI
	MOVQ $4096, SI
	MOVQ $READ_WRITE, DX
	MOVQ $SYS_mprotect, AX
	SYSCALL
	TESTQ AX, AX
	JNZ   all                  // a page for itself is a mapping more, and there may be as many as there can be
	RET

all:
	MOVQ $(MAX+1), NOTED(R9)
	MOVQ BASE(R9), DI
	MOVQ SIZE(R9), SI
	MOVQ $READ_WRITE, DX
	MOVQ $SYS_mprotect, AX
	SYSCALL
	TESTQ AX, AX
	JNZ   broken
	RET

broken:
	INT $3                     // nothing is left to do; another try of the write would only come here again

others:
	MOVQ ·next(SB), AX
	JMP  AX
