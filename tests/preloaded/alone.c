/* A program of threads that makes no hub: what it prints and how it ends must not depend on what is
 * preloaded. usage: alone forks|execs|daemonizes|closes_all|blocks_signals|is_cancelled|calls_at_exit */
#define _GNU_SOURCE

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void exchange(const char* who) {
  int pair[2];
  char got[8] = "";
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0 || write(pair[0], who, strlen(who)) < 0) {
    abort();
  }
  struct pollfd ready = {pair[1], POLLIN, 0};
  const int found = poll(&ready, 1, 1000);
  const ssize_t size = recv(pair[1], got, sizeof(got) - 1, 0);
  close(pair[0]);
  const ssize_t end = read(pair[1], got + size, 1);
  close(pair[1]);
  printf("%s: %d %d %s %d\n", who, found, (int)size, got, (int)end);
  fflush(stdout);
}

static int end_of(pid_t child) {
  int status = 0;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int forks(void) {
  const pid_t child = fork();
  if (child == 0) {
    exchange("child");
    _exit(3);
  }
  printf("ended with %d\n", end_of(child));
  exchange("parent");
  return 0;
}

static int execs(void) {
  execl("/bin/sh", "sh", "-c", "echo from the shell | cat; exit 5", (char*)NULL);
  return 1;
}

static int daemonizes(void) {
  int done[2];
  if (pipe(done) != 0) {
    return 1;
  }
  const pid_t child = fork();
  if (child == 0) {
    if (daemon(1, 1) != 0) {
      _exit(1);
    }
    exchange("daemon");
    _exit(write(done[1], "d", 1) == 1 ? 0 : 1);
  }
  close(done[1]);
  char byte = 0;
  const ssize_t told = read(done[0], &byte, 1);
  printf("%d %c\n", (int)told, byte);
  return end_of(child);
}

static int closes_all(void) {
  for (int fd = 3; fd < 256; ++fd) {
    close(fd);
  }
  exchange("after");
  return close(200) == -1 && errno == EBADF ? 0 : 1;
}

static void* wait_without_signals(void* argument) {
  (void)argument;
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, NULL);
  exchange("thread");
  return NULL;
}

static int handled = 0;
static void handle(int signal) {
  (void)signal;
  ++handled;
}

static int blocks_signals(void) {
  pthread_t thread;
  struct sigaction action;
  memset(&action, 0, sizeof(action));
  action.sa_handler = handle;
  sigaction(SIGALRM, &action, NULL);
  if (pthread_create(&thread, NULL, wait_without_signals, NULL) != 0 || pthread_join(thread, NULL) != 0) {
    return 1;
  }
  alarm(1);
  const int slept = poll(NULL, 0, 5000);
  printf("%d %d %d\n", slept, errno, handled);
  return 0;
}

static void* wait_for_ever(void* reading) {
  char byte = 0;
  return read(*(int*)reading, &byte, 1) == 0 ? NULL : reading;
}

static int is_cancelled(void) {
  int ends[2];
  pthread_t thread;
  void* result = NULL;
  if (pipe(ends) != 0 || pthread_create(&thread, NULL, wait_for_ever, &ends[0]) != 0) {
    return 1;
  }
  pthread_cancel(thread);
  pthread_join(thread, &result);
  printf("cancelled: %d\n", result == PTHREAD_CANCELED);
  return 0;
}

static void call_at_exit(void) { exchange("at exit"); }

static int calls_at_exit(void) {
  atexit(call_at_exit);
  exchange("main");
  return 6;
}

static const struct {
  const char* name;
  int (*run)(void);
} acts[] = {
    {"forks", forks},
    {"execs", execs},
    {"daemonizes", daemonizes},
    {"closes_all", closes_all},
    {"blocks_signals", blocks_signals},
    {"is_cancelled", is_cancelled},
    {"calls_at_exit", calls_at_exit},
};

int main(int argc, char** argv) {
  for (size_t i = 0; argc == 2 && i < sizeof(acts) / sizeof(*acts); ++i) {
    if (strcmp(argv[1], acts[i].name) == 0) {
      return acts[i].run();
    }
  }
  return 64;
}
