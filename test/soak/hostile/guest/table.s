# A table of references of the host's, which C has no word for.
	.tabletype	hoard, externref
hoard:

	.globl	table_grow
	.type	table_grow,@function
table_grow:
	.functype	table_grow (i32) -> (i32)
	ref.null_extern
	local.get	0
	table.grow	hoard
	end_function

	.globl	table_fill
	.type	table_fill,@function
table_fill:
	.functype	table_fill (i32) -> ()
	i32.const	0
	ref.null_extern
	local.get	0
	table.fill	hoard
	end_function
