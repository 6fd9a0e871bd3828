/* The standard names in a child that no handler of fork has seen (_Fork), of a program with a hub whose
 * fibers wait and are ready: there they are the plain calls, and the parent's fibers go on in the parent.
 * Says which call of the child's was wrong, by its exit status; 0 where none was. */
#define _GNU_SOURCE

#include <annulet/hub/c.h>

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

pid_t _Fork(void); /* glibc 2.34 has it, POSIX since 2024 */

static int silent[2];  /* nothing comes here in the child */
static int talking[2]; /* a pair of sockets */
static int ran;

static void waits(void* got) {
  char byte;
  *(int*)got = (int)read(silent[0], &byte, 1);
}

static void is_ready(void* nothing) {
  (void)nothing;
  ++ran;
}

static long milliseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int waits_for_nothing(void) {
  struct pollfd one = {silent[0], POLLIN, 0};
  const struct timespec time = {0, 20 * 1000 * 1000};
  struct timeval limit = {0, 20 * 1000};
  fd_set set;
  FD_ZERO(&set);
  FD_SET(silent[0], &set);
  fd_set again = set;
  struct epoll_event event = {EPOLLIN, {0}};
  const int epoll = epoll_create1(0);
  const long begun = milliseconds();
  return epoll_ctl(epoll, EPOLL_CTL_ADD, silent[0], &event) == 0 && poll(&one, 1, 20) == 0 &&
         ppoll(&one, 1, &time, NULL) == 0 && select(silent[0] + 1, &set, NULL, NULL, &limit) == 0 &&
         pselect(silent[0] + 1, &again, NULL, NULL, &time, NULL) == 0 &&
         epoll_wait(epoll, &event, 1, 20) == 0 && epoll_pwait(epoll, &event, 1, 20, NULL) == 0 &&
         usleep(20000) == 0 && nanosleep(&time, NULL) == 0 &&
         clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL) == 0 && milliseconds() - begun >= 9 * 20;
}

static int transfers(void) {
  char byte = 'x';
  struct iovec part = {&byte, 1};
  struct msghdr message = {0};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  return write(talking[1], "x", 1) == 1 && read(talking[0], &byte, 1) == 1 &&
         writev(talking[1], &part, 1) == 1 && readv(talking[0], &part, 1) == 1 &&
         send(talking[1], "x", 1, 0) == 1 && recv(talking[0], &byte, 1, 0) == 1 &&
         sendto(talking[1], "x", 1, 0, NULL, 0) == 1 && recvfrom(talking[0], &byte, 1, 0, NULL, NULL) == 1 &&
         sendmsg(talking[1], &message, 0) == 1 && recvmsg(talking[0], &message, 0) == 1;
}

static int resolves(void) {
  struct addrinfo hints = {0};
  hints.ai_flags = AI_NUMERICHOST;
  struct addrinfo* found = NULL;
  const int right = getaddrinfo("127.0.0.1", "80", &hints, &found) == 0;
  if (right) {
    freeaddrinfo(found);
  }
  return right;
}

static int closes(void) {
  for (int fd = 3; fd < 1024; ++fd) {
    close(fd);
  }
  return close(talking[0]) == -1 && errno == EBADF;
}

int main(void) {
  int got = -2;
  annulet_fiber* waiter = NULL;
  annulet_fiber* ready = NULL;
  if (annulet_enter() != 0 || pipe(silent) != 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, talking) != 0 ||
      annulet_spawn(waits, &got, &waiter) != 0 || annulet_yield() != 0 ||
      annulet_spawn(is_ready, NULL, &ready) != 0) {
    return 64;
  }
  const pid_t child = _Fork();
  if (child == 0) {
    const int wrong = !waits_for_nothing() ? 1 : !transfers() ? 2 : !resolves() ? 3 : ran != 0 ? 4 : 0;
    _exit(wrong != 0 ? wrong : !closes() ? 5 : 0);
  }
  int status = -1;
  if (waitpid(child, &status, 0) != child || write(silent[1], "x", 1) != 1 || annulet_join(waiter) != 0 ||
      annulet_join(ready) != 0) {
    return 65;
  }
  printf("child: %d, parent: %d %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1, got, ran);
  return annulet_leave() == 0 ? 0 : 66;
}
