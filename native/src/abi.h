/* SPDX-License-Identifier: MIT */
/*
 * What the native library says about itself. native/include/l4raw_abi.h has
 * no functions, because BPF and cffi read it too; these are C's alone.
 */
#ifndef L4RAW_SRC_ABI_H
#define L4RAW_SRC_ABI_H

/* The L4_ABI_VERSION that the library was compiled with. */
unsigned l4_abi_version(void);

/* As in the header, without L4_: "DROP_TTL". "?" for a number that is no verdict. */
const char *l4_verdict_name(unsigned verdict);

/* What a person is told. "?" for a number that is no verdict. */
const char *l4_verdict_sentence(unsigned verdict);

#endif
