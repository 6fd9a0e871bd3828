/* Fibers for C. A thread enters and is a fiber from then on; calls of <annulet/selector/posix.h> then wait
 * for the fiber and not for the thread.
 *
 *   static void serve(void* connection) { ... annulet_read(...) ... }
 *
 *   annulet_enter();
 *   for (...) annulet_spawn(serve, connection, NULL);
 *   annulet_leave();
 *
 * Every call returns 0, or a negative errno and has then changed nothing; none throws. Handles are for the
 * thread of their hub: -EPERM on others. With the hub all its fibers have ended, but their handles are still
 * to be joined or detached. C and C++ fibers are the same fibers, and may be mixed.
 *
 * After fork(2) the child has no hub, and may enter; annulet/hub/hub.hpp says more. Handles of before, the
 * fiber's own that forked too, say there that their fibers have ended. A child that came by _Fork, vfork or
 * clone(2) shall make no call of this header.
 *
 * A fiber has a stack of 256 KiB, if nothing else is chosen, and not a thread's 8 MiB: what is large belongs
 * on the heap. (Who enters keeps the thread's.) One that runs over it ends the process with a message that
 * says so, if its code was compiled with -fstack-clash-protection.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

typedef struct annulet_fiber annulet_fiber;

/* This thread gets a hub. -EEXIST where it has one, -EMFILE and the like where the kernel gives none,
 * -ENOMEM. */
int annulet_enter(void);
/* What C may choose about it; the rest is as hub_options.hpp says. 0 is the default, so of
 *
 *   const annulet_options options = {.size = sizeof(options), .stack_size = 1 << 20};
 */
typedef struct annulet_options {
  size_t size;             /* of this structure */
  size_t stack_size;       /* of fibers, in bytes */
  uint64_t shutdown_limit; /* nanoseconds that annulet_leave waits for killed fibers */
  uint64_t slow_slice;     /* nanoseconds after which a fiber that keeps the thread is reported on stderr */
  int dump_signal;         /* on which the fibers are listed on stderr */
  int reserved;            /* 0 */
} annulet_options;
/* The same with options; NULL: none. -EINVAL for one out of its bounds, -E2BIG where something is set that
 * this version does not know, or the size is more than 4,096, -EAGAIN where too many hubs have a signal. */
int annulet_enter_with(const annulet_options* options);
/* Kills all other fibers of the thread, waits until they have ended, and gives the hub up: as annulet::hub's
 * destructor does, which ends the process where they do not end in time. A thread that ends without it leaves
 * hub and fibers behind for good. -ENOENT where this thread has not entered, -EPERM in another fiber than the
 * one that did. */
int annulet_leave(void);

/* A new fiber calls run(argument); it starts when this one parks or yields. `fiber` gets a handle, for one
 * annulet_join or annulet_detach; NULL: nobody will ask. -ENOENT without a hub, -ENOMEM, -EINVAL. */
int annulet_spawn(void (*run)(void* argument), void* argument, annulet_fiber** fiber);
/* Parks until it has ended, however it did; then the handle is gone. -ECANCELED where this fiber was killed
 * or its time is over, -EDEADLK for itself and where all fibers wait for each other, -EINVAL where another
 * waits already: the handle is as it was. */
int annulet_join(annulet_fiber* fiber);
/* Ends its waits: the drop-ins of the other fiber say ECANCELED. One that has not begun never runs. */
int annulet_kill(annulet_fiber* fiber);
/* The fiber goes on; the handle is gone. */
int annulet_detach(annulet_fiber* fiber);

/* Lets all others run that are ready. -ECANCELED after that, where this fiber was killed; -ENOENT without a
 * hub. */
int annulet_yield(void);
/* The running fiber's number, which no other fiber of the hub ever has; 0 without a hub. */
uint64_t annulet_fiber_self(void);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif
