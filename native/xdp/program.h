/* XDP programs: load with libbpf, attach with a BPF link or through libxdp's dispatcher.
 *
 * Lives here: what takes an options struct or a print callback, which Python
 * had better not know. Functions of libbpf that take numbers and pointers are
 * called as they are; cffi reads their prototypes here and the C compiler
 * compares them with libbpf's own.
 */
#ifndef LX_PROGRAM_H
#define LX_PROGRAM_H

#ifdef L4RAW_CDEF
struct bpf_map *bpf_object__next_map(const struct bpf_object *object, const struct bpf_map *after);
void bpf_object__close(struct bpf_object *object);
const char *bpf_map__name(const struct bpf_map *map);
int bpf_map__fd(const struct bpf_map *map);
uint32_t bpf_map__key_size(const struct bpf_map *map);
uint32_t bpf_map__value_size(const struct bpf_map *map);
uint32_t bpf_map__max_entries(const struct bpf_map *map);
int bpf_map__set_max_entries(struct bpf_map *map, uint32_t entries);
int bpf_map_update_elem(int fd, const void *key, const void *value, uint64_t flags);
int bpf_map_lookup_elem(int fd, const void *key, void *value);
int bpf_map_delete_elem(int fd, const void *key);
uint32_t libbpf_major_version(void);
uint32_t libbpf_minor_version(void);
#else
#include <stddef.h>
#include <stdint.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <xdp/libxdp.h>
#endif

struct bpf_map;
struct bpf_object;
struct xdp_program;

/* What libbpf and libxdp said during a call: the beginning of it. */
struct lx_log {
	char text[16384];
	uint32_t length;
};

struct lx_attached {
	uint32_t id; /* of the program, 0 for none */
	int generic;
	char name[16]; /* empty when this process may not know it */
};

/* One call of BPF_PROG_RUN (Documentation/bpf/bpf_prog_run.rst). */
struct lx_run {
	const void *frame;
	uint32_t size;
	uint32_t repeat;
	uint32_t batch; /* 0: a trial; else live frames, as many between two flushes */
	void *out;      /* a trial's frame afterwards; there is room for out_size bytes, then its length */
	uint32_t out_size;
	uint32_t action;      /* of the last trial */
	uint32_t duration_ns; /* of a trial, on average */
};

/* All that return int: 0 or more, or an errno as a negative number. */

int lx_object_open(const void *bytes, size_t size, struct bpf_object **object, struct lx_log *log);
int lx_object_load(struct bpf_object *object, struct lx_log *log);
/* The program of this name, or the first; its descriptor. ENOENT: there is none. */
int lx_object_program(const struct bpf_object *object, const char *name);
/* EINTR: a signal came; the live frames until then were sent. */
int lx_program_run(int program, struct lx_run *run);
int lx_map_is_xskmap(const struct bpf_map *map);

/* A descriptor; when the last copy of it closes, the program is detached. */
int lx_link_create(int program, int ifindex, int generic);
/* Another program in the place of the link's; no frame passes without one. */
int lx_link_update(int link, int program);
int lx_attached(int ifindex, struct lx_attached *attached);

/* EOPNOTSUPP: libxdp had to attach the program alone; it was detached again. */
int lx_dispatcher_attach(struct bpf_object *object, const char *name, int ifindex, int generic,
			 struct xdp_program **program, struct lx_log *log);
int lx_dispatcher_detach(struct xdp_program *program, int ifindex, int generic, struct lx_log *log);

/* Return when no run of a program that had begun before is still under way. 0, or an errno as a negative number. */
int lx_wait_for_programs(void);

#endif
