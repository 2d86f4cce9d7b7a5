/* SPDX-License-Identifier: MIT */
/* The tables of names and sentences, expanded from the shared verdict list. */
#include "l4raw_abi.h"
#include "abi.h"

#define NAME(name, sentence) #name,
static const char *const names[] = { L4_VERDICTS(NAME) };

#define SENTENCE(name, sentence) sentence,
static const char *const sentences[] = { L4_VERDICTS(SENTENCE) };

_Static_assert(sizeof(names) / sizeof(names[0]) == L4_VERDICT_COUNT, "a name for each verdict");

unsigned l4_abi_version(void)
{
	return L4_ABI_VERSION;
}

const char *l4_verdict_name(unsigned verdict)
{
	return verdict < L4_VERDICT_COUNT ? names[verdict] : "?";
}

const char *l4_verdict_sentence(unsigned verdict)
{
	return verdict < L4_VERDICT_COUNT ? sentences[verdict] : "?";
}
