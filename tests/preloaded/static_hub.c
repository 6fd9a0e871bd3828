/* A hub of the static libannulet beside libannulet-posix, which knows only those of the shared one: the
 * standard names do what they do without a hub, whichever of the two copies a name is found in. Two fibers
 * wait for 90 ms each, so that plain calls take twice that. */
#define _GNU_SOURCE

#include <annulet/hub/c.h>
#include <annulet/selector/posix.h>

#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifdef CALLS_BY_OUR_NAME
#define ITS_POLL annulet_poll
#else
#define ITS_POLL poll
#endif

static int ends[2];
static int right;

static void calls(void* nothing) {
  (void)nothing;
  struct pollfd one = {ends[0], POLLIN, 0};
  struct timeval limit = {0, 10 * 1000};
  const struct timespec time = {0, 10 * 1000 * 1000};
  struct epoll_event event = {EPOLLIN, {0}};
  struct addrinfo hints = {0};
  struct addrinfo* found = NULL;
  char byte;
  fd_set set;
  FD_ZERO(&set);
  FD_SET(ends[0], &set);
  const int epoll = epoll_create1(0);
  hints.ai_flags = AI_NUMERICHOST;
  right += poll(&one, 1, 50) == 0;
  right += select(ends[0] + 1, &set, NULL, NULL, &limit) == 0;
  right += epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event) == 0 && epoll_wait(epoll, &event, 1, 10) == 0;
  right += nanosleep(&time, NULL) == 0 && usleep(10000) == 0;
  right += write(ends[1], "x", 1) == 1 && read(ends[0], &byte, 1) == 1;
  right += send(ends[1], "x", 1, 0) == 1 && recv(ends[0], &byte, 1, 0) == 1;
  right += getaddrinfo("127.0.0.1", "80", &hints, &found) == 0;
  freeaddrinfo(found);
  right += close(epoll) == 0;
  right += ITS_POLL(&one, 1, 0) == 0;
}

static long milliseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int main(void) {
  annulet_fiber* fibers[2];
  if (annulet_enter() != 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) {
    return 64;
  }
  const long begun = milliseconds();
  for (int i = 0; i < 2; ++i) {
    if (annulet_spawn(calls, NULL, &fibers[i]) != 0) {
      return 65;
    }
  }
  const int joined = annulet_join(fibers[0]) == 0 && annulet_join(fibers[1]) == 0;
  printf("%d right, %s\n", right, milliseconds() - begun >= 178 ? "one after the other" : "at once");
  return joined && annulet_leave() == 0 ? 0 : 66;
}
