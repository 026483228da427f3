# The interpreter for amd64. %rbx points to the current instruction:
#
#   0 nr   4 outs   8 mask   12 onErrno   16 onZero   20 (unused)   24 args[6]
#
# nr..onZero are 32 bits wide (all addresses lie below 4 GiB), args 64 bits.
# The two words at %r14 are the failure report. Its third word holds the
# address of the instruction that sends it.

	.globl _start
_start:
	mov	$0x10000001, %ebx	# patched: first instruction
	mov	$0x10000002, %r14d	# patched: report words
step:
	mov	$4096, %ebp		# retries left for EINTR and EAGAIN
again:
	mov	(%rbx), %eax
	mov	24(%rbx), %rdi
	mov	32(%rbx), %rsi
	mov	40(%rbx), %rdx
	mov	48(%rbx), %r10
	mov	56(%rbx), %r8
	mov	64(%rbx), %r9
	syscall
	cmp	$-4095, %rax
	jae	failed
	mov	4(%rbx), %edi		# zero-terminated list of places for the result
store:
	mov	(%rdi), %esi
	test	%esi, %esi
	jz	stored
	mov	%rax, (%rsi)
	add	$4, %edi
	jmp	store
stored:
	test	%rax, %rax
	jnz	next
	mov	16(%rbx), %eax
	test	%eax, %eax
	jz	next
	mov	%eax, %ebx
	jmp	step
next:
	add	$72, %ebx
	jmp	step
failed:
	neg	%eax
	cmp	$4, %eax		# EINTR
	je	retry
	cmp	$11, %eax		# EAGAIN
	jne	judge
retry:
	dec	%ebp
	jnz	again
judge:
	cmp	$160, %eax		# the sets end there; filters can return more
	jae	fatal
	mov	8(%rbx), %edi		# bit set of tolerated errnos
	bt	%eax, (%rdi)
	jnc	fatal
	mov	12(%rbx), %ebx
	jmp	step
fatal:
	mov	%rbx, (%r14)
	mov	%rax, 8(%r14)
	xor	%ebx, %ebx		# the next failure crashes: where a filter refuses
	xchg	%ebx, 16(%r14)		# the report and the exit as well, nothing else ends
	jmp	step
