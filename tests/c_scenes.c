#define _GNU_SOURCE
#include "c_scenes.h"

#include <annulet/hub/c.h>
#include <annulet/selector/posix.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(what)    \
  do {                 \
    if (!(what)) {     \
      return __LINE__; \
    }                  \
  } while (0)

int scene_without_hub(void) {
  int ends[2];
  char byte = 0;
  struct pollfd one;
  CHECK(annulet_fiber_self() == 0);
  CHECK(annulet_yield() == -ENOENT);
  CHECK(annulet_leave() == -ENOENT);
  CHECK(annulet_spawn((void (*)(void*))abort, NULL, NULL) == -ENOENT);
  CHECK(pipe(ends) == 0);
  one.fd = ends[0];
  one.events = POLLIN;
  CHECK(annulet_poll(&one, 1, 1) == 0);
  CHECK(annulet_write(ends[1], "x", 1) == 1);
  CHECK(annulet_poll(&one, 1, -1) == 1);
  CHECK(annulet_read(ends[0], &byte, 1) == 1 && byte == 'x');
  CHECK(annulet_usleep(1) == 0);
  CHECK(annulet_close(ends[0]) == 0 && annulet_close(ends[1]) == 0);
  CHECK(annulet_close(ends[1]) == -1 && errno == EBADF);
  return 0;
}

int scene_enter_and_leave(void) {
  int i;
  for (i = 0; i < 3; ++i) {
    CHECK(annulet_enter() == 0);
    CHECK(annulet_enter() == -EEXIST);
    CHECK(annulet_fiber_self() != 0);
    CHECK(annulet_yield() == 0);
    CHECK(annulet_leave() == 0);
    CHECK(annulet_leave() == -ENOENT);
  }
  return 0;
}

static void use_much(void* argument) {
  volatile char much[600 * 1024];
  much[0] = 1;
  much[sizeof(much) - 1] = 1;
  *(int*)argument += much[0] + much[sizeof(much) - 1];
}

static int uses_much(const annulet_options* options) {
  int used = 0;
  annulet_fiber* fiber;
  CHECK(annulet_enter_with(options) == 0);
  CHECK(annulet_spawn(use_much, &used, &fiber) == 0);
  CHECK(annulet_join(fiber) == 0);
  CHECK(used == 2);
  CHECK(annulet_leave() == 0);
  return 0;
}

int scene_options(void) {
  struct {
    annulet_options known;
    uint64_t of_later;
  } newer = {{0}, 0};
  annulet_options options = {0};
  CHECK(annulet_enter_with(NULL) == 0);
  CHECK(annulet_enter_with(NULL) == -EEXIST);
  CHECK(annulet_leave() == 0);

  CHECK(annulet_enter_with(&options) == -EINVAL); /* no size */
  options.size = sizeof(options);
  options.stack_size = 1 << 20;
  CHECK(uses_much(&options) == 0);
  options.stack_size = 1;
  CHECK(annulet_enter_with(&options) == -EINVAL);
  options.stack_size = 1 << 20;
  options.slow_slice = UINT64_MAX;
  CHECK(annulet_enter_with(&options) == -EINVAL);
  options.slow_slice = 0;
  options.reserved = 1;
  CHECK(annulet_enter_with(&options) == -EINVAL);
  options.size = SIZE_MAX;
  CHECK(annulet_enter_with(&options) == -E2BIG);
  options.slow_slice = UINT64_MAX;
  options.size = offsetof(annulet_options, shutdown_limit); /* without what follows */
  CHECK(uses_much(&options) == 0);

  newer.known.size = sizeof(newer);
  newer.known.stack_size = 1 << 20;
  CHECK(uses_much(&newer.known) == 0);
  newer.of_later = 1;
  CHECK(annulet_enter_with(&newer.known) == -E2BIG);
  CHECK(annulet_yield() == -ENOENT);
  return 0;
}

struct exchange {
  int in;
  int out;
  int line;
  unsigned rounds;
};

static int exchange_checked(struct exchange* e) {
  unsigned i;
  for (i = 0; i < e->rounds; ++i) {
    unsigned got = ~0U;
    CHECK(annulet_read(e->in, &got, sizeof(got)) == (ssize_t)sizeof(got));
    CHECK(got == i);
    CHECK(annulet_write(e->out, &i, sizeof(i)) == (ssize_t)sizeof(i));
  }
  return 0;
}

static void exchange_rounds(void* argument) {
  struct exchange* const e = argument;
  e->line = exchange_checked(e);
}

int scene_two_fibers(void) {
  int there[2];
  int back[2];
  annulet_fiber* fiber = NULL;
  struct exchange e;
  unsigned i;
  CHECK(pipe(there) == 0 && pipe(back) == 0);
  CHECK(annulet_enter() == 0);
  e.in = there[0];
  e.out = back[1];
  e.line = -1;
  e.rounds = 100;
  CHECK(annulet_spawn(exchange_rounds, &e, &fiber) == 0);
  CHECK(fiber != NULL);
  for (i = 0; i < e.rounds; ++i) {
    unsigned got = ~0U;
    CHECK(annulet_write(there[1], &i, sizeof(i)) == (ssize_t)sizeof(i));
    CHECK(annulet_read(back[0], &got, sizeof(got)) == (ssize_t)sizeof(got));
    CHECK(got == i);
  }
  CHECK(annulet_join(fiber) == 0);
  CHECK(e.line == 0);
  CHECK(annulet_leave() == 0);
  for (i = 0; i < 2; ++i) {
    CHECK(close(there[i]) == 0 && close(back[i]) == 0);
  }
  return 0;
}

struct killed {
  int fd;
  int line;
};

/* Killed in the first wait: it and each later one that would have to wait say so; what need not wait works.
 */
static int killed_checked(struct killed* k) {
  char byte = 0;
  struct pollfd one;
  struct timespec some;
  annulet_fiber* other = NULL;
  one.fd = k->fd;
  one.events = POLLIN;
  some.tv_sec = 5;
  some.tv_nsec = 0;
  CHECK(annulet_read(k->fd, &byte, 1) == -1 && errno == ECANCELED);
  CHECK(annulet_read(k->fd, &byte, 1) == -1 && errno == ECANCELED);
  CHECK(annulet_poll(&one, 1, -1) == -1 && errno == ECANCELED);
  CHECK(annulet_poll(&one, 1, 0) == 0);
  CHECK(annulet_nanosleep(&some, NULL) == -1 && errno == ECANCELED);
  CHECK(annulet_yield() == -ECANCELED);
  CHECK(annulet_spawn((void (*)(void*))abort, NULL, &other) == 0);
  CHECK(annulet_kill(other) == 0);
  CHECK(annulet_join(other) == -ECANCELED);
  CHECK(annulet_detach(other) == 0);
  CHECK(annulet_close(k->fd) == 0);
  return 0;
}

static void be_killed(void* argument) {
  struct killed* const k = argument;
  k->line = killed_checked(k);
}

int scene_kill(void) {
  int ends[2];
  annulet_fiber* fiber = NULL;
  struct killed k;
  CHECK(pipe(ends) == 0);
  CHECK(annulet_enter() == 0);
  k.fd = ends[0];
  k.line = -1;
  CHECK(annulet_spawn(be_killed, &k, &fiber) == 0);
  CHECK(annulet_usleep(1000) == 0);
  CHECK(annulet_kill(fiber) == 0);
  CHECK(annulet_join(fiber) == 0);
  CHECK(k.line == 0);
  CHECK(annulet_leave() == 0);
  CHECK(close(ends[1]) == 0);
  return 0;
}

int scene_kill_before_begin(void) {
  annulet_fiber* fiber = NULL;
  CHECK(annulet_enter() == 0);
  CHECK(annulet_spawn((void (*)(void*))abort, NULL, &fiber) == 0);
  CHECK(annulet_kill(fiber) == 0);
  CHECK(annulet_kill(fiber) == 0);
  CHECK(annulet_join(fiber) == 0);
  CHECK(annulet_leave() == 0);
  return 0;
}

static annulet_fiber* self_handle;
static int self_line;

static void join_itself(void* argument) {
  (void)argument;
  self_line = annulet_join(self_handle) == -EDEADLK ? 0 : __LINE__;
}

static void leave_from_fiber(void* argument) { *(int*)argument = annulet_leave(); }

int scene_misuse(void) {
  int left = 0;
  CHECK(annulet_enter() == 0);
  CHECK(annulet_spawn(NULL, NULL, NULL) == -EINVAL);
  CHECK(annulet_join(NULL) == -EINVAL && annulet_kill(NULL) == -EINVAL && annulet_detach(NULL) == -EINVAL);
  self_line = -1;
  CHECK(annulet_spawn(join_itself, NULL, &self_handle) == 0);
  CHECK(annulet_yield() == 0);
  CHECK(self_line == 0);
  CHECK(annulet_join(self_handle) == 0);
  CHECK(annulet_spawn(leave_from_fiber, &left, NULL) == 0);
  CHECK(annulet_yield() == 0);
  CHECK(left == -EPERM);
  CHECK(annulet_leave() == 0);
  return 0;
}

static int second_line;

static void join_first(void* argument) { second_line = annulet_join(argument) == 0 ? 0 : __LINE__; }
static void wait_a_moment(void* argument) {
  (void)argument;
  annulet_usleep(1000);
}

int scene_two_who_join(void) {
  annulet_fiber* first = NULL;
  CHECK(annulet_enter() == 0);
  CHECK(annulet_spawn(wait_a_moment, NULL, &first) == 0);
  second_line = -1;
  CHECK(annulet_spawn(join_first, first, NULL) == 0);
  CHECK(annulet_yield() == 0);
  CHECK(annulet_join(first) == -EINVAL);
  CHECK(annulet_usleep(20000) == 0);
  CHECK(second_line == 0);
  CHECK(annulet_leave() == 0);
  return 0;
}

static void end_late(void* argument) {
  (void)argument;
  annulet_sleep(5);
}

int scene_handles_of_a_hub_that_is_gone(void) {
  annulet_fiber* joined = NULL;
  annulet_fiber* detached = NULL;
  CHECK(annulet_enter() == 0);
  CHECK(annulet_spawn(end_late, NULL, &joined) == 0);
  CHECK(annulet_spawn(end_late, NULL, &detached) == 0);
  CHECK(annulet_leave() == 0);
  CHECK(annulet_kill(joined) == 0);
  CHECK(annulet_join(joined) == 0);
  CHECK(annulet_detach(detached) == 0);
  return 0;
}

static int child_checked(int fd, annulet_fiber* of_parent) {
  char byte = 0;
  struct pollfd one;
  one.fd = fd;
  one.events = POLLIN;
  CHECK(annulet_fiber_self() == 0);
  CHECK(annulet_kill(of_parent) == 0);
  CHECK(annulet_join(of_parent) == 0);
  CHECK(annulet_poll(&one, 1, 2) == 0);
  CHECK(annulet_usleep(100) == 0);
  CHECK(annulet_leave() == -ENOENT);
  CHECK(annulet_enter() == 0);
  CHECK(annulet_poll(&one, 1, 2) == 0);
  CHECK(annulet_leave() == 0);
  (void)byte;
  return 0;
}

int scene_in_forked_child(void) {
  int ends[2];
  int status = 0;
  pid_t child = 0;
  annulet_fiber* waits = NULL;
  CHECK(pipe(ends) == 0);
  CHECK(annulet_enter() == 0);
  CHECK(annulet_spawn(end_late, NULL, &waits) == 0);
  child = fork();
  if (child == 0) {
    _exit(child_checked(ends[0], waits) == 0 ? 0 : 1);
  }
  CHECK(child > 0);
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK(annulet_kill(waits) == 0);
  CHECK(annulet_join(waits) == 0);
  CHECK(annulet_leave() == 0);
  CHECK(close(ends[0]) == 0 && close(ends[1]) == 0);
  return 0;
}
