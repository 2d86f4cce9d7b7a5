/* XDP programs: see program.h. */

#define _DEFAULT_SOURCE

#include "program.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/membarrier.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Their print callbacks have no argument of ours. */
static _Thread_local struct lx_log *current;

static int keep(const char *format, va_list arguments)
{
	size_t room = current ? sizeof current->text - current->length : 0;
	int written = room > 1 ? vsnprintf(current->text + current->length, room, format, arguments) : 0;

	if (written > 0)
		current->length += (size_t)written < room ? (uint32_t)written : (uint32_t)room - 1;
	return written;
}

static int keep_libbpf(enum libbpf_print_level level, const char *format, va_list arguments)
{
	return level == LIBBPF_DEBUG ? 0 : keep(format, arguments);
}

static int keep_libxdp(enum libxdp_print_level level, const char *format, va_list arguments)
{
	return level == LIBXDP_DEBUG ? 0 : keep(format, arguments);
}

struct listening {
	libbpf_print_fn_t libbpf;
	libxdp_print_fn_t libxdp;
};

/* Only for the duration of a call: this process may have other users of both libraries. */
static struct listening listen_to(struct lx_log *log)
{
	current = log;
	log->length = 0;
	log->text[0] = '\0';
	return (struct listening){libbpf_set_print(keep_libbpf), libxdp_set_print(keep_libxdp)};
}

static void stop_listening(struct listening before)
{
	libbpf_set_print(before.libbpf);
	libxdp_set_print(before.libxdp);
	current = NULL;
}

int lx_object_open(const void *bytes, size_t size, struct bpf_object **object, struct lx_log *log)
{
	struct listening before = listen_to(log);
	int error;

	*object = bpf_object__open_mem(bytes, size, NULL);
	error = *object ? 0 : -errno;
	stop_listening(before);
	return error;
}

int lx_object_load(struct bpf_object *object, struct lx_log *log)
{
	struct listening before = listen_to(log);
	int error = bpf_object__load(object);

	stop_listening(before);
	return error;
}

int lx_object_program(const struct bpf_object *object, const char *name)
{
	struct bpf_program *program = name ? bpf_object__find_program_by_name(object, name)
					   : bpf_object__next_program(object, NULL);

	return program ? bpf_program__fd(program) : -ENOENT;
}

int lx_program_run(int program, struct lx_run *run)
{
	LIBBPF_OPTS(bpf_test_run_opts, options);
	int error;

	options.data_in = run->frame;
	options.data_size_in = run->size;
	options.data_out = run->batch ? NULL : run->out;
	options.data_size_out = run->batch ? 0 : run->out_size;
	options.repeat = (int)run->repeat;
	options.flags = run->batch ? BPF_F_TEST_XDP_LIVE_FRAMES : 0;
	options.batch_size = run->batch;
	error = bpf_prog_test_run_opts(program, &options);
	run->out_size = options.data_size_out;
	run->action = options.retval;
	run->duration_ns = options.duration;
	return error;
}

int lx_map_is_xskmap(const struct bpf_map *map)
{
	return bpf_map__type(map) == BPF_MAP_TYPE_XSKMAP;
}

int lx_link_create(int program, int ifindex, int generic)
{
	LIBBPF_OPTS(bpf_link_create_opts, options);
	int link;

	options.flags = generic ? XDP_FLAGS_SKB_MODE : XDP_FLAGS_DRV_MODE;
	link = bpf_link_create(program, ifindex, BPF_XDP, &options);
	return link < 0 ? -errno : link;
}

int lx_link_update(int link, int program)
{
	return bpf_link_update(link, program, NULL) ? -errno : 0;
}

int lx_attached(int ifindex, struct lx_attached *attached)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, query);
	struct bpf_prog_info info = {0};
	uint32_t size = sizeof info;
	int error = bpf_xdp_query(ifindex, 0, &query);
	int program;

	memset(attached, 0, sizeof *attached);
	if (error)
		return error;
	attached->generic = query.attach_mode == XDP_ATTACHED_SKB;
	attached->id = query.prog_id;
	if (query.attach_mode == XDP_ATTACHED_MULTI)
		attached->id = query.drv_prog_id ? query.drv_prog_id : query.skb_prog_id;
	program = attached->id ? bpf_prog_get_fd_by_id(attached->id) : -1;
	if (program < 0)
		return 0;
	if (!bpf_obj_get_info_by_fd(program, &info, &size))
		memcpy(attached->name, info.name, sizeof attached->name);
	attached->name[sizeof attached->name - 1] = '\0';
	close(program);
	return 0;
}

static enum xdp_attach_mode mode_of(int generic)
{
	return generic ? XDP_MODE_SKB : XDP_MODE_NATIVE;
}

/* Whether the program runs in a dispatcher on this interface; otherwise it would exclude all others. */
static int is_dispatched(int ifindex)
{
	struct xdp_multiprog *programs = xdp_multiprog__get_from_ifindex(ifindex);
	int dispatched;

	if (!programs || libxdp_get_error(programs))
		return 0;
	dispatched = !xdp_multiprog__is_legacy(programs);
	xdp_multiprog__close(programs);
	return dispatched;
}

int lx_dispatcher_attach(struct bpf_object *object, const char *name, int ifindex, int generic,
			 struct xdp_program **program, struct lx_log *log)
{
	DECLARE_LIBXDP_OPTS(xdp_program_opts, options);
	struct listening before = listen_to(log);
	int error;

	options.obj = object;
	options.prog_name = name;
	*program = xdp_program__create(&options);
	error = (int)libxdp_get_error(*program);
	if (error) {
		*program = NULL;
		goto out;
	}
	error = xdp_program__attach(*program, ifindex, mode_of(generic), 0);
	if (!error && !is_dispatched(ifindex)) {
		(void)xdp_program__detach(*program, ifindex, mode_of(generic), 0);
		error = -EOPNOTSUPP;
	}
	if (error) {
		xdp_program__close(*program);
		*program = NULL;
	}
out:
	stop_listening(before);
	return error;
}

int lx_dispatcher_detach(struct xdp_program *program, int ifindex, int generic, struct lx_log *log)
{
	struct listening before = listen_to(log);
	int error = xdp_program__detach(program, ifindex, mode_of(generic), 0);

	xdp_program__close(program);
	stop_listening(before);
	return error;
}

int lx_wait_for_programs(void)
{
	/* Runs of an XDP program are RCU readers, and this command waits for an RCU grace period (membarrier(2)). */
	return (int)syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) ? -errno : 0;
}
