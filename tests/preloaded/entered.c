/* A program that makes a hub and calls the standard names only, with libannulet-posix before libc. Prints
 * what came of it. usage: entered ACT, one of those at the end. */
#define _GNU_SOURCE

#include <annulet/hub/c.h>

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static int beats = 0;

static void beat(void* times) {
  for (int i = *(int*)times; i > 0; --i) {
    if (usleep(10 * 1000) != 0) {
      return;
    }
    ++beats;
  }
}

static annulet_fiber* spawned(void (*run)(void*), void* argument) {
  annulet_fiber* fiber = NULL;
  if (annulet_spawn(run, argument, &fiber) != 0) {
    abort();
  }
  return fiber;
}

static void parks_in(const char* call, int waits, int before) {
  printf("%s: %d, %s\n", call, waits, beats > before ? "others ran" : "nobody ran");
}

static int parks(void) {
  int times = 1000;
  int pair[2];
  char byte = 0;
  annulet_fiber* const ticker = spawned(beat, &times);
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) {
    return 1;
  }
  struct pollfd none = {pair[0], POLLIN, 0};
  int before = beats;
  parks_in("poll", poll(&none, 1, 50), before);
  before = beats;
  fd_set reads;
  FD_ZERO(&reads);
  FD_SET(pair[0], &reads);
  struct timeval some = {0, 50 * 1000};
  parks_in("select", select(pair[0] + 1, &reads, NULL, NULL, &some), before);
  before = beats;
  const struct timeval limit = {0, 50 * 1000};
  setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  parks_in("recv", (int)recv(pair[0], &byte, 1, 0), before);
  before = beats;
  parks_in("read", (int)read(pair[0], &byte, 1), before);
  before = beats;
  parks_in("sleep", (int)sleep(1), before);
  annulet_kill(ticker);
  return annulet_join(ticker);
}

extern int answers_freed;

struct question {
  const char* node;
  int result;
  int error;
};

static void resolve(void* argument) {
  struct question* const mine = argument;
  struct addrinfo* answer = NULL;
  const struct addrinfo hints = {.ai_socktype = 7};
  mine->result = getaddrinfo(mine->node, "80", &hints, &answer);
  mine->error = errno;
  if (mine->result == 0) {
    mine->result = answer->ai_socktype == 7 ? 0 : 1000;
    freeaddrinfo(answer);
  }
}

static int resolves(void) {
  int times = 10;
  struct question known = {"known", 1, 0};
  struct question unknown = {"unknown", 1, 0};
  struct question broken = {"broken", 1, 0};
  annulet_fiber* const all[] = {spawned(resolve, &known), spawned(resolve, &unknown),
                                spawned(resolve, &broken), spawned(beat, &times)};
  for (int i = 0; i < 4; ++i) {
    annulet_join(all[i]);
  }
  printf("%d %d %d %d %d\n", known.result, unknown.result == EAI_NONAME, broken.result == EAI_SYSTEM,
         broken.error == EIO, beats);
  return 0;
}

static int is_killed_resolving(void) {
  struct question killed = {"known", 1, 0};
  annulet_fiber* const fiber = spawned(resolve, &killed);
  usleep(100 * 1000);
  annulet_kill(fiber);
  annulet_join(fiber);
  const int too_early = answers_freed;
  usleep(400 * 1000);
  printf("%d %d, freed %d then %d\n", killed.result == EAI_SYSTEM, killed.error == ECANCELED, too_early,
         answers_freed);
  return 0;
}

static struct question of_handler = {"known", 1, 0};

static void resolve_in_handler(int signal) {
  (void)signal;
  resolve(&of_handler);
}

static int resolves_in_handler(void) {
  int times = 10;
  annulet_fiber* const ticker = spawned(beat, &times);
  signal(SIGUSR1, resolve_in_handler);
  annulet_yield();
  raise(SIGUSR1);
  const int before = beats;
  annulet_join(ticker);
  printf("%d, beats %d then %d\n", of_handler.result, before, beats);
  return 0;
}

static int end_of(pid_t child) {
  int status = 0;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* A child has no hub, makes plain calls, and may make its own. */
static int in_child(void) {
  if (annulet_yield() != -ENOENT || poll(NULL, 0, 1) != 0 || annulet_enter() != 0) {
    return 1;
  }
  int times = 5;
  beats = 0;
  annulet_fiber* const ticker = spawned(beat, &times);
  return annulet_join(ticker) == 0 && beats == 5 && annulet_leave() == 0 ? 4 : 2;
}

static int forks(void) {
  int times = 30;
  annulet_fiber* const ticker = spawned(beat, &times);
  usleep(50 * 1000);
  const pid_t child = fork();
  if (child == 0) {
    _exit(in_child());
  }
  printf("child ended with %d\n", end_of(child));
  annulet_join(ticker);
  printf("%d beats\n", beats);
  return 0;
}

/* Also from the descriptors that the hub uses itself. */
static int closes_all(void) {
  int times = 10;
  int ends[2];
  annulet_fiber* const ticker = spawned(beat, &times);
  usleep(20 * 1000);
  if (pipe(ends) != 0) {
    return 1;
  }
  for (int fd = 3; fd < 256; ++fd) {
    close(fd);
  }
  annulet_join(ticker);
  printf("%d, %d beats\n", write(ends[1], "x", 1) == -1 && errno == EBADF, beats);
  return 0;
}

/* What closes nothing by the names takes what the hub lives on; here while it waits to be woken. */
static void close_behind(void* argument) {
  (void)argument;
  usleep(20 * 1000);
  closefrom(3);
}

static int closes_behind(void) {
  struct question asked = {"known", 0, 0};
  annulet_detach(spawned(close_behind, NULL));
  resolve(&asked);
  return 0;
}

static void write_later(void* fd) {
  usleep(100 * 1000);
  (void)!write(*(const int*)fd, "x", 1);
}

static void note_signal(int signal) { (void)signal; }

/* From another process, so that no fiber runs when it comes. */
static void send_later(int signal) {
  const pid_t parent = getpid();
  if (fork() == 0) {
    usleep(50 * 1000);
    _exit(kill(parent, signal));
  }
}

static int is_interrupted(void) {
  struct sigaction action = {.sa_handler = note_signal};
  int ends[2];
  char byte = 0;
  if (pipe(ends) != 0) {
    return 1;
  }
  struct pollfd none = {ends[0], POLLIN, 0};
  sigaction(SIGUSR1, &action, NULL);
  send_later(SIGUSR1);
  const int polled = poll(&none, 1, 5000) == -1 && errno == EINTR;
  send_later(SIGUSR1);
  const int was_read = read(ends[0], &byte, 1) == -1 && errno == EINTR;
  action.sa_flags = SA_RESTART;
  sigaction(SIGUSR1, &action, NULL);
  send_later(SIGUSR1);
  annulet_fiber* const writer = spawned(write_later, &ends[1]);
  const int went_on = read(ends[0], &byte, 1) == 1;
  annulet_join(writer);
  printf("%d %d %d\n", polled, was_read, went_on);
  return 0;
}

static int blocks_signals(void) {
  sigset_t all, before;
  const struct sigaction action = {.sa_handler = note_signal};
  sigaction(SIGUSR1, &action, NULL);
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &before);
  send_later(SIGUSR1);
  const int undisturbed = poll(NULL, 0, 100) == 0;
  const struct timespec long_time = {5, 0};
  const int let_in = ppoll(NULL, 0, &long_time, &before) == -1 && errno == EINTR;
  sigset_t now;
  sigprocmask(SIG_SETMASK, NULL, &now);
  printf("%d %d %d\n", undisturbed, let_in, sigismember(&now, SIGUSR1));
  return 0;
}

static void become_shell(void* argument) {
  (void)argument;
  execl("/bin/sh", "sh", "-c", "ls -l /proc/self/fd | grep -c 'anon_inode\\|socket'", NULL);
}

static int execs(void) {
  int times = 100;
  spawned(beat, &times);
  annulet_join(spawned(become_shell, NULL));
  return 1;
}

static int exits_resolving(void) {
  struct question asked = {"known", 1, 0};
  spawned(resolve, &asked);
  usleep(50 * 1000);
  exit(6);
}

static int daemonizes(void) {
  int done[2];
  if (pipe(done) != 0) {
    return 1;
  }
  const pid_t child = fork();
  if (child == 0) {
    const int became = daemon(1, 1);
    for (int fd = 3; fd < 256; ++fd) {
      if (fd != done[1]) {
        close(fd);
      }
    }
    const char found = became == 0 && in_child() == 4 ? 'd' : 'x';
    _exit(write(done[1], &found, 1) == 1 ? 0 : 1);
  }
  char byte = 0;
  close(done[1]);
  const ssize_t told = read(done[0], &byte, 1);
  printf("%d %c, %d\n", (int)told, byte, end_of(child));
  return 0;
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void lock_and_wait(void* argument) {
  (void)argument;
  pthread_mutex_lock(&lock);
  usleep(100 * 1000);
  pthread_mutex_unlock(&lock);
}

static void* lock_in_thread(void* argument) {
  lock_and_wait(argument);
  return NULL;
}

/* One fiber and other threads may; another fiber of the thread is told by trylock. */
static int locks(void) {
  pthread_t thread;
  annulet_fiber* const holder = spawned(lock_and_wait, NULL);
  annulet_yield();
  const int busy = pthread_mutex_trylock(&lock) == EBUSY;
  pthread_create(&thread, NULL, lock_in_thread, NULL);
  annulet_join(holder);
  pthread_join(thread, NULL);
  printf("%d %d\n", busy, pthread_mutex_trylock(&lock));
  return 0;
}

static int kept[2];
static void write_at_exit(void) {
  char byte = 0;
  const int wrote = (int)write(kept[1], "x", 1);
  printf("at exit: %d %d\n", wrote, (int)read(kept[0], &byte, 1));
}

static void end_here(void* argument) {
  (void)argument;
  exit(7);
}

/* With the hub alive, and from a fiber. */
static int calls_at_exit(void) {
  if (pipe(kept) != 0 || atexit(write_at_exit) != 0) {
    return 1;
  }
  annulet_join(spawned(end_here, NULL));
  return 1;
}

static void read_one(void* argument) {
  char byte = 0;
  beats += (int)read(*(int*)argument, &byte, 1);
}

/* The child of a vfork has this process's memory, and descriptors of its own. */
static void turn(void* turns) {
  while (annulet_yield() == 0) {
    ++*(int*)turns;
  }
}

static int vforks(void) {
  int ends[2];
  if (pipe(ends) != 0) {
    return 1;
  }
  annulet_fiber* const reader = spawned(read_one, &ends[0]);
  annulet_yield();
  /* A peer that accepts nothing, so that a thread would wait for some time. */
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof(address);
  const int client = socket(AF_INET, SOCK_STREAM, 0);
  const struct linger a_second = {1, 1};
  static char much[1 << 16];
  if (bind(listener, (const struct sockaddr*)&address, size) != 0 || listen(listener, 1) != 0 ||
      getsockname(listener, (struct sockaddr*)&address, &size) != 0 ||
      connect(client, (const struct sockaddr*)&address, size) != 0 ||
      setsockopt(client, SOL_SOCKET, SO_LINGER, &a_second, sizeof(a_second)) != 0) {
    return 2;
  }
  while (send(client, much, sizeof(much), MSG_DONTWAIT) > 0) {
  }
  const int null = open("/dev/null", O_WRONLY);
  int turns = 0;
  annulet_fiber* const busy = spawned(turn, &turns);
  annulet_yield();
  const int before = turns;
  const pid_t child = vfork();
  if (child == 0) {
    for (int i = 0; i < 5000; ++i) {
      (void)!write(null, "x", 1);
    }
    close(client);
    close(ends[0]);
    close(ends[1]);
    _exit(turns == before ? 5 : 6);
  }
  annulet_kill(busy);
  annulet_join(busy);
  close(client);
  close(listener);
  close(null);
  const int ended = end_of(child);
  const int wrote = (int)write(ends[1], "x", 1);
  annulet_join(reader);
  printf("%d %d %d\n", ended, wrote, beats);
  return 0;
}

static const struct {
  const char* name;
  int (*run)(void);
} acts[] = {
    {"parks", parks},
    {"resolves", resolves},
    {"is_killed_resolving", is_killed_resolving},
    {"forks", forks},
    {"daemonizes", daemonizes},
    {"closes_all", closes_all},
    {"closes_behind", closes_behind},
    {"is_interrupted", is_interrupted},
    {"blocks_signals", blocks_signals},
    {"execs", execs},
    {"exits_resolving", exits_resolving},
    {"resolves_in_handler", resolves_in_handler},
    {"locks", locks},
    {"calls_at_exit", calls_at_exit},
    {"vforks", vforks},
};

int main(int argc, char** argv) {
  for (size_t i = 0; argc == 2 && i < sizeof(acts) / sizeof(*acts); ++i) {
    if (strcmp(argv[1], acts[i].name) == 0) {
      const int entered = annulet_enter();
      const int status = acts[i].run();
      const int left = annulet_leave();
      fflush(stdout);
      return entered == 0 && left == 0 ? status : 99;
    }
  }
  return 64;
}
