// The interpreter for arm64. x19 points to the current instruction:
//
//   0 nr   4 outs   8 mask   12 onErrno   16 onZero   20 (unused)   24 args[6]
//
// nr..onZero are 32 bits wide (all addresses lie below 4 GiB), args 64 bits.
// The two words at x20 are the failure report. Its third word holds the
// address of the instruction that sends it.

	.globl _start
_start:
	ldr	w19, first		// patched: first instruction
	ldr	w20, report		// patched: report words
step:
	mov	w21, #4096		// retries left for EINTR and EAGAIN
again:
	ldr	w8, [x19]
	ldp	x0, x1, [x19, #24]
	ldp	x2, x3, [x19, #40]
	ldp	x4, x5, [x19, #56]
	svc	#0
	cmn	x0, #4095
	b.hs	failed
	ldr	w9, [x19, #4]		// zero-terminated list of places for the result
store:
	ldr	w10, [x9], #4
	cbz	w10, stored
	str	x0, [x10]
	b	store
stored:
	cbnz	x0, next
	ldr	w9, [x19, #16]
	cbz	w9, next
	mov	w19, w9
	b	step
next:
	add	w19, w19, #72
	b	step
failed:
	neg	w0, w0
	cmp	w0, #4			// EINTR
	b.eq	retry
	cmp	w0, #11			// EAGAIN
	b.ne	judge
retry:
	subs	w21, w21, #1
	b.ne	again
judge:
	cmp	w0, #160		// the sets end there; filters can return more
	b.hs	fatal
	ldr	w9, [x19, #8]		// bit set of tolerated errnos
	lsr	w10, w0, #5
	ldr	w10, [x9, w10, uxtw #2]
	lsr	w10, w10, w0
	tbz	w10, #0, fatal
	ldr	w19, [x19, #12]
	b	step
fatal:
	stp	x19, x0, [x20]
	ldr	w19, [x20, #16]
	str	wzr, [x20, #16]		// the next failure crashes: where a filter refuses
	b	step			// the report and the exit as well, nothing else ends
first:
	.word	0x10000001
report:
	.word	0x10000002
