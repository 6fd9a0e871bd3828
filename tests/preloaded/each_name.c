/* Each of the standard names in a call that waits, in a fiber, with libannulet-posix before libc: others must
 * run meanwhile. Says of each what it returned and whether they did.
 * usage: each_name done (another fiber does what is waited for) or killed (it kills the fiber) */
#define _GNU_SOURCE

#include <annulet/hub/c.h>

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* What the compiler makes of calls whose buffer it knows. */
int __poll_chk(struct pollfd* fds, nfds_t count, int milliseconds, size_t size);
int __ppoll_chk(struct pollfd* fds, nfds_t count, const struct timespec* time, const sigset_t* mask,
                size_t size);
ssize_t __read_chk(int fd, void* into, size_t size, size_t room);
ssize_t __recv_chk(int fd, void* into, size_t size, size_t room, int flags);
ssize_t __recvfrom_chk(int fd, void* into, size_t size, size_t room, int flags, struct sockaddr* from,
                       socklen_t* from_size);

static int reads; /* nothing comes until something is sent here: */
static int sends_to_reads;
static int writes; /* full, until something is taken from here: */
static int takes_from_writes;
static int listens; /* nobody connects until somebody does */
static struct sockaddr_in where_it_listens;
static int does_not_take; /* has room for no more connections, until one is accepted */
static struct sockaddr_un where_it_does_not;
static int lingers; /* if it is told to, closing it waits until its peer has taken all: */
static int takes_from_lingers;
static char byte;
static char much[1 << 20];

static int required(int result) {
  if (result < 0) {
    perror("each_name");
    exit(3);
  }
  return result;
}

static void fill(int fd) {
  while (send(fd, much, sizeof(much), MSG_DONTWAIT) > 0) {
  }
}

static int connected(void) {
  const int fd = required(socket(AF_INET, SOCK_STREAM, 0));
  required(connect(fd, (struct sockaddr*)&where_it_listens, sizeof(where_it_listens)));
  return fd;
}

static void open_all(void) {
  int pair[2];
  required(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  reads = pair[0];
  sends_to_reads = pair[1];
  required(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  writes = pair[0];
  takes_from_writes = pair[1];
  fill(writes);

  socklen_t size = sizeof(where_it_listens);
  listens = required(socket(AF_INET, SOCK_STREAM, 0));
  where_it_listens = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  required(bind(listens, (struct sockaddr*)&where_it_listens, size));
  required(listen(listens, 8));
  required(getsockname(listens, (struct sockaddr*)&where_it_listens, &size));

  does_not_take = required(socket(AF_UNIX, SOCK_STREAM, 0));
  where_it_does_not = (struct sockaddr_un){.sun_family = AF_UNIX};
  snprintf(where_it_does_not.sun_path + 1, sizeof(where_it_does_not.sun_path) - 1, "each_name.%d", getpid());
  required(bind(does_not_take, (struct sockaddr*)&where_it_does_not, sizeof(where_it_does_not)));
  required(listen(does_not_take, 0));
  const int first = required(socket(AF_UNIX, SOCK_STREAM, 0));
  required(connect(first, (struct sockaddr*)&where_it_does_not, sizeof(where_it_does_not)));

  lingers = connected();
  takes_from_lingers = required(accept(listens, NULL, NULL));
  fill(lingers);
}

static void send_to_reader(void) { required((int)send(sends_to_reads, "x", 1, 0)); }
static void take_from_writer(void) {
  while (recv(takes_from_writes, much, sizeof(much), MSG_DONTWAIT) > 0) {
  }
}
static void connect_to_listener(void) { connected(); }
static void take_connection(void) { required(accept(does_not_take, NULL, NULL)); }
static void take_from_lingerer(void) {
  while (recv(takes_from_lingers, much, sizeof(much), 0) > 0) {
  }
}
static void do_nothing(void) {}

static struct pollfd readable;
static struct iovec one;
static struct msghdr message;
static struct epoll_event event;
static int epoll;
static const struct timespec a_while = {0, 300 * 1000 * 1000};

static int call_poll(void) { return poll(&readable, 1, -1); }
static int call_ppoll(void) { return ppoll(&readable, 1, NULL, NULL); }
static int call_poll_chk(void) { return __poll_chk(&readable, 1, -1, sizeof(readable)); }
static int call_ppoll_chk(void) { return __ppoll_chk(&readable, 1, NULL, NULL, sizeof(readable)); }
static int call_select(void) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(reads, &set);
  return select(reads + 1, &set, NULL, NULL, NULL);
}
static int call_pselect(void) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(reads, &set);
  return pselect(reads + 1, &set, NULL, NULL, NULL, NULL);
}
static int call_epoll_wait(void) { return epoll_wait(epoll, &event, 1, -1); }
static int call_epoll_pwait(void) { return epoll_pwait(epoll, &event, 1, -1, NULL); }
static int call_epoll_pwait2(void) { return epoll_pwait2(epoll, &event, 1, NULL, NULL); }
static int call_sleep(void) { return (int)sleep(1); }
static int call_usleep(void) { return usleep(300 * 1000); }
static int call_nanosleep(void) { return nanosleep(&a_while, NULL); }
static int call_clock_nanosleep(void) { return clock_nanosleep(CLOCK_MONOTONIC, 0, &a_while, NULL); }
static int call_read(void) { return (int)read(reads, &byte, 1); }
static int call_read_chk(void) { return (int)__read_chk(reads, &byte, 1, 1); }
static int call_readv(void) { return (int)readv(reads, &one, 1); }
static int call_recv(void) { return (int)recv(reads, &byte, 1, 0); }
static int call_recv_chk(void) { return (int)__recv_chk(reads, &byte, 1, 1, 0); }
static int call_recvfrom(void) { return (int)recvfrom(reads, &byte, 1, 0, NULL, NULL); }
static int call_recvfrom_chk(void) { return (int)__recvfrom_chk(reads, &byte, 1, 1, 0, NULL, NULL); }
static int call_recvmsg(void) { return (int)recvmsg(reads, &message, 0); }
static int call_write(void) { return (int)write(writes, "x", 1); }
static int call_writev(void) { return (int)writev(writes, &one, 1); }
static int call_send(void) { return (int)send(writes, "x", 1, 0); }
static int call_sendto(void) { return (int)sendto(writes, "x", 1, 0, NULL, 0); }
static int call_sendmsg(void) { return (int)sendmsg(writes, &message, 0); }
static int call_accept(void) { return accept(listens, NULL, NULL) > 0 ? 1 : -1; }
static int call_accept4(void) { return accept4(listens, NULL, NULL, SOCK_CLOEXEC) > 0 ? 1 : -1; }
static int call_connect(void) {
  const int fd = required(socket(AF_UNIX, SOCK_STREAM, 0));
  return connect(fd, (struct sockaddr*)&where_it_does_not, sizeof(where_it_does_not));
}
static int call_close(void) {
  const struct linger for_long = {1, 10};
  required(setsockopt(lingers, SOL_SOCKET, SO_LINGER, &for_long, sizeof(for_long)));
  return close(lingers);
}
static int call_getaddrinfo(void) {
  struct addrinfo* answer = NULL;
  const struct addrinfo hints = {.ai_socktype = 7};
  const int found = getaddrinfo("known", "80", &hints, &answer);
  if (found == 0) {
    freeaddrinfo(answer);
  }
  return found == EAI_SYSTEM ? -1 : found;
}

static const struct act {
  const char* name;
  int (*call)(void);
  void (*end)(void); /* what it waits for */
} acts[] = {
    {"poll", call_poll, send_to_reader},
    {"ppoll", call_ppoll, send_to_reader},
    {"__poll_chk", call_poll_chk, send_to_reader},
    {"__ppoll_chk", call_ppoll_chk, send_to_reader},
    {"select", call_select, send_to_reader},
    {"pselect", call_pselect, send_to_reader},
    {"epoll_wait", call_epoll_wait, send_to_reader},
    {"epoll_pwait", call_epoll_pwait, send_to_reader},
    {"epoll_pwait2", call_epoll_pwait2, send_to_reader},
    {"sleep", call_sleep, do_nothing},
    {"usleep", call_usleep, do_nothing},
    {"nanosleep", call_nanosleep, do_nothing},
    {"clock_nanosleep", call_clock_nanosleep, do_nothing},
    {"read", call_read, send_to_reader},
    {"__read_chk", call_read_chk, send_to_reader},
    {"readv", call_readv, send_to_reader},
    {"recv", call_recv, send_to_reader},
    {"__recv_chk", call_recv_chk, send_to_reader},
    {"recvfrom", call_recvfrom, send_to_reader},
    {"__recvfrom_chk", call_recvfrom_chk, send_to_reader},
    {"recvmsg", call_recvmsg, send_to_reader},
    {"write", call_write, take_from_writer},
    {"writev", call_writev, take_from_writer},
    {"send", call_send, take_from_writer},
    {"sendto", call_sendto, take_from_writer},
    {"sendmsg", call_sendmsg, take_from_writer},
    {"accept", call_accept, connect_to_listener},
    {"accept4", call_accept4, connect_to_listener},
    {"connect", call_connect, take_connection},
    {"close", call_close, take_from_lingerer},
    {"getaddrinfo", call_getaddrinfo, do_nothing},
};

struct made {
  const struct act* what;
  int result;
  int error;
};

static void make(void* argument) {
  struct made* const mine = argument;
  errno = 0;
  mine->result = mine->what->call();
  mine->error = mine->result < 0 || errno == ECANCELED ? errno : 0;
}

/* The call has begun, and this one sleeps and wakes beside it. */
static void say(const struct act* what, int kills) {
  struct made mine = {what, 0, 0};
  annulet_fiber* fiber = NULL;
  open_all();
  readable = (struct pollfd){reads, POLLIN, 0};
  one = (struct iovec){&byte, 1};
  message = (struct msghdr){.msg_iov = &one, .msg_iovlen = 1};
  epoll = required(epoll_create1(EPOLL_CLOEXEC));
  event = (struct epoll_event){.events = EPOLLIN};
  required(epoll_ctl(epoll, EPOLL_CTL_ADD, reads, &event));
  if (annulet_spawn(make, &mine, &fiber) != 0) {
    exit(3);
  }
  enum { not_yet = -2 };
  mine.result = not_yet;
  int beats = 0;
  for (; beats < 5; ++beats) {
    usleep(1000);
    if (mine.result != not_yet) {
      break;
    }
  }
  if (kills) {
    annulet_kill(fiber);
  }
  if (!kills || what->call == call_close) {
    what->end();
  }
  annulet_join(fiber);
  printf("%s %s %d %s\n", what->name, beats > 0 ? "parked" : "did not", mine.result,
         mine.error == 0 ? "0" : strerrorname_np(mine.error));
}

int main(int argc, char** argv) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (argc != 2 || annulet_enter() != 0) {
    return 64;
  }
  for (size_t i = 0; i < sizeof(acts) / sizeof(*acts); ++i) {
    say(&acts[i], strcmp(argv[1], "killed") == 0);
    for (int fd = 3; fd < 256; ++fd) {
      close(fd);
    }
  }
  return annulet_leave() == 0 ? 0 : 5;
}
