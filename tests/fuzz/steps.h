/* SPDX-License-Identifier: MIT */
/*
 * The bytes of an input: which world, then steps. tests/fuzz/seeds.py writes
 * the same. A step begins with its kind (modulo STEPS), and all numbers are in
 * the order of the host.
 *
 *   FRAME   how, odd, stretch, length u16, bytes   a new frame, with stretch * stretch bytes of 0xa5 after it
 *   AGAIN   which, how, odd, at, xor               one that was given before, with one byte changed
 *   ANSWER  which, how, odd, flags                 one that was sent, turned round; TCP flags, if not 0
 *   FLOOD   which, how, count                      one that was given before, from other ports, twice each
 *   BURST   count                                  so many frames that follow are one burst
 *   CLOCK   ms u32                                 time passes
 *   SWITCH                                         the other half of the policy
 *   QUEUE   what                                   pass, online, offline
 *   FREE    n                                      the flow of the n-th entry in use
 *   EXPIRE  ms u16                                 flows that were silent for longer
 *   PUT     which, backend, state, hop             a flow, as Python makes one after a miss
 *   TOUCH   n, state, packets u32                  an entry, as Python does
 *   HOP     n, known                               what is known of a backend's MAC
 */
#ifndef L4RAW_TESTS_FUZZ_STEPS_H
#define L4RAW_TESTS_FUZZ_STEPS_H

enum step { FRAME, AGAIN, ANSWER, FLOOD, BURST, CLOCK, SWITCH, QUEUE, FREE, EXPIRE, PUT, TOUCH, HOP, STEPS };

#endif
